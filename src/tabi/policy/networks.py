"""Sets of IP networks, and the networks that are nobody's business from outside.

`PRIVATE` is what rules call ``@private``: all that IANA's special-purpose registries (RFC 6890 and its updates) say is
not globally reachable, and what goes beyond one host or network by nature (multicast, broadcast). The documentation
ranges are left out: nobody is there, and manuals use them. An address that carries an IPv4 address inside is judged by
that address as well.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TypeAlias

from tabi.addr import Address
from tabi.policy.spans import Spans

__all__ = [
    "PRIVATE", "PRIVATE_NETWORKS", "Network", "NetworkSet", "PrivateNetworks", "embedded_ipv4", "embedded_network",
]  # fmt: skip

Network: TypeAlias = IPv4Network | IPv6Network

PRIVATE_NETWORKS: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "this network (RFC 791)"),
    ("10.0.0.0/8", "private use (RFC 1918)"),
    ("100.64.0.0/10", "shared address space (RFC 6598)"),
    ("127.0.0.0/8", "loopback (RFC 1122)"),
    ("169.254.0.0/16", "link local, cloud metadata (RFC 3927)"),
    ("172.16.0.0/12", "private use (RFC 1918)"),
    ("192.0.0.0/24", "IETF protocol assignments (RFC 6890)"),
    ("192.88.99.0/24", "6to4 relay anycast, deprecated (RFC 7526)"),
    ("192.168.0.0/16", "private use (RFC 1918)"),
    ("198.18.0.0/15", "benchmarking (RFC 2544)"),
    ("224.0.0.0/4", "multicast (RFC 5771)"),
    ("240.0.0.0/4", "reserved, and the limited broadcast address (RFC 1112)"),
    ("::/128", "unspecified (RFC 4291)"),
    ("::1/128", "loopback (RFC 4291)"),
    ("::/96", "IPv4-compatible, deprecated (RFC 4291)"),
    ("64:ff9b:1::/48", "local-use translation (RFC 8215)"),
    ("100::/64", "discard-only (RFC 6666)"),
    ("100:0:0:1::/64", "dummy prefix (RFC 9780)"),
    ("2001::/23", "IETF protocol assignments (RFC 2928)"),
    ("5f00::/16", "segment routing (RFC 9602)"),
    ("fc00::/7", "unique local (RFC 4193)"),
    ("fe80::/10", "link local (RFC 4291)"),
    ("fec0::/10", "site local, deprecated (RFC 3879)"),
    ("ff00::/8", "multicast (RFC 4291)"),
)
"""The networks of ``@private`` with what they are."""


class NetworkSet:
    """Networks of both families; asking costs one look-up per prefix length that occurs, however many there are.

    A target that is an IPv6 address and carries an IPv4 address is ``in`` a set that has either of them: both lead to
    the same host. Who comes from such an address is not the host that has the other: of clients ask `holds`.
    """

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._prefixes: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        for network in networks:
            shift = network.max_prefixlen - network.prefixlen
            self._prefixes[network.version].setdefault(shift, set()).add(int(network.network_address) >> shift)

    def __len__(self) -> int:
        """Networks that were put in, each counted once."""
        return sum(len(known) for lengths in self._prefixes.values() for known in lengths.values())

    def __bool__(self) -> bool:
        return bool(self._prefixes[4] or self._prefixes[6])

    def __iter__(self) -> Iterator[Network]:
        for shift, known in self._prefixes[4].items():
            yield from (IPv4Network((prefix << shift, 32 - shift)) for prefix in known)
        for shift, known in self._prefixes[6].items():
            yield from (IPv6Network((prefix << shift, 128 - shift)) for prefix in known)

    def __contains__(self, address: Address) -> bool:
        """Say whether an address, or the IPv4 address that it carries, is in one of the networks."""
        if self.holds(address):
            return True
        return address.version == 6 and (inner := embedded_ipv4(address)) is not None and self.holds(inner)

    def holds(self, address: Address) -> bool:
        """Say whether an address itself is in one of the networks, whatever it carries."""
        number = int(address)
        return any(number >> shift in known for shift, known in self._prefixes[address.version].items())

    def covers(self, network: Network) -> bool:
        """Say whether all of `network` is within one of ours."""
        first, bits = int(network.network_address), network.max_prefixlen - network.prefixlen
        lengths = self._prefixes[network.version]
        if any(first >> shift in known for shift, known in lengths.items() if shift >= bits):
            return True
        inner = embedded_network(network)
        return inner is not None and self.covers(inner)

    def prefixes(self, version: int) -> Iterator[tuple[int, int]]:
        """Give the networks of one family as pairs: bits that are left of an address, and what the others are."""
        for shift, known in self._prefixes[version].items():
            yield from ((shift, prefix) for prefix in known)

    def spans(self, version: int) -> Spans:
        """Give the addresses of one family as numbers; carried addresses are left out."""
        return Spans((prefix << shift, prefix + 1 << shift) for shift, prefix in self.prefixes(version))


# Parts of the above that IANA marks globally reachable: a larger network's entry does not cover them.
_REACHABLE = NetworkSet(map(ip_network, (
    "192.0.0.9/32", "192.0.0.10/32", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:3::/32",
    "2001:4:112::/48", "2001:20::/28", "2001:30::/28",
    "2001::/32",  # Teredo: as reachable as the IPv4 address inside
)))  # fmt: skip


class PrivateNetworks(NetworkSet):
    """``@private``: what is not globally reachable, and the server's own addresses.

    Args:
        own: the server's addresses.
    """

    def __init__(self, own: Iterable[Address] = ()) -> None:
        super().__init__(ip_network(text) for text, _ in PRIVATE_NETWORKS)
        self._own = NetworkSet()
        self.own: frozenset[Address] = frozenset(address for address in own if address not in self)
        """Those of the server's addresses that are not private anyway."""
        self._own = NetworkSet(map(ip_network, self.own))

    def holds(self, address: Address) -> bool:
        """See `NetworkSet`."""
        return self._own.holds(address) or (super().holds(address) and not _REACHABLE.holds(address))

    def part_of(self, networks: Iterable[Network]) -> NetworkSet:
        """Give the networks that lie within."""
        return NetworkSet(network for network in networks if self.covers(network))

    def covers(self, network: Network) -> bool:
        """See `NetworkSet`; the exceptions do not matter here, for they are not private to begin with."""
        return super().covers(network) or self._own.covers(network)

    def spans(self, version: int) -> Spans:
        """See `NetworkSet`."""
        return (super().spans(version) - _REACHABLE.spans(version)) | self._own.spans(version)


