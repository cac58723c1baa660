"""What callers ask for, as plans of `tabi.dial`; the same for `tabi.sync` and `tabi.aio`."""

import math
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import TypeAlias

from tabi.addr import Address, Endpoint, Host, Name, parse_host
from tabi.dial import chain
from tabi.dial.chain import Bound
from tabi.dial.direct import DirectOptions, direct
from tabi.dial.lookup import look_up as look_both_up
from tabi.dial.relay import relay_endpoint
from tabi.dial.wishes import Plan, Steps
from tabi.dial.within import within
from tabi.errors import ConfigError, HopName, ProxyProtocolError, Stage, TabiError, UsageError
from tabi.machine.hop import Hop, blame
from tabi.machine.url import ProxyLike, parse_proxies
from tabi.wire.socks5 import Command

__all__ = [
    "ACCEPT_TIMEOUT", "CONNECT_TIMEOUT", "AddressLike", "Addresses", "accept", "associate", "association_ended",
    "bind", "connect", "look_up", "nobody", "proxies_for_datagrams", "reach", "read_address", "relay", "show_address",
]  # fmt: skip

CONNECT_TIMEOUT = 30.0  # seconds for look-ups, connections and handshakes together
ACCEPT_TIMEOUT = 150.0  # seconds; proxies give up after two minutes (SOCKS4.protocol), and their word says more

AddressLike: TypeAlias = tuple[str, int] | Endpoint | str
"""A host and a port as the socket module has them, ``"host:port"``, or an `Endpoint`."""

_REMEMBERED = 60.0  # seconds; a flow of datagrams to a name asks no name server for each
_MOST_NAMES = 1000

_ANYWHERE = Endpoint(IPv4Address(0), 0)


def read_address(address: AddressLike) -> Endpoint:
    """Read where callers want to go.

    Raises:
        AddressError: it is no host and port.
        UsageError: it is nothing of the kind.
    """
    if isinstance(address, Endpoint):
        return address
    if isinstance(address, str):
        return Endpoint.parse(address)
    host, port = address
    if not 0 <= port <= 0xFFFF:
        raise UsageError(f"port {port} is not in 0 to 65535")
    return Endpoint(parse_host(host), port)


def show_address(endpoint: Endpoint) -> tuple[str, int]:
    """Show where somebody is, as the socket module does."""
    return str(endpoint.host), endpoint.port


def connect(address: AddressLike, proxy: ProxyLike, timeout: float | None) -> Plan:
    """Plan a connection; see `tabi.dial.chain.connect`."""
    seconds = _seconds(timeout, CONNECT_TIMEOUT)
    return chain.connect(parse_proxies(proxy), read_address(address), reach=reach(seconds), timeout=seconds)


def bind(peer: AddressLike | None, proxy: ProxyLike, timeout: float | None) -> Steps[Bound]:
    """Plan a BIND for a connection from `peer`, None for anybody; see `tabi.dial.chain.bind`."""
    seconds = _seconds(timeout, CONNECT_TIMEOUT)
    expected = _ANYWHERE if peer is None else read_address(peer)
    return chain.bind(parse_proxies(proxy), expected, reach=reach(seconds), timeout=seconds)


def resolve(host: str, proxy: ProxyLike, timeout: float | None) -> Steps[Host]:
    """Plan to have a proxy look a name or an address up; see `tabi.dial.chain.resolve`."""
    seconds = _seconds(timeout, CONNECT_TIMEOUT)
    return chain.resolve(parse_proxies(proxy), parse_host(host), reach=reach(seconds), timeout=seconds)


def accept(bound: Bound, timeout: float | None) -> Plan:
    """Plan to wait for the peer of a BIND; see `tabi.dial.chain.accept`."""
    return chain.accept(bound, timeout=_seconds(timeout, ACCEPT_TIMEOUT))


def proxies_for_datagrams(proxy: ProxyLike) -> tuple[Hop, ...]:
    """Read the proxies of an association. All have to relay datagrams, or one would have to be gone around.

    Raises:
        UsageError: one cannot, or there is none.
    """
    hops = parse_proxies(proxy)
    if not hops:
        raise UsageError("an association needs a proxy")
    for hop in hops:
        hop.machine(Command.UDP_ASSOCIATE, _ANYWHERE)
    return hops


def associate(hops: tuple[Hop, ...], timeout: float | None) -> Steps[Bound]:
    """Plan an association with the last of `hops`; see `tabi.dial.chain.associate`."""
    seconds = _seconds(timeout, CONNECT_TIMEOUT)
    return chain.associate(hops, _ANYWHERE, reach=reach(seconds), timeout=seconds)


def relay(bound: Bound, allow: Callable[[Address], bool]) -> Endpoint:
    """Choose where the datagrams of an association go; see `tabi.dial.relay`.

    Raises:
        ProxyProtocolError: the proxy told none.
    """
    try:
        return relay_endpoint(bound.local, bound.remote.host, allow)
    except TabiError as error:
        raise blame(error, bound.hop, _ANYWHERE) from None


def look_up(name: Name) -> Steps[Address]:
    """Plan to look up where datagrams for a name go; IPv4 first, for they cannot try one address after the other.

    Raises:
        DialError: it has no address, or the look-up failed.
    """
    addresses = yield from within(look_both_up(name, (4, 6)), CONNECT_TIMEOUT)
    return addresses[0]


class Addresses:
    """What was found for the names that datagrams go to."""

    def __init__(self) -> None:
        self._found: dict[Name, tuple[float, Address]] = {}

    def known(self, name: Name, now: float) -> Address | None:
        """Give the address of a name, if it was found not long before `now` (monotonic seconds)."""
        until, address = self._found.get(name, (now, None))
        return address if now < until else None

    def remember(self, name: Name, address: Address, now: float) -> Address:
        """Keep what was found, and give it."""
        if len(self._found) >= _MOST_NAMES:
            self._found.pop(next(iter(self._found)), None)
        self._found[name] = now + _REMEMBERED, address
        return address


def association_ended(hop: HopName) -> ProxyProtocolError:
    """Make the error of an association whose control connection the proxy has ended."""
    error = ProxyProtocolError(f"{hop}: it ended the association", stage=Stage.ASSOCIATE, retryable=True)
    error.hop = hop
    return error


def nobody(_address: Address) -> bool:
    """Believe no relay outside the proxy's own network."""
    return False


def reach(seconds: float) -> Callable[[Endpoint], Plan]:
    """Make what comes to the nearest proxy, or to a target without one, within so many seconds."""
    return lambda endpoint: direct(endpoint, permit=_anything, options=DirectOptions(timeout=seconds))


def _anything(_address: Address) -> bool:
    return True


def _seconds(timeout: float | None, default: float) -> float:
    if timeout is None:
        return default
    if not (0 < timeout < math.inf):
        raise ConfigError(f"timeout is {timeout}; it must be more than 0 seconds, and finite")
    return timeout
