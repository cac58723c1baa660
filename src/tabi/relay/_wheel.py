"""The timer wheel: when to look at which flow again, in one structure for all flows.

Lazy: a byte that moves touches nothing here. The engine looks at a flow when its tick comes, finds by the
flow's own stamps that it lives, and puts it in again. Ticks are entries of a heap, flows hang below their
tick by number, so that a flow that ends is not kept alive and need not be taken out.
"""

import heapq
from collections.abc import Mapping
from typing import Final, Generic, Protocol, TypeVar

__all__ = ["TICK", "Wheel"]

# Seconds. Limits are met this exactly, and a reset that waits for the last acknowledgement comes at most so
# much late.
TICK: Final = 0.02

# Ticks. A flow is looked at once in this time at least, which bounds what the numbers of dead flows weigh.
_HORIZON: Final = int(60 / TICK)


class Entry(Protocol):
    """A flow, or whatever else is to be looked at."""

    @property
    def number(self) -> int:
        """By which it is found."""

    tick: int  # where the wheel will look at it; 0 is nowhere


E = TypeVar("E", bound=Entry)


class Wheel(Generic[E]):
    """Holds one valid entry per flow at most: `Flow.tick`. The others fall out when their tick comes."""

    __slots__ = ("_at", "_ticks")

    def __init__(self) -> None:
        self._at: dict[int, list[int]] = {}
        self._ticks: list[int] = []

    def arm(self, flow: E, when: float, now: float) -> None:
        """See to it that the flow is looked at when its time comes, or earlier."""
        tick = min(int(when / TICK), int(now / TICK) + _HORIZON) + 1
        if flow.tick and flow.tick <= tick:
            return
        flow.tick = tick
        numbers = self._at.get(tick)
        if numbers is None:
            heapq.heappush(self._ticks, tick)
            self._at[tick] = [flow.number]
        else:
            numbers.append(flow.number)

    def wait(self, now: float) -> float:
        """Return the seconds until something is due: 0 if it is, -1 if nothing will be."""
        return max(0.0, self._ticks[0] * TICK - now) if self._ticks else -1.0

    def due(self, flows: Mapping[int, E], now: float) -> list[E]:
        """Take the flows whose tick has come; arm them again if they are to be looked at once more."""
        come: list[E] = []
        while self._ticks and self._ticks[0] * TICK <= now:
            tick = heapq.heappop(self._ticks)
            for number in self._at.pop(tick):
                flow = flows.get(number)
                if flow is not None and flow.tick == tick:
                    flow.tick = 0
                    come.append(flow)
        return come
