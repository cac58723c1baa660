"""Capture files as Wireshark and tcpdump read them (draft-ietf-opsawg-pcapng): one section, one interface, IP packets.

Blocks are made, and written by whoever has the file; each is whole in itself, so what has been written can be read
while more is to come. A packet may have comments, which analysers show beside it and search in. Names stand in blocks
of their own: an analyser shows them for the addresses that stand for them, and asks nobody.
"""

import struct
from collections.abc import Iterable, Sequence

from tabi.addr import Address, Name

__all__ = ["beginning", "names_block", "packet_block"]

# Section 3.1: every block has its type, its length, and its length again at its end. Numbers are in the byte order that
# the magic of the section says; little-endian is what most readers have.
_BLOCK = struct.Struct("<II")
_SECTION, _INTERFACE, _NAMES, _PACKET = 0x0A0D0D0A, 1, 4, 6
_MAGIC = 0x1A2B3C4D
_UNKNOWN_LENGTH = -1  # of the section: readers go on to the end
_RAW = 101  # LINKTYPE_RAW: packets begin with the IP header, whose first four bits tell the version
_NO_LIMIT = 0  # of the bytes that are kept of a packet

_COMMENT, _APPLICATION, _NAME, _RESOLUTION = 1, 4, 2, 9  # options, of each block its own (section 3.5, 4.1, 4.2)
_NANOSECONDS = b"\x09"  # 10 to the minus 9th
_RECORD4, _RECORD6 = 1, 2  # section 4.5
_MOST = 65_535  # bytes of an option or a record


def beginning(application: str, interface: str) -> bytes:
    """Make what a file begins with: the section, and its only interface.

    Args:
        application: what wrote it, for the reader.
        interface: the name that is shown.
    """
    section = struct.pack("<IHHq", _MAGIC, 1, 0, _UNKNOWN_LENGTH) + _options([(_APPLICATION, application.encode())])
    link = struct.pack("<HHI", _RAW, 0, _NO_LIMIT)
    link += _options([(_NAME, interface.encode()), (_RESOLUTION, _NANOSECONDS)])
    return _block(_SECTION, section) + _block(_INTERFACE, link)


def packet_block(packet: bytes, when: int, comments: Sequence[str] = ()) -> bytes:
    """Make the block of a packet.

    Args:
        packet: from the IP header on.
        when: nanoseconds since the epoch.
        comments: what is to be read beside it; more than 65,535 bytes of one are cut off.
    """
    head = struct.pack("<IIIII", 0, when >> 32, when & 0xFFFF_FFFF, len(packet), len(packet))
    return _block(_PACKET, head + _padded(packet) + _options((_COMMENT, _cut(text)) for text in comments))


def names_block(names: Iterable[tuple[Address, Name]]) -> bytes:
    """Make a block that says which names addresses stand for, from here on."""
    records = b"".join(_record(address, name) for address, name in names)
    return _block(_NAMES, records + struct.pack("<HH", 0, 0))


def _record(address: Address, name: Name) -> bytes:
    value = address.packed + name.text.encode() + b"\0"
    return struct.pack("<HH", _RECORD4 if address.version == 4 else _RECORD6, len(value)) + _padded(value)


def _block(kind: int, body: bytes) -> bytes:
    size = len(body) + 12
    return _BLOCK.pack(kind, size) + body + struct.pack("<I", size)


def _options(options: Iterable[tuple[int, bytes]]) -> bytes:
    """Write a list of options and its end; none at all where there is none."""
    written = b"".join(struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options)
    return written + bytes(4) if written else b""


def _cut(text: str) -> bytes:
    """Encode without cutting a character in two."""
    return text.encode()[:_MOST].decode(errors="ignore").encode()


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
