"""What a rule can ask about a request: each criterion answers yes, no or not yet, and can say why.

"Not yet" (None) is the answer of address criteria before a name has been looked up, and of criteria about the target
while there is none: a UDP association as such, whose datagrams are judged one by one. A criterion holds any number of
entries of which one must match; entries written with ``!`` must not.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from tabi.addr import Address, Endpoint, Name
from tabi.policy.names import NameSet
from tabi.policy.networks import NetworkSet
from tabi.policy.spans import Spans
from tabi.policy.verdict import Context, Request
from tabi.wire.socks5 import Command, Method

__all__ = [
    "COMMAND_WORDS", "METHOD_WORDS", "Choice", "Clients", "Criterion", "Hosts", "Listeners", "Ports", "Target", "Times",
    "Truth", "Userids", "Users", "client_of", "clock", "listener_of",
]  # fmt: skip

Truth: TypeAlias = bool | None

METHOD_WORDS = {Method.NONE: "none", Method.USERPASS: "password"}
"""What rules call the methods."""

COMMAND_WORDS = {
    Command.CONNECT: "connect",
    Command.BIND: "bind",
    Command.UDP_ASSOCIATE: "associate",
    Command.RESOLVE: "resolve",
    Command.RESOLVE_PTR: "resolve-ptr",
}
"""What rules call the commands."""


class Criterion(Protocol):
    """One line of a rule."""

    def test(self, request: Request, context: Context) -> Truth:
        """Say yes, no or not yet."""

    def why_not(self, request: Request, context: Context) -> str:
        """Say why a request does not match, as `tabi explain` shows it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hosts:
    """Names and networks that belong together: those written in a rule, a set file, or ``@private``.

    Args:
        names: a literal is never one of them.
        networks: a name is in them by the address that it led to.
        inside: those of `networks` that lie within ``@private``: they open what they name to other hosts.
    """

    names: NameSet = field(default_factory=NameSet)
    networks: NetworkSet = field(default_factory=NetworkSet)
    inside: NetworkSet = field(default_factory=NetworkSet)

    def test(self, request: Request) -> Truth:
        """Say whether the target is meant."""
        if request.target is None:
            return None
        host = request.target.host
        if isinstance(host, Name) and host in self.names:
            return True
        if not self.networks:
            return False
        ip = request.ip
        return None if ip is None else ip in self.networks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Target:
    """``to``: names and networks.

    Args:
        within: of these one must match, if there are any.
        but: of these none may match.
        shown: `within` as written.
        shown_but: `but` as written.
    """

    within: tuple[Hosts, ...] = ()
    but: tuple[Hosts, ...] = ()
    shown: str = ""
    shown_but: str = ""

    def test(self, request: Request, _context: Context) -> Truth:
        """See `Criterion`."""
        hit = _any(self.within, request) if self.within else True
        if hit is False or not self.but:
            return hit
        miss = _any(self.but, request)
        if miss is True:
            return False
        return None if hit is None or miss is None else True

    def opens(self, address: Address) -> bool:
        """Say whether an address of ``@private`` is reached by being named: by it or by a network inside it."""
        return any(address in hosts.inside for hosts in self.within)

    def names_network_of(self, address: Address) -> bool:
        """Say whether `address` is in a network that is written here; without any entry all are."""
        return not self.within or any(address in hosts.networks for hosts in self.within)

    def why_not(self, request: Request, _context: Context) -> str:
        """See `Criterion`."""
        if self.within and _any(self.within, request) is False:
            return f"{request.shown} is not in {self.shown}"
        return f"{request.shown} is in {self.shown_but}, which is left out"


