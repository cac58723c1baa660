"""Targets of our own: sockets on the proxy's host that an examination plays by hand, on that one address alone."""

import contextlib
import selectors
import socket
from collections.abc import Sequence
from typing import Final, TypeVar

from tabi.addr import Address, Endpoint
from tabi.client.doctor.line import Deadline, Ending, Line, NoAnswerError, Record
from tabi.client.plain import PlainSocket

__all__ = ["ClosedSpot", "DatagramSpot", "Spot", "family_of", "readable"]

_BIGGEST: Final = 65_535
_TRIES: Final = 50  # ports that are asked to be free on two addresses

S = TypeVar("S", bound="PlainSocket | DatagramSpot")


def family_of(address: Address) -> socket.AddressFamily:
    """Give the family of a socket for an address."""
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


class Spot:
    """A TCP target that nobody accepts for: the kernel lets the proxy connect, and the examination takes it from there.

    Args:
        addresses: where it listens, on the same port; the first is the one that it is known by.
        deadline: of the examination.
        patience: seconds for one wait.
        shut: addresses on which that port stays closed.

    Raises:
        OSError: it cannot listen there.
    """

    def __init__(
        self, addresses: tuple[Address, ...], deadline: Deadline, patience: float, shut: tuple[Address, ...] = ()
    ) -> None:
        self._deadline = deadline
        self._patience = patience
        with contextlib.ExitStack() as stack:
            self._listeners = _listen(addresses, shut, stack)
            self._stack = stack.pop_all()
        self.endpoint: Endpoint = Endpoint.from_sockaddr(self._listeners[0].getsockname())

    def accept(self) -> Line:
        """Take the connection that the proxy has made.

        Raises:
            NoAnswerError: there is none.
        """
        ready = readable(self._listeners, self._deadline.left(self._patience))
        if not ready:
            raise NoAnswerError(Ending.OPEN)
        sock, _ = ready[0].accept()
        self._stack.callback(sock.close)
        return Line(sock, self._deadline, self._patience, Record())

    def was_visited(self) -> bool:
        """Say whether somebody has connected."""
        return bool(readable(self._listeners, 0.0))

    def close(self) -> None:
        """Listen no more, and close what was accepted."""
        self._stack.close()


def readable(sockets: Sequence[S], seconds: float) -> list[S]:
    """Wait until there is something to be had from one of several; gives those."""
    with selectors.DefaultSelector() as selector:
        for sock in sockets:
            selector.register(sock, selectors.EVENT_READ, sock)
        return [key.data for key, _ in selector.select(seconds)]


def _listen(
    addresses: tuple[Address, ...], shut: tuple[Address, ...], stack: contextlib.ExitStack
) -> list[PlainSocket]:
    """Listen on one port of all addresses, and hold it without listening on others."""
    for _ in range(_TRIES):
        with contextlib.ExitStack() as attempt:
            port, listeners = 0, []
            try:
                for address in (*addresses, *shut):
                    sock = attempt.enter_context(_bound(address, port, socket.SOCK_STREAM))
                    port = sock.getsockname()[1]
                    if address in addresses:
                        sock.listen(16)
                        listeners.append(sock)
            except OSError:
                if not port:  # not even the first: it is the address
                    raise
                continue
            stack.enter_context(attempt.pop_all())
            return listeners
    raise OSError(f"no port is free on all of {', '.join(map(str, (*addresses, *shut)))}")


def _bound(address: Address, port: int, kind: socket.SocketKind) -> PlainSocket:
    sock = PlainSocket(family_of(address), kind)
    try:
        if address.version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((str(address), port))
    except OSError:
        sock.close()
        raise
    return sock


class ClosedSpot:
    """A TCP port that is held and does not listen: connecting is refused, and nobody else can take it meanwhile.

    Raises:
        OSError: there is no such address.
    """

    def __init__(self, address: Address) -> None:
        self._sock = _bound(address, 0, socket.SOCK_STREAM)
        self.endpoint: Endpoint = Endpoint.from_sockaddr(self._sock.getsockname())

    def close(self) -> None:
        """Let go of it."""
        self._sock.close()


class DatagramSpot:
    """A UDP socket: a target, a stranger, or our own end of an association.

    Args:
        address: that it is bound to.
        port: the same; 0 for any.
        deadline: of the examination.
        patience: seconds for one wait.
        record: where all is noted.

    Raises:
        OSError: there is no such address.
    """

    def __init__(self, address: Address, port: int, deadline: Deadline, patience: float, record: Record) -> None:
        self._sock = _bound(address, port, socket.SOCK_DGRAM)
        self._deadline = deadline
        self._patience = patience
        self._record = record
        self.endpoint: Endpoint = Endpoint.from_sockaddr(self._sock.getsockname())

    def send(self, data: bytes, there: Endpoint) -> None:
        """Send a datagram.

        Raises:
            NoAnswerError: it cannot be sent.
        """
        self._record.sent(data)
        try:
            self._sock.sendto(data, (str(there.host), there.port))
        except OSError:  # nobody is there any more, as ICMP says of an earlier one
            raise NoAnswerError(Ending.RESET) from None

    def fileno(self) -> int:
        """Let it be waited for."""
        return self._sock.fileno()

    def receive(self, patience: float | None = None) -> tuple[bytes, Endpoint]:
        """Wait for a datagram.

        Returns:
            its bytes and where it came from.

        Raises:
            NoAnswerError: none came.
        """
        self._sock.settimeout(self._deadline.left(self._patience if patience is None else patience))
        try:
            data, source = self._sock.recvfrom(_BIGGEST)
        except TimeoutError:
            raise NoAnswerError(Ending.OPEN) from None
        except OSError:
            raise NoAnswerError(Ending.RESET) from None
        self._record.received(data)
        return data, Endpoint.from_sockaddr(source)

    def close(self) -> None:
        """Close it."""
        self._sock.close()
