"""Token buckets: so many tokens a second, a bounded number at once, for as many as share the bucket.

A bucket is one number: when it will be full again. What was taken puts that off by the time in which as much comes in;
a bucket that has rested is full, and zero is a full bucket. So it needs no timer and no refill, it may lie in memory
that several processes share, and an entry that nobody looks after loses nothing.

Several processes write that number, under a lock on one byte of the shared file (fcntl(2): the lock of one that dies
is free at once). It is never waited for longer than some milliseconds: whoever cannot have it takes nothing this time.
Beside the number each process tells how many of its own wait for tokens. While others wait elsewhere, it takes no more
than the part of its own in what came in since it last took some.
"""

import fcntl
import math
import os
import threading
import time
from typing import Final, NamedTuple

__all__ = ["QUANTUM", "Bucket", "Cell", "burst_of", "lock_byte", "unlock_byte"]

# Tokens. Bytes are handed out in no smaller pieces: a segment of 512 bytes is mostly payload, and at 1 KB/s a keystroke
# waits half a second at most.
QUANTUM: Final = 512

_LEAST_BURST: Final = 4096  # bytes: a TLS handshake or a page of text passes at once, however low the rate
_BURST: Final = 0.25  # seconds' worth: no time is lost when a look comes some ticks late

# The value of a column is how many wait, plus whatever whoever made the cell put above these bits.
_WAITING: Final = (1 << 32) - 1

# Tokens. The time that each costs is rounded up to nanoseconds; three of a burst of three are three all the same.
_SLACK: Final = 1e-6

_PLENTY: Final = 1 << 32  # tokens of a bucket without a rate

# What a lock is tried: first the processor is offered to whoever holds it, then it is slept over. 2 ms in all.
_YIELDS: Final = 4
_NAPS: Final = 20
_NAP: Final = 1e-4


class Cell(NamedTuple):
    """Where a bucket lies.

    Args:
        words: signed 8 bytes each: when it is full again, in nanoseconds of CLOCK_MONOTONIC, which is one clock for all
            processes; then one column per process.
        column: which of these is ours, counted from 0.
        lock: descriptor of the file that holds the cell; -1 where no other process knows it.
        offset: the byte of that file that is locked.
    """

    words: memoryview
    column: int = 0
    lock: int = -1
    offset: int = 0

    @classmethod
    def private(cls) -> "Cell":
        """Make a cell that is this process' alone."""
        return cls(memoryview(bytearray(16)).cast("q"))


def burst_of(rate: float) -> float:
    """Say how many bytes may pass at once where `rate` bytes a second may in the long run."""
    return max(rate * _BURST, _LEAST_BURST)


