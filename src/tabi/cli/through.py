"""The proxies of a command that goes through them: ``-x``, or the environment."""

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabi.machine.hop import Hop

__all__ = ["add_arguments", "chosen", "given", "read_typed", "seconds"]


def add_arguments(parser: argparse.ArgumentParser, until: str) -> None:
    """Add ``-x`` and ``--timeout``.

    Args:
        parser: of the command.
        until: what the time is for.
    """
    parser.add_argument(
        "-x", "--proxy", metavar="URL", action="append", default=[],
        help="go through this proxy; several make a chain, the nearest first",
    )  # fmt: skip
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=30.0, help=f"{until} (default: 30)")


def seconds(arguments: argparse.Namespace, option: str = "timeout") -> float:
    """Give the time that an option says.

    Raises:
        UsageError: it is none.
    """
    from tabi.errors import UsageError

    given: float = getattr(arguments, option)
    if not 0 < given < float("inf"):
        raise UsageError(f"--{option}: {given:g} is no number of seconds; write 30, or 0.5")
    return given


def chosen(arguments: argparse.Namespace, host: str, port: int) -> "tuple[Hop, ...]":
    """Give the proxies, the nearest first: those of ``-x``, or that of the environment.

    Args:
        arguments: of the command.
        host: the target, for no_proxy.
        port: its port.

    Raises:
        UsageError: a URL that cannot be read, or no proxy at all.
    """
    return given(arguments) or _of_environment(host, port)


def given(arguments: argparse.Namespace) -> "tuple[Hop, ...]":
    """Give the proxies of ``-x``, the nearest first; none where there is no such option. Warn of a password in it.

    Raises:
        UsageError: a URL that cannot be read.
    """
    return read_typed(arguments.proxy, "-x", "-x @FILE")


def read_typed(urls: list[str], where: str, better: str) -> "tuple[Hop, ...]":
    """Read proxy URLs of the command line; warn of a password that was typed.

    Args:
        urls: as they were typed, ``@FILE`` among them.
        where: they stand, for the warning.
        better: what is to be typed instead.

    Raises:
        UsageError: a URL that cannot be read.
    """
    from tabi.client.argument import read_argument

    proxies = [read_argument(url) for url in urls]
    if any(proxy.shows_password for proxy in proxies):
        text = f"every user of this host can read the password in {where}; write the URL to a file and give {better}"
        print(f"tabi: warning: {text}", file=sys.stderr)
    return tuple(proxy.hop for proxy in proxies)


def _of_environment(host: str, port: int) -> "tuple[Hop, ...]":
    from tabi.client.environment import proxies_from_environment
    from tabi.errors import UsageError

    proxies = proxies_from_environment(host, port)
    if not proxies:
        text = f"no proxy for {host}: give one by -x URL, or by all_proxy; no_proxy may exempt the target"
        raise UsageError(text)
    return proxies
