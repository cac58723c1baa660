"""Fragments and sizes at the running server's UDP relay: whole or not at all."""

import socket

import pytest

from helpers.clocks import HeldClock
from helpers.serving import Running, serving
from helpers.udp import LARGEST4, LARGEST6, Association, address_of, datagrams, drops, listener_for

pytestmark = pytest.mark.usefixtures("nothing_left")

V4 = "127.0.0.1"
V6 = "::1"


# B5, fragments


def fragment(client: Association, there: socket.socket, position: int, data: bytes, *, last: bool = False) -> None:
    """Send one; RFC 1928 section 7 has the high bit of FRAG mark the last."""
    client.send(*address_of(there), data, frag=position | 0x80 if last else position)


def test_fragments_in_order_are_joined(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client:
        for position, data in enumerate((b"one ", b"", b"two "), 1):
            fragment(client, there, position, data)
        fragment(client, there, 4, b"three", last=True)
        assert there.recv(99) == b"one two three"
        client.talk(there)
    assert drops(running) == "nothing"


def test_a_single_last_fragment_is_whole(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client:
        fragment(client, there, 1, b"whole", last=True)
        assert there.recv(99) == b"whole"


def test_a_gap_gives_the_sequence_up(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client:
        fragment(client, there, 1, b"one")
        fragment(client, there, 3, b"three", last=True)
        client.talk(there)
    assert drops(running) == "dropped: fragment 2"


def test_a_lower_fragment_restarts_the_sequence(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client:
        for position in (1, 2, 3):
            fragment(client, there, position, b"old")
        fragment(client, there, 1, b"new ")
        fragment(client, there, 2, b"one", last=True)
        assert there.recv(99) == b"new one"
    assert drops(running) == "dropped: fragment 3"


@pytest.mark.parametrize("frags", [(0x81, 2, 0x83), (2, 1, 0x83), (0x82,), (0x80,), (0x7F,) * 50, (0xFF,) * 50])
def test_fragments_out_of_order_harm_only_themselves(
    running: Running, there: socket.socket, frags: tuple[int, ...]
) -> None:
    with Association(running.address) as client:
        for frag in frags:
            client.send(*address_of(there), b"x", frag=frag)
        if frags[0] == 0x81:
            assert there.recv(99) == b"x"
        client.talk(there)
    assert drops(running).startswith("dropped: fragment")


def test_a_whole_datagram_gives_up_the_fragments_before_it(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client:
        fragment(client, there, 1, b"one")
        client.talk(there)
        fragment(client, there, 2, b"two", last=True)
        client.talk(there)
    assert drops(running) == "dropped: fragment 2"


def test_fragments_for_different_targets_are_not_joined(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client, datagrams() as elsewhere:
        fragment(client, there, 1, b"one")
        fragment(client, elsewhere, 2, b"two", last=True)
        client.talk(elsewhere)
        client.talk(there)


def test_127_fragments_are_joined_and_no_more_fit(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client:
        for position in range(1, 127):
            fragment(client, there, position, bytes((position,)))
        fragment(client, there, 127, b"\x7f", last=True)
        assert there.recv(999) == bytes(range(1, 128))
        for position in range(1, 128):
            fragment(client, there, position, b"x")
        client.send(*address_of(there), b"x", frag=0x80)  # there is no 128: FRAG has seven bits for it
        client.talk(there)
    assert drops(running) == "dropped: fragment 128"


def test_fragments_are_joined_up_to_what_one_datagram_carries(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client:
        fragment(client, there, 1, b"a" * 40_000)
        fragment(client, there, 2, b"b" * 25_507, last=True)
        assert there.recv(1 << 16) == b"a" * 40_000 + b"b" * 25_507
        fragment(client, there, 1, b"a" * 40_000)
        fragment(client, there, 2, b"b" * 25_508, last=True)
        client.talk(there)
    assert drops(running) == "dropped: fragment 2"


def test_fragments_of_a_name_are_joined(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client:
        client.send(b"localhost", address_of(there)[1], b"one ", frag=1)
        client.send(b"localhost", address_of(there)[1], b"two", frag=0x82)
        assert there.recv(99) == b"one two"


def test_fragments_are_kept_for_five_seconds(monkeypatch: pytest.MonkeyPatch, there: socket.socket) -> None:
    clock = HeldClock(monkeypatch)
    with serving() as server:
        with Association(server.address) as client:
            client.talk(there)
            fragment(client, there, 1, b"in ")
            with datagrams() as other, Association(server.address) as probe:
                probe.talk(other)  # the fragment has been taken before the time passes
                clock.advance(server, 4.9)  # RFC 1928 section 7: no less than 5 seconds
            fragment(client, there, 2, b"time", last=True)
            assert there.recv(99) == b"in time"
            fragment(client, there, 1, b"too ")
            with datagrams() as other, Association(server.address) as probe:
                probe.talk(other)
                clock.advance(server, 5.1)
            fragment(client, there, 2, b"late", last=True)
            client.talk(there)
        server.line(note="dropped: fragment 2")


# B6, B7: sizes


def test_an_empty_datagram_is_relayed_both_ways(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client:
        client.talk(there, b"", b"")
    line = running.only_line()
    assert (line["up"], line["down"]) == (0, 0)


SIZES = {  # client, target: the most data that fits both ways with the header of RFC 1928 section 7
    "IPv4 to IPv4": (V4, V4, LARGEST4 - 10, LARGEST4 - 10),
    "IPv4 to IPv6": (V4, V6, LARGEST4 - 22, LARGEST4 - 22),
    "IPv6 to IPv4": (V6, V4, LARGEST4, LARGEST4),
    "IPv6 to IPv6": (V6, V6, LARGEST6 - 22, LARGEST6 - 22),
}


@pytest.mark.parametrize(("client_host", "target_host", "up", "down"), SIZES.values(), ids=SIZES)
def test_the_largest_datagram_is_relayed_whole_both_ways(
    running: Running, client_host: str, target_host: str, up: int, down: int
) -> None:
    with datagrams(target_host) as there, Association(listener_for(running, client_host), client_host) as client:
        client.talk(there, b"u" * up, b"d" * down)
    line = running.only_line()
    assert (line["up"], line["down"]) == (up, down)
    assert "note" not in line


@pytest.mark.parametrize(("client_host", "target_host", "down"), [(V4, V4, 65_497), (V4, V6, 65_485), (V6, V6, 65_505)])
def test_an_answer_that_does_not_fit_is_dropped_whole_and_counted(
    running: Running, client_host: str, target_host: str, down: int
) -> None:
    largest = LARGEST6 if ":" in target_host else LARGEST4
    with datagrams(target_host) as there, Association(listener_for(running, client_host), client_host) as client:
        egress = client.talk(there)
        for size in (down + 1, largest - 1, largest):
            there.sendto(b"d" * size, egress)
        client.talk(there)
    assert running.only_line()["down"] == 8
    assert drops(running) == "dropped: too-large 3"


def test_a_request_that_does_not_fit_is_dropped_whole_and_counted(running: Running, there: socket.socket) -> None:
    with Association(listener_for(running, V6), V6) as client:
        client.send(*address_of(there), b"u" * (LARGEST4 + 1))
        client.send(*address_of(there), b"u" * (LARGEST6 - 10))
        client.talk(there)
    assert running.only_line()["up"] == 4
    assert drops(running) == "dropped: too-large 2"
