"""The tunnels that the engine relays, and what is known of them.

The engine keeps a tunnel's packed facts and gives them back at its end; nothing of a tunnel is kept here but for what a
reload has changed about it.
"""

from collections.abc import Iterator, Mapping

from tabi.relay.interface import Cause, End, Engine, Live
from tabi.server.record import Facts

__all__ = ["Tunnels"]


class Tunnels:
    """The tunnels of one engine.

    Args:
        engine: that has them; each record is a packed `Facts`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Of flows in a snapshot, whose ends are still to come: each entry is taken with its end.
        self._amended: dict[int, bytes] = {}
        self._notes: dict[int, str] = {}
        self._to_review: dict[int, bytes] = {}

    def live(self) -> list[tuple[Live, Facts]]:
        """List those that are not over."""
        return [
            (live, Facts.unpack(self._amended.get(live.flow, live.record))) for live in self._engine.snapshot()
        ]

    def review(self) -> Iterator[tuple[int, Facts]]:
        """Give each that is there now once; one that is over before its turn has come is passed over."""
        self._to_review = {live.flow: live.record for live in self._engine.snapshot()}
        while self._to_review:
            flow, record = self._to_review.popitem()
            yield flow, Facts.unpack(self._amended.get(flow, record))

    def amend(self, flow: int, facts: Facts) -> None:
        """Know other facts of one that is not over."""
        self._amended[flow] = facts.pack()

    def end(self, flows: Mapping[int, str], cause: Cause) -> None:
        """End some that are not over; the line of each says why."""
        self._notes |= flows
        self._engine.kill(flows, cause)

    def take(self, end: End) -> tuple[bytes, str]:
        """Give the packed facts of one that is over, and the note for its line."""
        flow = end.flow
        if self._to_review:
            self._to_review.pop(flow, None)
        record = self._amended.pop(flow, end.record) if self._amended else end.record
        return record, self._notes.pop(flow, "") if self._notes else ""
