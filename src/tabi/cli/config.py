"""``tabi config``: print a fresh configuration with every key explained, or the reference of all keys."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabi.cli.main import Commands

__all__ = ["add_parser", "run"]

_EPILOG = """\
To begin with:
  tabi config > tabi.toml
  tabi check tabi.toml
"""


def add_parser(commands: "Commands") -> None:
    """Register the command."""
    parser = commands.add_parser(
        "config",
        help="print a fresh configuration, every key explained",
        description="Print a fresh configuration, every key explained.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--reference", action="store_true", help="print the reference of all keys instead, as Markdown")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print."""
    from tabi.config.reference import fresh_file, reference

    print(reference() if arguments.reference else fresh_file(), end="")
    return 0
