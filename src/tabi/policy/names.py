"""Sets of domain names: exact, by suffix, by glob."""

import re
from collections.abc import Iterable, Iterator

from tabi.addr import Name

__all__ = ["NameSet", "glob"]


class NameSet:
    """Names exact, by suffix (``*.example.org``: all below it, not itself) and by glob; cheap for 100,000 of them.

    Args:
        patterns: in normal form: lower case A-labels without a trailing dot.
    """

    __slots__ = ("_exact", "_globs", "_suffixes")

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._exact: set[str] = set()
        self._suffixes: set[str] = set()
        self._globs: dict[str, re.Pattern[str]] = {}
        for pattern in patterns:
            if "*" not in pattern and "?" not in pattern:
                self._exact.add(pattern)
            elif pattern.startswith("*.") and not _WILD & set(pattern[2:]):
                self._suffixes.add(pattern[2:])
            else:
                self._globs[pattern] = re.compile(glob(pattern))

    def __len__(self) -> int:
        """Patterns that were put in."""
        return len(self._exact) + len(self._suffixes) + len(self._globs)

    def __iter__(self) -> Iterator[str]:
        yield from self._exact
        yield from (f"*.{suffix}" for suffix in self._suffixes)
        yield from self._globs

    def __contains__(self, name: Name) -> bool:
        """Say whether a name is meant."""
        text = name.text
        if text in self._exact:
            return True
        if self._suffixes:
            dot = text.find(".")
            while dot >= 0:
                if text[dot + 1 :] in self._suffixes:
                    return True
                dot = text.find(".", dot + 1)
        return bool(self._globs) and any(pattern.fullmatch(text) for pattern in self._globs.values())

    def covers(self, pattern: str) -> bool:
        """Say whether all that `pattern` means is in the set as well; False where that is not certain."""
        if pattern in self._globs or "*" in self._globs:
            return True
        if not _WILD & set(pattern):
            return Name(pattern) in self
        suffix = pattern.removeprefix("*.")
        return not _WILD & set(suffix) and any(parent in self._suffixes for parent in (suffix, *_parents(suffix)))


def glob(pattern: str) -> str:
    """Turn ``*`` (any text) and ``?`` (one character) into a regular expression without backtracking traps."""
    parts = [re.escape(part).replace(r"\?", ".") for part in re.sub(r"\*+", "*", pattern).split("*")]
    # each gap is matched at its first chance and never tried again (atomic groups, Python 3.11)
    inner = "".join(f"(?>.*?{part})" for part in parts[1:-1])
    tail = f".*{parts[-1]}" if len(parts) > 1 else ""
    return parts[0] + inner + tail


_WILD = frozenset("*?")


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.partition(".")[2]
        yield name
