"""The one place where tasks are started: each has a name, lives until it is done, and none fails unheard."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from functools import partial
from typing import Any, TypeVar

__all__ = ["begin", "pending", "settle", "spawn"]

T = TypeVar("T")

_log = logging.getLogger("tabi")
# asyncio itself refers to its tasks weakly only: one that nobody else holds can vanish in the middle.
_alive: set["_Spawned[Any]"] = set()  # Any: tasks of every result, none of which is looked at


class _Spawned(asyncio.Task[T]):
    """A task that knows whether somebody waits for it: whoever awaits a future adds a callback to it."""

    on_error: Callable[[BaseException], None] | None = None
    waiting = 0

    def watch(self, fn: Callable[[Any], object]) -> None:  # Any: this task, of whatever result
        """Add a callback that does not count as somebody who waits."""
        super().add_done_callback(fn)

    def add_done_callback(
        self, fn: Callable[["_Spawned[T]"], object], /, *, context: Context | None = None
    ) -> None:
        self.waiting += 1
        super().add_done_callback(fn, context=context)

    def remove_done_callback(self, fn: Callable[["_Spawned[T]"], object], /) -> int:
        removed = super().remove_done_callback(fn)
        self.waiting -= removed
        return removed


def spawn(
    coro: Coroutine[Any, Any, T],  # Any: what a coroutine yields is between it and the loop
    *,
    name: str,
    on_error: Callable[[BaseException], None] | None = None,
) -> asyncio.Task[T]:
    """Start a task on the running loop and hold it until it is done.

    An error of a task that somebody is waiting for is theirs. Otherwise it goes to `on_error`, and without
    that to the log of ``tabi`` under the task's name, at once and once: whoever awaits the task later gets it
    as well, and need not log it again.

    Args:
        coro: what to run.
        name: for the log; with the session's id where there is one.
        on_error: called in the loop with the error that nobody waited for; not with a cancellation.
    """
    task = _Spawned(coro, loop=asyncio.get_running_loop(), name=name)
    task.on_error = on_error
    _alive.add(task)
    task.watch(_ended)
    return task


def begin(coro: Coroutine[Any, Any, T], *, name: Callable[[], str]) -> asyncio.Task[T] | None:  # Any: as above
    """Run a coroutine up to its first wait at once, and start a task for the rest, if there is one.

    Most of what is ready at once never becomes a task. Until that first wait it must not use what needs a task, such as
    `asyncio.timeout`.

    Args:
        coro: what to run.
        name: makes the task's name.

    Raises:
        Exception: what the coroutine raised before its first wait.
    """
    try:
        awaited = coro.send(None)
    except StopIteration:
        return None
    return spawn(_Begun(coro, awaited), name=name())


class _Begun(Coroutine[Any, Any, T]):  # Any: as above
    """A coroutine that waits for something already: whoever runs it is told what, and goes on from there."""

    def __init__(self, coro: Coroutine[Any, Any, T], awaited: object) -> None:
        self._coro = coro
        self._awaited = awaited
        self._is_told = False

    def send(self, value: Any) -> Any:
        """Go on."""
        if not self._is_told:
            self._is_told = True
            return self._awaited
        return self._coro.send(value)

    def throw(self, *error: Any) -> Any:
        """Go on with an error."""
        self._is_told = True
        return self._coro.throw(*error)

    def close(self) -> None:
        """End."""
        self._coro.close()

    def __await__(self) -> Generator[Any, Any, T]:
        raise TypeError("it is run by its task")


def pending() -> tuple[asyncio.Task[Any], ...]:  # Any: as above
    """Return the tasks that `spawn` started on the running loop and that are not done."""
    return tuple(_pending())


def _pending() -> "list[_Spawned[Any]]":  # Any: as above
    loop = asyncio.get_running_loop()
    return [task for task in _alive if task.get_loop() is loop and not task.done()]


async def settle() -> None:
    """Cancel all spawned tasks of the running loop but this one and wait until they are gone, new ones too.

    Each is cancelled once, so that it may take its time to clean up; whoever wants an end by a certain time
    puts this under a timeout. Their errors are told as always.
    """
    current = asyncio.current_task()
    cancelled: set[asyncio.Task[Any]] = set()  # Any: as above
    while others := [task for task in _pending() if task is not current]:
        one_gone = asyncio.Event()
        for task in others:
            if task not in cancelled:
                cancelled.add(task)
                task.cancel()
            task.watch(partial(_tell, one_gone))
        await one_gone.wait()


def _tell(event: asyncio.Event, _task: object) -> None:
    event.set()


def _ended(task: _Spawned[T]) -> None:
    _alive.discard(task)
    if task.cancelled() or task.waiting:
        return
    error = task.exception()
    if error is None:
        return
    if task.on_error is not None:
        task.on_error(error)
    else:
        _log.error("task %s failed", task.get_name(), exc_info=error)
