"""Messages to the kernel about links, addresses, routes and neighbours: netlink(7), rtnetlink(7).

Functions make a `Request` each, without any I/O; `Netlink` sends it and waits for the kernel's word.
"""

import os
import socket
import struct
from ipaddress import IPv4Address
from typing import Final, NamedTuple, Self

from tabi.addr import Address

__all__ = [
    "ROUTE", "Netlink", "Request", "address", "attribute", "default_route", "delete_link", "local_route",
    "neighbour", "nested", "no_automatic_addresses", "read_errors", "up", "veth",
]  # fmt: skip

ROUTE: Final = 0  # NETLINK_ROUTE
HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE: Final = struct.Struct("=HH")
_LINK: Final = struct.Struct("=BxHiII")  # ifinfomsg: family, device type, index, flags, change
_ADDRESS: Final = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix, flags, scope, index
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # rtmsg: family, lengths, tos, table, protocol, scope, type, flags
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")  # ndmsg: family, index, state, flags, type
_CODE: Final = struct.Struct("=i")  # of nlmsgerr: 0 or a negative errno

_ERROR: Final = 2  # NLMSG_ERROR
_REQUEST, _ACK = 0x001, 0x004
REPLACE: Final = 0x100
EXCLUSIVE: Final = 0x200
CREATE: Final = 0x400
_NESTED: Final = 0x8000

_NEW_LINK, _DELETE_LINK, _SET_LINK, _NEW_ADDRESS, _NEW_ROUTE, _NEW_NEIGHBOUR = 16, 17, 19, 20, 24, 28
_UP: Final = 1  # IFF_UP
_NO_DAD: Final = 2  # IFA_F_NODAD
_MAIN: Final = 254
_BOOT: Final = 3  # RTPROT_BOOT
_SCOPE_HOST: Final = 254
_UNICAST, _LOCAL = 1, 2
_PERMANENT: Final = 0x80  # NUD_PERMANENT
_PATIENCE: Final = 5.0  # seconds; the kernel answers within the call
_BUFFER: Final = 1 << 16


class Request(NamedTuple):
    """One message, without its number.

    Args:
        kind: of the message.
        flags: beyond those that every request has.
        body: what follows the header.
        what: it does, for the error.
    """

    kind: int
    flags: int
    body: bytes
    what: str

    def encode(self, sequence: int) -> bytes:
        """Write it, asking for an answer."""
        flags = self.flags | _REQUEST | _ACK
        return HEADER.pack(HEADER.size + len(self.body), self.kind, flags, sequence, 0) + self.body


def attribute(kind: int, data: bytes = b"") -> bytes:
    """Write an attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Write an attribute that holds others."""
    return attribute(kind | _NESTED, b"".join(attributes))


