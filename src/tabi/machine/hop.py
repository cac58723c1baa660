"""One proxy on the way: where it is, what it speaks, who we are to it. Errors at it are told in its name.

Credentials that cannot be said are refused when the hop is made, so before anything is sent.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from tabi.addr import Endpoint
from tabi.errors import (
    AuthError,
    DialTimeoutError,
    HopName,
    PeerClosedError,
    ProtocolError,
    ProxyAuthError,
    ProxyProtocolError,
    Reply,
    TabiError,
    UsageError,
)
from tabi.machine.client import ClientMachine, ClientOptions
from tabi.machine.http import HttpMachine
from tabi.wire.http import BasicCredentials
from tabi.wire.socks5 import Command
from tabi.wire.userpass import Credentials
from tabi.wire.version import Version

__all__ = ["Hop", "HopMachine", "Scheme", "blame"]

HopMachine: TypeAlias = ClientMachine | HttpMachine

_UNSAYABLE = {b"\r": "CR", b"\n": "LF", b"\0": "NUL"}


class Scheme(Enum):
    """What a proxy speaks, and who resolves the names that it is asked for, in curl's words for it."""

    SOCKS4 = "socks4"
    SOCKS4A = "socks4a"
    SOCKS5 = "socks5"
    SOCKS5H = "socks5h"
    HTTP = "http"

    @property
    def takes_names(self) -> bool:
        """Whether names go to the proxy; else they are resolved here, and it sees addresses only."""
        return self not in (Scheme.SOCKS4, Scheme.SOCKS5)

    @property
    def with_names(self) -> "Scheme":
        """The same protocol with names given to the proxy."""
        return {Scheme.SOCKS4: Scheme.SOCKS4A, Scheme.SOCKS5: Scheme.SOCKS5H}.get(self, self)


_VERSIONS = {
    Scheme.SOCKS4: Version.SOCKS4,
    Scheme.SOCKS4A: Version.SOCKS4A,
    Scheme.SOCKS5: Version.SOCKS5,
    Scheme.SOCKS5H: Version.SOCKS5,
}


@dataclass(frozen=True, slots=True)
class Hop:
    """A proxy that a connection goes through.

    Args:
        scheme: what it speaks.
        proxy: where it is, a name or an address, and the port.
        username: for SOCKS5 and HTTP with `password`; for SOCKS4 the USERID.
        password: see `username`.

    Raises:
        UsageError: user name or password that this protocol cannot carry, or with CR, LF or NUL; or port 0.
    """

    scheme: Scheme
    proxy: Endpoint
    username: bytes = b""
    password: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if not self.proxy.port:
            raise UsageError(f"{self}: a proxy cannot be at port 0")
        for what, text in (("user name", self.username), ("password", self.password)):
            for byte, name in _UNSAYABLE.items():
                if byte in text:
                    raise UsageError(f"{self}: {what} with a {name}")
        try:
            self._check_credentials()
        except UsageError as error:
            raise UsageError(f"{self}: {error}") from None

    def __str__(self) -> str:
        """Give its URL without credentials."""
        return f"{self.scheme.value}://{self.proxy}"

    @property
    def is_anonymous(self) -> bool:
        """Whether there is neither user name nor password."""
        return not self.username and not self.password

    def machine(self, command: Command, target: Endpoint) -> HopMachine:
        """Make what asks this proxy for `command` to `target`.

        Raises:
            UsageError: it cannot be said in its protocol.
        """
        try:
            if self.scheme is not Scheme.HTTP:
                options = ClientOptions(
                    version=_VERSIONS[self.scheme], username=self.username, password=self.password
                )
                return ClientMachine(command, target, options)
            if command is not Command.CONNECT:
                raise UsageError(f"HTTP has no {command}; use SOCKS5", reply=Reply.COMMAND_NOT_SUPPORTED)
            return HttpMachine(target, self._basic())
        except UsageError as error:
            raise UsageError(f"{self}: {error}", reply=error.reply) from None

    def takes_family(self, family: int) -> bool:
        """Tell whether its protocol can say an address of that IP version."""
        return family == 4 or self.scheme not in (Scheme.SOCKS4, Scheme.SOCKS4A)

    def _basic(self) -> BasicCredentials | None:
        return None if self.is_anonymous else BasicCredentials(self.username, self.password)

    def _check_credentials(self) -> None:
        if self.is_anonymous:
            return
        if self.scheme is Scheme.HTTP:
            BasicCredentials(self.username, self.password).encode()
        elif _VERSIONS[self.scheme] is Version.SOCKS5:
            Credentials(self.username, self.password).encode()
        elif self.password:
            raise UsageError("SOCKS4 carries no password; use SOCKS5")
        elif len(self.username) > 255:
            raise UsageError(f"user name of {len(self.username)} bytes; SOCKS4 takes 255")


def blame(error: TabiError, hop: HopName, asked: Endpoint) -> TabiError:
    """Make of an error between us and a proxy one that names the proxy, and what it was asked for.

    Args:
        error: what negotiating with it ended in.
        hop: the proxy.
        asked: the target of the request.
    """
    kind: type[TabiError] = type(error)
    if isinstance(error, AuthError):
        kind = ProxyAuthError
    elif isinstance(error, ProtocolError):
        kind = ProxyProtocolError
    told = kind(
        f"{hop}, asked for {asked}: {error}",
        side=error.side,
        stage=error.stage,
        reply=error.reply,
        # one that closed without a word (ssh -D does, for whatever reason) may be friendlier next time
        retryable=error.retryable or isinstance(error, PeerClosedError),
    )
    told.hop = hop
    if isinstance(told, DialTimeoutError) and isinstance(error, DialTimeoutError):
        told.limit = error.limit
    return told
