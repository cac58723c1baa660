"""Counting what is there, by key: within this process, or (`tabi.server.sharedtable`) over all workers."""

from typing import Protocol

from tabi.relay.bucket import Cell

__all__ = ["Counts", "LocalCounts"]


class Counts(Protocol):
    """How many there are of each key, of which some are counted here."""

    def acquire(self, key: bytes, limit: int | None = None) -> bool:
        """Count one in, unless there would be more than `limit` then; say whether it was."""

    def release(self, key: bytes, count: int = 1) -> None:
        """Take back so many `acquire` that were granted."""

    def own(self, key: bytes) -> int:
        """Say how many were counted in here."""

    def total(self, key: bytes) -> int:
        """Say how many there are everywhere."""

    def counted(self) -> list[bytes]:
        """List the keys that are counted here."""

    def hold(self, key: bytes) -> int | None:
        """Keep a row for the engine to count in (see `tabi.server.sharedtable`); None: it cannot."""

    def cell(self, key: bytes) -> Cell | None:
        """Give the place of a token bucket that is shared by all who name this key; None where nobody shares."""


class LocalCounts:
    """Counts of one process that is alone."""

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}

    def acquire(self, key: bytes, limit: int | None = None) -> bool:
        """Count one in, unless there would be more than `limit` then; say whether it was."""
        count = self._counts.get(key, 0)
        if limit is not None and count >= limit:
            return False
        self._counts[key] = count + 1
        return True

    def release(self, key: bytes, count: int = 1) -> None:
        """Take back so many `acquire` that were granted."""
        left = self._counts[key] - count
        if left:
            self._counts[key] = left
        else:  # no entry for what is not there: the table stays as small as the present
            del self._counts[key]

    def own(self, key: bytes) -> int:
        """Say how many there are."""
        return self._counts.get(key, 0)

    total = own

    def counted(self) -> list[bytes]:
        """List the keys that are counted."""
        return list(self._counts)

    def hold(self, _key: bytes) -> None:
        """Only one thread may count here."""

    def cell(self, _key: bytes) -> Cell | None:
        """Nobody shares."""
        return None
