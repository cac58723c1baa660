"""The server's half of SOCKS5: every scenario is played in all cuts, and with bytes behind its end (`Script`).

Bytes are typed from RFC 1928 (greeting section 3, request 4, reply 6) and RFC 1929 section 2.
"""

from ipaddress import IPv4Address, IPv6Address

import pytest

from tabi.addr import Endpoint, Name, parse_host
from tabi.errors import AuthError, ProtocolError, Reply, Stage, UsageError
from tabi.machine.base import Failed, NeedData
from tabi.machine.server import CredentialsReceived, RequestReceived, ServerMachine, ServerOptions
from tabi.testing import Script
from tabi.wire.socks5 import Command, Method
from tabi.wire.version import Version

NO_AUTH = "05 01 00"
USERPASS = "05 01 02"
LOGIN = "01 05 61 6c 69 63 65 06 73 65 73 61 6d 65"  # alice, sesame
CONNECT = "05 01 00 01 c0 00 02 01 00 50"  # 192.0.2.1 port 80
BOUND = Endpoint(IPv4Address("203.0.113.9"), 1080)
TARGET = Endpoint(IPv4Address("192.0.2.1"), 80)
PASSWORDS = ServerOptions(methods=frozenset({Method.USERPASS}))


def serve(**options: object) -> Script[ServerMachine]:
    return Script(lambda: ServerMachine(ServerOptions(**options)))


def ask_password() -> Script[ServerMachine]:
    return Script(lambda: ServerMachine(PASSWORDS)).feeds(USERPASS).sends("05 02")


def accept() -> Script[ServerMachine]:
    return serve().feeds(NO_AUTH).sends("05 00")


def asks(command: Command, target: Endpoint, method: Method = Method.NONE) -> RequestReceived:
    return RequestReceived(Version.SOCKS5, method, command, target)


def reply(code: int) -> str:
    return f"05 {code:02x} 00 01 00 00 00 00 00 00"


# the way it goes


def test_connect_without_authentication() -> None:
    script = accept().feeds(CONNECT).expects(asks(Command.CONNECT, TARGET)).sends("")
    script.decides(lambda machine: machine.succeed(BOUND)).sends("05 00 00 01 cb 00 71 09 04 38").run()


def test_connect_with_password() -> None:
    script = ask_password().feeds(LOGIN).expects(CredentialsReceived(b"alice", b"sesame"))
    script.decides(lambda machine: machine.authenticated()).sends("01 00")
    script.feeds(CONNECT).expects(asks(Command.CONNECT, TARGET, Method.USERPASS)).run()


def test_reply_carries_an_ipv6_address() -> None:
    bound = Endpoint(IPv6Address("2001:db8::1"), 4321)
    script = accept().feeds(CONNECT).expects(RequestReceived).decides(lambda machine: machine.succeed(bound))
    script.sends("05 00 00 04 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 10 e1").run()


def test_led_to_is_not_what_a_socks5_reply_carries() -> None:
    script = accept().feeds(CONNECT).expects(RequestReceived)
    script.decides(lambda machine: machine.succeed(BOUND, led_to=TARGET))
    script.sends("05 00 00 01 cb 00 71 09 04 38").run()


def test_bind_is_answered_twice() -> None:
    peer = Endpoint(IPv4Address("192.0.2.1"), 20)
    script = accept().feeds("05 02" + CONNECT[5:]).expects(asks(Command.BIND, TARGET))
    script.decides(lambda machine: machine.listening(BOUND)).sends("05 00 00 01 cb 00 71 09 04 38")
    script.decides(lambda machine: machine.succeed(peer)).sends("05 00 00 01 c0 00 02 01 00 14").run()


def test_bind_may_fail_after_its_first_reply() -> None:
    script = accept().feeds("05 02" + CONNECT[5:]).expects(asks(Command.BIND, TARGET))
    script.decides(lambda machine: machine.listening(BOUND)).sends("05 00 00 01 cb 00 71 09 04 38")
    script.decides(lambda machine: machine.fail(Reply.NOT_ALLOWED)).sends(reply(2)).run()


