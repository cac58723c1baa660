"""A table in shared memory: counts and token buckets that hold for the whole server, over all its workers.

A row is a key with one column per worker (`tabi.relay.rows`). Each worker writes its own column only and reads the sum,
so no count is ever written by two, and that of a worker that died is cleared by whoever started it
(`SharedTable.clear`). Two who race for the last place may refuse each other; each tries once more.

A key may lie in any of `_WINDOW` rows, which its hash begins. It is put there under a lock of the file (fcntl(2)), at
the first free row: one without a key, or whose line is zero and whose bucket is full. So nothing has to be cleaned up,
and a row that a worker has pinned is its to use without a lock: it is as long as something is counted there, or as the
engine may count there (`SharedTable.hold`). The hash is keyed: no client can choose addresses that crowd one window.
Where a window is full all the same, or the lock is not to be had, the worker counts for itself alone until its own
count of that key is zero again, and the log says so once.

Only the thread that serves clients may call what is here; a `Cell` that was handed out belongs to its `Bucket`, and the
engine counts in `rows` by itself.
"""

import hashlib
import logging
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator
from typing import Final

from tabi.relay import make_rows
from tabi.relay.bucket import Cell, lock_byte, unlock_byte
from tabi.relay.rows import PIN, SharedRows

__all__ = ["NUMBERS", "SharedTable"]

# 88 bytes a row with eight workers. A client that is connected needs two rows at most, a user or a rule three.
_ROWS: Final = 1 << 16
_WINDOW: Final = 16

# Words of 8 bytes. Head: rows, columns, key of the hash (two); then how many sessions each column has numbered, and the
# failures that it has counted, in one of some rows for each client. None of these is ever taken back.
# Row: hash of the key (two), when the bucket that lies there is full again (0: none lies there), and the columns, which
# are what `Rows` calls a row. A cell is what follows the hash.
_HEAD: Final = 4
NUMBERS: Final = _HEAD  # the row of numbers
_FAILURES: Final = 1024  # rows of failures; clients that share one are let in by the control plane more often
_STAMP: Final = 2
_COLUMNS: Final = 3

_PATIENCE: Final = 50  # tries of some milliseconds each

_logger = logging.getLogger("tabi")


