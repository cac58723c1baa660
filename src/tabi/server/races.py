"""Races: in which order ways start, what comes of each, and what is remembered of that for the next.

Each process learns by itself. What a way is worth shows at its destination alone: refused here, it may be the best
elsewhere. A connection that stands proves little where somebody on the way answers in the target's place, so how a
flow ends counts as well.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from tabi.config.settings import RaceSettings
from tabi.dial.memory import Memory
from tabi.dial.race import Entrant
from tabi.dial.ways import Way, should_rest
from tabi.errors import DeniedError, DialTimeoutError, TabiError
from tabi.relay.bucket import Bucket
from tabi.relay.interface import Cause, Closer, End

__all__ = ["Race", "Races"]

_PATIENCE: Final = 2  # times what the last winner took it is alone
_MOST: Final = 4  # head starts that this may be: one that was slow once is not alone for ever
_TO_ANSWER: Final = 5.0  # seconds; a client that leaves sooner says nothing of its way
_OURS: Final = frozenset({Cause.LIFETIME, Cause.KILL, Cause.POLICY, Cause.SHUTDOWN, Cause.BUG})


class Races:
    """What is remembered of all races of this process, and how much they may waste.

    Args:
        settings: of all races.
        clock: tells seconds, never backwards.
    """

    def __init__(self, settings: RaceSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.memory: Memory = Memory(settings.memory)
        self.replace(settings)

    def replace(self, settings: RaceSettings) -> None:
        """Go on with other settings; what is known stays so."""
        self.memory.half_life = settings.memory
        self._head_start = settings.head_start
        self._budget = Bucket(settings.wasted, max(1.0, settings.wasted)) if settings.wasted else None

    def may_waste(self) -> bool:
        """Take one dial beside others out of the budget, if it has one."""
        return self._budget is not None and self._budget.spend(1, self.clock())

    def rank(self, destination: str, ways: Sequence[Way]) -> tuple[Way, ...]:
        """Put ways into the order of their start, the best first.

        Those that have failed there lately come last, dear ones after the others, and the winner before its like.
        """
        now = self.clock()
        winner, _ = self.memory.winner(destination, now) or ("", 0.0)

        def grade(way: Way) -> tuple[float, float, bool]:
            return self.memory.blame(destination, way.name, now), way.handicap, way.name != winner

        return tuple(sorted(ways, key=grade))

    def entrants(self, destination: str, ways: Sequence[Way]) -> tuple[Entrant, ...]:
        """Say when each way starts, of ways in the order of their start."""
        winner, seconds = self.memory.winner(destination, self.clock()) or ("", 0.0)
        found, lead = [], 0.0
        for way in ways:
            found.append(Entrant(way, lead + way.handicap))
            lead = self._head_start
            if way.name == winner:
                lead = max(lead, min(_PATIENCE * seconds, _MOST * lead))
        return tuple(found)

    def hear_end(self, destination: str, way: str, end: End) -> None:
        """Learn from the end of a flow whether its way is worth anything at a destination that was raced for.

        Reset by the other side, or not a byte for what the client has sent: it has failed, for this destination. Not
        so where the client itself left at once: anybody could have ways fail for everybody by that.
        """
        if not way or destination not in self.memory or end.cause in _OURS:
            return
        was_reset = end.closer is Closer.TARGET and end.cause is not Cause.FIN
        has_waited = end.closer is not Closer.CLIENT or end.ended - end.started >= _TO_ANSWER
        if was_reset or (end.up and not end.down and has_waited):
            self.memory.failed(destination, way, self.clock())
        elif end.down:
            self.memory.served(destination, way)


class Race:
    """One race: the `tabi.dial.race.Umpire`, who also knows what the session's line says of it.

    Args:
        races: that remembers.
        destination: as it is remembered.
        hear: learns which upstream has served (None), or should rest, and why.
    """

    def __init__(self, races: Races, destination: str, hear: Callable[[Way, TabiError | None], None]) -> None:
        self._races = races
        self._destination = destination
        self._hear = hear
        self._lost: list[str] = []
        self._began: dict[str, float] = {}
        self._winning: Way | None = None

    @property
    def winner(self) -> str:
        """Who has won; empty: nobody."""
        return "" if self._winning is None else self._winning.name

    @property
    def lost(self) -> str:
        """Who has lost, and why."""
        return ", ".join(self._lost)

    def began(self, way: Way) -> None:
        """Note when a way has started."""
        self._began.setdefault(way.name, self._races.clock())

    def may_waste(self) -> bool:
        """See `Umpire`."""
        return self._races.may_waste()

    def won(self, way: Way) -> None:
        """See `Umpire`."""
        self._winning = way
        now = self._races.clock()
        self._races.memory.won(self._destination, way.name, now - self._began.get(way.name, now), now)
        if way.hops:
            self._hear(way, None)

    def beaten(self, way: Way) -> None:
        """See `Umpire`. To lose against a way that started so much later is to fail."""
        if self._winning is not None and self._winning.handicap > way.handicap:
            self._races.memory.failed(self._destination, way.name, self._races.clock())
        self._lost.append(f"{way.name} (slower)")

    def failed(self, way: Way, error: TabiError) -> None:
        """See `Umpire`. What policy refuses is no failure of the way."""
        if not isinstance(error, DeniedError) or error.hop is not None:
            self._races.memory.failed(self._destination, way.name, self._races.clock())
        if should_rest(error):
            self._hear(way, error)
        self._lost.append(f"{way.name} ({_reason(error)})")


def _reason(error: TabiError) -> str:
    what = "timed out" if isinstance(error, DialTimeoutError) else error.reply.name.lower().replace("_", " ")
    return f"{error.stage.value}: {what}"
