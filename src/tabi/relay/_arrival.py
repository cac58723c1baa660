"""A client's connection in the express lane, from accept until it is a flow or is handed over."""

import socket
from enum import IntEnum
from typing import Final

from tabi.relay.lane import Door, Permit, SocketAddress

__all__ = ["Arrival", "Listener", "Stage"]

_KIND: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK


class Stage(IntEnum):
    """What an arrival waits for."""

    GREETING = 0
    LOGIN = 1
    REQUEST = 2
    PERMIT = 3
    TARGET = 4


class Listener:
    """A listening socket of somebody else's, as the lane sees it."""

    __slots__ = ("family", "fd", "is_heard", "is_wildcard", "local", "sock")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        with socket.socket(fileno=fd) as known:  # which asks the kernel for the family
            self.family = known.family
            self.local: SocketAddress = known.getsockname()[:2]
            known.detach()
        self.is_wildcard = self.local[0] in ("0.0.0.0", "::")
        self.is_heard = False  # by the epoll

    def enter(self) -> None:
        """Take hold of the descriptor; `leave` is due."""
        self.sock = socket.SocketType(self.family, _KIND, 0, self.fd)

    def leave(self) -> None:
        """Let go of the descriptor."""
        self.sock.detach()


class Arrival:
    """One connection. The engine's thread alone knows it."""

    __slots__ = (
        "accepted", "at", "client", "deadline", "door", "fd", "is_unsure", "listener", "local", "message",
        "moment", "number", "outbound", "permit", "received", "requested", "resolved", "sent", "sock", "stage", "tick",
        "user", "was_hung_up",
    )  # fmt: skip

    def __init__(self, number: int, fd: int, listener: Listener, client: SocketAddress, now: float) -> None:
        self.number = number
        self.fd = fd
        self.sock = socket.SocketType(listener.family, _KIND, 0, fd)
        self.sock.setblocking(False)
        self.listener = listener
        self.client = client
        self.local = listener.local
        self.accepted = now
        self.door: Door | None = None  # None: nothing is counted
        self.stage = Stage.GREETING
        self.received = b""
        self.at = 0  # so much of it has been taken
        self.message = b""  # the request
        self.sent = 0
        self.user: bytes | None = None
        self.requested = 0.0
        self.resolved = 0.0
        self.moment = 0.0  # of accept, by the clock on the wall
        self.permit: Permit | None = None
        self.outbound: socket.SocketType | None = None
        self.deadline = 0.0
        self.tick = 0  # where the wheel will look at it; 0 is nowhere
        self.is_unsure = False  # there may be more to read than the next event will tell of
        self.was_hung_up = False
