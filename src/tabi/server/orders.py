"""What supervisor and workers say to each other over `tabi.net.channel`.

The supervisor alone reads and builds the configuration; a worker gets it whole, with the generation that names it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tabi.addr import Address
from tabi.config.load import Configuration
from tabi.server.live import Row

__all__ = ["Answer", "Ask", "Discard", "Moved", "Prepare", "Ready", "Stop", "Swap", "Unready"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Make ready to live by this configuration; answer `Ready` or `Unready`, then wait for `Swap` or `Discard`.

    Args:
        generation: counted up by each load.
        configuration: what to live by.
        listeners: numbers of all that the worker is to listen on, in order.
        new: those of them whose sockets come with this message, in order. After them come sockets that the worker
            before this one was to leave: their queues are to be emptied, and they are to be closed.
        index: number of the worker, from 0.
        workers: how many there are.
        own: this host's addresses; `Moved` tells of others.
    """

    generation: int
    configuration: Configuration
    listeners: tuple[int, ...]
    new: tuple[int, ...]
    index: int
    workers: int
    own: frozenset[Address] = frozenset()


@dataclass(frozen=True, slots=True)
class Swap:
    """Live by what was prepared; answer `Ready` then."""

    generation: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Forget what was prepared: another worker could not."""


@dataclass(frozen=True, slots=True)
class Moved:
    """This host has other addresses now: judge by these, also by what is prepared."""

    own: frozenset[Address]


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop accepting, end within `drain` seconds."""

    drain: float


@dataclass(frozen=True, slots=True)
class Ask:
    """A question of the administrator's: `what` is sessions, kill or status."""

    number: int
    what: str
    arguments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ready:
    """Prepared; or swapped, which ended so many sessions."""

    generation: int
    ended: int = 0


@dataclass(frozen=True, slots=True)
class Unready:
    """Not prepared, and why."""

    generation: int
    why: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What was asked for."""

    number: int
    rows: list[Row]
