"""Sets of networks against ipaddress, and what is private."""

import pickle
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabi.policy.networks import PRIVATE, Network, NetworkSet, PrivateNetworks, embedded_ipv4, embedded_network

NETWORKS4 = st.builds(
    lambda n, bits: IPv4Network((n, bits), strict=False), st.integers(0, (1 << 32) - 1), st.integers(0, 32)
)
# near each other, and away from the prefixes that carry IPv4 addresses
NETWORKS6 = st.builds(
    lambda n, bits: IPv6Network((0x2A00 << 112 | n, bits), strict=False), st.integers(0, 255), st.integers(100, 128)
)
SETS = st.lists(st.one_of(NETWORKS4, NETWORKS6), max_size=8)
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.integers(0, 300).map(lambda n: ip_address(0x2A00 << 112 | n)))


@given(SETS, ADDRESSES, st.data())
def test_address_is_in_the_set_if_it_is_in_a_network(
    networks: list[Network], address: object, data: st.DataObject
) -> None:
    if networks and data.draw(st.booleans()):
        chosen = data.draw(st.sampled_from(networks))
        address = data.draw(st.sampled_from([chosen[0], chosen[-1]]))
    expected = any(address in network for network in networks)
    assert (address in NetworkSet(networks)) == expected  # type: ignore[comparison-overlap]


@given(SETS)
def test_set_gives_back_what_was_put_in(networks: list[Network]) -> None:
    known = NetworkSet(networks)
    assert set(known) == set(networks)
    assert len(known) == len(set(networks))


@given(SETS, st.one_of(NETWORKS4, NETWORKS6))
def test_network_is_covered_if_one_network_holds_it(networks: list[Network], asked: Network) -> None:
    expected = any(asked.version == one.version and asked.subnet_of(one) for one in networks)  # type: ignore[arg-type]
    assert NetworkSet(networks).covers(asked) == expected


# adversarial forms of one's own and of private addresses: all that a client can write for them
PRIVATE_FORMS = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.255", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.1", "192.168.1.1", "198.18.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255", "192.88.99.1",
    "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::1", "64:ff9b:1::8.8.8.8",
    "100::1", "100:0:0:1::1", "2001::1", "2001:2::1", "2001:10::1", "2002:7f00:1::", "2002:a00:1::1",
    "2002:a9fe:a9fe::1",
    "2001:0:808:808:0:0:80ff:fffe",  # Teredo: the client is 127.0.0.1
    "5f00::1", "fc00::1", "fd00::1", "fe80::1", "febf::1", "fec0::1", "ff02::1", "ff0e::1",
]  # fmt: skip

REACHABLE = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "128.0.0.1", "172.32.0.1",
    "192.0.0.9", "192.0.0.10", "192.0.1.1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "223.255.255.255",
    "2001:1::1", "2001:1::2", "2001:3::1", "2001:4:112::1", "2001:20::1", "2001:200::1", "2001:4860:4860::8888",
    "2001:db8::1", "2002:808:808::1", "64:ff9b::8.8.8.8", "2620:4f:8000::1",
    "2001:0:7f00:1:0:0:f7f7:f7f7",  # Teredo: the client is 8.8.8.8, whatever the server is
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE_FORMS)
def test_private_forms_are_private(address: str) -> None:
    assert ip_address(address) in PRIVATE


@pytest.mark.parametrize("address", REACHABLE)
def test_reachable_addresses_are_not_private(address: str) -> None:
    assert ip_address(address) not in PRIVATE


@given(st.ip_addresses(v=4))
def test_carried_address_is_as_private_as_itself(inner: object) -> None:
    number = int(inner)  # type: ignore[call-overload]
    private = inner in PRIVATE  # type: ignore[comparison-overlap]
    for outer in (0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80):
        assert (ip_address(outer) in PRIVATE) == private, ip_address(outer)


def test_ipv4_address_carries_none() -> None:
    assert embedded_ipv4(ip_address("192.0.2.1")) is None


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_carried_network_has_all_carried_addresses(inner: object, bits: int) -> None:
    network = IPv4Network((int(inner), bits), strict=False)  # type: ignore[call-overload]
    for prefix, begin in ((0xFFFF << 32, 96), (0x64FF9B << 96, 96), (0x2002 << 112, 16)):
        shift = 128 - begin - 32
        outer = IPv6Network((prefix | int(network.network_address) << shift, begin + bits))
        assert embedded_network(outer) == network
        assert embedded_ipv4(outer[0]) == network[0]
        assert embedded_ipv4(outer[-1]) == network[-1]


def test_own_addresses_are_private_in_every_form() -> None:
    own = PrivateNetworks([ip_address("198.51.100.7"), ip_address("2001:db8::7")])
    for form in ("198.51.100.7", "::ffff:198.51.100.7", "64:ff9b::198.51.100.7", "2002:c633:6407::1", "2001:db8::7"):
        assert ip_address(form) in own, form
        assert ip_address(form) not in PRIVATE
    assert ip_address("198.51.100.8") not in own
    assert own.covers(ip_network("198.51.100.7/32"))
    assert not own.covers(ip_network("198.51.100.0/24"))


@pytest.mark.parametrize(
    ("network", "inside"),
    [
        ("10.0.0.0/8", True), ("10.1.0.0/16", True), ("0.0.0.0/0", False), ("8.0.0.0/5", False), ("fd12::/48", True),
        ("64:ff9b::a00:0/104", True), ("64:ff9b::/96", False), ("2002:a00::/24", True), ("2000::/3", False),
    ],
)  # fmt: skip
def test_network_is_private_if_all_of_it_is(network: str, inside: bool) -> None:
    assert PRIVATE.covers(ip_network(network)) == inside


def test_who_carries_an_address_is_not_who_has_it() -> None:
    inside = NetworkSet([ip_network("10.0.0.0/8")])
    own = PrivateNetworks([ip_address("198.51.100.7")])
    for form in ("2002:a00:1::1", "2001:0:1:1:0:0:f5ff:fffe", "64:ff9b::10.0.0.1", "::ffff:0:10.0.0.1"):
        assert ip_address(form) in inside, form
        assert not inside.holds(ip_address(form)), form
        assert not own.holds(ip_address(form)), form
    assert inside.holds(ip_address("10.0.0.1"))
    assert own.holds(ip_address("10.0.0.1"))
    assert own.holds(ip_address("198.51.100.7"))
    assert not own.holds(ip_address("2002:c633:6407::1"))
    assert not own.holds(ip_address("192.0.0.9"))


@given(st.ip_addresses())
def test_spans_are_what_a_set_holds(address: IPv4Address | IPv6Address) -> None:
    own = PrivateNetworks([ip_address("198.51.100.7")])
    assert (int(address) in own.spans(address.version)) == own.holds(address)


@given(st.ip_addresses())
def test_spans_of_private_agree_with_asking(address: object) -> None:
    if embedded_ipv4(address) is None:  # type: ignore[arg-type]
        assert (int(address) in PRIVATE.spans(address.version)) == (address in PRIVATE)  # type: ignore[call-overload, attr-defined, comparison-overlap]


def test_sets_survive_pickling() -> None:
    own = pickle.loads(pickle.dumps(PrivateNetworks([ip_address("198.51.100.7")])))
    assert ip_address("198.51.100.7") in own
    assert ip_address("10.0.0.1") in own
    assert ip_address("192.0.0.9") not in own
