"""What `tabi serve` sees to before it serves."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from helpers.serving import command
from helpers.waiting import PATIENCE, until


def soft_limit(pid: int) -> int:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Max open files")).split()[3])


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

    with command(preexec_fn=lower) as running:
        running.ports()
        assert soft_limit(running.process.pid) == hard


def test_closed_standard_descriptors_are_not_given_to_clients() -> None:
    program = (
        "import os; os.closerange(0, 3); from tabi.cli.main import main; main(['serve', '--listen', '127.0.0.1:0'])"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        proc = Path(f"/proc/{process.pid}")

        def handles_sigterm() -> bool:
            caught = next(line for line in (proc / "status").read_text().splitlines() if line.startswith("SigCgt"))
            return bool(int(caught.split()[1], 16) & 1 << (signal.SIGTERM - 1))

        until(handles_sigterm, "the server to start")
        assert [os.readlink(proc / "fd" / str(fd)) for fd in range(3)] == ["/dev/null"] * 3
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0
