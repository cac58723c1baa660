"""What holds for every direct dial, whatever is answered, whenever, and whatever opens."""

import math
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from tabi.addr import Address, Endpoint, Name
from tabi.dial.direct import DirectOptions, direct
from tabi.dial.wishes import Cancel, Connection, Done, Failed, Open
from tabi.errors import DeniedError, DialError, Reply, Stage
from tabi.testing.clock import FakeClock

NAME = Name("target.example")
POOL: list[Address] = [
    *(IPv4Address(f"192.0.2.{n}") for n in range(4)),
    *(IPv6Address(f"2001:db8::{n}") for n in range(4)),
]
OPTIONS = DirectOptions(timeout=5.0)
TICK = 1e-9

delays = st.sampled_from([0.0, 0.01, 0.05, 0.1, 0.25, 0.3, 1.0, 4.0, 6.0, math.inf])
replies = st.sampled_from([1, 2, 3, 4, 5, 6]).map(Reply)
lookup_errors = st.booleans().map(
    lambda retryable: DialError(
        "look-up", stage=Stage.RESOLVE, reply=Reply.HOST_UNREACHABLE, retryable=retryable
    )
)


def answers(family: int) -> st.SearchStrategy[tuple[float, object]]:
    mine = [address for address in POOL if address.version == family]
    return st.tuples(delays, st.lists(st.sampled_from(mine), max_size=6).map(tuple) | lookup_errors)


outcomes = st.tuples(delays, st.none() | replies.map(lambda reply: DialError("open", reply=reply)))
worlds = st.fixed_dictionaries(
    {
        "resolve": st.fixed_dictionaries({(NAME, 6): answers(6), (NAME, 4): answers(4)}),
        "open": st.fixed_dictionaries(dict.fromkeys(POOL, outcomes)),
        "refused": st.sets(st.sampled_from(POOL)),
    }
)


@dataclass
class Outcome:
    clock: FakeClock
    connection: Connection | None
    error: Exception | None


def dial(world: dict) -> Outcome:
    clock = FakeClock()
    plan = direct(Endpoint(NAME, 80), permit=lambda it: it not in world["refused"], options=OPTIONS)
    try:
        connection = clock.run(plan, resolve=world["resolve"], open=world["open"])
    except (DialError, DeniedError) as error:
        return Outcome(clock, None, error)
    return Outcome(clock, connection, None)


@given(worlds)
def test_attempts_keep_their_distance_unless_one_failed(world: dict) -> None:
    last = -math.inf
    for at, it in dial(world).clock.transcript:
        if isinstance(it, Open):
            assert at - last >= OPTIONS.attempt_delay - TICK
            last = at
        elif isinstance(it, Failed) and isinstance(it.wish, Open):
            last = -math.inf


@given(worlds)
def test_no_refused_address_and_none_twice(world: dict) -> None:
    opened = [it.address for _, it in dial(world).clock.transcript if isinstance(it, Open)]
    assert not world["refused"].intersection(opened)
    assert len(set(opened)) == len(opened)


@given(worlds)
def test_it_ends_in_time(world: dict) -> None:
    assert dial(world).clock.now <= OPTIONS.timeout + TICK


@given(worlds)
def test_each_open_wins_or_fails_or_is_cancelled(world: dict) -> None:
    outcome = dial(world)
    story = [it for _, it in outcome.clock.transcript]
    done = [it.wish for it in story if isinstance(it, Done) and isinstance(it.wish, Open)]
    failed = [it.wish for it in story if isinstance(it, Failed)]
    cancelled = [it.wish for it in story if isinstance(it, Cancel)]
    winner = [] if outcome.connection is None else [outcome.connection.handle.wish]
    assert done == winner
    for wish in (it for it in story if isinstance(it, Open)):
        assert [wish in winner, wish in failed, wish in cancelled].count(True) == 1
    assert outcome.clock.left == ()


@given(worlds)
def test_a_permitted_address_that_answers_in_time_is_found(world: dict) -> None:
    # An address is tried at the latest when its answer is there, the wait for the other family over, and every
    # other address has had its delay.
    latest_start = OPTIONS.resolution_delay + len(POOL) * OPTIONS.attempt_delay
    for at, found in world["resolve"].values():
        for address in found if isinstance(found, tuple) else ():
            seconds, error = world["open"][address]
            in_time = at + latest_start + seconds < OPTIONS.timeout
            if error is None and address not in world["refused"] and in_time:
                assert dial(world).connection is not None


@given(worlds)
def test_an_error_says_what_is_true(world: dict) -> None:
    outcome = dial(world)
    tried = [it for _, it in outcome.clock.transcript if isinstance(it, Open)]
    if isinstance(outcome.error, DeniedError):
        assert not tried
        assert world["refused"]
    elif isinstance(outcome.error, DialError) and outcome.error.stage is Stage.CONNECT:
        assert tried
    if outcome.error is not None and outcome.clock.now >= OPTIONS.timeout:
        assert isinstance(outcome.error, TimeoutError)
