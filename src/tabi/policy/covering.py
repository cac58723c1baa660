"""Rules that can never match, for an earlier one takes all that they could: each of its criteria is at least as wide.

The answer may miss one (several rules together may cover a later one), but never blames a rule that matters.
"""

from dataclasses import dataclass

from tabi.policy.criteria import Choice, Clients, Criterion, Hosts, Listeners, Ports, Target, Times, Userids, Users
from tabi.policy.index import kind_of
from tabi.policy.masks import Table, bits
from tabi.policy.networks import PRIVATE, NetworkSet
from tabi.policy.rule import Rule
from tabi.policy.rules import RuleList
from tabi.policy.samples import Members, UserGroups, samples
from tabi.policy.spans import Spans

__all__ = ["Covered", "covers", "find_covered"]

_FEW = 4
"""Rules that are compared at once; of more the samples are to leave less."""

_STEPS = 150_000
"""Samples and comparisons in all, some seconds: most rules take one or two."""


@dataclass(frozen=True, slots=True)
class Covered:
    """What was found.

    Args:
        pairs: places, counted from 0: a rule that can never match, and the earlier one that takes its requests.
        compared: rules that were compared with all before them; fewer than there are where that took too long.
    """

    pairs: tuple[tuple[int, int], ...]
    compared: int


def find_covered(rules: RuleList, users: UserGroups) -> Covered:
    """Find the rules that can never match."""
    search = _Search(rules, Members(users))
    pairs: list[tuple[int, int]] = []
    for place in range(len(rules.rules)):
        if search.steps > _STEPS:
            return Covered(tuple(pairs), place)
        covering = search.covering(place)
        if covering is not None:
            pairs.append((place, covering))
    return Covered(tuple(pairs), len(rules.rules))


class _Search:
    """Finds what covers a rule. A rule that is covered itself need not be looked at: what covers it covers more."""

    def __init__(self, rules: RuleList, members: Members) -> None:
        self.steps = 0
        self._rules = rules.rules
        self._members = members
        self._index = rules.index
        self._having = Table(
            (kind_of(criterion), (place,)) for place, rule in enumerate(self._rules) for criterion in rule.criteria
        )
        self._kinds = {kind_of(criterion) for rule in self._rules for criterion in rule.criteria}
        self._before = 0  # those to be looked at

    def covering(self, place: int) -> int | None:
        """Find the first rule before `place` that covers it; to be called for each place in turn."""
        rule = self._rules[place]
        for one in bits(self._candidates(place, rule)):
            self.steps += 1 + (_size(rule) >> 4)
            if covers(self._rules[one], rule, self._members):
                return one
        self._before |= 1 << place
        return None

    def _candidates(self, place: int, rule: Rule) -> int:
        """Give the rules that ask for nothing that this one does not, and that match samples of it."""
        found = self._before
        for kind in self._kinds - {kind_of(criterion) for criterion in rule.criteria}:
            found &= ~self._having.get(kind)
        for request, context in samples(rule, self._members):
            if found.bit_count() <= _FEW:
                break
            self.steps += 1
            _, possible = self._index.match(request, context)
            if possible >> place & 1:
                found &= possible
        return found


def _size(rule: Rule) -> int:
    return sum(len(hosts.names) + len(hosts.networks) for hosts in rule.target.within) if rule.target is not None else 0


def covers(earlier: Rule, later: Rule, members: Members) -> bool:
    """Say whether the earlier rule is sure to take all that the later one could."""
    for wide in earlier.criteria:
        narrow = next((one for one in later.criteria if _same_kind(wide, one)), None)
        if narrow is None or not _is_within(narrow, wide, members):
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


def _is_within(narrow: Criterion, wide: Criterion, members: Members) -> bool:
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
            return members.of(narrow) <= members.of(wide) and (wide.nobody or not narrow.nobody)
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
