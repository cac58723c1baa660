"""Counters in memory that several processes share: a row is one counter, of which each process writes one cell.

A cell belongs to its process and not to one of its threads: the engine counts sessions in, the control plane counts
them out, and neither has to know who it was. So cells are added to atomically: here under a lock, by the compiled twin,
which goes with the compiled engine, in one operation of the processor. To enter a row is to
add one to one's own cell, take the sum, and take it back if that is too much: of all who race for the last place, those
who see too much step back, possibly all of them, and never do too many get in.

A pin keeps a row for its key while nothing is counted there. It lies in the same cell, above the count; whoever places
keys in rows writes it (`tabi.server.sharedtable`).
"""

import threading
from typing import Final, Protocol

__all__ = ["PIN", "Rows", "SharedRows"]

PIN: Final = 1 << 40
_COUNT: Final = PIN - 1


class SharedRows(Protocol):
    """Rows of either build; `Rows` says what each method does."""

    def enter(self, row: int, limit: int) -> bool:
        """Count one in, unless there would be more than `limit` then."""

    def leave(self, row: int) -> None:
        """Take back an `enter` that was granted."""

    def add(self, row: int, delta: int) -> int:
        """Add to our cell, and return what is counted in it now."""

    def number(self, row: int) -> int:
        """Take a number that nobody has got by this row."""

    def own(self, row: int) -> int:
        """Say how many were counted in by this process."""

    def total(self, row: int) -> int:
        """Say how many were counted in by all."""

    def unpin(self, row: int) -> bool:
        """Give the row up if nothing is counted in our cell; say whether it was."""

    def close(self) -> None:
        """Let go of the memory; nothing is counted any more."""


class Rows:
    """All rows as one process sees them. A row is known by the index of its first cell.

    Args:
        words: signed 8 bytes each.
        columns: cells of a row, one per process.
        column: which of these is ours, counted from 0.
    """

    __slots__ = ("_column", "_columns", "_lock", "_words")

    def __init__(self, words: memoryview, columns: int, column: int) -> None:
        self._words = words
        self._columns = columns
        self._column = column
        self._lock = threading.Lock()

    def enter(self, row: int, limit: int) -> bool:
        """Count one in, unless there would be more than `limit` then; below 0 it is no limit."""
        self.add(row, 1)
        if limit < 0 or self.total(row) <= limit:
            return True
        self.add(row, -1)
        return False

    def leave(self, row: int) -> None:
        """Take back an `enter` that was granted."""
        self.add(row, -1)

    def add(self, row: int, delta: int) -> int:
        """Add to our cell, and return what is counted in it now."""
        own = row + self._column
        with self._lock:
            value: int = self._words[own] + delta
            self._words[own] = value
        return value & _COUNT

    def number(self, row: int) -> int:
        """Take a number that nobody has got by this row, in no process: ours are 1 + column, and on by columns."""
        return (self.add(row, 1) - 1) * self._columns + self._column + 1

    def own(self, row: int) -> int:
        """Say how many were counted in by this process."""
        return self._words[row + self._column] & _COUNT

    def total(self, row: int) -> int:
        """Say how many were counted in by all."""
        words = self._words
        if self._columns == 1:
            return words[row] & _COUNT
        return sum(words[row : row + self._columns]) & _COUNT

    def unpin(self, row: int) -> bool:
        """Give the row up if nothing is counted in our cell; say whether it was."""
        own = row + self._column
        with self._lock:
            if self._words[own] != PIN:
                return False
            self._words[own] = 0
        return True

    def close(self) -> None:
        """Let go of the memory; nothing is counted any more."""
        self._words = memoryview(b"").cast("q")
