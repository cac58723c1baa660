"""The express lane: how the engine serves the plain case by itself, and what the two planes say to each other for it.

The lane accepts, negotiates, connects, replies and relays. It **only ever answers success**; everything else it hands
over to the control plane, which is complete without it and is the one place that refuses, counts failures and explains.

It understands next to nothing: it measures messages and looks them up, raw, as they came. So there is one parser, the
sans-IO machine of the control plane. A message that is not whole when its stage becomes readable, a byte that is not as
expected, an error, a cap that is full, a connect that fails or takes long: hand over. The control plane makes an
ordinary session of a `Handover`: it feeds the same bytes to a fresh machine, and drops as much of the machine's output
as the lane has sent.

What the lane looks up it was taught:

- a `Door` (who connects to which listener): what the client may be offered, and where it is counted. Not known: hand
  over, nothing was read. It is taught when a session of that client has succeeded.
- a pass (a login, as it came): the user. Not known: hand over. It is taught after a login that was let in at once, and
  lasts until a login of that client fails, in whatever process.
- a `Permit` (a request, as it came, of a user or nobody at a door): what to connect to, and on which terms. Not known:
  `Ask`; the arrival waits for `Engine.answer`.

Nothing negative is taught. All of it is bounded, and gone with `Engine.forget`, which a reload begins with.

Counting: the lane counts in, in the rows that door and permit name; the control plane counts out when the session has
ended, whoever served it. A place among the handshakes is left when the request is there.
"""

import struct
from typing import Final, NamedTuple, Protocol, TypeAlias

from tabi.relay.interface import Engine, FlowLimits
from tabi.relay.rows import SharedRows
from tabi.relay.tuning import Tuning

__all__ = [
    "NONE", "PASSWORD", "TAIL_SIZE", "Ask", "Call", "Counter", "Door", "Exhausted", "Handover", "LaneEngine", "Permit",
    "Tail", "pack_tail",
]  # fmt: skip

# Bits of `Door.methods`.
NONE: Final = 1
PASSWORD: Final = 2

SocketAddress: TypeAlias = tuple[str, int]

_TAIL: Final = struct.Struct("<QdHddd")

pack_tail: Final = _TAIL.pack
TAIL_SIZE: Final = _TAIL.size  # bytes


class Counter(NamedTuple):
    """A row (see `tabi.relay.rows`) and how many may be counted there; below 0 it is no limit."""

    row: int
    limit: int


class Door(NamedTuple):
    """Where a client comes in.

    Args:
        number: never used for another one.
        listener: descriptor that it was accepted from.
        local: our address, as the socket module writes it.
        client: the client's, likewise.
        methods: of SOCKS5, bits of NONE and PASSWORD; PASSWORD goes first.
        socks4: whether SOCKS4 and 4a are taken.
        counters: all connections, those of this client, those of them whose request is not there yet.
    """

    number: int
    listener: int
    local: str
    client: str
    methods: int
    socks4: bool
    counters: tuple[Counter, Counter, Counter]


class Permit(NamedTuple):
    """The verdict on a request, with all that it takes to carry it out.

    Args:
        until: when it is over, in seconds of the engine's clock.
        address: of the target, as the socket module writes it.
        port: of the target.
        shows_target: the reply carries the target's address (SOCKS4a), not that of our end.
        limits: of the flow; `lifetime` counts from accept.
        patience: seconds for the connect, after which the control plane goes on with it.
        counters: where the session is counted, with its user and with its rule.
        facts: for the log; the flow's record is this with a `Tail` behind it.
        tuning: how the sockets of the flow are used.
    """

    until: float
    address: str
    port: int
    shows_target: bool
    limits: FlowLimits
    patience: float
    counters: tuple[Counter, ...]
    facts: bytes
    tuning: Tuning | None = None


class Ask(NamedTuple):
    """A request without a permit. Answer it by `Engine.answer`.

    Args:
        arrival: number of the session that waits.
        door: number of its door.
        user: who has logged in; None: nobody.
        message: the request as it came.
    """

    arrival: int
    door: int
    user: bytes | None
    message: bytes


