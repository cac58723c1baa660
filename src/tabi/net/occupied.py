"""Which addresses somebody listens on, as the kernel's table of TCP sockets has it (proc(5), /proc/net/tcp)."""

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from tabi.addr import Address, Endpoint, Name

__all__ = ["Occupied", "occupied", "overlap"]

_LISTEN: Final = "0A"  # include/net/tcp_states.h
_ADDRESS, _STATE, _INODE = 1, 3, 9


class Occupied(NamedTuple):
    """A socket that listens; `inode` is `st_ino` of its descriptors."""

    inode: int
    endpoint: Endpoint


def occupied(port: int) -> list[Occupied]:
    """List all sockets of this network namespace that listen on a port.

    Raises:
        OSError: there is no /proc.
    """
    found = []
    for fields in _rows():
        address, _, hexadecimal = fields[_ADDRESS].partition(":")
        if int(hexadecimal, 16) == port:
            found.append(Occupied(int(fields[_INODE]), Endpoint(_address(address), port)))
    return found


def overlap(one: Endpoint, other: Endpoint) -> bool:
    """Say whether a connection could come to either; ``::`` is taken to take IPv4 as well."""
    if one.port != other.port or isinstance(one.host, Name) or isinstance(other.host, Name):
        return False
    return one.host == other.host or _covers(one.host, other.host) or _covers(other.host, one.host)


def _covers(wide: Address, narrow: Address) -> bool:
    return wide.is_unspecified and (wide.version == 6 or narrow.version == 4)


def _rows() -> Iterator[list[str]]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as lines:
                next(lines, "")
                for line in lines:
                    fields = line.split()
                    if fields[_STATE] != _LISTEN:  # those that listen come first, and there may be many others
                        break
                    yield fields
        except FileNotFoundError:
            if table == "/proc/net/tcp":
                raise
            continue  # a kernel without IPv6


def _address(text: str) -> Address:
    """Read an address: words of 32 bits in the order of this processor."""
    raw = b"".join(struct.pack("=I", int(text[at : at + 8], 16)) for at in range(0, len(text), 8))
    if len(raw) == 4:
        return IPv4Address(raw)
    address = IPv6Address(raw)
    return address.ipv4_mapped or address
