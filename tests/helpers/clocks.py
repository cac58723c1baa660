"""The server's time in the hand of a test, so that minutes pass at once, and none while nobody looks."""

import asyncio
import time
from collections.abc import Callable
from functools import partial

import pytest

from helpers.serving import Running
from tabi.relay import Cause
from tabi.relay._choice import choose

_MODULES = ("associate", "legs", "server", "session", "notes", "lane")  # of tabi.server: those that read a clock


class HeldClock:
    """A clock that stands still unless the test moves it, for the server, its loop and its engine; make it before them.

    However long the machine is busy with something else, nothing is over before the test says so; of a name's addresses
    the next is tried only when one has failed. From the moment that a server is to end it runs, so that the limits of
    that hold.

    Args:
        monkeypatch: takes it back at the end of the test.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now = time.monotonic()
        self._shift = 0.0
        self._let_go: float | None = None
        for name in _MODULES:
            monkeypatch.setattr(f"tabi.server.{name}.time", self)
        monkeypatch.setattr(asyncio.BaseEventLoop, "time", lambda _loop: self.monotonic())
        for make in ("make_engine", "make_lane_engine"):
            monkeypatch.setattr(f"tabi.server.server.{make}", partial(choose(), clock=self.monotonic))
        close = Running.close

        def run_and_close(running: Running, drain: float = 0.0) -> None:
            self._let_go = self._let_go or time.monotonic()
            close(running, drain)

        monkeypatch.setattr(Running, "close", run_and_close)

    def monotonic(self) -> float:
        """Stand for time.monotonic, and for the loop's clock, which is the same."""
        since = 0.0 if self._let_go is None else time.monotonic() - self._let_go
        return self._now + self._shift + since

    def time(self) -> float:
        """Stand for time.time."""
        return time.time() + self._shift

    def advance(self, running: Running, seconds: float) -> None:
        """Let `seconds` pass, and wait until what is due by then has begun."""

        def shift() -> None:
            self._shift += seconds
            running.server.engine.kill((), Cause.KILL)  # wakes it, and has it look at the clock

        running.call_sync(shift)
        running.call_sync(lambda: None)  # timers that are due run in the turn before this one
        running.call_sync(lambda: None)


def endless() -> Callable[[], float]:
    """Make a clock for `RefusalLimiter` on which so much time passes that no line is held back."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 100
        return now

    return clock
