"""What all rules say to a request, found together: a list of 10,000 costs about what a short one does.

For each kind of criterion there is a table from what a request has to the rules that match it: one look-up, or one for
each label of a name and each prefix length that occurs. The sets of rules are whole numbers (`tabi.policy.masks`), so
that criteria are joined by ``&``; no rule is ever tried by itself. What is still asked one by one, once for all rules
that share it: a pattern of names that has hardly a character besides wildcards and a ``?`` among them, a userid with a
wildcard, a set of thousands of entries, and a criterion of a kind that is unknown here.

The rules themselves (`Rule.test`) are what this must agree with, and `tabi explain` asks only them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from tabi.addr import Address, Name
from tabi.policy.criteria import (
    Choice,
    Clients,
    Criterion,
    Hosts,
    Listeners,
    Ports,
    Target,
    Times,
    Userids,
    Users,
    client_of,
    listener_of,
)
from tabi.policy.masks import Table, bits, mask
from tabi.policy.rule import Rule
from tabi.policy.tables import ClaimTable, NameTable, NetworkTable, NumberTable
from tabi.policy.verdict import Context, Request
from tabi.wire.socks5 import Method

__all__ = ["RuleIndex", "kind_of"]

Matches: TypeAlias = tuple[int, int]
"""Rules that match, and rules that match or are undecided."""


class _Kind(Protocol):
    """All criteria of one kind. A rule that has none matches."""

    def match(self, request: Request, context: Context) -> Matches:
        """Find the rules whose criterion matches."""


class RuleIndex:
    """Finds the rules that match.

    Args:
        rules: in their order.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._everything = (1 << len(rules)) - 1
        by_kind: dict[object, list[tuple[int, Any]]] = {}  # Any: a criterion of the kind that the key says
        others = []
        for place, rule in enumerate(rules):
            kinds = [kind_of(criterion) for criterion in rule.criteria]
            if None in kinds or len(set(kinds)) < len(kinds):
                others.append(place)
                continue
            for kind, criterion in zip(kinds, rule.criteria, strict=True):
                by_kind.setdefault(kind, []).append((place, criterion))
        self._others = mask(others)
        self._kinds: list[_Kind] = [_KINDS[type(filed[0][1])](filed, self._everything) for filed in by_kind.values()]
        self._index_actions(rules)

    def _index_actions(self, rules: Sequence[Rule]) -> None:
        self.allowing: int = mask(place for place, rule in enumerate(rules) if rule.allow)
        """The rules that allow."""
        self._literals = mask(place for place, rule in enumerate(rules) if rule.literals)
        self._auth = Table[Method | None](
            (method, (place,)) for place, rule in enumerate(rules) for method in rule.auth or (None,)
        )
        to = [(place, rule.target.within if rule.target is not None else ()) for place, rule in enumerate(rules)]
        self._anywhere = mask(place for place, within in to if not within)
        self._opened = NetworkTable((place, hosts.inside) for place, within in to for hosts in within)
        self._local = NetworkTable((place, hosts.networks) for place, within in to for hosts in within)

    def match(self, request: Request, context: Context) -> Matches:
        """Find the rules that match, and those that match or wait for the look-up."""
        yes = possible = self._everything
        for kind in self._kinds:
            sure, maybe = kind.match(request, context)
            yes &= sure
            possible &= maybe
        for place in bits(possible & self._others):
            truth = self._rules[place].test(request, context)
            if not truth:
                yes &= ~(1 << place)
            if truth is False:
                possible &= ~(1 << place)
        return yes, possible

    def granting(self, request: Request, context: Context) -> int:
        """Give the rules that allow and lack nothing, if they match: see `Rule.unmet`."""
        met = self._auth.get(None) | self._auth.get(context.method)
        if request.target is not None and not isinstance(request.target.host, Name):
            met &= self._literals
        return self.allowing & met

    def opening(self, address: Address, *, local_client: bool) -> int:
        """Give the rules that open an address of ``@private``: see `Rule.opens`."""
        opened = self._opened.rules_of(address)
        return opened | self._anywhere | self._local.rules_of(address) if local_client else opened


class _Words:
    """Criteria that are a word."""

    def __init__(self, filed: Sequence[tuple[int, Choice]], everything: int) -> None:
        self._any = filed[0][1]
        self._free = everything ^ mask(place for place, _ in filed)
        self._words = Table((word, (place,)) for place, choice in filed for word in choice.values)

    def match(self, request: Request, context: Context) -> Matches:
        rules = self._free | self._words.get(self._any.actual(request, context))
        return rules, rules


class _Sides:
    """What is meant and what is left out: without any entry that is meant all are.

    Args:
        filed: places of rules, and whether anything is meant.
        everything: all rules.
    """

    __slots__ = ("_anything",)

    def __init__(self, filed: Iterable[tuple[int, bool]], everything: int) -> None:
        self._anything = everything ^ mask(place for place, some_meant in filed if some_meant)

    def join(self, meant: int, left_out: int) -> int:
        return (meant | self._anything) & ~left_out


class _Clients:
    """``from``."""

    def __init__(self, filed: Sequence[tuple[int, Clients]], everything: int) -> None:
        self._sides = _Sides(((place, bool(one.within)) for place, one in filed), everything)
        within = ((place, networks) for place, one in filed for networks in one.within)
        self._within = NetworkTable(within, carried=False)
        self._but = NetworkTable(((place, networks) for place, one in filed for networks in one.but), carried=False)

    def match(self, _request: Request, context: Context) -> Matches:
        client = client_of(context)
        rules = self._sides.join(self._within.rules_of(client), self._but.rules_of(client))
        return rules, rules


