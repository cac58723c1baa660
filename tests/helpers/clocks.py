"""The server's time in the hand of a test, so that minutes pass at once."""

import time

import pytest

from helpers.serving import Running

_MODULES = ("associate", "legs", "server", "notes")  # of tabi.server: those that read a clock


class ShiftedClock:
    """The real clocks and what the test adds to them; make it before the server.

    Args:
        monkeypatch: takes it back at the end of the test.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._shift = 0.0
        for name in _MODULES:
            monkeypatch.setattr(f"tabi.server.{name}.time", self)

    def monotonic(self) -> float:
        """Stand for time.monotonic, and for the loop's clock, which is the same."""
        return time.monotonic() + self._shift

    def time(self) -> float:
        """Stand for time.time."""
        return time.time() + self._shift

    def advance(self, running: Running, seconds: float) -> None:
        """Let `seconds` pass for the server and its loop, and wait until what is due by then has begun."""

        def shift() -> None:
            running.loop.time = self.monotonic  # type: ignore[method-assign]
            self._shift += seconds

        running.call_sync(shift)
        running.call_sync(lambda: None)  # timers that are due run in the turn before this one
        running.call_sync(lambda: None)
