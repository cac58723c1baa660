"""A race: ways asked side by side, of which the first that is connected serves and the others are given up.

They start one after the other, each some time after the one before it, which is that one's head start; where one fails
the next starts at once. A dial beside others is wasted if they win: where no more of that may be, the next way starts
only when those before it have failed, or have been silent for its share of the time.

Here any failure leads on, what a proxy answers about the target as well: that another way fares better is what a race
is for. The direct way is one without proxies.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

from tabi.addr import Address, Endpoint
from tabi.dial.ways import Asking, Way, has_failed, told
from tabi.dial.wishes import Cancel, Cancellable, Close, Connection, Done, Fact, Sleep, Steps, Wish
from tabi.dial.within import LIMIT
from tabi.errors import DeniedError, DialTimeoutError, TabiError

__all__ = ["Entrant", "Umpire", "by_race"]

C = TypeVar("C", bound=Connection)


@dataclass(frozen=True, slots=True)
class Entrant:
    """A way in a race.

    Args:
        way: the way.
        wait: seconds after the start of the way before it; not looked at for the first.
    """

    way: Way
    wait: float


class Umpire(Protocol):
    """Who watches a race: grants dials that may be wasted, and hears how each way that started has fared."""

    def may_waste(self) -> bool:
        """Say whether a way may start beside others."""

    def won(self, way: Way) -> None:
        """Hear which way serves."""

    def beaten(self, way: Way) -> None:
        """Hear which was under way when another won."""

    def failed(self, way: Way, error: TabiError) -> None:
        """Hear which has failed, and why."""


def by_race(
    entrants: Sequence[Entrant],
    target: Endpoint,
    addresses: Sequence[Address],
    *,
    ask: Callable[[Way, Endpoint], Steps[C]],
    permit: Callable[[Address], bool],
    umpire: Umpire,
    timeout: float,
) -> Steps[C]:
    """Plan to ask all of `entrants`, and take the first that is connected to `target`.

    Whatever the others have open is closed before the plan ends.

    Args:
        entrants: in the order of their start, at least one.
        target, addresses, ask, permit: as for `tabi.dial.ways.by_ways`; the direct way is asked for `target` as it is,
            and `ask` has its addresses judged. Limits of the plans should be longer than that of the race, which has
            all that run say how far they are.
        umpire: watches.
        timeout: seconds for all of it.

    Raises:
        TabiError: all have failed; what one said of the target, if one did. The text names all.
        DialTimeoutError: the time is over.
        DeniedError: policy has refused all addresses on every way.
    """
    asking = Asking(target, addresses, ask, permit)
    return _Race(entrants, asking.through, umpire, timeout).run()


class _Runner(Generic[C]):
    """A way that has started: its plan, and what that has under way and open."""

    def __init__(self, way: Way, plan: Steps[C]) -> None:
        self.way = way
        self.plan = plan
        self.under_way: dict[Cancellable, None] = {}
        self._open: dict[object, Connection] = {}  # by handle

    def wish(self, batch: tuple[Wish, ...]) -> None:
        for wish in batch:
            if isinstance(wish, Cancel):
                self.under_way.pop(wish.wish, None)
            elif isinstance(wish, Close):
                self._open.pop(wish.connection.handle, None)
            else:
                self.under_way[wish] = None

    def take(self, fact: Fact) -> None:
        del self.under_way[fact.wish]
        if isinstance(fact, Done) and isinstance(fact.value, Connection):
            self._open[fact.value.handle] = fact.value

    def rest(self, kept: Connection | None = None) -> tuple[Wish, ...]:
        """Give up what is left, but for the connection that is kept."""
        self.plan.close()
        if kept is not None:
            self._open.pop(kept.handle, None)
        return (*map(Cancel, self.under_way), *map(Close, self._open.values()))


class _Race(Generic[C]):
    """The runners that have started, and those that wait."""

    def __init__(
        self, entrants: Sequence[Entrant], through: Callable[[Way], Steps[C]], umpire: Umpire, timeout: float
    ) -> None:
        self._waiting = deque(entrants)
        self._through = through
        self._umpire = umpire
        self._timeout = timeout
        self._share = timeout / len(entrants)
        self._deadline = Sleep(timeout)
        self._pause: Sleep | None = None  # until the next starts
        self._is_spared = False  # the pause is its share of the time: a start before would be a waste
        self._running: dict[_Runner[C], None] = {}
        self._failures: list[tuple[Way, TabiError]] = []
        self._result: C | None = None
        self._batch: list[Wish] = [self._deadline]  # the first of all, so that no time limit within comes before it

    def run(self) -> Steps[C]:
        self._start_next()
        while self._running and self._result is None:
            try:
                fact = yield self._take_batch()
            except TabiError as error:  # of a limit around this one
                self._stop(error)
            else:
                self._learn(fact)
        self._clean_up()
        yield self._take_batch()
        if self._result is None:
            raise self._failed()
        return self._result

    def _learn(self, fact: Fact) -> None:
        if fact.wish is self._deadline:
            self._stop(self._too_late())
        elif fact.wish is self._pause:
            self._pause = None
            self._start_next(is_free=self._is_spared)
        else:
            runner = next(one for one in self._running if fact.wish in one.under_way)
            runner.take(fact)
            self._go_on(runner, partial(runner.plan.send, fact))

    def _go_on(self, runner: _Runner[C], step: Callable[[], tuple[Wish, ...]]) -> None:
        try:
            batch = step()
        except StopIteration as stop:
            self._win(runner, stop.value)
        except TabiError as error:
            del self._running[runner]
            self._batch += runner.rest()
            self._failures.append((runner.way, error))
            self._umpire.failed(runner.way, error)
            self._start_next()
        else:
            runner.wish(batch)
            self._batch += batch

    def _win(self, runner: _Runner[C], result: C) -> None:
        del self._running[runner]
        self._batch += runner.rest(result)
        self._result = result
        self._umpire.won(runner.way)

    def _start_next(self, *, is_free: bool = False) -> None:
        """Start the next way, if there is one; beside others only where that is free or may be wasted."""
        if self._waiting and self._running and not is_free and not self._umpire.may_waste():
            if self._pause is None or not self._is_spared:
                self._end_pause()
                self._begin_pause(self._share, is_spared=True)
            return  # or at the end of the pause that there is: another's failure does not make it longer
        self._end_pause()
        if not self._waiting:
            return
        way = self._waiting.popleft().way
        runner = _Runner(way, self._through(way))
        self._running[runner] = None
        if self._waiting:
            self._begin_pause(self._waiting[0].wait, is_spared=False)
        self._go_on(runner, partial(next, runner.plan))

    def _begin_pause(self, seconds: float, *, is_spared: bool) -> None:
        self._pause, self._is_spared = Sleep(seconds), is_spared
        self._batch.append(self._pause)

    def _end_pause(self) -> None:
        if self._pause is not None:
            self._batch.append(Cancel(self._pause))
            self._pause = None

    def _stop(self, error: TabiError) -> None:
        """Start no more, and have all that run say how far they are."""
        self._waiting.clear()
        self._end_pause()
        for runner in tuple(self._running):
            self._go_on(runner, partial(runner.plan.throw, error))

    def _too_late(self) -> DialTimeoutError:
        error = DialTimeoutError(f"not done within {self._timeout:g} s")
        error.limit = LIMIT
        return error

    def _clean_up(self) -> None:
        for runner in self._running:
            self._batch += runner.rest()
            self._umpire.beaten(runner.way)
        self._end_pause()
        # A plan is resumed by a fact only, and Cancel has none; that of Sleep(0) comes at once.
        self._batch += (Cancel(self._deadline), Sleep(0))

    def _take_batch(self) -> tuple[Wish, ...]:
        batch, self._batch = tuple(self._batch), []
        return batch

    def _failed(self) -> TabiError:
        _, error = min(self._failures, key=_vagueness)  # the first of those that say most
        return told(error, self._failures)


def _vagueness(failure: tuple[Way, TabiError]) -> int:
    """Say how little a failure tells of the target."""
    _, error = failure
    if isinstance(error, DeniedError) and error.hop is None:
        return 2  # our own policy, on the direct way: no wonder where the others were asked for the name
    return 1 if has_failed(error) else 0
