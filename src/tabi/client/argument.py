"""Proxy URLs of a command line: typed there, or in a file that it names."""

from pathlib import Path
from typing import NamedTuple

from tabi.errors import ConfigError
from tabi.machine.hop import Hop
from tabi.machine.url import parse_proxy

__all__ = ["Argument", "read_argument"]


class Argument(NamedTuple):
    """A proxy from a command line.

    Args:
        hop: the proxy.
        shows_password: whether a password was typed there, where every user of this host can read it.
    """

    hop: Hop
    shows_password: bool


def read_argument(text: str) -> Argument:
    """Read a proxy URL of a command line; ``@FILE`` stands for what is written in that file.

    Raises:
        ConfigError: the file cannot be read or has not exactly one line, or as `parse_proxy`.
    """
    if not text.startswith("@"):
        hop = parse_proxy(text)
        return Argument(hop, bool(hop.password))
    path = Path(text[1:])
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{path}: a proxy URL cannot be read from there: {reason}") from None
    if len(lines) != 1:
        raise ConfigError(f"{path}: it has {len(lines)} words where one proxy URL should stand")
    return Argument(parse_proxy(lines[0]), shows_password=False)
