"""``tabi``: parse the arguments, call the command. Imports late, for the help is to come at once."""

import argparse
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING, TypeAlias

from tabi import __version__
from tabi.cli import check, completion, config, connect, control, doctor, explain, passwd, resolve
from tabi.cli import run as run_command

if TYPE_CHECKING:
    from tabi.addr import Endpoint

__all__ = ["Commands", "build_parser", "main"]

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a command registers itself; see `tabi.cli.check` for one that does."""

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130  # 128 and SIGINT, as shells have it
EXIT_USAGE = 2  # as argparse has it

_DESCRIPTION = """\
A SOCKS suite for Linux: SOCKS4, 4a and 5 server; CONNECT, BIND, UDP ASSOCIATE.
"""
_EPILOG = """\
examples:
  tabi serve                                   listen on 127.0.0.1:1080 and [::1]:1080, for programs on this host
  curl -x socks5h://127.0.0.1:1080 http://…    use it; socks5h lets the server look the name up
  tabi serve --help                            all that serve can be told
  tabi connect -x socks5h://127.0.0.1:1080 example.org:25      by hand, or for ssh's ProxyCommand
  tabi doctor socks5h://127.0.0.1:1080         what is wrong with that proxy

exit codes: 0 done, 1 failed, 2 wrong usage
"""
_SERVE_EPILOG = """\
Each session leaves one line on standard output: who, where to, why, how much, how long, and who hung up.
Clients from other hosts are refused (reply 2) until there are rules that allow them.
SIGTERM or SIGINT: stop accepting, give sessions two seconds, exit; a second one ends at once.
SIGHUP, with --config: read the file again; an error in it changes nothing.
"""


class _Version(argparse.Action):
    """Print the version and the engine; looks for the engine only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from tabi.relay import ENGINE_NAME

        print(f"tabi {__version__} (engine: {ENGINE_NAME})")
        parser.exit()


def _endpoint(text: str) -> "Endpoint":
    from tabi.addr import Endpoint
    from tabi.errors import AddressError

    try:
        return Endpoint.parse(text)
    except AddressError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1024):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes; write 1 to 1024")
    return int(text)


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="tabi", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=raw)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and the engine, and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    serve = commands.add_parser(
        "serve", help="run a SOCKS server", description="Run a SOCKS4, 4a and 5 server.", epilog=_SERVE_EPILOG,
        formatter_class=raw,
    )  # fmt: skip
    serve.add_argument(
        "--listen",
        metavar="HOST:PORT",
        action="append",
        type=_endpoint,
        help="listen here; may be given several times; an IPv6 address in brackets; port 0 takes a free one "
        "(default: 127.0.0.1:1080 and [::1]:1080)",
    )
    serve.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="how session lines look (default: text)",
    )
    serve.add_argument(
        "--config", metavar="FILE", help="rules, users, listeners, limits; `tabi config` prints a fresh one"
    )
    serve.add_argument("--workers", metavar="N", type=_count, help="processes, with --config (default: one per core)")
    serve.add_argument("--control", metavar="PATH", help="control socket, with --config")
    for command in (check, explain, config, passwd, control, connect, resolve, doctor, run_command, completion):
        command.add_parser(commands)
    return parser


def _parse(given: Sequence[str]) -> argparse.Namespace:
    try:
        return build_parser().parse_args(given)
    except SystemExit as end:
        if end.code == EXIT_USAGE and list(given[:1]) in (["run"], ["shell"]):  # where 2 would be the program's own
            raise SystemExit(run_command.EXIT_OURS) from None
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; None takes those of the process.

    Returns:
        the exit code: 0, 1 for a failure, 2 for wrong usage; those of a program that is run, and then 125 for our own.
    """
    arguments = _parse(sys.argv[1:] if argv is None else argv)
    from tabi.errors import TabiError

    try:
        if "run" in arguments:
            if isinstance(sys.stdout, TextIOWrapper):  # a locale that cannot show a name must not end the command
                sys.stdout.reconfigure(errors="backslashreplace")
            code: int = arguments.run(arguments)
            sys.stdout.flush()  # or the interpreter would find a broken pipe when nobody catches it any more
            return code
        from tabi.cli import serve

        if arguments.config is not None:
            if arguments.listen or arguments.log_format != "text":
                print("tabi: --listen and --log-format are said in the file where there is --config", file=sys.stderr)
                return EXIT_USAGE
            return serve.run_configured(config=arguments.config, workers=arguments.workers, control=arguments.control)
        return serve.run(listen=arguments.listen, log_format=arguments.log_format)
    except TabiError as error:
        print(f"tabi: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except BrokenPipeError:  # whoever reads has seen enough, as head(1) does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except KeyboardInterrupt:  # before a command has its own handler
        return EXIT_INTERRUPTED