def test_bind_may_fail_at_once() -> None:
    script = accept().feeds("05 02" + CONNECT[5:]).expects(asks(Command.BIND, TARGET))
    script.decides(lambda machine: machine.fail(Reply.GENERAL_FAILURE)).sends(reply(1)).run()


@pytest.mark.parametrize("command", [Command.BIND, Command.UDP_ASSOCIATE])
def test_address_and_port_of_all_zeros_is_for_others_than_connect(command: Command) -> None:
    request = bytes((5, command)) + bytes.fromhex("00 01 00 00 00 00 00 00")
    accept().feeds(request).expects(asks(command, Endpoint(IPv4Address(0), 0))).run()


@pytest.mark.parametrize("code", range(1, 9))
def test_failure_replies_are_ten_bytes_with_nothing_in_them(code: int) -> None:
    script = accept().feeds(CONNECT).expects(RequestReceived).decides(lambda machine: machine.fail(Reply(code)))
    script.sends(reply(code)).run()


# everything in one segment


def test_greeting_login_request_and_payload_in_one_segment() -> None:
    script = Script(lambda: ServerMachine(PASSWORDS)).feeds(USERPASS + LOGIN + CONNECT).feeds(b"GET / HTTP/1.1\r\n")
    script.expects(CredentialsReceived(b"alice", b"sesame")).decides(lambda machine: machine.authenticated())
    script.expects(asks(Command.CONNECT, TARGET, Method.USERPASS)).sends("05 02 01 00")
    script.leaves(b"GET / HTTP/1.1\r\n").run()


def test_early_data_comes_out_once_and_in_order() -> None:
    machine = ServerMachine()
    machine.receive_data(bytes.fromhex(NO_AUTH + CONNECT) + b"one")
    assert isinstance(machine.next_event(), RequestReceived)
    machine.receive_data(b"two")
    assert machine.take_early() == b"onetwo"
    assert machine.take_early() == b""


def test_refused_login_executes_nothing_that_was_pipelined_behind_it() -> None:
    script = ask_password().feeds(LOGIN + CONNECT).expects(CredentialsReceived)
    script.decides(lambda machine: machine.refuse_credentials()).fails(AuthError, text="wrong user name or password")
    script.sends("01 01").run()


# method negotiation


def test_greeting_without_methods_is_refused_by_05_ff() -> None:
    serve().feeds("05 00").fails(AuthError, text="offers nothing").sends("05 ff").run()


@pytest.mark.parametrize("methods", ["01 01", "02 02 80", "01 ff", "03 01 03 fe"])
def test_no_common_method_is_answered_by_exactly_05_ff(methods: str) -> None:
    serve().feeds("05" + methods).fails(AuthError, text="no acceptable method").sends("05 ff").run()


def test_offer_of_255_methods_is_summed_up_for_the_log() -> None:
    offer = bytes(range(1, 256))
    text = "client offers GSSAPI, USERPASS, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 247 more; this listener takes NONE"
    serve().feeds(b"\x05\xff" + offer).fails(AuthError, text=text).sends("05 ff").run()


def test_listener_with_passwords_does_not_take_a_client_without() -> None:
    Script(lambda: ServerMachine(PASSWORDS)).feeds(NO_AUTH).fails(AuthError).sends("05 ff").run()


def test_announced_methods_are_waited_for() -> None:
    serve().feeds("05 03 00").sends("").needs(2).run()


def test_255_methods_with_duplicates_are_read() -> None:
    methods = b"\x05\xff" + b"\x80" * 100 + b"\x00" * 155
    serve().feeds(methods).sends("05 00").feeds(CONNECT).expects(asks(Command.CONNECT, TARGET)).run()


@pytest.mark.parametrize("offer", ["02 00 02", "02 02 00", "03 01 02 00"])
def test_strongest_common_method_is_taken_whatever_the_order(offer: str) -> None:
    both = frozenset({Method.NONE, Method.USERPASS})
    serve(methods=both).feeds("05" + offer).sends("05 02").needs(1).run()


