"""UDP associations of ours with each proxy on a way, and the socket for the datagrams that take it.

Every control connection and every datagram goes through all proxies before its own, so nothing is sent around one. All
of it ends with the first control connection that does.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address

from tabi.addr import Address, Endpoint, Name
from tabi.dial.chain import Bound
from tabi.dial.relay import relay_endpoint
from tabi.errors import Stage, TabiError
from tabi.machine.datagrams import ClientDatagrams, Received
from tabi.machine.hop import blame
from tabi.net.errno_map import dial_error

__all__ = ["ANYWHERE", "Associations"]

ANYWHERE = Endpoint(IPv4Address(0), 0)  # RFC 1928 section 4: where our datagrams come from is not known yet

_BATCH = 64  # datagrams per wake-up, so that others get their turn
_SIZE = 65_536  # more than any datagram: none is ever cut
_DISCARD = 4096


class Associations:
    """Datagrams to and from the last proxy of a way.

    Args:
        bounds: as `tabi.dial.chain.associate_with_all` gives them; closed with this, also where it cannot be made.
        egress: that the nearest was reached from.
        loop: that delivers.

    Raises:
        TabiError: a proxy tells no relay, or no socket can be opened for it.
    """

    def __init__(
        self, bounds: Sequence[Bound], egress: Address | str | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._bounds = tuple(bounds)
        self._loop = loop
        try:
            relays = [_relay(bound) for bound in bounds]
            self._datagrams = ClientDatagrams(relays[1:])
            self._sock = _open(_control(bounds[0]), relays[0], egress)
        except BaseException:
            for bound in bounds:
                _control(bound).close()
            raise

    def start(self, on_datagram: Callable[[Received], None], on_end: Callable[[str], None]) -> None:
        """Begin to deliver what comes back, and to say which proxy has ended its association; close this then."""
        self._loop.add_reader(self._sock, self._on_readable, on_datagram)
        for bound in self._bounds:
            self._loop.add_reader(_control(bound), self._on_control, bound, on_end)

    def send(self, data: bytes, target: Endpoint) -> None:
        """Send to a target; raises OSError, EMSGSIZE where it does not fit with its headers."""
        wrapped = self._datagrams.wrap(data, target)
        try:
            self._sock.send(wrapped)
        except ConnectionRefusedError:  # an ICMP error for an earlier datagram, told now; this one goes again
            self._sock.send(wrapped)

    def close(self) -> None:
        """End the associations."""
        for sock in (self._sock, *map(_control, self._bounds)):
            self._loop.remove_reader(sock)
            sock.close()

    def _on_readable(self, on_datagram: Callable[[Received], None]) -> None:
        for _ in range(_BATCH):
            try:
                raw = self._sock.recv(_SIZE)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error for a datagram that we sent
                continue
            received = self._datagrams.unwrap(raw, self._loop.time())
            if received is not None:
                on_datagram(received)

    def _on_control(self, bound: Bound, on_end: Callable[[str], None]) -> None:
        try:
            if _control(bound).recv(_DISCARD):
                return  # what a proxy says there means nothing
        except BlockingIOError:
            return
        except OSError:
            pass  # it is gone all the same
        on_end(f"{bound.hop} has ended the association")


def _relay(bound: Bound) -> Endpoint:
    try:
        return relay_endpoint(bound.local, bound.remote.host, lambda _address: False)
    except TabiError as error:
        raise blame(error, bound.hop, ANYWHERE) from None


def _open(control: socket.socket, relay: Endpoint, egress: Address | str | None) -> socket.socket:
    """Open the socket towards the nearest relay: from where its proxy knows us, and hearing nobody else."""
    if isinstance(relay.host, Name):
        raise TypeError("the nearest proxy was reached at an address")
    family = socket.AF_INET if relay.host.version == 4 else socket.AF_INET6
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise dial_error(error, relay, stage=Stage.ASSOCIATE) from None
    try:
        if isinstance(egress, str):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, egress.encode() + b"\0")
        if control.family == family:
            sock.bind((control.getsockname()[0], 0, *control.getsockname()[2:]))
        sock.connect((str(relay.host), relay.port))
    except OSError as error:
        sock.close()
        raise dial_error(error, relay, stage=Stage.ASSOCIATE) from None
    return sock


def _control(bound: Bound) -> socket.socket:
    if not isinstance(bound.handle, socket.socket):
        raise TypeError("the asyncio driver gives sockets")
    return bound.handle
