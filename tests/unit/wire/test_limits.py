"""What the codecs refuse to read, and refuse to write."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from tabi.errors import AuthError, ProtocolError, Reply, Stage, UsageError
from tabi.wire import socks4, socks5, udp, userpass
from tabi.wire.address import decode_address, encode_address
from tabi.wire.socks5 import Command, Method

V4 = IPv4Address("192.0.2.1")


@pytest.mark.parametrize("atyp", [0, 2, 5, 0x23, 0xFF])
def test_unknown_address_type_is_refused_before_any_address_is_read(atyp: int) -> None:
    with pytest.raises(ProtocolError) as refusal:
        socks5.Request.size(bytes((5, 1, 0, atyp)))
    assert refusal.value.reply is Reply.ADDRESS_TYPE_NOT_SUPPORTED


def test_ipv4_mapped_address_survives_the_wire_as_it_came() -> None:
    mapped = IPv6Address("::ffff:192.0.2.1")
    assert decode_address(encode_address(mapped, 1), 0) == (mapped, 1, 19)


@pytest.mark.parametrize("end", range(7))
def test_address_that_is_cut_is_refused(end: int) -> None:
    with pytest.raises(ProtocolError):
        decode_address(encode_address(V4, 80)[:end], 0)


def test_domain_of_255_bytes_is_written_and_read() -> None:
    request = socks5.Request(Command.CONNECT, b"d" * 255, 80)
    assert socks5.Request.decode(request.encode()) == request


def test_domain_of_256_bytes_is_never_cut_nor_its_length_wrapped() -> None:
    with pytest.raises(UsageError, match="256 bytes"):
        socks5.Request(Command.CONNECT, b"d" * 256, 80).encode()


@pytest.mark.parametrize("port", [-1, 65536])
def test_port_out_of_range_is_refused(port: int) -> None:
    messages = [
        socks5.Request(Command.CONNECT, V4, port),
        socks5.ReplyMessage(Reply.SUCCEEDED, IPv6Address("::1"), port),
        socks4.Request(Command.CONNECT, V4, port),
        socks4.ReplyMessage(socks4.Code.GRANTED, V4, port),
        udp.Datagram(b"h", port, b""),
    ]
    for message in messages:
        with pytest.raises(UsageError, match="port"):
            message.encode()


@pytest.mark.parametrize("version", [0, 1, 4, 6, 0x48])
def test_other_version_is_refused(version: int) -> None:
    head = bytes((version,))
    for codec, rest in [
        (socks5.Greeting, b"\x01\x00"),
        (socks5.MethodSelection, b"\x00"),
        (socks5.Request, b"\x01\x00\x01\x7f\x00\x00\x01\x00\x50"),
        (socks5.ReplyMessage, b"\x00\x00\x01\x7f\x00\x00\x01\x00\x50"),
    ]:
        with pytest.raises(ProtocolError, match="version byte"):
            codec.decode(head + rest)
    if version != 4:
        with pytest.raises(ProtocolError, match="version byte"):
            socks4.Request.decode(head + b"\x01\x00\x50\x7f\x00\x00\x01\x00")
    if version not in (0, 4):
        with pytest.raises(ProtocolError, match="version byte"):
            socks4.ReplyMessage.decode(head + b"\x5a\x00\x50\x7f\x00\x00\x01")
    if version != 1:
        with pytest.raises(AuthError, match="version byte"):
            userpass.Credentials.decode(head + b"\x01u\x01p")


def test_reply_of_another_version_is_refused_before_its_address_type_is_read_as_one() -> None:
    with pytest.raises(ProtocolError, match="version byte 0x48") as refusal:
        socks5.ReplyMessage.size(b"HTTP")
    assert refusal.value.stage is Stage.REQUEST


def test_socks4_reply_whose_first_byte_is_four_is_read() -> None:
    assert socks4.ReplyMessage.decode(bytes.fromhex("04 5a 00 00 00 00 00 00")).code is socks4.Code.GRANTED


def test_status_is_read_whatever_its_version_byte() -> None:
    assert userpass.Status.decode(b"\x05\x00") == userpass.Status(0)


def test_failure_reply_with_address_type_zero_is_read() -> None:
    # Tor's answer to a RESOLVE that failed
    wire = bytes.fromhex("05 04 00 00 00 00 00 00 00 00")
    assert [socks5.ReplyMessage.size(wire[:end]) for end in (0, 3, 4, 10)] == [4, 4, 10, 10]
    assert socks5.ReplyMessage.decode(wire) == socks5.ReplyMessage(Reply.HOST_UNREACHABLE)


def test_success_reply_with_address_type_zero_is_refused() -> None:
    with pytest.raises(ProtocolError):
        socks5.ReplyMessage.size(bytes.fromhex("05 00 00 00"))


def test_greeting_has_at_most_255_methods() -> None:
    full = socks5.Greeting((Method.NONE,) * 255)
    assert socks5.Greeting.decode(full.encode()) == full
    with pytest.raises(UsageError, match="256 methods"):
        socks5.Greeting((Method.NONE,) * 256).encode()


@pytest.mark.parametrize("size", [1, 255])
def test_name_and_password_of_1_to_255_bytes_are_written(size: int) -> None:
    credentials = userpass.Credentials(b"u" * size, b"p" * size)
    assert userpass.Credentials.decode(credentials.encode()) == credentials


@pytest.mark.parametrize(("username", "password"), [(0, 1), (1, 0), (256, 1), (1, 256)])
def test_name_or_password_of_another_size_is_not_written(username: int, password: int) -> None:
    with pytest.raises(UsageError) as refusal:
        userpass.Credentials(b"u" * username, b"p" * password).encode()
    assert "ppp" not in str(refusal.value)


def test_empty_name_and_password_are_read() -> None:
    assert userpass.Credentials.decode(b"\x01\x00\x00") == userpass.Credentials(b"", b"")


def test_password_never_shows() -> None:
    assert "sesame" not in repr(userpass.Credentials(b"alice", b"sesame"))


def test_nobody_waits_for_more_of_a_login_with_another_version() -> None:
    assert userpass.Credentials.size(b"\x05") == 1


HEAD = bytes.fromhex("04 01 00 50 c0 00 02 01")  # VN CD DSTPORT DSTIP
HEAD_4A = bytes.fromhex("04 01 00 50 00 00 00 01")


def test_userid_and_domain_of_255_bytes_are_read() -> None:
    wire = HEAD_4A + b"u" * 255 + b"\0" + b"d" * 255 + b"\0"
    assert socks4.Request.size(wire) == len(wire) == 520
    request = socks4.Request.decode(wire)
    assert (request.userid, request.domain) == (b"u" * 255, b"d" * 255)


@pytest.mark.parametrize("more", [b"", b"\0", b"u" * 100_000])
def test_userid_of_256_bytes_is_refused_whether_or_not_its_end_has_come(more: bytes) -> None:
    with pytest.raises(ProtocolError, match="USERID"):
        socks4.Request.size(HEAD + b"u" * 256 + more)


@pytest.mark.parametrize("more", [b"", b"\0", b"d" * 100_000])
def test_socks4a_domain_of_256_bytes_is_refused_whether_or_not_its_end_has_come(more: bytes) -> None:
    with pytest.raises(ProtocolError, match="domain"):
        socks4.Request.size(HEAD_4A + b"\0" + b"d" * 256 + more)


@pytest.mark.parametrize("address", ["0.0.0.0", "0.0.1.0", "0.1.0.0", "1.0.0.1", "0.0.1.1"])
def test_other_address_than_the_marker_announces_no_domain(address: str) -> None:
    wire = HEAD[:4] + IPv4Address(address).packed + b"\0"
    assert socks4.Request.size(wire + b"d\0") == len(wire)
    assert socks4.Request.decode(wire + b"d\0").domain is None


@pytest.mark.parametrize(
    "request_",
    [
        socks4.Request(Command.CONNECT, V4, 80, b"u\0v"),
        socks4.Request(Command.CONNECT, V4, 80, b"u" * 256),
        socks4.Request(Command.CONNECT, socks4.MARKER, 80, b"", b"d\0e"),
        socks4.Request(Command.CONNECT, socks4.MARKER, 80, b"", b"d" * 256),
        socks4.Request(Command.CONNECT, V4, 80, b"", b"d"),
        socks4.Request(Command.CONNECT, IPv4Address("0.0.0.9"), 80),
    ],
)
def test_socks4_request_that_would_be_read_otherwise_is_not_written(request_: socks4.Request) -> None:
    with pytest.raises(UsageError):
        request_.encode()


@pytest.mark.parametrize(
    "wire",
    [
        "",
        "00 00 00",
        "00 00 00 01",
        "00 00 00 01 c0 00 02 01 00",
        "00 01 00 01 c0 00 02 01 00 35",
        "01 00 00 01 c0 00 02 01 00 35",
        "00 00 00 00 c0 00 02 01 00 35",
        "00 00 00 09 c0 00 02 01 00 35",
        "00 00 00 03 ff 61 00 35",
    ],
)
def test_malformed_datagram_is_refused(wire: str) -> None:
    with pytest.raises(ProtocolError):
        udp.Datagram.decode(bytes.fromhex(wire))


def test_header_alone_is_a_datagram_without_data() -> None:
    header = udp.encode_header(V4, 53)
    assert header == bytes.fromhex("00 00 00 01 c0 00 02 01 00 35")  # RFC 1928 section 7
    assert udp.Datagram.decode(header) == udp.Datagram(V4, 53, b"")
