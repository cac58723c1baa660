"""What the gate's name server says: every name has addresses, which stand for it, and nobody else is ever asked.

Whether a name exists only the proxy can know, and it is asked when the program connects. So a search list would be
wrong here: the first name that it makes would always be found, and the proxy be asked for `www.example.com.corp.test`.
The program's resolv.conf (`tabi.wrap.side_doors`) therefore has none, and `wiki` goes to the proxy as `wiki`, which may
know what to search for.
"""

from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from tabi.addr import Address, Name, parse_host
from tabi.dial.wishes import Family
from tabi.errors import AddressError
from tabi.wrap import dns
from tabi.wrap.dns import Kind, Query, Rcode, Record
from tabi.wrap.names import Names

__all__ = ["TTL", "Answer", "answer"]

TTL = 30  # seconds; nothing changes within a session, but a program may outlive what it has been told

_FAMILIES: dict[int, Family] = {Kind.A: 4, Kind.ANY: 4, Kind.AAAA: 6}  # RFC 8482 section 4.1: ANY may get one record
_LOCALHOST = Name("localhost")
_LOOPBACK: dict[Family, Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}
# By these names programs find out about the network; a made-up address would be a made-up fact.
_ABSENT = frozenset({
    "use-application-dns.net",  # Mozilla's: without it Firefox leaves names to the system, and so to the proxy
    "ipv4only.arpa",  # RFC 7050: an address of it would be proof of NAT64
    "resolver.arpa",  # RFC 9462: name servers that are to be preferred
})  # fmt: skip
_NOWHERE = ("invalid", "in-addr.arpa", "ip6.arpa")  # RFC 6761 section 6.4; and no address is below the other two


class Answer(NamedTuple):
    """What was said, and to which query."""

    query: Query
    rcode: Rcode
    records: tuple[Record, ...]

    def encode(self) -> bytes:
        """Write the message: less than 512 bytes, so it fits into any datagram (RFC 1035 section 4.2.1)."""
        return self.query.answer(self.rcode, self.records)


def answer(message: bytes, names: Names) -> Answer | None:
    """Answer a message; None for what must not be answered.

    Args:
        message: anything that came.
        names: what has addresses; a name that is asked for the first time gets its own.
    """
    query = dns.parse(message)
    if query is None:
        return None
    if query.fault is not None:
        return Answer(query, query.fault, ())
    if query.kind == Kind.PTR and (address := dns.reversed_of(query.labels)) is not None:
        return _backwards(query, address, names)
    return _forwards(query, names)


def _forwards(query: Query, names: Names) -> Answer:
    if not query.labels:  # the root, which has name servers and nothing that a program needs
        return Answer(query, Rcode.NOERROR, ())
    host = _host(query.labels)
    if host is None:
        return Answer(query, Rcode.NXDOMAIN, ())
    family = _FAMILIES.get(query.kind)
    address = None if family is None else _address(host, family, names)
    return Answer(query, Rcode.NOERROR, () if address is None else (dns.address_record(address, TTL),))


def _host(labels: tuple[bytes, ...]) -> Name | Address | None:
    """Read the name of a question; None: there can be no such name, or a proxy could not be asked for it."""
    if any(b"." in label for label in labels):  # joined, it would be another name
        return None
    try:
        host = parse_host(b".".join(labels))
    except AddressError:
        return None
    if isinstance(host, Name) and (host.text in _ABSENT or _is_in(host, *_NOWHERE)):
        return None
    return host


def _address(host: Name | Address, family: Family, names: Names) -> Address | None:
    if not isinstance(host, Name):  # some programs ask for the address of an address
        return host if host.version == family else None
    if _is_in(host, _LOCALHOST.text):  # RFC 6761 section 6.3: the program's own, where no proxy has a part
        return _LOOPBACK[family]
    return names.address_of(host, family)


def _backwards(query: Query, address: Address, names: Names) -> Answer:
    name = _LOCALHOST if address.is_loopback else names.name_of(address)
    if name is None:
        return Answer(query, Rcode.NXDOMAIN, ())
    return Answer(query, Rcode.NOERROR, (dns.name_record(name, TTL),))


def _is_in(name: Name, *zones: str) -> bool:
    return any(name.text == zone or name.text.endswith("." + zone) for zone in zones)
