"""Keeping refusals from flooding the log."""

from collections.abc import Callable

from tabi.server.admission import ClientKey

__all__ = ["BURST", "MAX_CLIENTS", "RATE", "RefusalLimiter"]

BURST = 20.0  # lines at once from one client
RATE = 1.0  # lines a second after that
MAX_CLIENTS = 4096  # clients remembered; the longest unseen is forgotten


class RefusalLimiter:
    """Say which lines about failed sessions are written, by client; those that are not are counted and told of later.

    The counts of clients that were forgotten meanwhile are told together: see `held_back`.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[ClientKey, tuple[float, float, int]] = {}  # tokens, when counted, lines held back
        self._forgotten = 0

    def __len__(self) -> int:
        """Clients remembered."""
        return len(self._buckets)

    def held_back(self) -> list[tuple[ClientKey, int]]:
        """Take the counts of lines that were held back and not told of yet, by client; b"" is those forgotten since."""
        told = [(client, held) for client, (_, _, held) in self._buckets.items() if held]
        for client, _ in told:
            tokens, then, _ = self._buckets[client]
            self._buckets[client] = (tokens, then, 0)
        if self._forgotten:
            told.append((b"", self._forgotten))
            self._forgotten = 0
        return told

    def pass_through(self, client: ClientKey) -> int | None:
        """Ask for one line.

        Returns:
            None to hold it back, else how many were held back since the last line of this client.
        """
        now = self._clock()
        tokens, then, held = self._buckets.pop(client, (BURST, now, 0))
        tokens = min(BURST, tokens + (now - then) * RATE)
        if len(self._buckets) >= MAX_CLIENTS:
            self._forgotten += self._buckets.pop(next(iter(self._buckets)))[2]
        passes = tokens >= 1
        self._buckets[client] = (tokens - 1, now, 0) if passes else (tokens, now, held + 1)
        return held if passes else None
