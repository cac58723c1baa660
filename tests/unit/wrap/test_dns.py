"""DNS messages: bytes typed from RFC 1035 section 4, RFC 3596 and RFC 6891 section 6.1."""

from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tabi.addr import Name
from tabi.testing.dribble import each_byte
from tabi.wrap import dns
from tabi.wrap.dns import Edns, Frames, Kind, Rcode

NAME = b"\x03www\x07example\x00"
A_IN = b"\x00\x01\x00\x01"
HEADER = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"  # ID, RD, one question
OPT = b"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00"  # root, type 41, 1232 bytes, version 0, DO, no options


def query(name: bytes = NAME, rest: bytes = A_IN, header: bytes = HEADER) -> bytes:
    return header + name + rest


def counting(ancount: int = 0, nscount: int = 0, arcount: int = 0, qdcount: int = 1) -> bytes:
    return HEADER[:4] + b"".join(count.to_bytes(2, "big") for count in (qdcount, ancount, nscount, arcount))


def with_records(*records: bytes) -> bytes:
    return query(header=counting(arcount=len(records))) + b"".join(records)


def rcode(answer: bytes) -> int:
    return answer[3] & 0x0F


def test_query_is_read() -> None:
    read = dns.parse(query())
    assert read is not None
    assert (read.ident, read.labels, read.kind) == (0x1234, (b"www", b"example"), Kind.A)
    assert (read.question, read.edns, read.fault) == (NAME + A_IN, None, None)


def test_answer_repeats_the_question_and_points_to_its_name() -> None:
    read = dns.parse(query(b"\x03wWw\x07eXample\x00"))
    assert read is not None
    said = read.answer(Rcode.NOERROR, [dns.address_record(ip_address("198.18.1.1"), 30)])
    assert said == (
        b"\x12\x34\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"  # QR, RD, RA; one question, one answer
        b"\x03wWw\x07eXample\x00\x00\x01\x00\x01"
        b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\xc6\x12\x01\x01"
    )


def test_records_of_the_other_kinds() -> None:
    aaaa = dns.address_record(ip_address("fd00:5ec:0:1::1"), 1)
    assert aaaa == (28, 1, bytes.fromhex("fd0005ec000000010000000000000001"))
    assert dns.name_record(Name("www.example"), 2) == (12, 2, NAME)


@pytest.mark.parametrize("code", [Rcode.NXDOMAIN, Rcode.SERVFAIL, Rcode.REFUSED])
def test_failure_has_its_code_and_no_record(code: Rcode) -> None:
    read = dns.parse(query())
    assert read is not None
    assert read.answer(code) == b"\x12\x34\x81" + bytes((0x80 | code,)) + HEADER[4:] + NAME + A_IN


def test_flags_that_an_answer_repeats() -> None:
    read = dns.parse(query(header=b"\x12\x34\x00\x10" + HEADER[4:]))  # no RD, CD
    assert read is not None
    assert read.answer(Rcode.NOERROR)[2:4] == b"\x80\x90"


def test_edns_is_answered_by_edns() -> None:
    read = dns.parse(with_records(OPT))
    assert read is not None
    assert read.edns == Edns(0, 0x8000)
    said = read.answer(Rcode.NOERROR)
    assert said == b"\x12\x34\x81\x80\x00\x01\x00\x00\x00\x00\x00\x01" + NAME + A_IN + OPT


def test_unknown_version_of_edns_is_told_ours() -> None:
    read = dns.parse(with_records(OPT[:6] + b"\x01" + OPT[7:]))
    assert read is not None
    assert read.fault is Rcode.BADVERS
    said = read.answer(read.fault)
    assert rcode(said) == 0
    assert said[-6:-4] == b"\x01\x00"  # the upper bits of 16, and version 0 (RFC 6891 section 6.1.3)


def test_records_beside_edns_are_passed_over() -> None:
    signature = b"\xc0\x0c\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x02ab"  # TSIG; its owner is a pointer, which is legal
    named = b"\x01x\x00\x00\x18\x00\xff\x00\x00\x00\x00\x00\x00"
    for records in ((signature, OPT), (OPT, named)):
        read = dns.parse(with_records(*records))
        assert read is not None
        assert read.fault is None
        assert read.edns is not None


@pytest.mark.parametrize("message", [b"", b"\x12", HEADER[:11], b"\x12\x34\x81" + HEADER[3:] + NAME + A_IN])
def test_what_is_no_query_gets_no_answer(message: bytes) -> None:
    assert dns.parse(message) is None


@pytest.mark.parametrize("opcode", range(1, 16))
def test_other_operations_are_not_implemented(opcode: int) -> None:
    flags = bytes((opcode << 3 | 1, 0))
    read = dns.parse(b"\x12\x34" + flags + HEADER[4:] + NAME + A_IN)
    assert read is not None
    assert read.fault is Rcode.NOTIMP
    assert read.answer(read.fault) == b"\x12\x34" + bytes((0x80 | flags[0], 0x84)) + bytes(8)


def test_other_classes_are_refused() -> None:
    read = dns.parse(query(b"\x07version\x04bind\x00", b"\x00\x10\x00\x03"))  # CHAOS
    assert read is not None
    assert read.fault is Rcode.REFUSED


LONGEST = b"".join(bytes((63,)) + b"a" * 63 for _ in range(3)) + bytes((61,)) + b"a" * 61 + b"\x00"