class _Listeners:
    """``listener``. All rules know the same listeners, unless somebody has made them by hand."""

    def __init__(self, filed: Sequence[tuple[int, Listeners]], everything: int) -> None:
        self._sides = _Sides(((place, bool(one.within)) for place, one in filed), everything)
        self._known = {one.known for _, one in filed}
        self._within = Table(((one.known, end), (place,)) for place, one in filed for end in one.within)
        self._but = Table(((one.known, end), (place,)) for place, one in filed for end in one.but)

    def match(self, _request: Request, context: Context) -> Matches:
        meant = left_out = 0
        for known in self._known:
            listener = listener_of(known, context.listener)
            if listener is not None:
                meant |= self._within.get((known, listener))
                left_out |= self._but.get((known, listener))
        rules = self._sides.join(meant, left_out)
        return rules, rules


class _Users:
    """``user``: names are bytes, groups are text."""

    def __init__(self, filed: Sequence[tuple[int, Users]], everything: int) -> None:
        self._sides = _Sides(((place, bool(one.names or one.groups)) for place, one in filed), everything)
        self._nobody = everything ^ mask(place for place, one in filed if not one.nobody)
        self._within = Table((who, (place,)) for place, one in filed for who in _members(one.names, one.groups))
        self._but = Table((who, (place,)) for place, one in filed for who in _members(one.not_names, one.not_groups))

    def match(self, _request: Request, context: Context) -> Matches:
        if context.user is None:
            return self._nobody, self._nobody
        meant = left_out = 0
        for who in _members((context.user,), context.groups):
            meant |= self._within.get(who)
            left_out |= self._but.get(who)
        rules = self._sides.join(meant, left_out)
        return rules, rules


def _members(names: Iterable[bytes], groups: Iterable[str]) -> list[bytes | str]:
    return [*names, *groups]


class _Userids:
    """``userid``."""

    def __init__(self, filed: Sequence[tuple[int, Userids]], everything: int) -> None:
        self._sides = _Sides(((place, bool(one.patterns)) for place, one in filed), everything)
        self._within = ClaimTable((place, pattern) for place, one in filed for pattern in one.patterns)
        self._but = ClaimTable((place, pattern) for place, one in filed for pattern in one.but)

    def match(self, _request: Request, context: Context) -> Matches:
        rules = self._sides.join(self._within.rules_of(context.userid), self._but.rules_of(context.userid))
        return rules, rules


class _Times:
    """``time``."""

    def __init__(self, filed: Sequence[tuple[int, Times]], everything: int) -> None:
        self._free = everything ^ mask(place for place, _ in filed)
        self._minutes = NumberTable((place, one.spans) for place, one in filed)

    def match(self, _request: Request, context: Context) -> Matches:
        rules = self._free | self._minutes.rules_of(context.minute_of_week)
        return rules, rules


class _Ports:
    """``port``: undecided while there is no target."""

    def __init__(self, filed: Sequence[tuple[int, Ports]], everything: int) -> None:
        self._everything = everything
        self._free = everything ^ mask(place for place, _ in filed)
        self._ports = NumberTable((place, one.spans) for place, one in filed)

    def match(self, request: Request, _context: Context) -> Matches:
        if request.target is None:
            return self._free, self._everything
        rules = self._free | self._ports.rules_of(request.target.port)
        return rules, rules


class _Targets:
    """``to``: undecided while there is no target, and where a name has no address yet."""

    def __init__(self, filed: Sequence[tuple[int, Target]], everything: int) -> None:
        self._everything = everything
        self._free = everything ^ mask(place for place, one in filed if one.within or one.but)
        self._sides = _Sides(((place, bool(one.within)) for place, one in filed), everything)
        self._within = _HostTable([(place, hosts) for place, one in filed for hosts in one.within])
        self._but = _HostTable([(place, hosts) for place, one in filed for hosts in one.but])

    def match(self, request: Request, _context: Context) -> Matches:
        if request.target is None:
            return self._free, self._everything
        meant, meant_perhaps = self._within.match(request)
        left_out, left_out_perhaps = self._but.match(request)
        return self._sides.join(meant, left_out_perhaps), self._sides.join(meant_perhaps, left_out)


class _HostTable:
    """Names and networks of targets."""

    __slots__ = ("_names", "_networks", "_with_networks")

    def __init__(self, filed: Sequence[tuple[int, Hosts]]) -> None:
        self._names = NameTable((place, hosts.names) for place, hosts in filed)
        self._networks = NetworkTable((place, hosts.networks) for place, hosts in filed)
        self._with_networks = mask(place for place, hosts in filed if hosts.networks)

    def match(self, request: Request) -> Matches:
        """Find the rules that hold the target, and those that hold it or may hold the address it leads to."""
        host = request.target.host if request.target is not None else None
        rules = self._names.rules_of(host.text) if isinstance(host, Name) else 0
        ip = request.ip
        if ip is None:
            return rules, rules | self._with_networks
        rules |= self._networks.rules_of(ip)
        return rules, rules


# Any: each takes the criteria of its own kind
_KINDS: Mapping[type, Callable[[Any, int], _Kind]] = {
    Choice: _Words, Clients: _Clients, Listeners: _Listeners, Ports: _Ports, Target: _Targets, Times: _Times,
    Userids: _Userids, Users: _Users,
}  # fmt: skip


def kind_of(criterion: Criterion) -> object:
    """Say with which other criteria one is filed; None: with none."""
    if isinstance(criterion, Choice):
        return Choice, criterion.what
    return type(criterion) if type(criterion) in _KINDS else None
