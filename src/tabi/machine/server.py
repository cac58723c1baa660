"""The server's half of a SOCKS4, SOCKS4a or SOCKS5 handshake (SOCKS4.protocol, SOCKS4a.protocol, RFC 1928,
RFC 1929).

The first byte decides the version. Events out, decisions in::

    CredentialsReceived  ->  machine.authenticated() or machine.refuse_credentials()
    RequestReceived      ->  machine.succeed(...) or machine.fail(reply); BIND first machine.listening(...)
    Failed               ->  send data_to_send(), close

It knows nothing of policy or sockets. What a client sends behind its request comes out of `take_early`. A
decision that is not due raises UsageError: nobody is let in by a call out of order, no tunnel gets a second
reply into it.
"""

import re
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

from tabi.addr import Endpoint, Host, Name, escape, parse_host, unmap
from tabi.errors import AddressError, AuthError, ProtocolError, Reply, Stage, TabiError, UsageError
from tabi.machine.base import Failed, Machine, NeedData
from tabi.machine.methods import strongest
from tabi.wire import socks4, socks5
from tabi.wire.address import WireHost
from tabi.wire.socks5 import Command, Method
from tabi.wire.userpass import Credentials, Status
from tabi.wire.version import Version

__all__ = [
    "HTTP_ANSWER", "CredentialsReceived", "RequestReceived", "ServerEvent", "ServerMachine", "ServerOptions",
]  # fmt: skip

_SERVED: Final = frozenset({Method.NONE, Method.USERPASS})
"""Methods whose sub-negotiation is written here. Another one, once selected, would let everybody in."""

_HTTP_BODY: Final = (
    b"This port speaks SOCKS (4, 4a, 5), not HTTP.\n"
    b"Set it as a SOCKS proxy, for example: curl -x socks5h://HOST:PORT URL\n"
)
HTTP_ANSWER: Final = (
    b"HTTP/1.1 501 Not Implemented\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_HTTP_BODY), _HTTP_BODY)
)
"""What an HTTP client gets, as Tor does it (socks-extensions.txt section 4); nothing is echoed."""