def test_longest_name_is_read() -> None:
    assert len(LONGEST) == 255  # RFC 1035 section 2.3.4
    read = dns.parse(query(LONGEST))
    assert read is not None
    assert read.fault is None
    assert [len(label) for label in read.labels] == [63, 63, 63, 61]


MALFORMED = {
    "nothing behind the header": HEADER,
    "no question": counting(qdcount=0),
    "two questions": counting(qdcount=2) + (NAME + A_IN) * 2,
    "an answer": counting(ancount=1) + NAME + A_IN + b"\xc0\x0c" + A_IN + b"\0\0\0\0\0\4\1\2\3\4",
    "an authority": counting(nscount=1) + NAME + A_IN + b"\xc0\x0c" + A_IN + b"\0\0\0\0\0\4\1\2\3\4",
    "a pointer to itself": query(b"\xc0\x0c"),
    "a pointer behind a label": query(b"\x03www\xc0\x0c"),
    "a label type of 01": query(b"\x41" + b"a" * 65 + b"\0"),
    "a label type of 10": query(b"\x81" + b"a" * 129 + b"\0"),
    "a name of 256 bytes": query(b"\x01a" + LONGEST[1:].replace(b"a" * 61, b"a" * 61)),
    "a name that is cut": HEADER + NAME[:-1],
    "a label that is cut": HEADER + NAME[:2],
    "no class": query(rest=b"\x00\x01\x00"),
    "bytes behind the end": query() + b"\0",
    "an OPT record that is not there": query(header=counting(arcount=1)),
    "an OPT record that is cut": with_records(OPT[:-1]),
    "an OPT record longer than the message": with_records(OPT[:-1] + b"\x01"),
    "two OPT records": with_records(OPT, OPT),
    "an OPT record with a name": with_records(b"\x01x" + OPT),
    "a record whose name is cut": with_records(b"\x05ab"),
    "a record with a label type of 01": with_records(b"\x41" + b"a" * 65 + OPT),
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_query_is_told_so(message: bytes) -> None:
    read = dns.parse(message)
    assert read is not None
    assert read.fault is Rcode.FORMERR
    assert read.answer(read.fault) == b"\x12\x34\x81\x81" + bytes(8)


@given(st.one_of(st.binary(max_size=600), st.binary(max_size=300).map(lambda tail: HEADER + tail)))
@example(query())
def test_any_bytes_are_read_or_passed_over(message: bytes) -> None:
    read = dns.parse(message)
    assert (read is None) == (len(message) < 12 or message[2] >= 0x80)
    if read is not None:
        said = read.answer(read.fault or Rcode.NOERROR)
        assert said[:2] == message[:2]
        assert dns.parse(said) is None, "an answer gets no answer"
        assert len(said) <= len(message) + 11


@given(st.integers(0, len(query()) - 1), st.integers(0, 255))
def test_spoiled_query_is_read_or_passed_over(at: int, byte: int) -> None:
    message = bytearray(with_records(OPT))
    message[at] = byte
    read = dns.parse(bytes(message))
    assert read is None or read.ident == int.from_bytes(message[:2], "big")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("1.1.18.198.in-addr.arpa", "198.18.1.1"),
        ("255.0.0.10.In-Addr.ARPA", "10.0.0.255"),
        ("b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa", "4321:0:1:2:3:4:567:89ab"),
        ("B.A.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.IP6.arpa", "4321:0:1:2:3:4:567:89ab"),
        ("18.198.in-addr.arpa", None),
        ("1.1.1.18.198.in-addr.arpa", None),
        ("01.1.18.198.in-addr.arpa", None),
        ("256.1.18.198.in-addr.arpa", None),
        ("x.1.18.198.in-addr.arpa", None),
        ("1.0.0.0.ip6.arpa", None),
        ("10.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa", None),
        ("in-addr.arpa", None),
        ("arpa", None),
        ("example", None),
    ],
)
def test_reverse_names(text: str, address: str | None) -> None:
    """RFC 3596 section 2.5 has the IPv6 address."""
    found = dns.reversed_of([label.encode() for label in text.split(".")])
    assert found == (None if address is None else ip_address(address))


def test_root_is_no_reverse_name() -> None:
    assert dns.reversed_of(()) is None


MESSAGES = (query(), b"", b"x" * 300, query(LONGEST))
STREAM = b"".join(len(message).to_bytes(2, "big") + message for message in MESSAGES)


def test_stream_is_cut_at_its_lengths() -> None:
    frames = Frames()
    assert frames.receive(STREAM + b"\x00\x05ab") == list(MESSAGES)
    assert len(frames) == 4
    assert frames.receive(b"cde") == [b"abcde"]
    assert b"".join(map(Frames.frame, MESSAGES)) == STREAM


def test_stream_byte_by_byte_is_the_same() -> None:
    frames = Frames()
    assert [whole for piece in each_byte(STREAM) for whole in frames.receive(piece)] == list(MESSAGES)


@given(st.lists(st.integers(0, len(STREAM)), max_size=8).map(sorted))
def test_stream_cut_anywhere_is_the_same(cuts: list[int]) -> None:
    frames = Frames()
    edges = [0, *cuts, len(STREAM)]
    pieces = [STREAM[begin:end] for begin, end in pairwise(edges)]
    assert [whole for piece in pieces for whole in frames.receive(piece)] == list(MESSAGES)
