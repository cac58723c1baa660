"""A blocking datagram socket through proxies: `DatagramSocket`, and the associations that hold it open.

Through a chain there is an association with each proxy, and each goes through those before it: its control connection
over theirs, its datagrams through their relays. So nothing is sent around a proxy.
"""

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from tabi.addr import Address, Endpoint, Name
from tabi.client import plans
from tabi.client.blocking import drive
from tabi.client.plain import PlainSocket
from tabi.client.plans import AddressLike, read_address, show_address
from tabi.dial.chain import Bound
from tabi.errors import UsageError
from tabi.machine.datagrams import ClientDatagrams, Received
from tabi.machine.url import ProxyLike

__all__ = ["LARGEST", "DatagramSocket", "check_control", "open_datagrams", "open_leg"]

LARGEST = 65_535  # bytes of a datagram with its headers

_DISCARD = 4096  # bytes; what a proxy says on a control connection means nothing


def open_datagrams(
    proxy: ProxyLike, timeout: float | None, allow_relay: Callable[[Address], bool]
) -> "DatagramSocket":
    """Associate with each proxy in turn; see `tabi.sync.associate`."""
    hops = plans.proxies_for_datagrams(proxy)
    associations: list[Bound] = []
    try:
        for number in range(len(hops)):
            bound = drive(plans.associate(hops[: number + 1], timeout))
            associations.append(bound)  # at once: the next may fail, and all are to be closed then
        relays = [plans.relay(bound, allow_relay) for bound in associations]
        leg = open_leg(associations[0], relays[0])
    except BaseException:
        for bound in associations:
            _control(bound).close()
        raise
    return DatagramSocket(associations, relays, leg, takes_names=hops[-1].scheme.takes_names, timeout=timeout)


def open_leg(bound: Bound, relay: Endpoint) -> socket.socket:
    """Open the socket for datagrams to the nearest relay; what comes from elsewhere does not reach it.

    Its local address is that of the control connection, from which the proxy expects the datagrams.
    """
    assert not isinstance(relay.host, Name), "the nearest proxy was reached at an address"
    family = socket.AF_INET if relay.host.version == 4 else socket.AF_INET6
    control = _control(bound)
    sock = PlainSocket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if control.family == family:
            sock.bind((control.getsockname()[0], 0, *control.getsockname()[2:]))
        sock.connect((str(relay.host), relay.port))
    except BaseException:
        sock.close()
        raise
    return sock


class DatagramSocket:
    """Send and receive datagrams through proxies; made by `tabi.sync.associate`.

    It is used as a datagram socket is, by any number of threads. It has two descriptors: that of `fileno`, for
    selectors, and the control connection, whose end is the end of the association.
    """

    def __init__(
        self,
        associations: Sequence[Bound],
        relays: Sequence[Endpoint],
        leg: socket.socket,
        *,
        takes_names: bool,
        timeout: float | None,
    ) -> None:
        self._associations = tuple(associations)
        self._relay = relays[0]
        self._leg = leg
        self._datagrams = ClientDatagrams(relays[1:])
        self._takes_names = takes_names
        self._names = plans.Addresses()
        self._timeout = timeout
        self._unwrapping = threading.Lock()

    @property
    def relay(self) -> tuple[str, int]:
        """Where the datagrams are sent: the relay of the first proxy."""
        return show_address(self._relay)

    def sendto(self, data: bytes | bytearray | memoryview, address: AddressLike) -> int:
        """Send one datagram to `address`; a name goes to the proxy, or is looked up here where its URL says so.

        Returns:
            the size of `data`: a datagram is sent whole or not at all.

        Raises:
            UsageError: an address that cannot be used.
            BlockingIOError, TimeoutError: there is no room, as sockets have it.
            OSError: it is too long with its headers, or the relay is gone.
        """
        target = read_address(address)
        if isinstance(target.host, Name) and not self._takes_names:
            target = Endpoint(self._look_up(target.host), target.port)
        raw = self._datagrams.wrap(bytes(data), target)
        deadline = self._deadline()
        while True:
            try:
                self._leg.send(raw)
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)
            else:
                return len(data)

    def recvfrom(self, bufsize: int = LARGEST) -> tuple[bytes, tuple[str, int]]:
        """Wait for a datagram.

        Args:
            bufsize: bytes that are given of it; the rest of a longer one is lost, as with sockets.

        Returns:
            its data, and the address of who sent it.

        Raises:
            BlockingIOError, TimeoutError: there is none, as sockets have it.
            ProxyProtocolError: a proxy ended the association.
            OSError: the relay is gone.
        """
        deadline = self._deadline()
        while True:
            received = self._receive()
            if received is not None:
                return received.data[:bufsize], show_address(received.source)
            self._wait(select.POLLIN, deadline)

    def settimeout(self, timeout: float | None) -> None:
        """Set the seconds that a call waits: None for ever, 0 not at all."""
        if timeout is not None and timeout < 0:
            raise UsageError(f"timeout is {timeout}; it must be 0 seconds or more, or None")
        self._timeout = timeout

    def gettimeout(self) -> float | None:
        """Give what `settimeout` has set."""
        return self._timeout

    def getsockname(self) -> tuple[str, int]:
        """Give the local address that datagrams to the first relay come from."""
        return show_address(Endpoint.from_sockaddr(self._leg.getsockname()))

    def fileno(self) -> int:
        """Descriptor that is readable when a datagram has come; -1 when closed."""
        return self._leg.fileno()

    def close(self) -> None:
        """End the association."""
        self._leg.close()
        for bound in self._associations:
            _control(bound).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<DatagramSocket by {self._associations[-1].hop}{', closed' if self.fileno() < 0 else ''}>"

    def _receive(self) -> Received | None:
        """Take what is there until a whole datagram is, or nothing is left."""
        while True:
            try:
                raw = self._leg.recv(LARGEST)
            except BlockingIOError:
                return None
            with self._unwrapping:
                received = self._datagrams.unwrap(raw, time.monotonic())
            if received is not None:
                return received

    def _look_up(self, name: Name) -> Address:
        known = self._names.known(name, time.monotonic())
        if known is None:
            known = self._names.remember(name, drive(plans.look_up(name)), time.monotonic())
        return known

    def _deadline(self) -> float | None:
        return None if self._timeout is None else time.monotonic() + self._timeout

    def _wait(self, event: int, deadline: float | None) -> None:
        """Wait until the socket is ready.

        Raises:
            ProxyProtocolError: a control connection has ended.
            BlockingIOError, TimeoutError: it was not in time.
        """
        poll = select.poll()
        poll.register(self._leg, event)
        controls = {_control(bound).fileno(): bound for bound in self._associations}
        for descriptor in controls:
            poll.register(descriptor, select.POLLIN)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = poll.poll(None if left is None else left * 1000)
        if not ready:
            if self._timeout == 0:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            raise TimeoutError("timed out")
        for descriptor, _ in ready:
            if descriptor in controls:
                check_control(controls[descriptor])


def check_control(bound: Bound) -> None:
    """Read what a proxy says on a control connection; only its end means anything.

    Raises:
        ProxyProtocolError: it has ended, and the association with it.
    """
    try:
        if _control(bound).recv(_DISCARD):
            return
    except BlockingIOError:
        return
    except ConnectionError:
        pass
    raise plans.association_ended(bound.hop)


def _control(bound: Bound) -> socket.socket:
    assert isinstance(bound.handle, PlainSocket)
    return bound.handle
