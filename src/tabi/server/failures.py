"""Failed logins in memory that all workers share: a row is a key and the moments of what failed under it.

A row has no state but the set of its moments, each of which is one word: when they were, and how many, says all the
rest (`tabi.server.lockouts`). So a row is read without a lock while others write; whoever dies in the middle of a
change leaves a row that is whole; and nothing belongs to one worker, so nothing is cleared when one ends. Otherwise
whoever can make a worker die would have failures forgotten.

Changes are made under a lock of the file (fcntl(2): that of a process that dies is free at once). Each failure costs
a hash, beside which the lock is nothing. Where it is not to be had, for its holder was stopped in the middle, the
change is made all the same, and the log says so once: of two failures that meet there one may be lost.

A key may lie in any of `_WINDOW` rows, which its hash begins. The hash is keyed: no client can choose names or
addresses that crowd one window. Where all of them are taken a new key gets the row that weighs least, so that a new
failure always counts; what a key weighs is not known here.
"""

import logging
import mmap
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Final, NamedTuple, TypeAlias

from tabi.relay.bucket import lock_byte, unlock_byte

__all__ = ["NOTHING", "Book", "Failures", "Key", "Past", "Shape", "Weight"]

Key: TypeAlias = tuple[bytes, bytes]
"""A client (`tabi.server.admission.ClientKey`) and a user; of the book of clients the user is empty."""

Weight: TypeAlias = tuple[float, ...]

_WINDOW: Final = 16
_PATIENCE: Final = 50  # tries of some milliseconds each

# Words of 8 bytes. Head: key of the hash (two). Row: hash of the key (two; the first is 0 where the row is free), the
# moments of failures, the last moment of each user, the hash of each user, and the key, so that it can be shown.
_HEAD: Final = 2
_MOMENTS: Final = 2

_TWO_WORDS: Final = struct.Struct("=qq")
_CLIENT: Final = 8  # bytes of the longest
_NAME: Final = 255  # RFC 1929 section 2

_logger = logging.getLogger("tabi")


class Shape(NamedTuple):
    """How much there is room for; the same for all who share a file.

    Args:
        entries: keys of each book.
        failures: moments of a key that are kept, the last ones.
        users: different users of a client that are kept.
    """

    entries: int
    failures: int
    users: int


class Past(NamedTuple):
    """What there is under a key, in seconds of the clock, the oldest first.

    Args:
        failures: when they were.
        users: when each of them failed last; only of clients.
    """

    failures: Sequence[float] = ()
    users: Sequence[float] = ()


NOTHING: Final = Past()


class Book:
    """Rows of one kind.

    Args:
        memory: shared by all.
        first: the word where the rows begin.
        shape: how many rows there are, and moments in each.
        longest: bytes of a user's name in a key.
    """

    def __init__(self, memory: memoryview, first: int, shape: Shape, longest: int) -> None:
        self._bytes, self._words, self._moments = memory, memory.cast("q"), memory.cast("d")
        self._salt = bytes(memory[: 8 * _HEAD])
        self._users_begin = _MOMENTS + shape.failures
        self._marks_begin = self._users_begin + shape.users
        self._key_begins = self._marks_begin + shape.users
        self._width = self._key_begins + (2 + _CLIENT + longest + 7) // 8  # with the size of each
        self._rows = shape.entries
        self._first = first
        self.has_users: bool = shape.users > 0
        self.end: int = first + self._width * (self._rows + _WINDOW - 1)  # so that no window goes round

    def find(self, key: Key) -> int | None:
        """Give the row of a key; None: it has none."""
        return self._find(*self._hash(_packed(key)))

    def past(self, key: Key) -> Past:
        """Read what there is under a key, which others may be changing."""
        low, high = self._hash(_packed(key))
        row = self._find(low, high)
        if row is None:
            return NOTHING
        past = self.read(row)
        # The row may have become another key's meanwhile, which takes the first word away before all others.
        return past if self._words[row] == low and self._words[row + 1] == high else NOTHING

    def read(self, row: int) -> Past:
        """Read what there is in a row."""
        failures = self._moments[row + _MOMENTS : row + self._users_begin].tolist()
        users = self._moments[row + self._users_begin : row + self._marks_begin].tolist()
        return Past(sorted(filter(None, failures)), sorted(filter(None, users)))

    def taken(self) -> Iterator[tuple[int, Key]]:
        """Go through the rows that are taken, and their keys."""
        for number, low in enumerate(self._words[self._first : self.end : self._width].tolist()):
            if low:
                row = self._first + number * self._width
                yield row, _unpacked(bytes(self._bytes[8 * (row + self._key_begins) : 8 * (row + self._width)]))

    # changes; under the lock

    def take(self, key: Key, weigh: Callable[[Past], Weight]) -> int:
        """Give the row of a key, which takes that of the least weight where it has none."""
        packed = _packed(key)
        low, high = self._hash(packed)
        row = self._find(low, high)
        if row is None:
            first = self._first + low % self._rows * self._width
            window = range(first, first + _WINDOW * self._width, self._width)
            free = (at for at in window if not self._words[at])
            row = next(free, None) or min(window, key=lambda at: weigh(self.read(at)))
            self._place(row, low, high, packed)
        return row

    def _place(self, row: int, low: int, high: int, packed: bytes) -> None:
        self._words[row] = 0  # before all else, and written last: see `past`
        self._words[row + 1 : row + self._key_begins] = _zeros(self._key_begins - 1)
        at = 8 * (row + self._key_begins)
        self._bytes[at : at + len(packed)] = packed
        self._words[row + 1] = high
        self._words[row] = low

    def note(self, row: int, now: float, user: bytes) -> None:
        """Note a failure, in the place of the oldest one; of a client also whose it was."""
        _set_oldest(self._moments[row + _MOMENTS : row + self._users_begin], now)
        if self.has_users:
            mark = self._hash(user)[0]
            moments = self._moments[row + self._users_begin : row + self._marks_begin]
            marks = self._words[row + self._marks_begin : row + self._key_begins]
            if mark in (known := marks.tolist()):
                moments[known.index(mark)] = now
            else:
                slot = _set_oldest(moments, 0.0)
                marks[slot] = mark
                moments[slot] = now

    def wipe(self, row: int) -> None:
        """Forget all failures under a key."""
        self._words[row + _MOMENTS : row + self._marks_begin] = _zeros(self._marks_begin - _MOMENTS)

    # hashes

    def _hash(self, packed: bytes) -> tuple[int, int]:
        low, high = _TWO_WORDS.unpack(blake2b(packed, digest_size=16, key=self._salt).digest())
        return low or 1, high

    def _find(self, low: int, high: int) -> int | None:
        first = self._first + low % self._rows * self._width
        window = self._words[first : first + _WINDOW * self._width : self._width].tolist()
        if low not in window:
            return None
        row = first + window.index(low) * self._width
        return row if self._words[row + 1] == high else None


