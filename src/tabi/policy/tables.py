"""Rules filed by the names, userids, networks and numbers that they hold: one question for all rules at once.

A large set, or one that many rules share, is not taken apart but asked as a whole, once for all its rules.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from tabi.addr import Address
from tabi.policy.masks import Table, mask
from tabi.policy.names import Globs, NameSet, keys_of, plain_key
from tabi.policy.networks import NetworkSet, embedded_ipv4
from tabi.policy.spans import Spans

__all__ = ["ClaimTable", "NameTable", "NetworkTable", "NumberTable"]

S = TypeVar("S", NameSet, NetworkSet)

_MOST_FILED = 4096
"""Entries of a set, times its rules, up to which each entry is filed: beyond that memory would suffer."""


class _Sharers(Generic[S]):
    """Sets, each with the rules that hold it."""

    def __init__(self, sets: Iterable[tuple[int, S]]) -> None:
        found: dict[int, tuple[S, list[int]]] = {}
        for place, one in sets:
            found.setdefault(id(one), (one, []))[1].append(place)
        self._found: list[tuple[S, list[int]]] = list(found.values())

    def small(self) -> Iterator[tuple[S, Sequence[int]]]:
        """Give the sets whose entries are to be filed."""
        return ((one, places) for one, places in self._found if self._is_small(one, places))

    def large(self) -> list[tuple[S, int]]:
        """Give the sets that are to be asked, with their rules."""
        return [(one, mask(places)) for one, places in self._found if not self._is_small(one, places)]

    @staticmethod
    def _is_small(one: S, places: Sequence[int]) -> bool:
        # what a subclass holds is more than its entries tell
        return type(one) in (NameSet, NetworkSet) and len(one) * len(places) <= _MOST_FILED


class NameTable:
    """Rules filed by patterns of names.

    Args:
        sets: places of rules, and what they hold.
    """

    __slots__ = ("_globs", "_large", "_matching", "_plain")

    def __init__(self, sets: Iterable[tuple[int, NameSet]]) -> None:
        sharers = _Sharers(sets)
        self._large = sharers.large()
        plain: list[tuple[str, Sequence[int]]] = []
        matching: list[tuple[str, Sequence[int]]] = []
        globs: dict[str, re.Pattern[str]] = {}
        for names, places in sharers.small():
            globs |= names.globs.patterns
            for pattern in names:
                key = plain_key(pattern)
                if key is None:
                    matching.append((pattern, places))
                else:
                    plain.append((key, places))
        self._plain = Table(plain)
        self._matching = Table(matching)
        self._globs = Globs(globs)

    def rules_of(self, name: str) -> int:
        """Give the rules one of whose patterns means a name."""
        rules = 0
        for key in keys_of(name):
            rules |= self._plain.get(key)
        for pattern in self._globs.matching(name):
            rules |= self._matching.get(pattern)
        for names, sharing in self._large:
            if names.has(name):
                rules |= sharing
        return rules


class ClaimTable:
    """Rules filed by patterns of userids.

    Args:
        filed: places of rules, and what they hold.
    """

    __slots__ = ("_exact", "_matching", "_patterns")

    def __init__(self, filed: Iterable[tuple[int, re.Pattern[bytes]]]) -> None:
        exact: list[tuple[bytes, Sequence[int]]] = []
        matching: list[tuple[re.Pattern[bytes], Sequence[int]]] = []
        for place, pattern in filed:
            literal = _literal(pattern)
            if literal is None:
                matching.append((pattern, (place,)))
            else:
                exact.append((literal, (place,)))
        self._exact = Table(exact)
        self._patterns = {pattern for pattern, _ in matching}
        self._matching = Table(matching)

    def rules_of(self, userid: bytes) -> int:
        """Give the rules one of whose patterns means a userid."""
        rules = self._exact.get(userid)
        for pattern in self._patterns:
            if pattern.fullmatch(userid):
                rules |= self._matching.get(pattern)
        return rules


class _PrefixTable:
    """Rules filed by blocks of numbers: all those that are the same but for their last `shift` bits.

    Args:
        filed: shift and prefix of a block, and the places of its rules.
    """

    __slots__ = ("_tables",)

    def __init__(self, filed: Iterable[tuple[int, int, Sequence[int]]]) -> None:
        by_shift: dict[int, list[tuple[int, Sequence[int]]]] = {}
        for shift, prefix, places in filed:
            by_shift.setdefault(shift, []).append((prefix, places))
        self._tables = {shift: Table(prefixes) for shift, prefixes in by_shift.items()}

    def rules_of(self, number: int) -> int:
        """Give the rules one of whose blocks holds a number."""
        rules = 0
        for shift, table in self._tables.items():
            rules |= table.get(number >> shift)
        return rules


class NumberTable(_PrefixTable):
    """Rules filed by the numbers that they hold, below 2**128.

    Args:
        sets: places of rules, and what they hold.
    """

    __slots__ = ()

    def __init__(self, sets: Iterable[tuple[int, Spans]]) -> None:
        sharing: dict[Spans, list[int]] = {}
        for place, spans in sets:
            sharing.setdefault(spans, []).append(place)
        super().__init__(
            (shift, prefix, places) for spans, places in sharing.items() for shift, prefix in spans.blocks()
        )


class NetworkTable:
    """Rules filed by networks.

    Args:
        sets: places of rules, and what they hold.
        carried: whether the IPv4 address that an IPv6 address carries counts as well, as in a `NetworkSet`.
    """

    __slots__ = ("_carried", "_large", "_prefixes")

    def __init__(self, sets: Iterable[tuple[int, NetworkSet]], *, carried: bool = True) -> None:
        self._carried = carried
        sharers = _Sharers(sets)
        self._large = sharers.large()
        small = list(sharers.small())
        self._prefixes = {
            version: _PrefixTable(
                (shift, prefix, places) for networks, places in small for shift, prefix in networks.prefixes(version)
            )
            for version in (4, 6)
        }

    def rules_of(self, address: Address) -> int:
        """Give the rules one of whose networks holds an address."""
        rules = self._prefixes[address.version].rules_of(int(address))
        if self._carried and address.version == 6 and (inner := embedded_ipv4(address)) is not None:
            rules |= self._prefixes[4].rules_of(int(inner))
        for networks, sharing in self._large:
            if address in networks if self._carried else networks.holds(address):
                rules |= sharing
        return rules


def _literal(pattern: re.Pattern[bytes]) -> bytes | None:
    """Give the only text that a pattern means; None where there may be others."""
    text = re.sub(rb"\\(.)", rb"\1", pattern.pattern, flags=re.DOTALL)
    return text if re.escape(text) == pattern.pattern and not pattern.flags & re.IGNORECASE else None
