"""Where a proxy is, and whether targets of our own can stand beside it."""

import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from tabi.addr import Address, Endpoint, Name
from tabi.client.doctor.patient import LOCALHOST, Place
from tabi.client.doctor.spots import family_of
from tabi.client.plain import PlainSocket
from tabi.errors import ConfigError, ProxyUnreachableError
from tabi.net.hostsfile import HostsFile
from tabi.net.own import own_addresses

__all__ = ["find_place"]

_LOOPBACK: Final[tuple[Address, ...]] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
_FIRST: Final = IPv4Address("127.0.0.1")
_LOOKED_AT: Final = 16  # addresses from 127.0.0.1 on whose names in /etc/hosts are looked at


def find_place(proxy: Endpoint, patience: float, target: Endpoint | None) -> Place:
    """Connect to a proxy once, and see where that led.

    Args:
        proxy: as the user wrote it; a name is looked up here.
        patience: seconds for the connection.
        target: that the user named, if any.

    Raises:
        ProxyUnreachableError: nobody takes a connection there.
    """
    try:
        with socket.create_connection((str(proxy.host), proxy.port), patience) as sock:
            there = Endpoint.from_sockaddr(sock.getpeername())
    except OSError as error:
        raise ProxyUnreachableError(f"proxy {proxy}: {error.strerror or 'no answer'}") from None
    address = there.host
    assert not isinstance(address, Name)
    if not _is_near(address):
        return Place(there, target=target)
    hosts = HostsFile()
    return Place(
        there, near=True, homes=_homes(address), names=hosts.addresses(LOCALHOST) or (),
        twofold=_twofold(hosts), target=target,
    )  # fmt: skip


def _is_near(address: Address) -> bool:
    if address.is_loopback:
        return True
    try:
        return address in own_addresses()
    except ConfigError:  # the kernel does not tell; then it is not ours as far as we know
        return False


def _homes(address: Address) -> tuple[Address, ...]:
    """Give the proxy's own address, and on the loopback interface that of the other version."""
    if not address.is_loopback:
        return (address,)
    others = (home for home in _LOOPBACK if home.version != address.version and _can_bind(home))
    return (address, *others)


def _twofold(hosts: HostsFile) -> tuple[Name, tuple[Address, ...]] | None:
    """Find a name with several IPv4 addresses, all of which are loopback."""
    for number in range(_LOOKED_AT):
        name = hosts.name(_FIRST + number)
        found = hosts.addresses(name) if name is not None else None
        if name is not None and found and len(found) > 1 and all(one.version == 4 and one.is_loopback for one in found):
            return name, found
    return None


def _can_bind(address: Address) -> bool:
    try:
        with PlainSocket(family_of(address), socket.SOCK_STREAM) as sock:
            sock.bind((str(address), 0))
    except OSError:
        return False
    return True
