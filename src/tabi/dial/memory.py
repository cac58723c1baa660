"""What is remembered of races, for each destination: which way won, how soon, and which ways have failed lately.

A failure weighs 1 when it happens and loses half of its weight in every half-life; several add up. A way whose
failures weigh `LATELY` or more has failed lately: one failure is forgiven after one half-life, eight after four. A way
that failed is no winner any more, whatever it was before, and one over which data came is forgiven at once.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field

__all__ = ["LATELY", "Memory"]

LATELY = 0.5
"""Weight of the failures of a way that is not trusted to do better."""

_MOST = 8.0  # weight: nothing is held against a way for longer than four half-lives
_SIZE = 4096  # destinations, some hundred bytes each


@dataclass(slots=True)
class _Destination:
    """What is known of one.

    Args:
        winner: the way that won last; empty: none is known.
        seconds: that it took.
        until: when that is forgotten.
        failures: weight and its time, by way.
    """

    winner: str = ""
    seconds: float = 0.0
    until: float = 0.0
    failures: dict[str, tuple[float, float]] = field(default_factory=dict)


class Memory:
    """Winners and failures by destination; of too many destinations those are forgotten that were not heard of longest.

    Args:
        half_life: seconds in which a failure loses half of its weight; as long a winner is remembered.
        size: destinations at most.
    """

    def __init__(self, half_life: float, *, size: int = _SIZE) -> None:
        self.half_life = half_life
        self._size = size
        self._known: dict[Hashable, _Destination] = {}  # those heard of last come last

    def __contains__(self, destination: Hashable) -> bool:
        """Say whether anything is known of a destination."""
        return destination in self._known

    def won(self, destination: Hashable, way: str, seconds: float, now: float) -> None:
        """Learn that a way was the first to connect, after so many seconds."""
        known = self._touch(destination)
        known.winner, known.seconds, known.until = way, seconds, now + self.half_life

    def failed(self, destination: Hashable, way: str, now: float) -> None:
        """Learn that a way has failed: to connect, or after that."""
        known = self._touch(destination)
        weight = min(self._weight(known, way, now) + 1, _MOST)
        lately = {one: known.failures[one] for one in known.failures if self._weight(known, one, now) >= LATELY}
        known.failures = {**lately, way: (weight, now)}
        if known.winner == way:
            known.winner = ""

    def served(self, destination: Hashable, way: str) -> None:
        """Learn that data came over a way."""
        if (known := self._known.get(destination)) is not None:
            known.failures.pop(way, None)

    def winner(self, destination: Hashable, now: float) -> tuple[str, float] | None:
        """Give the way that won last, and the seconds that it took."""
        known = self._known.get(destination)
        return (known.winner, known.seconds) if known is not None and known.winner and now < known.until else None

    def blame(self, destination: Hashable, way: str, now: float) -> float:
        """Give the weight of the failures of a way; 0 where it has not failed lately."""
        known = self._known.get(destination)
        weight = 0.0 if known is None else self._weight(known, way, now)
        return weight if weight >= LATELY else 0.0

    def _weight(self, known: _Destination, way: str, now: float) -> float:
        weight, since = known.failures.get(way, (0.0, now))
        return float(weight * 0.5 ** ((now - since) / self.half_life))

    def _touch(self, destination: Hashable) -> _Destination:
        known = self._known.pop(destination, None) or _Destination()
        self._known[destination] = known
        if len(self._known) > self._size:
            del self._known[next(iter(self._known))]
        return known
