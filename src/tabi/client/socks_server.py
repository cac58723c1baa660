"""The SOCKS server that the environment names, by the variables of the classic SOCKS libraries.

``SOCKS5_SERVER`` (NEC's library), ``SOCKS4_SERVER`` (Dante's) and ``SOCKS_SERVER`` (Koblas') hold ``HOST[:PORT]``, the
port being 1080 unless it is there, or a URL as everywhere else in tabi; the first of them that is set decides. Where
none is, ``all_proxy`` and ``ALL_PROXY`` do. One that is set but empty means no proxy, and ``no_proxy`` is heeded for
all of them.

``SOCKS_SERVER`` means SOCKS5, or SOCKS4 where ``SOCKS_VERSION`` is 4. Names go to the server (SOCKS4a). ``SOCKS5_USER``
and ``SOCKS5_PASSWD`` log in to SOCKS5; a SOCKS4 server hears the name of the user who runs the program as USERID, as it
always has. A URL says all of that by itself.
"""

import os
import pwd
from collections.abc import Mapping
from dataclasses import replace

from tabi.addr import Endpoint
from tabi.client.environment import is_exempt, proxies_from_environment
from tabi.errors import ConfigError, UsageError
from tabi.machine.hop import Hop, Scheme
from tabi.machine.url import parse_proxy

__all__ = ["socks_server"]

_VARIABLES = ("SOCKS5_SERVER", "SOCKS4_SERVER", "SOCKS_SERVER")


def socks_server(target: Endpoint, environ: Mapping[str, str]) -> Hop | None:
    """Give the proxy for `target`, None where it is to be reached without one.

    Raises:
        ConfigError: a variable cannot be read; it is named.
    """
    name = next((name for name in _VARIABLES if name in environ), None)
    if name is None:
        return next(iter(proxies_from_environment(str(target.host), target.port, environ=environ)), None)
    if not environ[name] or is_exempt(target, environ):
        return None
    try:
        return _read(name, environ)
    except UsageError as error:
        raise ConfigError(f"{name}: {error}") from None


def _read(name: str, environ: Mapping[str, str]) -> Hop:
    text = environ[name]
    if "://" in text:
        return parse_proxy(text)
    if _is_version_4(name, environ):
        return replace(parse_proxy(f"{Scheme.SOCKS4A.value}://{text}"), username=_user())
    username, password = (os.fsencode(environ.get(one, "")) for one in ("SOCKS5_USER", "SOCKS5_PASSWD"))
    return replace(parse_proxy(f"{Scheme.SOCKS5H.value}://{text}"), username=username, password=password)


def _is_version_4(name: str, environ: Mapping[str, str]) -> bool:
    if name != "SOCKS_SERVER":
        return name == "SOCKS4_SERVER"
    version = environ.get("SOCKS_VERSION", "5")
    if version not in ("4", "5"):
        raise ConfigError(f"SOCKS_VERSION is neither 4 nor 5 but {version!r}")
    return version == "4"


def _user() -> bytes:
    try:
        return os.fsencode(pwd.getpwuid(os.geteuid()).pw_name)
    except KeyError:  # a container's user without a name
        return b""
