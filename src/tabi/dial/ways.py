"""Ways through proxies of which one has to serve: tried in order, each time that one has failed the next (failover).

A way has failed when a proxy on it cannot be reached, will not let us in, breaks the protocol or is silent. What the
last proxy answers about the target is the answer, and no other way is tried for it, unless it cannot say such
addresses or commands at all. A way that failed before it was asked for the target should rest, for it would fail the
next request as well; one that closes without an answer, as `ssh -D` does for whatever reason, need not.

While others are left a way has its share of the time, so that one that is silent leaves some.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tabi.addr import Address, Endpoint
from tabi.dial.chain import MOST_ADDRESSES, is_about_address
from tabi.dial.wishes import Steps
from tabi.dial.within import within
from tabi.errors import (
    DeniedError,
    DialError,
    DialTimeoutError,
    HopName,
    ProxyAuthError,
    ProxyProtocolError,
    ProxyUnreachableError,
    Reply,
    Stage,
    TabiError,
    UsageError,
)
from tabi.machine.hop import Hop
from tabi.policy.verdict import ALL_PORTS

__all__ = ["SHARE", "Asking", "Way", "by_ways", "has_failed", "should_rest", "told"]

T = TypeVar("T")

SHARE = "upstream"
"""The limit that a way exceeds which has used up its share of the time."""

_BEFORE_THE_REQUEST = frozenset({Stage.RESOLVE, Stage.CONNECT, Stage.GREETING, Stage.AUTH})

_CANNOT = frozenset({Reply.COMMAND_NOT_SUPPORTED, Reply.ADDRESS_TYPE_NOT_SUPPORTED})


@dataclass(frozen=True, slots=True)
class Way:
    """Proxies, the nearest first, under the name that rules and logs have for them.

    Args:
        name: of the way.
        hops: the proxies; none: it is the direct one.
        weight: see `tabi.dial.picking.by_weight`.
        handicap: seconds by which it starts later than its turn in a race.
        trust: first and last of each range of ports that it is trusted with.
    """

    name: str
    hops: tuple[Hop, ...]
    weight: int = 1
    handicap: float = 0.0
    trust: tuple[tuple[int, int], ...] = ALL_PORTS

    def __str__(self) -> str:
        return f'upstream "{self.name}"' if self.hops else self.name


def by_ways(
    ways: Sequence[Way],
    target: Endpoint,
    addresses: Sequence[Address],
    *,
    ask: Callable[[Way, Endpoint], Steps[T]],
    permit: Callable[[Address], bool],
    hear: Callable[[Way, TabiError | None], None],
    timeout: float,
) -> Steps[T]:
    """Plan to ask the first of `ways` that serves for `target`.

    Args:
        ways: at least one.
        target: what is asked for.
        addresses: where it is a name that was looked up: these are asked for in its place, one after the other.
        ask: makes the plan that asks a way for a target.
        permit: judges each of `addresses` as its turn comes, on each way anew.
        hear: hears which way has served (None), and which should rest, and why.
        timeout: seconds for all of it.

    Raises:
        TabiError: how the last way that was tried has failed, or what its last proxy says of the target; the text names
            all ways that were tried.
        DeniedError: there were addresses, and none was permitted.
    """
    asking = Asking(target, addresses, ask, permit)
    return within(_Failover(ways, asking, hear, timeout).run(), timeout)


class Asking(Generic[T]):
    """What is asked for, on whichever way: a target, or one after the other the addresses that it was looked up to.

    Args:
        target, addresses, ask, permit: as for `by_ways`.
    """

    def __init__(
        self,
        target: Endpoint,
        addresses: Sequence[Address],
        ask: Callable[[Way, Endpoint], Steps[T]],
        permit: Callable[[Address], bool],
    ) -> None:
        self._target = target
        self._addresses = tuple(addresses)
        self._ask = ask
        self._permit = permit

    def through(self, way: Way) -> Steps[T]:
        """Ask one way; the direct one for the target as it is, whose addresses it races by itself.

        Raises:
            TabiError: it does not serve.
            DeniedError: there were addresses, and none was permitted.
        """
        if not way.hops or not self._addresses:
            return (yield from self._ask_for(way, self._target))
        failure: TabiError | None = None
        for address in filter(self._permit, self._addresses[:MOST_ADDRESSES]):
            try:
                return (yield from self._ask_for(way, Endpoint(address, self._target.port)))
            except TabiError as error:
                if not is_about_address(error, len(way.hops)):
                    raise
                failure = failure or error
        raise failure or DeniedError(f"policy refuses every address of {self._target.host}")

    def _ask_for(self, way: Way, target: Endpoint) -> Steps[T]:
        try:
            return (yield from self._ask(way, target))
        except UsageError as error:
            unsaid = DialError(str(error), stage=Stage.REQUEST, reply=error.reply, retryable=False)
            unsaid.hop = HopName(len(way.hops), len(way.hops), str(way.hops[-1]))
            raise unsaid from None


class _Failover(Generic[T]):
    """One target, and the ways that have failed so far."""

    def __init__(
        self,
        ways: Sequence[Way],
        asking: Asking[T],
        hear: Callable[[Way, TabiError | None], None],
        timeout: float,
    ) -> None:
        self._ways = ways
        self._asking = asking
        self._hear = hear
        self._share = timeout / len(ways)
        self._failures: list[tuple[Way, TabiError]] = []

    def run(self) -> Steps[T]:
        *others, last = self._ways
        for way in others:
            try:
                return (yield from self._try(way, within(self._asking.through(way), self._share, SHARE)))
            except TabiError as error:
                if not has_failed(error):
                    raise told(error, self._failures) from None
        try:
            return (yield from self._try(last, self._asking.through(last)))
        except TabiError as error:
            raise told(error, self._failures) from None

    def _try(self, way: Way, plan: Steps[T]) -> Steps[T]:
        try:
            result = yield from plan
        except TabiError as error:
            self._failures.append((way, error))
            if should_rest(error):
                self._hear(way, error)
            raise
        self._hear(way, None)
        return result


def told(error: TabiError, failures: Sequence[tuple[Way, TabiError]]) -> TabiError:
    """Name all ways that were tried in one of their errors; what is about none of them stays as it is."""
    if error.hop is None and len(failures) == 1:
        return error
    text = "; ".join(f"{way}: {failure}" for way, failure in failures)
    named = type(error)(text, side=error.side, stage=error.stage, reply=error.reply, retryable=error.retryable)
    named.hop = error.hop
    if isinstance(named, DialTimeoutError) and isinstance(error, DialTimeoutError):
        named.limit = error.limit
    return named


def has_failed(error: TabiError) -> bool:
    """Say whether another way should be tried: the target, if it was asked for at all, has nothing to do with it."""
    if isinstance(error, DialTimeoutError) and error.limit:
        return error.limit == SHARE
    return isinstance(error, ProxyProtocolError) or error.reply in _CANNOT or should_rest(error)


def should_rest(error: TabiError) -> bool:
    """Say whether a way would fail the next request as well, whatever that asks for."""
    if error.hop is None:
        return False
    if isinstance(error, ProxyUnreachableError | ProxyAuthError):
        return True
    if isinstance(error, DialTimeoutError) and not error.limit:
        return False  # the proxy's word about the target
    is_early = error.stage in _BEFORE_THE_REQUEST or error.hop.number < error.hop.total
    return is_early and isinstance(error, ProxyProtocolError | DialTimeoutError)