@pytest.mark.parametrize("method", [Method.GSSAPI, Method.NO_ACCEPTABLE, Method(0x80)])
def test_method_that_could_not_be_negotiated_is_no_option(method: Method) -> None:
    with pytest.raises(UsageError):
        ServerOptions(methods=frozenset({Method.NONE, method}))


# first byte


@pytest.mark.parametrize("first", [0x00, 0x01, 0x03, 0x06, 0x07, 0x0D, 0x40, 0x5B, 0x67, 0xFF])
def test_other_first_byte_is_closed_without_a_byte(first: int) -> None:
    serve().feeds(bytes((first,))).fails(ProtocolError, text=f"0x{first:02x}").sends("").run()


def test_tls_client_is_named_and_closed_without_a_byte() -> None:
    serve().feeds("16 03 01 02 00 01").fails(ProtocolError, text="TLS").sends("").run()


@pytest.mark.parametrize("request_", [b"GET http://secret.example/ HTTP/1.1\r\n", b"CONNECT x:1", b"PRI * HTTP/2.0"])
def test_http_client_hears_what_this_port_is_and_nothing_of_its_own(request_: bytes) -> None:
    script = serve().feeds(request_).fails(ProtocolError, text="HTTP")
    script.sends(
        b"HTTP/1.1 501 Not Implemented\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Connection: close\r\n"
        b"Content-Length: 115\r\n"
        b"\r\n"
        b"This port speaks SOCKS (4, 4a, 5), not HTTP.\n"
        b"Set it as a SOCKS proxy, for example: curl -x socks5h://HOST:PORT URL\n"
    ).run()


def test_login_before_any_negotiation_is_closed_without_a_byte() -> None:
    serve().feeds(LOGIN).fails(ProtocolError).sends("").run()


# authentication


@pytest.mark.parametrize("version", [0x00, 0x02, 0x05, 0xFF])
def test_login_with_another_version_is_refused_by_status_01(version: int) -> None:
    script = ask_password().feeds(bytes((version,)) + bytes.fromhex(LOGIN)[1:])
    script.fails(AuthError, text="version").sends("01 01").run()


def test_request_instead_of_login_is_never_executed() -> None:
    ask_password().feeds(CONNECT).fails(AuthError, text="version").sends("01 01").run()


def test_login_after_no_authentication_was_chosen_is_closed_without_a_byte() -> None:
    accept().feeds(LOGIN).fails(ProtocolError, text="version").sends("").run()


@pytest.mark.parametrize("login", ["01 00 00", "01 01 61 00", "01 00 01 62"])
def test_empty_name_or_password_is_refused(login: str) -> None:
    ask_password().feeds(login).fails(AuthError, text="empty").sends("01 01").run()


@pytest.mark.parametrize(
    ("login", "event"),
    [
        ("01 00 00", CredentialsReceived(b"", b"")),
        ("01 01 61 00", CredentialsReceived(b"a", b"")),
        ("01 00 01 62", CredentialsReceived(b"", b"b")),
    ],
)
def test_empty_name_or_password_is_taken_where_isolation_wants_it(login: str, event: CredentialsReceived) -> None:
    script = serve(methods=frozenset({Method.USERPASS}), empty_credentials=True).feeds(USERPASS).sends("05 02")
    script.feeds(login).expects(event).decides(lambda machine: machine.authenticated()).sends("01 00").needs(1).run()


def test_name_and_password_of_255_bytes_are_taken() -> None:
    script = ask_password().feeds(b"\x01\xff" + b"u" * 255 + b"\xff" + b"p" * 255)
    script.expects(CredentialsReceived(b"u" * 255, b"p" * 255))
    script.decides(lambda machine: machine.authenticated()).sends("01 00").needs(1).run()


