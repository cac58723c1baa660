"""DNS messages: a query is read, its answer written (RFC 1035 section 4, RFC 6891). No zone and no I/O.

What is read is what a stub resolver sends: one question of the Internet class, no records but EDNS and its like.
Whatever else comes is answered by what is wrong with it, and what is no query at all by nothing, so that two responders
can never talk to each other. A name in a question is plain labels: a pointer has nothing before it to point to.
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from tabi.addr import Address, Name

__all__ = [
    "Edns", "Frames", "Kind", "Query", "Rcode", "Record", "address_record", "name_record", "parse", "reversed_of",
]  # fmt: skip

PAYLOAD = 1232  # bytes of a datagram that we say we take (RFC 6891 section 6.2.5; dnsflagday.net/2020)

_HEADER = struct.Struct("!6H")  # RFC 1035 section 4.1.1: ID, flags, QDCOUNT, ANCOUNT, NSCOUNT, ARCOUNT
_QR, _OPCODE, _RD, _RA, _CD = 0x8000, 0x7800, 0x0100, 0x0080, 0x0010
_REPEATED = _OPCODE | _RD | _CD  # RFC 1035 section 4.1.1, RFC 4035 section 3.2.2
_DNSSEC_OK = 0x8000  # RFC 3225 section 3: repeated as well
_INTERNET = 1
_OWNER = b"\xc0\x0c"  # RFC 1035 section 4.1.4: the name at offset 12, which is the question's
_POINTER = 0xC0
_MAX_NAME = 255  # RFC 1035 section 2.3.4: with all lengths and the root
_DECIMAL = re.compile(rb"0|[1-9][0-9]{0,2}")
_NIBBLE = re.compile(rb"[0-9a-fA-F]")


class Rcode(IntEnum):
    """RFC 1035 section 4.1.1, and RFC 6891 section 9 for the one that takes more than four bits."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Kind(IntEnum):
    """Types of records that are told from others (RFC 1035 section 3.2.2, RFC 3596, RFC 6891); a query may have any."""

    A = 1
    PTR = 12
    AAAA = 28
    OPT = 41
    ANY = 255


class Edns(NamedTuple):
    """What an OPT record of a query says (RFC 6891 section 6.1.3)."""

    version: int
    flags: int


class Record(NamedTuple):
    """One record of an answer; its owner is the name that was asked for."""

    kind: int
    ttl: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query as it came.

    Args:
        ident: ID.
        flags: those that an answer repeats.
        question: the section, byte for byte, with the case of its letters (which some resolvers look at); empty where
            there is none that can be read.
        labels: the name in it.
        kind: QTYPE, perhaps one that `Kind` does not have.
        edns: where the query has it, and then the answer has it.
        fault: what is wrong with it, and all that can be answered; None where nothing is.
    """

    ident: int
    flags: int
    question: bytes = field(default=b"", repr=False)
    labels: tuple[bytes, ...] = ()
    kind: int = 0
    edns: Edns | None = None
    fault: Rcode | None = None

    def answer(self, rcode: Rcode, records: Sequence[Record] = ()) -> bytes:
        """Write the answer; NOERROR without records says that the name has none of this type."""
        flags = _QR | self.flags | _RA | rcode & 0xF
        head = _HEADER.pack(self.ident, flags, bool(self.question), len(records), 0, self.edns is not None)
        return b"".join((head, self.question, *map(_encode_record, records), self._opt(rcode)))

    def _opt(self, rcode: Rcode) -> bytes:
        if self.edns is None:
            return b""
        extended = rcode >> 4 << 24 | self.edns.flags & _DNSSEC_OK  # version 0 is what we have
        return b"\0" + struct.pack("!HHIH", Kind.OPT, PAYLOAD, extended, 0)


def parse(message: bytes) -> Query | None:
    """Read a query; None for what must not be answered: no header, or an answer."""
    if len(message) < _HEADER.size:
        return None
    ident, flags, *counts = _HEADER.unpack_from(message)
    if flags & _QR:
        return None
    repeated = flags & _REPEATED
    if flags & _OPCODE:
        return Query(ident=ident, flags=repeated, fault=Rcode.NOTIMP)
    try:
        return _parse_standard(message, ident, repeated, counts)
    except _MalformedError:
        return Query(ident=ident, flags=repeated, fault=Rcode.FORMERR)


def address_record(address: Address, ttl: int) -> Record:
    """Make an A or AAAA record (RFC 1035 section 3.4.1, RFC 3596 section 2.2)."""
    return Record(Kind.A if address.version == 4 else Kind.AAAA, ttl, address.packed)


def name_record(name: Name, ttl: int) -> Record:
    """Make a PTR record (RFC 1035 section 3.3.12)."""
    return Record(Kind.PTR, ttl, _encode_name(name))


def reversed_of(labels: Sequence[bytes]) -> Address | None:
    """Say which address a name of in-addr.arpa or ip6.arpa is about (RFC 1035 section 3.5, RFC 3596 section 2.5).

    None for part of an address, for numbers written otherwise, and for any other name.
    """
    *digits, zone, top = (b"", b"", *labels)
    zone, digits = zone.lower() + b"." + top.lower(), digits[2:]
    if zone == b"in-addr.arpa" and len(digits) == 4 and all(map(_DECIMAL.fullmatch, digits)):
        numbers = [int(one) for one in reversed(digits)]
        return IPv4Address(bytes(numbers)) if max(numbers) <= 0xFF else None
    if zone == b"ip6.arpa" and len(digits) == 32 and all(map(_NIBBLE.fullmatch, digits)):
        return IPv6Address(int(b"".join(reversed(digits)), 16))
    return None


class Frames:
    """The messages of one TCP connection: each has its length before it, in two bytes (RFC 1035 section 4.2.2).

    Owns what is not whole yet, which is less than 65,537 bytes because no message can be longer.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def __len__(self) -> int:
        """Bytes of a message that is not whole."""
        return len(self._buffer)

    def receive(self, data: bytes) -> list[bytes]:
        """Take bytes, and give the messages that are whole with them."""
        self._buffer += data
        whole, at = [], 0
        while len(self._buffer) >= at + 2:
            end = at + 2 + int.from_bytes(self._buffer[at : at + 2], "big")
            if len(self._buffer) < end:
                break
            whole.append(bytes(self._buffer[at + 2 : end]))
            at = end
        del self._buffer[:at]
        return whole

    @staticmethod
    def frame(message: bytes) -> bytes:
        """Put the length before a message."""
        return len(message).to_bytes(2, "big") + message


