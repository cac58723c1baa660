"""The packets of the gate, from the IP header on: what asks for a connection, and what answers it.

IPv4 (RFC 791), IPv6 and its extension headers (RFC 8200), TCP (RFC 9293), ICMP (RFC 792, RFC 1812 section 4.3),
ICMPv6 (RFC 4443), UDP (RFC 768). Bytes in, bytes out: it knows no socket. Fragments, and headers of IPv6 that name
another destination than the first one does, are no SYN for us: nobody answers them, and the gate lets nothing pass.
"""

import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, Self

from tabi.addr import Address, Endpoint

__all__ = [
    "GATE4", "GATE6", "PORT_UNREACHABLE4", "PORT_UNREACHABLE6",
    "Flow", "Icmp", "Syn", "checksum", "datagram", "icmp_error", "port_unreachable", "reinjected", "reset",
]  # fmt: skip

GATE4 = IPv4Address("198.18.0.1")  # the next hop of the program's default routes: errors about a target come from here
GATE6 = IPv6Address("fd00:5ec::1")

_ICMP, _TCP, _UDP, _ICMP6 = 1, 6, 17, 58  # protocol numbers of IANA
_OPTIONS_OF_HOP, _OPTIONS_OF_DESTINATION = 0, 60  # the extension headers that may stand before a SYN
_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_HOPS = 64  # TTL and hop limit of what we send
_MOST4 = 576  # bytes of an ICMP message in all (RFC 1812 section 4.3.2.3)
_MOST6 = 1280  # and of one of ICMPv6 (RFC 4443 section 3.1)

# Bytes that an error about a SYN quotes, zeros for the most part. Linux queues such a message at the socket, wakes
# whoever waits for that, and then ends the connect (tcp_v4_err, sock_queue_err_skb). A program on another CPU may ask
# in between: it finds no error, and believes that it is connected; so one in some thousands did (6.18, two CPUs,
# November 2026). A message that takes more memory than the receive buffer that sockets are born with (tcp_rmem, 128
# KiB) is not queued.
_QUOTED = 65_400

_ICMP_HEAD = struct.Struct(">BBHI")
_TCP_HEAD = struct.Struct(">HHIIBBHHH")
_UDP_HEAD = struct.Struct(">HHHH")
_IPV4_HEAD = struct.Struct(">BBHHHBBH4s4s")
_IPV6_HEAD = struct.Struct(">IHBB16s16s")


class Icmp(NamedTuple):
    """What an ICMP message says, in ICMP's numbers or ICMPv6's."""

    type: int
    code: int


PORT_UNREACHABLE4 = Icmp(3, 3)
PORT_UNREACHABLE6 = Icmp(1, 4)


class Flow(NamedTuple):
    """The four numbers of a connection, as the program has them."""

    source: Endpoint
    target: Endpoint


@dataclass(frozen=True, slots=True)
class Syn:
    """A program's wish to connect.

    Args:
        flow: from where to where.
        sequence: its initial sequence number.
        data: bytes that it carries already (TCP Fast Open, RFC 7413).
        tcp: where the TCP header begins.
        packet: all of it.
    """

    flow: Flow
    sequence: int
    data: int
    tcp: int
    packet: bytes = field(repr=False)

    @classmethod
    def parse(cls, packet: bytes) -> Self | None:
        """Read a packet as the kernel shows it; None is no SYN, or no packet at all."""
        found = _find_tcp4(packet) or _find_tcp6(packet)
        if found is None:
            return None
        tcp, end, source, target = found
        if end > len(packet) or tcp + _TCP_HEAD.size > end:
            return None
        source_port, target_port, sequence, _, size, flags, *_ = _TCP_HEAD.unpack_from(packet, tcp)
        size = (size >> 4) * 4
        if flags & (_FIN | _SYN | _RST | _ACK) != _SYN or size < _TCP_HEAD.size or tcp + size > end:
            return None
        flow = Flow(Endpoint(source, source_port), Endpoint(target, target_port))
        return cls(flow, sequence, end - tcp - size, tcp, packet[:end])

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.packet[0] >> 4


def checksum(data: bytes) -> int:
    """Compute the checksum of the Internet (RFC 1071).

    A number in base 65,536 is the sum of its digits modulo 65,535, which is what adding with the carry brought around
    gives; that sum is 0 only where every byte is.
    """
    total = int.from_bytes(data, "big") << (8 if len(data) % 2 else 0)
    return 0xFFFF ^ (total % 0xFFFF or (0xFFFF if total else 0))


def reinjected(syn: Syn) -> bytes:
    """Make the SYN fit to be sent: what left the program by veth has a checksum that was begun only."""
    tcp = bytearray(syn.packet[syn.tcp :])
    tcp[16:18] = b"\0\0"
    struct.pack_into(">H", tcp, 16, checksum(_pseudo(_address(syn.flow.source), _address(syn.flow.target), _TCP, tcp)))
    return syn.packet[: syn.tcp] + tcp


