"""A loop whose clock jumps to whatever is due next, so that minutes of waiting pass at once and in order.

Only for code that waits for timers; a thread or a socket has no part in such time. Delays and moments of a test are
to be whole or binary fractions (0.5, 0.125): they add up exactly.
"""

import asyncio
import gc
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.EpollSelector):
    """Where a loop would sleep, its time passes."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Look what is ready; nothing is waited for."""
        ready = super().select(0)
        if timeout is None and not ready:
            raise AssertionError("everything waits, and nothing will ever happen")
        if not ready and timeout is not None and timeout > 0:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Seconds of this loop."""
        return self._clock.now


def run_virtually(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end on a loop of its own; errors that only the loop was told of fail the test."""
    told: list[dict[str, Any]] = []
    loop = VirtualLoop()
    loop.set_exception_handler(lambda _loop, context: told.append(context))
    try:
        result = loop.run_until_complete(coroutine)
        gc.collect()
        assert told == []
        return result
    finally:
        loop.close()


class InlineExecutor(Executor):
    """Does what it is given at once, so that no thread is needed."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class HeldExecutor(Executor):
    """Does nothing until told to: `begun` are the jobs that a thread would be at work on."""

    def __init__(self) -> None:
        self.begun: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        self.begun.append((future, lambda: fn(*args, **kwargs)))
        return future

    def finish(self, index: int = 0) -> None:
        """Let one of the jobs come to its end."""
        future, work = self.begun.pop(index)
        try:
            future.set_result(work())
        except ArithmeticError as error:  # what tests raise
            future.set_exception(error)
