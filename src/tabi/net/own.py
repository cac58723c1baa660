"""The addresses of this host, asked of the kernel (rtnetlink(7)), and word of their changes; no name is looked up."""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from tabi.addr import Address
from tabi.errors import ConfigError

__all__ = ["AddressWatch", "own_addresses", "read_dump"]

_NETLINK_ROUTE: Final = 0
_GROUPS: Final = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_CODE: Final = struct.Struct("=i")  # of nlmsgerr: a negative errno
_GET: Final = 22  # RTM_GETADDR
_NEW: Final = 20  # RTM_NEWADDR
_DONE: Final = 3
_ERROR: Final = 2
_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_INTERRUPTED: Final = 0x10  # NLM_F_DUMP_INTR: addresses changed while they were told
_BODY: Final = 8  # ifaddrmsg
_ATTRIBUTE: Final = struct.Struct("=HH")
_ADDRESS: Final = 1  # IFA_ADDRESS: the peer's on a point-to-point link
_LOCAL: Final = 2  # IFA_LOCAL
_BUFFER: Final = 1 << 16
_AT_ONCE: Final = 1000  # changes
_TRIES: Final = 4
_PATIENCE: Final = 5.0  # seconds; the kernel answers within the call


class _Message(NamedTuple):
    kind: int
    flags: int
    body: bytes


def own_addresses() -> frozenset[Address]:
    """Give the addresses of all interfaces, IPv4 and IPv6.

    Raises:
        ConfigError: the kernel does not say.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE) as sock:
            sock.settimeout(_PATIENCE)
            sock.bind((0, 0))
            return _ask(sock)
    except OSError as error:
        raise ConfigError(
            f"the kernel does not tell this host's addresses, which are in @private: {error.strerror or 'no answer'};"
            " let tabi use netlink (RestrictAddressFamilies=AF_NETLINK of a unit)"
        ) from None


def _ask(sock: socket.socket) -> frozenset[Address]:
    found: frozenset[Address] = frozenset()
    for _ in range(_TRIES):
        sock.send(_HEADER.pack(_HEADER.size + _BODY, _GET, _DUMP, 1, 0) + bytes(_BODY))
        found, is_whole = read_dump(iter(partial(sock.recv, _BUFFER), None))
        if is_whole:
            break
    return found


def read_dump(parts: Iterable[bytes]) -> tuple[frozenset[Address], bool]:
    """Read the kernel's answer.

    Args:
        parts: what came at once, each of several messages.

    Returns:
        the addresses, and whether none has changed meanwhile, so that they are all.

    Raises:
        OSError: it says that it cannot, or ends before it is complete.
    """
    found: set[Address] = set()
    is_whole = True
    for part in parts:
        for kind, flags, body in _messages(part):
            is_whole = is_whole and not flags & _INTERRUPTED
            if kind == _DONE:
                return frozenset(found), is_whole
            if kind == _ERROR:
                code = -_CODE.unpack_from(body)[0] if len(body) >= _CODE.size else errno.EPROTO
                raise OSError(code, os.strerror(code))
            if kind == _NEW:
                found.update(_address(body))
    raise OSError(errno.EPROTO, "its answer has no end")


def _messages(data: bytes) -> Iterator[_Message]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield _Message(kind, flags, data[at + _HEADER.size : at + length])
        at += length + 3 & ~3


def _address(body: bytes) -> Iterator[Address]:
    attributes: dict[int, bytes] = {}
    at = _BODY
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size:
            return
        attributes[kind] = body[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    raw = attributes.get(_LOCAL, attributes.get(_ADDRESS, b""))
    if len(raw) == 4:
        yield IPv4Address(raw)
    elif len(raw) == 16:
        yield IPv6Address(raw)


class AddressWatch:
    """Hears from the kernel that addresses of this host have changed.

    What it says is thrown away: of many changes it loses some (ENOBUFS), so that whoever hears of one has to ask for
    all (`own_addresses`) anyway.

    Args:
        on_change: called in the loop after changes, once for all that have come together.
        loop: that it is called in.

    Raises:
        OSError: the kernel does not tell.
    """

    def __init__(self, on_change: Callable[[], None], *, loop: asyncio.AbstractEventLoop) -> None:
        self._on_change = on_change
        self._loop = loop
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_ROUTE)
        try:
            self._sock.bind((0, _GROUPS))
        except OSError:
            self._sock.close()
            raise
        loop.add_reader(self._sock, self._on_readable)

    def close(self) -> None:
        """Hear no more."""
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _on_readable(self) -> None:
        try:
            for _ in range(_AT_ONCE):
                self._sock.recv(_BUFFER)
        except OSError:  # those were all; or some are lost, which is as good a reason to ask
            pass
        self._on_change()
