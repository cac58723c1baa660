"""One after the other, by key: who holds a key goes on, the others wait in the order of their coming.

Waiting costs a suspended task and nothing else; keys that nobody holds take no room.
"""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

__all__ = ["Turns"]


class Turns:
    """Locks by key, which exist while somebody holds or awaits them."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    def __len__(self) -> int:
        """Keys that are held or awaited."""
        return len(self._locks)

    def is_free(self, key: Hashable) -> bool:
        """Say whether nobody holds or awaits `key`."""
        return key not in self._locks

    @asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[None]:
        """Wait for the turn and hold it."""
        lock, users = self._locks.get(key) or (asyncio.Lock(), 0)
        self._locks[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = lock, users - 1
