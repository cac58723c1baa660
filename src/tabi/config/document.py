"""A TOML text held against the table of keys: every value read, every error noted with its line."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tabi.config.keys import TABLES, Key, Table
from tabi.config.positions import key_lines
from tabi.config.problems import ConfigurationError, KeyPath, Problem, Report, WrongError, shown

__all__ = ["Entry", "Part", "parse", "read_parts"]

_SYNTAX = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
_PLAINER = {
    "Invalid value": 'no value begins here; text stands in quotes, such as "*.example.org"',
    "Expected newline or end of document": 'the line goes on after its value; text stands in quotes, such as "80-443"',
    "Cannot overwrite a value": "this key is there already; several values stand in one array, such as [80, 443]",
    r"Cannot declare .* twice": "this table is there already; all its keys stand below one header",
    r"Expected '\]\]' at the end": "the header of a table of which there may be several ends in ]]",
    r"Expected '\]' at the end": "the header of a table ends in ]",
    "Expected '=' after a key": "after a key comes =, and then its value",
    "Unclosed array": "an array is not closed; it ends in ]",
    r"Illegal character '\\n'": "text in quotes is not closed; it ends in the same line",
}
"""What tomllib says, in words that help."""
_NEAR = 0.6


@dataclass(frozen=True, slots=True)
class Entry:
    """One of several values.

    Args:
        value: as read.
        negated: it began with ``!``.
        text: as written.
        path: where it stands.
    """

    value: Any  # the type of its key's kind
    negated: bool
    text: str
    path: KeyPath


@dataclass(slots=True)
class Part:
    """One table of the file, with the values that could be read."""

    table: Table
    path: KeyPath
    values: dict[str, Any] = field(default_factory=dict)  # each by the type of its key's kind
    faulty: set[str] = field(default_factory=set)
    meant: set[str] = field(default_factory=set)
    """Keys that the file seems to have under other names."""

    def get(self, key: str) -> Any:  # each by the type of its key's kind
        """Give a value, None where there is none that could be read."""
        return self.values.get(key)

    def entries(self, key: str) -> tuple[Entry, ...]:
        """Give the entries of a key that can have several."""
        found: tuple[Entry, ...] = self.values.get(key, ())
        return found

    def given(self, keys: tuple[str, ...]) -> dict[str, Any]:  # for keyword arguments
        """Give those of `keys` that the file has."""
        return {key: self.values[key] for key in keys if key in self.values}

    def has(self, key: str) -> bool:
        """Say whether the file has a key, readable or not."""
        return key in self.values or key in self.faulty


def parse(text: str, file: str) -> tuple[dict[str, Any], Report]:  # Any: whatever TOML holds
    """Parse TOML, and make ready to report on it.

    Raises:
        ConfigurationError: it is no TOML; the first error is all that can be told then.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError((_syntax_error(str(error), text, file),)) from None
    return document, Report(file, key_lines(text))


def _syntax_error(message: str, text: str, file: str) -> Problem:
    match = _SYNTAX.fullmatch(message)
    if match is None:
        return Problem(file=file, complaint=f"this is no TOML: {message}")
    line = int(match[2]) if match[2] else text.count("\n") + 1
    place = f"column {match[3]}" if match[3] else "at the end of the file"
    said = next((plain for says, plain in _PLAINER.items() if re.match(says, match[1])), match[1])
    return Problem(file=file, line=line, complaint=f"this is no TOML, {place}: {said}")


def read_parts(document: Mapping[str, Any], report: Report) -> dict[str, list[Part]]:  # Any: whatever TOML holds
    """Hold a document against the table of keys.

    Returns:
        the parts by the name of their table; exactly one for each table that is no array.
    """
    parts: dict[str, list[Part]] = {name: [] for name in TABLES}
    top = {key: value for key, value in document.items() if key not in TABLES}
    parts[""].append(_read_table(TABLES[""], top, (), report))
    for name, table in TABLES.items():
        if not name:
            continue
        value = document.get(name, [] if table.array else {})
        if table.array:
            parts[name] = _read_array(table, value, report, given=name in document)
        elif isinstance(value, dict):
            parts[name].append(_read_table(table, value, (name,), report))
        else:
            report.error((name,), "is no table", f"write [{name}] and its keys below it", found=shown(value))
            parts[name].append(Part(table, (name,)))
    return parts


def _read_array(table: Table, value: object, report: Report, *, given: bool) -> list[Part]:
    advice = f"write [[{table.name}]] and its keys below it"
    if table.short:
        advice = f'write {table.name} = ["127.0.0.1:1080"]'
        value = [value] if not isinstance(value, list | dict) else value
    if isinstance(value, dict):
        report.error((table.name,), f"[{table.name}] begins a single table", advice)
        return []
    if not isinstance(value, list):
        report.error((table.name,), "is no array of tables", advice, found=shown(value))
        return []
    if table.short and not value and given:
        report.error((table.name,), "is empty", f"{advice}, or leave it out", found="[]")
    parts = []
    for number, element in enumerate(value):
        path = (table.name, number)
        if table.short and not isinstance(element, dict):
            report.names[path] = table.name
            parts.append(_read_table(table, {table.short: element}, path, report, hide=table.short))
        elif isinstance(element, dict):
            parts.append(_read_table(table, element, path, report))
        else:
            report.error(path, "is no table", advice, found=shown(element))
    return parts


