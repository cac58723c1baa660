"""Joining the fragments of SOCKS5 UDP datagrams (RFC 1928 section 7).

One queue per association. RFC 1928 has it reinitialised when its timer (5 s, the least it allows) runs out or
when a FRAG lower than the highest processed arrives; so a gap can never be filled any more, and the queue is
given up as soon as one shows. tabi itself never fragments.
"""

from typing import NamedTuple

from tabi.wire.address import WireHost
from tabi.wire.udp import LAST_FRAGMENT, MAX_PAYLOAD_IPV4, Datagram

__all__ = ["LIFETIME", "Joined", "Reassembly"]

LIFETIME = 5.0  # seconds; RFC 1928 section 7: "no less than 5 seconds"


class Joined(NamedTuple):
    """The whole datagram, if the fragment completed it, and how many fragments were lost over this one."""

    datagram: Datagram | None
    lost: int


class Reassembly:
    """The queue of one association: at most 127 fragments (FRAG has seven bits for it) and 65,507 bytes."""

    def __init__(self) -> None:
        self._target: tuple[WireHost, int] | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._started = 0.0

    def __len__(self) -> int:
        """Fragments held."""
        return len(self._parts)

    def abandon(self) -> int:
        """Give up what is held, as a standalone datagram (FRAG 0) demands; return how many are lost."""
        lost = len(self._parts)
        self._parts = []
        self._size = 0
        self._target = None
        return lost

    def add(self, fragment: Datagram, now: float) -> Joined:
        """Take a fragment (FRAG not 0).

        Args:
            fragment: as decoded; FRAG without its high bit is the position, counted from 1.
            now: seconds on any monotonic clock.
        """
        position = fragment.frag & ~LAST_FRAGMENT
        lost = 0
        if self._parts and now - self._started >= LIFETIME:
            lost = self.abandon()
        highest = len(self._parts)
        if highest > 1 and position == highest and self._target == (fragment.host, fragment.port):
            return Joined(None, lost)  # the network doubled it; RFC 1928 restarts only at a lower one
        if position == 1:
            lost += self.abandon()
            self._started = now
            self._target = (fragment.host, fragment.port)
        elif position != highest + 1 or self._target != (fragment.host, fragment.port):
            return Joined(None, lost + self.abandon() + 1)
        self._size += len(fragment.data)
        if self._size > MAX_PAYLOAD_IPV4:
            return Joined(None, lost + self.abandon() + 1)
        self._parts.append(fragment.data)
        if not fragment.frag & LAST_FRAGMENT:
            return Joined(None, lost)
        whole = Datagram(fragment.host, fragment.port, b"".join(self._parts))
        self.abandon()
        return Joined(whole, lost)
