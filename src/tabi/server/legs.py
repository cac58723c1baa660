"""The client's side of UDP associations: a socket of its own, or a place on one shared port.

A leg delivers datagrams that may be its client's and sends towards it. Whether a datagram is the client's is decided by
`tabi.machine.association`; on the shared port the source decides first which association is asked.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol, TypeAlias

from tabi.addr import Address, Endpoint, socket_address
from tabi.errors import DialError, Stage
from tabi.net.ports import open_datagram_socket
from tabi.relay import Ferry, make_ferry

__all__ = ["BATCH", "Leg", "OwnLeg", "SharedPort"]

BATCH = 64  # datagrams per wake-up, so that other sessions get their turn
_SIZE = 65_536  # more than any datagram: none is ever cut

_TELL_EVERY = 60.0  # seconds between two accounts of datagrams that nobody had asked for

_logger = logging.getLogger("tabi")

OnDatagram: TypeAlias = Callable[[bytes, Address, int], None]


class Leg(Protocol):
    """What an association needs of its client's side."""

    bound: Endpoint

    def start(self, on_datagram: OnDatagram) -> None:
        """Begin to deliver (data, source address, source port)."""

    def fix(self, port: int) -> None:
        """The client's port is settled."""

    def board(self, on_carried: Callable[[], None]) -> Ferry | None:
        """Have a ferry carry what it knows, once the client's port is settled; None: there is none here.

        Args:
            on_carried: called after each batch from the client.
        """

    def send(self, data: memoryview) -> None:
        """Send to the client; raises OSError, EMSGSIZE where it does not fit."""

    def close(self) -> None:
        """End."""


class OwnLeg:
    """A socket of the association's own; connected once the client is fixed, so that the kernel keeps strangers out."""

    def __init__(
        self,
        local: Address,
        client: Address,
        ports: tuple[int, int] | None,
        *,
        loop: asyncio.AbstractEventLoop,
        scope: int = 0,
    ) -> None:
        self._sock = open_datagram_socket(local, ports, scope)
        self._client = client
        self._loop = loop
        self._ferry: Ferry | None = None
        self.bound: Endpoint = Endpoint.from_sockaddr(self._sock.getsockname())

    def start(self, on_datagram: OnDatagram) -> None:
        """Begin to deliver."""
        self._on_datagram = on_datagram
        self._loop.add_reader(self._sock, self._on_readable)

    def fix(self, port: int) -> None:
        """Connect to the client; datagrams that strangers got in before still show their source.

        Raises:
            OSError: there is no route back to the client.
        """
        self._sock.connect((str(self._client), port))  # a link-local one is on the link that the socket is bound to
        self._port = port

    def board(self, on_carried: Callable[[], None]) -> Ferry | None:
        """Have a ferry carry what it knows."""
        self._ferry = make_ferry(self._sock.fileno(), str(self._client), self._port)
        self._on_carried = on_carried
        return self._ferry

    def send(self, data: memoryview) -> None:
        """Send to the client."""
        try:
            self._sock.send(data)
        except ConnectionRefusedError:  # an ICMP error for an earlier datagram, told now; this one goes again
            self._sock.send(data)

    def close(self) -> None:
        """Close the socket."""
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _on_readable(self) -> None:
        if self._ferry is not None:
            self._carry(self._ferry)
            return
        for _ in range(BATCH):
            try:
                data, source = self._sock.recvfrom(_SIZE)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error for a datagram that we sent to the client
                continue
            self._on_datagram(data, socket_address(source[0]), source[1])

    def _carry(self, ferry: Ferry) -> None:
        if ferry.receive(self._sock.fileno()):
            now = time.monotonic()
            while (stray := ferry.carry_up(now)) is not None:
                data, host, port = stray
                self._on_datagram(data, socket_address(host), port)
            self._on_carried()


