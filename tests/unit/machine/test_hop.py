"""One proxy: what it can be asked for, which credentials fit, and how errors name it."""

import pytest

from tabi.addr import Endpoint, parse_host
from tabi.errors import (
    AuthError,
    DeniedError,
    DialError,
    DialTimeoutError,
    HopName,
    PeerClosedError,
    ProtocolError,
    ProxyAuthError,
    ProxyProtocolError,
    RefusedError,
    Reply,
    Side,
    Stage,
    TabiError,
    UsageError,
)
from tabi.machine.hop import Hop, Scheme, blame
from tabi.wire.socks5 import Command

PROXY = Endpoint(parse_host("192.0.2.1"), 1080)
TARGET = Endpoint(parse_host("example.com"), 80)
NAME = HopName(2, 3, "socks5://192.0.2.1:1080")
FIVE = (Scheme.SOCKS5, Scheme.SOCKS5H)
FOUR = (Scheme.SOCKS4, Scheme.SOCKS4A)


@pytest.mark.parametrize("scheme", Scheme)
@pytest.mark.parametrize("byte", [b"\r", b"\n", b"\0"])
@pytest.mark.parametrize("at", ["username", "password"])
def test_credentials_with_control_bytes_are_refused(scheme: Scheme, byte: bytes, at: str) -> None:
    credentials = {"username": b"user", "password": b"secret"} | {at: b"sec" + byte + b"ret"}
    with pytest.raises(UsageError, match=r"with a (CR|LF|NUL)") as caught:
        Hop(scheme, PROXY, **credentials)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", FIVE)
@pytest.mark.parametrize(("user", "password"), [(256, 1), (1, 256), (0, 1), (1, 0)])
def test_socks5_takes_1_to_255_bytes(scheme: Scheme, user: int, password: int) -> None:
    with pytest.raises(UsageError, match="RFC 1929 takes 1 to 255"):
        Hop(scheme, PROXY, b"u" * user, b"p" * password)
    assert Hop(scheme, PROXY, b"u" * 255, b"p" * 255).machine(Command.CONNECT, TARGET)


@pytest.mark.parametrize("scheme", FOUR)
def test_socks4_takes_a_user_name_of_255_bytes_and_no_password(scheme: Scheme) -> None:
    assert Hop(scheme, PROXY, b"u" * 255)
    with pytest.raises(UsageError, match="255"):
        Hop(scheme, PROXY, b"u" * 256)
    with pytest.raises(UsageError, match="no password"):
        Hop(scheme, PROXY, b"u", b"p")


def test_http_takes_long_credentials_but_no_colon() -> None:
    assert Hop(Scheme.HTTP, PROXY, b"u" * 2000, b"p:" * 1000)
    with pytest.raises(UsageError, match="4095"):
        Hop(Scheme.HTTP, PROXY, b"u" * 2000, b"p" * 2096)
    with pytest.raises(UsageError, match="colon"):
        Hop(Scheme.HTTP, PROXY, b"a:b", b"p")


def test_port_0_is_no_proxy() -> None:
    with pytest.raises(UsageError, match="port 0"):
        Hop(Scheme.SOCKS5, Endpoint(PROXY.host, 0))


def test_neither_repr_nor_str_shows_a_password() -> None:
    hop = Hop(Scheme.SOCKS5H, PROXY, b"alice", b"sesame")
    assert "sesame" not in repr(hop)
    assert str(hop) == "socks5h://192.0.2.1:1080"


@pytest.mark.parametrize("command", [Command.BIND, Command.UDP_ASSOCIATE])
def test_http_can_only_connect(command: Command) -> None:
    with pytest.raises(UsageError, match="use SOCKS5"):
        Hop(Scheme.HTTP, PROXY).machine(command, TARGET)


@pytest.mark.parametrize("scheme", FOUR)
def test_socks4_cannot_be_asked_for_ipv6_or_udp(scheme: Scheme) -> None:
    hop = Hop(scheme, PROXY)
    with pytest.raises(UsageError, match="cannot carry 2001:db8::1"):
        hop.machine(Command.CONNECT, Endpoint(parse_host("2001:db8::1"), 80))
    with pytest.raises(UsageError, match="UDP_ASSOCIATE"):
        hop.machine(Command.UDP_ASSOCIATE, Endpoint(parse_host("0.0.0.0"), 0))
    assert not hop.takes_family(6)
    assert hop.takes_family(4)


def test_names_go_to_the_schemes_that_say_so() -> None:
    assert [scheme.value for scheme in Scheme if scheme.takes_names] == ["socks4a", "socks5h", "http"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (AuthError("x", side=Side.OUTBOUND), ProxyAuthError),
        (ProtocolError("x", side=Side.OUTBOUND), ProxyProtocolError),
        (PeerClosedError("x", side=Side.OUTBOUND), ProxyProtocolError),
        (DeniedError("x", stage=Stage.REQUEST), DeniedError),
        (DialError("x", reply=Reply.HOST_UNREACHABLE, stage=Stage.REQUEST), DialError),
        (RefusedError("x", stage=Stage.REQUEST), RefusedError),
        (DialTimeoutError("x", stage=Stage.AUTH), DialTimeoutError),
    ],
)
def test_an_error_at_a_proxy_names_it_and_keeps_its_reason(error: TabiError, kind: type[TabiError]) -> None:
    told = blame(error, NAME, TARGET)
    assert type(told) is kind
    assert isinstance(told, OSError), "a caller that knows sockets only catches it"
    assert str(told) == "proxy 2 of 3, socks5://192.0.2.1:1080, asked for example.com:80: x"
    assert told.hop is NAME
    assert (told.side, told.stage, told.reply) == (error.side, error.stage, error.reply)


def test_a_time_limit_stays_known_as_ours() -> None:
    error = DialTimeoutError("x")
    error.limit = "connect"
    told = blame(error, NAME, TARGET)
    assert isinstance(told, DialTimeoutError)
    assert told.limit == "connect"


def test_only_a_close_without_a_word_is_worth_another_try() -> None:
    assert blame(PeerClosedError("x"), NAME, TARGET).retryable
    assert not blame(ProtocolError("x"), NAME, TARGET).retryable
    assert not blame(AuthError("x"), NAME, TARGET).retryable


def test_every_scheme_has_one_of_its_protocol_that_takes_names() -> None:
    assert [one.with_names.value for one in Scheme] == ["socks4a", "socks4a", "socks5h", "socks5h", "http"]
