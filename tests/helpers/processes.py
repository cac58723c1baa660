"""What a test does to the processes of a server, beyond ending them."""

import os
import signal
from pathlib import Path

from helpers.waiting import until

__all__ = ["freeze"]


def freeze(process: int) -> None:
    """Stop a process (SIGSTOP), and wait until all its threads have: they do so one by one, and accept until then."""
    os.kill(process, signal.SIGSTOP)
    until(lambda: _states(process) == {"T"}, f"process {process} to stop")


def _states(process: int) -> set[str]:
    """Tell the states of its threads (proc_pid_stat(5)); the name before may have any character in it."""
    try:
        return {stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{process}/task").glob("*/stat")}
    except (FileNotFoundError, ProcessLookupError):  # a thread has ended meanwhile
        return set()
