"""``tabi passwd``: hash a password for the configuration. It is typed or comes by standard input, never by argument."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabi.cli.main import Commands

__all__ = ["add_parser", "run"]

LONGEST_LINE = 1024  # bytes; far beyond any password, so that a file given by mistake is not read to its end

_EPILOG = """\
Asks twice on a terminal; otherwise reads one line from standard input:
  printf '%s\\n' "$PASSWORD" | tabi passwd
Prints the line for a [[user]] of the configuration.
"""


class _NoWords(argparse.Action):
    """Refuse a password as argument without repeating it, as argparse's own message would, whatever it begins with."""

    def __call__(self, parser: argparse.ArgumentParser, _namespace: object, words: object, *_: object) -> None:
        if words in (["-h"], ["--help"]):
            parser.print_help()
            parser.exit()
        if words:
            parser.error("a password is not given as an argument, where every user of this host can read it")


def add_parser(commands: "Commands") -> None:
    """Register the command."""
    parser = commands.add_parser(
        "passwd",
        help="hash a password for the configuration",
        description="Hash a password with argon2id.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="tabi passwd [-h]",
        add_help=False,
        prefix_chars="\0",  # every word is an argument: one that begins with - would be repeated in an error
    )
    parser.add_argument("words", nargs="*", action=_NoWords, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(_arguments: argparse.Namespace) -> int:
    """Print the line ``password = "$argon2id$…"``; prompts go to the terminal, so that the output can be redirected.

    Returns:
        the exit code.

    Raises:
        UsageError: no password that can be used, or two different ones.
        ConfigError: argon2-cffi is missing.
    """
    import os

    from tabi.server.passwords import hash_password, require_argon2

    require_argon2("passwords are hashed with argon2id")
    secret = _typed() if os.isatty(0) else _line()
    print(f'password = "{hash_password(secret)}"')
    return 0


def _typed() -> bytes:
    from tabi.config.stored import check_secret
    from tabi.errors import UsageError

    first = _ask("password: ")
    check_secret(first)
    if _ask("password again: ") != first:
        raise UsageError("the two passwords differ; nothing was made")
    return first


def _ask(prompt: str) -> bytes:
    import getpass
    import warnings

    from tabi.errors import UsageError

    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(prompt).encode()
        except getpass.GetPassWarning:
            raise UsageError("this terminal cannot hide what is typed; give the password by standard input") from None
        except EOFError:
            raise UsageError("no password was typed") from None
        except UnicodeError:
            raise UsageError("what was typed is not text in this terminal's encoding") from None


def _line() -> bytes:
    import sys

    line = sys.stdin.buffer.readline(LONGEST_LINE)
    return line.removesuffix(b"\n")
