"""Would this configuration serve anybody on the Internet? Found by meaning, not by the look of the rules.

Public clients that come in without authentication are sent down the list as a whole, as sets of addresses: a rule takes
its part out where it is sure to match, and is to blame where it allows what may match it. Nothing is assumed about
what they ask for: they ask for whatever a rule wants.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from tabi.addr import Address, Endpoint, Name
from tabi.config.access import Access
from tabi.policy.criteria import Choice, Clients, Criterion, Listeners, Userids, Users
from tabi.policy.rule import Rule
from tabi.policy.rules import RuleList
from tabi.policy.spans import Spans
from tabi.wire.socks5 import Method

__all__ = ["Opening", "find_openings"]

_COMMANDS = {
    "4": frozenset({"connect", "bind"}),
    "4a": frozenset({"connect", "bind"}),
    "5": frozenset({"connect", "bind", "associate", "resolve", "resolve-ptr"}),
}
_EVERYTHING = {4: Spans([(0, 1 << 32)]), 6: Spans([(0, 1 << 128)])}


@dataclass(frozen=True, slots=True)
class Opening:
    """A rule that serves public clients which nobody has authenticated.

    Args:
        number: of the rule, counted from 0.
        listener: where they come in.
        client: one of them.
        version: what they speak.
        everybody: whether it is all of them.
    """

    number: int
    listener: Endpoint
    client: Address
    version: str
    everybody: bool


def find_openings(access: Access, rules: RuleList, listeners: Iterable[Endpoint]) -> list[Opening]:
    """Find the rules that would serve the public without authentication and do not say ``open = true``.

    Args:
        access: what clients are offered.
        rules: the list; who comes from its ``@private``, the server's own addresses among them, is not the public.
        listeners: where clients can connect; those on loopback have no public clients.

    Returns:
        at most one for each rule, in their order.
    """
    found: dict[int, Opening] = {}
    listeners = tuple(listeners)
    for listener in listeners:
        for family in _families(listener, listeners):
            for version, clients in _unauthenticated(access, listener, family, _public(rules, family)).items():
                for opening in _walk(rules, access, listener, family, version, clients):
                    found.setdefault(opening.number, opening)
    return [found[number] for number in sorted(found)]


def _families(listener: Endpoint, listeners: Sequence[Endpoint]) -> tuple[int, ...]:
    """Say of which families clients of a listener are: ``::`` takes IPv4 too, where 0.0.0.0 does not."""
    host = listener.host
    if isinstance(host, Name) or host.is_loopback:
        return ()
    if host == IPv6Address("::") and Endpoint(IPv4Address(0), listener.port) not in listeners:
        return 4, 6
    return (host.version,)


def _unauthenticated(access: Access, listener: Endpoint, family: int, public: Spans) -> Mapping[str, Spans]:
    """Give the public clients that need no password, by the version that they would speak."""
    known = listener if listener in access.listeners else None
    rest = public
    socks4, socks5 = Spans(), Spans()
    for table in (*access.clients, None):
        here = rest & table.clients.spans(family) if table is not None else rest
        rest -= here
        terms = access.terms_of(known, table)
        socks4 = socks4 | here if terms.socks4 else socks4
        socks5 = socks5 | here if Method.NONE in terms.methods else socks5
    return {"5": socks5, "4": socks4, "4a": socks4}


def _public(rules: RuleList, family: int) -> Spans:
    return _EVERYTHING[family] - rules.private.spans(family)


def _walk(
    rules: RuleList, access: Access, listener: Endpoint, family: int, version: str, clients: Spans
) -> Iterator[Opening]:
    known = listener if listener in access.listeners else None
    for number, rule in enumerate(rules.rules):
        if not clients:
            return
        here, certain = _matching(rule, known, family, version, clients)
        if not here:
            continue
        unmet = bool(rule.auth) and Method.NONE not in rule.auth
        if rule.allow and not rule.open and not unmet:
            begin = next(iter(here))[0]
            first = IPv4Address(begin) if family == 4 else IPv6Address(begin)
            yield Opening(number, listener, first, version, here == _public(rules, family))
        if certain:
            clients -= here


def _matching(rule: Rule, listener: Endpoint | None, family: int, version: str, clients: Spans) -> tuple[Spans, bool]:
    """Give the clients whose requests may match a rule, and whether all of their requests do."""
    certain = True
    for criterion in rule.criteria:
        if isinstance(criterion, Clients):
            clients &= criterion.spans(family)
            continue
        truth = _truth(criterion, listener, version)
        if truth is False:
            return Spans(), True
        certain = certain and truth is True
    return clients, certain


def _truth(criterion: Criterion, listener: Endpoint | None, version: str) -> bool | None:
    """Say whether who has not logged in matches: yes, no, or as the request may be."""
    match criterion:
        case Listeners():
            return criterion.has(listener)
        case Users():
            return criterion.nobody
        case Choice(what="version"):
            return version in criterion.values
        case Choice(what="method"):
            return "none" in criterion.values
        case Choice():
            possible = _COMMANDS[version]
            return True if possible <= criterion.values else None if possible & criterion.values else False
        case Userids() if version == "5":
            return criterion.has(b"")
        case _:
            return None
