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


@given(LISTS)
def test_blocks_are_the_same_numbers_in_powers_of_two(spans: list[tuple[int, int]]) -> None:
    blocks = list(Spans(spans).blocks())
    covered = [number for shift, prefix in blocks for number in range(prefix << shift, prefix + 1 << shift)]
    assert covered == sorted(numbers(spans))


def test_range_is_cut_into_few_blocks() -> None:
    assert list(Spans([(8000, 9000)]).blocks()) == [(6, 125), (7, 63), (9, 16), (8, 34), (5, 280), (3, 1124)]
    assert list(Spans([(0, 1 << 128)]).blocks()) == [(128, 0)]


def test_spans_are_shown_as_they_are() -> None:
    assert repr(Spans([(3, 5), (4, 9)])) == "Spans([(3, 9)])"
