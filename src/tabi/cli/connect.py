"""``tabi connect``: standard input and output, through proxies, to a target."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabi.addr import Endpoint
    from tabi.cli.main import Commands
    from tabi.client.stdio import Shuttle
    from tabi.machine.hop import Hop

__all__ = ["add_parser", "run"]

_EPILOG = """\
examples:
  tabi connect -x socks5h://127.0.0.1:1080 example.org:25
  tabi connect -x @first.url -x http://second.example:3128 example.org:22
  ssh -o ProxyCommand='tabi connect -x socks5h://127.0.0.1:1080 %h:%p' example.org

Schemes: socks5h, socks5, socks4a, socks4, http; socks5h, socks4a and http leave the name to the proxy.
A password is better kept in a file: @FILE stands for the URL that is written in it.
Without -x the proxy is that of all_proxy or ALL_PROXY, unless no_proxy names the target.

The end of standard input is passed on, and so is the target's: what the other side still has to say arrives.
Exit codes: 0 both sides have ended, 1 failed or reset, 2 wrong usage.
"""


def add_parser(commands: "Commands") -> None:
    """Register the command."""
    parser = commands.add_parser(
        "connect",
        help="connect standard input and output to a target, through proxies",
        description="Connect standard input and output to a target, through proxies.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-x", "--proxy", metavar="URL", action="append", default=[],
        help="go through this proxy; several make a chain, the nearest first",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=30.0, help="until the target is connected (default: 30)"
    )
    parser.add_argument("target", metavar="HOST:PORT", help="the target; an IPv6 address in brackets")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Connect, and carry until both sides have ended.

    Raises:
        UsageError: an argument that cannot be read, or no proxy.
        TabiError: the target cannot be reached; it says where and why.
        BrokenPipeError: nobody reads the output any more.
    """
    from tabi.addr import Endpoint
    from tabi.client.stdio import Shuttle
    from tabi.errors import AddressError, UsageError
    from tabi.sync import create_connection

    if not 0 < arguments.timeout < float("inf"):
        raise UsageError(f"--timeout: {arguments.timeout:g} is no number of seconds; write 30, or 0.5")
    try:
        target = Endpoint.parse(arguments.target)
    except AddressError as error:
        raise UsageError(f"the target: {error}") from None
    proxies = _typed(arguments.proxy) if arguments.proxy else _of_environment(target)
    with create_connection((str(target.host), target.port), arguments.timeout, proxy=proxies) as sock:
        sock.settimeout(None)
        return _carry(Shuttle(sock))


def _typed(urls: list[str]) -> "tuple[Hop, ...]":
    import sys

    from tabi.client.argument import read_argument

    proxies = [read_argument(url) for url in urls]
    if any(proxy.shows_password for proxy in proxies):
        text = "every user of this host can read the password in -x; write the URL to a file and give -x @FILE"
        print(f"tabi: warning: {text}", file=sys.stderr)
    return tuple(proxy.hop for proxy in proxies)


def _of_environment(target: "Endpoint") -> "tuple[Hop, ...]":
    from tabi.client.environment import proxies_from_environment
    from tabi.errors import UsageError

    proxies = proxies_from_environment(str(target.host), target.port)
    if not proxies:
        raise UsageError(f"no proxy for {target}: give one by -x URL, or by all_proxy; no_proxy may exempt the target")
    return proxies


def _carry(shuttle: "Shuttle") -> int:
    import sys

    try:
        shuttle.run()
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"tabi: the connection has broken: {error.strerror}", file=sys.stderr)
        return 1
    return 0
