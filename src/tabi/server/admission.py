"""Caps on connections: in total, per client, and per client before its request is there."""

from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

from tabi.addr import Address
from tabi.config.settings import Caps
from tabi.relay.lane import Counter
from tabi.server.counts import Counts, LocalCounts

__all__ = ["Admission", "ClientKey", "client_key", "show_client"]

ClientKey: TypeAlias = bytes
"""Four bytes of an IPv4 address, or the first eight of an IPv6 address (its /64)."""

_ROOMY: Final = 1024  # far more than end within the 5 ms for which an engine may keep ends to itself

_ALL: Final = b"all"
_CLIENT: Final = b"client "
_HANDSHAKE: Final = b"handshake "


def client_key(address: Address) -> ClientKey:
    """Say what counts as one client: an IPv4 address, or an IPv6 /64, all of which one host may use."""
    return address.packed[:8] if isinstance(address, IPv6Address) else address.packed


def show_client(client: ClientKey) -> str:
    """Write a client key as the network that it stands for."""
    return str(IPv4Address(client)) if len(client) == 4 else f"{IPv6Address(client + bytes(8))}/64"


class Admission:
    """Count connections against the caps.

    Args:
        caps: to be replaced by others at any time.
        counts: where they are counted; shared ones have the caps hold over all workers.
    """

    def __init__(self, caps: Caps, counts: Counts | None = None) -> None:
        self.caps = caps
        self._counts: Counts = LocalCounts() if counts is None else counts

    def __len__(self) -> int:
        """Connections admitted and not released, of this worker."""
        return self._counts.own(_ALL)

    def clients(self) -> int:
        """Clients that have a connection with this worker."""
        return sum(key.startswith(_CLIENT) for key in self._counts.counted())

    def admit(self, client: ClientKey) -> str | None:
        """Count a new connection in, as one whose handshake is under way.

        Returns:
            None, or the name of the cap that refuses it; nothing is counted then.
        """
        counts, caps = self._counts, self.caps
        if not counts.acquire(_ALL, caps.connections):
            return "connections"
        if not counts.acquire(_CLIENT + client, caps.per_client):
            counts.release(_ALL)
            return "per_client"
        if not counts.acquire(_HANDSHAKE + client, caps.handshakes_per_client):
            counts.release(_ALL)
            counts.release(_CLIENT + client)
            return "handshakes_per_client"
        return None

    @property
    def is_roomy(self) -> bool:
        """Whether a few connections that are over, and counted still, are in nobody's way."""
        least = min(self.caps.connections, self.caps.per_client)
        return least >= _ROOMY and 2 * self._counts.total(_ALL) < least

    def counters(self, client: ClientKey) -> tuple[Counter, Counter, Counter] | None:
        """Give the engine what `admit` counts in, with the caps; None: it cannot count there."""
        rows = [self._counts.hold(key) for key in (_ALL, _CLIENT + client, _HANDSHAKE + client)]
        caps = (self.caps.connections, self.caps.per_client, self.caps.handshakes_per_client)
        found = [Counter(row, cap) for row, cap in zip(rows, caps, strict=True) if row is not None]
        return (found[0], found[1], found[2]) if len(found) == len(caps) else None

    def handshake_over(self, client: ClientKey) -> None:
        """The request of an admitted connection is there, or never will be."""
        self._counts.release(_HANDSHAKE + client)

    def release(self, client: ClientKey, count: int = 1) -> None:
        """So many admitted connections of a client have ended."""
        self._counts.release(_ALL, count)
        self._counts.release(_CLIENT + client, count)