def embedded_ipv4(address: Address) -> IPv4Address | None:
    """Give the IPv4 address that a packet for an IPv6 address would end at, or None.

    IPv4-mapped (RFC 4291), NAT64 (64:ff9b::/96 of RFC 6052 and 64:ff9b:1::/48 of RFC 8215), 6to4 (RFC 3056), Teredo
    (RFC 4380), IPv4-translated (::ffff:0:0:0/96 of RFC 2765).
    """
    if not isinstance(address, IPv6Address):
        return None
    number = int(address)
    if (inner := address.ipv4_mapped or address.sixtofour) is not None:
        return inner
    if (teredo := address.teredo) is not None:
        return teredo[1]
    if number >> 32 in (0x64FF9B << 64, 0xFFFF0000) or number >> 80 == 0x64FF9B0001:
        return IPv4Address(number & 0xFFFFFFFF)
    return None


def embedded_network(network: Network) -> IPv4Network | None:
    """Give the IPv4 network that all addresses of an IPv6 network carry, or None.

    Teredo keeps the address in the last bits, scrambled: there only a single address has one.
    """
    if not isinstance(network, IPv6Network):
        return None
    for prefix, begin in _CARRIERS:
        if network.subnet_of(prefix):
            bits = min(max(network.prefixlen - begin, 0), 32)
            number = int(network.network_address) >> (96 - begin) & 0xFFFFFFFF
            return IPv4Network((number >> (32 - bits) << (32 - bits), bits))
    inner = embedded_ipv4(network.network_address) if network.prefixlen == 128 else None
    return None if inner is None else IPv4Network(inner)


_CARRIERS = (
    (IPv6Network("::ffff:0:0/96"), 96),
    (IPv6Network("::ffff:0:0:0/96"), 96),
    (IPv6Network("64:ff9b::/96"), 96),
    (IPv6Network("2002::/16"), 16),
)
"""Prefixes of IPv6 addresses that carry an IPv4 address, and the bit where it begins."""

PRIVATE = PrivateNetworks()
"""``@private`` without the server's own addresses."""
