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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias, TypeVar

from tabi.addr import Address, Endpoint, Name
from tabi.dial.wishes import (
    Cancel,
    Close,
    Connection,
    Done,
    Fact,
    Failed,
    Family,
    Open,
    Peek,
    Read,
    Resolve,
    Send,
    Sleep,
    Steps,
    Wish,
)
from tabi.errors import TabiError, UsageError
from tabi.testing.stream import FakeStream

__all__ = ["FakeClock", "FakeHandle", "OpenScript", "ResolveScript", "TalkScript"]

T = TypeVar("T")

ResolveScript: TypeAlias = Mapping[tuple[Name, Family], tuple[float, tuple[Address, ...] | TabiError]]
OpenScript: TypeAlias = Mapping[Address, tuple[float, TabiError | None]]
TalkScript: TypeAlias = Mapping[Address, Callable[[], FakeStream]]

_LOCAL: dict[int, Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}
_FIRST_PORT = 49152  # of the dynamic range, RFC 6335 section 6


@dataclass(frozen=True, slots=True, eq=False)
class FakeHandle:
    """What `Connection.handle` is here: the wish that it came from, and who is at the other end."""

    wish: Open
    stream: FakeStream | None = field(default=None, repr=False)


class FakeClock:
    """A driver of plans on a clock that only it turns.

    Attributes:
        now: seconds since the clock was made.
        transcript: (time, wish or fact) in the order of their happening, over all runs.
        left: wishes that the last plan left under way when it ended; a tidy plan leaves none.
        streams: the far ends of all connections that were opened, in the order of their opening.
    """

    def __init__(self) -> None:
        self.now: float = 0.0
        self.transcript: list[tuple[float, Wish | Fact]] = []
        self.left: tuple[Wish, ...] = ()
        self.streams: list[FakeStream] = []
        self._due: list[tuple[float, int, Fact | Read | Peek]] = []
        self._under_way: dict[Wish, None] = {}
        self._resolve: ResolveScript = {}
        self._open: OpenScript = {}
        self._talk: TalkScript = {}
        self._listening: dict[Read | Peek, FakeStream] = {}  # to what has nothing to say yet
        self._started = 0

    def run(
        self,
        plan: Steps[T],
        *,
        resolve: ResolveScript | None = None,
        open: OpenScript | None = None,  # noqa: A002 - named as the wish is
        talk: TalkScript | None = None,
    ) -> T:
        """Carry `plan` out and return what it returns: a connection.

        Facts that are due together come in the order of their wishes.

        Args:
            plan: a fresh plan.
            resolve: (name, family) to (seconds until the answer, addresses or error).
            open: address to (seconds until it is decided, None for a connection or the error). ``math.inf``
                seconds mean that nothing ever comes.
            talk: address to what makes the far end of each connection to it.

        Raises:
            TabiError: what the plan raised.
            UsageError: the plan wishes for what no script tells, or waits for nothing.
        """
        self._resolve, self._open, self._talk = resolve or {}, open or {}, talk or {}
        self._due, self._under_way, self._listening = [], {}, {}
        try:
            batch = next(plan)
            while True:
                for wish in batch:
                    self._take(wish)
                batch = plan.send(self._next_fact())
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            plan.close()
            self.left = tuple(self._under_way)

    def _take(self, wish: Wish) -> None:
        self.transcript.append((self.now, wish))
        match wish:
            case Cancel(wish=other):
                self._under_way.pop(other, None)
                return
            case Close(connection=connection):
                _stream(connection).closed = True
                return
        self._under_way[wish] = None
        match wish:
            case Send(connection=connection, data=data):
                _stream(connection).send(data, self.now)
                self._schedule(self.now, Done(wish))
                self._wake(_stream(connection))
            case Read(connection=connection) | Peek(connection=connection):
                self._listen(wish, _stream(connection))
            case _:
                delay, fact = self._foretell(wish)
                self._schedule(self.now + delay, fact)

    def _schedule(self, time: float, what: Fact | Read | Peek) -> None:
        if time != math.inf:
            self._started += 1
            heapq.heappush(self._due, (time, self._started, what))

    def _listen(self, wish: Read | Peek, stream: FakeStream) -> None:
        if stream.due() == math.inf:
            self._listening[wish] = stream
        else:
            self._schedule(max(self.now, stream.due()), wish)

    def _wake(self, stream: FakeStream) -> None:
        for wish in [wish for wish, other in self._listening.items() if other is stream]:
            del self._listening[wish]
            self._listen(wish, stream)

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
                if address not in self._open and address not in self._talk:
                    raise UsageError(f"the plan connects to {address}, which no script tells")
                delay, error = self._open.get(address, (0.0, None))
                if error is not None:
                    return delay, Failed(wish, error)
                return delay, Done(wish, self._connection(wish, port))
            case _:
                raise UsageError(f"the fake clock does not know {type(wish).__name__}")

    def _connection(self, wish: Open, port: int) -> Connection:
        local = Endpoint(_LOCAL[wish.address.version], _FIRST_PORT + self._started % 16384)
        make = self._talk.get(wish.address)
        if make is None:
            return Connection(FakeHandle(wish), Endpoint(wish.address, port), local)
        self.streams.append(make())
        return Connection(FakeHandle(wish, self.streams[-1]), Endpoint(wish.address, port), local)

    def _next_fact(self) -> Fact:
        while self._due:
            time, _, what = heapq.heappop(self._due)
            wish = what if isinstance(what, Read | Peek) else what.wish
            if wish in self._under_way:
                del self._under_way[wish]
                self.now = max(self.now, time)
                fact = self._read(what) if isinstance(what, Read | Peek) else what
                self.transcript.append((self.now, fact))
                return fact
        raise UsageError("the plan waits, but nothing that it wished for will ever come")

    def _read(self, wish: Read | Peek) -> Fact:
        got = _stream(wish.connection).take(wish.size, self.now, peek=isinstance(wish, Peek))
        return Failed(wish, got) if isinstance(got, TabiError) else Done(wish, got)


def _stream(connection: Connection) -> FakeStream:
    stream = connection.handle.stream if isinstance(connection.handle, FakeHandle) else None
    if stream is None:
        raise UsageError(f"the plan talks to {connection.remote}, for which no script tells a part")
    return stream
