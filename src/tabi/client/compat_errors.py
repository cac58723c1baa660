"""PySocks' constants and exceptions, and what tabi's errors are among them."""

from tabi.errors import (
    DialTimeoutError,
    ProxyAuthError,
    ProxyProtocolError,
    ProxyUnreachableError,
    Reply,
    Stage,
    TabiError,
)
from tabi.machine.hop import Hop, Scheme

__all__ = [
    "DEFAULT_PORTS", "HTTP", "PRINTABLE_PROXY_TYPES", "PROXY_TYPES", "PROXY_TYPE_HTTP", "PROXY_TYPE_SOCKS4",
    "PROXY_TYPE_SOCKS5", "SOCKS4", "SOCKS4_ERRORS", "SOCKS5", "SOCKS5_ERRORS", "GeneralProxyError", "HTTPError",
    "ProxyConnectionError", "ProxyError", "SOCKS4Error", "SOCKS5AuthError", "SOCKS5Error", "proxy_error",
]  # fmt: skip

PROXY_TYPE_SOCKS4: int = 1
PROXY_TYPE_SOCKS5: int = 2
PROXY_TYPE_HTTP: int = 3
SOCKS4, SOCKS5, HTTP = PROXY_TYPE_SOCKS4, PROXY_TYPE_SOCKS5, PROXY_TYPE_HTTP

PROXY_TYPES: dict[str, int] = {"SOCKS4": SOCKS4, "SOCKS5": SOCKS5, "HTTP": HTTP}
PRINTABLE_PROXY_TYPES: dict[int, str] = {number: name for name, number in PROXY_TYPES.items()}
DEFAULT_PORTS: dict[int, int] = {SOCKS4: 1080, SOCKS5: 1080, HTTP: 8080}

SOCKS4_ERRORS: dict[int, str] = {
    0x5B: "Request rejected or failed",
    0x5C: "Request rejected because SOCKS server cannot connect to identd on the client",
    0x5D: "Request rejected because the client program and identd report different user-ids",
}
SOCKS5_ERRORS: dict[int, str] = {
    0x01: "General SOCKS server failure",
    0x02: "Connection not allowed by ruleset",
    0x03: "Network unreachable",
    0x04: "Host unreachable",
    0x05: "Connection refused",
    0x06: "TTL expired",
    0x07: "Command not supported, or protocol error",
    0x08: "Address type not supported",
}


class ProxyError(OSError):
    """Root of PySocks' errors.

    Args:
        msg: what went wrong.
        socket_err: the error behind it, whose text follows that of `msg`; a `tabi.errors.TabiError` says more.
    """

    def __init__(self, msg: str, socket_err: BaseException | None = None) -> None:
        self.msg: str = msg if socket_err is None else f"{msg}: {socket_err}"
        self.socket_err: BaseException | None = socket_err
        super().__init__(self.msg)

    def __str__(self) -> str:
        return self.msg


class GeneralProxyError(ProxyError):
    """What has no error of its own: a proxy that breaks the protocol, a time limit, arguments that cannot be used."""


class ProxyConnectionError(ProxyError):
    """The proxy could not be reached."""


class SOCKS5AuthError(ProxyError):
    """A SOCKS5 proxy refused the login, or wants one."""


class SOCKS5Error(ProxyError):
    """A SOCKS5 proxy refused the request."""


class SOCKS4Error(ProxyError):
    """A SOCKS4 proxy refused the request."""


class HTTPError(ProxyError):
    """An HTTP proxy refused the request."""


def proxy_error(error: TabiError, hop: Hop) -> ProxyError:
    """Make of an error of ours the one that PySocks would raise; ours is its `socket_err`, which says more."""
    if isinstance(error, ProxyUnreachableError) or (
        isinstance(error, DialTimeoutError) and error.stage in (Stage.RESOLVE, Stage.CONNECT)
    ):
        kind = {Scheme.HTTP: "HTTP", Scheme.SOCKS4: "SOCKS4", Scheme.SOCKS4A: "SOCKS4"}.get(hop.scheme, "SOCKS5")
        return ProxyConnectionError(f"Error connecting to {kind} proxy {hop.proxy}", error)
    if isinstance(error, ProxyProtocolError) or (isinstance(error, DialTimeoutError) and error.limit):
        return GeneralProxyError("Socket error", error)
    if hop.scheme is Scheme.HTTP:
        return HTTPError("HTTP proxy refused", error)
    if hop.scheme in (Scheme.SOCKS4, Scheme.SOCKS4A):
        return SOCKS4Error("SOCKS4 proxy refused", error)
    if isinstance(error, ProxyAuthError):
        return SOCKS5AuthError("SOCKS5 authentication failed", error)
    if error.hop is None or error.reply is Reply.SUCCEEDED:
        return GeneralProxyError("Socket error", error)
    return SOCKS5Error(f"{error.reply:#04x}: {SOCKS5_ERRORS.get(error.reply, 'Unknown error')}", error)
