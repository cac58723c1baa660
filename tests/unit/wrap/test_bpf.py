"""The filter of the packet socket, run by an interpreter of what linux/filter.h says of the instructions it uses."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from tabi.wrap.bpf import syn_filter

R4, R6 = IPv4Address("198.18.0.1"), IPv6Address("fd00:5ec::1")
OTHER4, OTHER6 = IPv4Address("203.0.113.7"), IPv6Address("2001:db8::7")
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))  # RFC 9293 section 3.1, RFC 3168

_NO_SYNS = (0, ACK, SYN | ACK, FIN, SYN | FIN, RST, SYN | RST, PSH | ACK)


def shown(packet: bytes) -> bool:
    """Run the filter; a load beyond the packet drops it."""
    program = syn_filter(R4, R6, 53)
    a = x = at = 0
    while True:
        code, if_true, if_false, k = program[at]
        at += 1
        sizes = {0x20: 4, 0x28: 2, 0x30: 1, 0x48: 2, 0x50: 1}
        if code in sizes:
            start = k + (x if code in (0x48, 0x50) else 0)
            if start + sizes[code] > len(packet):
                return False
            a = int.from_bytes(packet[start : start + sizes[code]], "big")
        elif code == 0xB1:
            x = 4 * (packet[k] & 15)
        elif code == 0x54:
            a &= k
        elif code == 0x15:
            at += if_true if a == k else if_false
        elif code == 0x45:
            at += if_true if a & k else if_false
        else:
            assert code == 0x06, hex(code)
            return k >= len(packet)


def segment(flags: int, port: int) -> bytes:
    """RFC 9293 section 3.1."""
    return bytes.fromhex("9c40") + port.to_bytes(2, "big") + bytes(8) + bytes((0x50, flags)) + bytes(6)


def v4(
    to: IPv4Address = OTHER4, *, port: int = 80, flags: int = SYN, options: int = 0, fragment: int = 0, kind: int = 6
) -> bytes:
    """RFC 791 section 3.1."""
    head = bytes((0x45 + options, 0, 0, 40)) + bytes(2) + fragment.to_bytes(2, "big") + bytes((64, kind, 0, 0))
    return head + bytes.fromhex("c6120002") + to.packed + b"\1" * (4 * options) + segment(flags, port)


def v6(to: IPv6Address = OTHER6, *, port: int = 80, flags: int = SYN, following: int = 6) -> bytes:
    """RFC 8200 section 3."""
    head = bytes.fromhex("60000000") + (20).to_bytes(2, "big") + bytes((following, 64))
    return head + IPv6Address("fd00:5ec::2").packed + to.packed + segment(flags, port)


@pytest.mark.parametrize(
    "packet",
    [
        v4(), v4(options=10), v4(flags=SYN | ECE | CWR), v4(flags=SYN | PSH | URG), v4(port=53), v4(R4),
        v4() + b"data" * 400,
        v6(), v6(flags=SYN | ECE | CWR), v6(port=53), v6(R6), v6(IPv6Address(int(R6) + 1), port=53),
        v6() + b"data" * 400,
    ],
)  # fmt: skip
def test_syns_are_shown(packet: bytes) -> None:
    assert shown(packet)


@pytest.mark.parametrize(
    "packet",
    [
        v4(R4, port=53), v4(R4, port=53, options=3), v6(R6, port=53),
        *(make(flags=flags) for make in (v4, v6) for flags in _NO_SYNS),
        v4(kind=17), v6(following=17), v6(following=44), v4(fragment=0x2000), v4(fragment=1), v4(fragment=0x1FFF),
        b"\x55" + v4()[1:], v4()[:30], v6()[:50], b"",
    ],
)  # fmt: skip
def test_nothing_else_is(packet: bytes) -> None:
    assert not shown(packet)


def test_a_packet_that_may_not_be_fragmented_is_whole() -> None:
    assert shown(v4(fragment=0x4000))
