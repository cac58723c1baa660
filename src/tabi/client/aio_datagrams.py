"""A datagram socket through proxies for asyncio: the twin of `tabi.client.datagrams`."""

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from tabi.addr import Address, Endpoint, Name
from tabi.client import plans
from tabi.client.datagrams import LARGEST, check_control, open_leg
from tabi.client.driving import drive
from tabi.client.plans import AddressLike, read_address, show_address
from tabi.dial.chain import Bound
from tabi.errors import ProxyProtocolError, UsageError
from tabi.machine.datagrams import ClientDatagrams, Received
from tabi.machine.url import ProxyLike

__all__ = ["DatagramSocket", "open_datagrams"]


async def open_datagrams(
    proxy: ProxyLike, timeout: float | None, allow_relay: Callable[[Address], bool]
) -> "DatagramSocket":
    """Associate with each proxy in turn; see `tabi.aio.associate`."""
    hops = plans.proxies_for_datagrams(proxy)
    associations: list[Bound] = []
    try:
        for number in range(len(hops)):
            bound = await drive(plans.associate(hops[: number + 1], timeout))
            associations.append(bound)  # at once: the next may fail, and all are to be closed then
        relays = [plans.relay(bound, allow_relay) for bound in associations]
        leg = open_leg(associations[0], relays[0])
    except BaseException:
        for bound in associations:
            _control(bound).close()
        raise
    return DatagramSocket(associations, relays, leg, takes_names=hops[-1].scheme.takes_names)


class DatagramSocket:
    """Send and receive datagrams through proxies; made by `tabi.aio.associate`.

    One task receives, any number send. The association ends with the control connection of any of its proxies.
    """

    def __init__(
        self, associations: Sequence[Bound], relays: Sequence[Endpoint], leg: socket.socket, *, takes_names: bool
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._associations = tuple(associations)
        self._relay = relays[0]
        self._leg = leg
        self._datagrams = ClientDatagrams(relays[1:])
        self._takes_names = takes_names
        self._names = plans.Addresses()
        self._receiver: asyncio.Future[None] | None = None
        self._ended: OSError | None = None
        for bound in self._associations:
            self._loop.add_reader(_control(bound).fileno(), self._on_control, bound)

    @property
    def relay(self) -> tuple[str, int]:
        """Where the datagrams are sent: the relay of the first proxy."""
        return show_address(self._relay)

    async def sendto(self, data: bytes | bytearray | memoryview, address: AddressLike) -> int:
        """Send one datagram to `address`; a name goes to the proxy, or is looked up here where its URL says so.

        Returns:
            the size of `data`: a datagram is sent whole or not at all.

        Raises:
            UsageError: an address that cannot be used.
            OSError: it is too long with its headers, or the relay is gone.
        """
        target = read_address(address)
        if isinstance(target.host, Name) and not self._takes_names:
            target = Endpoint(await self._look_up(target.host), target.port)
        await self._loop.sock_sendall(self._leg, self._datagrams.wrap(bytes(data), target))
        return len(data)

    async def recvfrom(self, bufsize: int = LARGEST) -> tuple[bytes, tuple[str, int]]:
        """Wait for a datagram; limit the wait by `asyncio.timeout`.

        Args:
            bufsize: bytes that are given of it; the rest of a longer one is lost, as with sockets.

        Returns:
            its data, and the address of who sent it.

        Raises:
            ProxyProtocolError: a proxy ended the association.
            UsageError: another task receives.
            OSError: the relay is gone.
        """
        if self._receiver is not None:
            raise UsageError("another task waits for a datagram of this socket")
        while True:
            received = self._receive()
            if received is not None:
                return received.data[:bufsize], show_address(received.source)
            if self._ended is not None:
                raise self._ended
            await self._readable()

    def getsockname(self) -> tuple[str, int]:
        """Give the local address that datagrams to the first relay come from."""
        return show_address(Endpoint.from_sockaddr(self._leg.getsockname()))

    def close(self) -> None:
        """End the association; who waits for a datagram is told so."""
        if self._leg.fileno() < 0:
            return
        self._end(OSError(errno.EBADF, "the socket is closed"))
        self._loop.remove_reader(self._leg.fileno())
        self._leg.close()
        for bound in self._associations:
            self._loop.remove_reader(_control(bound).fileno())
            _control(bound).close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<DatagramSocket by {self._associations[-1].hop}{', closed' if self._leg.fileno() < 0 else ''}>"

    def _receive(self) -> Received | None:
        """Take what is there until a whole datagram is, or nothing is left."""
        while self._leg.fileno() >= 0:
            try:
                raw = self._leg.recv(LARGEST)
            except BlockingIOError:
                return None
            received = self._datagrams.unwrap(raw, time.monotonic())
            if received is not None:
                return received
        return None

    async def _readable(self) -> None:
        self._receiver = self._loop.create_future()
        self._loop.add_reader(self._leg.fileno(), self._wake)
        try:
            await self._receiver
        finally:
            self._receiver = None
            if self._leg.fileno() >= 0:
                self._loop.remove_reader(self._leg.fileno())

    def _wake(self) -> None:
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)

    def _on_control(self, bound: Bound) -> None:
        try:
            check_control(bound)
        except ProxyProtocolError as error:
            self._loop.remove_reader(_control(bound).fileno())
            self._end(error)

    def _end(self, error: OSError) -> None:
        self._ended = self._ended or error
        self._wake()

    async def _look_up(self, name: Name) -> Address:
        known = self._names.known(name, time.monotonic())
        if known is None:
            known = self._names.remember(name, await drive(plans.look_up(name)), time.monotonic())
        return known


def _control(bound: Bound) -> socket.socket:
    assert isinstance(bound.handle, socket.socket)
    return bound.handle
