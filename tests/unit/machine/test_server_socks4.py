"""The server's half of SOCKS4 and SOCKS4a; bytes typed from SOCKS4.protocol and SOCKS4a.protocol."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from tabi.addr import Endpoint, Name
from tabi.errors import AuthError, ProtocolError, Reply, Stage
from tabi.machine.base import Failed
from tabi.machine.server import RequestReceived, ServerMachine, ServerOptions
from tabi.testing import Script
from tabi.wire.socks5 import Command, Method
from tabi.wire.version import Version

CONNECT = "04 01 00 50 c0 00 02 01 62 6f 62 00"  # 192.0.2.1 port 80, USERID bob
CONNECT_4A = CONNECT.replace("c0 00 02 01", "00 00 00 01") + "61 2e 62 00"  # a.b
REJECTED = "00 5b 00 00 00 00 00 00"
TARGET = Endpoint(IPv4Address("192.0.2.1"), 80)
BOUND = Endpoint(IPv4Address("203.0.113.9"), 1080)
LED_TO = Endpoint(IPv4Address("198.51.100.7"), 80)


def serve(**options: object) -> Script[ServerMachine]:
    return Script(lambda: ServerMachine(ServerOptions(**options)))


def asks(command: Command, target: Endpoint, version: Version, userid: bytes = b"bob") -> RequestReceived:
    return RequestReceived(version, Method.NONE, command, target, userid)


def test_connect_is_granted_with_our_end() -> None:
    script = serve().feeds(CONNECT).expects(asks(Command.CONNECT, TARGET, Version.SOCKS4))
    script.decides(lambda machine: machine.succeed(BOUND, led_to=LED_TO)).sends("00 5a 04 38 cb 00 71 09").run()


def test_socks4a_reply_carries_what_the_name_led_to() -> None:
    script = serve().feeds(CONNECT_4A)
    script.expects(asks(Command.CONNECT, Endpoint(Name("a.b"), 80), Version.SOCKS4A))
    script.decides(lambda machine: machine.succeed(BOUND, led_to=LED_TO)).sends("00 5a 00 50 c6 33 64 07").run()


def test_ipv6_shows_as_zeros_with_the_true_port() -> None:
    led_to = Endpoint(IPv6Address("2001:db8::1"), 80)
    script = serve().feeds(CONNECT_4A).expects(RequestReceived)
    script.decides(lambda machine: machine.succeed(BOUND, led_to=led_to)).sends("00 5a 00 50 00 00 00 00").run()


@pytest.mark.parametrize("reply", [Reply.GENERAL_FAILURE, Reply.NOT_ALLOWED, Reply.CONNECTION_REFUSED])
def test_every_failure_is_91(reply: Reply) -> None:
    script = serve().feeds(CONNECT).expects(RequestReceived)
    script.decides(lambda machine: machine.fail(reply)).sends(REJECTED).run()


@pytest.mark.parametrize("request_", [CONNECT, CONNECT_4A])
def test_bind_is_answered_twice(request_: str) -> None:
    script = serve().feeds("04 02" + request_[5:]).expects(RequestReceived)
    script.decides(lambda machine: machine.listening(BOUND)).sends("00 5a 04 38 cb 00 71 09")
    script.decides(lambda machine: machine.succeed(LED_TO)).sends("00 5a 00 50 c6 33 64 07").run()


def test_bind_with_the_wrong_peer_ends_with_91() -> None:
    script = serve().feeds("04 02" + CONNECT[5:]).expects(RequestReceived)
    script.decides(lambda machine: machine.listening(BOUND)).sends("00 5a 04 38 cb 00 71 09")
    script.decides(lambda machine: machine.fail(Reply.NOT_ALLOWED)).sends(REJECTED).run()


def test_payload_behind_the_request_is_early_data() -> None:
    serve().feeds(CONNECT).feeds(b"\0early\0").expects(RequestReceived).leaves(b"\0early\0").run()
    serve().feeds(CONNECT_4A).feeds(b"\0early\0").expects(RequestReceived).leaves(b"\0early\0").run()


def test_address_written_as_a_socks4a_name_is_an_address() -> None:
    script = serve().feeds(CONNECT_4A[:-11] + b"[::1]".hex() + "00")
    script.expects(asks(Command.CONNECT, Endpoint(IPv6Address("::1"), 80), Version.SOCKS4A)).run()


def test_userid_may_be_empty_and_is_otherwise_kept_as_it_came() -> None:
    script = serve().feeds("04 01 00 50 c0 00 02 01 00")
    script.expects(asks(Command.CONNECT, TARGET, Version.SOCKS4, b"")).run()
    script = serve().feeds("04 01 00 50 c0 00 02 01 0d 0a ff 00")
    script.expects(asks(Command.CONNECT, TARGET, Version.SOCKS4, b"\r\n\xff")).run()


def test_request_without_its_nul_is_waited_for() -> None:
    serve().feeds(CONNECT[:-3]).sends("").needs(1).run()
    serve().feeds(CONNECT_4A[:-3]).sends("").needs(1).run()


@pytest.mark.parametrize("more", [0, 1, 2000, 100_000])
def test_userid_without_end_is_answered_by_91_at_its_256th_byte(more: int) -> None:
    script = Script(ServerMachine, seeds=1).feeds(bytes.fromhex(CONNECT)[:8] + b"u" * (256 + min(more, 2000)))
    script.fails(ProtocolError, text="USERID").sends(REJECTED).run()
    machine = ServerMachine()
    machine.receive_data(bytes.fromhex(CONNECT)[:8] + b"u" * (256 + more))
    assert isinstance(machine.next_event(), Failed)


@pytest.mark.parametrize("more", [0, 2000])
def test_domain_without_end_is_answered_by_91_at_its_256th_byte(more: int) -> None:
    script = Script(ServerMachine, seeds=1).feeds(bytes.fromhex(CONNECT_4A)[:12] + b"d" * (256 + more))
    script.fails(ProtocolError, text="domain").sends(REJECTED).run()


def test_longest_request_is_read() -> None:
    labels = b".".join([b"a" * 63, b"b" * 63, b"c" * 63, b"d" * 61])
    script = serve().feeds(bytes.fromhex("04 01 00 50 00 00 00 ff") + b"u" * 255 + b"\0" + labels + b"\0")
    target = Endpoint(Name(labels.decode()), 80)
    script.expects(asks(Command.CONNECT, target, Version.SOCKS4A, b"u" * 255)).run()


@pytest.mark.parametrize("code", [0x00, 0x03, 0x09, 0xF0, 0xF1, 0xFF])
def test_unknown_command_is_answered_by_91(code: int) -> None:
    script = serve().feeds(bytes((4, code)) + bytes.fromhex(CONNECT)[2:])
    script.fails(ProtocolError, reply=Reply.COMMAND_NOT_SUPPORTED).sends(REJECTED).run()


@pytest.mark.parametrize("request_", [CONNECT, CONNECT_4A])
def test_resolve_is_served_where_it_is_switched_on(request_: str) -> None:
    script = serve(tor_resolve=True).feeds("04 f0" + request_[5:]).expects(RequestReceived)
    script.decides(lambda machine: machine.succeed(LED_TO)).sends("00 5a 00 50 c6 33 64 07").run()


def test_resolve_ptr_is_for_socks5_alone() -> None:
    script = serve(tor_resolve=True).feeds("04 f1" + CONNECT[5:])
    script.fails(ProtocolError, reply=Reply.COMMAND_NOT_SUPPORTED).sends(REJECTED).run()


@pytest.mark.parametrize(
    "request_",
    [
        b"\x04\x01\x00\x50\x00\x00\x00\x00\x00",  # DSTIP 0.0.0.0
        b"\x04\x01\x00\x00\xc0\x00\x02\x01\x00",  # DSTPORT 0
        b"\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00",  # empty domain
        b"\x04\x01\x00\x50\x00\x00\x00\x01\x00---\x00",
        b"\x04\x01\x00\x50\x00\x00\x00\x01\x00127.1\x00",
        b"\x04\x01\x00\x50\x00\x00\x00\x01\x00a\nb\x00",
    ],
)
def test_target_that_is_none_is_answered_by_91(request_: bytes) -> None:
    serve().feeds(request_).fails(ProtocolError).sends(REJECTED).run()


def test_listener_with_passwords_answers_91() -> None:
    script = serve(methods=frozenset({Method.USERPASS})).feeds(CONNECT)
    script.fails(AuthError, reply=Reply.NOT_ALLOWED).sends(REJECTED).run()


@pytest.mark.parametrize("at", range(1, len(bytes.fromhex(CONNECT_4A))))
def test_close_inside_the_request_fails_without_a_reply(at: int) -> None:
    script = serve().feeds(bytes.fromhex(CONNECT_4A)[:at]).closes()
    script.fails(ProtocolError, text=f"closed in the request, {at} bytes").sends("").run()


def test_failure_tells_what_was_asked() -> None:
    machine = ServerMachine()
    machine.receive_data(bytes.fromhex("04 09 00 50 00 00 00 01 00 0a 00"))
    failed = machine.next_event()
    assert isinstance(failed, Failed)
    assert failed.asked == r'0x09 "\x0a":80'
    assert failed.error.stage is Stage.REQUEST


def test_socks4_can_be_opened_beside_passwords_and_closed_beside_none() -> None:
    opened = ServerOptions(methods=frozenset({Method.USERPASS}), socks4=True)
    script = Script(lambda: ServerMachine(opened)).feeds("04 01 00 50 c0 00 02 01 00").expects(RequestReceived)
    script.run()
    closed = ServerOptions(socks4=False)
    script = Script(lambda: ServerMachine(closed)).feeds("04 01 00 50 c0 00 02 01 00").expects(Failed)
    script.sends("00 5b 00 00 00 00 00 00").run()
