"""Limits of users and rules: who is counted with what, what is refused, and what flows have to keep to."""

import os
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from tabi.config.settings import TimeLimits
from tabi.errors import Reply
from tabi.policy.verdict import Grants, Limits, Verdict
from tabi.relay.bucket import Cell
from tabi.server.counts import LocalCounts
from tabi.server.limits import Claims, LimitReachedError, SessionLimits
from tabi.server.sharedtable import SharedTable


class Engine:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.set: list[tuple[int, int | None, Cell | None]] = []

    def set_bucket(self, number: int, rate: int | None, cell: Cell | None = None) -> None:
        self.set.append((number, rate, cell))

    def spend(self, buckets: Iterable[int], count: int) -> bool:
        return count < 100 * len(list(buckets))


class Kept(SimpleNamespace):
    """Limits with a clock and counts to look at."""

    limits: SessionLimits
    counts: Any
    engine: Engine
    now: float
    over: list[Claims]


def keep(counts: Any = None, **users: Limits) -> Kept:
    kept = Kept(counts=LocalCounts() if counts is None else counts, engine=Engine(), now=100.0, over=[])
    table = {name.encode(): limits for name, limits in users.items()}
    kept.limits = SessionLimits(table, kept.counts, TimeLimits(idle=5.0), clock=lambda: kept.now)

    def take_ends() -> None:
        while kept.over:
            kept.over.pop().release()

    kept.limits.start(kept.engine, take_ends)  # type: ignore[arg-type]
    return kept


def verdict(rule: str = "rule", **grants: Any) -> Verdict:
    limits = {name: grants.pop(name) for name in ("sessions", "rate", "bandwidth", "lifetime") if name in grants}
    return Verdict(allow=True, rule=rule, grants=Grants(limits=Limits(**limits), **grants))


def claim(kept: Kept, user: bytes | None, *verdicts: Verdict) -> Claims:
    claims = Claims(kept.limits)
    claims.claim_user(user)
    for one in verdicts:
        claims.claim_rule(one)
    return claims


def refused(kept: Kept, user: bytes | None, *verdicts: Verdict) -> LimitReachedError:
    claims = Claims(kept.limits)
    try:
        with pytest.raises(LimitReachedError) as caught:
            claims.claim_user(user)
            for one in verdicts:
                claims.claim_rule(one)
    finally:
        claims.release()
    return caught.value


def test_sessions_of_a_user_are_limited_whatever_rule_allows_them() -> None:
    kept = keep(alice=Limits(sessions=2))
    first = claim(kept, b"alice", verdict("one"))
    claim(kept, b"alice", verdict("two"))
    error = refused(kept, b"alice", verdict("three"))
    assert (error.limit, error.reply) == ("user-sessions", Reply.NOT_ALLOWED)
    assert error.text == 'user "alice" has 2 sessions, as many as it may have'
    claim(kept, b"bob", verdict("one"))
    claim(kept, None, verdict("one"))
    first.release()
    claim(kept, b"alice", verdict("three"))


def test_sessions_of_a_rule_are_limited_whoever_they_belong_to() -> None:
    kept = keep()
    few = verdict("few", sessions=1)
    first = claim(kept, b"alice", few)
    assert refused(kept, None, few).limit == "rule-sessions"
    assert refused(kept, b"bob", verdict("many"), few).limit == "rule-sessions"
    assert kept.counts.own(b"user bob") == kept.counts.own(b"rule many") == 0
    first.release()
    claim(kept, None, few)


def test_what_is_over_is_counted_out_before_a_session_is_refused() -> None:
    kept = keep(alice=Limits(sessions=1))
    kept.over.append(claim(kept, b"alice", verdict("one", sessions=1)))
    claim(kept, b"alice", verdict("one", sessions=1))
    assert refused(kept, b"alice").limit == "user-sessions"


