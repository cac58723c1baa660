"""A time limit for a whole plan, whatever it consists of.

When the time is over the plan itself is told, by an error that is raised where it waits. So it is the plan that says
how far it had come, and that closes what it has open. Limits may stand within each other: what is over outside is told
to the innermost plan.
"""

from typing import Generic, TypeVar

from tabi.dial.wishes import Cancel, Cancellable, Close, Fact, Sleep, Steps, Wish
from tabi.errors import DialTimeoutError, TabiError

__all__ = ["LIMIT", "within"]

T = TypeVar("T")

LIMIT = "connect"
"""The limit that errors of a plan whose time is over name."""


def within(plan: Steps[T], seconds: float, limit: str = LIMIT) -> Steps[T]:
    """Carry `plan` out, and end it after `seconds`.

    Raises:
        DialTimeoutError: the time was over; its `limit` is ours, the rest is as the plan says it.
        TabiError: what the plan raises.
    """
    return (yield from _Limited(plan, seconds, limit).run())


class _Limited(Generic[T]):
    """What the plan has under way, so that all of it can be cancelled."""

    def __init__(self, plan: Steps[T], seconds: float, limit: str) -> None:
        self._plan = plan
        self._limit = limit
        self._deadline = Sleep(seconds)
        self._under_way: dict[Cancellable, None] = {}

    def run(self) -> Steps[T]:
        try:
            result = yield from self._steps()
        except TabiError:
            yield self._rest()
            raise
        yield self._rest()
        return result

    def _steps(self) -> Steps[T]:
        try:
            batch = (*next(self._plan), self._deadline)
            while True:
                self._note(batch)
                try:
                    fact = yield batch
                except TabiError as error:  # of a limit around this one
                    batch = self._plan.throw(error)
                else:
                    batch = self._resume(fact)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _resume(self, fact: Fact) -> tuple[Wish, ...]:
        self._under_way.pop(fact.wish, None)
        return self._plan.throw(self._over()) if fact.wish is self._deadline else self._plan.send(fact)

    def _note(self, batch: tuple[Wish, ...]) -> None:
        for wish in batch:
            if isinstance(wish, Cancel):
                self._under_way.pop(wish.wish, None)
            elif not isinstance(wish, Close):
                self._under_way[wish] = None

    def _rest(self) -> tuple[Wish, ...]:
        # A plan is resumed by a fact only, and Cancel has none; that of Sleep(0) comes at once.
        return (*[Cancel(wish) for wish in self._under_way], Sleep(0))

    def _over(self) -> DialTimeoutError:
        error = DialTimeoutError(f"not done within {self._deadline.seconds:g} s")
        error.limit = self._limit
        return error
