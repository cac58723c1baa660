"""The client's half of UDP associations; bytes typed from RFC 1928 section 7."""

import pytest

from tabi.addr import Endpoint
from tabi.errors import UsageError
from tabi.machine.datagrams import ClientDatagrams, Received
from tabi.machine.reassembly import LIFETIME

PLAIN = bytes.fromhex("00 00 00 01 c0 00 02 01 00 35")
NAMED = bytes.fromhex("00 00 00 03 03 61 2e 62 00 35")
IPV6 = bytes.fromhex("00 00 00 04 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 00 35")
SECOND = Endpoint.parse("198.51.100.7:4000")
TO_SECOND = bytes.fromhex("00 00 00 01 c6 33 64 07 0f a0")


def received(raw: bytes, further: tuple[Endpoint, ...] = (), now: float = 0.0) -> Received | None:
    return ClientDatagrams(further).unwrap(raw, now)


@pytest.mark.parametrize(
    ("target", "header"), [("192.0.2.1:53", PLAIN), ("a.b:53", NAMED), ("[2001:db8::1]:53", IPV6)]
)
@pytest.mark.parametrize("data", [b"", b"ping"])
def test_a_datagram_has_the_header_of_its_target(target: str, header: bytes, data: bytes) -> None:
    endpoint = Endpoint.parse(target)
    assert ClientDatagrams().wrap(data, endpoint) == header + data
    assert received(header + data) == Received(data, endpoint)


def test_through_a_chain_there_is_a_header_for_each_relay_the_nearest_outermost() -> None:
    third = Endpoint.parse("a.b:53")
    assert ClientDatagrams((SECOND, third)).wrap(b"ping", Endpoint.parse("192.0.2.1:53")) == (
        TO_SECOND + NAMED + PLAIN + b"ping"
    )


def test_what_comes_through_a_chain_is_peeled() -> None:
    assert received(TO_SECOND + PLAIN + b"pong", (SECOND,)) == Received(b"pong", Endpoint.parse("192.0.2.1:53"))


@pytest.mark.parametrize("stranger", ["c6 33 64 08 0f a0", "c6 33 64 07 0f a1", "7f 00 00 01 0f a0"])
def test_what_does_not_come_from_the_further_relay_is_dropped(stranger: str) -> None:
    assert received(b"\0\0\0\x01" + bytes.fromhex(stranger) + PLAIN + b"pong", (SECOND,)) is None


def test_of_a_relay_that_is_known_by_name_the_port_is_compared() -> None:
    further = (Endpoint.parse("relay.example:4000"),)
    assert received(TO_SECOND + PLAIN + b"pong", further) is not None
    assert received(TO_SECOND[:-1] + b"\xa1" + PLAIN + b"pong", further) is None


@pytest.mark.parametrize(
    "raw",
    [b"", b"\0", b"\0\0\0", PLAIN[:-1], b"\0\x01" + PLAIN[2:], b"\0\0\0\x02" + PLAIN[4:], NAMED[:6],
     b"\0\0\0\x03\x03a\0b\0\x35data"],
)  # fmt: skip
def test_what_is_no_datagram_is_dropped(raw: bytes) -> None:
    assert received(raw) is None


def test_a_mapped_source_is_ipv4() -> None:
    mapped = bytes.fromhex("00 00 00 04 00 00 00 00 00 00 00 00 00 00 ff ff c0 00 02 01 00 35")
    assert received(mapped + b"x") == Received(b"x", Endpoint.parse("192.0.2.1:53"))


def fragment(number: int) -> bytes:
    return b"\0\0" + bytes((number,)) + PLAIN[3:]


def test_fragments_are_put_together() -> None:
    datagrams = ClientDatagrams()
    assert datagrams.unwrap(fragment(1) + b"pi", 0.0) is None
    assert datagrams.unwrap(fragment(0x82) + b"ng", 1.0) == Received(b"ping", Endpoint.parse("192.0.2.1:53"))


def test_fragments_are_forgotten_after_their_time_or_at_a_whole_datagram() -> None:
    datagrams = ClientDatagrams()
    assert datagrams.unwrap(fragment(1) + b"pi", 0.0) is None
    assert datagrams.unwrap(fragment(0x82) + b"ng", LIFETIME) is None
    assert datagrams.unwrap(fragment(1) + b"pi", 10.0) is None
    assert datagrams.unwrap(PLAIN + b"whole", 10.0) is not None
    assert datagrams.unwrap(fragment(0x82) + b"ng", 10.0) is None


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError):
        ClientDatagrams().wrap(b"", Endpoint(SECOND.host, 65536))