def _text(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def _named(name: str, hardware: bytes, mtu: int) -> bytes:
    """IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU."""
    return attribute(1, hardware) + _text(3, name) + _number(4, mtu)


def veth(name: str, hardware: bytes, peer: str, peer_hardware: bytes, peer_pid: int, mtu: int) -> Request:
    """Make a pair of links, the other end of which lies in the network namespace of a process.

    Args:
        name, peer: of both ends.
        hardware, peer_hardware: their addresses.
        peer_pid: the process.
        mtu: of both.
    """
    # IFLA_NET_NS_PID; VETH_INFO_PEER; IFLA_INFO_KIND and IFLA_INFO_DATA in IFLA_LINKINFO
    other = _LINK.pack(0, 0, 0, 0, 0) + _named(peer, peer_hardware, mtu) + _number(19, peer_pid)
    info = nested(18, _text(1, "veth"), nested(2, attribute(1 | _NESTED, other)))
    body = _LINK.pack(0, 0, 0, 0, 0) + _named(name, hardware, mtu) + info
    return Request(_NEW_LINK, CREATE | EXCLUSIVE, body, f"making the links {name} and {peer}")


def no_automatic_addresses(index: int) -> Request:
    """Have a link take no link-local IPv6 address of its own: nobody there has a use for one."""
    mode = nested(socket.AF_INET6, attribute(8, b"\1"))  # IFLA_INET6_ADDR_GEN_MODE: IN6_ADDR_GEN_MODE_NONE
    body = _LINK.pack(0, 0, index, 0, 0) + nested(26, mode)  # IFLA_AF_SPEC
    return Request(_SET_LINK, 0, body, f"taking automatic addresses from link {index}")


def up(index: int) -> Request:
    """Bring a link up."""
    return Request(_NEW_LINK, 0, _LINK.pack(0, 0, index, _UP, _UP), f"bringing link {index} up")


def delete_link(index: int) -> Request:
    """Take a link away, and the other end of a pair with it."""
    return Request(_DELETE_LINK, 0, _LINK.pack(0, 0, index, 0, 0), f"taking link {index} away")


def address(index: int, local: Address, prefix: int) -> Request:
    """Give a link an address that can be used at once."""
    head = _ADDRESS.pack(_family(local), prefix, _NO_DAD if local.version == 6 else 0, 0, index)
    body = head + attribute(2, local.packed) + attribute(1, local.packed)  # IFA_LOCAL, IFA_ADDRESS
    return Request(_NEW_ADDRESS, CREATE | EXCLUSIVE, body, f"giving link {index} the address {local}")


def default_route(index: int, gateway: Address) -> Request:
    """Send everything by way of a gateway."""
    head = _ROUTE.pack(_family(gateway), 0, 0, 0, _MAIN, _BOOT, 0, _UNICAST, 0)
    body = head + attribute(5, gateway.packed) + _number(4, index)  # RTA_GATEWAY, RTA_OIF
    return Request(_NEW_ROUTE, CREATE | EXCLUSIVE, body, f"setting the default route by {gateway}")


def local_route(index: int, version: int) -> Request:
    """Make every address of a family one of this host (AnyIP), those with a route of their own excepted.

    Args:
        index: of the loopback link.
        version: 4 or 6.
    """
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    head = _ROUTE.pack(family, 0, 0, 0, _MAIN, _BOOT, _SCOPE_HOST if version == 4 else 0, _LOCAL, 0)
    return Request(
        _NEW_ROUTE, CREATE | EXCLUSIVE, head + _number(4, index), f"making every IPv{version} address local"
    )


def neighbour(index: int, host: Address, hardware: bytes) -> Request:
    """Say for good which hardware address a host on a link has, so that nobody asks."""
    body = _NEIGHBOUR.pack(_family(host), index, _PERMANENT, 0, 0)
    body += attribute(1, host.packed) + attribute(2, hardware)  # NDA_DST, NDA_LLADDR
    return Request(_NEW_NEIGHBOUR, CREATE | REPLACE, body, f"saying where {host} is")


def _family(host: Address) -> int:
    return socket.AF_INET if isinstance(host, IPv4Address) else socket.AF_INET6


def read_errors(data: bytes) -> list[tuple[int, int]]:
    """Read the kernel's answers: the number of each message, and 0 or an errno."""
    found, at = [], 0
    while at + HEADER.size <= len(data):
        length, kind, _, sequence, _ = HEADER.unpack_from(data, at)
        if length < HEADER.size:
            break
        if kind == _ERROR and length >= HEADER.size + _CODE.size:
            found.append((sequence, -_CODE.unpack_from(data, at + HEADER.size)[0]))
        at += length + 3 & ~3
    return found


class Netlink:
    """A socket to the kernel; a context manager.

    Args:
        protocol: `ROUTE`, or that of netfilter.
    """

    def __init__(self, protocol: int = ROUTE) -> None:
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sock.settimeout(_PATIENCE)
        self._sock.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def ask(self, request: Request) -> None:
        """Have the kernel do something.

        Raises:
            OSError: it does not; the text says what it was to do.
        """
        self._sequence += 1
        self.send(request.encode(self._sequence), self._sequence, request.what)

    def send(self, data: bytes, last: int, what: str) -> None:
        """Send messages, and wait for the answer to the last or for the first error.

        Args:
            data: the messages.
            last: number of the last one that is answered.
            what: they do.

        Raises:
            OSError: the kernel refuses one.
        """
        self._sock.send(data)
        while True:
            for sequence, code in read_errors(self._sock.recv(_BUFFER)):
                if code:
                    raise OSError(code, f"{what}: {os.strerror(code)}")
                if sequence == last:
                    return