@dataclass(frozen=True, slots=True)
class Ports:
    """``port``: numbers and ranges."""

    spans: Spans
    shown: str

    def test(self, request: Request, _context: Context) -> Truth:
        """See `Criterion`."""
        return None if request.target is None else request.target.port in self.spans

    def why_not(self, request: Request, _context: Context) -> str:
        """See `Criterion`."""
        return f"port {request.target.port if request.target else 0} is not in {self.shown}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clients:
    """``from``: networks of the client, by its address itself: nobody is let in for an address that it carries."""

    within: tuple[NetworkSet, ...]
    but: tuple[NetworkSet, ...] = ()
    shown: str = ""

    def test(self, _request: Request, context: Context) -> Truth:
        """See `Criterion`."""
        return self.has(client_of(context))

    def has(self, address: Address) -> bool:
        """Say whether a client is meant."""
        meant = not self.within or any(networks.holds(address) for networks in self.within)
        return meant and not any(networks.holds(address) for networks in self.but)

    def spans(self, version: int) -> Spans:
        """Give the clients of one family as numbers."""
        meant = Spans(span for networks in self.within for span in networks.spans(version))
        left_out = Spans(span for networks in self.but for span in networks.spans(version))
        everything = Spans([(0, 1 << (32 if version == 4 else 128))])
        return (meant if self.within else everything) - left_out

    def why_not(self, _request: Request, context: Context) -> str:
        """See `Criterion`."""
        return f"client {context.client.host} is not in {self.shown}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """``user``: names as authenticated, and ``@groups``. Whoever did not log in is nobody.

    Args:
        names: of these or `groups` one must match, if there are any.
        groups: see `names`.
        not_names: must not match.
        not_groups: must not match.
        nobody: whether who did not log in matches: "not alice" in a rule that refuses is meant for them as well.
        shown: all entries as written.
    """

    names: frozenset[bytes] = frozenset()
    groups: frozenset[str] = frozenset()
    not_names: frozenset[bytes] = frozenset()
    not_groups: frozenset[str] = frozenset()
    nobody: bool = False
    shown: str = ""

    def test(self, _request: Request, context: Context) -> Truth:
        """See `Criterion`."""
        return self.nobody if context.user is None else self.has(context.user, context.groups)

    def has(self, user: bytes, groups: frozenset[str]) -> bool:
        """Say whether a user is meant."""
        if user in self.not_names or groups & self.not_groups:
            return False
        return not (self.names or self.groups) or user in self.names or bool(groups & self.groups)

    def why_not(self, _request: Request, context: Context) -> str:
        """See `Criterion`."""
        if context.user is None:
            return f"the client has not logged in, and user is to be in {self.shown}"
        return f"user {context.user.decode('utf-8', 'backslashreplace')} is not in {self.shown}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Userids:
    """``userid``: what a SOCKS4 client claims; proves nothing. An empty entry means: claims nothing."""

    patterns: tuple[re.Pattern[bytes], ...]
    but: tuple[re.Pattern[bytes], ...] = ()
    shown: str = ""

    def test(self, _request: Request, context: Context) -> Truth:
        """See `Criterion`."""
        return self.has(context.userid)

    def has(self, userid: bytes) -> bool:
        """Say whether a claim is meant."""
        if any(pattern.fullmatch(userid) for pattern in self.but):
            return False
        return not self.patterns or any(pattern.fullmatch(userid) for pattern in self.patterns)

    def why_not(self, _request: Request, context: Context) -> str:
        """See `Criterion`."""
        claimed = context.userid.decode("utf-8", "backslashreplace")
        return f'userid "{claimed}" is not in {self.shown}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """``listener``: where the client came in.

    Args:
        known: all listeners as they are written; 0.0.0.0 and :: are among them, where connections have addresses.
        within: of these one must match, if there are any.
        but: none of these may match.
        shown: all entries as written.
    """

    known: tuple[Endpoint, ...]
    within: frozenset[Endpoint] = frozenset()
    but: frozenset[Endpoint] = frozenset()
    shown: str = ""

    def test(self, _request: Request, context: Context) -> Truth:
        """See `Criterion`."""
        return self.has(listener_of(self.known, context.listener))

    def has(self, listener: Endpoint | None) -> bool:
        """Say whether one of `known` is meant."""
        return (not self.within or listener in self.within) and listener not in self.but

    def why_not(self, _request: Request, context: Context) -> str:
        """See `Criterion`."""
        return f"listener {context.listener} is not in {self.shown}"


@dataclass(frozen=True, slots=True)
class Choice:
    """``method``, ``version``, ``command``: one of a few words."""

    what: str
    values: frozenset[str]
    shown: str

    def test(self, request: Request, context: Context) -> Truth:
        """See `Criterion`."""
        return self.actual(request, context) in self.values

    def why_not(self, request: Request, context: Context) -> str:
        """See `Criterion`."""
        return f"{self.what} {self.actual(request, context)} is not in {self.shown}"

    def actual(self, request: Request, context: Context) -> str:
        """Give the word that a request has."""
        match self.what:
            case "method":
                return METHOD_WORDS.get(context.method, str(context.method))
            case "version":
                return context.version.value
            case _:
                return COMMAND_WORDS.get(request.command, str(request.command))


@dataclass(frozen=True, slots=True)
class Times:
    """``time``: minutes of the week in the server's local time, counted from Monday 00:00."""

    spans: Spans
    shown: str

    def test(self, _request: Request, context: Context) -> Truth:
        """See `Criterion`."""
        return context.minute_of_week in self.spans

    def why_not(self, _request: Request, context: Context) -> str:
        """See `Criterion`."""
        return f"{clock(context.minute_of_week)} is not in {self.shown}"


def clock(minute_of_week: int) -> str:
    """Show a minute of the week: ``Fri 17:05``."""
    day, minute = divmod(minute_of_week, 24 * 60)
    return f"{('Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun')[day]} {minute // 60:02d}:{minute % 60:02d}"


def client_of(context: Context) -> Address:
    """Give the address of the client."""
    host = context.client.host
    if isinstance(host, Name):
        raise TypeError("a client has an address")
    return host


def listener_of(known: Iterable[Endpoint], actual: Endpoint) -> Endpoint | None:
    """Find the listener, as it is written, that took a connection to `actual`.

    As the kernel does: the very address, else all addresses of its family, else ``::``, which takes IPv4 as well.
    """
    best: tuple[int, Endpoint | None] = (0, None)
    for endpoint in known:
        host = endpoint.host
        if endpoint.port != actual.port or isinstance(host, Name) or isinstance(actual.host, Name):
            continue
        fit = 3 if host == actual.host else 0
        if not fit and host.is_unspecified:
            fit = 2 if host.version == actual.host.version else int(host.version == 6)
        if fit > best[0]:
            best = fit, endpoint
    return best[1]


def _any(many: tuple[Hosts, ...], request: Request) -> Truth:
    undecided = False
    for hosts in many:
        truth = hosts.test(request)
        if truth:
            return True
        undecided = undecided or truth is None
    return None if undecided else False
