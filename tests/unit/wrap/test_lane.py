"""Who an answer to a datagram comes from."""

from ipaddress import ip_address

from tabi.addr import Address, Endpoint, Name
from tabi.wrap.lane import _MOST, Lane

ONE, TWO = Name("one.test"), Name("two.test")
STANDS_FOR_ONE, STANDS_FOR_TWO = ip_address("198.18.1.1"), ip_address("198.18.1.2")
REAL, OTHER = ip_address("203.0.113.1"), ip_address("203.0.113.2")


def sender(lane: Lane, host: Address | Name, port: int) -> Address | None:
    return lane.sender(Endpoint(host, port))


def test_answer_of_an_address_is_from_that_address() -> None:
    lane = Lane()
    assert lane.takes(REAL, REAL, 53)
    assert sender(lane, REAL, 53) == REAL


def test_answer_at_a_names_port_is_from_what_stands_for_it() -> None:
    lane = Lane()
    assert lane.takes(STANDS_FOR_ONE, ONE, 53)
    assert lane.takes(STANDS_FOR_TWO, TWO, 123)
    assert sender(lane, REAL, 53) == STANDS_FOR_ONE
    assert sender(lane, OTHER, 53) == STANDS_FOR_ONE, "a name may have many addresses"
    assert sender(lane, REAL, 123) == STANDS_FOR_TWO, "and two names the same"


def test_host_that_answered_for_a_name_does_so_at_other_ports() -> None:
    """As TFTP has it (RFC 1350 section 4)."""
    lane = Lane()
    lane.takes(STANDS_FOR_ONE, ONE, 69)
    assert sender(lane, REAL, 4000) == REAL, "nobody knows who that is"
    sender(lane, REAL, 69)
    assert sender(lane, REAL, 4000) == STANDS_FOR_ONE


def test_two_names_at_a_port_need_two_lanes() -> None:
    lane = Lane()
    assert lane.takes(STANDS_FOR_ONE, ONE, 443)
    assert not lane.takes(STANDS_FOR_TWO, TWO, 443)
    assert lane.takes(STANDS_FOR_ONE, ONE, 443)
    assert sender(lane, REAL, 443) == STANDS_FOR_ONE
    assert sender(lane, TWO, 443) is None, "a lane that did not take a name does not know it"


def test_address_that_was_sent_to_is_itself_beside_a_name() -> None:
    lane = Lane()
    lane.takes(STANDS_FOR_ONE, ONE, 443)
    assert lane.takes(REAL, REAL, 443)
    assert sender(lane, REAL, 443) == REAL
    assert sender(lane, OTHER, 443) == STANDS_FOR_ONE


def test_proxy_may_answer_in_the_name() -> None:
    lane = Lane()
    lane.takes(STANDS_FOR_ONE, ONE, 53)
    assert sender(lane, ONE, 53) == STANDS_FOR_ONE
    assert sender(lane, TWO, 53) is None


def test_stranger_is_shown_as_who_it_is() -> None:
    assert sender(Lane(), OTHER, 9) == OTHER


def test_tables_are_bounded_and_lose_the_oldest() -> None:
    lane = Lane()
    lane.takes(REAL, REAL, 1)
    lane.takes(REAL, REAL, 2)
    lane.takes(REAL, REAL, 1)
    lane.takes(STANDS_FOR_ONE, ONE, 2)
    for port in range(3, _MOST + 2):
        lane.takes(REAL, REAL, port)
    assert len(lane._addresses) == _MOST
    assert sender(lane, REAL, 1) == REAL
    assert sender(lane, REAL, 2) == STANDS_FOR_ONE, "that the address was sent to at port 2 is forgotten"
