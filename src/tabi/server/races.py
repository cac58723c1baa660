"""Races: in which order ways start, and what comes of each."""

from collections.abc import Callable, Sequence
from typing import Final

from tabi.config.settings import RaceSettings
from tabi.dial.race import Entrant
from tabi.dial.ways import Way, should_rest
from tabi.errors import DialTimeoutError, TabiError

__all__ = ["Race", "entrants"]

_SLOWER: Final = "slower"


def entrants(ways: Sequence[Way], settings: RaceSettings) -> tuple[Entrant, ...]:
    """Say when each way starts.

    Args:
        ways: in the order of their start.
        settings: of all races.
    """
    return tuple(Entrant(way, settings.head_start + way.handicap) for way in ways)


class Race:
    """One race, as its session's line tells of it: the `tabi.dial.race.Umpire`.

    Args:
        hear: learns which upstream has served (None), or should rest, and why.
    """

    def __init__(self, hear: Callable[[Way, TabiError | None], None]) -> None:
        self._hear = hear
        self._lost: list[str] = []
        self.winner = ""

    @property
    def lost(self) -> str:
        """Who has lost, and why."""
        return ", ".join(self._lost)

    def may_waste(self) -> bool:
        """See `Umpire`."""
        return True

    def won(self, way: Way) -> None:
        """See `Umpire`."""
        self.winner = way.name
        if way.hops:
            self._hear(way, None)

    def beaten(self, way: Way) -> None:
        """See `Umpire`."""
        self._lost.append(f"{way.name} ({_SLOWER})")

    def failed(self, way: Way, error: TabiError) -> None:
        """See `Umpire`."""
        if should_rest(error):
            self._hear(way, error)
        self._lost.append(f"{way.name} ({_reason(error)})")


def _reason(error: TabiError) -> str:
    what = "timed out" if isinstance(error, DialTimeoutError) else error.reply.name.lower().replace("_", " ")
    return f"{error.stage.value}: {what}"
