"""Some of the requests that a rule matches. What is at least as wide as the rule matches all of them.

Each criterion gives values that satisfy it, its entries and the ends of its spans, and together they make requests. A
sample is a guess: whoever uses one sees whether its rule does match it.
"""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from itertools import chain, islice
from typing import Any

from tabi.addr import Address, Endpoint, Name
from tabi.errors import AddressError
from tabi.policy.criteria import (
    COMMAND_WORDS,
    METHOD_WORDS,
    Choice,
    Clients,
    Criterion,
    Listeners,
    Ports,
    Target,
    Times,
    Userids,
    Users,
)
from tabi.policy.rule import Rule
from tabi.policy.spans import Spans
from tabi.policy.verdict import Context, Request
from tabi.wire.socks5 import Command, Method
from tabi.wire.version import Version

__all__ = ["Members", "UserGroups", "samples"]

UserGroups = Mapping[bytes, frozenset[str]]
"""All users with their groups."""

MOST = 64
"""Values taken of one criterion."""

_Fields = dict[str, Any]  # Any: arguments of `Request` and `Context` by their names
_PUBLIC = (IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"))  # for documentation (RFC 5737, RFC 3849)
_METHODS = {word: method for method, word in METHOD_WORDS.items()}
_COMMANDS = {word: command for command, word in COMMAND_WORDS.items()}


class Members:
    """Who is meant by a criterion about users."""

    def __init__(self, users: UserGroups) -> None:
        self.users = users
        self._groups: dict[str, set[bytes]] = {}
        for user, groups in users.items():
            for group in groups:
                self._groups.setdefault(group, set()).add(user)
        self._known: dict[Users, frozenset[bytes]] = {}

    def of(self, criterion: Users) -> frozenset[bytes]:
        """Give the users that a criterion matches."""
        if criterion not in self._known:
            meant = self._named(criterion.names, criterion.groups)
            if not criterion.names and not criterion.groups:
                meant = set(self.users)
            self._known[criterion] = frozenset(meant - self._named(criterion.not_names, criterion.not_groups))
        return self._known[criterion]

    def _named(self, names: frozenset[bytes], groups: frozenset[str]) -> set[bytes]:
        found = {name for name in names if name in self.users}
        return found.union(*(self._groups.get(group, ()) for group in groups))


def samples(rule: Rule, members: Members) -> Iterator[tuple[Request, Context]]:
    """Give requests that a rule should match."""
    values = [list(islice(_values(criterion, members), MOST)) for criterion in rule.criteria]
    for turn in range(max(map(len, values), default=0) or 1):
        fields: _Fields = {"host": Name("name.invalid"), "address": _PUBLIC[turn % 2]}
        for some in values:
            if some:
                fields |= some[turn % len(some)]
        yield _request(**fields), _context(**fields)


def _request(
    *, host: Address | Name, address: Address, port: int = 443, command: Command = Command.CONNECT, **_: object
) -> Request:
    return Request(command, Endpoint(host, port), address if isinstance(host, Name) else None)


def _context(
    *, client: Address = _PUBLIC[0], listener: Endpoint | None = None, version: Version = Version.SOCKS5,
    method: Method = Method.NONE, user: bytes | None = None, groups: frozenset[str] = frozenset(), userid: bytes = b"",
    minute: int = 0, **_: object,
) -> Context:  # fmt: skip
    here = listener or Endpoint(_PUBLIC[0], 0)
    return Context(Endpoint(client, 0), here, version, method, user, userid, groups, minute)


def _values(criterion: Criterion, members: Members) -> Iterator[_Fields]:
    match criterion:
        case Target():
            return _targets(criterion)
        case Ports():
            return ({"port": number} for number in _ends(criterion.spans))
        case Times():
            return ({"minute": number} for number in _ends(criterion.spans))
        case Clients():
            return ({"client": address} for address in _clients(criterion))
        case Users():
            nobody = [_Fields(user=None)] if criterion.nobody else []
            named = ({"user": user, "groups": members.users[user]} for user in members.of(criterion))
            return chain(nobody, named)
        case Choice():
            return (_word(criterion.what, word) for word in criterion.values)
        case Listeners():
            return ({"listener": one} for one in criterion.known if criterion.has(one))
        case Userids():
            patterns = [one.pattern for one in criterion.patterns]
            return ({"userid": claim} for claim in patterns or (b"", b"somebody") if criterion.has(claim))
        case _:
            return iter(())


def _word(what: str, word: str) -> _Fields:
    match what:
        case "version":
            return {"version": Version(word)}
        case "method":
            return {"method": _METHODS[word]}
        case _:
            return {"command": _COMMANDS[word]}


def _ends(spans: Spans) -> Iterator[int]:
    for begin, end in spans:
        yield begin
        if end - begin > 1:
            yield end - 1


def _clients(criterion: Clients) -> Iterator[Address]:
    yield from map(IPv4Address, _ends(criterion.spans(4)))
    yield from map(IPv6Address, _ends(criterion.spans(6)))


def _targets(criterion: Target) -> Iterator[_Fields]:
    """Give networks by their first address, names with an address of each family: a rule may open one of them."""
    for address in _PUBLIC:
        for pattern in chain.from_iterable(hosts.names for hosts in criterion.within):
            try:
                host = Name(pattern.replace("*.", "some.").replace("*", "").replace("?", "x"))
            except AddressError:
                continue
            yield {"host": host, "address": address}
    for network in chain.from_iterable(hosts.networks for hosts in criterion.within):
        yield {"host": network.network_address}
