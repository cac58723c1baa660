"""What the express lane was taught: doors, passes, permits. Bounded; nothing here is a refusal."""

import secrets
from hashlib import blake2b
from typing import Final, NamedTuple

from tabi.relay.lane import Counter, Door, Permit

__all__ = ["MOST_DOORS", "Learnt", "Pass"]

MOST_DOORS: Final = 4096
_MOST_PASSES: Final = 4096
_MOST_PERMITS: Final = 8192

Place = tuple[int, str, str]


class Pass(NamedTuple):
    """A login that is known; `LaneEngine.teach_pass` says what its parts are."""

    user: bytes
    until: float
    failures: Counter


class Learnt:
    """The tables. A login is kept as a mark that means nothing without this process' key."""

    __slots__ = ("_doors", "_key", "_passes", "_permits", "_places")

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._doors: dict[Place, Door] = {}
        self._places: dict[int, Place] = {}
        self._passes: dict[bytes, Pass] = {}
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

    def door(self, listener: int, local: str, client: str) -> Door | None:
        """Find the door of a client."""
        return self._doors.get((listener, local, client))

    # passes

    def add_pass(self, door: int, message: bytes, taught: Pass) -> None:
        """Learn a login."""
        if len(self._passes) >= _MOST_PASSES:
            self._passes.clear()
        self._passes[self._mark(door, message)] = taught

    def login(self, door: int, message: bytes, now: float) -> Pass | None:
        """Say who this is, if it is known, and its door is there still."""
        known = self._passes.get(self._mark(door, message))
        return known if known is not None and known.until > now and door in self._places else None

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
