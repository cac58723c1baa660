"""Caps count what is there, and forget what has gone."""

from ipaddress import ip_address

from tabi.config.settings import Caps
from tabi.server.admission import Admission, client_key, show_client


def test_each_cap_refuses_by_its_name_and_counts_nothing_then() -> None:
    admission = Admission(Caps(connections=3, per_client=2, handshakes_per_client=1))
    assert admission.admit(b"a") is None
    assert admission.admit(b"a") == "handshakes_per_client"
    admission.handshake_over(b"a")
    assert admission.admit(b"a") is None
    admission.handshake_over(b"a")
    assert admission.admit(b"a") == "per_client"
    assert admission.admit(b"b") is None
    assert admission.admit(b"c") == "connections"
    assert len(admission) == 3


def test_what_is_released_makes_room_and_leaves_no_entry() -> None:
    admission = Admission(Caps(connections=1))
    for _ in range(3):
        assert admission.admit(b"a") is None
        admission.handshake_over(b"a")
        admission.release(b"a")
    assert len(admission) == 0
    assert admission.clients() == 0


def test_there_is_room_up_to_half_of_a_cap_that_is_large() -> None:
    assert not Admission(Caps(per_client=1023)).is_roomy
    admission = Admission(Caps(connections=4000, per_client=1024))
    for _ in range(511):
        admission.admit(b"a")
        admission.handshake_over(b"a")
    assert admission.is_roomy
    admission.admit(b"b")
    assert not admission.is_roomy


def test_an_ipv6_client_is_its_64_and_an_ipv4_client_its_address() -> None:
    assert client_key(ip_address("2001:db8:1:2::1")) == client_key(ip_address("2001:db8:1:2:ffff::9"))
    assert client_key(ip_address("2001:db8:1:3::1")) != client_key(ip_address("2001:db8:1:2::1"))
    assert client_key(ip_address("192.0.2.1")) != client_key(ip_address("192.0.2.2"))


def test_a_client_is_shown_as_the_network_that_it_stands_for() -> None:
    assert show_client(client_key(ip_address("192.0.2.1"))) == "192.0.2.1"
    assert show_client(client_key(ip_address("2001:db8:1:2::1"))) == "2001:db8:1:2::/64"
