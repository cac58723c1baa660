"""Conversations as good peers hold them; `tabi.testing.evil` spoils them."""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TypeAlias

from tabi.addr import Endpoint, Host, Name
from tabi.errors import Reply, Stage
from tabi.wire import socks4, socks5
from tabi.wire.address import Buffer, WireHost
from tabi.wire.http import end_of_head
from tabi.wire.socks5 import Command, Method
from tabi.wire.userpass import Credentials, Status

__all__ = ["Line", "Part", "http_proxy", "socks4_client", "socks4_server", "socks5_client", "socks5_server", "target"]


@dataclass(frozen=True, slots=True)
class Line:
    """One turn of a conversation: wait for a message of the other side, then say something.

    Args:
        stage: what is said belongs to.
        says: bytes.
        hears: size of the message that must come first, as the codecs of `tabi.wire` tell it from the bytes
            at hand; None: nothing.
    """

    stage: Stage
    says: bytes
    hears: Callable[[Buffer], int] | None = None


Part: TypeAlias = tuple[Line, ...]
"""A whole conversation. Its stages: GREETING, AUTH, REQUEST, and RELAY for what follows."""


def socks5_client(
    to: Endpoint, *, username: bytes = b"", password: bytes = b"", payload: bytes = b""
) -> Part:
    """Ask for CONNECT; with a user name, offer that method alone.

    >>> [line.says.hex(" ") for line in socks5_client(Endpoint(Name("example.com"), 80), payload=b"GET /")]
    ['05 01 00', '05 01 00 03 0b 65 78 61 6d 70 6c 65 2e 63 6f 6d 00 50', '47 45 54 20 2f']
    """
    greeting = socks5.Greeting((Method.USERPASS if username else Method.NONE,))
    request = socks5.Request(Command.CONNECT, _wire(to.host), to.port).encode()
    first = Line(Stage.GREETING, greeting.encode())
    last = Line(Stage.RELAY, payload, socks5.ReplyMessage.size)
    if not username:
        return (first, Line(Stage.REQUEST, request, socks5.MethodSelection.size), last)
    login = Credentials(username, password).encode()
    return (
        first,
        Line(Stage.AUTH, login, socks5.MethodSelection.size),
        Line(Stage.REQUEST, request, Status.size),
        last,
    )


def socks4_client(to: Endpoint, *, userid: bytes = b"", payload: bytes = b"") -> Part:
    """Ask for CONNECT by SOCKS4, by SOCKS4a where `to` is a name."""
    host = _wire(to.host)
    domain = host if isinstance(host, bytes) else None
    address = host if isinstance(host, IPv4Address) else socks4.MARKER
    request = socks4.Request(Command.CONNECT, address, to.port, userid, domain).encode()
    return (Line(Stage.REQUEST, request), Line(Stage.RELAY, payload, socks4.ReplyMessage.size))


def socks5_server(bound: Endpoint, *, method: Method = Method.NONE, banner: bytes = b"") -> Part:
    """Choose `method` (NONE or USERPASS), take any password, grant the first request."""
    reply = socks5.ReplyMessage(Reply.SUCCEEDED, _wire(bound.host), bound.port).encode()
    lines = [Line(Stage.GREETING, socks5.MethodSelection(method).encode(), socks5.Greeting.size)]
    if method is Method.USERPASS:
        lines.append(Line(Stage.AUTH, Status(0).encode(), Credentials.size))
    return (*lines, Line(Stage.REQUEST, reply, socks5.Request.size), Line(Stage.RELAY, banner))


def socks4_server(bound: Endpoint, *, banner: bytes = b"") -> Part:
    """Grant the first SOCKS4 or SOCKS4a request; an IPv6 address in `bound` shows as 0.0.0.0."""
    address = bound.host if isinstance(bound.host, IPv4Address) else IPv4Address(0)
    reply = socks4.ReplyMessage(socks4.Code.GRANTED, address, bound.port).encode()
    return (Line(Stage.REQUEST, reply, socks4.Request.size), Line(Stage.RELAY, banner))


def http_proxy(*, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n", banner: bytes = b"") -> Part:
    """Answer one CONNECT of an HTTP client."""
    return (Line(Stage.REQUEST, answer, _size_of_head), Line(Stage.RELAY, banner))


def target(banner: bytes = b"") -> Part:
    """Be a target that speaks first."""
    return (Line(Stage.RELAY, banner),)


def _wire(host: Host) -> WireHost:
    return host.text.encode() if isinstance(host, Name) else host


def _size_of_head(buf: Buffer) -> int:
    return end_of_head(buf) or len(buf) + 1
