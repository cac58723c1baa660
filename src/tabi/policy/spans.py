"""Sets of whole numbers as disjoint spans: ports, minutes of the week, addresses."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Self

__all__ = ["Spans"]


class Spans:
    """Numbers as half-open spans ``(begin, end)``, kept sorted and apart.

    Args:
        spans: in any order, may overlap; one whose end is not behind its begin is empty.
    """

    __slots__ = ("_begins", "_ends")

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []
        for begin, end in sorted(spans):
            if end <= begin:
                continue
            if self._ends and begin <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._begins.append(begin)
                self._ends.append(end)

    def __bool__(self) -> bool:
        return bool(self._begins)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._begins, self._ends, strict=True)

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._begins, number) - 1
        return place >= 0 and number < self._ends[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spans) and self._begins == other._begins and self._ends == other._ends

    def __hash__(self) -> int:
        return hash((tuple(self._begins), tuple(self._ends)))

    def __repr__(self) -> str:
        return f"Spans({list(self)})"

    def __or__(self, other: "Spans") -> Self:
        return type(self)((*self, *other))

    def __and__(self, other: "Spans") -> Self:
        return type(self)(_common(self, other))

    def __sub__(self, other: "Spans") -> Self:
        return type(self)(_common(self, other.gaps()))

    def __le__(self, other: "Spans") -> bool:
        """Say whether every number of ours is in `other`."""
        return not self - other

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Cut the numbers into the fewest blocks of powers of two, each a shift and a prefix: ``prefix << shift``."""
        for begin, end in self:
            while begin < end:
                shift = (end - begin).bit_length() - 1
                if begin:
                    shift = min(shift, (begin & -begin).bit_length() - 1)
                yield shift, begin >> shift
                begin += 1 << shift

    def gaps(self) -> "Spans":
        """Give what is not in the set, over all numbers that occur here (below 2**128)."""
        edges = [0, *(edge for span in self for edge in span), 1 << 128]
        return Spans(zip(edges[::2], edges[1::2], strict=True))


def _common(left: Spans, right: Spans) -> Iterator[tuple[int, int]]:
    """Walk both lists at once."""
    lefts, rights = iter(left), iter(right)
    one, two = next(lefts, None), next(rights, None)
    while one is not None and two is not None:
        yield max(one[0], two[0]), min(one[1], two[1])
        if one[1] < two[1]:
            one = next(lefts, None)
        else:
            two = next(rights, None)
