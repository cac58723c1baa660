"""The vocabulary between plans and drivers: wishes that a plan yields, facts that it is sent.

Wishes run side by side: yielding one starts it, its fact comes when it is ready, in whatever order. A wish is told
from its like by identity, so make a new object for each. `Cancel` has no fact, and a cancelled wish has none either:
what it would have opened is closed by the driver. Nor has `Close`.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar

from tabi.addr import Address, Endpoint, Name
from tabi.errors import TabiError

__all__ = [
    "Cancel", "Cancellable", "Close", "Connection", "Done", "Fact", "Failed", "Family", "Open", "Peek", "Plan", "Read",
    "Resolve", "Send", "Sleep", "Steps", "Wish", "fulfil",
]  # fmt: skip

Family: TypeAlias = Literal[4, 6]


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Connection:
    """An established TCP connection, perhaps through proxies.

    Args:
        handle: the driver's own socket object; plans only pass it on.
        remote: the address and port connected to; behind a proxy, what it was asked for.
        local: our end (BND.ADDR and BND.PORT of the reply); behind a proxy, that end as the last one tells it.
    """

    handle: object = field(repr=False)
    remote: Endpoint
    local: Endpoint


@dataclass(frozen=True, slots=True, eq=False)
class Resolve:
    """Ask for the addresses of one family. Done with `tuple[Address, ...]`, perhaps empty; fails with DialError."""

    name: Name
    family: Family


@dataclass(frozen=True, slots=True, eq=False)
class Open:
    """Connect by TCP. Done with a `Connection`; fails with DialError whose reply says why."""

    address: Address
    port: int


@dataclass(frozen=True, slots=True, eq=False)
class Send:
    """Send all of `data`. Done with None; fails with DialError."""

    connection: Connection
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Read 1 to `size` bytes, never more. Done with bytes, empty at the end of the stream; fails with DialError."""

    connection: Connection
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Peek:
    """Look at 1 to `size` bytes, which stay to be read. Done with bytes as `Read` is; fails with DialError."""

    connection: Connection
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Sleep:
    """Wait. Done with None after `seconds`."""

    seconds: float


Cancellable: TypeAlias = Resolve | Open | Send | Read | Peek | Sleep


@dataclass(frozen=True, slots=True, eq=False)
class Cancel:
    """Give up a wish that is under way; where it is done already, nothing happens."""

    wish: Cancellable


@dataclass(frozen=True, slots=True, eq=False)
class Close:
    """Close a connection that the plan has no use for; what is left open when it ends is closed in any case."""

    connection: Connection


Wish: TypeAlias = Cancellable | Cancel | Close


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """A wish came true; `value` as its class says."""

    wish: Cancellable
    value: object = None


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """A wish failed."""

    wish: Cancellable
    error: TabiError


Fact: TypeAlias = Done | Failed
Steps: TypeAlias = Generator[tuple[Wish, ...], Fact, T]
"""A plan, or a part of one, that ends in a T."""
Plan: TypeAlias = Steps[Connection]


def fulfil(wish: Wish) -> Steps[object]:
    """Wish for one thing and wait for it, while nothing else of this plan is under way.

    Returns:
        the value of its fact.

    Raises:
        TabiError: it failed.
    """
    fact = yield (wish,)
    if isinstance(fact, Failed):
        raise fact.error
    return fact.value
