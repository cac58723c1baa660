"""The addresses of this host, asked of the kernel (rtnetlink(7)); no name is looked up."""

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from tabi.addr import Address

__all__ = ["own_addresses"]

_NETLINK_ROUTE: Final = 0
_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_GET: Final = 22  # RTM_GETADDR
_NEW: Final = 20  # RTM_NEWADDR
_DONE: Final = 3
_ERROR: Final = 2
_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_BODY: Final = 8  # ifaddrmsg
_ATTRIBUTE: Final = struct.Struct("=HH")
_ADDRESS: Final = 1  # IFA_ADDRESS: the peer's on a point-to-point link
_LOCAL: Final = 2  # IFA_LOCAL
_BUFFER: Final = 1 << 16


def own_addresses() -> frozenset[Address]:
    """Give the addresses of all interfaces, IPv4 and IPv6.

    Raises:
        OSError: the kernel does not say.
    """
    found: set[Address] = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE) as sock:
        sock.bind((0, 0))
        sock.send(_HEADER.pack(_HEADER.size + _BODY, _GET, _DUMP, 1, 0) + bytes(_BODY))
        while True:
            for kind, body in _messages(sock.recv(_BUFFER)):
                if kind == _DONE:
                    return frozenset(found)
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", body)[0]
                    raise OSError(code, "the kernel does not tell this host's addresses")
                if kind == _NEW:
                    found.update(_address(body))


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        yield kind, data[at + _HEADER.size : at + length]
        at += length + 3 & ~3


def _address(body: bytes) -> Iterator[Address]:
    attributes: dict[int, bytes] = {}
    at = _BODY
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        attributes[kind] = body[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    raw = attributes.get(_LOCAL, attributes.get(_ADDRESS, b""))
    if len(raw) == 4:
        yield IPv4Address(raw)
    elif len(raw) == 16:
        yield IPv6Address(raw)
