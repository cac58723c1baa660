"""Names and the addresses that stand for them."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabi.addr import Name
from tabi.wrap.names import MOST_NAMES, Names, is_reserved

ONE, TWO = Name("one.test"), Name("two.test")


def named(number: int) -> Name:
    return Name(f"n{number}.test")


def test_name_keeps_its_addresses() -> None:
    names = Names()
    v4, v6 = names.address_of(ONE, 4), names.address_of(ONE, 6)
    other = names.address_of(TWO, 4)
    assert (str(v4), str(v6), str(other)) == ("198.18.1.1", "fd00:5ec:0:1::1", "198.18.1.2")
    assert (names.address_of(ONE, 4), names.address_of(ONE, 6)) == (v4, v6)
    assert [names.name_of(address) for address in (v4, v6, other)] == [ONE, ONE, TWO]
    assert len(names) == 2


def test_what_a_proxy_is_asked_for() -> None:
    names = Names()
    given, foreign = names.address_of(ONE, 6), ip_address("203.0.113.7")
    assert names.host_of(given) == ONE
    assert names.host_of(foreign) == foreign
    assert names.name_of(foreign) is None
    for unheard in ("198.18.0.1", "198.19.255.255", "fd00:5ec::1", "fd00:5ec:0:1::ffff"):
        assert names.host_of(ip_address(unheard)) is None


@pytest.mark.parametrize(
    ("address", "reserved"),
    [
        ("198.17.255.255", False),
        ("198.18.0.0", True),
        ("198.19.255.255", True),
        ("198.20.0.0", False),
        ("fd00:5eb:ffff:ffff:ffff:ffff:ffff:ffff", False),
        ("fd00:5ec::", True),
        ("fd00:5ec:0:1:ffff:ffff:ffff:ffff", True),
        ("fd00:5ec:0:2::", False),
    ],
)
def test_reserved_ranges(address: str, reserved: bool) -> None:
    assert is_reserved(ip_address(address)) is reserved


def test_longest_unused_gives_way_and_its_addresses_are_nobodys() -> None:
    names = Names(most=3)
    first, second, third = ((names.address_of(named(number), 4), named(number)) for number in range(3))
    names.address_of(first[1], 6)  # asked again
    names.name_of(second[0])  # sent to
    names.address_of(ONE, 4)
    assert [names.name_of(address) for address, _ in (first, second, third)] == [first[1], second[1], None]
    assert names.host_of(third[0]) is None
    assert len(names) == 3
    assert names.address_of(third[1], 4) != third[0], "what it had before may be remembered for another"


def test_no_more_than_the_ranges_have_room_for() -> None:
    assert Names(most=10**9)._most == MOST_NAMES


def test_second_round_passes_over_who_is_still_there() -> None:
    """A range of IPv4 ends; who is used all the time keeps its address, and others come after it."""
    names = Names(most=2)
    kept = names.address_of(ONE, 4)
    seen = {kept}
    places = 511 * 254
    names._given = places - 1  # as if so many names had been given
    last = names.address_of(named(1), 4)
    names.name_of(kept)
    following = names.address_of(named(2), 4)
    assert (str(last), str(following)) == ("198.19.255.254", "198.18.1.2")
    assert seen == {kept}
    assert names.name_of(kept) == ONE


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from([4, 6])), max_size=200), st.integers(1, 20))
def test_an_address_never_stands_for_two(asked: list[tuple[int, int]], most: int) -> None:
    names = Names(most=most)
    last: dict[Name, object] = {}
    for number, family in asked:
        address = names.address_of(named(number), family)  # type: ignore[arg-type]  # hypothesis knows int only
        assert address.version == family
        assert address in ip_network("198.18.0.0/15" if family == 4 else "fd00:5ec:0:1::/64")
        assert str(address).rpartition(".")[2] not in ("0", "255")
        assert names.name_of(address) == named(number)
        last[named(number)] = address
        assert len(names) <= most
    for name, address in last.items():
        assert names.name_of(address) in (name, None)  # type: ignore[arg-type]  # as above
