"""Threads for calls that block, and the fair sharing of them.

`concurrent.futures` joins its threads when the interpreter exits, so one getaddrinfo that hangs would hang the
exit; the threads here are daemons. `Shares` knows nothing of threads: it decides who may start a call now.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Hashable
from enum import Enum
from functools import partial
from typing import Generic, ParamSpec, TypeVar

__all__ = ["Place", "Pool", "Shares"]

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """At most `size` daemon threads, made on demand, ended after `idle` seconds without work.

    Calls beyond `size` wait in their order; how many may wait is for the caller to bound.

    Args:
        size: threads at most.
        idle: seconds that a thread waits for more work.
    """

    def __init__(self, size: int, *, idle: float = 10.0) -> None:
        self._size = size
        self._idle = idle
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._threads: set[threading.Thread] = set()
        self._free = 0
        self._is_closed = False

    @property
    def threads(self) -> int:
        """How many threads there are now, busy or waiting."""
        with self._changed:
            return len(self._threads)

    def submit(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Call ``fn(*args)`` in a thread; return a future of the running loop with what it returns or raises.

        A future that is cancelled before its turn is not called; later its result is dropped. So is the result
        of a call that outlives its loop.

        Raises:
            RuntimeError: the pool is closed, or the system gives no more threads.
        """
        job = _Job(partial(fn, *args, **kwargs), asyncio.get_running_loop())
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the pool is closed")
            if len(self._jobs) >= self._free and len(self._threads) < self._size:
                thread = threading.Thread(target=self._work, name="tabi pool", daemon=True)
                thread.start()  # before the job is queued: where no thread can be had, nothing is left behind
                self._threads.add(thread)
            self._jobs.append(job.run)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """End the waiting threads, and the others after their call. Calls that have not begun never will."""
        with self._changed:
            self._is_closed = True
            self._jobs.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        while (run := self._next_job()) is not None:
            run()

    def _next_job(self) -> Callable[[], None] | None:
        with self._changed:
            self._free += 1
            self._changed.wait_for(lambda: self._jobs or self._is_closed, self._idle)
            self._free -= 1
            if self._jobs:
                return self._jobs.popleft()
            self._threads.discard(threading.current_thread())
            return None


class _Job(Generic[T]):
    """One call: its outcome travels to the loop by one call_soon_threadsafe."""

    def __init__(self, call: Callable[[], T], loop: asyncio.AbstractEventLoop) -> None:
        self._call = call
        self._loop = loop
        self.future: asyncio.Future[T] = loop.create_future()

    def run(self) -> None:
        if self.future.cancelled():
            return
        try:
            tell = partial(self._succeed, self._call())
        except BaseException as error:  # noqa: BLE001 - not swallowed: it is carried to whoever awaits the future
            tell = partial(self._fail, error)
        try:
            self._loop.call_soon_threadsafe(tell)
        except RuntimeError:
            # The loop is closed: nobody is left who could be told.
            if not self._loop.is_closed():
                raise

    def _succeed(self, value: T) -> None:
        if not self.future.done():
            self.future.set_result(value)

    def _fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class _State(Enum):
    WAITING = 1
    HELD = 2
    LEFT = 3


class Place:
    """A holder's claim to one of the places that `Shares` gives out: waiting, held, or left."""

    __slots__ = ("holder", "run", "state")

    def __init__(self, holder: Hashable, run: "Callable[[Place], None]") -> None:
        self.holder: Hashable = holder
        self.run: Callable[[Place], None] = run
        self.state: _State = _State.WAITING

    @property
    def is_waiting(self) -> bool:
        """Whether its turn is still to come."""
        return self.state is _State.WAITING


class Shares:
    """Give out `total` places, at most `each` to one holder; who must wait waits among their own only.

    Each holder has a queue, first in, first out. A free place goes round among the holders that wait for one and
    hold less than `each`, so that a holder with a hundred claims does not stand before one with a single claim.

    Args:
        total: places.
        each: places that one holder has at most.
        waiting: claims in one holder's queue at most.
    """

    def __init__(self, total: int, each: int, waiting: int) -> None:
        self._free = total
        self._each = each
        self._queue_limit = waiting
        self._held: dict[Hashable, int] = {}
        self._queues: dict[Hashable, deque[Place]] = {}  # in the order of whose turn it is

    def enter(self, holder: Hashable, run: Callable[[Place], None]) -> Place | None:
        """Claim a place: `run` is called with it, at once or when its turn comes.

        Returns:
            the place, to be left by `leave` in any case; None where the holder's queue is full.
        """
        place = Place(holder, run)
        if holder not in self._queues and self._has_room(holder):
            self._grant(place)
            return place
        queue = self._queues.setdefault(holder, deque())
        if len(queue) >= self._queue_limit:
            return None
        queue.append(place)
        return place

    def leave(self, place: Place) -> None:
        """Give a place back or withdraw the claim to it; a second time does nothing."""
        state, place.state = place.state, _State.LEFT
        if state is _State.WAITING:
            queue = self._queues[place.holder]
            queue.remove(place)
            if not queue:
                del self._queues[place.holder]
        elif state is _State.HELD:
            self._free += 1
            self._held[place.holder] -= 1
            if not self._held[place.holder]:
                del self._held[place.holder]
            self._admit()

    def _has_room(self, holder: Hashable) -> bool:
        return self._free > 0 and self._held.get(holder, 0) < self._each

    def _grant(self, place: Place) -> None:
        place.state = _State.HELD
        self._free -= 1
        self._held[place.holder] = self._held.get(place.holder, 0) + 1
        place.run(place)

    def _admit(self) -> None:
        while (holder := next(filter(self._has_room, self._queues), None)) is not None:
            queue = self._queues.pop(holder)
            place = queue.popleft()
            if queue:
                self._queues[holder] = queue  # behind the others
            self._grant(place)
