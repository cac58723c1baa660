"""Packets of the gate: bytes typed from the RFCs, and checksums added up the slow way of RFC 1071."""

import struct
from ipaddress import ip_address

import pytest

from tabi.addr import Endpoint
from tabi.wrap.packets import Flow, Icmp, Syn, checksum, icmp_error, port_unreachable, reinjected, reset

SOURCE4, TARGET4 = bytes((198, 18, 0, 2)), bytes((203, 0, 113, 7))
SOURCE6, TARGET6 = ip_address("fd00:5ec::2").packed, ip_address("2001:db8::7").packed
MSS = bytes((2, 4, 5, 180))  # RFC 9293 section 3.2
# RFC 9293 section 3.1: ports 40000 and 443, SEQ, ACK, data offset 6 words, SYN, window, checksum as veth leaves it
TCP = struct.pack(">HHIIBBHHH", 40000, 443, 0xFFFF_FFFF, 0, 6 << 4, 0x02, 64240, 0x1234, 0) + MSS
# RFC 8200 section 4: next header, and how many times 8 bytes follow the first 8
TWO_HEADERS = bytes((60, 1)) + bytes(14) + bytes((6, 0)) + bytes(6)
FLOW4 = Flow(Endpoint.parse("198.18.0.2:40000"), Endpoint.parse("203.0.113.7:443"))
FLOW6 = Flow(Endpoint.parse("[fd00:5ec::2]:40000"), Endpoint.parse("[2001:db8::7]:443"))


def ip4(
    payload: bytes = TCP, *, protocol: int = 6, fragment: int = 0x4000, options: bytes = b"", extra: int = 0
) -> bytes:
    """RFC 791 section 3.1; Don't Fragment is set."""
    size = 20 + len(options)
    head = struct.pack(">BBHHHBBH", 0x40 | size // 4, 0, size + len(payload) + extra, 7, fragment, 64, protocol, 0)
    return head + SOURCE4 + TARGET4 + options + payload


def ip6(payload: bytes = TCP, *, following: int = 6, extra: int = 0) -> bytes:
    """RFC 8200 section 3."""
    return struct.pack(">IHBB", 6 << 28, len(payload) + extra, following, 64) + SOURCE6 + TARGET6 + payload


def folded(data: bytes) -> int:
    """Add 16-bit words, the carry brought around (RFC 1071 section 1); 0xFFFF where a checksum is among them."""
    total = 0
    for (word,) in struct.iter_unpack(">H", data + b"\0" * (len(data) % 2)):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo(packet: bytes, protocol: int, at: int) -> bytes:
    """Put the pseudo-header before what follows the IP header (RFC 9293 section 3.1, RFC 8200 section 8.1)."""
    segment = packet[at:]
    if packet[0] >> 4 == 4:
        return packet[12:20] + bytes((0, protocol)) + len(segment).to_bytes(2, "big") + segment
    return packet[8:40] + len(segment).to_bytes(4, "big") + bytes((0, 0, 0, protocol)) + segment


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("0001f203f4f5f6f7", 0x220D),  # RFC 1071 section 3: the sum is ddf2
        ("450000730000400040110000c0a80001c0a800c7", 0xB861),  # an IPv4 header
        ("00010002ff", 0x00FC),  # an odd byte is followed by a zero
        ("ffff", 0),
        ("0000", 0xFFFF),
        ("", 0xFFFF),
    ],
)
def test_checksum(data: str, expected: int) -> None:
    assert checksum(bytes.fromhex(data)) == expected


@pytest.mark.parametrize(
    ("packet", "flow", "at"),
    [
        pytest.param(ip4(), FLOW4, 20, id="v4"),
        pytest.param(ip4(options=bytes((1, 1, 1, 0))), FLOW4, 24, id="v4 with options"),
        pytest.param(ip4() + b"of the link", FLOW4, 20, id="v4 with more behind it"),
        pytest.param(ip6(), FLOW6, 40, id="v6"),
        pytest.param(ip6(bytes((6, 0, 1, 4, 0, 0, 0, 0)) + TCP, following=60), FLOW6, 48, id="v6 destination options"),
        pytest.param(ip6(TWO_HEADERS + TCP, following=0), FLOW6, 64, id="v6 two extension headers"),
    ],
)
def test_syn_is_read(packet: bytes, flow: Flow, at: int) -> None:
    syn = Syn.parse(packet)
    assert syn is not None
    assert (syn.flow, syn.sequence, syn.data, syn.tcp) == (flow, 0xFFFF_FFFF, 0, at)
    assert packet.startswith(syn.packet)
    assert syn.packet.endswith(MSS)


