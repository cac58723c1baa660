"""The upstreams that rules can take: which of them rest, and how their first proxy is reached.

Each process learns by itself, and only from the connections that it makes (passive): nothing is probed.
"""

import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final

from tabi.addr import Address, Endpoint
from tabi.config.upstreams import Upstream, is_own_listener
from tabi.dial.direct import DirectOptions, direct
from tabi.dial.picking import by_weight
from tabi.dial.ways import Way
from tabi.dial.wishes import Plan
from tabi.errors import DeniedError, DialError, ProxyUnreachableError, TabiError
from tabi.net.ports import is_own_address
from tabi.policy.verdict import DIRECT, Grants, is_trusted

__all__ = ["Upstreams"]

_DIRECTLY: Final = Way(DIRECT, ())

_logger = logging.getLogger("tabi")


class Upstreams:
    """Upstreams by name; false where there is none.

    Args:
        upstreams: what the configuration has.
        is_own: says whether an address is of this host.
        clock: tells seconds, never backwards.
        draw: gives random numbers from 0 to below 1; None: those of a generator of its own.
    """

    def __init__(
        self,
        upstreams: Mapping[str, Upstream] = MappingProxyType({}),
        *,
        is_own: Callable[[Address], bool] = is_own_address,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] | None = None,
    ) -> None:
        self.table = upstreams
        self._ways = {
            one.name: Way(one.name, one.hops, one.weight, one.handicap, one.trust) for one in upstreams.values()
        }
        self._cool_downs = {one.name: one.cool_down for one in upstreams.values()}
        self._resting: dict[str, float] = {}  # until when
        self._is_own = is_own
        self._clock = clock
        self._draw = draw or random.Random().random  # not shared with a process that this one was forked from

    def __bool__(self) -> bool:
        return bool(self._ways)

    def ways(self, grants: Grants, port: int | None) -> tuple[Way, ...]:
        """Give the upstreams that a rule names, as it picks them; those that rest come last, the most rested first.

        Args:
            grants: of the rule.
            port: that they have to be trusted with; None: with every one.

        Raises:
            DialError: a reload has taken all of them away.
            DeniedError: none is trusted with the port.
        """
        known: Sequence[Way] = self._known(grants.upstreams, port)
        if grants.pick == "weight":
            known = by_weight(known, self._draw)
        return self._rested_first(known)

    def racers(
        self, grants: Grants, port: int, rank: Callable[[Sequence[Way]], Sequence[Way]]
    ) -> tuple[Way, ...]:
        """Give the ways that a rule names for a race, the direct one as well; those that rest come last.

        Args:
            grants: of the rule.
            port: that they have to be trusted with.
            rank: puts those that do not rest into their order.

        Raises:
            DialError, DeniedError: as `ways`.
        """
        return self._rested_first(rank(self._known(grants.via, port)))

    def _known(self, names: Sequence[str], port: int | None) -> list[Way]:
        known = [_DIRECTLY if name == DIRECT else self._ways.get(name) for name in names]
        ways = [way for way in known if way is not None]
        if not ways:
            raise DialError(f"there is no upstream {', '.join(names)} any more")
        trusted = [way for way in ways if is_trusted(way.trust, port)]
        if not trusted:
            what = "every port, as this takes" if port is None else f"port {port}"
            raise DeniedError(f"no upstream of the rule is trusted with {what}: {', '.join(names)}")
        return trusted

    def _rested_first(self, ways: Iterable[Way]) -> tuple[Way, ...]:
        now = self._clock()
        return tuple(sorted(ways, key=lambda way: self._rest_of(way.name, now)))

    def hear(self, way: Way, error: TabiError | None) -> None:
        """Learn that a way has served (None), or why it should rest."""
        now = self._clock()
        if error is None:
            if self._resting.pop(way.name, None) is not None:
                _logger.warning('upstream "%s" serves again', way.name)
            return
        seconds = self._cool_downs[way.name]
        if way.name not in self._resting:  # told once, until it serves again
            _logger.warning('upstream "%s" has failed, and rests for %g s at a time: %s', way.name, seconds, error)
        self._resting[way.name] = now + seconds

    def reach(self, listeners: Iterable[Endpoint], timeout: float) -> Callable[[Endpoint], Plan]:
        """Make what plans a connection to the first proxy of a way, unless that is one of `listeners`, our own."""
        return partial(self._reach, tuple(listeners), DirectOptions(timeout=timeout))

    def _reach(self, listeners: tuple[Endpoint, ...], options: DirectOptions, proxy: Endpoint) -> Plan:
        def is_another(address: Address) -> bool:
            return not is_own_listener(Endpoint(address, proxy.port), listeners, self._is_own)

        try:
            return (yield from direct(proxy, permit=is_another, options=options))
        except DeniedError:
            text = f"{proxy} is this server itself: what it is asked for would come back for ever"
            raise ProxyUnreachableError(text, retryable=False) from None

    def _rest_of(self, name: str, now: float) -> float:
        return max(0.0, self._resting.get(name, 0.0) - now)
