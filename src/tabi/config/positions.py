"""On which line of a TOML text each key stands.

`tomllib` gives values without their places. This reads the same text again, once `tomllib` has taken it, so it looks
only for what it needs and need not notice errors (TOML 1.0.0, toml.io).
"""

import re
import tomllib

from tabi.config.problems import KeyPath

__all__ = ["key_lines"]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'')
_LONG = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}(?!")|\'\'\'.*?\'{3,5}(?!\')', re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\n]+")


def key_lines(text: str) -> dict[KeyPath, int]:
    """Map each key path to its line, counted from 1.

    Args:
        text: TOML that `tomllib` has parsed.

    Returns:
        the line of every key, table and array element; a table that is only implied has that of its first key.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


class _Scanner:
    """A walk through the text, one method per construct of the grammar."""

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._text = text.replace("\r\n", "\n")
        self._at = 0
        self._line = 1
        self._counts: dict[KeyPath, int] = {}  # elements of each array of tables so far

    def document(self) -> None:
        table: KeyPath = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)

    def _header(self) -> KeyPath:
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        line = self._line
        *parents, last = self._key()
        self._at += 2 if is_array else 1
        path: KeyPath = ()
        for part in parents:
            path = self._enter(path, part, line)
        if not is_array:
            return self._enter(path, last, line)
        array = (*path, last)
        self.lines.setdefault(array, line)
        place = self._counts.get(array, 0)
        self._counts[array] = place + 1
        self.lines[*array, place] = line
        return (*array, place)

    def _enter(self, path: KeyPath, part: str, line: int) -> KeyPath:
        """Go into a table; the name of an array of tables means its last element."""
        path = (*path, part)
        self.lines.setdefault(path, line)
        return (*path, self._counts[path] - 1) if path in self._counts else path

    def _pair(self, table: KeyPath) -> None:
        path, line = table, self._line
        for part in self._key():
            path = (*path, part)
            self.lines.setdefault(path, line)
        self._at += 1  # the equals sign
        self._skip(_SPACE)
        self._value(path)

    def _key(self) -> list[str]:
        """Read a dotted key; afterwards the cursor is behind it and behind the space that follows."""
        parts = []
        while True:
            self._skip(_SPACE)
            quoted = _QUOTED.match(self._text, self._at)
            if quoted is not None:
                parts.append(tomllib.loads(f"key = {quoted[0]}")["key"])
                self._at = quoted.end()
            else:
                bare = _BARE.match(self._text, self._at)
                assert bare is not None, "tomllib has taken the text, so there is a key here"
                parts.append(bare[0])
                self._at = bare.end()
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return parts
            self._at += 1

    def _value(self, path: KeyPath) -> None:
        if self._text[self._at] == "[":
            self._array(path)
        elif self._text[self._at] == "{":
            self._inline_table(path)
        elif not (self._skip(_LONG) or self._skip(_QUOTED)):
            self._skip(_SCALAR)

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        place = 0
        self._skip(_BLANK)
        while self._text[self._at] != "]":
            self.lines[*path, place] = self._line
            self._value((*path, place))
            place += 1
            self._skip(_BLANK)
            if self._text[self._at] == ",":
                self._at += 1
                self._skip(_BLANK)
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        self._skip(_BLANK)
        while self._text[self._at] != "}":
            self._pair(path)
            self._skip(_BLANK)
            if self._text[self._at] == ",":
                self._at += 1
                self._skip(_BLANK)
        self._at += 1

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        """Go past what matches here, counting lines; say whether anything did."""
        found = pattern.match(self._text, self._at)
        if found is None or found.end() == self._at:
            return False
        self._line += self._text.count("\n", self._at, found.end())
        self._at = found.end()
        return True
