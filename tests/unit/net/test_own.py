"""This host's addresses, as the kernel knows them."""

import errno
import os
import socket
import struct
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import pytest

from tabi.errors import ConfigError
from tabi.net.own import own_addresses, read_dump


def test_loopback_is_ours() -> None:
    assert ip_address("127.0.0.1") in own_addresses()


def test_ipv4_addresses_are_ones_that_can_be_bound() -> None:
    for address in own_addresses():
        if address.version == 4:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
                sock.bind((str(address), 0))


def test_ipv6_addresses_are_those_of_proc() -> None:
    table = Path("/proc/net/if_inet6")
    listed = (
        {IPv6Address(int(line.split()[0], 16)) for line in table.read_text().splitlines()} if table.exists() else set()
    )
    assert {address for address in own_addresses() if address.version == 6} == listed


# what the kernel sends, typed from rtnetlink(7), netlink(7) and linux/if_addr.h


def message(kind: int, body: bytes, flags: int = 2) -> bytes:
    """One nlmsghdr and its body, filled up to four bytes: length, type, flags (NLM_F_MULTI), sequence, port."""
    data = struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body
    return data + bytes(-len(data) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    """One rtattr: length, type, value."""
    data = struct.pack("=HH", 4 + len(value), kind) + value
    return data + bytes(-len(data) % 4)


IPV4 = b"\x02\x18\x80\x00\x02\x00\x00\x00"  # ifaddrmsg: family, prefix length, flags, scope, index of the interface
IPV6 = b"\x0a\x40\x80\x00\x02\x00\x00\x00"
LABEL = attribute(3, b"eth0\0")  # IFA_LABEL, five bytes and three to fill up
NEW, DONE, ERROR = 20, 3, 2
ONE = message(NEW, IPV4 + attribute(1, bytes((203, 0, 113, 7))) + attribute(2, bytes((203, 0, 113, 7))) + LABEL)
PEER = message(NEW, IPV4 + attribute(1, bytes((10, 0, 0, 1))) + attribute(2, bytes((10, 0, 0, 2))))
SIX = message(NEW, IPV6 + attribute(1, bytes.fromhex("20010db8000000000000000000000007")))
END = message(DONE, bytes(4))


def test_addresses_are_read_from_several_parts() -> None:
    found, is_whole = read_dump([ONE + PEER, SIX, END])
    assert found == {ip_address("203.0.113.7"), ip_address("10.0.0.2"), ip_address("2001:db8::7")}
    assert is_whole


def test_nothing_behind_the_end_counts() -> None:
    assert read_dump([ONE + END + SIX])[0] == {ip_address("203.0.113.7")}


@pytest.mark.parametrize("parts", [[message(NEW, SIX[16:], 2 | 0x10), END], [SIX, message(DONE, bytes(4), 0x12)]])
def test_answer_that_addresses_changed_under_is_not_whole(parts: list[bytes]) -> None:
    assert read_dump(parts) == ({ip_address("2001:db8::7")}, False)


def test_error_of_the_kernel_is_raised() -> None:
    with pytest.raises(OSError, match="Operation not permitted") as caught:
        read_dump([ONE, message(ERROR, struct.pack("=i", -errno.EPERM) + ONE[:16])])
    assert caught.value.errno == errno.EPERM


@pytest.mark.parametrize(
    "parts",
    [[], [b""], [ONE], [bytes(16) + END], [struct.pack("=IHHII", 15, NEW, 0, 1, 0) + END], [message(ERROR, b"\xff")]],
)
def test_answer_that_is_none_is_an_error(parts: list[bytes]) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        read_dump(parts)
    assert caught.value.errno == errno.EPROTO


def test_attribute_without_length_ends_its_message_only() -> None:
    assert read_dump([message(NEW, IPV4 + bytes(8)) + SIX + END])[0] == {ip_address("2001:db8::7")}


def test_kernel_that_does_not_tell_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_netlink(*_: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr("tabi.net.own.socket.socket", no_netlink)
    with pytest.raises(ConfigError, match="Address family not supported by protocol; let tabi use netlink"):
        own_addresses()
