"""The client's half: what it says, and what it takes from servers good, odd and hostile."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from tabi.addr import Endpoint, Name
from tabi.errors import AuthError, DeniedError, DialError, ProtocolError, Reply, Side, Stage, TabiError, UsageError
from tabi.machine.base import Failed
from tabi.machine.client import Accepted, ClientMachine, ClientOptions, Granted
from tabi.testing import Script
from tabi.wire.socks5 import Command
from tabi.wire.version import Version

TARGET = Endpoint(IPv4Address("192.0.2.1"), 80)
NAMED = Endpoint(Name("a.b"), 80)
IPV6 = Endpoint(IPv6Address("2001:db8::1"), 80)
BOUND = Endpoint(IPv4Address("203.0.113.9"), 1080)
LOGIN = ClientOptions(username=b"alice", password=b"sesame")
V4, V4A = ClientOptions(version=Version.SOCKS4, username=b"bob"), ClientOptions(version=Version.SOCKS4A)
CONNECT = "05 01 00 01 c0 00 02 01 00 50"
SUCCEEDED = "05 00 00 01 cb 00 71 09 04 38"


def ask(
    command: Command = Command.CONNECT, target: Endpoint = TARGET, options: ClientOptions | None = None
) -> Script[ClientMachine]:
    return Script(lambda: ClientMachine(command, target, options))


def asked() -> Script[ClientMachine]:
    return ask().sends("05 01 00").feeds("05 00").sends(CONNECT)


# what it says


def test_connect_without_credentials_offers_no_authentication_alone() -> None:
    asked().feeds(SUCCEEDED).expects(Granted(BOUND)).run()


def test_connect_with_credentials_offers_both_and_logs_in_when_asked_to() -> None:
    script = ask(options=LOGIN).sends("05 02 00 02").feeds("05 02")
    script.sends("01 05 61 6c 69 63 65 06 73 65 73 61 6d 65").feeds("01 00").sends(CONNECT)
    script.feeds(SUCCEEDED).expects(Granted(BOUND)).run()


def test_credentials_are_not_sent_to_a_server_that_does_not_ask() -> None:
    script = ask(options=LOGIN).sends("05 02 00 02").feeds("05 00").sends(CONNECT)
    script.feeds(SUCCEEDED).expects(Granted(BOUND)).run()


@pytest.mark.parametrize(
    ("target", "request_"),
    [
        (NAMED, "05 01 00 03 03 61 2e 62 00 50"),
        (IPV6, "05 01 00 04 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 00 50"),
    ],
)
def test_names_go_as_names_and_ipv6_as_ipv6(target: Endpoint, request_: str) -> None:
    script = ask(target=target).sends("05 01 00").feeds("05 00").sends(request_)
    script.feeds(SUCCEEDED).expects(Granted(BOUND)).run()


def test_socks4_sends_userid_and_reads_the_reply() -> None:
    script = ask(options=V4).sends("04 01 00 50 c0 00 02 01 62 6f 62 00")
    script.feeds("00 5a 04 38 cb 00 71 09").expects(Granted(BOUND)).run()


def test_socks4a_sends_names_behind_the_marker_and_addresses_plainly() -> None:
    script = ask(target=NAMED, options=V4A).sends("04 01 00 50 00 00 00 01 00 61 2e 62 00")
    script.feeds("00 5a 00 00 00 00 00 00").expects(Granted(Endpoint(IPv4Address(0), 0))).run()
    script = ask(options=V4A).sends("04 01 00 50 c0 00 02 01 00")
    script.feeds("00 5a 04 38 cb 00 71 09").expects(Granted(BOUND)).run()


@pytest.mark.parametrize(
    ("options", "opening", "first", "second"),
    [
        (None, "05 00", SUCCEEDED, "05 00 00 01 c0 00 02 01 00 14"),
        (V4, "", "00 5a 04 38 cb 00 71 09", "00 5a 00 14 c0 00 02 01"),
    ],
)
def test_bind_is_granted_then_accepted(
    options: ClientOptions | None, opening: str, first: str, second: str
) -> None:
    peer = Endpoint(IPv4Address("192.0.2.1"), 20)
    script = ask(Command.BIND, TARGET, options).feeds(opening).feeds(first).feeds(second)
    script.expects(Granted(BOUND)).expects(Accepted(peer)).decides(lambda machine: machine.data_to_send()).run()


def test_bind_that_no_peer_came_to_fails_after_it_was_granted() -> None:
    script = ask(Command.BIND).sends("05 01 00").feeds("05 00").sends("05 02" + CONNECT[5:]).feeds(SUCCEEDED)
    script.expects(Granted(BOUND)).feeds("05 06 00 01 00 00 00 00 00 00")
    script.fails(DialError, reply=Reply.TTL_EXPIRED).run()


def test_second_reply_of_bind_is_not_given_away_as_early_data() -> None:
    machine = ClientMachine(Command.BIND, TARGET, V4)
    machine.receive_data(bytes.fromhex("00 5a 04 38 cb 00 71 09 00 5a"))
    assert machine.next_event() == Granted(BOUND)
    with pytest.raises(UsageError):
        machine.take_early()


def test_udp_associate_is_granted_with_the_relay() -> None:
    zeros = Endpoint(IPv4Address(0), 0)
    script = ask(Command.UDP_ASSOCIATE, zeros).sends("05 01 00").feeds("05 00")
    script.sends("05 03 00 01 00 00 00 00 00 00").feeds(SUCCEEDED).expects(Granted(BOUND)).run()


def test_resolve_ptr_is_granted_with_the_name() -> None:
    script = ask(Command.RESOLVE_PTR, TARGET).sends("05 01 00").feeds("05 00").sends("05 f1" + CONNECT[5:])
    script.feeds("05 00 00 03 03 61 2e 62 00 00").expects(Granted(Endpoint(Name("a.b"), 0))).run()


@pytest.mark.parametrize(
    ("command", "target", "options"),
    [
        (Command.CONNECT, NAMED, V4),
        (Command.CONNECT, IPV6, V4),
        (Command.CONNECT, IPV6, V4A),
        (Command.UDP_ASSOCIATE, TARGET, V4A),
        (Command.RESOLVE_PTR, TARGET, V4A),
        (Command.CONNECT, Endpoint(IPv4Address("0.0.0.1"), 80), V4),
        (Command.CONNECT, Endpoint(IPv4Address("0.0.0.1"), 80), V4A),
        (Command.CONNECT, Endpoint(TARGET.host, 65536), V4),
        (Command.CONNECT, Endpoint(TARGET.host, 65536), None),
        (Command.CONNECT, Endpoint(TARGET.host, -1), None),
        (Command.CONNECT, TARGET, ClientOptions(version=Version.SOCKS4, password=b"p")),
        (Command.CONNECT, TARGET, ClientOptions(version=Version.SOCKS4, username=b"u\0")),
        (Command.CONNECT, TARGET, ClientOptions(version=Version.SOCKS4, username=b"u" * 256)),
        (Command.CONNECT, TARGET, ClientOptions(username=b"u" * 256, password=b"p")),
        (Command.CONNECT, TARGET, ClientOptions(username=b"u", password=b"p" * 256)),
        (Command.CONNECT, TARGET, ClientOptions(username=b"u")),
        (Command.CONNECT, TARGET, ClientOptions(password=b"p")),
    ],
)
def test_what_cannot_be_said_is_refused_before_anything_is_sent(
    command: Command, target: Endpoint, options: ClientOptions | None
) -> None:
    with pytest.raises(UsageError):
        ClientMachine(command, target, options)


def test_password_never_shows() -> None:
    assert "sesame" not in repr(LOGIN)


# what it takes


@pytest.mark.parametrize("banner", [b"220 ready\r\n", b"\x05\x00\x00\x01"])
def test_bytes_glued_to_the_reply_belong_to_the_tunnel(banner: bytes) -> None:
    asked().feeds(SUCCEEDED).feeds(banner).expects(Granted(BOUND)).leaves(banner).run()


def test_bound_name_of_a_reply_is_read() -> None:
    asked().feeds("05 00 00 03 03 41 2e 42 04 38").expects(Granted(Endpoint(Name("a.b"), 1080))).run()


def test_ipv4_mapped_bound_address_becomes_ipv4() -> None:
    mapped = "05 00 00 04 00 00 00 00 00 00 00 00 00 00 ff ff cb 00 71 09 04 38"
    asked().feeds(mapped).expects(Granted(BOUND)).run()


@pytest.mark.parametrize("name", [b"", b"a b", b"127.1", b"d" * 255])
def test_unusable_bound_name_does_not_spoil_a_connect(name: bytes) -> None:
    reply = b"\x05\x00\x00\x03" + bytes((len(name),)) + name + b"\x04\x38"
    asked().feeds(reply).expects(Granted(Endpoint(IPv4Address(0), 1080))).run()


def test_unusable_bound_name_spoils_what_needs_it() -> None:
    script = ask(Command.BIND).sends("05 01 00").feeds("05 00").sends("05 02" + CONNECT[5:])
    script.feeds("05 00 00 03 00 04 38").fails(ProtocolError, text="BND.ADDR").run()


@pytest.mark.parametrize("rest", ["", "00", "00 00", "00 00 00 00 00 00 00 00", "00 01 00 00 00 00 00 00"])
def test_all_methods_refused_in_two_bytes_or_ten(rest: str) -> None:
    script = ask().sends("05 01 00").feeds("05 ff" + rest).fails(AuthError, text="a client without credentials")
    script.sends("").run()


def failure(machine: ClientMachine, *pieces: str, end: bool = False) -> Failed:
    machine.next_event()
    for piece in pieces:
        machine.receive_data(bytes.fromhex(piece))
    if end:
        machine.receive_data(b"")
    failed = machine.next_event()
    assert isinstance(failed, Failed)
    assert failed.error.side is Side.OUTBOUND
    return failed


def test_refusal_of_all_methods_says_that_the_credentials_did_not_help() -> None:
    ask(options=LOGIN).sends("05 02 00 02").feeds("05 ff").fails(AuthError, text="credentials' method").run()


@pytest.mark.parametrize("method", ["01", "02", "4d", "80"])
def test_method_that_was_not_offered_is_a_protocol_error(method: str) -> None:
    ask().sends("05 01 00").feeds("05" + method).fails(ProtocolError, text="not offered").sends("").run()


@pytest.mark.parametrize("version", ["00", "01", "04", "06", "48"])
def test_selection_of_another_version_is_a_protocol_error(version: str) -> None:
    ask().sends("05 01 00").feeds(version + "00").fails(ProtocolError, text="version").sends("").run()


@pytest.mark.parametrize("version", ["00", "04", "48"])
def test_reply_of_another_version_is_a_protocol_error_before_its_address_is_read(version: str) -> None:
    asked().feeds(version + "54 54 50").fails(ProtocolError, text="version").run()


@pytest.mark.parametrize("status", ["01", "02", "ff"])
def test_any_status_but_zero_refuses_the_login(status: str) -> None:
    script = ask(options=LOGIN).sends("05 02 00 02").feeds("05 02")
    script.sends("01 05 61 6c 69 63 65 06 73 65 73 61 6d 65").feeds("01" + status)
    script.fails(AuthError, text=f"0x{status}").sends("").run()


def test_status_with_version_five_is_taken() -> None:
    script = ask(options=LOGIN).sends("05 02 00 02").feeds("05 02")
    script.sends("01 05 61 6c 69 63 65 06 73 65 73 61 6d 65").feeds("05 00").sends(CONNECT).needs(4).run()


KINDS = {0x02: DeniedError} | dict.fromkeys([1, 3, 4, 5, 6, 7, 8, 9, 0xF0, 0xFF], DialError)


@pytest.mark.parametrize(("code", "kind"), KINDS.items())
def test_failure_reply_keeps_its_code(code: int, kind: type[TabiError]) -> None:
    reply = bytes((5, code)) + bytes.fromhex("00 01 00 00 00 00 00 00")
    asked().feeds(reply).fails(kind, reply=Reply(code), text=f"proxy answered {code}").run()


@pytest.mark.parametrize(("code", "retryable"), [(1, True), (5, True), (2, False), (7, False), (8, False)])
def test_failure_reply_says_whether_asking_again_may_help(code: int, retryable: bool) -> None:
    reply = f"05 {code:02x} 00 01 00 00 00 00 00 00"
    assert failure(ClientMachine(Command.CONNECT, TARGET), "05 00", reply).error.retryable is retryable


def test_denial_after_a_login_may_mean_the_password() -> None:
    denied = "05 02 00 01 00 00 00 00 00 00"
    assert "password" in failure(ClientMachine(Command.CONNECT, TARGET, LOGIN), "05 02 01 00", denied).error.text
    assert "password" not in failure(ClientMachine(Command.CONNECT, TARGET), "05 00", denied).error.text


def test_failure_reply_with_address_type_zero_is_taken() -> None:
    script = asked().feeds("05 04 00 00 00 00 00 00 00 00")
    script.fails(DialError, reply=Reply.HOST_UNREACHABLE).run()


@pytest.mark.parametrize("cut", ["05 05", "05 05 00", "05 05 00 01", "05 05 00 01 00 00"])
def test_failure_reply_that_is_cut_behind_rep_still_says_why(cut: str) -> None:
    asked().feeds(cut).closes().fails(DialError, reply=Reply.CONNECTION_REFUSED).run()


@pytest.mark.parametrize("cut", ["05", "05 00", "05 00 00 01 cb"])
def test_success_reply_that_is_cut_is_no_success(cut: str) -> None:
    asked().feeds(cut).closes().fails(ProtocolError, text="closed in the request").run()


@pytest.mark.parametrize("atyp", ["00", "02", "17", "ff"])
def test_success_reply_with_an_unknown_address_type_is_a_protocol_error(atyp: str) -> None:
    asked().feeds("05 00 00" + atyp).fails(ProtocolError, text="address type").run()


def test_server_that_closes_without_a_reply_is_named() -> None:
    asked().closes().fails(ProtocolError, text="closed in the request, 0 bytes").run()
    ask().sends("05 01 00").closes().fails(ProtocolError, text="closed in the greeting").run()
    script = ask(options=LOGIN).feeds("05 02").closes()
    script.fails(ProtocolError, text="closed in the auth").decides(lambda machine: machine.data_to_send()).run()
    ask(options=V4).sends("04 01 00 50 c0 00 02 01 62 6f 62 00").feeds("00 5b").closes().fails(ProtocolError).run()


def test_socks4_reply_whose_first_byte_is_four_is_taken() -> None:
    script = ask(options=V4).sends("04 01 00 50 c0 00 02 01 62 6f 62 00")
    script.feeds("04 5a 04 38 cb 00 71 09").expects(Granted(BOUND)).run()


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [(91, DialError, "rejected"), (92, AuthError, "identd"), (93, AuthError, "another user"), (0, DialError, "0")],
)
def test_socks4_refusals_are_told_apart(code: int, kind: type[TabiError], text: str) -> None:
    script = ask(options=V4).sends("04 01 00 50 c0 00 02 01 62 6f 62 00")
    script.feeds(bytes((0, code)) + bytes(6)).fails(kind, text=text).run()


def test_stage_is_known_at_every_moment() -> None:
    machine = ClientMachine(Command.CONNECT, TARGET, LOGIN)
    stages = [machine.stage]
    for piece in ("05 02", "01 00"):
        machine.next_event()
        machine.receive_data(bytes.fromhex(piece))
        machine.next_event()
        stages.append(machine.stage)
    assert stages == [Stage.GREETING, Stage.AUTH, Stage.REQUEST]