@pytest.mark.parametrize("byte", [0x00, 0x01, 0x0A, 0x0D, 0x1B, 0x1F, 0x7F])
def test_control_byte_in_a_user_name_is_refused(byte: int) -> None:
    login = b"\x01\x07alice" + bytes((byte,)) + b"x\x06sesame"
    ask_password().feeds(login).fails(AuthError, text="control").sends("01 01").run()


def test_nul_in_a_password_is_refused() -> None:
    ask_password().feeds(b"\x01\x05alice\x07sesame\0").fails(AuthError, text="NUL").sends("01 01").run()


def test_password_never_shows() -> None:
    machine = ServerMachine(PASSWORDS)
    machine.receive_data(bytes.fromhex(USERPASS + LOGIN))
    event = machine.next_event()
    assert "sesame" not in repr(event)
    machine.refuse_credentials()
    failed = machine.next_event()
    assert isinstance(failed, Failed)
    assert "sesame" not in repr(failed)


# decisions out of turn


def test_nobody_is_let_in_by_a_decision_before_the_login() -> None:
    script = ask_password()
    script.decides(lambda machine: refuses(machine.authenticated)).feeds(LOGIN).expects(CredentialsReceived)
    script.decides(lambda machine: machine.refuse_credentials()).fails(AuthError).sends("01 01")
    script.decides(lambda machine: refuses(machine.authenticated)).run()


def test_no_event_comes_before_the_login_is_decided() -> None:
    script = ask_password().feeds(LOGIN + CONNECT).expects(CredentialsReceived)
    script.decides(lambda machine: refuses(machine.next_event)).decides(lambda machine: machine.authenticated())
    script.expects(RequestReceived).sends("01 00").run()


def test_no_reply_goes_out_before_the_request() -> None:
    script = accept().decides(lambda machine: refuses(lambda: machine.fail(Reply.GENERAL_FAILURE)))
    script.decides(lambda machine: refuses(lambda: machine.succeed(BOUND))).sends("").needs(1).run()


def test_tunnel_gets_no_second_reply_into_it() -> None:
    script = accept().feeds(CONNECT).expects(RequestReceived).decides(lambda machine: machine.succeed(BOUND))
    script.sends("05 00 00 01 cb 00 71 09 04 38")
    script.decides(lambda machine: refuses(lambda: machine.fail(Reply.GENERAL_FAILURE)))
    script.decides(lambda machine: refuses(lambda: machine.succeed(BOUND))).sends("").run()


def test_refused_request_is_not_granted_afterwards() -> None:
    script = accept().feeds("05 09" + CONNECT[5:]).fails(ProtocolError).sends(reply(7))
    script.decides(lambda machine: refuses(lambda: machine.succeed(BOUND))).sends("").run()


def test_connect_is_not_answered_as_bind_nor_bind_as_connect() -> None:
    script = accept().feeds(CONNECT).expects(RequestReceived)
    script.decides(lambda machine: refuses(lambda: machine.listening(BOUND))).sends("").run()
    script = accept().feeds("05 02" + CONNECT[5:]).expects(RequestReceived)
    script.decides(lambda machine: refuses(lambda: machine.succeed(BOUND))).sends("").run()


def test_machine_tells_whether_the_last_reply_has_been_put_out() -> None:
    machine = ServerMachine()
    machine.receive_data(bytes.fromhex(NO_AUTH + "05 02" + CONNECT[5:]))
    machine.next_event()
    assert not machine.replied
    machine.listening(BOUND)
    assert not machine.replied
    machine.succeed(TARGET)
    assert machine.replied


@pytest.mark.parametrize("ended", [NO_AUTH + CONNECT, "00"])
def test_no_event_comes_after_the_last(ended: str) -> None:
    machine = ServerMachine()
    machine.receive_data(bytes.fromhex(ended))
    machine.next_event()
    assert machine.is_over
    refuses(machine.next_event)


def test_bytes_of_the_handshake_are_not_given_away_as_early_data() -> None:
    script = accept().feeds("05 01").decides(lambda machine: refuses(machine.take_early))
    script.feeds(CONNECT[5:]).expects(asks(Command.CONNECT, TARGET)).run()