class Handover(NamedTuple):
    """A connection for the control plane to go on with. Its descriptors belong to the taker.

    Args:
        number: of the session.
        fd: the client's descriptor, non-blocking.
        listener: descriptor of the listener that it came from.
        client: address and port, as the socket module gives them.
        local: our end, likewise.
        received: all that was read from the client.
        sent: how many bytes the client has been sent.
        user: who has logged in, and been told so; None: nobody.
        accepted: when, in seconds of the engine's clock.
        requested: when the request was there; 0: it is not.
        counted: whether it is counted in as a connection; if so, as a handshake as well unless the request is there.
        error: errno that a call of the lane took from the client's socket, for the kernel tells it once; else 0.
        outbound: a connect that is under way or has just succeeded, or -1.
        target: what it is to, if it is.
    """

    number: int
    fd: int
    listener: int
    client: SocketAddress
    local: SocketAddress
    received: bytes = b""
    sent: int = 0
    user: bytes | None = None
    accepted: float = 0.0
    requested: float = 0.0
    counted: bool = False
    error: int = 0
    outbound: int = -1
    target: SocketAddress = ("", 0)


class Exhausted(NamedTuple):
    """The lane has stopped accepting from a listener: there are no descriptors, or there is no memory."""

    listener: int
    errno: int


Call: TypeAlias = Ask | Handover | Exhausted


class Tail(NamedTuple):
    """What the lane adds to the facts of a permit, for each flow; `pack_tail` makes it of these fields.

    Args:
        session: its number.
        accepted: wall-clock time, seconds since the epoch.
        port: the client's.
        handshake: milliseconds from accept to the request.
        resolve: from there to the permit.
        connect: from there to the reply.
    """

    session: int
    accepted: float
    port: int
    handshake: float
    resolve: float
    connect: float

    @classmethod
    def of(cls, record: bytes) -> "Tail":
        """Read it from the end of a record."""
        return cls._make(_TAIL.unpack_from(record, len(record) - _TAIL.size))

    @property
    def before_relay(self) -> float:
        """Seconds from accept until the relay began."""
        return (self.handshake + self.resolve + self.connect) / 1000


class LaneEngine(Engine, Protocol):
    """An engine with an express lane.

    `Engine.fileno` is readable while `calls` wait as well; `Engine.ends` makes it quiet, so take the ends first, then
    the calls. `Engine.stop` hands over all arrivals: take those calls, too. Methods that are said to be *done when they
    return* wait for the engine's thread; no other does.
    """

    def open_lane(self, rows: SharedRows, *, numbers: int, patience: float) -> None:
        """Open the lane; once, after `start`.

        Args:
            rows: what doors and permits count in; of the engine's own build.
            numbers: the row by which sessions are numbered (`Rows.number`); each arrival takes one.
            patience: seconds from accept in which each stage has to have begun, or the connection is handed over.
        """

    def accept_from(self, listener: int) -> None:
        """Accept from this listening socket, which stays the caller's."""

    def stop_accepting(self, listener: int) -> None:
        """Leave a listener alone; done when it returns. One that is not accepted from is passed by."""

    def teach_door(self, door: Door) -> None:
        """Serve a client, from the next order on that rings: this one leaves an engine asleep (see `Engine.ring`).

        A door in the same place is replaced; where there are too many, none is added.
        """

    def teach_pass(self, door: int, message: bytes, user: bytes, until: float, failures: Counter) -> None:
        """Take this login (a message of RFC 1929) at a door.

        Args:
            door: number of the door.
            message: the login, as it comes.
            user: whose it is.
            until: then it is over, in seconds of the engine's clock.
            failures: a row in which failed logins are counted, and how many there are. It is over as well as soon as
                there are others.
        """

    def answer(self, arrival: int, permit: Permit | None) -> None:
        """Answer an `Ask`; None has the arrival handed over. One that is not there any more is passed by."""

    def calls(self) -> list[Call]:
        """Take all calls that wait, the oldest first. The lane accepts nothing while a thousand wait."""

    def call_in(self) -> None:
        """Hand over all arrivals; done when it returns."""

    def forget(self) -> None:
        """Forget all that was taught, and hand over all arrivals; done when it returns.

        So whoever is relayed by what was taught is in the next `Engine.snapshot`.
        """
