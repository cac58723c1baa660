"""Messages about links, addresses and routes, byte by byte as linux/netlink.h and linux/rtnetlink.h lay them out."""

import errno
import struct
import sys
from ipaddress import ip_address

import pytest

from tabi.wrap import netlink
from tabi.wrap.netlink import Request

GATE4, GATE6 = ip_address("198.18.0.1"), ip_address("fd00:5ec::1")

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="these are little-endian")


def test_a_message_has_its_length_and_number_and_asks_for_an_answer() -> None:
    message = Request(20, 0x600, bytes.fromhex("aabbccdd"), "").encode(7)
    assert message.hex(" ", 4) == "14000000 14000506 07000000 00000000 aabbccdd"  # nlmsghdr: len, type+flags, seq, pid


def test_attributes_are_padded_and_say_their_true_length() -> None:
    assert netlink.attribute(3, b"e1\0").hex() == "0700030065310000"
    assert netlink.nested(18, netlink.attribute(1, b"x")).hex() == "0c001280" + "0500010078000000"  # NLA_F_NESTED


@pytest.mark.parametrize(
    ("request_", "kind", "body"),
    [
        # ifinfomsg: family, type, index, flags, change
        (netlink.up(3), 16, "00000000 03000000 01000000 01000000"),
        (netlink.delete_link(3), 17, "00000000 03000000 00000000 00000000"),
        # IFLA_AF_SPEC { AF_INET6 { IFLA_INET6_ADDR_GEN_MODE none } }
        (
            netlink.no_automatic_addresses(3),
            19,
            "00000000 03000000 00000000 00000000 10001a80 0c000a80 05000800 01000000",
        ),
        # ifaddrmsg: family, prefix, flags, scope, index; IFA_LOCAL, IFA_ADDRESS
        (netlink.address(3, GATE4, 30), 20, "021e0000 03000000 08000200 c6120001 08000100 c6120001"),
        (
            netlink.address(3, GATE6, 64),
            20,
            "0a400200 03000000 14000200 fd0005ec 00000000 00000000 00000001"
            " 14000100 fd0005ec 00000000 00000000 00000001",
        ),
        # rtmsg: family, two lengths, tos; table main, protocol boot, scope, type; flags; RTA_GATEWAY, RTA_OIF
        (netlink.default_route(3, GATE4), 24, "02000000 fe030001 00000000 08000500 c6120001 08000400 03000000"),
        (netlink.local_route(1, 4), 24, "02000000 fe03fe02 00000000 08000400 01000000"),
        (netlink.local_route(1, 6), 24, "0a000000 fe030002 00000000 08000400 01000000"),
        # ndmsg: family, index, state permanent, flags, type; NDA_DST, NDA_LLADDR
        (
            netlink.neighbour(3, GATE4, bytes.fromhex("020000000001")),
            28,
            "02000000 03000000 80000000 08000100 c6120001 0a000200 02000000 00010000",
        ),
    ],
)
def test_requests(request_: Request, kind: int, body: str) -> None:
    assert (request_.kind, request_.body.hex(" ", 4)) == (kind, body)


def test_a_pair_of_links_names_both_and_where_the_other_lies() -> None:
    request = netlink.veth("e1", b"\2\0\0\0\0\1", "e0", b"\2\0\0\0\0\2", 4711, 65_535)
    ends = ["0a000100 02000000 000N0000 07000300 65NN0000 08000400 ffff0000".replace("000N", one).replace("65NN", two)
            for one, two in (("0001", "6531"), ("0002", "6530"))]  # fmt: skip
    peer = f"{'00' * 16}{ends[1]}08001300 67120000".replace(" ", "")  # IFLA_NET_NS_PID 4711
    kind = "09000100 76657468 00000000".replace(" ", "")  # IFLA_INFO_KIND "veth"
    head = 4 + len(peer) // 2
    data = struct.pack("<HHHH", head + 4, 0x8002, head, 0x8001).hex() + peer  # IFLA_INFO_DATA { VETH_INFO_PEER }
    info = struct.pack("<HH", 4 + (len(kind) + len(data)) // 2, 0x8012).hex() + kind + data  # IFLA_LINKINFO
    assert request.body.hex() == "00" * 16 + ends[0].replace(" ", "") + info


def test_answers_are_read_however_many_come_together() -> None:
    good = bytes.fromhex("24000000 02000000 01000000 00000000 00000000") + bytes(16)
    bad = bytes.fromhex("24000000 02000000 02000000 00000000 ffffffff") + bytes(16)  # -EPERM
    other = bytes.fromhex("10000000 14000000 09000000 00000000")
    assert netlink.read_errors(good + other + bad) == [(1, 0), (2, errno.EPERM)]


@pytest.mark.parametrize("rubbish", ["", "00", "00000000" * 4, "0f000000" + "00" * 12, "10000000 0200"])
def test_rubbish_has_no_answers(rubbish: str) -> None:
    assert netlink.read_errors(bytes.fromhex(rubbish)) == []