class _MalformedError(Exception):
    """A message that does not keep to the format."""


def _parse_standard(message: bytes, ident: int, flags: int, counts: list[int]) -> Query:
    if counts[:3] != [1, 0, 0]:  # RFC 9619: never more than one; answers and authorities belong to no query of a stub
        raise _MalformedError
    labels, end = _read_labels(message, _HEADER.size)
    kind, internet = _read("!HH", message, end)
    question = message[_HEADER.size : end + 4]
    edns = _read_additional(message, end + 4, counts[3])
    fault = None
    if edns is not None and edns.version:
        fault = Rcode.BADVERS  # RFC 6891 section 6.1.3
    elif internet != _INTERNET:
        fault = Rcode.REFUSED
    return Query(ident=ident, flags=flags, question=question, labels=labels, kind=kind, edns=edns, fault=fault)


def _read_labels(message: bytes, at: int) -> tuple[tuple[bytes, ...], int]:
    """Read a name without pointers; give its labels and the offset behind it."""
    start, labels = at, []
    while size := _byte(message, at):
        if size & _POINTER:  # a pointer, or one of the two label types that nobody has (RFC 6891 section 5)
            raise _MalformedError
        at += 1 + size
        if at > len(message) or at - start >= _MAX_NAME:
            raise _MalformedError
        labels.append(message[at - size : at])
    return tuple(labels), at + 1


def _read_additional(message: bytes, at: int, count: int) -> Edns | None:
    """Look for an OPT record among the additional ones; others, such as a signature of the query, are passed over."""
    edns = None
    for _ in range(count):
        is_root = _byte(message, at) == 0
        at = _end_of_name(message, at)
        kind, _size, extended, length = _read("!HHIH", message, at)
        at += 10 + length
        if kind != Kind.OPT:
            continue
        if edns is not None or not is_root:  # RFC 6891 section 6.1.1 and 6.1.2
            raise _MalformedError
        edns = Edns(extended >> 16 & 0xFF, extended & 0xFFFF)
    if at != len(message):
        raise _MalformedError
    return edns


def _end_of_name(message: bytes, at: int) -> int:
    """Pass over the owner of a record, whose end may be a pointer that nobody follows here."""
    while size := _byte(message, at):
        if size & _POINTER == _POINTER:
            return at + 2
        if size & _POINTER:
            raise _MalformedError
        at += 1 + size
    return at + 1


def _byte(message: bytes, at: int) -> int:
    if at >= len(message):
        raise _MalformedError
    return message[at]


def _read(form: str, message: bytes, at: int) -> tuple[int, ...]:
    try:
        return struct.unpack_from(form, message, at)
    except struct.error:
        raise _MalformedError from None


def _encode_record(record: Record) -> bytes:
    head = struct.pack("!HHIH", record.kind, _INTERNET, record.ttl, len(record.data))
    return _OWNER + head + record.data


def _encode_name(name: Name) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode() for label in (*name.text.split("."), ""))
