"""What a relay engine is: the one interface of its pure and its compiled build.

An engine owns established pairs of sockets from `Engine.adopt` to the `End` that it reports, and keeps them
apart from the control plane: nothing here is a callback, and nothing but integers, bytes and tuples crosses
over. It knows no SOCKS, no names and no policy; the `record` of a flow is opaque to it.
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple, Protocol

from tabi.relay.bucket import Cell
from tabi.relay.tuning import Tuning

__all__ = ["Cause", "Closer", "End", "Engine", "FlowLimits", "Live"]


class Closer(IntEnum):
    """Who ended a flow."""

    CLIENT = 0
    TARGET = 1
    TABI = 2


class Cause(IntEnum):
    """Why a flow ended.

    FIN and RST (and ERROR with an errno such as ETIMEDOUT, a dead peer found by keepalive) are the doing of a
    peer. The others are ours: both sides were reset, so that nobody takes a cut for an end. ERROR by
    `Closer.TABI` means that the engine could not take the flow up at all; its errno says why. BUG means that the
    engine itself has failed, see `Engine.failure`.
    """

    FIN = 0
    RST = 1
    ERROR = 2
    IDLE = 3
    HALF_OPEN = 4
    LIFETIME = 5
    KILL = 6
    POLICY = 7
    SHUTDOWN = 8
    BUG = 9


class FlowLimits(NamedTuple):
    """Limits of one flow; times in seconds, 0 is none. Share one object among flows.

    Args:
        idle: without a byte in either direction.
        half_open: without a byte after the first of the two FINs.
        lifetime: from `Engine.adopt` on, come what may.
        buckets: token buckets (see `Engine.set_bucket`) that every byte is taken from, both directions together. All
            flows that name a bucket share it, in equal parts where they want as much.

    `Engine.limit` sets them anew while the flow runs.
    """

    idle: float = 0.0
    half_open: float = 600.0
    lifetime: float = 0.0
    buckets: tuple[int, ...] = ()


class End(NamedTuple):
    """A flow that is over: both descriptors are closed.

    `up` counts bytes from client to target that the target's kernel took, `down` the other way. `errno` is 0
    unless a socket failed (RST, ERROR). `started` and `ended` are of the engine's clock, `time.monotonic()`.
    """

    flow: int
    record: bytes
    closer: Closer
    cause: Cause
    errno: int
    up: int
    down: int
    started: float
    ended: float


class Live(NamedTuple):
    """A flow that lives. `last` is when a byte last moved, or when it was adopted; the rest is as in `End`."""

    flow: int
    record: bytes
    up: int
    down: int
    started: float
    last: float


class Engine(Protocol):
    """Relays bytes between the two sockets of each flow, in a thread of its own."""

    @property
    def name(self) -> str:
        """Name the build: "pure" or "compiled"."""

    @property
    def failure(self) -> Exception | None:
        """The bug of ours that has ended the thread, told by `fileno` as well; None while there is none.

        Every flow is reset and reported then (Cause.BUG), also one that is adopted later. There is no way back: end the
        process.
        """

    def start(self) -> None:
        """Start the thread. Call it once."""

    def adopt(
        self,
        inbound: int,
        outbound: int,
        early: bytes,
        pending: bytes,
        limits: FlowLimits,
        record: bytes,
        *,
        error: int = 0,
        ring: bool = True,
        tuning: Tuning | None = None,
    ) -> int:
        """Take over two established stream sockets, from any thread, and return the number of the flow.

        Both descriptors belong to the engine from here on, whatever happens: trouble is reported as an `End`.
        Forget them first: no reader, no writer, no duplicate that stays open may know them.

        Args:
            inbound: the client's descriptor, in any blocking mode.
            outbound: the target's.
            early: what was read from the client beyond its request; goes to the target before anything else.
            pending: what we still owe the client; goes to it before anything else.
            limits: what the flow has to keep to, until `limit` says otherwise.
            record: comes back in the flow's `End` and `Live`.
            error: errno that a call on the client's socket has met, 0: none. The kernel tells it once, and the engine
                would read an orderly end.
            ring: False leaves an engine asleep until `ring`, for whoever adopts several in a row.
            tuning: how both sockets are used for as long as the flow lives; None: as they come.
        """

    def ring(self) -> None:
        """Wake the engine for what was adopted without ringing, from any thread."""

    def fileno(self) -> int:
        """Return a descriptor that is readable while ends wait to be taken. It is valid until `close`."""

    def ends(self) -> list[End]:
        """Take all ends that wait, the oldest first."""

    def tell_together(self, is_on: bool) -> None:
        """Tell of ends together from now on, 5 ms after those before; or of each at once, as it is at first.

        What waits is counted in for so long, which matters to nobody but who is near a limit. `ends` gives it at once.
        """

    def snapshot(self) -> list[Live]:
        """List the flows that are not over, from any thread, without stopping the engine.

        Those that were just adopted are among them; one or the other that has just ended may be.
        """

    def kill(self, flows: Iterable[int], cause: Cause) -> None:
        """Reset both sides of these flows, from any thread; numbers of flows that are over are passed by."""

    def limit(self, flows: Iterable[int], limits: FlowLimits) -> None:
        """Set the limits of these flows anew, from any thread; numbers of flows that are over are passed by.

        All of them count from where they always did: idleness from the last byte, half-open from the first FIN or the
        last byte after it, lifetime from `adopt`. So a limit that has been passed already ends the flow at once. A flow
        that comes to a bucket shares it from now on, what it has queued included; one that leaves it is held back no
        longer.
        """

    def set_bucket(self, number: int, rate: int | None, cell: Cell | None = None) -> None:
        """Set how many bytes a second may be taken from a bucket, from any thread; None is no limit.

        It holds for all flows whose limits name the bucket, whether it is set before or after they do. At once may pass
        what `tabi.relay.bucket.burst_of` says.

        Args:
            number: of the bucket, the caller's choice.
            rate: bytes a second, at least 1.
            cell: where the bucket lies, if other processes take from it as well; counts when the bucket is first set.
        """

    def spend(self, buckets: Iterable[int], count: int) -> bool:
        """Take tokens for bytes that are moved elsewhere, from any thread; False if one of the buckets has too few."""

    def __len__(self) -> int:
        """Count the flows that are not over, with those adopted but not yet taken up."""

    def stop(self) -> None:
        """Reset what is left (Cause.SHUTDOWN), end the thread, wait for it. The last ends stay to be taken.

        A flow that is adopted afterwards is reset and reported at once. Stopping twice is stopping once.
        """

    def close(self) -> None:
        """Close `fileno`, after `stop`, once the last ends have been taken."""