def reset(syn: Syn) -> bytes:
    """Refuse, as a host does that nobody listens on (RFC 9293 section 3.5.2, 1)."""
    target, source = syn.flow.target, syn.flow.source
    acknowledged = (syn.sequence + 1 + syn.data) & 0xFFFF_FFFF
    head = [target.port, source.port, 0, acknowledged, (_TCP_HEAD.size // 4) << 4, _RST | _ACK, 0, 0, 0]
    head[7] = checksum(_pseudo(_address(target), _address(source), _TCP, _TCP_HEAD.pack(*head)))
    return _ip(_TCP, _address(target), _address(source), _TCP_HEAD.pack(*head))


def icmp_error(syn: Syn, said: Icmp) -> bytes:
    """Say as a router on the way why the target cannot be reached; the kernel of the program finds the socket by it."""
    gate = GATE4 if syn.version == 4 else GATE6
    return _icmp(gate, _address(syn.flow.source), said, syn.packet[:_QUOTED].ljust(_QUOTED, b"\0"))


def datagram(source: Endpoint, target: Endpoint, payload: bytes) -> bytes:
    """Make a UDP datagram (RFC 768).

    Args:
        source: who is to have sent it.
        target: whom it is for, of the same family.
        payload: what it carries, 65,507 bytes at most; with IPv6 65,527.
    """
    near, far = _address(source), _address(target)
    head = [source.port, target.port, _UDP_HEAD.size + len(payload), 0]
    head[3] = checksum(_pseudo(near, far, _UDP, _UDP_HEAD.pack(*head) + payload)) or 0xFFFF  # 0 would mean none
    return _ip(_UDP, near, far, _UDP_HEAD.pack(*head) + payload)


def port_unreachable(source: Endpoint, target: Endpoint, payload: bytes) -> bytes:
    """Refuse a datagram of the program, as its target does where nobody reads it (RFC 1122 section 4.1.3.1).

    Args:
        source: where the program has sent it from.
        target: where to.
        payload: what it carried.
    """
    near, far = _address(source), _address(target)
    about = datagram(source, target, payload)
    if near.version == 4:
        return _icmp(far, near, PORT_UNREACHABLE4, about[: _MOST4 - _IPV4_HEAD.size - _ICMP_HEAD.size])
    return _icmp(far, near, PORT_UNREACHABLE6, about[: _MOST6 - _IPV6_HEAD.size - _ICMP_HEAD.size])


def _find_tcp4(packet: bytes) -> tuple[int, int, Address, Address] | None:
    """Find where TCP begins, where the packet ends, and whose it is."""
    if len(packet) < _IPV4_HEAD.size or packet[0] >> 4 != 4:
        return None
    _, _, length, _, fragment, _, protocol, _, source, target = _IPV4_HEAD.unpack_from(packet)
    size = (packet[0] & 0x0F) * 4
    if protocol != _TCP or size < _IPV4_HEAD.size or fragment & 0x3FFF:  # More Fragments, or an offset
        return None
    return size, length, IPv4Address(source), IPv4Address(target)


def _find_tcp6(packet: bytes) -> tuple[int, int, Address, Address] | None:
    if len(packet) < _IPV6_HEAD.size or packet[0] >> 4 != 6:
        return None
    _, length, following, _, source, target = _IPV6_HEAD.unpack_from(packet)
    at = _IPV6_HEAD.size
    while following in (_OPTIONS_OF_HOP, _OPTIONS_OF_DESTINATION) and at + 2 <= len(packet):
        following, at = packet[at], at + (packet[at + 1] + 1) * 8
    if following != _TCP:
        return None
    return at, _IPV6_HEAD.size + length, IPv6Address(source), IPv6Address(target)


def _address(endpoint: Endpoint) -> Address:
    assert isinstance(endpoint.host, IPv4Address | IPv6Address), "packets have no names"
    return endpoint.host


def _pseudo(source: Address, target: Address, protocol: int, segment: bytes | bytearray) -> bytes:
    """Put before a segment what its checksum is about as well (RFC 9293 section 3.1, RFC 8200 section 8.1)."""
    if source.version == 4:
        head = struct.pack(">HH", protocol, len(segment))
    else:
        head = struct.pack(">II", len(segment), protocol)
    return source.packed + target.packed + head + segment


def _icmp(source: Address, target: Address, said: Icmp, about: bytes) -> bytes:
    """Make a message that quotes what it is about."""
    blank = _ICMP_HEAD.pack(*said, 0, 0) + about
    if source.version == 4:
        return _ip(_ICMP, source, target, _ICMP_HEAD.pack(*said, checksum(blank), 0) + about)
    total = checksum(_pseudo(source, target, _ICMP6, blank))
    return _ip(_ICMP6, source, target, _ICMP_HEAD.pack(*said, total, 0) + about)


def _ip(protocol: int, source: Address, target: Address, payload: bytes) -> bytes:
    if source.version == 6:
        return _IPV6_HEAD.pack(6 << 28, len(payload), protocol, _HOPS, source.packed, target.packed) + payload
    length = _IPV4_HEAD.size + len(payload)
    head = [0x45, 0, length, 0, 0, _HOPS, protocol, 0, source.packed, target.packed]
    head[7] = checksum(_IPV4_HEAD.pack(*head))
    return _IPV4_HEAD.pack(*head) + payload