def refuses(call: object) -> None:
    with pytest.raises(UsageError):
        call()


# requests


@pytest.mark.parametrize("code", [0x00, 0x04, 0x05, 0x09, 0xEF, 0xF2, 0xFF])
def test_unknown_command_is_answered_by_reply_7(code: int) -> None:
    script = accept().feeds(bytes((5, code)) + bytes.fromhex(CONNECT)[2:])
    script.fails(ProtocolError, reply=Reply.COMMAND_NOT_SUPPORTED).sends(reply(7)).run()


@pytest.mark.parametrize("atyp", [0x00, 0x02, 0x05, 0x23, 0xFF])
def test_unknown_address_type_is_answered_by_reply_8_before_the_address_has_come(atyp: int) -> None:
    script = accept().feeds(bytes((5, 1, 0, atyp)))
    script.fails(ProtocolError, reply=Reply.ADDRESS_TYPE_NOT_SUPPORTED).sends(reply(8)).run()


@pytest.mark.parametrize("version", [0x00, 0x01, 0x04, 0x47])
def test_request_of_another_version_is_closed_without_a_byte(version: int) -> None:
    script = accept().feeds(bytes((version,)) + bytes.fromhex(CONNECT)[1:])
    script.fails(ProtocolError, text="version").sends("").run()


def test_rsv_is_not_judged() -> None:
    accept().feeds("05 01 ff" + CONNECT[8:]).expects(asks(Command.CONNECT, TARGET)).run()


def test_rsv_is_judged_where_strictness_is_wanted() -> None:
    script = serve(strict_rsv=True).feeds(NO_AUTH).sends("05 00")
    script.feeds("05 01 01" + CONNECT[8:]).fails(ProtocolError, text="RSV").sends(reply(1)).run()
    script = serve(strict_rsv=True).feeds(NO_AUTH).sends("05 00")
    script.feeds(CONNECT).expects(asks(Command.CONNECT, TARGET)).run()


def test_port_0_cannot_be_connected_to() -> None:
    script = accept().feeds("05 01 00 01 c0 00 02 01 00 00")
    script.fails(ProtocolError, reply=Reply.GENERAL_FAILURE, text="port 0").sends(reply(1)).run()


@pytest.mark.parametrize("address", ["01 00 00 00 00", "04" + "00" * 16, "04" + "00" * 10 + "ff ff 00 00 00 00"])
def test_unspecified_address_cannot_be_connected_to(address: str) -> None:
    script = accept().feeds("05 01 00" + address + "00 50")
    script.fails(ProtocolError, reply=Reply.GENERAL_FAILURE, text="no host to connect to").sends(reply(1)).run()


def domain(name: bytes) -> bytes:
    return b"\x05\x01\x00\x03" + bytes((len(name),)) + name + b"\x00\x50"


@pytest.mark.parametrize(
    ("name", "host"),
    [
        (b"Example.COM.", "example.com"),
        (b"192.0.2.1", "192.0.2.1"),
        (b"::1", "::1"),
        (b"[2001:db8::1]", "2001:db8::1"),
        (b"::ffff:192.0.2.1", "192.0.2.1"),
        ("bücher.example".encode(), "xn--bcher-kva.example"),
        (".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61]).encode(), None),
    ],
)
def test_domain_is_normalised_once(name: bytes, host: str | None) -> None:
    target = Endpoint(parse_host(host or name), 80)
    assert host is None or str(target.host) == host
    accept().feeds(domain(name)).expects(asks(Command.CONNECT, target)).run()


def test_ipv4_mapped_target_becomes_ipv4() -> None:
    mapped = "05 01 00 04 00 00 00 00 00 00 00 00 00 00 ff ff c0 00 02 01 00 50"
    accept().feeds(mapped).expects(asks(Command.CONNECT, TARGET)).run()


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"10.71.2.2\0bad",
        b"\0",
        b"a\r\nb",
        b"a b",
        b"172425730",
        b"0x7f.1",
        b"0177.0.0.1",
        b"127.1",
        b"---",
        b"a" * 64,
        b"a." * 127 + b"a",
        b"\xff" * 255,
        b"[::1",
        b"fe80::1%lo",
    ],
)
def test_name_that_is_none_is_answered_by_reply_4_and_escaped_in_the_log(name: bytes) -> None:
    script = accept().feeds(domain(name)).fails(ProtocolError, reply=Reply.HOST_UNREACHABLE).sends(reply(4))
    script.run()
    failed = outcome(bytes.fromhex(NO_AUTH) + domain(name))
    assert isinstance(failed, Failed)
    assert failed.asked.startswith('CONNECT "')
    assert failed.asked.endswith(":80")
    assert (failed.asked + failed.error.text).isprintable()


