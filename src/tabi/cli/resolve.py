"""``tabi resolve``: have a proxy look names and addresses up."""

import argparse
from typing import TYPE_CHECKING

from tabi.cli.through import add_arguments

if TYPE_CHECKING:
    from tabi.cli.main import Commands

__all__ = ["add_parser", "run"]

_EPILOG = """\
examples:
  tabi resolve -x socks5h://127.0.0.1:9050 example.org       its address, as Tor finds it
  tabi resolve -x socks5h://127.0.0.1:9050 198.51.100.7      the name of an address

The proxy has to speak Tor's RESOLVE and RESOLVE_PTR: Tor does, and tabi with `tor_resolve = true`; others answer 7.
Without -x the proxy is that of all_proxy or ALL_PROXY, unless no_proxy names the host.
"""


def add_parser(commands: "Commands") -> None:
    """Register the command."""
    parser = commands.add_parser(
        "resolve",
        help="have a proxy look a name or an address up (Tor's extension)",
        description="Have a proxy look names and addresses up, by Tor's extension.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser, "for each answer")
    parser.add_argument("--json", action="store_true", help="print JSON, an object for each")
    parser.add_argument("host", metavar="HOST", nargs="+", help="a name, or an address whose name is wanted")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask and print: the answer alone for one host, each with its host for several.

    Returns:
        the exit code: 1 if one of several has no answer, which is told on standard error.

    Raises:
        UsageError: an argument that cannot be read, or no proxy.
        TabiError: there is no answer for the only host.
    """
    import json
    import sys

    from tabi.cli.through import chosen, seconds
    from tabi.errors import TabiError, UsageError
    from tabi.sync import resolve

    timeout, code = seconds(arguments), 0
    typed = chosen(arguments, "", 0) if arguments.proxy else ()
    for host in arguments.host:
        try:
            answer = resolve(host, timeout, proxy=typed or chosen(arguments, host, 0))
        except UsageError:
            raise
        except TabiError as error:
            print(f"tabi: {host}: {error}", file=sys.stderr)
            code = 1
            continue
        if arguments.json:
            print(json.dumps({"host": host, "answer": answer}))
        else:
            print(answer if len(arguments.host) == 1 else f"{host} {answer}")
    return code
