"""Run a plan (`tabi.dial`) in virtual time: what happens when is told beforehand, nothing waits.

::

    clock = FakeClock()
    clock.run(
        direct(Endpoint(Name("two.example"), 80), permit=lambda address: True),
        resolve={(Name("two.example"), 6): (0.02, (dead,)), (Name("two.example"), 4): (0.01, (alive,))},
        open={dead: (math.inf, None), alive: (0.03, None)},
    )
    assert clock.now == 0.02 + 0.25 + 0.03
"""

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from tabi.addr import Address, Endpoint, Name
from tabi.dial.wishes import Cancel, Connection, Done, Fact, Failed, Family, Open, Plan, Resolve, Sleep, Wish
from tabi.errors import TabiError, UsageError

__all__ = ["FakeClock", "FakeHandle", "OpenScript", "ResolveScript"]

ResolveScript: TypeAlias = Mapping[tuple[Name, Family], tuple[float, tuple[Address, ...] | TabiError]]
OpenScript: TypeAlias = Mapping[Address, tuple[float, TabiError | None]]

_LOCAL: dict[int, Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}
_FIRST_PORT = 49152  # of the dynamic range, RFC 6335 section 6


@dataclass(frozen=True, slots=True, eq=False)
class FakeHandle:
    """What `Connection.handle` is here: the wish that it came from."""

    wish: Open


class FakeClock:
    """A driver of plans on a clock that only it turns.

    Attributes:
        now: seconds since the clock was made.
        transcript: (time, wish or fact) in the order of their happening, over all runs.
        left: wishes that the last plan left under way when it ended; a tidy plan leaves none.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.transcript: list[tuple[float, Wish | Fact]] = []
        self.left: tuple[Wish, ...] = ()
        self._due: list[tuple[float, int, Fact]] = []
        self._under_way: dict[Wish, None] = {}
        self._resolve: ResolveScript = {}
        self._open: OpenScript = {}
        self._started = 0

    def run(
        self,
        plan: Plan,
        *,
        resolve: ResolveScript | None = None,
        open: OpenScript | None = None,  # noqa: A002 - named as the wish is
    ) -> Connection:
        """Carry `plan` out and return its connection.

        Facts that are due together come in the order of their wishes.

        Args:
            plan: a fresh plan.
            resolve: (name, family) to (seconds until the answer, addresses or error).
            open: address to (seconds until it is decided, None for a connection or the error). ``math.inf``
                seconds mean that nothing ever comes.

        Raises:
            TabiError: what the plan raised.
            UsageError: the plan wishes for streams or for what no script tells, or waits for nothing.
        """
        self._resolve, self._open = resolve or {}, open or {}
        self._due, self._under_way = [], {}
        try:
            batch = next(plan)
            while True:
                for wish in batch:
                    self._take(wish)
                batch = plan.send(self._next_fact())
        except StopIteration as stop:
            connection: Connection = stop.value
            return connection
        finally:
            plan.close()
            self.left = tuple(self._under_way)

    def _take(self, wish: Wish) -> None:
        self.transcript.append((self.now, wish))
        if isinstance(wish, Cancel):
            self._under_way.pop(wish.wish, None)
            return
        delay, fact = self._foretell(wish)
        self._under_way[wish] = None
        if delay != math.inf:
            self._started += 1
            heapq.heappush(self._due, (self.now + delay, self._started, fact))

    def _foretell(self, wish: Wish) -> tuple[float, Fact]:
        match wish:
            case Sleep(seconds=seconds):
                return seconds, Done(wish)
            case Resolve(name=name, family=family):
                if (name, family) not in self._resolve:
                    raise UsageError(f"the plan asks for IPv{family} of {name}, which no script tells")
                delay, answer = self._resolve[name, family]
                return delay, Failed(wish, answer) if isinstance(answer, TabiError) else Done(wish, answer)
            case Open(address=address, port=port):
                if address not in self._open:
                    raise UsageError(f"the plan connects to {address}, which no script tells")
                delay, error = self._open[address]
                if error is not None:
                    return delay, Failed(wish, error)
                return delay, Done(wish, self._connection(wish, port))
            case _:
                raise UsageError(f"the fake clock has no streams for {type(wish).__name__}")

    def _connection(self, wish: Open, port: int) -> Connection:
        local = Endpoint(_LOCAL[wish.address.version], _FIRST_PORT + self._started % 16384)
        return Connection(FakeHandle(wish), Endpoint(wish.address, port), local)

    def _next_fact(self) -> Fact:
        while self._due:
            time, _, fact = heapq.heappop(self._due)
            if fact.wish in self._under_way:
                del self._under_way[fact.wish]
                self.now = max(self.now, time)
                self.transcript.append((self.now, fact))
                return fact
        raise UsageError("the plan waits, but nothing that it wished for will ever come")
