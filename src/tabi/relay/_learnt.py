"""What the express lane was taught: doors, passes, permits. Bounded; nothing here is a refusal."""

import secrets
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from tabi.relay.lane import Door, Permit

__all__ = ["MOST_DOORS", "Learnt"]

MOST_DOORS: Final = 4096
_MOST_PASSES: Final = 4096
_MOST_PERMITS: Final = 8192

Place = tuple[int, str, str]


class Learnt:
    """The tables. A login is kept as a mark that means nothing without this process' key."""

    __slots__ = ("_doors", "_key", "_passes", "_permits", "_places")

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._doors: dict[Place, Door] = {}
        self._places: dict[int, Place] = {}
        self._passes: dict[bytes, tuple[bytes, float]] = {}
        self._permits: dict[tuple[int, bytes | None, bytes], Permit] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._doors.clear()
        self._places.clear()
        self._passes.clear()
        self._permits.clear()

    # doors

    def add_door(self, door: Door) -> None:
        """Learn a door; in the place of another it takes that one's."""
        place = (door.listener, door.local, door.client)
        if (old := self._doors.get(place)) is not None:
            self._places.pop(old.number, None)
        elif len(self._doors) >= MOST_DOORS:
            return
        self._doors[place] = door
        self._places[door.number] = place

    def drop_doors(self, numbers: Iterable[int]) -> None:
        """Forget these, and so all that is below them."""
        for number in numbers:
            place = self._places.pop(number, None)
            if place is not None:
                del self._doors[place]

    def door(self, listener: int, local: str, client: str) -> Door | None:
        """Find the door of a client."""
        return self._doors.get((listener, local, client))

    # passes

    def add_pass(self, door: int, message: bytes, user: bytes, until: float) -> None:
        """Learn a login."""
        if len(self._passes) >= _MOST_PASSES:
            self._passes.clear()
        self._passes[self._mark(door, message)] = (user, until)

    def user(self, door: int, message: bytes, now: float) -> bytes | None:
        """Say who this is, if it is known, and its door is there still."""
        user, until = self._passes.get(self._mark(door, message), (None, 0.0))
        return user if until > now and door in self._places else None

    def _mark(self, door: int, message: bytes) -> bytes:
        return blake2b(door.to_bytes(8, "big") + message, key=self._key, digest_size=16).digest()

    # permits

    def add_permit(self, door: int, user: bytes | None, message: bytes, permit: Permit) -> None:
        """Learn what comes of a request."""
        if len(self._permits) >= _MOST_PERMITS:
            self._permits.clear()
        self._permits[door, user, message] = permit

    def permit(self, door: int, user: bytes | None, message: bytes, now: float) -> Permit | None:
        """Say what comes of a request, if that is known."""
        permit = self._permits.get((door, user, message))
        return permit if permit is not None and permit.until > now else None
