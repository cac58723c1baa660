"""Sets of numbers as spans."""

from hypothesis import given
from hypothesis import strategies as st

from tabi.policy.spans import Spans

LISTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=6)


def numbers(spans: list[tuple[int, int]]) -> set[int]:
    return {number for begin, end in spans for number in range(begin, end)}


@given(LISTS, LISTS)
def test_spans_are_sets_of_numbers(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> None:
    one, two, a, b = Spans(left), Spans(right), numbers(left), numbers(right)
    assert numbers(list(one | two)) == a | b
    assert numbers(list(one & two)) == a & b
    assert numbers(list(one - two)) == a - b
    assert (one <= two) == (a <= b)
    assert (one == two) == (a == b)
    assert bool(one) == bool(a)
    assert {number for number in range(41) if number in one} == a


@given(LISTS)
def test_spans_are_sorted_and_apart(spans: list[tuple[int, int]]) -> None:
    edges = [edge for span in Spans(spans) for edge in span]
    assert edges == sorted(set(edges))


def test_equal_spans_have_equal_hashes() -> None:
    assert hash(Spans([(1, 2), (2, 3)])) == hash(Spans([(1, 3)]))
