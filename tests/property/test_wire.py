"""Every codec: what is written is read, no prefix is enough, garbage is refused in one way."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabi.errors import AuthError, ProtocolError, Reply
from tabi.wire import socks4, socks5, udp, userpass
from tabi.wire.socks5 import Command, Method
from vectors.messages import CODECS

BYTE = st.integers(0, 255)
PORTS = st.integers(0, 65535)
HOSTS = st.one_of(st.ip_addresses(), st.binary(max_size=255))
V4 = st.ip_addresses(v=4)
STRINGS = st.binary(max_size=255).map(lambda data: data.replace(b"\0", b""))
MARKERS = st.integers(1, 255).map(IPv4Address)

MESSAGES = st.one_of(
    st.builds(socks5.Greeting, st.lists(BYTE.map(Method), max_size=255).map(tuple)),
    st.builds(socks5.MethodSelection, BYTE.map(Method)),
    st.builds(socks5.Request, BYTE.map(Command), HOSTS, PORTS, BYTE),
    st.builds(socks5.ReplyMessage, BYTE.map(Reply), HOSTS, PORTS),
    st.builds(userpass.Credentials, st.binary(min_size=1, max_size=255), st.binary(min_size=1, max_size=255)),
    st.builds(userpass.Status, BYTE),
    st.builds(socks4.Request, BYTE.map(Command), V4.filter(lambda ip: not 0 < int(ip) < 256), PORTS, STRINGS),
    st.builds(socks4.Request, BYTE.map(Command), MARKERS, PORTS, STRINGS, STRINGS),
    st.builds(socks4.ReplyMessage, BYTE.map(socks4.Code), V4, PORTS),
)
DATAGRAMS = st.builds(udp.Datagram, HOSTS, PORTS, st.binary(max_size=2000), BYTE)


@given(MESSAGES, st.binary(max_size=20))
def test_what_is_written_is_read_and_nothing_behind_it(message: object, behind: bytes) -> None:
    wire = message.encode()
    codec = type(message)
    assert codec.size(wire + behind) == len(wire)
    assert codec.decode(wire + behind) == message
    assert codec.decode(wire).encode() == wire


@given(DATAGRAMS)
def test_datagram_that_is_written_is_read(datagram: udp.Datagram) -> None:
    assert udp.Datagram.decode(datagram.encode()) == datagram


@given(MESSAGES)
def test_every_proper_prefix_needs_more_but_never_more_than_the_message(message: object) -> None:
    wire = message.encode()
    for end in range(len(wire)):
        assert end < type(message).size(wire[:end]) <= len(wire)


HEADS = st.sampled_from([b"", b"\x00", b"\x01", b"\x04", b"\x05", b"\x05\x00\x00\x03"])


@given(st.binary(max_size=600), HEADS)
def test_garbage_is_refused_or_read_as_something_that_can_be_written(body: bytes, head: bytes) -> None:
    data = head + body
    for codec in CODECS:
        try:
            if (size := codec.size(data)) > len(data):
                continue
            message = codec.decode(data[:size])
        except (ProtocolError, AuthError):
            continue
        if codec not in (socks5.ReplyMessage, userpass.Status, userpass.Credentials, socks4.ReplyMessage):
            assert message.encode() == data[:size]  # nothing of it was ignored


@given(st.binary(max_size=600))
def test_any_datagram_is_read_whole_or_refused_by_protocol_error(data: bytes) -> None:
    try:
        datagram = udp.Datagram.decode(data)
    except ProtocolError:
        return
    assert datagram.encode() == data


@pytest.mark.parametrize("end", range(4 + 1 + 255 + 2))
def test_datagram_header_that_is_cut_anywhere_is_refused(end: int) -> None:
    whole = udp.Datagram(b"d" * 255, 53, b"").encode()
    with pytest.raises(ProtocolError):
        udp.Datagram.decode(whole[:end])


def size(codec: type, data: bytes) -> int | None:
    """Ask the codec; None for a refusal."""
    try:
        return codec.size(data)
    except ProtocolError:
        return None


@given(st.binary(max_size=300), HEADS)
def test_refusal_does_not_depend_on_how_much_was_read_at_once(body: bytes, head: bytes) -> None:
    data = head + body
    for codec in CODECS:
        at = 0  # reading no more than is asked for
        while (asked := size(codec, data[:at])) is not None and at < asked <= len(data):
            at = asked
        for end in range(len(data) + 1):
            assert size(codec, data[:end]) is not None or (asked is None and at <= end)