def with_flags(flags: int) -> bytes:
    return TCP[:13] + bytes((flags,)) + TCP[14:]


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x50" * 60, id="version 5"),
        pytest.param(ip4(protocol=17), id="v4 UDP"),
        pytest.param(ip4(fragment=0x2000), id="v4 more fragments"),
        pytest.param(ip4(fragment=1), id="v4 a later fragment"),
        pytest.param(b"\x44" + ip4()[1:], id="v4 header of 16 bytes"),
        pytest.param(ip4(extra=1), id="v4 cut"),
        pytest.param(ip4(TCP[:19]), id="v4 half a TCP header"),
        pytest.param(ip4(TCP[:20]), id="v4 no room for TCP's options"),
        pytest.param(ip4(TCP[:12] + b"\x40" + TCP[13:]), id="v4 TCP header of 16 bytes"),
        pytest.param(ip6(following=17), id="v6 UDP"),
        pytest.param(ip6(extra=1), id="v6 cut"),
        pytest.param(ip6(bytes((6, 0, 0, 0, 0, 0, 0, 0)) + TCP, following=44), id="v6 fragment"),
        pytest.param(ip6(bytes((6, 2)) + bytes(22) + TCP, following=43), id="v6 by way of another"),
        pytest.param(ip6(b"\x3c", following=60), id="v6 half an extension header"),
        pytest.param(ip6(bytes((6, 9)) + TCP, following=60), id="v6 extension header longer than all"),
        *[pytest.param(ip4(with_flags(flags)), id=f"v4 flags {flags:#x}") for flags in (0x00, 0x10, 0x12, 0x03, 0x06)],
        pytest.param(ip6(with_flags(0x12)), id="v6 SYN-ACK"),
    ],
)
def test_what_is_no_syn_is_left_alone(packet: bytes) -> None:
    assert Syn.parse(packet) is None


@pytest.mark.parametrize("packet", [ip4(), ip6()])
def test_flags_of_congestion_are_part_of_a_syn(packet: bytes) -> None:
    """RFC 3168 section 6.1.1: ECE and CWR."""
    assert Syn.parse(packet.replace(TCP, with_flags(0xC2))) is not None


@pytest.mark.parametrize("make", [ip4, ip6])
def test_data_of_fast_open_is_counted(make: object) -> None:
    syn = Syn.parse(make(TCP + b"hello"))  # type: ignore[operator]
    assert syn is not None
    assert syn.data == 5


@pytest.mark.parametrize("packet", [ip4(), ip6(), ip6(TCP + b"odd"), ip4(options=bytes(4))])
def test_only_the_checksum_is_new_when_a_syn_is_sent_on(packet: bytes) -> None:
    syn = Syn.parse(packet)
    assert syn is not None
    sent = reinjected(syn)
    assert folded(pseudo(sent, 6, syn.tcp)) == 0xFFFF
    at = syn.tcp + 16
    assert (sent[:at], sent[at + 2 :]) == (packet[:at], packet[at + 2 :])


def test_reset_v4() -> None:
    """RFC 9293 section 3.5.2: SEQ 0, ACK is SEG.SEQ + SEG.LEN, where SYN counts for one, modulo 2**32."""
    syn = Syn.parse(ip4())
    assert syn is not None
    packet = reset(syn)
    assert packet[:10] == bytes.fromhex("45 00 00 28 00 00 00 00 40 06")
    assert packet[12:20] == TARGET4 + SOURCE4
    assert folded(packet[:20]) == 0xFFFF
    assert packet[20:36] == struct.pack(">HHIIBBH", 443, 40000, 0, 0, 5 << 4, 0x14, 0)
    assert folded(pseudo(packet, 6, 20)) == 0xFFFF


def test_reset_v6_acknowledges_the_data_as_well() -> None:
    syn = Syn.parse(ip6(TCP + b"hello"))
    assert syn is not None
    packet = reset(syn)
    assert packet[:8] == bytes.fromhex("60 00 00 00 00 14 06 40")
    assert packet[8:40] == TARGET6 + SOURCE6
    assert packet[40:56] == struct.pack(">HHIIBBH", 443, 40000, 0, 5, 5 << 4, 0x14, 0)
    assert folded(pseudo(packet, 6, 40)) == 0xFFFF


