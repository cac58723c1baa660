"""Proxy URLs in a configuration, written there or in a file of their own that fewer people can read."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from tabi.config.kinds import Kind
from tabi.config.problems import WrongError
from tabi.errors import ConfigError, UsageError
from tabi.machine.hop import Hop
from tabi.machine.url import parse_proxy

__all__ = ["UrlFile", "UrlInFile", "proxy", "read_url_file"]

MAX_SIZE = 65_536
"""Bytes: a URL has some hundred."""


@dataclass(frozen=True, slots=True)
class UrlFile:
    """``@FILE`` in the place of a URL.

    Args:
        name: of the file, as it is written.
    """

    name: str


@dataclass(frozen=True, slots=True)
class UrlInFile:
    """What a file has.

    Args:
        hop: the proxy.
        is_public: every user of this host can read the file.
    """

    hop: Hop
    is_public: bool


def read_url_file(path: Path) -> UrlInFile:
    """Read a file that holds one proxy URL.

    Raises:
        ConfigError: it cannot be read or has not exactly one line; or as `tabi.machine.url.parse_proxy`.
        UsageError: as `tabi.machine.url.parse_proxy`.
    """
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            lines = stream.read(MAX_SIZE).decode().split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{path}: a proxy URL cannot be read from there: {reason}") from None
    if len(lines) != 1:
        raise ConfigError(f"{path}: it has {len(lines)} words where one proxy URL should stand")
    return UrlInFile(parse_proxy(lines[0]), is_public=bool(mode & stat.S_IROTH))


def _proxy(value: object) -> Hop | UrlFile:
    if not isinstance(value, str):
        raise WrongError("is no proxy URL", 'write one, such as "socks5h://192.0.2.1:1080"')
    if value.startswith("@"):
        if len(value) == 1 or not value.isprintable():
            raise WrongError("names no file", 'write "@FILE", where FILE holds the URL')
        return UrlFile(value[1:])
    try:
        return parse_proxy(value)
    except UsageError as error:
        raise WrongError("is no proxy URL", str(error)) from None


proxy: Kind = Kind("SCHEME://[USER:PASSWORD@]HOST[:PORT], or @FILE for a file that holds it", _proxy)
