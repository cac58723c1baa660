"""What users and rules may do at most: sessions at once, new sessions a second, bytes a second, lifetime.

A session belongs to its user, if it has logged in, and to the rule that allowed it. It is counted with both, whether
they are limited or not: a limit that comes with a reload counts those that are there. The rule is known before a name
is looked up or once an address is judged; a session whose addresses several rules allow is counted with all of them
until one has connected.

Bytes of tunnels are held back by the engine. Datagrams over the rate are dropped; they come out of the same bucket.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

from tabi.config.settings import TimeLimits, TunnelSettings
from tabi.errors import DeniedError
from tabi.policy.verdict import Limits, Verdict
from tabi.relay.bucket import Bucket
from tabi.relay.interface import Engine, FlowLimits
from tabi.relay.lane import Counter
from tabi.relay.tuning import Tuning
from tabi.server.counts import Counts
from tabi.server.tuning import tuning_of

__all__ = ["Claims", "LimitReachedError", "SessionLimits", "Terms"]

Kind: TypeAlias = Literal["user", "rule"]

_NO_LIMITS: Final = Limits()
_UNTUNED: Final = TunnelSettings()
_PREFIX: Final[Mapping[Kind, bytes]] = {"user": b"user ", "rule": b"rule "}


class LimitReachedError(DeniedError):
    """A user or a rule has no room for another session.

    Args:
        limit: which one it is, for the log: ``user-sessions``, ``rule-rate`` …
        text: the same for people.
    """

    def __init__(self, limit: str, text: str) -> None:
        super().__init__(text)
        self.limit = limit


class Terms(NamedTuple):
    """What a session that is allowed has to keep to.

    Args:
        flow: for the engine.
        lifetime: seconds, 0: no limit; what of it is left when a flow begins is the flow's lifetime.
        limit: whose lifetime that is, for the log: ``user-lifetime`` or ``rule-lifetime``.
        tuning: how the sockets of its flow are used.
    """

    flow: FlowLimits
    lifetime: float
    limit: str
    tuning: Tuning | None = None

    def flow_from(self, age: float) -> FlowLimits:
        """Give the limits of a flow that begins when the session is so many seconds old."""
        if not self.lifetime:
            return self.flow
        return self.flow._replace(lifetime=max(self.lifetime - age, 0.001))  # 0 would be for ever


class SessionLimits:
    """Keep the limits of users and rules.

    Args:
        users: limits by user name; those of rules come with each `Verdict`.
        counts: where sessions are counted.
        times: what holds where a rule says nothing.
        tunnel: likewise.
        clock: seconds, monotonic.

    Attributes:
        has_sessions: whether a user or a rule may have so many sessions and no more, as far as any was seen yet.
    """

    def __init__(
        self,
        users: Mapping[bytes, Limits],
        counts: Counts,
        times: TimeLimits,
        tunnel: TunnelSettings = _UNTUNED,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.has_sessions: bool = _has_sessions(users.values())
        self._users = users
        self._counts = counts
        self._times = times
        self._tunnel = tunnel
        self._clock = clock
        self._engine: Engine | None = None
        self._take_ends: Callable[[], None] = _nothing
        self._rates: dict[bytes, Bucket] = {}
        self._buckets: dict[bytes, tuple[int, int | None]] = {}  # number in the engine, bytes a second
        self._flows: dict[FlowLimits, FlowLimits] = {}  # one object for all flows that are alike

    def start(self, engine: Engine, take_ends: Callable[[], None]) -> None:
        """Let this engine hold bytes back, and ask what is over there before a session is refused."""
        self._engine = engine
        self._take_ends = take_ends

    def replace(
        self,
        users: Mapping[bytes, Limits],
        rules: Mapping[str, Limits],
        times: TimeLimits,
        tunnel: TunnelSettings = _UNTUNED,
    ) -> None:
        """Go on with other limits. Tunnels that are held back already go on at the new rate at once.

        What else has changed for a tunnel, `tabi.server.review` tells the engine.
        """
        self.has_sessions = _has_sessions((*users.values(), *rules.values()))
        self._users = users
        self._times = times
        self._tunnel = tunnel
        self._flows.clear()
        bandwidths = {_key("user", name): limits.bandwidth for name, limits in users.items()}
        bandwidths |= {_key("rule", name.encode()): limits.bandwidth for name, limits in rules.items()}
        for key in tuple(self._buckets):
            self._set_bucket(key, bandwidths.get(key))

    def acquire(self, kind: Kind, name: bytes, limits: Limits) -> None:
        """Count a session in.

        Raises:
            LimitReachedError: there are enough, or too many came lately; it is not counted in then.
        """
        key = _key(kind, name)
        self.has_sessions |= limits.sessions is not None
        if not self._counts.acquire(key, limits.sessions) and not self._acquire_again(key, limits.sessions):
            text = f"{_shown(kind, name)} has {limits.sessions} sessions, as many as it may have"
            raise LimitReachedError(f"{kind}-sessions", text)
        if limits.rate is not None and not self._rate(key, limits.rate).spend(1, self._clock()):
            self._counts.release(key)
            text = f"{_shown(kind, name)} may begin {limits.rate:g} sessions a second and has begun more"
            raise LimitReachedError(f"{kind}-rate", text)

    def _acquire_again(self, key: bytes, most: int | None) -> bool:
        """Count a session in once what is over has been counted out: the engine tells of ends together."""
        self._take_ends()
        return self._counts.acquire(key, most)

    def counters(self, user: bytes | None, verdict: Verdict) -> tuple[Counter, ...] | None:
        """Give the engine what a session of this user and verdict is counted in; None: it cannot count it.

        New sessions a second are not for the engine: a token that is taken in vain would have to go back.
        """
        parties: list[tuple[Kind, bytes, Limits]] = [("rule", verdict.rule.encode(), verdict.grants.limits)]
        if user is not None:
            parties.insert(0, ("user", user, self.of_user(user)))
        counters = []
        for kind, name, limits in parties:
            self.has_sessions |= limits.sessions is not None
            row = None if limits.rate is not None else self._counts.hold(_key(kind, name))
            if row is None:
                return None
            counters.append(Counter(row, -1 if limits.sessions is None else limits.sessions))
        return tuple(counters)

    def release(self, kind: Kind, name: bytes, count: int = 1) -> None:
        """Count so many sessions out."""
        self._counts.release(_key(kind, name), count)

    def move(self, old: str, new: str) -> None:
        """Count a session with another rule from now on, which is what allows it since a reload, room or not."""
        self.acquire("rule", new.encode(), _NO_LIMITS)
        self.release("rule", old.encode())

    def of_user(self, user: bytes | None) -> Limits:
        """Give the limits of a user."""
        return _NO_LIMITS if user is None else self._users.get(user, _NO_LIMITS)

    def terms(self, user: bytes | None, verdict: Verdict) -> Terms:
        """Say what a session has to keep to that this verdict allows."""
        grants = verdict.grants
        of_user, of_rule = self.of_user(user), grants.limits
        buckets: tuple[int, ...] = ()
        if user is not None and of_user.bandwidth is not None:
            buckets += (self._set_bucket(_key("user", user), of_user.bandwidth),)
        if of_rule.bandwidth is not None:
            buckets += (self._set_bucket(_key("rule", verdict.rule.encode()), of_rule.bandwidth),)
        lifetime, limit = 0.0, ""
        if of_user.lifetime is not None:
            lifetime, limit = of_user.lifetime, "user-lifetime"
        if of_rule.lifetime is not None and (not limit or of_rule.lifetime <= lifetime):
            lifetime, limit = of_rule.lifetime, "rule-lifetime"
        flow = FlowLimits(
            idle=self._times.idle if grants.idle is None else grants.idle,
            half_open=self._times.half_open if grants.half_open is None else grants.half_open,
            buckets=buckets,
        )
        return Terms(self._flows.setdefault(flow, flow), lifetime, limit, tuning_of(grants.knobs, self._tunnel))

    def spend(self, buckets: Iterable[int], count: int) -> bool:
        """Take so many bytes out of the buckets of a session; False if they have to be dropped."""
        return self._engine is None or self._engine.spend(buckets, count)

    def _rate(self, key: bytes, rate: float) -> Bucket:
        """Give the bucket of new sessions: as many at once as come in a second, one at least."""
        bucket = self._rates.get(key)
        if bucket is None:
            bucket = self._rates[key] = Bucket(rate, max(1.0, rate), cell=self._counts.cell(key + b" rate"))
        else:
            bucket.set_rate(rate, max(1.0, rate), self._clock())
        return bucket

    def _set_bucket(self, key: bytes, bandwidth: int | None) -> int:
        """Have the engine hold back what belongs to this key; return the number of its bucket there."""
        number, known = self._buckets.get(key, (len(self._buckets) + 1, None))
        if bandwidth != known:
            if self._engine is None:
                raise RuntimeError("limits are kept by an engine; start first")
            cell = None if bandwidth is None else self._counts.cell(key + b" bytes")
            self._engine.set_bucket(number, bandwidth, cell)
            self._buckets[key] = number, bandwidth
        return number


class Claims:
    """What one session is counted in with, until it ends or its flow carries that on."""

    __slots__ = ("_is_over", "_limits", "_rules", "_user")

    def __init__(self, limits: SessionLimits) -> None:
        self._limits = limits
        self._is_over = False
        self._user: bytes | None = None
        self._rules: list[str] = []

    def claim_user(self, user: bytes | None) -> None:
        """Count the session in with its user.

        Raises:
            LimitReachedError: the user has no room.
        """
        if user is not None and self._user is None and not self._is_over:
            self._limits.acquire("user", user, self._limits.of_user(user))
            self._user = user

    def claim_rule(self, verdict: Verdict) -> None:
        """Count the session in with a rule that allows it.

        Raises:
            LimitReachedError: the rule has no room.
        """
        if verdict.rule not in self._rules and not self._is_over:
            self._limits.acquire("rule", verdict.rule.encode(), verdict.grants.limits)
            self._rules.append(verdict.rule)

    def carry(self, rule: str) -> None:
        """Count the session in with a rule that allows it since a reload, room or not: it is there already."""
        if rule not in self._rules and not self._is_over:
            self._limits.acquire("rule", rule.encode(), _NO_LIMITS)
            self._rules.append(rule)

    def hand_over(self, rule: str) -> None:
        """Let go of all but the user and the rule that allowed what came of it; `SessionLimits.release` frees those."""
        self.carry(rule)  # an address that was judged in another shape; it is released as that rule's
        self._is_over = True
        for other in self._rules:
            if other != rule:
                self._limits.release("rule", other.encode())

    def release(self) -> None:
        """Count the session out, for good, unless its flow carries it on."""
        if self._is_over:
            return
        self._is_over = True
        if self._user is not None:
            self._limits.release("user", self._user)
        for rule in self._rules:
            self._limits.release("rule", rule.encode())


def _has_sessions(limits: Iterable[Limits]) -> bool:
    return any(one.sessions is not None for one in limits)


def _nothing() -> None:
    """Nothing is over where there is no engine."""


def _shown(kind: Kind, name: bytes) -> str:
    return f'{kind} "{name.decode("utf-8", "backslashreplace")}"'


def _key(kind: Kind, name: bytes) -> bytes:
    return _PREFIX[kind] + name
