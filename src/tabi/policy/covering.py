"""Rules that can never match, for an earlier one takes all that they could: each of its criteria is at least as wide.

The answer may miss one (several rules together may cover a later one), but never blames a rule that matters.
"""

from collections.abc import Iterator, Mapping, Sequence

from tabi.policy.criteria import Choice, Clients, Criterion, Hosts, Listeners, Ports, Target, Times, Userids, Users
from tabi.policy.networks import PRIVATE, Network, NetworkSet
from tabi.policy.rule import Rule
from tabi.policy.spans import Spans

__all__ = ["UserGroups", "find_covered"]

UserGroups = Mapping[bytes, frozenset[str]]
"""All users with their groups."""

_PLAIN = 64
"""Entries up to which a rule is looked up by each of them."""

_BROAD = 300
"""Rules about neither targets nor users that others are compared with: the first ones; thousands would take minutes."""


def find_covered(rules: Sequence[Rule], users: UserGroups) -> Iterator[tuple[int, int]]:
    """Find the rules that can never match.

    Returns:
        pairs of places, counted from 0: the rule, and the earlier one that takes its requests.
    """
    places: dict[object, list[int]] = {}  # where a rule is to be looked for; under None those that may cover anything
    for number, rule in enumerate(rules):
        candidates = {place for key in _asked(rule, users) for place in places.get(key, ())}
        covering = next((one for one in sorted(candidates) if _covers(rules[one], rule, users)), None)
        if covering is not None:
            yield number, covering
        else:
            for key in _filed(rule):
                filed = places.setdefault(key, [])
                if key is not None or len(filed) < _BROAD:
                    filed.append(number)


def _filed(rule: Rule) -> list[object]:
    """Give the keys under which a rule is filed: one of them is asked for by every rule that it covers."""
    if rule.target is not None and sum(map(_size, rule.target.within)) in range(1, _PLAIN):
        return [entry for hosts in rule.target.within for entry in (*hosts.names, *hosts.networks)]
    for criterion in rule.criteria:
        if isinstance(criterion, Users) and (criterion.names or criterion.groups):
            return [*criterion.names, *(f"@{group}" for group in criterion.groups)]
    return [None]


def _asked(rule: Rule, users: UserGroups) -> Iterator[object]:
    """Give all keys under which rules are filed that hold one chosen entry of this rule."""
    yield None
    for hosts in rule.target.within if rule.target is not None else ():
        name = next(iter(hosts.names), None)
        network = next(iter(hosts.networks), None)
        if name is not None:
            yield from _names_around(name)
            break
        if network is not None:
            yield from _networks_around(network)
            break
    for criterion in rule.criteria:
        if isinstance(criterion, Users):
            user = next((user for user, groups in users.items() if criterion.has(user, groups)), None)
            if user is not None:
                yield from (user, *(f"@{group}" for group in users[user]))


def _names_around(pattern: str) -> Iterator[str]:
    yield from (pattern, "*")
    rest = pattern
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"


def _networks_around(network: Network) -> Iterator[Network]:
    for length in range(network.prefixlen + 1):
        yield network.supernet(new_prefix=length)


def _size(hosts: Hosts) -> int:
    return len(hosts.names) + len(hosts.networks)


def _covers(earlier: Rule, later: Rule, users: UserGroups) -> bool:
    for wide in earlier.criteria:
        narrow = next((one for one in later.criteria if _same_kind(wide, one)), None)
        if narrow is None or not _is_within(narrow, wide, users):
            return False
    return not earlier.allow or _covers_private(earlier, later)


def _same_kind(one: Criterion, other: Criterion) -> bool:
    return type(one) is type(other) and (not isinstance(one, Choice) or one.what == getattr(other, "what", ""))


def _covers_private(earlier: Rule, later: Rule) -> bool:
    """Say whether the earlier rule, which allows, also takes what the later one does with ``@private``.

    For an address of it that it does not open it is passed over, and the later one has its turn.
    """
    wide, narrow = earlier.target, later.target
    opened = wide.within if wide is not None else ()
    if narrow is None or not narrow.within:
        return later.allow and wide is None
    if later.allow:  # it is passed over likewise, but for what it opens itself
        return all(_is_opened(hosts.inside, opened) for hosts in narrow.within)
    if any(hosts.names for hosts in narrow.within):  # a name can lead to private addresses
        return False
    return all(_is_opened(hosts.networks, opened, only=PRIVATE) for hosts in narrow.within)


def _is_opened(networks: NetworkSet, opened: tuple[Hosts, ...], only: NetworkSet | None = None) -> bool:
    """Say whether all of `networks` (or of what they have in common with `only`) is opened by name."""
    if any(networks is hosts.inside for hosts in opened):
        return True
    for version in (4, 6):
        wanted = networks.spans(version)
        if only is not None and version == 4:  # IPv6 addresses may carry private ones: taken as private all of them
            wanted &= only.spans(version)
        if not wanted <= Spans(span for hosts in opened for span in hosts.inside.spans(version)):
            return False
    return True


def _is_within(narrow: Criterion, wide: Criterion, users: UserGroups) -> bool:
    """Say whether all that matches one criterion matches the other of its kind."""
    match narrow, wide:
        case (Choice(), Choice()):
            return narrow.values <= wide.values
        case (Ports(spans=mine), Ports(spans=theirs)) | (Times(spans=mine), Times(spans=theirs)):
            return mine <= theirs
        case (Clients(), Clients()):
            return all(narrow.spans(version) <= wide.spans(version) for version in (4, 6))
        case (Listeners(), Listeners()):
            return all(wide.has(one) for one in narrow.known if narrow.has(one))
        case (Users(), Users()):
            named = all(wide.has(user, groups) for user, groups in users.items() if narrow.has(user, groups))
            return named and (wide.nobody or not narrow.nobody)
        case (Userids(), Userids()):
            if not set(wide.but) <= set(narrow.but):
                return False
            return not wide.patterns or (bool(narrow.patterns) and set(narrow.patterns) <= set(wide.patterns))
        case (Target(), Target()):
            return _is_target_within(narrow, wide)
        case _:
            return False


def _is_target_within(narrow: Target, wide: Target) -> bool:
    if not all(any(theirs is mine or _hosts_within(theirs, mine) for mine in narrow.but) for theirs in wide.but):
        return False
    if not wide.within:
        return True
    return bool(narrow.within) and all(
        any(mine is theirs for theirs in wide.within) or _hosts_within_any(mine, wide.within) for mine in narrow.within
    )


def _hosts_within(narrow: Hosts, wide: Hosts) -> bool:
    return _hosts_within_any(narrow, (wide,))


def _hosts_within_any(narrow: Hosts, wide: tuple[Hosts, ...]) -> bool:
    named = all(any(hosts.names.covers(name) for hosts in wide) for name in narrow.names)
    return named and all(any(hosts.networks.covers(network) for hosts in wide) for network in narrow.networks)
