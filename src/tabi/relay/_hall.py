"""The hall of the express lane: who waits in there, how long, and the way out to the control plane."""

from collections.abc import Callable, Iterable

from tabi.relay._arrival import Arrival, Stage
from tabi.relay._relay import Relay
from tabi.relay._wheel import Wheel
from tabi.relay.lane import Call, Counter, Handover
from tabi.relay.rows import SharedRows

__all__ = ["Hall"]


class Hall:
    """Arrivals that wait for an event, an answer, or the end of patience.

    Args:
        relay: whose epoll they are on.
        rows: what they are counted in.
        clock: seconds, monotonic.
    """

    def __init__(self, relay: Relay, rows: SharedRows, clock: Callable[[], float]) -> None:
        self._relay = relay
        self._rows = rows
        self._clock = clock
        self._arrivals: dict[int, Arrival] = {}  # by number
        self._known: dict[int, Arrival] = {}  # by descriptor, of either side, as far as they are watched
        self._wheel: Wheel[Arrival] = Wheel()
        self._calls: list[Call] = []

    def take_calls(self) -> list[Call]:
        """Take the calls since the last time."""
        calls, self._calls = self._calls, []
        return calls

    def call_in(self) -> None:
        """Hand over all that wait."""
        for arrival in list(self._arrivals.values()):
            self._hand_over(arrival)

    def wait(self, now: float) -> float:
        """Return the seconds until somebody's patience is over; -1: nobody waits."""
        return self._wheel.wait(now)

    def look(self, now: float) -> None:
        """Hand over those for whom it is."""
        for arrival in self._wheel.due(self._arrivals, now):
            if arrival.stage is Stage.PERMIT:
                continue
            if arrival.deadline <= now:
                self._hand_over(arrival)
            else:
                self._wheel.arm(arrival, arrival.deadline, now)

    def _enter(self, counters: Iterable[Counter]) -> bool:
        """Count one in with all of these, or with none."""
        entered: list[int] = []
        for row, limit in counters:
            if not self._rows.enter(row, limit):
                for other in entered:
                    self._rows.leave(other)
                return False
            entered.append(row)
        return True

    def _watch(self, arrival: Arrival, fd: int) -> bool:
        """Have events of one of its sockets; False: that cannot be."""
        if self._known.get(fd) is not arrival:
            if not self._relay.watch(fd):
                return False
            self._known[fd] = arrival
        return True

    def _leave(self, arrival: Arrival) -> None:
        """Take it out of the tables."""
        self._arrivals.pop(arrival.number, None)
        self._known.pop(arrival.fd, None)
        if arrival.outbound is not None:
            self._known.pop(arrival.outbound.fileno(), None)

    def _hand_over(self, arrival: Arrival, *, error: int = 0) -> None:
        """Give it to the control plane with all that is known; nobody else has its descriptors then."""
        self._ignore(arrival.fd)
        outbound, target = -1, ("", 0)
        if (permit := arrival.permit) is not None:
            if arrival.outbound is not None:
                self._ignore(arrival.outbound.fileno())
                outbound, target = arrival.outbound.detach(), (permit.address, permit.port)
            for row, _ in permit.counters:
                self._rows.leave(row)
        del self._arrivals[arrival.number]  # not earlier: until then `Lane.abandon` finds it
        self._calls.append(
            Handover(
                arrival.number,
                arrival.sock.detach(),
                arrival.listener.fd,
                arrival.client[:2],
                arrival.local[:2],
                arrival.received,
                arrival.sent,
                arrival.user,
                arrival.accepted,
                arrival.requested,
                arrival.door is not None,
                error,
                outbound,
                target,
            )
        )

    def _ignore(self, fd: int) -> None:
        """Have no more events of a socket."""
        if self._known.pop(fd, None) is not None:
            self._relay.ignore(fd)