class SharedPort:
    """One port for all associations on a local address: told apart by the source of each datagram, never guessed.

    An association whose client has declared no port is found by its first datagram. As long as one of an address has
    not sent, the next undeclared one from that address waits.
    """

    def __init__(self, local: Address, port: int, *, loop: asyncio.AbstractEventLoop) -> None:
        self._sock = open_datagram_socket(local, (port, port))
        self._loop = loop
        self.bound: Endpoint = Endpoint.from_sockaddr(self._sock.getsockname())
        self._strangers = 0  # datagrams that were dropped and not told of yet
        self._last_stranger: Endpoint | None = None
        self._telling: asyncio.TimerHandle | None = None
        self._fixed: dict[tuple[Address, int], SharedLeg] = {}
        self._unfixed: dict[Address, SharedLeg] = {}
        loop.add_reader(self._sock, self._on_readable)

    async def claim(self, client: Address, declared: int | None) -> "SharedLeg":
        """Take a place for an association of `client`; waits while another of that address has not sent.

        Raises:
            DialError: the declared port is another association's.
        """
        if declared is not None:
            if (client, declared) in self._fixed:
                text = f"{Endpoint(client, declared)} is the source of another association on the shared port"
                raise DialError(text, stage=Stage.ASSOCIATE)
            leg = self._fixed[client, declared] = SharedLeg(self, client, declared)
            return leg
        while (other := self._unfixed.get(client)) is not None:
            await other.settled.wait()
        leg = self._unfixed[client] = SharedLeg(self, client, None)
        return leg

    def close(self) -> None:
        """Close the port; to be called when no association is left."""
        if self._telling is not None:
            self._telling.cancel()
            self._tell_strangers()
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def fix(self, leg: "SharedLeg", port: int) -> None:
        """Settle the port of a leg."""
        if self._unfixed.get(leg.client) is leg:
            del self._unfixed[leg.client]
            self._fixed[leg.client, port] = leg

    def release(self, leg: "SharedLeg") -> None:
        """Take a leg out."""
        if leg.port is not None:
            self._fixed.pop((leg.client, leg.port), None)
        elif self._unfixed.get(leg.client) is leg:
            del self._unfixed[leg.client]

    def send(self, data: memoryview, client: Address, port: int) -> None:
        """Send towards a client."""
        self._sock.sendto(data, (str(client), port))

    def _drop(self, stranger: Endpoint) -> None:
        """Count a datagram that is no association's: a client whose address changes on the way, or a scan."""
        self._strangers += 1
        self._last_stranger = stranger
        if self._telling is None:
            self._telling = self._loop.call_later(_TELL_EVERY, self._tell_strangers)

    def _tell_strangers(self) -> None:
        self._telling = None
        _logger.warning(
            "%d datagrams at the shared UDP port %s were dropped: their source has no association (the last: %s)",
            self._strangers,
            self.bound,
            self._last_stranger,
        )
        self._strangers = 0

    def _on_readable(self) -> None:
        for _ in range(BATCH):
            try:
                data, source = self._sock.recvfrom(_SIZE)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error for a datagram that we sent to some client
                continue
            address, port = socket_address(source[0]), source[1]
            leg = self._fixed.get((address, port)) or self._unfixed.get(address)
            if leg is None:
                self._drop(Endpoint(address, port))
            else:
                leg.deliver(data, address, port)


class SharedLeg:
    """An association's place on a shared port."""

    def __init__(self, shared: SharedPort, client: Address, port: int | None) -> None:
        self._shared = shared
        self._on_datagram: OnDatagram | None = None
        self.client = client
        self.port = port
        self.bound: Endpoint = shared.bound
        self.settled: asyncio.Event = asyncio.Event()

    def start(self, on_datagram: OnDatagram) -> None:
        """Begin to deliver."""
        self._on_datagram = on_datagram

    def deliver(self, data: bytes, source: Address, port: int) -> None:
        """Pass a datagram on; before `start` it is too early for any."""
        if self._on_datagram is not None:
            self._on_datagram(data, source, port)

    def fix(self, port: int) -> None:
        """Settle the port: the next association of this address may begin."""
        self._shared.fix(self, port)
        self.port = port
        self.settled.set()

    def board(self, _on_carried: Callable[[], None]) -> None:
        """There is none: what comes is still to be told apart."""

    def send(self, data: memoryview) -> None:
        """Send to the client, whose port is settled by then."""
        if self.port is not None:
            self._shared.send(data, self.client, self.port)

    def close(self) -> None:
        """Give the place up."""
        self._shared.release(self)
        self.settled.set()