def _read_table(
    table: Table, values: Mapping[str, Any], path: KeyPath, report: Report, *, hide: str = ""
) -> Part:  # Any: whatever TOML holds
    part = Part(table, path)
    if table.array and path not in report.names:
        report.names[path] = _name(table, values, path)
    for name, value in values.items():
        key = table.key(name)
        where = path if name == hide else (*path, name)
        if key is None:
            near = _near_key(table, name)
            part.meant.update(near[:1])
            report.error(where, "is no key here", f'did you mean "{near[0]}"?' if near else _known_keys(table, name))
            continue
        if key.many:
            part.values[name], sound = _read_many(key, value, where, report)
            if not sound:
                part.faulty.add(name)
        elif (found := _read_one(key, value, where, report)) is None:
            part.faulty.add(name)
        else:
            part.values[name] = found
    for key in table.keys:
        if key.required and key.name not in values and key.name not in part.meant:
            example = "what `tabi passwd` prints" if key.secret else f"{key.name} = {key.example}"
            report.error(path, f'"{key.name}" is missing', f"write {example}")
    return part


def _name(table: Table, values: Mapping[str, object], path: KeyPath) -> str:
    name = values.get("name")
    place = path[-1]
    if isinstance(name, str) and name.isprintable() and name:
        return f'{table.name} "{name}"'
    return f"{table.name} {place + 1}" if isinstance(place, int) else table.name


def _read_one(key: Key, value: object, path: KeyPath, report: Report) -> Any:  # the type of its key's kind
    if isinstance(value, list):
        advice = "" if key.secret else f"write {key.example or key.default}"
        report.error(path, "is an array, and takes one value", advice)
        return None
    try:
        return key.kind.read(value)
    except WrongError as error:
        report.error(path, error.complaint, error.accepted, found="" if key.secret else shown(value))
        return None


def _read_many(key: Key, value: object, path: KeyPath, report: Report) -> tuple[tuple[Entry, ...], bool]:
    """Read the entries that can be read, so that errors in their meaning are told as well; say whether all could."""
    if value == [] and key.negatable:  # of a criterion: does it match everything, or nothing?
        report.error(path, "is empty", "leave the key out where anything will do, or name at least one", found="[]")
        return (), False
    entries = []
    sound = True
    for number, element in enumerate(value if isinstance(value, list) else [value]):
        where = (*path, number) if isinstance(value, list) else path
        negated = key.negatable and isinstance(element, str) and element.startswith("!")
        bare = element[1:].lstrip() if negated else element
        found = _read_one(key, bare, where, report)
        if found is None:
            sound = False
        else:
            entries.append(Entry(found, negated, f"!{bare}" if negated else str(element), where))
    return tuple(entries), sound


_OTHER_WORDS = {
    "action": "allow", "block": "refuse", "deny": "refuse", "reject": "refuse", "pass": "allow", "permit": "allow",
    "src": "from", "source": "from", "client": "from", "dst": "to", "dest": "to", "destination": "to", "target": "to",
    "host": "to", "hosts": "to", "ports": "port", "users": "user", "group": "groups", "protocol": "version",
    "commands": "command", "passwd": "password", "timeout": "connect", "interface": "egress",
    "proxy": "via", "parent": "via", "route": "via", "upstream": "via", "forward": "via", "chain": "url", "urls": "url",
    "username": "name",
    "hours": "time", "log_format": "log.format", "timeouts": "time", "limits": "cap", "caps": "cap", "sets": "set",
    "rules": "rule", "clients": "client", "bind_address": "listen", "listeners": "listen", "port_range": "ports",
}  # fmt: skip
"""What administrators of other servers would write."""


def _near_key(table: Table, name: str) -> list[str]:
    """Give the key that was probably meant, if there is one."""
    known = _keys_of(table)
    other = _OTHER_WORDS.get(name.lower(), "")
    if other in known or (not table.name and "." in other):
        return [other]
    if name not in _OF_MANY and any(one.key(name) for one in TABLES.values()):  # it is another table's
        return []
    return difflib.get_close_matches(name.lower(), known, 1, _NEAR)


_OF_MANY = frozenset({"name", "file", "address", "ports", "format"})
"""Keys that tell little about the table that was meant."""


def _known_keys(table: Table, name: str) -> str:
    holders = [_header(table) for table in TABLES.values() if table.key(name) is not None]
    if holders and name not in _OF_MANY:
        return f"it belongs into {' or '.join(holders)}"
    return "known are " + ", ".join(_keys_of(table))


def _keys_of(table: Table) -> list[str]:
    return [key.name for key in table.keys] + ([] if table.name else [one for one in TABLES if one])


def _header(table: Table) -> str:
    if not table.name:
        return "the top of the file, before any table"
    return f"[[{table.name}]]" if table.array else f"[{table.name}]"