def test_it_is_known_whether_anybody_may_have_so_many_sessions_only() -> None:
    assert keep(alice=Limits(sessions=1)).limits.has_sessions
    kept = keep(alice=Limits(rate=1.0))
    claim(kept, b"alice", verdict("many"))
    assert not kept.limits.has_sessions
    claim(kept, None, verdict("few", sessions=1))
    assert kept.limits.has_sessions
    kept.limits.replace({}, {"many": Limits()}, TimeLimits())
    assert not kept.limits.has_sessions
    kept.limits.replace({}, {"few": Limits(sessions=1)}, TimeLimits())
    assert kept.limits.has_sessions


def test_a_user_and_a_rule_of_one_name_are_two() -> None:
    kept = keep(staff=Limits(sessions=1))
    claim(kept, b"staff", verdict("staff", sessions=1))
    assert refused(kept, b"staff").limit == "user-sessions"
    assert refused(kept, None, verdict("staff", sessions=1)).limit == "rule-sessions"


def test_new_sessions_come_at_the_rate_and_refused_ones_are_not_counted() -> None:
    kept = keep(alice=Limits(rate=2.0))
    claims = [claim(kept, b"alice") for _ in range(2)]
    error = refused(kept, b"alice")
    assert (error.limit, error.text) == ("user-rate", 'user "alice" may begin 2 sessions a second and has begun more')
    assert kept.counts.own(b"user alice") == 2
    for one in claims:
        one.release()
    assert refused(kept, b"alice").limit == "user-rate"  # ended ones have begun all the same
    kept.now += 0.51
    claim(kept, b"alice")
    assert refused(kept, b"alice").limit == "user-rate"


def test_less_than_one_a_second_is_one_at_once() -> None:
    kept = keep()
    slow = verdict("slow", rate=0.1)
    claim(kept, None, slow)
    kept.now += 9.9
    assert refused(kept, None, slow).limit == "rule-rate"
    kept.now += 0.2
    claim(kept, None, slow)


def test_a_session_is_counted_once_with_each_and_nothing_after_its_end() -> None:
    kept = keep()
    claims = claim(kept, b"alice", verdict("one"), verdict("two"), verdict("one"))
    claims.claim_user(b"alice")
    assert sorted(kept.counts.counted()) == [b"rule one", b"rule two", b"user alice"]
    assert [kept.counts.own(key) for key in kept.counts.counted()] == [1, 1, 1]
    claims.release()
    claims.release()
    claims.claim_user(b"alice")
    claims.claim_rule(verdict("one"))
    assert kept.counts.counted() == []


def test_a_flow_is_counted_with_its_user_and_the_rule_that_allowed_its_address() -> None:
    kept = keep()
    claims = claim(kept, b"alice", verdict("one"), verdict("two"))
    claims.hand_over("two")
    claims.release()  # of a session that is gone
    assert sorted(kept.counts.counted()) == [b"rule two", b"user alice"]
    kept.limits.release("user", b"alice")
    kept.limits.release("rule", b"two")
    assert kept.counts.counted() == []
    claim(kept, None).hand_over("another")
    kept.limits.release("rule", b"another")
    assert kept.counts.counted() == []


def test_without_limits_the_servers_times_hold_and_flows_share_one_object() -> None:
    kept = keep()
    terms = kept.limits.terms(None, verdict())
    assert (terms.flow.idle, terms.flow.half_open, terms.flow.lifetime, terms.flow.buckets) == (5.0, 600.0, 0.0, ())
    assert (terms.lifetime, terms.limit) == (0.0, "")
    assert kept.limits.terms(b"alice", verdict("other")).flow is terms.flow
    assert kept.engine.set == []


