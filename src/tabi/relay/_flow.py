"""The state of one flow: two sides and what is said about them at the end.

Only slots, no buffer and no closure: an idle flow is what these objects weigh. The engine's thread alone
writes here; `Flow.live` is the one thing that other threads read.
"""

import errno
import fcntl
import os
import socket
import struct
import sys
import termios
from typing import TYPE_CHECKING, Final

from tabi.relay._pipes import Pipe
from tabi.relay.interface import Cause, Closer, FlowLimits, Live
from tabi.relay.tuning import Tuning

if TYPE_CHECKING:
    from tabi.relay._groups import Share

__all__ = ["Flow", "Linger", "Side"]

# SO_LINGER {on, 0 seconds}: close() sends RST and throws away what is queued (tcp_close of Linux, RFC 9293
# ABORT).
_ABORT: Final = struct.pack("ii", 1, 0)

# What a reset looks like, depending on which call meets it first: EPIPE is SO_ERROR of a reset that came
# after a FIN, ENOTCONN is shutdown() on a socket whose reset has been told to somebody already.
_RESETS: Final = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN})


class Side:
    """One socket of a flow: what is owed to it (`out`) and what came from it (`pipe`)."""

    __slots__ = (
        "big", "eof", "err", "fd", "flow", "in_pipe", "is_copied", "is_settled", "out", "peer", "pipe", "queued",
        "shut", "sock", "taken",
    )  # fmt: skip

    def __init__(self, fd: int, owed: bytes, sock: socket.SocketType | None = None) -> None:
        self.fd = fd
        self.sock = sock  # None until the engine's thread takes the flow up
        self.flow: Flow | None = None  # None once the flow is over
        self.peer: Side | None = None  # None likewise: no cycle outlives the flow
        self.out = memoryview(owed) if owed else None  # for this socket, not yet taken by its kernel
        self.taken = 0  # bytes that this socket's kernel took
        self.pipe: Pipe | None = None  # from this socket, on the way to its peer
        self.in_pipe = 0  # bytes in there
        self.big = 0  # how surely this is a bulk stream
        self.err = 0  # the first errno; sticky, because the kernel tells it once
        self.eof = False  # nothing more will be read from here
        self.shut = False  # we have sent our FIN
        self.is_settled = False  # what congestion control it has has been seen to
        self.is_copied = False  # what comes from here is not spliced
        self.queued = False  # has something to move, or may have: its turn will come

    def open(self) -> bool:
        """Wrap the descriptor and prepare it; False: that cannot be, and the OSError is in `err`.

        The base type of sockets is enough and weighs 48 bytes. Out-of-band data inline: the urgent byte
        arrives as the data that it is (RFC 6093 section 4) instead of being dropped.
        """
        try:
            kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
            self.sock = socket.SocketType(socket.AF_INET, kind, 0, self.fd)
            self.sock.setblocking(False)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        except OSError as error:
            self.fail(error)
            return False
        return True

    def fail(self, error: OSError) -> None:
        """Remember that the socket is broken; the first error stays."""
        self.err = self.err or error.errno or errno.EIO

    def take_error(self) -> None:
        """Ask the kernel which error it holds (SO_ERROR tells it once and forgets)."""
        assert self.sock is not None
        try:
            self.err = self.err or self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except OSError as error:
            self.fail(error)

    def send_fin(self) -> None:
        """Shut our direction down; a socket that cannot do that any more is broken."""
        assert self.sock is not None
        self.shut = True
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.take_error()  # what shutdown says is ENOTCONN; the kernel may still know the cause
            self.fail(error)

    def unsent(self) -> int:
        """Count the bytes in the kernel's queue that the peer has not acknowledged (SIOCOUTQ, tcp(7))."""
        try:
            return int.from_bytes(fcntl.ioctl(self.fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except OSError as error:
            self.fail(error)
            return 0

    def acknowledged(self) -> int:
        """Count the bytes that the peer's kernel has, up to a constant (our FIN, what was sent before us)."""
        return self.taken - self.unsent()

    def close(self, *, reset: bool) -> None:
        """Close the descriptor, with RST if told so and the socket is not broken itself."""
        try:
            if self.sock is None:
                os.close(self.fd)
            else:
                if reset and not self.err:
                    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                self.sock.close()
        except OSError as error:  # somebody closed it behind our back: the number is not ours any more
            self.fail(error)
            if self.sock is not None:
                self.sock.detach()
        self.peer = self.flow = self.out = None


class Linger:
    """A flow of which one side is broken, while what that side sent before is delivered to the other."""

    __slots__ = ("broken", "mark", "moved", "since")

    def __init__(self, broken: Side, mark: int, now: float) -> None:
        self.broken = broken
        self.mark = mark  # bytes that the living side's peer has acknowledged, or a constant more
        self.moved = now  # when that last grew
        self.since = now


class Flow:
    """One tunnel."""

    __slots__ = (
        "fin_from", "fin_time", "inbound", "last", "limits", "linger", "number", "outbound", "record",
        "share", "started", "tail", "tick", "tuning",
    )  # fmt: skip

    def __init__(
        self, number: int, inbound: Side, outbound: Side, limits: FlowLimits, record: bytes, now: float
    ) -> None:
        self.number = number
        self.inbound = inbound
        self.outbound = outbound
        self.limits = limits
        self.record = record
        self.tail = b""  # belongs behind the record, which flows may share
        self.started = self.last = now
        self.fin_from: Side | None = None  # whose FIN came first
        self.fin_time = 0.0
        self.linger: Linger | None = None
        self.share: Share | None = None  # None: it may move as fast as it can
        self.tuning: Tuning | None = None  # how its sockets are to be used, once it is taken up
        self.tick = 0  # where the wheel will look at this flow; 0 is nowhere
        inbound.peer, outbound.peer = outbound, inbound
        inbound.flow = outbound.flow = self

    def is_held_back(self) -> bool:
        """Say whether it waits for tokens: then it is ours, and no peer's doing that nothing moves."""
        return self.share is not None and self.share.at is not None

    def closer(self, side: Side) -> Closer:
        """Name the side."""
        return Closer.CLIENT if side is self.inbound else Closer.TARGET

    def live(self) -> Live:
        """Say how the flow is doing. Called from any thread: the sides of a flow never change."""
        record = self.record + self.tail
        return Live(self.number, record, self.outbound.taken, self.inbound.taken, self.started, self.last)

    def verdict(self) -> tuple[Closer, Cause, int]:
        """Say which side ended the flow, how, and with which errno."""
        if self.linger is not None:
            broken = self.linger.broken
            return self.closer(broken), Cause.RST if broken.err in _RESETS else Cause.ERROR, broken.err
        assert self.fin_from is not None, "a flow ends by a FIN, an error or a cut"
        return self.closer(self.fin_from), Cause.FIN, 0

    def deadline(self) -> tuple[float, Cause] | None:
        """Say when the next of its time limits is reached and which one it is, or None."""
        idle, half_open, lifetime, _ = self.limits
        nearest: tuple[float, Cause] | None = None
        if lifetime:
            nearest = self.started + lifetime, Cause.LIFETIME
        if idle and (nearest is None or self.last + idle < nearest[0]):
            nearest = self.last + idle, Cause.IDLE
        if half_open and self.fin_from is not None:
            when = max(self.last, self.fin_time) + half_open
            if nearest is None or when < nearest[0]:
                nearest = when, Cause.HALF_OPEN
        return nearest
