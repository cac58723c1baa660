"""CONNECT through an HTTP proxy: what is said, and what is made of answers good, odd and hostile."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from tabi.addr import Endpoint, Name
from tabi.errors import (
    AuthError,
    DeniedError,
    DialError,
    DialTimeoutError,
    NameUnknownError,
    PeerClosedError,
    ProtocolError,
    RefusedError,
    Reply,
    Side,
    Stage,
    TabiError,
    UsageError,
)
from tabi.machine.base import Failed, NeedData
from tabi.machine.client import Granted
from tabi.machine.http import MAX_INTERIM, HttpMachine
from tabi.testing import Script
from tabi.wire.http import MAX_HEAD, BasicCredentials

TARGET = Endpoint(Name("example.com"), 443)
REQUEST = b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"  # RFC 9110 section 9.3.6
GRANTED = Granted(Endpoint(IPv4Address(0), 0))


def ask(credentials: BasicCredentials | None = None, target: Endpoint = TARGET) -> Script[HttpMachine]:
    return Script(lambda: HttpMachine(target, credentials))


def refused(answer: bytes, credentials: BasicCredentials | None = None) -> TabiError:
    machine = HttpMachine(TARGET, credentials)
    machine.receive_data(answer)
    event = machine.next_event()
    assert isinstance(event, Failed), event
    assert event.error.side is Side.OUTBOUND
    return event.error


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nVia: 1.0 proxy\r\n\r\n",
        b"HTTP/1.1 204\r\n\r\n",
        # RFC 9110 section 9.3.6: "A client MUST ignore any Content-Length or Transfer-Encoding"
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\nServer: of lines that end in LF\n\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_any_answer_of_the_200s_is_a_tunnel_and_what_follows_belongs_to_it(answer: bytes) -> None:
    ask().sends(REQUEST).feeds(answer).expects(GRANTED).run()


@pytest.mark.parametrize(
    ("host", "authority"),
    [
        (IPv4Address("192.0.2.1"), b"192.0.2.1:443"),
        (IPv6Address("2001:db8::1"), b"[2001:db8::1]:443"),  # RFC 3986 section 3.2.2
    ],
)
def test_addresses_are_said_as_urls_have_them(host: IPv4Address | IPv6Address, authority: bytes) -> None:
    request = b"CONNECT " + authority + b" HTTP/1.1\r\nHost: " + authority + b"\r\n\r\n"
    ask(target=Endpoint(host, 443)).sends(request).feeds(b"HTTP/1.1 200 OK\r\n\r\n").expects(GRANTED).run()


def test_credentials_go_with_the_request() -> None:
    login = BasicCredentials(b"Aladdin", b"open sesame")  # RFC 7617 section 2, its own example
    head = REQUEST[:-2] + b"Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
    ask(login).sends(head).feeds(b"HTTP/1.1 200 OK\r\n\r\n").expects(GRANTED).run()
    assert "sesame" not in repr(login)


def test_a_user_name_with_a_colon_is_refused() -> None:
    with pytest.raises(UsageError, match="colon"):
        HttpMachine(TARGET, BasicCredentials(b"a:b", b"c"))


def test_port_0_is_refused() -> None:
    with pytest.raises(UsageError, match="port 0"):
        HttpMachine(Endpoint(Name("example.com"), 0))


@pytest.mark.parametrize(
    ("answer", "kind", "reply", "retryable"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", DeniedError, Reply.NOT_ALLOWED, False),
        (b"HTTP/1.1 405 Method Not Allowed\r\n\r\n", DialError, Reply.COMMAND_NOT_SUPPORTED, False),
        (b"HTTP/1.1 501 Not Implemented\r\n\r\n", DialError, Reply.COMMAND_NOT_SUPPORTED, False),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", DialError, Reply.HOST_UNREACHABLE, True),
        (b"HTTP/1.1 504 Gateway Timeout\r\n\r\n", DialTimeoutError, Reply.TTL_EXPIRED, True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", DialError, Reply.GENERAL_FAILURE, True),
        (b"HTTP/1.1 429 Too Many Requests\r\n\r\n", DialError, Reply.GENERAL_FAILURE, True),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", DialError, Reply.GENERAL_FAILURE, False),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://x/\r\n\r\n", DialError, Reply.GENERAL_FAILURE, False),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", DialError, Reply.GENERAL_FAILURE, False),
        # RFC 9209 section 2.3
        (
            b"HTTP/1.1 502 Bad Gateway\r\nProxy-Status: p; error=connection_refused\r\n\r\n",
            RefusedError,
            Reply.CONNECTION_REFUSED,
            True,
        ),
        (
            b'HTTP/1.1 502 Bad Gateway\r\nproxy-status: p; error=dns_error; rcode="NXDOMAIN"\r\n\r\n',
            NameUnknownError,
            Reply.HOST_UNREACHABLE,
            False,
        ),
        (
            b"HTTP/1.1 502 x\r\nProxy-Status: q, p; error=destination_ip_prohibited\r\n\r\n",
            DeniedError,
            Reply.NOT_ALLOWED,
            False,
        ),
        # Squid
        (
            b"HTTP/1.1 503 Service Unavailable\r\nX-Squid-Error: ERR_CONNECT_FAIL 111\r\n\r\n",
            RefusedError,
            Reply.CONNECTION_REFUSED,
            True,
        ),
        (
            b"HTTP/1.1 503 Service Unavailable\r\nX-Squid-Error: ERR_DNS_FAIL 0\r\n\r\n",
            NameUnknownError,
            Reply.HOST_UNREACHABLE,
            False,
        ),
        # one field of two says something about the target
        (
            b"HTTP/1.1 502 x\r\nProxy-Status: q; received-status=502\r\nProxy-Status: p; error=dns_timeout\r\n\r\n",
            DialError,
            Reply.HOST_UNREACHABLE,
            True,
        ),
        # what is not about the target leaves it to the status
        (
            b"HTTP/1.1 504 x\r\nProxy-Status: p; error=proxy_internal_error\r\n\r\n",
            DialTimeoutError,
            Reply.TTL_EXPIRED,
            True,
        ),
        (
            b"HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_TOO_BIG 0\r\n\r\n",
            DeniedError,
            Reply.NOT_ALLOWED,
            False,
        ),
    ],
)
def test_refusals_are_told_apart(answer: bytes, kind: type[TabiError], reply: Reply, retryable: bool) -> None:
    error = refused(answer)
    assert type(error) is kind
    assert (error.reply, error.retryable) == (reply, retryable)
    assert answer.split()[1].decode() in str(error)


@pytest.mark.parametrize(
    ("fields", "credentials", "text"),
    [
        (b'Proxy-Authenticate: Basic realm="x"\r\n', None, "wants user name and password by"),
        (b'Proxy-Authenticate: Basic realm="x"\r\n', BasicCredentials(b"u", b"p"), "refused user name and password"),
        (b"Proxy-Authenticate: Negotiate\r\n", BasicCredentials(b"u", b"p"), "only Basic is spoken"),
        (b"", BasicCredentials(b"u", b"p"), "refused user name and password"),
    ],
)
def test_407_is_about_credentials(fields: bytes, credentials: BasicCredentials | None, text: str) -> None:
    error = refused(b"HTTP/1.1 407 Proxy Authentication Required\r\n" + fields + b"\r\n", credentials)
    assert isinstance(error, AuthError)
    assert error.stage is Stage.AUTH
    assert text in str(error)


def test_an_answer_without_a_reason_is_told_by_its_status() -> None:
    """RFC 9112 section 4: the reason may be absent."""
    for answer in (b"HTTP/1.1 502 \r\n\r\n", b"HTTP/1.1 502\r\n\r\n"):
        assert str(refused(answer)) == "proxy answered 502"


def test_what_the_proxy_says_is_escaped() -> None:
    error = refused(b"HTTP/1.1 500 a\x1b[2Jb" + b"c" * 500 + b"\r\n\r\n")
    assert "\x1b" not in str(error)
    assert len(str(error)) < 200


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x05\x00",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1200 OK\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_INTERIM + 1),
    ],
)
def test_what_is_no_answer_is_refused(answer: bytes) -> None:
    error = refused(answer)
    assert isinstance(error, ProtocolError)
    assert not isinstance(error, PeerClosedError)


def test_garbage_is_refused_before_its_end() -> None:
    """Whoever talks to an SSH server by mistake is not left waiting for an empty line."""
    assert isinstance(refused(b"S"), ProtocolError)


def test_a_head_without_end_is_refused_and_bounded() -> None:
    machine = HttpMachine(TARGET)
    machine.receive_data(b"HTTP/1.1 200 OK\r\n" + b"x" * (MAX_HEAD - 18))
    assert machine.next_event() == NeedData(1)
    machine.receive_data(b"x")
    event = machine.next_event()
    assert isinstance(event, Failed)
    assert str(MAX_HEAD) in str(event.error)


@pytest.mark.parametrize("cut", range(len(b"HTTP/1.1 200 OK\r\n\r\n")))
def test_a_close_inside_the_answer_is_no_tunnel(cut: int) -> None:
    machine = HttpMachine(TARGET)
    machine.receive_data(b"HTTP/1.1 200 OK\r\n\r\n"[:cut])
    machine.receive_data(b"")
    event = machine.next_event()
    assert isinstance(event, Failed)
    assert isinstance(event.error, PeerClosedError)


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\n\r\n", b"\r\n\n"])
def test_peeked_bytes_that_belong_to_the_answer_are_counted_wherever_it_is_cut(end: bytes) -> None:
    head, banner = b"HTTP/1.1 200 OK" + end, b"220 hello\r\n\r\nmore"
    for cut in range(1, len(head)):
        machine = HttpMachine(TARGET)
        assert machine.belonging(head[:cut]) == cut
        machine.receive_data(head[:cut])
        assert isinstance(machine.next_event(), NeedData)
        assert machine.belonging(head[cut:] + banner) == len(head) - cut
        machine.receive_data(head[cut:])
        assert machine.next_event() == GRANTED
        assert machine.take_early() == b""


def test_nothing_peeked_is_nothing() -> None:
    assert HttpMachine(TARGET).belonging(b"") == 0
