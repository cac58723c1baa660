"""How the control plane is told that something waits to be taken; `_native/report.pxd` is the same, compiled."""

import os
from time import monotonic
from typing import Final

__all__ = ["PAUSE", "Report", "quiet"]

PAUSE: Final = 0.005  # seconds


class Report:
    """An eventfd that is readable while something waits to be taken.

    Calls are told at once, for somebody waits, and so are ends, unless they may be told together: then an end is told
    at once after a quiet time, and those that follow `PAUSE` after that. To be woken up costs the control plane many
    times what an end does.
    """

    __slots__ = ("_owes", "_told", "fd", "pause")

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._owes = False  # there are ends that are still to be told
        self._told = 0.0  # when that was last
        self.pause = 0.0  # seconds between tellings of ends

    def tell(self) -> None:
        """Tell at once; from any thread."""
        self._told = monotonic()
        self._owes = False
        os.eventfd_write(self.fd, 1)

    def note_ends(self) -> None:
        """Tell of ends, now or when the pause is over."""
        if monotonic() - self._told >= self.pause:
            self.tell()
        else:
            self._owes = True

    def pay(self, *, at_once: bool = False) -> None:
        """Tell what is owed, if the pause is over or nobody will ask again."""
        if self._owes and at_once:
            self.tell()
        elif self._owes:
            self.note_ends()

    def wait(self) -> float:
        """Return the seconds until something is to be told; -1: there is nothing."""
        return max(0.0, self._told + self.pause - monotonic()) if self._owes else -1.0

    def quiet(self) -> None:
        """Set it back to not readable."""
        quiet(self.fd)

    def close(self) -> None:
        """Close the eventfd."""
        os.close(self.fd)
        self.fd = -1  # the number may be somebody else's by now


def quiet(eventfd: int) -> None:
    """Set an eventfd back to not readable."""
    try:
        os.eventfd_read(eventfd)
    except BlockingIOError:  # it was not
        pass
