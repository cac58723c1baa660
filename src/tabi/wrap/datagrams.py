"""The datagrams of the program behind the gate: all go through the proxy's UDP relay, or are refused at once.

A transparent socket of each family takes what the program sends, whatever the target. Each socket of the program (its
address and port) has an association of its own, which ends when nothing has come or gone for a while. Answers are
packets from whom the program has sent to. Where the proxy relays no datagrams, the program is told by ICMP that nobody
listens there, so that what can do without (QUIC, say) does so now. Nothing is ever sent but to the relay.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, Protocol, TypeAlias

from tabi.addr import Address, Endpoint, Name, address_text
from tabi.dial import chain
from tabi.dial.direct import DirectOptions, direct
from tabi.dial.wishes import Plan
from tabi.errors import AuthError, Reply, TabiError, UsageError
from tabi.machine.datagrams import Received
from tabi.machine.hop import Hop
from tabi.net.associations import ANYWHERE, Associations
from tabi.net.deadlines import Deadlines
from tabi.net.driver import Asks, drive
from tabi.net.tasks import spawn
from tabi.wrap import packets
from tabi.wrap.lane import Lane
from tabi.wrap.names import Names, is_reserved

__all__ = ["IDLE", "MOST_SOURCES", "Datagrams", "Flow", "OpenAssociations", "Sockets", "associate"]

IDLE = 60.0  # seconds; QUIC keeps a silent connection for 30 (RFC 9308 section 3.2)
MOST_SOURCES = 1024  # sockets of the program at a time; the one that has been silent for longest gives way

BATCH = 64  # datagrams per wake-up, so that others get their turn
_SIZE = 65_536  # more than any datagram: none is ever cut
_MOST_TARGETS = 8  # that are told of a flow, the first ones
_MOST_LANES = 16  # associations of one socket: names that it speaks with at the same port
_MOST_WAITING = 64  # datagrams while the proxy is asked for an association
_MOST_BYTES = 262_144  # and bytes of them
_LARGEST = {4: 65_507, 6: 65_527}  # bytes of data: 65,535 less the headers; IPv6 does not count its own

_AGAIN = 1.0  # seconds between two attempts for an association, where one has failed; meanwhile all is refused
_MUCH_LATER = 60.0  # where the proxy has said that it relays no datagrams, or not for us
_PATIENCE = 10.0  # seconds for an association: a resolver or a QUIC client gives a datagram no more
_LASTING = frozenset({Reply.COMMAND_NOT_SUPPORTED, Reply.NOT_ALLOWED})

_IP_ORIGDSTADDR, _IPV6_ORIGDSTADDR = 20, 74  # linux/in.h, linux/in6.h; the socket module has no names for them yet
_ANCILLARY = socket.CMSG_SPACE(28)  # sizeof(struct sockaddr_in6)
_SOCKADDR4 = struct.Struct("!2xH4s")  # what follows the family, which is the host's byte order
_SOCKADDR6 = struct.Struct("!2xH4x16s")
_BROADCAST = IPv4Address("255.255.255.255")

OpenAssociations: TypeAlias = Callable[[], Awaitable[Associations]]
"""Asks the proxies for an association; raises TabiError."""
OnRefusal: TypeAlias = Callable[[TabiError], None]
"""Is told why datagrams are refused from now on, and until the proxies are asked again."""


class Flow(NamedTuple):
    """What one socket of the program has sent and got, once it is over.

    Args:
        source: the program's end.
        targets: where it has sent to, as the proxy was asked: the first eight.
        sent: datagrams that it has sent; those that were lost or refused are among them.
        up: bytes of data in these.
        received: datagrams that it was given.
        down: bytes of data in these.
    """

    source: Endpoint
    targets: tuple[Endpoint, ...]
    sent: int
    up: int
    received: int
    down: int


OnEnd: TypeAlias = Callable[[Flow], None]
"""Is told of each flow that is over."""


class Sockets(Protocol):
    """The sockets of the gate's namespace that datagrams need, all non-blocking."""

    @property
    def udp4(self) -> socket.socket:
        """Takes every IPv4 datagram of the program, and says where it was to go (IP_RECVORIGDSTADDR)."""

    @property
    def udp6(self) -> socket.socket:
        """The same for IPv6."""

    @property
    def raw4(self) -> socket.socket:
        """Sends packets from the IP header on."""

    @property
    def raw6(self) -> socket.socket:
        """The same for IPv6."""


