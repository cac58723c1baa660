"""What is wrong with a configuration: each with its place, what was found, and what would do."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self, TypeAlias

from tabi.addr import escape, printable
from tabi.errors import ConfigError

__all__ = ["MOST_ALIKE", "ConfigurationError", "KeyPath", "Problem", "Report", "WrongError", "folded", "shown"]

MOST_ALIKE: Final = 20
"""Warnings of one kind that the log tells: of a thousand rules that never match the first few say what is wrong."""

KeyPath: TypeAlias = tuple[str | int, ...]
"""Keys and, in arrays, places counted from 0: ``("rule", 2, "port")``."""


class WrongError(ValueError):
    """A value that does not fit: `complaint` follows the value in the message, `accepted` is what to write instead."""

    def __init__(self, complaint: str, accepted: str) -> None:
        super().__init__(f"{complaint}; {accepted}")
        self.complaint = complaint
        self.accepted = accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One error or warning.

    Args:
        file: as the user named it; a set file has problems of its own.
        line: counted from 1; 0 where none is to blame.
        where: the table, for people: ``rule "staff to the web"``.
        key: within it; with its table's name where that stands alone (``time.connect``).
        found: the value, as it is written.
        complaint: what is wrong with it.
        accepted: what would do.
        warning: the configuration can be used all the same.
    """

    file: str
    line: int = 0
    where: str = ""
    key: str = ""
    found: str = ""
    complaint: str = ""
    accepted: str = ""
    warning: bool = False

    @property
    def text(self) -> str:
        """All but the place in the file."""
        place = ", ".join(filter(None, (self.where, self.key)))
        message = f"{self.found} {self.complaint}".strip()
        return ": ".join(filter(None, (place, "; ".join(filter(None, (message, self.accepted))))))

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return printable(f"{place}: warning: {self.text}" if self.warning else f"{place}: {self.text}")

    def as_dict(self) -> dict[str, str | int | bool]:
        """Give it for JSON."""
        return {**asdict(self), "text": self.text}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:  # Any: as `as_dict` has made them
        """Make it of what `as_dict` gave."""
        return cls(**{one.name: values[one.name] for one in fields(cls)})

    @property
    def kind(self) -> str:
        """What is wrong, without what is told of this one alone."""
        return self.complaint.partition(":")[0]


def folded(warnings: Iterable[Problem]) -> list[str]:
    """Put warnings into lines, of one kind at most `MOST_ALIKE`; then how many more there are, and what lists them."""
    lines = []
    counts: Counter[tuple[str, str]] = Counter()
    for one in warnings:
        counts[one.file, one.kind] += 1
        if counts[one.file, one.kind] <= MOST_ALIKE:
            lines.append(str(one))
    for (file, kind), count in counts.items():
        if count > MOST_ALIKE:
            more = f"{file}: warning: {count - MOST_ALIKE} more of {count}: {kind}; `tabi check {file}` lists all"
            lines.append(printable(more))
    return lines


class ConfigurationError(ConfigError):
    """A configuration that cannot be used; `problems` are all its errors, then its warnings."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems

    def __reduce__(self) -> tuple[type["ConfigurationError"], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


class Report:
    """Collects the problems of one file.

    Args:
        file: its name.
        lines: where each key stands; what is not in it is blamed on what holds it.
        names: how to call a table, by its path.
    """

    def __init__(self, file: str, lines: Mapping[KeyPath, int]) -> None:
        self.file = file
        self.names: dict[KeyPath, str] = {}
        self._lines = lines
        self._found: list[Problem] = []

    def __iter__(self) -> Iterator[Problem]:
        """Give the errors, then the warnings, each in the order of the file."""
        return iter(sorted(self._found, key=lambda problem: (problem.warning, problem.file != self.file, problem.line)))

    @property
    def has_errors(self) -> bool:
        """Whether the configuration cannot be used."""
        return any(not problem.warning for problem in self._found)

    def line(self, path: KeyPath) -> int:
        """Give the line of a key, or of the nearest thing around it."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 0)

    def take(self, problem: Problem) -> None:
        """Put in a problem of another file."""
        self._found.append(problem)

    def error(self, path: KeyPath, complaint: str, accepted: str = "", *, found: str = "") -> None:
        """Note what makes the configuration unusable."""
        self._note(path, complaint, accepted, found, warning=False)

    def warn(self, path: KeyPath, complaint: str, accepted: str = "", *, found: str = "") -> None:
        """Note what is probably not meant."""
        self._note(path, complaint, accepted, found, warning=True)

    def _note(self, path: KeyPath, complaint: str, accepted: str, found: str, *, warning: bool) -> None:
        where, key = self._place(path)
        self._found.append(
            Problem(
                file=self.file,
                line=self.line(path),
                where=where,
                key=key,
                found=found,
                complaint=complaint,
                accepted=accepted,
                warning=warning,
            )
        )

    def _place(self, path: KeyPath) -> tuple[str, str]:
        """Split a path into the table, as people call it, and the key."""
        for cut in range(len(path), 0, -1):
            if path[:cut] in self.names:
                return self.names[path[:cut]], _dotted(path[cut:])
        return "", _dotted(path)


def shown(value: object) -> str:
    """Show a value as the file has it."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return escape(value, 60)
        case dict():
            return "a table"
        case list():
            return "an array"
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _dotted(path: KeyPath) -> str:
    return ".".join(part for part in path if isinstance(part, str))
