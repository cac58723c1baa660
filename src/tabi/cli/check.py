"""``tabi check``: read a configuration as the server would, and tell of all that is wrong with it."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabi.cli.main import Commands

__all__ = ["add_parser", "run"]

_EPILOG = """\
All errors and warnings are told at once, each with its line, what was found and what is accepted.
Set files are read as well; nothing is opened, and no name is looked up.
"""


def add_parser(commands: "Commands") -> None:
    """Register the command."""
    parser = commands.add_parser(
        "check",
        help="check a configuration",
        description="Check a configuration.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="the configuration")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check, print, and say by the exit code whether the file can be used."""
    import json

    from tabi.config.load import load
    from tabi.config.problems import ConfigurationError, Problem
    from tabi.net.own import own_addresses

    problems: tuple[Problem, ...]
    counts = {"rules": 0, "users": 0}
    ok = True
    try:
        configuration = load(arguments.file, own=own_addresses())
    except ConfigurationError as error:
        ok, problems = False, error.problems
    else:
        problems = configuration.warnings
        counts = {"rules": len(configuration.rules.rules), "users": len(configuration.users)}
    if arguments.json:
        found = [problem.as_dict() for problem in problems]
        print(json.dumps({"file": arguments.file, "ok": ok, **counts, "problems": found}))
        return 0 if ok else 1
    for problem in problems:
        print(problem)
    if ok:
        parts = ["ok", _many(counts["rules"], "rule"), _many(counts["users"], "user")]
        if problems:  # which may have left the screen
            parts.append(_many(len(problems), "warning"))
        print(f"{arguments.file}: {', '.join(parts)}")
    return 0 if ok else 1


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
