"""Capture files: bytes typed from draft-ietf-opsawg-pcapng, and read back by a reader of this module."""

import struct
from collections.abc import Iterator
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from tabi.addr import Name
from tabi.wrap import pcapng

PACKET = bytes.fromhex("4500001d")  # four bytes are enough: nobody looks into it


def blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Section 3.1: type, length, body, length again; all blocks begin at a multiple of four bytes."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        assert size % 4 == 0
        assert struct.unpack_from("<I", data, at + size - 4) == (size,)
        yield kind, data[at + 8 : at + size - 4]
        at += size
    assert at == len(data)


def options(body: bytes) -> list[tuple[int, bytes]]:
    """Section 3.5."""
    found, at = [], 0
    while at < len(body):
        code, size = struct.unpack_from("<HH", body, at)
        at += 4
        if not code:
            assert size == 0
            assert at == len(body)
            break
        found.append((code, body[at : at + size]))
        at += size + -size % 4
    return found


def test_file_begins_with_a_section_and_an_interface() -> None:
    assert pcapng.beginning("tabi", "run") == bytes.fromhex(
        "0a0d0d0a 28000000 4d3c2b1a 0100 0000 ffffffffffffffff 0400 0400 74616269 00000000 28000000"
        "01000000 28000000 6500 0000 00000000 0200 0300 72756e00 0900 0100 09000000 00000000 28000000"
    )


def test_packet_without_comment() -> None:
    assert pcapng.packet_block(PACKET, 0x0102030405060708) == bytes.fromhex(
        "06000000 24000000 00000000 04030201 08070605 04000000 04000000 4500001d 24000000"
    )


def test_packet_with_comments() -> None:
    ((kind, body),) = blocks(pcapng.packet_block(PACKET + b"x", 0, ["connect to one.test:443", "é"]))
    assert kind == 6
    assert body[12:28] == struct.pack("<II", 5, 5) + PACKET + b"x\0\0\0"
    assert options(body[28:]) == [(1, b"connect to one.test:443"), (1, "é".encode())]


def test_names_of_addresses() -> None:
    one = Name("one.test")
    block = pcapng.names_block([(ip_address("198.18.1.1"), one), (ip_address("fd00:5ec:0:1::1"), one)])
    ((kind, body),) = blocks(block)
    assert kind == 4
    assert body == bytes.fromhex(
        "0100 0d00 c6120101 6f6e652e7465737400 000000"
        "0200 1900 fd0005ec000000010000000000000001 6f6e652e7465737400 000000 0000 0000"
    )


def test_comment_that_is_too_long_is_cut_between_characters() -> None:
    ((_, body),) = blocks(pcapng.packet_block(b"", 0, ["é" * 40_000]))
    ((_, comment),) = options(body[20:])
    assert len(comment) == 65_534
    assert comment.decode() == "é" * 32_767


@given(st.lists(st.tuples(st.binary(max_size=99), st.integers(0, 2**63), st.lists(st.text(max_size=20), max_size=3))))
def test_any_packets_are_read_back(packets: list[tuple[bytes, int, list[str]]]) -> None:
    data = pcapng.beginning("tabi", "run") + b"".join(pcapng.packet_block(*one) for one in packets)
    section, interface, *rest = blocks(data)
    assert (section[0], interface[0]) == (0x0A0D0D0A, 1)
    for (kind, body), (packet, when, comments) in zip(rest, packets, strict=True):
        number, high, low, kept, whole = struct.unpack_from("<5I", body)
        assert (kind, number, high << 32 | low, kept, whole) == (6, 0, when, len(packet), len(packet))
        end = 20 + len(packet)
        assert body[20:end] == packet
        assert [value.decode() for _, value in options(body[end + -end % 4 :])] == comments