def test_icmp_quotes_the_packet() -> None:
    """RFC 792: type, code, checksum, four bytes unused, and the packet; zeros make it too long for a socket's queue."""
    syn = Syn.parse(ip4())
    assert syn is not None
    packet = icmp_error(syn, Icmp(3, 13))
    assert packet[:10] == bytes.fromhex("45 00 ff 94 00 00 00 00 40 01")
    assert packet[12:20] == bytes((198, 18, 0, 1)) + SOURCE4
    assert packet[20:22] == b"\x03\x0d"
    assert len(packet) == 0xFF94
    assert packet[24:].rstrip(b"\0") == bytes(4) + ip4()
    assert folded(packet[:20]) == folded(packet[20:]) == 0xFFFF


def test_icmp6_quotes_the_packet() -> None:
    """RFC 4443 section 3.1; its checksum is about the addresses as well (section 2.3)."""
    syn = Syn.parse(ip6())
    assert syn is not None
    packet = icmp_error(syn, Icmp(1, 1))
    assert packet[:8] == bytes.fromhex("60 00 00 00 ff 80 3a 40")
    assert packet[8:40] == ip_address("fd00:5ec::1").packed + SOURCE6
    assert packet[40:42] == b"\x01\x01"
    assert len(packet) == 40 + 0xFF80
    assert packet[44:].rstrip(b"\0") == bytes(4) + ip6()
    assert folded(pseudo(packet, 58, 40)) == 0xFFFF


@pytest.mark.parametrize(("host", "most"), [("198.18.0.2", 576), ("[fd00:5ec::2]", 1280)])
def test_no_more_of_a_datagram_is_quoted_than_may_be(host: str, most: int) -> None:
    """RFC 1812 section 4.3.2.3, RFC 4443 section 3.1."""
    source = Endpoint.parse(f"{host}:5000")
    assert len(port_unreachable(source, source, bytes(2000))) == most


def test_a_syn_of_any_length_is_quoted() -> None:
    syn = Syn.parse(ip4(TCP + bytes(65_490)))
    assert syn is not None
    assert len(icmp_error(syn, Icmp(3, 1))) == 0xFF94


def test_a_refused_datagram_is_quoted_as_it_was_sent() -> None:
    """RFC 768; the message comes from the target itself (RFC 1122 section 3.2.2.1)."""
    source, target = Endpoint.parse("198.18.0.2:5000"), Endpoint.parse("203.0.113.7:53")
    packet = port_unreachable(source, target, b"question")
    assert packet[12:20] == TARGET4 + SOURCE4
    assert packet[20:22] == b"\x03\x03"
    assert folded(packet[20:]) == 0xFFFF
    quoted = packet[28:]
    assert quoted[:4] == bytes.fromhex("45 00 00 24")
    assert quoted[9] == 17
    assert quoted[12:26] == SOURCE4 + TARGET4 + struct.pack(">HHH", 5000, 53, 16)
    assert quoted[28:] == b"question"
    assert folded(quoted[:20]) == folded(pseudo(quoted, 17, 20)) == 0xFFFF


def test_a_refused_datagram_v6() -> None:
    source, target = Endpoint.parse("[fd00:5ec::2]:5000"), Endpoint.parse("[2001:db8::7]:53")
    packet = port_unreachable(source, target, b"question")
    assert packet[8:42] == TARGET6 + SOURCE6 + b"\x01\x04"
    assert folded(pseudo(packet, 58, 40)) == 0xFFFF
    assert folded(pseudo(packet[48:], 17, 40)) == 0xFFFF


def test_a_datagrams_checksum_is_never_zero() -> None:
    """RFC 768: 0 means that there is none. The payload is what makes it 0 here."""
    source, target = Endpoint.parse("0.0.0.0:0"), Endpoint.parse("0.0.0.1:0")
    # protocol 17, twice the length of 10, address 1: 38; the payload makes it 0xffff
    packet = port_unreachable(source, target, (0xFFFF - 38).to_bytes(2, "big"))
    assert packet[28 + 26 : 28 + 28] == b"\xff\xff"
