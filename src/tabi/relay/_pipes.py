"""Pipes to splice through: pooled, of one size, and within what the kernel grants a user.

An ordinary user may hold fs.pipe-user-pages-soft pages in pipes, over all processes; beyond that a pipe is
made with two pages and cannot grow (pipe(7)). Such a pipe is slower than copying, so there is none instead.
"""

import fcntl
import os
from pathlib import Path
from typing import Final

__all__ = ["PIPE_SIZE", "Pipe", "PipePool", "fair_share", "pipes_of_worker"]

Pipe = tuple[int, int]

# The largest that fs.pipe-max-size grants by default. 128 KiB are within 5 % of it in CPU per byte; what it
# saves are wake-ups.
PIPE_SIZE: Final = 1 << 20

# Where the kernel sets no limit: 64 MiB of kernel memory for pipes that stand full before slow readers.
_UNLIMITED: Final = 64

# Once the kernel has refused, so many requests are turned down before it is asked again: whoever spent the
# pages may have given them back, and a refusal costs four system calls.
_PAUSE: Final = 256

_SOFT_LIMIT: Final = Path("/proc/sys/fs/pipe-user-pages-soft")


def fair_share(soft_pages: int, workers: int) -> int:
    """Count the pipes that one of so many workers may make: half of the user's pages between them all.

    The other half is for the rest of what this user runs. `soft_pages` is fs.pipe-user-pages-soft; 0 is no
    limit.
    """
    if soft_pages == 0:
        return _UNLIMITED // workers
    return soft_pages * os.sysconf("SC_PAGE_SIZE") // 2 // PIPE_SIZE // workers


def pipes_of_worker(workers: int) -> int:
    """Count the pipes that one of so many workers may make by what this system grants now."""
    return fair_share(int(_SOFT_LIMIT.read_text()), workers)


class PipePool:
    """Lends empty pipes of PIPE_SIZE bytes, non-blocking. Every pipe is either in here or lent."""

    __slots__ = ("_budget", "_free", "_made", "_turn_down")

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._made = 0
        self._free: list[Pipe] = []
        self._turn_down = 0

    def take(self) -> Pipe | None:
        """Lend a pipe; None says: copy."""
        if self._free:
            return self._free.pop()
        if self._turn_down:
            self._turn_down -= 1
            return None
        if self._made >= self._budget:
            return None
        pipe = _make()
        if pipe is None:
            self._turn_down = _PAUSE
        else:
            self._made += 1
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Take back a pipe that is empty."""
        self._free.append(pipe)

    def discard(self, pipe: Pipe) -> None:
        """Take back a pipe that is not: the bytes in it are of a flow that is over."""
        self._made -= 1
        _close(pipe)

    def close(self) -> None:
        """Close what is in the pool."""
        while self._free:
            self.discard(self._free.pop())


def _make() -> Pipe | None:
    """Make a pipe and let it grow; None if the kernel has no descriptor or no pages for it."""
    try:
        pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # EMFILE, ENFILE: descriptors are for tunnels, and copying needs none
        return None
    try:
        fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:  # EPERM: the user's pages are spent, or fs.pipe-max-size is smaller; EBUSY, ENOMEM
        _close(pipe)
        return None
    return pipe


def _close(pipe: Pipe) -> None:
    os.close(pipe[0])
    os.close(pipe[1])
