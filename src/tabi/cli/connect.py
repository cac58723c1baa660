"""``tabi connect``: standard input and output, through proxies, to a target."""

import argparse
from typing import TYPE_CHECKING

from tabi.cli.through import add_arguments

if TYPE_CHECKING:
    from tabi.cli.main import Commands
    from tabi.client.stdio import Shuttle

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
    add_arguments(parser, "until the target is connected")
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
    from tabi.cli.through import chosen, seconds
    from tabi.client.stdio import Shuttle
    from tabi.errors import AddressError, UsageError
    from tabi.sync import create_connection

    timeout = seconds(arguments)
    try:
        target = Endpoint.parse(arguments.target)
    except AddressError as error:
        raise UsageError(f"the target: {error}") from None
    proxies = chosen(arguments, str(target.host), target.port)
    with create_connection((str(target.host), target.port), timeout, proxy=proxies) as sock:
        sock.settimeout(None)
        return _carry(Shuttle(sock))


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
