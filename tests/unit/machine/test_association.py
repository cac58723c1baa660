"""A UDP relay's judgement over datagrams."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest

from tabi.addr import Address, Endpoint, Name
from tabi.machine.association import (
    MAX_MAPPINGS,
    MAX_ROUTES,
    MAX_WAITING,
    ROUTE_LIFETIME,
    Association,
    Drop,
    Dropped,
    Forward,
    Held,
    LookUp,
    Outcome,
)
from tabi.wire.udp import Datagram

CLIENT = IPv4Address("198.51.100.7")
STRANGER = IPv4Address("198.51.100.8")
TARGET = IPv4Address("192.0.2.1")
OTHER = IPv4Address("192.0.2.2")
PORT = 5000
A, B = Name("a.example"), Name("b.example")


def allow(_target: Endpoint, _address: Address | None) -> bool:
    return True


class Relay:
    """An association and its client, on a clock that stands."""

    def __init__(self, judge: Callable[[Endpoint, Address | None], bool] = allow, **options: object) -> None:
        self.association = Association(client=CLIENT, judge=judge, **options)
        self.now = 1000.0

    def send(
        self,
        host: object = TARGET,
        data: bytes = b"x",
        *,
        port: int = 53,
        frag: int = 0,
        source: Address = CLIENT,
        source_port: int = PORT,
    ) -> Outcome:
        wire = host.text.encode() if isinstance(host, Name) else host
        return self.send_raw(Datagram(wire, port, data, frag).encode(), source=source, source_port=source_port)

    def send_raw(self, data: bytes, *, source: Address = CLIENT, source_port: int = PORT) -> Outcome:
        return self.association.from_client(data, source, source_port, self.now)

    def found(self, name: Name, *addresses: Address) -> list[Forward]:
        return self.association.looked_up(name, addresses, self.now)

    def dropped(self) -> dict[Drop, int]:
        return dict(self.association.drops)


# the client


def test_datagram_goes_where_its_header_says() -> None:
    relay = Relay()
    assert relay.send(TARGET, b"query") == Forward(TARGET, 53, b"query")
    assert relay.send(IPv6Address("2001:db8::1"), b"") == Forward(IPv6Address("2001:db8::1"), 53, b"")
    assert relay.send(IPv6Address("::ffff:192.0.2.1"), b"m") == Forward(TARGET, 53, b"m")
    assert relay.send(b"192.0.2.1", b"text") == Forward(TARGET, 53, b"text")
    assert relay.dropped() == {}


def test_stranger_is_dropped_and_fixes_nothing() -> None:
    relay = Relay()
    assert relay.send(source=STRANGER) == Dropped(Drop.STRANGER)
    assert relay.association.client_port is None
    assert relay.association.header_for(TARGET, 53) is None
    assert relay.send(source_port=6000) == Forward(TARGET, 53, b"x")
    assert relay.dropped() == {Drop.STRANGER: 2}


def test_first_datagram_fixes_the_port_for_good() -> None:
    relay = Relay()
    assert relay.association.is_client(CLIENT, 1)
    relay.send()
    assert relay.send(source_port=PORT + 1) == Dropped(Drop.STRANGER)
    assert relay.association.is_client(CLIENT, PORT)
    assert not relay.association.is_client(CLIENT, PORT + 1)
    assert isinstance(relay.send(), Forward)


def test_declared_port_binds_from_the_start() -> None:
    relay = Relay(declared_port=PORT)
    assert relay.send(source_port=PORT + 1) == Dropped(Drop.STRANGER)
    assert isinstance(relay.send(), Forward)


def test_port_0_declares_nothing() -> None:
    relay = Relay(declared_port=0)
    assert isinstance(relay.send(), Forward)
    assert relay.association.client_port == PORT


BAD = [
    b"",
    b"\0\0\0",
    bytes.fromhex("00 00 00 01 c0 00 02 01 00"),  # cut
    bytes.fromhex("00 01 00 01 c0 00 02 01 00 35"),  # RSV
    bytes.fromhex("00 00 00 09 c0 00 02 01 00 35"),  # ATYP
    bytes.fromhex("00 00 00 03 ff 61 00 35"),  # a name that runs over the end
    bytes.fromhex("00 00 00 03 00 00 35"),  # an empty name
    b"\0\0\0\x03\x09127.0.0.\x00\x00\x35",  # NUL in a name
    b"\0\0\0\x03\x05127.1\x00\x35",  # a numeric form
    bytes.fromhex("00 00 00 01 c0 00 02 01 00 00"),  # port 0
    bytes.fromhex("00 00 00 01 00 00 00 00 00 35"),  # 0.0.0.0
    bytes.fromhex("00 00 00 04" + "00" * 10 + "ff ff 00 00 00 00 00 35"),  # the same, mapped
    bytes.fromhex("00 00 01 01 c0 00 02 01 00 00"),  # port 0 in a fragment
]


@pytest.mark.parametrize("data", BAD, ids=lambda data: data.hex())
def test_malformed_datagram_harms_only_itself(data: bytes) -> None:
    relay = Relay()
    assert relay.send_raw(data) == Dropped(Drop.MALFORMED)
    assert relay.association.client_port is None
    assert relay.send(TARGET, b"next") == Forward(TARGET, 53, b"next")
    assert relay.dropped() == {Drop.MALFORMED: 1}


# fragments


def test_fragments_are_held_until_they_are_whole() -> None:
    relay = Relay()
    assert relay.send(TARGET, b"one ", frag=1) == Held()
    assert relay.send(TARGET, b"two", frag=0x82) == Forward(TARGET, 53, b"one two")
    assert relay.dropped() == {}


def test_fragments_for_a_name_are_looked_up_when_whole() -> None:
    relay = Relay()
    assert relay.send(A, b"one ", frag=1) == Held()
    assert relay.send(A, b"two", frag=0x82) == LookUp(A)
    assert relay.found(A, TARGET) == [Forward(TARGET, 53, b"one two")]


def test_standalone_datagram_gives_up_the_fragments_and_passes() -> None:
    relay = Relay()
    relay.send(frag=1)
    relay.send(frag=2)
    assert relay.send(data=b"alone") == Forward(TARGET, 53, b"alone")
    assert relay.send(frag=0x83) == Dropped(Drop.FRAGMENT)
    assert relay.dropped() == {Drop.FRAGMENT: 3}


def test_fragment_that_begins_anew_is_held_and_the_old_ones_are_counted() -> None:
    relay = Relay()
    relay.send(frag=1)
    relay.now += 5
    assert relay.send(data=b"new", frag=1) == Held()
    assert relay.dropped() == {Drop.FRAGMENT: 1}
    assert relay.send(data=b"er", frag=0x82) == Forward(TARGET, 53, b"newer")


def test_fragment_fixes_the_port_like_any_datagram() -> None:
    relay = Relay()
    relay.send(frag=1)
    assert relay.send(source_port=PORT + 1) == Dropped(Drop.STRANGER)


# the way back


def test_answer_gets_a_header_with_its_source() -> None:
    relay = Relay()
    relay.send()
    assert relay.association.header_for(TARGET, 53) == bytes.fromhex("00 00 00 01 c0 00 02 01 00 35")


@pytest.mark.parametrize(("source", "port"), [(TARGET, 54), (OTHER, 53), (STRANGER, 1)])
def test_answer_from_an_address_and_port_that_nobody_asked_is_dropped(source: Address, port: int) -> None:
    relay = Relay()
    relay.send()
    assert relay.association.header_for(source, port) is None
    assert relay.dropped() == {Drop.STRANGER: 1}


def test_full_cone_lets_anybody_answer_once_the_client_is_known() -> None:
    relay = Relay(full_cone=True)
    assert relay.association.header_for(OTHER, 7) is None
    relay.send()
    assert relay.association.header_for(OTHER, 7) == bytes.fromhex("00 00 00 01 c0 00 02 02 00 07")


def test_refused_target_may_not_answer() -> None:
    relay = Relay(lambda _target, _address: False)
    assert relay.send() == Dropped(Drop.DENIED)
    assert relay.association.header_for(TARGET, 53) is None


def test_oldest_mapping_goes_first_and_use_keeps_one_young() -> None:
    relay = Relay()
    first, second = range(1, 3)
    for port in range(1, MAX_MAPPINGS + 1):
        relay.send(port=port)
    relay.send(port=first)
    relay.send(port=MAX_MAPPINGS + 1)
    assert relay.association.header_for(TARGET, second) is None
    assert relay.association.header_for(TARGET, first) is not None
    assert relay.association.header_for(TARGET, MAX_MAPPINGS + 1) is not None


def test_a_mapping_that_was_used_elsewhere_is_young_as_well() -> None:
    relay = Relay()
    used = [(TARGET, 2), (TARGET, 1), (OTHER, 9)]  # the last one is none of ours any more
    relay.association = Association(client=CLIENT, judge=allow, used=lambda: [used.pop(0) for _ in tuple(used)])
    for port in range(1, MAX_MAPPINGS + 4):
        relay.send(port=port)
    answers = {port: relay.association.header_for(TARGET, port) for port in (1, 2, 3, 4, 5, 6)}
    assert [port for port, header in answers.items() if header is None] == [3, 4, 5]
    assert relay.association.header_for(OTHER, 9) is None
    assert relay.association.forgotten == 3


# policy


def test_policy_is_asked_for_a_target_once_in_its_lifetime() -> None:
    asked = []

    def judge(target: Endpoint, address: Address | None) -> bool:
        asked.append((target, address))
        return True

    relay = Relay(judge)
    relay.send()
    relay.now += ROUTE_LIFETIME - 0.1
    relay.send()
    assert asked == [(Endpoint(TARGET, 53), None)]
    relay.now += 0.1
    relay.send()
    assert len(asked) == 2


def test_refused_name_is_never_looked_up() -> None:
    relay = Relay(lambda _target, address: address is not None)
    assert [relay.send(A), relay.send(A)] == [Dropped(Drop.DENIED)] * 2
    assert relay.dropped() == {Drop.DENIED: 2}


def test_first_address_that_policy_allows_is_taken() -> None:
    relay = Relay(lambda target, address: address != TARGET)
    relay.send(A)
    assert relay.found(A, TARGET, OTHER) == [Forward(OTHER, 53, b"x")]
    assert relay.send(A, b"again") == Forward(OTHER, 53, b"again")


def test_name_whose_addresses_are_all_refused_is_denied_and_remembered() -> None:
    relay = Relay(lambda target, address: address is None)
    relay.send(A)
    assert relay.found(A, TARGET, OTHER) == []
    assert relay.send(A) == Dropped(Drop.DENIED)
    assert relay.dropped() == {Drop.DENIED: 2}


def test_oldest_route_goes_first() -> None:
    asked = []

    def judge(target: Endpoint, _address: Address | None) -> bool:
        asked.append(target.port)
        return True

    relay = Relay(judge)
    for port in range(1, MAX_ROUTES + 2):
        relay.send(port=port)
    asked.clear()
    relay.send(port=2)
    relay.send(port=1)
    assert asked == [1]


def test_route_that_was_renewed_is_young_again() -> None:
    asked = []

    def judge(target: Endpoint, _address: Address | None) -> bool:
        asked.append(target.port)
        return True

    relay = Relay(judge)
    relay.send(port=1)
    relay.send(port=2)
    relay.now += ROUTE_LIFETIME
    for port in [1, *range(3, MAX_ROUTES + 2)]:
        relay.send(port=port)
    asked.clear()
    relay.send(port=1)
    assert asked == []


# names


def test_datagrams_wait_for_their_name_and_go_in_order() -> None:
    relay = Relay()
    assert relay.send(A, b"one") == LookUp(A)
    assert relay.send(A, b"two", port=54) == Held()
    assert relay.found(A, TARGET, OTHER) == [Forward(TARGET, 53, b"one"), Forward(TARGET, 54, b"two")]
    assert relay.association.header_for(TARGET, 54) is not None
    assert relay.association.header_for(OTHER, 53) is None


def test_others_do_not_wait_for_a_name() -> None:
    relay = Relay()
    relay.send(A)
    assert relay.send(TARGET, b"at once") == Forward(TARGET, 53, b"at once")
    assert relay.send(B) == LookUp(B)
    assert relay.found(B, OTHER) == [Forward(OTHER, 53, b"x")]
    assert relay.found(A, TARGET) == [Forward(TARGET, 53, b"x")]


def test_unknown_name_harms_only_itself_and_is_asked_again() -> None:
    relay = Relay()
    relay.send(A)
    assert relay.found(A) == []
    assert relay.dropped() == {Drop.UNKNOWN_NAME: 1}
    assert relay.send(A) == LookUp(A)


def test_name_is_looked_up_again_after_its_lifetime() -> None:
    relay = Relay()
    relay.send(A)
    relay.found(A, TARGET)
    relay.now += ROUTE_LIFETIME
    assert relay.send(A) == LookUp(A)


def test_answer_that_nobody_waits_for_changes_nothing() -> None:
    relay = Relay()
    assert relay.found(A, TARGET) == []
    assert relay.send(A) == LookUp(A)


def test_oldest_of_too_many_waiting_datagrams_goes_and_its_look_up_with_it() -> None:
    relay = Relay()
    relay.send(A, b"oldest")
    for number in range(MAX_WAITING - 1):
        relay.send(B, bytes((number,)))
    assert relay.send(B, b"new") == Held(instead=A)
    assert relay.dropped() == {Drop.WAITING: 1}
    assert relay.found(A, TARGET) == []
    assert len(relay.found(B, TARGET)) == MAX_WAITING


def test_look_up_goes_on_while_a_younger_datagram_waits_for_it() -> None:
    relay = Relay()
    relay.send(A, b"oldest")
    relay.send(B)
    relay.send(A, b"younger")
    for _ in range(MAX_WAITING - 3):
        relay.send(B)
    assert relay.send(B) == Held()
    assert relay.found(A, TARGET) == [Forward(TARGET, 53, b"younger")]


def test_new_name_takes_the_place_of_the_oldest() -> None:
    relay = Relay()
    names = [Name(f"n{number}.example") for number in range(MAX_WAITING)]
    assert [relay.send(name) for name in names] == [LookUp(name) for name in names]
    assert relay.send(A) == LookUp(A, instead=names[0])


def test_name_that_pushes_out_its_own_only_datagram_is_still_being_looked_up() -> None:
    relay = Relay()
    relay.send(A, b"oldest")
    for _ in range(MAX_WAITING - 1):
        relay.send(B)
    assert relay.send(A, b"new") == Held()
    assert relay.found(A, TARGET) == [Forward(TARGET, 53, b"new")]


def test_caller_counts_what_it_drops() -> None:
    relay = Relay()
    assert relay.association.drop(Drop.TOO_LARGE) == Dropped(Drop.TOO_LARGE)
    relay.association.drop(Drop.UNSENDABLE, 3)
    assert relay.dropped() == {Drop.TOO_LARGE: 1, Drop.UNSENDABLE: 3}


def test_new_rules_judge_every_target_anew_and_who_may_answer_stays() -> None:
    allowed = True
    association = Association(client=CLIENT, judge=lambda _target, _address: allowed)
    target = IPv4Address("192.0.2.1")
    datagram = Datagram(target, 53, b"?").encode()
    assert association.from_client(datagram, CLIENT, 5000, 0.0) == Forward(target, 53, b"?")
    allowed = False
    assert isinstance(association.from_client(datagram, CLIENT, 5000, 1.0), Forward)  # remembered
    association.forget_verdicts()
    assert association.from_client(datagram, CLIENT, 5000, 2.0) == Dropped(Drop.DENIED)
    assert association.header_for(target, 53) is not None
