"""Sets of rules as whole numbers."""

from hypothesis import given
from hypothesis import strategies as st

from tabi.policy.masks import Table, bits, lowest, mask

PLACES = st.lists(st.integers(0, 200), max_size=30)


@given(PLACES)
def test_mask_has_the_bits_of_the_places(places: list[int]) -> None:
    assert mask(places) == sum(1 << place for place in set(places))
    assert list(bits(mask(places))) == sorted(set(places))
    assert not places or lowest(mask(places)) == min(places)


@given(st.lists(st.tuples(st.sampled_from("ab"), PLACES)))
def test_table_joins_what_is_filed_under_a_key(filed: list[tuple[str, list[int]]]) -> None:
    table = Table(filed)
    for key in "abc":
        assert table.get(key) == mask(place for one, places in filed if one == key for place in places)
