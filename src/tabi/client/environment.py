"""The proxy that the environment names for a target: ``http_proxy`` and its like, and ``no_proxy``.

The target's scheme has its variable (``https_proxy`` for https), then comes ``all_proxy``; lower case first, then upper
case, but never ``HTTP_PROXY``: a web server sets that from a header of whoever asks (httpoxy, CVE-2016-5385). As with
curl, a variable that is set but empty means no proxy.

``no_proxy`` is a list by commas or spaces; each entry may end in ``:PORT``:

- ``example.com``: that name and all below it; ``.example.com`` or ``*.example.com``: only those below it;
- ``192.0.2.1``, ``2001:db8::1``, ``[2001:db8::1]:443``, ``192.0.2.0/24``: addresses, only as they are written in the
  target, since no name is looked up for this;
- ``*``: everything.

A name never matches by a part of a label, nor an address by its text, so that no zone can pose as a domain
(CVE-2025-22870).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from tabi.addr import Endpoint, Host, Name, escape, parse_host, parse_port
from tabi.errors import AddressError, ConfigError, UsageError
from tabi.machine.hop import Hop
from tabi.machine.url import parse_proxy

__all__ = ["is_exempt", "proxies_from_environment"]

_SEPARATORS = re.compile(r"[\s,]+")


def proxies_from_environment(
    host: str, port: int, *, scheme: str = "", environ: Mapping[str, str] | None = None
) -> tuple[Hop, ...]:
    """Give the proxy that the environment wants for a target, as `proxy` of the other calls takes it.

    Args:
        host: the target, a name or an address.
        port: its port.
        scheme: of its URL, "https" for instance; "" asks ``all_proxy`` alone.
        environ: the variables; None takes the process' own.

    Returns:
        one proxy, or none at all.

    Raises:
        ConfigError: a variable cannot be read; it is named.
        AddressError: `host` is neither name nor address.
    """
    variables = os.environ if environ is None else environ
    target = Endpoint(parse_host(host), port)
    name, url = _chosen(variables, scheme.lower())
    if not url or is_exempt(target, variables):
        return ()
    try:
        return (parse_proxy(url),)
    except UsageError as error:
        raise ConfigError(f"{name}: {error}") from None


def is_exempt(target: Endpoint, environ: Mapping[str, str]) -> bool:
    """Tell whether ``no_proxy`` names `target`.

    Raises:
        ConfigError: an entry is nothing that could match.
    """
    name = "no_proxy" if "no_proxy" in environ else "NO_PROXY"
    for text in filter(None, _SEPARATORS.split(environ.get(name, ""))):
        try:
            entry = _Entry.parse(text)
        except (AddressError, ValueError):
            raise ConfigError(
                f"{name}: {escape(text)} is no name, address or network; "
                "write example.com, .example.com, 192.0.2.1, 192.0.2.0/24 or *"
            ) from None
        if entry.matches(target):
            return True
    return False


def _chosen(variables: Mapping[str, str], scheme: str) -> tuple[str, str]:
    names = ["all_proxy", "ALL_PROXY"]
    if scheme:
        names[:0] = [f"{scheme}_proxy"] if scheme == "http" else [f"{scheme}_proxy", f"{scheme.upper()}_PROXY"]
    return next(((name, variables[name]) for name in names if name in variables), ("", ""))


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry: a name and whether it means itself, a network, or (neither) everything; and perhaps a port."""

    name: Name | None = None
    only_below: bool = False
    network: IPv4Network | IPv6Network | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> "_Entry":
        if text == "*":
            return cls()
        if "/" in text:
            return cls(network=ip_network(text, strict=False))
        host, port = _split_port(text)
        only_below = host.startswith((".", "*."))
        parsed: Host = parse_host(host.removeprefix("*").removeprefix(".") if only_below else host)
        if isinstance(parsed, Name):
            return cls(name=parsed, only_below=only_below, port=port)
        return cls(network=ip_network(parsed), port=port)

    def matches(self, target: Endpoint) -> bool:
        if self.port is not None and self.port != target.port:
            return False
        if self.network is not None:
            return not isinstance(target.host, Name) and target.host in self.network
        if self.name is None:
            return True
        if not isinstance(target.host, Name):
            return False
        is_below = target.host.text.endswith(f".{self.name.text}")
        return is_below or (target.host == self.name and not self.only_below)


def _split_port(text: str) -> tuple[str, int | None]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (":" in host and not host.endswith("]")):
        return text, None
    return host, parse_port(port)