def outcome(data: bytes, *, end: bool = False) -> object:
    machine = ServerMachine()
    machine.receive_data(data)
    event = machine.next_event()
    if end:
        assert isinstance(event, NeedData)
        machine.receive_data(b"")
        event = machine.next_event()
    return event


def test_what_was_asked_brackets_ipv6() -> None:
    failed = outcome(bytes.fromhex(NO_AUTH + "05 09 00 04" + "00" * 15 + "01 00 50"))
    assert isinstance(failed, Failed)
    assert failed.asked == "0x09 [::1]:80"


# Tor's extensions


@pytest.mark.parametrize("command", [Command.RESOLVE, Command.RESOLVE_PTR])
def test_tor_commands_are_unknown_without_the_switch(command: Command) -> None:
    script = accept().feeds(bytes((5, command)) + bytes.fromhex(CONNECT)[2:])
    script.fails(ProtocolError, reply=Reply.COMMAND_NOT_SUPPORTED).sends(reply(7)).run()


def tor() -> Script[ServerMachine]:
    return serve(tor_resolve=True).feeds(NO_AUTH).sends("05 00")


def test_resolve_takes_a_name_with_port_0_and_answers_with_the_address() -> None:
    script = tor().feeds("05 f0 00 03 01 61 00 00").expects(asks(Command.RESOLVE, Endpoint(Name("a"), 0)))
    script.decides(lambda machine: machine.succeed(Endpoint(IPv4Address("192.0.2.7"), 0)))
    script.sends("05 00 00 01 c0 00 02 07 00 00").run()


def test_resolve_takes_an_address_in_brackets() -> None:
    script = tor().feeds(b"\x05\xf0\x00\x03\x05[::1]\x00\x2a")
    script.expects(asks(Command.RESOLVE, Endpoint(IPv6Address("::1"), 42))).run()


def test_resolve_ptr_answers_with_a_name() -> None:
    script = tor().feeds("05 f1 00 01 c0 00 02 01 00 00")
    script.expects(asks(Command.RESOLVE_PTR, Endpoint(IPv4Address("192.0.2.1"), 0)))
    script.decides(lambda machine: machine.succeed(Endpoint(Name("host.example"), 0)))
    script.sends(b"\x05\x00\x00\x03\x0chost.example\x00\x00").run()


def test_resolve_ptr_of_a_name_is_answered_by_reply_8() -> None:
    script = tor().feeds("05 f1 00 03 01 61 00 00")
    script.fails(ProtocolError, reply=Reply.ADDRESS_TYPE_NOT_SUPPORTED).sends(reply(8)).run()


# the end of the client's direction


def test_close_right_after_the_request_is_no_failure() -> None:
    accept().feeds(CONNECT).closes().expects(asks(Command.CONNECT, TARGET)).run()


WHOLE = bytes.fromhex(USERPASS + LOGIN + CONNECT)


