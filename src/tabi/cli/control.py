"""``tabi reload``, ``sessions``, ``lockouts`` and ``status``: talk to the server that runs."""

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tabi.cli.main import Commands

__all__ = ["add_parser"]

_SESSIONS_EPILOG = """\
FILTER is FIELD=VALUE, where * stands for anything: user=alice, client=10.1.2.3, target=*.example.org, session=17.
Several must all match. Without a filter all sessions are listed; --kill needs one, all are '*' of any field.
"""


def add_parser(commands: "Commands") -> None:
    """Register the commands."""
    _add(commands, "reload", "have the server read its configuration again", _reload)
    _add(commands, "status", "list the worker processes", _status)
    sessions = _add(commands, "sessions", "list sessions, or end some", _sessions, epilog=_SESSIONS_EPILOG)
    sessions.add_argument("filters", metavar="FILTER", nargs="*", help="FIELD=VALUE")
    sessions.add_argument("--kill", action="store_true", help="end those that match: both sides are reset")
    lockouts = _add(commands, "lockouts", "list who failed to log in, or let them try again", _lockouts)
    lockouts.add_argument("--lift", action="store_true", help="forget what counts against them")
    lockouts.add_argument("--client", metavar="ADDRESS", help="with --lift: only of this client")
    lockouts.add_argument("--user", metavar="NAME", help="with --lift: only of this user")


def _add(commands: "Commands", name: str, text: str, run: object, epilog: str = "") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--control", metavar="PATH", help="control socket of the server; serve prints it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def _reload(arguments: argparse.Namespace) -> int:
    from tabi.config.problems import Problem, folded

    answer = _ask(arguments, "reload")
    if _show_json(arguments, answer):
        return 0 if answer["ok"] else 1
    if not answer["ok"]:
        print(answer["error"], file=sys.stderr)
        print("tabi: nothing was changed, the old configuration goes on", file=sys.stderr)
        return 1
    for line in folded([Problem.from_dict(one) for one in answer["problems"]]):
        print(line, file=sys.stderr)
    print("reloaded")
    _tell_missing(answer["rows"][0].get("missing", ()))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    answer = _ask(arguments, "status")
    code = _show(arguments, answer, ("worker", "pid", "sessions", "tunnels"))
    if answer["ok"] and not arguments.json:
        _tell_missing(set(range(answer.get("wanted", 0))) - {row["worker"] for row in answer["rows"]})
    return code


def _tell_missing(workers: Iterable[int]) -> None:
    for index in sorted(workers):
        print(f"tabi: worker {index} is missing; the server's log says why", file=sys.stderr)


def _sessions(arguments: argparse.Namespace) -> int:
    from tabi.errors import UsageError

    wanted = {}
    for text in arguments.filters:
        field, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{text!r} is no filter; write FIELD=VALUE, such as user=alice")
        wanted[field] = value
    if arguments.kill and not wanted:
        raise UsageError("--kill needs a filter that says whom; all are session=*")
    columns = ("session", "client", "user", "command", "target", "to", "rule", "stage", "up", "down", "age", "idle")
    return _list(arguments, "kill" if arguments.kill else "sessions", wanted, columns)


def _lockouts(arguments: argparse.Namespace) -> int:
    from tabi.errors import UsageError

    picked = {name: getattr(arguments, name) for name in ("client", "user") if getattr(arguments, name)}
    if picked and not arguments.lift:
        raise UsageError("--client and --user go with --lift")
    if arguments.lift:
        return _list(arguments, "lift", picked, ("lifted",))
    return _list(arguments, "lockouts", picked, ("client", "user", "failures", "users", "closed", "seconds"))


def _list(arguments: argparse.Namespace, what: str, picked: dict[str, str], columns: tuple[str, ...]) -> int:
    return _show(arguments, _ask(arguments, what, picked), columns)


def _show(arguments: argparse.Namespace, answer: dict[str, Any], columns: tuple[str, ...]) -> int:  # JSON
    if _show_json(arguments, answer):
        return 0 if answer["ok"] else 1
    if not answer["ok"]:
        print(f"tabi: {answer['error']}", file=sys.stderr)
        return 1
    rows = [[_cell(row.get(column, "")) for column in columns] for row in answer["rows"]]
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _cell(value: object) -> str:
    """Show a value. What a client chose, such as a user name, neither speaks to the terminal nor makes a column."""
    from tabi.addr import token

    return token(str(value)) if value != "" else "-"


def _ask(arguments: argparse.Namespace, what: str, picked: dict[str, str] | None = None) -> dict[str, Any]:  # JSON
    from pathlib import Path

    from tabi.server.control import ask, default_path

    return ask(Path(arguments.control) if arguments.control else default_path(), what, picked)


def _show_json(arguments: argparse.Namespace, answer: dict[str, Any]) -> bool:  # JSON
    if arguments.json:
        import json

        print(json.dumps(answer))
    return bool(arguments.json)