def test_what_a_rule_says_stands_before_the_servers_times() -> None:
    terms = keep().limits.terms(None, verdict(idle=1.0, half_open=0.0))
    assert (terms.flow.idle, terms.flow.half_open) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("of_user", "of_rule", "expected"),
    [
        (10.0, None, (10.0, "user-lifetime")),
        (None, 7.0, (7.0, "rule-lifetime")),
        (10.0, 7.0, (7.0, "rule-lifetime")),
        (3.0, 7.0, (3.0, "user-lifetime")),
    ],
)
def test_the_shorter_lifetime_counts(of_user: float | None, of_rule: float | None, expected: tuple[float, str]) -> None:
    kept = keep(alice=Limits(lifetime=of_user))
    terms = kept.limits.terms(b"alice", verdict(lifetime=of_rule))
    assert (terms.lifetime, terms.limit) == expected


def test_bandwidth_is_a_bucket_for_each_user_and_rule_that_has_one() -> None:
    kept = keep(alice=Limits(bandwidth=1000), bob=Limits(bandwidth=500))
    wide = verdict("wide", bandwidth=9000)
    alice = kept.limits.terms(b"alice", wide).flow.buckets
    bob = kept.limits.terms(b"bob", wide).flow.buckets
    assert kept.limits.terms(b"alice", wide).flow.buckets == alice
    assert kept.limits.terms(None, wide).flow.buckets == alice[1:] == bob[1:]
    assert alice[0] != bob[0]
    assert kept.engine.set == [(alice[0], 1000, None), (alice[1], 9000, None), (bob[0], 500, None)]
    assert not kept.limits.spend(alice, 200)
    assert kept.limits.spend(alice, 199)


def test_new_limits_hold_for_those_that_are_there() -> None:
    kept = keep(alice=Limits(bandwidth=1000))
    wide = verdict("wide", bandwidth=9000)
    first, second = kept.limits.terms(b"alice", wide).flow.buckets
    for _ in range(3):
        claim(kept, b"alice", wide)
    kept.engine.set.clear()
    kept.limits.replace(
        {b"alice": Limits(bandwidth=2000, sessions=3)}, {"new": Limits(bandwidth=1)}, TimeLimits(idle=9.0)
    )
    assert kept.engine.set == [(first, 2000, None), (second, None, None)]
    assert refused(kept, b"alice").limit == "user-sessions"
    terms = kept.limits.terms(b"alice", verdict("wide"))
    assert (terms.flow.idle, terms.flow.buckets) == (9.0, (first,))
    kept.limits.replace({}, {}, TimeLimits())
    assert kept.limits.terms(b"alice", wide).flow.buckets == (second,)


def test_a_rate_that_changed_holds_at_once() -> None:
    kept = keep(alice=Limits(rate=0.001))
    claim(kept, b"alice")
    kept.limits.replace({b"alice": Limits(rate=10.0)}, {}, TimeLimits())
    assert refused(kept, b"alice").limit == "user-rate"
    kept.now += 0.11
    claim(kept, b"alice")


def test_a_shared_table_has_them_hold_over_workers() -> None:
    table = SharedTable.create(2, rows=64, clock=lambda: 100.0)
    other = SharedTable(os.dup(table.fileno()), 1, clock=lambda: 100.0)
    kept, elsewhere = (keep(view, alice=Limits(sessions=2, rate=3.0, bandwidth=7)) for view in (table, other))
    held = claim(kept, b"alice")
    claim(elsewhere, b"alice")
    assert refused(elsewhere, b"alice").limit == "user-sessions"
    held.release()
    held = claim(elsewhere, b"alice")
    held.release()
    assert refused(kept, b"alice").limit == "user-rate"
    for one in (kept, elsewhere):
        one.limits.terms(b"alice", verdict())
    cells = [one.engine.set[0][2] for one in (kept, elsewhere)]
    assert [cell.column for cell in cells if cell] == [0, 1]
    assert cells[0] is not None
    assert cells[1] is not None
    assert cells[0].offset == cells[1].offset
    cells[0].words[0] = 12345
    assert cells[1].words[0] == 12345
    table.close()
    other.close()