class SharedTable:
    """One process' view of the table. Make it with `create`, give the descriptor to the workers, `attach` there.

    Args:
        descriptor: of the memory; belongs to the table from here on.
        column: the worker's, counted from 0; nobody else may write there.
        clock: seconds, monotonic, the same for all.
    """

    def __init__(self, descriptor: int, column: int = 0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._descriptor = descriptor
        self._clock = clock
        self._memory = mmap.mmap(descriptor, 0)
        self._words = memoryview(self._memory).cast("q")
        self._rows, self._workers = self._words[0], self._words[1]
        self._first, self._width = _first_row(self._workers), _COLUMNS + self._workers
        if not 0 <= column < self._workers:
            raise ValueError(f"column {column} of {self._workers}")
        self._column = column
        self.rows: SharedRows = make_rows(self._words, self._workers, column)
        self._salt = bytes(self._words[2:_HEAD])
        self._bases: dict[bytes, int] = {}  # where the rows are that are pinned here
        self._held: set[bytes] = set()  # of these, those that the engine knows
        self._alone: dict[bytes, int] = {}  # counts for which there was no row
        self._cells: dict[bytes, Cell] = {}
        self._has_told = False

    @classmethod
    def create(cls, columns: int, *, rows: int = _ROWS, clock: Callable[[], float] = time.monotonic) -> "SharedTable":
        """Make a table for so many workers; those that start while others of their number drain count as well.

        Memory is taken from the system as rows are used.
        """
        descriptor = os.memfd_create("tabi-counts", os.MFD_CLOEXEC)
        os.truncate(descriptor, 8 * (_first_row(columns) + rows * (_COLUMNS + columns)))
        os.pwrite(descriptor, struct.pack("qq", rows, columns) + os.urandom(16), 0)
        return cls(descriptor, clock=clock)

    @classmethod
    def attach(cls, descriptor: int, column: int, *, clock: Callable[[], float] = time.monotonic) -> "SharedTable":
        """Open the table that was inherited under this descriptor."""
        os.set_inheritable(descriptor, False)
        return cls(descriptor, column, clock=clock)

    def fileno(self) -> int:
        """Return the descriptor, for `pass_fds`."""
        return self._descriptor

    def close(self) -> None:
        """Let go of the table; buckets that lie in it go on until they are gone themselves."""
        self.rows.close()
        self._words.release()
        try:
            self._memory.close()
        except BufferError:  # somebody has a cell
            pass
        os.close(self._descriptor)

    def clear(self, column: int) -> None:
        """Forget all that a worker counted and pinned; call it once that worker is gone."""
        first = self._first + _COLUMNS + column
        self._words[first :: self._width] = memoryview(bytes(8 * self._rows)).cast("q")

    def numbers(self) -> Iterator[int]:
        """Number sessions, each once in all workers: on from where the worker before us in this column ended."""
        while True:
            yield self.rows.number(NUMBERS)

    def failures(self, client: bytes) -> int:
        """Give the row in which failed logins of a client are counted; their sum never falls.

        Where it is what it was, none has failed since.
        """
        return NUMBERS + self._workers * (1 + self._hash(client)[0] % _FAILURES)

    # counts

    def acquire(self, key: bytes, limit: int | None = None) -> bool:
        """Count one in, unless there would be more than `limit` then; say whether it was."""
        for _ in range(2):
            total = self._add(key)
            if limit is None or total <= limit:
                return True
            self.release(key)
            if self.total(key) >= limit:  # else another was refused together with us
                return False
        return False

    def release(self, key: bytes, count: int = 1) -> None:
        """Take back so many `acquire` that were granted, or that the engine has counted in a row that is held."""
        base = self._bases.get(key)
        if base is None:
            left = self._alone[key] - count
            if left:
                self._alone[key] = left
            else:
                del self._alone[key]
        elif not self.rows.add(base + _COLUMNS, -count) and key not in self._held:
            self._let_go(key, base)

    def own(self, key: bytes) -> int:
        """Say how many were counted in here."""
        base = self._bases.get(key)
        return self._alone.get(key, 0) if base is None else self.rows.own(base + _COLUMNS)

    def total(self, key: bytes) -> int:
        """Say how many there are in all workers."""
        base = self._bases.get(key)
        if base is None:
            if key in self._alone:
                return self._alone[key]
            base = self._find(*self._hash(key))
        return 0 if base is None else self.rows.total(base + _COLUMNS)

    def counted(self) -> list[bytes]:
        """List the keys that are counted here."""
        return [*(key for key, base in self._bases.items() if self.rows.own(base + _COLUMNS)), *self._alone]

    # rows for the engine

    def hold(self, key: bytes) -> int | None:
        """Keep a key's row for the engine to count in, and give the row; None if there is no room."""
        base = self._bases.get(key)
        if base is None:
            if key in self._alone or (base := self._pin(key)) is None:
                return None
            self._bases[key] = base
        self._held.add(key)
        return base + _COLUMNS

    def let_go(self) -> None:
        """Keep no row for the engine any more, which must not count in them any more."""
        held, self._held = self._held, set()
        for key in held:
            self._let_go(key, self._bases[key])

    def _let_go(self, key: bytes, base: int) -> None:
        if self.rows.unpin(base + _COLUMNS):
            del self._bases[key]

    # buckets

    def cell(self, key: bytes) -> Cell | None:
        """Give the place of a token bucket that is shared by all who name this key; None: no room, or nobody to share.

        It stays for as long as this worker lives.
        """
        if self._workers == 1:
            return None
        cell = self._cells.get(key)
        if cell is None:
            base = self._pin(b"bucket:" + key)
            if base is None:
                return None
            words = self._words[base + _STAMP : base + self._width]
            cell = self._cells[key] = Cell(words, self._column, self._descriptor, 8 * base)
        return cell

    # rows

    def _add(self, key: bytes) -> int:
        """Add one of ours and return the sum."""
        base = self._bases.get(key)
        if base is None:
            if key in self._alone or (base := self._pin(key)) is None:
                count = self._alone[key] = self._alone.get(key, 0) + 1
                return count
            self._bases[key] = base
        self.rows.add(base + _COLUMNS, 1)
        return self.rows.total(base + _COLUMNS)

    def _hash(self, key: bytes) -> tuple[int, int]:
        digest = memoryview(hashlib.blake2b(key, digest_size=16, key=self._salt).digest()).cast("q")
        return digest[0] or 1, digest[1]

    def _window(self, low: int) -> Iterator[int]:
        first = low % self._rows
        return (self._first + (first + step) % self._rows * self._width for step in range(_WINDOW))

    def _find(self, low: int, high: int) -> int | None:
        words = self._words
        return next((at for at in self._window(low) if words[at] == low and words[at + 1] == high), None)

    def _pin(self, key: bytes) -> int | None:
        """Pin a key's row in our column, so that the row stays; None: there is none."""
        # A holder that was stopped in between comes back within a few turns of the scheduler; counting alone would be
        # wrong for as long as the key lives, so this waits longer than a bucket does.
        if not any(lock_byte(self._descriptor, 0) for _ in range(_PATIENCE)):
            self._tell("another process keeps its lock")
            return None
        try:
            low, high = self._hash(key)
            base = self._find(low, high)
            if base is None:
                now = int(self._clock() * 1e9)
                base = next((at for at in self._window(low) if self._is_free(at, now)), None)
                if base is None:
                    self._tell("it is full")
                    return None
                self._words[base], self._words[base + 1] = low, high
            self._words[base + _COLUMNS + self._column] = PIN
            return base
        finally:
            unlock_byte(self._descriptor, 0)

    def _is_free(self, base: int, now: int) -> bool:
        words = self._words
        return not words[base] or (words[base + _STAMP] <= now and not any(words[base + _COLUMNS : base + self._width]))

    def _tell(self, why: str) -> None:
        if not self._has_told:
            self._has_told = True
            _logger.warning(
                "the table that the workers share cannot be used for a client, user or rule (%s):"
                " what it would count is counted by each worker alone",
                why,
            )


def _first_row(columns: int) -> int:
    return _HEAD + columns * (1 + _FAILURES)