async def associate(hops: Sequence[Hop], *, resolver: Asks, seconds: float) -> Associations:
    """Associate with all of `hops`, the nearest first.

    Args:
        hops: the proxies.
        resolver: who looks up where they are.
        seconds: for all of it; ten at most.

    Raises:
        UsageError: one speaks a protocol that has no datagrams, or there is none; nothing was sent.
        TabiError: an association cannot be had.
    """
    if not hops:
        raise UsageError("datagrams need a proxy")
    seconds = min(seconds, _PATIENCE)

    def reach(endpoint: Endpoint) -> Plan:
        return direct(endpoint, permit=lambda _address: True, options=DirectOptions(timeout=seconds))

    plan = chain.associate_with_all(hops, ANYWHERE, reach=reach, timeout=seconds)
    bounds = await drive(plan, resolver=resolver, client=None)
    return Associations(bounds, None, asyncio.get_running_loop())


def _ignore(_told: TabiError | Flow) -> None:
    """Tell nobody."""


class _Waiting(NamedTuple):
    data: bytes
    to: Endpoint  # as the program has sent it
    target: Endpoint  # as the proxy is told


class Datagrams:
    """Carries datagrams from when it is made until it is closed. The sockets stay whose they are.

    Args:
        sockets: in the gate.
        names: whose addresses become names again.
        open_associations: see `associate`.
        on_refusal: see `OnRefusal`.
        on_end: see `OnEnd`.
        idle: seconds.
        most: sources at a time.
    """

    def __init__(
        self,
        sockets: Sockets,
        names: Names,
        open_associations: OpenAssociations,
        *,
        on_refusal: OnRefusal = _ignore,
        on_end: OnEnd = _ignore,
        idle: float = IDLE,
        most: int = MOST_SOURCES,
    ) -> None:
        self.open_associations = open_associations
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets
        self._names = names
        self._on_refusal = on_refusal
        self._on_end = on_end
        self._most = most
        self._refused_until = 0.0
        self._buffer = bytearray(_SIZE)
        self._sources: dict[Endpoint, _Source] = {}  # the longest silent first
        self._silent: Deadlines[_Source] = Deadlines(idle, self._end, loop=self._loop)
        for sock in (sockets.udp4, sockets.udp6):
            self._loop.add_reader(sock.fileno(), self._on_readable, sock)

    def __len__(self) -> int:
        """Sockets of the program that have associations, or wait for one."""
        return len(self._sources)

    def close(self) -> None:
        """End all associations."""
        for sock in (self._sockets.udp4, self._sockets.udp6):
            self._loop.remove_reader(sock.fileno())
        for source in tuple(self._sources.values()):
            self._end(source)
        self._silent.close()

    def deliver(self, data: bytes, sender: Endpoint, to: "_Source") -> None:
        """Give the program a datagram of `sender`, which is an address."""
        self._used(to)
        to.received += 1
        to.down += len(data)
        if len(data) <= _LARGEST[_version(sender)]:
            self._send(packets.datagram(sender, to.endpoint, data), to.endpoint)

    def refuse(self, data: bytes, source: Endpoint, to: Endpoint) -> None:
        """Tell the program that nobody listens where it has sent to."""
        self._send(packets.port_unreachable(source, to, data), source)

    def refused(self, error: TabiError) -> None:
        """Take note that the proxies give no association, so that they are not asked for each datagram anew."""
        is_lasting = isinstance(error, UsageError | AuthError) or error.reply in _LASTING
        self._refused_until = self._loop.time() + (_MUCH_LATER if is_lasting else _AGAIN)
        self._on_refusal(error)

    def _on_readable(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                size, ancillary, _flags, source = sock.recvmsg_into((self._buffer,), _ANCILLARY)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error: nothing of ours is sent from here, so it is about nothing
                continue
            to = _original_target(ancillary)
            if to is not None:
                self._take(bytes(memoryview(self._buffer)[:size]), Endpoint.from_sockaddr(source), to)

    def _take(self, data: bytes, source: Endpoint, to: Endpoint) -> None:
        assert not isinstance(to.host, Name), "datagrams come to addresses"
        if _is_for_many(to.host):  # RFC 1122 section 3.2.2: no error is ever sent about these
            return
        host = None if _is_near(to.host) else self._names.host_of(to.host)
        if host is None or self._loop.time() < self._refused_until:
            self.refuse(data, source, to)
            return
        known = self._sources.get(source) or self._welcome(source)
        self._used(known)
        known.send(_Waiting(data, to, Endpoint(host, to.port)))

    def _welcome(self, endpoint: Endpoint) -> "_Source":
        if len(self._sources) >= self._most:
            self._end(next(iter(self._sources.values())))
        return _Source(endpoint, self)

    def _used(self, source: "_Source") -> None:
        self._sources.pop(source.endpoint, None)
        self._sources[source.endpoint] = source
        self._silent.end(source)
        self._silent.begin(source)

    def _end(self, source: "_Source") -> None:
        self._silent.end(source)
        self._sources.pop(source.endpoint, None)
        source.close()
        self._on_end(source.flow())

    def _send(self, packet: bytes, to: Endpoint) -> None:
        assert not isinstance(to.host, Name), "the program is at an address"
        raw = self._sockets.raw4 if to.host.version == 4 else self._sockets.raw6
        try:
            raw.sendto(packet, (address_text(to.host), 0))
        except OSError:  # no room, or more than the link takes: lost, as datagrams may be
            return


class _Source:
    """One socket of the program."""

    def __init__(self, endpoint: Endpoint, datagrams: Datagrams) -> None:
        self.endpoint = endpoint
        self.received = self.down = 0
        self._sent = self._up = 0
        self._targets: dict[Endpoint, None] = {}
        self._datagrams = datagrams
        self._paths: list[_Path] = []

    def flow(self) -> Flow:
        return Flow(self.endpoint, tuple(self._targets), self._sent, self._up, self.received, self.down)

    def send(self, one: _Waiting) -> None:
        assert not isinstance(one.to.host, Name), "datagrams come to addresses"
        self._sent += 1
        self._up += len(one.data)
        if len(self._targets) < _MOST_TARGETS:
            self._targets[one.target] = None
        for path in self._paths:
            if path.lane.takes(one.to.host, one.target.host, one.to.port):
                break
        else:
            path = self._add()
            path.lane.takes(one.to.host, one.target.host, one.to.port)
        path.send(one)

    def close(self) -> None:
        for path in self._paths:
            path.close()

    def _add(self) -> "_Path":
        if len(self._paths) >= _MOST_LANES:
            self._paths.pop(0).close()
        path = _Path(self, self._datagrams)
        self._paths.append(path)
        return path


class _Path:
    """One lane, and the association that it has now; where that has ended, the next datagram asks for another."""

    def __init__(self, source: _Source, datagrams: Datagrams) -> None:
        self.lane = Lane()
        self._source = source
        self._datagrams = datagrams
        self._associations: Associations | None = None
        self._opening: asyncio.Task[None] | None = None
        self._waiting: deque[_Waiting] = deque()

    def send(self, one: _Waiting) -> None:
        if self._associations is not None:
            _send(self._associations, one)
            return
        self._waiting.append(one)
        while len(self._waiting) > _MOST_WAITING or sum(len(other.data) for other in self._waiting) > _MOST_BYTES:
            self._waiting.popleft()
        if self._opening is None:
            self._opening = spawn(self._open(), name=f"datagrams of {self._source.endpoint}")

    def close(self) -> None:
        self._waiting.clear()
        if self._opening is not None:
            self._opening.cancel()
        self._drop("")

    async def _open(self) -> None:
        try:
            opened = await self._datagrams.open_associations()
        except TabiError as error:
            self._datagrams.refused(error)
            while self._waiting:
                one = self._waiting.popleft()
                self._datagrams.refuse(one.data, self._source.endpoint, one.to)
            return
        finally:
            self._opening = None
        self._associations = opened
        opened.start(self._on_datagram, self._drop)
        while self._waiting:
            _send(opened, self._waiting.popleft())

    def _on_datagram(self, received: Received) -> None:
        port = received.source.port
        if not isinstance(received.source.host, Name) and is_reserved(received.source.host):
            return  # an address of ours is nobody's out there: whoever says so would pass for the gate
        host = self.lane.sender(received.source)
        if host is not None and host.version == _version(self._source.endpoint):
            self._datagrams.deliver(received.data, Endpoint(host, port), self._source)

    def _drop(self, _why: str) -> None:
        if self._associations is not None:
            self._associations.close()
            self._associations = None


def _send(associations: Associations, one: _Waiting) -> None:
    try:
        associations.send(one.data, one.target)
    except OSError:  # too long with its headers (nothing that the program could be told would help), or no room
        return


def _original_target(ancillary: Sequence[tuple[int, int, bytes]]) -> Endpoint | None:
    """Read where a datagram was to go (IP_RECVORIGDSTADDR, ip(7))."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_ORIGDSTADDR):
            port, raw = _SOCKADDR4.unpack_from(data)
            return Endpoint(_address(raw), port)
        if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_ORIGDSTADDR):
            port, raw = _SOCKADDR6.unpack_from(data)
            return Endpoint(_address(raw), port)
    return None


@lru_cache(maxsize=4096)
def _address(raw: bytes) -> Address:
    return IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)


@lru_cache(maxsize=4096)
def _is_for_many(address: Address) -> bool:
    return address.is_multicast or address == _BROADCAST


@lru_cache(maxsize=4096)
def _is_near(address: Address) -> bool:
    """Whether an address means something on this link or host only, and nothing to a proxy."""
    return address.is_loopback or address.is_link_local or address.is_unspecified


def _version(endpoint: Endpoint) -> int:
    assert not isinstance(endpoint.host, Name), "the program knows addresses"
    return endpoint.host.version