class Failures:
    """The memory, with a book of pairs of client and user and a book of clients.

    Args:
        memory: of `_size` bytes for that shape.
        shape: how much there is room for.
        descriptor: of the file that others share; -1: nobody does.
    """

    def __init__(self, memory: mmap.mmap, shape: Shape, descriptor: int = -1) -> None:
        self._descriptor = descriptor
        self._has_told = False
        self.pairs: Book
        self.clients: Book
        self.pairs, self.clients = _books(memoryview(memory), shape)

    @classmethod
    def private(cls, shape: Shape) -> "Failures":
        """Make a memory that is nobody else's."""
        memory = mmap.mmap(-1, _size(shape))
        memory[: 8 * _HEAD] = os.urandom(8 * _HEAD)
        return cls(memory, shape)

    @classmethod
    def create(cls, shape: Shape) -> "Failures":
        """Make one to be shared; the system gives memory as rows are used."""
        descriptor = os.memfd_create("tabi-failures", os.MFD_CLOEXEC)
        os.truncate(descriptor, _size(shape))
        os.pwrite(descriptor, os.urandom(8 * _HEAD), 0)
        return cls(mmap.mmap(descriptor, 0), shape, descriptor)

    @classmethod
    def attach(cls, descriptor: int, shape: Shape) -> "Failures":
        """Share the one that was inherited under this descriptor, which belongs to it from here on."""
        os.set_inheritable(descriptor, False)
        return cls(mmap.mmap(descriptor, 0), shape, descriptor)

    def fileno(self) -> int:
        """Return the descriptor, for `pass_fds`."""
        return self._descriptor

    def close(self) -> None:
        """Share it with nobody any more; what is open elsewhere stays."""
        os.close(self._descriptor)
        self._descriptor = -1

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Keep others from changing anything."""
        is_locked = self._descriptor >= 0 and any(lock_byte(self._descriptor, 0) for _ in range(_PATIENCE))
        if self._descriptor >= 0 and not is_locked:
            self._tell("another process keeps its lock: of failures that come at the same moment one may be lost")
        try:
            yield
        finally:
            if is_locked:
                unlock_byte(self._descriptor, 0)

    def _tell(self, what: str) -> None:
        if not self._has_told:
            self._has_told = True
            _logger.warning("the table of failed logins: %s", what)


def _books(memory: memoryview, shape: Shape) -> tuple[Book, Book]:
    pairs = Book(memory, _HEAD, shape._replace(users=0), _NAME)
    return pairs, Book(memory, pairs.end, shape, 0)


def _size(shape: Shape) -> int:
    return 8 * _books(memoryview(bytearray(8 * _HEAD)), shape)[1].end


def _zeros(words: int) -> memoryview:
    return memoryview(bytes(8 * words)).cast("q")


def _packed(key: Key) -> bytes:
    client, user = key
    return bytes((len(client), len(user))) + client + user


def _unpacked(packed: bytes) -> Key:
    behind = 2 + packed[0]
    return packed[2:behind], packed[behind : behind + packed[1]]


def _set_oldest(moments: "memoryview[float]", now: float) -> int:
    """Put a moment in the place of the oldest, or of none, and say where that is."""
    known = moments.tolist()
    slot = known.index(min(known))
    moments[slot] = now
    return slot
