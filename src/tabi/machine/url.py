"""Proxy URLs as curl has them: ``scheme://[user[:password]@]host[:port]``.

``socks5h``, ``socks4a`` and ``http`` give names to the proxy, ``socks5`` and ``socks4`` resolve them here; ``socks`` is
``socks5h``. User name and password are percent-decoded. Without a scheme it is ``http``, without a port 1080.

A password is in no error: of a URL that cannot be read, no part is shown that may belong to one.
"""

import re
from collections.abc import Sequence
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from tabi.addr import Endpoint, escape, parse_host, parse_port
from tabi.errors import AddressError, ConfigError
from tabi.machine.hop import Hop, Scheme

__all__ = ["DEFAULT_PORT", "ProxyLike", "parse_proxies", "parse_proxy"]

DEFAULT_PORT = 1080  # curl's, for every scheme

ProxyLike: TypeAlias = str | Hop | Sequence[str | Hop] | None
"""One proxy, as a URL or parsed; several, the nearest first; or none."""

_SCHEMES = {scheme.value: scheme for scheme in Scheme} | {"socks": Scheme.SOCKS5H}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_RESERVED = frozenset("/?#@[]")  # RFC 3986 section 2.2: what ends or opens another part of a URL
_FORM = "write SCHEME://[USER:PASSWORD@]HOST[:PORT]"


def parse_proxy(url: str) -> Hop:
    """Read one proxy URL.

    Raises:
        ConfigError: it is none, or of a kind that tabi does not speak.
        UsageError: user name or password do not fit into the proxy's protocol.
    """
    scheme_text, rest = _split_scheme(url)
    scheme = _SCHEMES.get(scheme_text.lower())
    if scheme is None:
        raise ConfigError(f"proxy scheme {escape(scheme_text, 40)} is none of {', '.join(_SCHEMES)}")
    userinfo, at, host = rest.rpartition("@")
    if not url.isprintable() or " " in url:
        raise ConfigError("proxy URL with a space or a control character; percent-encode what belongs to a password")
    username, password = _credentials(userinfo) if at else (b"", b"")
    return Hop(scheme, _endpoint(host), username, password)


def parse_proxies(proxy: ProxyLike) -> tuple[Hop, ...]:
    """Read what callers give as ``proxy=``: one URL, several, or none.

    Raises:
        ConfigError, UsageError: as `parse_proxy`.
    """
    if proxy is None:
        return ()
    if isinstance(proxy, str | Hop):
        proxy = (proxy,)
    return tuple(one if isinstance(one, Hop) else parse_proxy(one) for one in proxy)


def _split_scheme(url: str) -> tuple[str, str]:
    if match := _SCHEME.fullmatch(url):
        return match[1], match[2]
    return "http", url


def _credentials(userinfo: str) -> tuple[bytes, bytes]:
    if wrong := _RESERVED & frozenset(userinfo):
        encoded = ", ".join(f"{char} is %{ord(char):02X}" for char in sorted(wrong))
        raise ConfigError(f"proxy URL whose user name or password is not percent-encoded: {encoded}")
    if _BAD_PERCENT.search(userinfo):
        raise ConfigError("proxy URL with a % in user name or password that encodes nothing: write it as %25")
    username, _, password = userinfo.partition(":")
    return unquote_to_bytes(username), unquote_to_bytes(password)


def _endpoint(text: str) -> Endpoint:
    """Read ``host[:port]``; what stands for the port is not shown, it may be the password of a URL without host."""
    text = text.removesuffix("/")
    if set("/?#") & set(text):
        raise ConfigError(f"proxy URL with a path; {_FORM}")
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ConfigError(f"proxy URL whose host has a colon: an IPv6 address stands in []; {_FORM}")
    try:
        parsed = parse_port(port)
    except AddressError:
        raise ConfigError(f"proxy URL whose port is no number from 1 to 65535; {_FORM}") from None
    try:
        return Endpoint(parse_host(host), parsed)
    except AddressError as error:
        raise ConfigError(f"proxy URL: {error}; {_FORM}") from None