_REFUSED: Final = Status(1).encode()
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What a listener takes.

    Args:
        methods: methods of SOCKS5 that are accepted.
        socks4: take SOCKS4 and 4a, which carry no password; None: where `Method.NONE` is among the methods.
        tor_resolve: take Tor's RESOLVE (F0) and RESOLVE_PTR (F1).
        empty_credentials: take an empty user name or password, against RFC 1929, as Tor does for stream
            isolation.
        strict_rsv: refuse a request whose RSV is not zero; clients in the field send anything there.

    Raises:
        UsageError: a method that the machine cannot negotiate.
    """

    methods: frozenset[Method] = frozenset({Method.NONE})
    socks4: bool | None = None
    tor_resolve: bool = False
    empty_credentials: bool = False
    strict_rsv: bool = False

    def __post_init__(self) -> None:
        if strange := self.methods - _SERVED:
            raise UsageError(f"{', '.join(map(str, strange))}: only NONE and USERPASS can be negotiated")

    @property
    def takes_socks4(self) -> bool:
        """Whether SOCKS4 is taken."""
        return Method.NONE in self.methods if self.socks4 is None else self.socks4

    def admits(self, version: Version, method: Method) -> bool:
        """Say whether one who came in like this would be let in now; who has proven more than is asked, is."""
        if method is not Method.NONE:
            return True
        return Method.NONE in self.methods if version is Version.SOCKS5 else self.takes_socks4


@dataclass(frozen=True, slots=True)
class CredentialsReceived:
    """The client sent user name and password (RFC 1929), as bytes and unjudged."""

    username: bytes
    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """The client asks for something; `target` is normalised, `userid` is what SOCKS4 claims, never proven."""

    version: Version
    method: Method
    command: Command
    target: Endpoint
    userid: bytes = b""


ServerEvent: TypeAlias = CredentialsReceived | RequestReceived


class _Due(Enum):
    """Which decision the machine waits for."""

    NONE = auto()
    CREDENTIALS = auto()
    FIRST_REPLY = auto()  # of BIND
    REPLY = auto()
    ALL_SAID = auto()


class ServerMachine(Machine[ServerEvent]):
    """One client's handshake: `receive_data`, `next_event`, decide, `data_to_send`; see the module."""

    def __init__(self, options: ServerOptions | None = None) -> None:
        self._options = options or ServerOptions()
        self._stage = Stage.GREETING
        self._version: Version | None = None
        self._method: Method | None = None
        self._due = _Due.NONE
        self._admitted = False
        self._why_refused = ""
        self._asked: tuple[Command, WireHost, int] | None = None
        super().__init__()

    @property
    def stage(self) -> Stage:
        """GREETING, AUTH or REQUEST."""
        return self._stage

    @property
    def version(self) -> Version | None:
        """What the client speaks; None before its first byte."""
        return self._version

    @property
    def replied(self) -> bool:
        """Whether the last reply to the request has been put out, by a decision or by the machine itself."""
        return self._due is _Due.ALL_SAID

    def live_by(self, options: ServerOptions) -> bool:
        """Go on by other options; what is settled already, such as the method, stays.

        Returns:
            whether the client would still be let in as it was.
        """
        self._options = options
        return self._version is None or self._method is None or options.admits(self._version, self._method)

    def next_event(self) -> ServerEvent | Failed | NeedData:
        """Go on as far as the bytes and the decisions allow; see `Machine.next_event`.

        Raises:
            UsageError: called after the end, or while `CredentialsReceived` is not decided.
        """
        if self._due is _Due.CREDENTIALS:
            raise UsageError("decide first: authenticated() or refuse_credentials()")
        return super().next_event()

    # decisions; each raises UsageError where it is not due

    def authenticated(self) -> None:
        """Accept the credentials (STATUS 0)."""
        self._decide(_Due.CREDENTIALS, then=_Due.NONE)
        self._admitted = True
        self._out += Status(0).encode()

    def refuse_credentials(self, why: str = "wrong user name or password") -> None:
        """Refuse them (STATUS 1); RFC 1929 section 2 then has the connection closed. `why` is for the log."""
        self._decide(_Due.CREDENTIALS, then=_Due.NONE)
        self._why_refused = why
        self._out += _REFUSED

    def listening(self, bound: Endpoint) -> None:
        """First reply of BIND: where the peer is to connect."""
        self._decide(_Due.FIRST_REPLY, then=_Due.REPLY)
        self._grant(bound)

    def succeed(self, bound: Endpoint, led_to: Endpoint | None = None) -> None:
        """Grant the request.

        Args:
            bound: BND.ADDR and BND.PORT; the peer in the second reply of BIND; the answer to a RESOLVE.
            led_to: the address that a name led to; a SOCKS4a reply carries it instead of `bound`.
        """
        self._decide(_Due.REPLY, then=_Due.ALL_SAID)
        self._grant(led_to if led_to is not None and self._version is Version.SOCKS4A else bound)

    def fail(self, reply: Reply) -> None:
        """Refuse the request; to be followed by an orderly close within ten seconds (RFC 1928 section 6)."""
        self._decide(_Due.FIRST_REPLY, _Due.REPLY, then=_Due.ALL_SAID)
        self._refuse(reply)

    def _decide(self, *due: _Due, then: _Due) -> None:
        if self._due not in due:
            raise UsageError(f"no such decision is due; the machine waits for {self._due.name}")
        self._due = then

    def _grant(self, shown: Endpoint) -> None:
        if self._version is Version.SOCKS5:
            host = shown.host.text.encode() if isinstance(shown.host, Name) else shown.host
            self._out += socks5.ReplyMessage(Reply.SUCCEEDED, host, shown.port).encode()
            return
        # SOCKS4 has four bytes for an address: IPv6 shows as 0.0.0.0, the port stays true
        address = shown.host if isinstance(shown.host, IPv4Address) else IPv4Address(0)
        self._out += socks4.ReplyMessage(socks4.Code.GRANTED, address, shown.port).encode()

    def _refuse(self, reply: Reply) -> None:
        self._due = _Due.ALL_SAID
        if self._version is Version.SOCKS5:
            self._out += socks5.ReplyMessage(reply).encode()
        else:
            self._out += socks4.ReplyMessage(socks4.Code.REJECTED).encode()

    def _failed(self, error: TabiError) -> Failed:
        if self._asked is None:
            return Failed(error)
        command, host, port = self._asked
        return Failed(error, f"{command} {_show(host)}:{port}")

    # the protocol

    def _run(self) -> Generator[int | ServerEvent, None, ServerEvent]:
        yield 1
        first = self._buffer[0]
        if first == socks5.VERSION:
            event = yield from self._run_5()
        elif first == socks4.VERSION:
            event = yield from self._run_4()
        else:
            raise self._no_socks(first)
        self._due = _Due.FIRST_REPLY if event.command is Command.BIND else _Due.REPLY
        return event

    def _no_socks(self, first: int) -> ProtocolError:
        if 0x41 <= first <= 0x5A:  # an upper-case letter: GET, CONNECT, POST, PRI …
            self._out += HTTP_ANSWER
            return ProtocolError("client speaks HTTP, this is a SOCKS port", stage=Stage.GREETING)
        if first == 0x16:
            text = "client speaks TLS (first byte 0x16), this listener does not"
        else:
            text = f"first byte {first:#04x} is neither SOCKS4 (04) nor SOCKS5 (05)"
        return ProtocolError(text, stage=Stage.GREETING)

    def _run_5(self) -> Generator[int | ServerEvent, None, RequestReceived]:
        self._version = Version.SOCKS5
        greeting = yield from self._message(socks5.Greeting)
        method = strongest(greeting.methods, self._options.methods)
        self._out += socks5.MethodSelection(method).encode()
        self._stage = Stage.AUTH
        if method is Method.NO_ACCEPTABLE:
            offered, taken = _list(greeting.methods), _list(self._options.methods)
            raise AuthError(f"no acceptable method: client offers {offered}; this listener takes {taken}")
        self._method = method
        if method is Method.USERPASS:
            yield from self._authenticate()
        self._stage = Stage.REQUEST
        yield 1
        if self._buffer[0] != socks5.VERSION:  # whatever this is, it is not owed a SOCKS5 reply
            text = f"version byte {self._buffer[0]:#04x} where a SOCKS5 request has 0x05"
            raise ProtocolError(text, stage=Stage.REQUEST)
        try:
            request = yield from self._message(socks5.Request)
            self._asked = request.command, request.host, request.port
            if self._options.strict_rsv and request.rsv:
                raise ProtocolError(f"RSV is {request.rsv:#04x}, RFC 1928 has 0", stage=Stage.REQUEST)
            return self._judge(Version.SOCKS5, method, request.command, request.host, request.port)
        except TabiError as error:
            self._refuse(error.reply)
            raise

    def _authenticate(self) -> Generator[int | ServerEvent, None, None]:
        try:
            credentials = yield from self._message(Credentials)
            if not self._options.empty_credentials and not (credentials.username and credentials.password):
                raise AuthError("empty user name or password; RFC 1929 wants 1 to 255 bytes of each")
            if _CONTROL.search(credentials.username) or b"\0" in credentials.password:
                raise AuthError("user name with a control byte, or password with NUL")
        except AuthError:
            self._out += _REFUSED
            raise
        self._due = _Due.CREDENTIALS
        yield CredentialsReceived(credentials.username, credentials.password)
        if not self._admitted:
            raise AuthError(self._why_refused)

    def _run_4(self) -> Generator[int | ServerEvent, None, RequestReceived]:
        self._version = Version.SOCKS4
        self._stage = Stage.REQUEST
        try:
            request = yield from self._message(socks4.Request)
            host: WireHost = request.address
            if request.domain is not None:
                self._version = Version.SOCKS4A
                host = request.domain
            self._asked = request.command, host, request.port
            if not self._options.takes_socks4:
                raise AuthError("SOCKS4 carries no password, and this listener wants one")
            self._method = Method.NONE
            return self._judge(
                self._version, Method.NONE, request.command, host, request.port, request.userid
            )
        except TabiError as error:
            self._refuse(error.reply)
            raise

    def _judge(
        self,
        version: Version,
        method: Method,
        command: Command,
        host: WireHost,
        port: int,
        userid: bytes = b"",
    ) -> RequestReceived:
        """Turn a decoded request into an event, or refuse what no policy needs to see."""
        known = command in (Command.CONNECT, Command.BIND)
        known |= command is Command.UDP_ASSOCIATE and version is Version.SOCKS5
        known |= command is Command.RESOLVE and self._options.tor_resolve
        known |= command is Command.RESOLVE_PTR and self._options.tor_resolve and version is Version.SOCKS5
        if not known:
            raise ProtocolError(
                f"command {command} is not served for SOCKS{version.value}",
                stage=Stage.REQUEST,
                reply=Reply.COMMAND_NOT_SUPPORTED,
            )
        if command is Command.UDP_ASSOCIATE and host == b"0":
            host = IPv4Address(0)  # PySocks writes 0.0.0.0 so; here it is no target, nothing is looked up for it
        target = Endpoint(_normalise(host), port)
        if command is Command.CONNECT and port == 0:
            raise ProtocolError("port 0 cannot be connected to", stage=Stage.REQUEST)
        if command is Command.CONNECT and not isinstance(target.host, Name) and target.host.is_unspecified:
            raise ProtocolError(f"{target.host} is no host to connect to", stage=Stage.REQUEST)
        if command is Command.RESOLVE_PTR and isinstance(target.host, Name):
            raise ProtocolError(
                "RESOLVE_PTR takes an address", stage=Stage.REQUEST, reply=Reply.ADDRESS_TYPE_NOT_SUPPORTED
            )
        return RequestReceived(version, method, command, target, userid)


def _normalise(host: WireHost) -> Host:
    if not isinstance(host, bytes):
        return unmap(host)
    try:
        return parse_host(host)
    except AddressError as error:
        raise ProtocolError(str(error), stage=Stage.REQUEST, reply=error.reply) from None


def _list(methods: Iterable[Method], limit: int = 8) -> str:
    names = list(map(str, sorted(set(methods))))
    more = [f"{len(names) - limit} more"] if len(names) > limit else []
    return ", ".join(names[:limit] + more) or "nothing"


def _show(host: WireHost) -> str:
    if isinstance(host, bytes):
        return escape(host)
    return f"[{host}]" if isinstance(host, IPv6Address) else str(host)