@pytest.mark.parametrize("at", range(len(WHOLE)))
def test_close_inside_the_handshake_fails_without_a_reply(at: int) -> None:
    machine = ServerMachine(PASSWORDS)
    for byte in WHOLE[:at]:
        machine.receive_data(bytes((byte,)))
    event = machine.next_event()
    sent = machine.data_to_send()
    if isinstance(event, CredentialsReceived):
        machine.authenticated()
        machine.next_event()
        sent += machine.data_to_send()
    machine.receive_data(b"")
    failed = machine.next_event()
    assert isinstance(failed, Failed)
    stage = Stage.GREETING if at < 3 else Stage.AUTH if at < 17 else Stage.REQUEST
    assert failed.error.stage is stage
    assert "closed" in failed.error.text
    assert machine.data_to_send() == b""
    assert not machine.replied
    assert sent == bytes.fromhex("05 02" if at >= 3 else "") + bytes.fromhex("01 00" if at >= 17 else "")


@pytest.mark.parametrize(("at", "stage"), [(0, Stage.GREETING), (3, Stage.AUTH), (17, Stage.REQUEST)])
def test_stage_is_known_at_every_moment(at: int, stage: Stage) -> None:
    machine = ServerMachine(PASSWORDS)
    for byte in WHOLE[:at]:
        machine.receive_data(bytes((byte,)))
    if isinstance(machine.next_event(), CredentialsReceived):
        machine.authenticated()
        machine.next_event()
    assert machine.stage is stage
    assert machine.version is (Version.SOCKS5 if at else None)


def test_pysocks_way_of_writing_0_0_0_0_is_taken_for_an_association_and_for_nothing_else() -> None:
    accept().feeds("05 03 00 03 01 30 00 00").expects(asks(Command.UDP_ASSOCIATE, Endpoint(IPv4Address(0), 0))).run()
    for command in ("01", "02"):
        script = accept().feeds(f"05 {command} 00 03 01 30 00 50").expects(Failed)
        script.sends(reply(4)).run()


# reload: other options for who is in the middle of its handshake


@pytest.mark.parametrize(
    ("version", "method", "methods", "socks4", "admitted"),
    [
        (Version.SOCKS5, Method.NONE, {Method.NONE}, None, True),
        (Version.SOCKS5, Method.NONE, {Method.USERPASS}, None, False),
        (Version.SOCKS5, Method.USERPASS, {Method.NONE}, None, True),
        (Version.SOCKS4, Method.NONE, {Method.NONE}, None, True),
        (Version.SOCKS4A, Method.NONE, {Method.USERPASS}, None, False),
        (Version.SOCKS4A, Method.NONE, {Method.USERPASS}, True, True),
        (Version.SOCKS4, Method.NONE, {Method.NONE}, False, False),
    ],
)
def test_who_has_proven_as_much_as_is_asked_now_is_admitted(
    version: Version, method: Method, methods: set[Method], socks4: bool | None, admitted: bool
) -> None:
    assert ServerOptions(methods=frozenset(methods), socks4=socks4).admits(version, method) is admitted


def test_other_options_hold_for_what_is_not_settled_yet() -> None:
    wants_password = ServerOptions(methods=frozenset({Method.USERPASS}))
    machine = ServerMachine()
    assert machine.live_by(wants_password)  # nothing is said yet
    machine.receive_data(b"\x05\x01\x00")
    assert isinstance(machine.next_event(), Failed)
    settled = ServerMachine()
    settled.receive_data(b"\x05\x01\x00")
    assert isinstance(settled.next_event(), NeedData)
    assert not settled.live_by(wants_password)
    assert settled.live_by(ServerOptions())


def test_what_somebody_else_has_sent_already_is_not_sent_again() -> None:
    machine = ServerMachine()
    machine.skip_sent(2)
    machine.receive_data(b"\x05\x01\x00")
    assert isinstance(machine.next_event(), NeedData)
    assert machine.data_to_send() == b""  # the choice of a method had gone out
    machine.receive_data(b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50")
    assert isinstance(machine.next_event(), RequestReceived)
    machine.fail(Reply.CONNECTION_REFUSED)
    assert machine.data_to_send() == b"\x05\x05\x00\x01" + bytes(6)
