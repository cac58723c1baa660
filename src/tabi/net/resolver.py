"""Look names up: one query for all who ask, answers kept for a while, no client in another's way.

The resolver asks a backend (`tabi.net.backends`) for one family at a time; `tabi.dial.direct` asks for both side by
side. A client holds at most an eighth of the places for queries, and a query holds its place until the backend is done
with it, given up or not: a getaddrinfo that hangs keeps its thread, and that is charged to who asked for it.
"""

import asyncio
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from tabi.addr import Address, Name
from tabi.dial.wishes import Family
from tabi.errors import DialError, DialTimeoutError, Reply, Stage
from tabi.net.backends import Answer, Backend, best_backend
from tabi.net.pool import Place, Shares

__all__ = ["Known", "Resolver"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# A TTL of 0 would mean a query for each connection of a page load; a second does no harm. A day's TTL would send
# clients to an old address until then although its owner has long mended it; asking every five minutes is cheap.
MIN_TTL = 1.0
MAX_TTL = 300.0

SHARE = 8  # a client holds at most one part in eight of all places
WAITING = 256  # look-ups in one client's queue: a browser's burst of tabs in both families, 1 KB each


class Known(NamedTuple):
    """An answer that is kept: the addresses, and until when by the resolver's clock."""

    addresses: tuple[Address, ...]
    until: float


class Resolver:
    """Look up names and addresses for many clients. It belongs to the loop that first uses it.

    Args:
        backend: who does the look-ups; None takes c-ares where aiodns is installed, else getaddrinfo.
        pool_size: queries at once; one client holds at most an eighth of them (and at least one).
        query_timeout: seconds after which a look-up is given up.
        keep: seconds for which an answer without TTL is kept.
        keep_failures: seconds for which a failure is kept, and "no such name".
        max_names: answers kept, a name with both families being two; the oldest goes first.
        clock: tells seconds, never backwards.
    """

    def __init__(
        self,
        *,
        backend: Backend | None = None,
        pool_size: int = 32,
        query_timeout: float = 5.0,
        keep: float = 30.0,
        keep_failures: float = 5.0,
        max_names: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend if backend is not None else best_backend(pool_size)
        self._backend.allow(query_timeout)
        terms = self._terms = _Terms(query_timeout, keep, keep_failures, max_names, clock)
        shares = Shares(pool_size, max(1, pool_size // SHARE), WAITING)
        self._forward: _Desk[tuple[Name, Family], tuple[Address, ...]] = _Desk(
            lambda key: self._backend.addresses(*key), shares, terms
        )
        self._reverse: _Desk[Address, Name] = _Desk(self._backend.name, shares, terms)

    def allow(self, seconds: float) -> None:
        """Give look-ups that begin from here on so long."""
        self._backend.allow(seconds)
        self._terms.query_timeout = seconds

    def ask(self, name: Name, family: Family, client: Hashable) -> asyncio.Future[tuple[Address, ...]]:
        """Do what `lookup` does without a coroutine: return a future, done at once where the answer is known.

        Cancelling it withdraws the question.
        """
        return self._forward.ask((name, family), str(name), client)

    def known(self, name: Name, family: Family) -> Known | None:
        """Say what is known of `name` without asking anybody; a failure is no addresses."""
        kept = self._forward.kept((name, family))
        if kept is None:
            return None
        until, answer = kept
        return Known(() if isinstance(answer, _Failure) else answer, until)

    async def lookup(self, name: Name, family: Family, client: Hashable) -> tuple[Address, ...]:
        """Return the addresses of `name` in one family, in the order in which they are to be tried.

        Args:
            name: what to look up.
            family: 4 or 6.
            client: on whose account, such as the address of the client (IPv6: its /64).

        Returns:
            the addresses; none where the name exists without any of this family.

        Raises:
            DialError: stage RESOLVE. HOST_UNREACHABLE and not retryable: there is no such name; retryable: the
                name servers failed. GENERAL_FAILURE: too many look-ups of this client, or our own shortage.
            DialTimeoutError: no answer in time.
        """
        return await self.ask(name, family, client)

    async def reverse(self, address: Address, client: Hashable) -> Name:
        """Return the name of `address` (a PTR record or /etc/hosts).

        Raises:
            DialError, DialTimeoutError: as `lookup` does.
        """
        return await self._reverse.ask(address, str(address), client)

    async def close(self) -> None:
        """End all look-ups with DialError and let the backend go; later ones fail at once."""
        self._forward.close()
        self._reverse.close()
        await self._backend.close()


@dataclass(slots=True)
class _Terms:
    query_timeout: float
    keep: float
    keep_failures: float
    max_names: int
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True)
class _Failure:
    """What to raise, as data: an exception that is raised again and again would grow by a traceback each time."""

    kind: type[DialError]
    text: str
    reply: Reply
    retryable: bool

    @classmethod
    def of(cls, error: DialError) -> "_Failure":
        return cls(type(error), error.text, error.reply, error.retryable)

    def error(self) -> DialError:
        return self.kind(self.text, stage=Stage.RESOLVE, reply=self.reply, retryable=self.retryable)


class _Query(Generic[K, V]):
    """One question to the backend and all who wait for it. It starts on the account of whose turn comes first."""

    def __init__(self, key: K, what: str) -> None:
        self.key = key
        self.what = what
        self.waiters: dict[asyncio.Future[V], Place | None] = {}  # the place that each queues for
        self.is_running = False
        self.timer: asyncio.TimerHandle | None = None


class _Desk(Generic[K, V]):
    """Answers that are kept, queries that run, and who waits for them; for one kind of question."""

    def __init__(self, look_up: Callable[[K], asyncio.Future[Answer[V]]], shares: Shares, terms: _Terms) -> None:
        self._look_up = look_up
        self._shares = shares
        self._terms = terms
        self._kept: dict[K, tuple[float, V | _Failure]] = {}  # until when; in the order of their coming
        self._queries: dict[K, _Query[K, V]] = {}
        self._is_closed = False

    def ask(self, key: K, what: str, client: Hashable) -> asyncio.Future[V]:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[V] = loop.create_future()
        kept = self.kept(key)
        if self._is_closed:
            _tell(waiter, _CLOSED)
        elif kept is not None:
            _tell(waiter, kept[1])
        else:
            query = self._queries.setdefault(key, _Query(key, what))
            self._join(query, waiter, client)
        return waiter

    def kept(self, key: K) -> "tuple[float, V | _Failure] | None":
        """Give the answer that is kept and not too old, with its end."""
        kept = self._kept.get(key)
        return kept if kept is not None and self._terms.clock() < kept[0] else None

    def close(self) -> None:
        self._is_closed = True
        for query in tuple(self._queries.values()):
            self._finish(query, _CLOSED)

    def _join(self, query: _Query[K, V], waiter: asyncio.Future[V], client: Hashable) -> None:
        query.waiters[waiter] = None
        waiter.add_done_callback(partial(self._forget, query))
        if query.is_running:
            return
        place = self._shares.enter(client, partial(self._start, query))
        if place is None:
            _tell(waiter, _too_many(query.what))
        elif place.is_waiting:
            query.waiters[waiter] = place
            seconds = self._terms.query_timeout
            timer = asyncio.get_running_loop().call_later(
                seconds, _tell, waiter, _timed_out(query.what, seconds, "behind others of this client")
            )
            waiter.add_done_callback(lambda _: timer.cancel())

    def _forget(self, query: _Query[K, V], waiter: asyncio.Future[V]) -> None:
        place = query.waiters.pop(waiter, None)
        if place is not None:
            self._shares.leave(place)
        if not query.waiters and not query.is_running and self._queries.get(query.key) is query:
            del self._queries[query.key]

    def _start(self, query: _Query[K, V], place: Place) -> None:
        query.is_running = True
        for waiter, other in query.waiters.items():
            query.waiters[waiter] = None
            if other is not None and other is not place:
                self._shares.leave(other)
        seconds = self._terms.query_timeout
        query.timer = asyncio.get_running_loop().call_later(
            seconds, self._give_up, query, _timed_out(query.what, seconds, "the name servers are silent")
        )
        self._look_up(query.key).add_done_callback(partial(self._answered, query, place))

    def _give_up(self, query: _Query[K, V], failure: _Failure) -> None:
        self._keep(query.key, failure, self._terms.keep_failures)
        self._finish(query, failure)

    def _answered(self, query: _Query[K, V], place: Place, source: asyncio.Future[Answer[V]]) -> None:
        outcome: V | _Failure | BaseException
        error = None if source.cancelled() else source.exception()
        if source.cancelled():
            outcome = _CLOSED
        elif error is None:
            answer = source.result()
            outcome = answer.value
            ttl = self._terms.keep if answer.ttl is None else min(max(answer.ttl, MIN_TTL), MAX_TTL)
            self._keep(query.key, outcome, self._terms.keep_failures if outcome == () else ttl)
        elif isinstance(error, DialError):
            outcome = _Failure.of(error)
            self._keep(query.key, outcome, self._terms.keep_failures)
        else:
            outcome = error  # a bug: not kept, and told to all
        self._finish(query, outcome)
        self._shares.leave(place)

    def _finish(self, query: _Query[K, V], outcome: "V | _Failure | BaseException") -> None:
        if query.timer is not None:
            query.timer.cancel()
        if self._queries.get(query.key) is query:
            del self._queries[query.key]
        for waiter in tuple(query.waiters):
            _tell(waiter, outcome)

    def _keep(self, key: K, outcome: V | _Failure, seconds: float) -> None:
        self._kept.pop(key, None)
        self._kept[key] = (self._terms.clock() + seconds, outcome)
        if len(self._kept) > self._terms.max_names:
            del self._kept[next(iter(self._kept))]


def _tell(waiter: asyncio.Future[V], outcome: V | _Failure | BaseException) -> None:
    if waiter.done():
        return
    if isinstance(outcome, _Failure):
        waiter.set_exception(outcome.error())
    elif isinstance(outcome, BaseException):
        waiter.set_exception(outcome)
    else:
        waiter.set_result(outcome)


_CLOSED = _Failure(DialError, "the resolver is closed", Reply.GENERAL_FAILURE, retryable=False)


def _too_many(what: str) -> _Failure:
    text = f"{what}: too many look-ups of this client are waiting already"
    return _Failure(DialError, text, Reply.GENERAL_FAILURE, retryable=True)


def _timed_out(what: str, seconds: float, why: str) -> _Failure:
    text = f"{what}: no answer within {seconds:g} s, {why}"
    return _Failure(DialTimeoutError, text, Reply.TTL_EXPIRED, retryable=True)
