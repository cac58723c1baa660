"""The client's half of a SOCKS4, SOCKS4a or SOCKS5 handshake.

It never reads past the last reply when driven by `NeedData.need`: a banner behind it stays in the socket. It
takes what servers in the field send: SOCKS4 replies whose first byte is 4, BND.ADDR as a domain, failure
replies with ATYP 0 or cut after REP, ten-byte refusals of all methods.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TypeAlias

from tabi.addr import Endpoint, Name, parse_host, unmap
from tabi.errors import (
    AddressError,
    AuthError,
    DeniedError,
    DialError,
    ProtocolError,
    Reply,
    Side,
    Stage,
    TabiError,
    UsageError,
    dial_failure,
)
from tabi.machine.base import Failed, Machine
from tabi.wire import socks4, socks5
from tabi.wire.address import WireHost
from tabi.wire.socks5 import Command, Method
from tabi.wire.userpass import Credentials, Status
from tabi.wire.version import Version

__all__ = ["Accepted", "ClientEvent", "ClientMachine", "ClientOptions", "Granted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """How to talk to a proxy.

    Args:
        version: the protocol; SOCKS4A also sends addresses as plain SOCKS4.
        username: with `password`, offered by RFC 1929 beside no authentication; alone, USERID of SOCKS4.
        password: see `username`.
    """

    version: Version = Version.SOCKS5
    username: bytes = b""
    password: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Granted:
    """The request was granted.

    Args:
        bound: BND. After BIND it is where the peer must connect, and `Accepted` follows; after UDP ASSOCIATE
            where datagrams go; in both an unspecified host (0.0.0.0 or ::) stands for the proxy's own
            address. After RESOLVE and RESOLVE_PTR it is the answer.
    """

    bound: Endpoint


@dataclass(frozen=True, slots=True)
class Accepted:
    """The second reply of BIND: `peer` has connected."""

    peer: Endpoint


ClientEvent: TypeAlias = Granted | Accepted

_FINAL = (Reply.COMMAND_NOT_SUPPORTED, Reply.ADDRESS_TYPE_NOT_SUPPORTED)
"""Replies that asking again will not change."""


class ClientMachine(Machine[ClientEvent]):
    """Ask a proxy for one thing.

    Args:
        command: CONNECT, BIND, UDP_ASSOCIATE, RESOLVE or RESOLVE_PTR.
        target: DST.ADDR and DST.PORT.
        options: version and credentials.

    Raises:
        UsageError: what cannot be said in that version (a name in SOCKS4, IPv6 in SOCKS4 or 4a, UDP or
            RESOLVE_PTR in either), a port out of range, or credentials that do not fit. Nothing is sent then.
    """

    def __init__(self, command: Command, target: Endpoint, options: ClientOptions | None = None) -> None:
        self._options = options or ClientOptions()
        self._command = command
        self._stage = Stage.GREETING
        self._authenticated = False
        self._credentials = self._encode_credentials()
        self._request = self._encode_request(target)
        super().__init__()

    @property
    def stage(self) -> Stage:
        """GREETING, AUTH or REQUEST."""
        return self._stage

    def _encode_credentials(self) -> bytes:
        options = self._options
        if options.version is not Version.SOCKS5:
            if options.password:
                raise UsageError("SOCKS4 carries no password; use SOCKS5")
            return b""
        if not options.username and not options.password:
            return b""
        return Credentials(options.username, options.password).encode()

    def _encode_request(self, target: Endpoint) -> bytes:
        host, port, version = target.host, target.port, self._options.version
        if version is Version.SOCKS5:
            wire: WireHost = host.text.encode() if isinstance(host, Name) else host
            return socks5.Request(self._command, wire, port).encode()
        if self._command in (Command.UDP_ASSOCIATE, Command.RESOLVE_PTR):
            text = f"SOCKS4 has no {self._command}; use SOCKS5"
            raise UsageError(text, reply=Reply.COMMAND_NOT_SUPPORTED)
        if isinstance(host, IPv4Address):
            return socks4.Request(self._command, host, port, self._options.username).encode()
        if isinstance(host, Name) and version is Version.SOCKS4A:
            domain = host.text.encode()
            return socks4.Request(self._command, socks4.MARKER, port, self._options.username, domain).encode()
        text = f"SOCKS{version.value} cannot carry {host}; use SOCKS5"
        raise UsageError(text, reply=Reply.ADDRESS_TYPE_NOT_SUPPORTED)

    def _run(self) -> Generator[int | ClientEvent, None, ClientEvent]:
        reply = self._reply_4
        if self._options.version is Version.SOCKS5:
            yield from self._greet()
            reply = self._reply_5
        self._stage = Stage.REQUEST
        self._out += self._request
        granted = Granted((yield from reply()))
        if self._command is not Command.BIND:
            return granted
        yield granted
        return Accepted((yield from reply()))

    def _greet(self) -> Generator[int | ClientEvent, None, None]:
        offered = (Method.NONE, Method.USERPASS) if self._credentials else (Method.NONE,)
        self._out += socks5.Greeting(offered).encode()
        chosen = (yield from self._message(socks5.MethodSelection)).method
        if chosen is Method.NO_ACCEPTABLE:
            wants = "the credentials' method" if self._credentials else "a client without credentials"
            raise AuthError(f"proxy refused {wants}: it accepts none of {', '.join(map(str, offered))}")
        if chosen not in offered:
            raise ProtocolError(f"proxy chose method {chosen}, which was not offered", stage=Stage.GREETING)
        if chosen is Method.USERPASS:
            self._stage = Stage.AUTH
            self._out += self._credentials
            status = (yield from self._message(Status)).status
            if status != 0:
                raise AuthError(f"proxy refused user name and password (status {status:#04x})")
            self._authenticated = True

    def _reply_5(self) -> Generator[int | ClientEvent, None, Endpoint]:
        message = yield from self._message(socks5.ReplyMessage)
        if message.reply is not Reply.SUCCEEDED:
            raise self._refused(message.reply)
        return self._endpoint(message.host, message.port)

    def _reply_4(self) -> Generator[int | ClientEvent, None, Endpoint]:
        message = yield from self._message(socks4.ReplyMessage)
        if message.code is socks4.Code.NO_IDENTD:
            raise AuthError("proxy answered 92: it cannot reach identd on this host", stage=Stage.REQUEST)
        if message.code is socks4.Code.IDENT_MISMATCH:
            raise AuthError("proxy answered 93: identd names another user", stage=Stage.REQUEST)
        if message.code is not socks4.Code.GRANTED:
            raise DialError(f"proxy answered {message.code:d}: rejected or failed", stage=Stage.REQUEST)
        return Endpoint(message.address, message.port)

    def _endpoint(self, host: WireHost, port: int) -> Endpoint:
        if not isinstance(host, bytes):
            return Endpoint(unmap(host), port)
        try:
            return Endpoint(parse_host(host), port)
        except AddressError as error:
            if self._command is Command.CONNECT:  # nobody needs BND then, and the tunnel is there
                return Endpoint(IPv4Address(0), port)
            raise ProtocolError(f"BND.ADDR: {error}", stage=Stage.REQUEST) from None

    def _refused(self, reply: Reply) -> TabiError:
        """Say in words what a failure reply means; `reply` stays on the error."""
        text = f"proxy answered {reply:d} ({reply.name.lower().replace('_', ' ')})"
        if reply is not Reply.NOT_ALLOWED:
            return dial_failure(text, stage=Stage.REQUEST, reply=reply, retryable=reply not in _FINAL)
        if self._authenticated:  # 3proxy takes any password at first, and says no here
            text += ": denied, or wrong user name or password"
        return DeniedError(text, stage=Stage.REQUEST)

    def _truncation(self) -> TabiError:
        buf = self._buffer
        # some servers send VER and REP, and close
        if self._stage is Stage.REQUEST and buf[:1] == b"\x05" and any(buf[1:2]):
            return self._refused(Reply(buf[1]))
        return super()._truncation()

    def _failed(self, error: TabiError) -> Failed:
        error.side = Side.OUTBOUND
        return Failed(error)
