"""Packets of the gate: any SYN is read as it was made and sent on as it was, and no bytes at all make trouble."""

from hypothesis import given
from hypothesis import strategies as st

from tabi.wrap.packets import Syn, checksum, reinjected, reset

PORTS = st.integers(0, 0xFFFF)
WORDS = st.integers(0, 0xFFFF_FFFF)
OPTIONS = st.integers(0, 10).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words))
EXTENSIONS = st.lists(st.tuples(st.sampled_from([0, 60]), st.integers(0, 2)), max_size=3)


def tcp(source: int, target: int, sequence: int, flags: int, options: bytes, data: bytes) -> bytes:
    ports = source.to_bytes(2, "big") + target.to_bytes(2, "big") + sequence.to_bytes(4, "big")
    size = 20 + len(options)
    return ports + bytes(4) + bytes((size * 4, flags)) + b"\xff\xff\xab\xcd\0\0" + options + data


SEGMENTS = st.builds(
    tcp, PORTS, PORTS, WORDS, st.sampled_from([0x02, 0x42, 0xC2]), OPTIONS, st.binary(max_size=200)
)


@st.composite
def packets(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Make a packet, and the segment in it."""
    segment = draw(SEGMENTS)
    if draw(st.booleans()):
        options, addresses = draw(OPTIONS), draw(st.binary(min_size=8, max_size=8))
        size = 20 + len(options)
        head = bytes((0x40 | size // 4, 0)) + (size + len(segment)).to_bytes(2, "big") + b"\0\0\x40\0\x40\x06\0\0"
        return head + addresses + options + segment, segment
    following, extensions = 6, b""
    for kind, words in draw(EXTENSIONS):
        extensions = bytes((following, words)) + bytes(6 + 8 * words) + extensions
        following = kind
    payload = extensions + segment
    addresses = draw(st.binary(min_size=32, max_size=32))
    return b"\x60\0\0\0" + len(payload).to_bytes(2, "big") + bytes((following, 64)) + addresses + payload, segment


@given(packets())
def test_any_syn_is_read(made: tuple[bytes, bytes]) -> None:
    packet, segment = made
    syn = Syn.parse(packet)
    assert syn is not None
    assert syn.packet == packet
    assert packet[syn.tcp :] == segment
    assert syn.flow.source.port == int.from_bytes(segment[:2], "big")
    assert syn.flow.target.port == int.from_bytes(segment[2:4], "big")
    assert syn.sequence == int.from_bytes(segment[4:8], "big")
    assert syn.data == len(segment) - segment[12] // 4


@given(packets(), st.data())
def test_no_beginning_of_a_syn_is_one(made: tuple[bytes, bytes], data: st.DataObject) -> None:
    packet, _ = made
    assert Syn.parse(packet[: data.draw(st.integers(0, len(packet) - 1))]) is None


@given(st.one_of(st.binary(max_size=120), st.binary(max_size=80).map(lambda rest: b"\x45\0\0\x3c" + rest)))
def test_any_bytes_are_read_without_trouble(packet: bytes) -> None:
    syn = Syn.parse(packet)
    assert syn is None or (packet.startswith(syn.packet) and reset(syn))


@given(packets())
def test_a_syn_that_is_sent_on_is_read_as_the_same(made: tuple[bytes, bytes]) -> None:
    syn = Syn.parse(made[0])
    assert syn is not None
    again = Syn.parse(reinjected(syn))
    assert again is not None
    assert (again.flow, again.sequence, again.data) == (syn.flow, syn.sequence, syn.data)
    assert reinjected(again) == again.packet


@given(st.binary(max_size=100))
def test_a_checksum_makes_the_sum_whole(data: bytes) -> None:
    """RFC 1071 section 1: data and checksum add up to all ones."""
    data += b"\0" * (len(data) % 2)
    assert checksum(data + checksum(data).to_bytes(2, "big")) == 0