class Bucket:
    """Tokens, for any thread of any process.

    Never are more than ``rate * seconds + burst`` taken in any stretch of time; only a `spend` larger than the burst
    may put a bucket into debt.

    Args:
        rate: tokens a second; None is no limit.
        burst: how many at once.
        quantum: fewer are not drawn.
        cell: where it lies.
    """

    __slots__ = ("_base", "_burst", "_cell", "_cost", "_drawn", "_mutex", "_part", "_quantum", "_rate")

    def __init__(
        self, rate: float | None = None, burst: float = 1.0, *, quantum: int = 1, cell: Cell | None = None
    ) -> None:
        self._cell = Cell.private() if cell is None else cell
        self._mutex = threading.Lock()  # fcntl's locks are the process'; they do not part its threads
        self._quantum = quantum
        self._drawn = 0.0  # when some were drawn here last
        self._part = 1.0  # of what comes in, this process'
        self._base = self._cell.words[1 + self._cell.column] & ~_WAITING
        self._reckon(rate, burst)

    @property
    def rate(self) -> float | None:
        """Tokens a second."""
        return self._rate

    def set_rate(self, rate: float | None, burst: float, now: float) -> None:
        """Go on with another rate. What was taken before costs no more than to find the bucket empty."""
        with self._mutex:
            if rate == self._rate:
                return
            self._reckon(rate, burst)
            if rate is not None and self._enter():
                words = self._cell.words
                words[0] = min(words[0], int(now * 1e9 + self._burst * self._cost))
                self._leave()

    def _reckon(self, rate: float | None, burst: float) -> None:
        self._rate = rate
        self._burst = max(burst, self._quantum)
        self._cost = 1e9 / rate if rate else 0.0  # nanoseconds for which a token is gone

    def draw(self, now: float, waiting: int = 1, held: int = 0) -> int:
        """Take what there is, or our part where others wait in other processes.

        Args:
            now: seconds, monotonic.
            waiting: how many of ours want some.
            held: tokens drawn earlier and not used yet; so many fewer there are.

        Returns:
            0, or a quantum at least.
        """
        with self._mutex:
            if self._rate is None:
                return _PLENTY
            if not self._enter():
                return 0
            try:
                words = self._cell.words
                moment = int(now * 1e9)
                full = max(words[0], moment + math.ceil(held * self._cost))
                there = self._burst - (full - moment) / self._cost + _SLACK
                if self._divide(waiting) < 1.0:
                    there = min(there, self._part * self._rate * (now - self._drawn))
                if there < self._quantum:
                    return 0
                self._drawn = now
                count = int(there)
                words[0] = full + math.ceil(count * self._cost)
                return count
            finally:
                self._leave()

    def give_back(self, count: int) -> None:
        """Return tokens that were taken and are not needed."""
        with self._mutex:
            # Without the lock they are lost, and the rate is kept all the same.
            if count and self._rate is not None and self._enter():
                self._cell.words[0] -= int(min(count, self._burst) * self._cost)
                self._leave()

    def tell(self, waiting: int) -> None:
        """Tell the other processes how many of ours wait now."""
        self._cell.words[1 + self._cell.column] = self._base + waiting

    def spend(self, count: int, now: float) -> bool:
        """Take `count` tokens or none. More than the burst at once is a debt that the time after it pays."""
        with self._mutex:
            if self._rate is None:
                return True
            if not self._enter():
                return False
            try:
                words = self._cell.words
                moment = int(now * 1e9)
                full = max(words[0], moment)
                if self._burst - (full - moment) / self._cost + _SLACK < min(count, self._burst):
                    return False
                words[0] = full + math.ceil(count * self._cost)
                return True
            finally:
                self._leave()

    def wait(self, now: float) -> float:
        """Say in how many seconds there will be a quantum for us, as things stand."""
        if not self._rate:
            return 0.0
        wait = self._cell.words[0] / 1e9 - now - (self._burst - self._quantum) / self._rate
        if self._part < 1.0:
            wait = max(wait, self._drawn + self._quantum / (self._part * self._rate) - now)
        return max(0.0, wait)

    def _divide(self, waiting: int) -> float:
        """Reckon our part by who waits here and elsewhere; tell how many wait here."""
        self.tell(waiting)
        everybody = sum(word & _WAITING for word in self._cell.words[1:])
        self._part = waiting / everybody if waiting else 1.0
        return self._part

    def _enter(self) -> bool:
        return self._cell.lock < 0 or lock_byte(self._cell.lock, self._cell.offset)

    def _leave(self) -> None:
        if self._cell.lock >= 0:
            unlock_byte(self._cell.lock, self._cell.offset)


def lock_byte(descriptor: int, offset: int) -> bool:
    """Lock a byte of a file against the other processes; False if it is not to be had within some milliseconds.

    Who holds it needs microseconds, but it may have been stopped in between, for as long as somebody likes.
    """
    for attempt in range(_YIELDS + _NAPS):
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except OSError as error:
            if not isinstance(error, BlockingIOError | PermissionError):  # EAGAIN or EACCES: somebody has it (fcntl(2))
                raise
        else:
            return True
        if attempt < _YIELDS:
            os.sched_yield()
        else:
            time.sleep(_NAP)
    return False


def unlock_byte(descriptor: int, offset: int) -> None:
    """Unlock it."""
    fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, offset)
