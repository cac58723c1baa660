"""Proxy URLs of a command line: typed there, or in a file that it names."""

from pathlib import Path
from typing import NamedTuple

from tabi.config.proxies import read_url_file
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
    if text.startswith("@"):
        return Argument(read_url_file(Path(text[1:])).hop, shows_password=False)
    hop = parse_proxy(text)
    return Argument(hop, bool(hop.password))
