"""Fragments of UDP datagrams (RFC 1928 section 7)."""

from ipaddress import IPv4Address

import pytest

from tabi.machine.reassembly import LIFETIME, Joined, Reassembly
from tabi.wire.udp import MAX_PAYLOAD_IPV4, Datagram

HERE = (IPv4Address("192.0.2.1"), 53)
THERE = (b"a.b", 53)
LAST = 0x80


def fragment(frag: int, data: bytes = b"x", target: tuple[object, int] = HERE) -> Datagram:
    return Datagram(*target, data, frag)


def feed(queue: Reassembly, *fragments: Datagram | int, now: float = 0.0) -> list[Joined]:
    return [queue.add(part if isinstance(part, Datagram) else fragment(part), now) for part in fragments]


def test_fragments_in_order_become_one_datagram() -> None:
    parts = [fragment(1, b"one "), fragment(2, b"two "), fragment(3 | LAST, b"three")]
    *held, last = feed(Reassembly(), *parts)
    assert held == [Joined(None, 0)] * 2
    assert last == Joined(Datagram(*HERE, b"one two three"), 0)


def test_sequence_of_one_is_a_datagram() -> None:
    assert feed(Reassembly(), 1 | LAST) == [Joined(Datagram(*HERE, b"x"), 0)]


def test_queue_serves_one_sequence_after_the_other() -> None:
    queue = Reassembly()
    for _ in range(2):
        assert feed(queue, 1, 2 | LAST)[-1] == Joined(Datagram(*HERE, b"xx"), 0)
        assert len(queue) == 0


def test_127_fragments_are_joined() -> None:
    *_, last = feed(Reassembly(), *range(1, 127), 127 | LAST)
    assert last == Joined(Datagram(*HERE, b"x" * 127), 0)


def test_queue_holds_at_most_127_fragments_however_many_come() -> None:
    queue = Reassembly()
    feed(queue, *range(1, 128))
    assert len(queue) == 127
    assert feed(queue, *[127] * 10) == [Joined(None, 0)] * 10
    assert len(queue) == 127


def test_65507_bytes_are_joined_and_one_more_is_given_up() -> None:
    half = MAX_PAYLOAD_IPV4 // 2
    rest = MAX_PAYLOAD_IPV4 - half
    _, last = feed(Reassembly(), fragment(1, b"x" * half), fragment(2 | LAST, b"y" * rest))
    assert last.datagram == Datagram(*HERE, b"x" * half + b"y" * rest)
    queue = Reassembly()
    assert feed(queue, fragment(1, b"x" * half), fragment(2, b"y" * (rest + 1)))[-1] == Joined(None, 2)
    assert len(queue) == 0


@pytest.mark.parametrize(
    ("came", "lost"),
    [
        ((2,), 1),  # nothing has begun
        ((LAST,), 1),  # no position
        ((1, 3), 2),  # a gap
        ((1, 2, LAST), 3),  # no position, lower than the highest
        ((1, 2, 3, 2), 4),  # lower than the highest
        ((1, 2, 3, 2 | LAST), 4),
    ],
)
def test_sequence_with_a_hole_is_given_up_with_all_its_fragments(came: tuple[int, ...], lost: int) -> None:
    queue = Reassembly()
    assert sum(joined.lost for joined in feed(queue, *came)) == lost
    assert len(queue) == 0


def test_first_position_begins_anew() -> None:
    queue = Reassembly()
    first, second, again, last = feed(queue, 1, 2, fragment(1, b"new"), 2 | LAST)
    assert (first.lost, second.lost, again.lost) == (0, 0, 2)
    assert last == Joined(Datagram(*HERE, b"newx"), 0)


def test_fragment_that_the_network_doubled_harms_nothing() -> None:
    *_, doubled, last = feed(Reassembly(), 1, 2, fragment(2, b"doubled"), 3 | LAST)
    assert doubled == Joined(None, 0)
    assert last == Joined(Datagram(*HERE, b"xxx"), 0)


@pytest.mark.parametrize("other", [THERE, (HERE[0], 54)])
def test_fragment_for_another_target_gives_the_sequence_up(other: tuple[object, int]) -> None:
    queue = Reassembly()
    assert feed(queue, 1, fragment(2 | LAST, target=other))[-1] == Joined(None, 2)
    assert feed(queue, 1, 2, fragment(2 | LAST, target=other))[-1] == Joined(None, 3)


def test_first_fragment_for_another_target_begins_anew() -> None:
    queue = Reassembly()
    feed(queue, 1)
    joined = feed(queue, fragment(1, target=THERE), fragment(2 | LAST, target=THERE))
    assert joined == [Joined(None, 1), Joined(Datagram(*THERE, b"xx"), 0)]


def test_queue_lives_for_five_seconds_from_its_first_fragment() -> None:
    queue = Reassembly()
    feed(queue, 1, now=100.0)
    feed(queue, 2, now=104.0)
    assert feed(queue, 3 | LAST, now=100.0 + LIFETIME - 0.001)[0].datagram is not None
    feed(queue, 1, now=200.0)
    assert feed(queue, 2 | LAST, now=200.0 + LIFETIME) == [Joined(None, 2)]
    assert LIFETIME >= 5  # RFC 1928 section 7: no less


def test_first_fragment_after_the_time_begins_anew() -> None:
    queue = Reassembly()
    feed(queue, 1, 2, now=0.0)
    assert feed(queue, 1, now=LIFETIME) == [Joined(None, 2)]
    assert feed(queue, 2 | LAST, now=2 * LIFETIME - 0.1)[0].datagram == Datagram(*HERE, b"xx")


def test_giving_up_tells_how_many_were_held() -> None:
    queue = Reassembly()
    feed(queue, 1, 2)
    assert (queue.abandon(), queue.abandon(), len(queue)) == (2, 0, 0)
