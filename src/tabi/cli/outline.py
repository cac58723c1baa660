"""The command line as data, for completion: commands, options and arguments, and what each may be.

Taken from the parser itself, so that nothing can be forgotten. What argparse keeps in ``_actions`` has no public name.
"""

import argparse
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

__all__ = ["Argument", "Command", "Option", "Takes", "Value", "outline"]


class Takes(Enum):
    """What a shell can offer for a value."""

    ANYTHING = auto()  # which no shell can know
    CHOICE = auto()
    FILE = auto()
    PROXY = auto()  # a URL, or @FILE
    USER = auto()
    PROGRAM = auto()  # and all that follows is its own


class Value(NamedTuple):
    """A value: its name in the help, what it may be, and its choices if they are known."""

    name: str
    takes: Takes
    choices: tuple[str, ...] = ()


class Option(NamedTuple):
    """An option: its names, the short one first; `value` is None for a switch."""

    names: tuple[str, ...]
    text: str
    value: Value | None
    is_repeated: bool


class Argument(NamedTuple):
    """An argument; `is_repeated` where it is the last and several may be given."""

    value: Value
    text: str
    is_repeated: bool


class Command(NamedTuple):
    """A command; that whose name is empty is tabi itself, whose options stand before the command's name."""

    name: str
    text: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]


# An option says by its metavar what it takes; a `--user` without one is an account of this host.
_BY_METAVAR = {
    "FILE": Takes.FILE,
    "PATH": Takes.FILE,
    "URL": Takes.PROXY,
    "USER": Takes.USER,
    "PROGRAM": Takes.PROGRAM,
}


def outline(parser: argparse.ArgumentParser) -> tuple[Command, ...]:
    """Take a parser apart: first tabi itself, then its commands in their order."""
    return (_command("", parser), *(_command(name, one) for name, one in _commands(parser)))


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _command(name: str, parser: argparse.ArgumentParser) -> Command:
    shown = [
        action
        for action in parser._actions
        if action.help is not argparse.SUPPRESS and not isinstance(action, argparse._SubParsersAction)
    ]
    options = tuple(_option(action) for action in shown if action.option_strings)
    arguments = tuple(_argument(action) for action in shown if not action.option_strings)
    return Command(name, (parser.description or "").strip().removesuffix("."), options, arguments)


def _option(action: argparse.Action) -> Option:
    value = None if action.nargs == 0 else _value(action)
    return Option(tuple(action.option_strings), _text(action), value, isinstance(action, argparse._AppendAction))


def _argument(action: argparse.Action) -> Argument:
    return Argument(_value(action), _text(action), action.nargs in ("+", "*", argparse.REMAINDER))


def _value(action: argparse.Action) -> Value:
    name = str(action.metavar or action.dest.upper())
    if action.choices is not None:
        return Value(name, Takes.CHOICE, tuple(map(str, action.choices)))
    return Value(name, _BY_METAVAR.get(name, Takes.ANYTHING))


def _text(action: argparse.Action) -> str:
    """Give the first part of the help, for there is one line."""
    return (action.help or "").partition("; ")[0]
