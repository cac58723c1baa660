"""Limits that are set anew while a flow runs, as a reload does it."""

import os
import select
import socket
import threading
from collections.abc import Iterator

import pytest

from loop.engine_helpers import (
    FOREVER,
    MODES,
    HandClock,
    ends_by_now,
    exchange,
    fill,
    is_reset,
    made,
    next_end,
    next_ends,
    read_all,
    read_exactly,
    reset,
    running,
    tunnel,
    until,
)
from tabi.relay import Cause, Closer, Engine, FlowLimits
from tabi.relay.bucket import burst_of

pytestmark = pytest.mark.usefixtures("nothing_left")

RATE = 20_000
BURST = int(burst_of(RATE))
LIMITED = FOREVER._replace(buckets=(1,))


@pytest.fixture(params=sorted(MODES))
def modal(request: pytest.FixtureRequest, build: str, clock: HandClock) -> Iterator[Engine]:
    """Run an engine by that clock that moves bytes in one way only."""
    with running(build, clock=clock, **MODES[request.param]) as engine:
        yield engine


def has_nothing(end: socket.socket) -> bool:
    return select.select([end], [], [], 0)[0] == []


# times


def test_an_idle_limit_that_comes_counts_from_the_last_byte(timed: Engine, clock: HandClock) -> None:
    with tunnel(timed) as pair, tunnel(timed) as other:
        clock.advance(timed, 30)
        timed.limit([pair.flow], FlowLimits(idle=60.0))
        assert ends_by_now(timed) == []
        clock.advance(timed, 29)
        assert ends_by_now(timed) == []
        clock.advance(timed, 1.1)
        end = next_end(timed)
        assert (end.flow, end.closer, end.cause) == (pair.flow, Closer.TABI, Cause.IDLE)
        assert is_reset(pair.client)
        assert is_reset(pair.target)
        assert [live.flow for live in timed.snapshot()] == [other.flow]


@pytest.mark.parametrize(("limits", "cause"), [
    (FlowLimits(idle=99.0), Cause.IDLE),
    (FlowLimits(lifetime=99.0), Cause.LIFETIME),
])  # fmt: skip
def test_a_limit_that_is_passed_already_ends_the_flow_at_once(
    timed: Engine, clock: HandClock, limits: FlowLimits, cause: Cause
) -> None:
    with tunnel(timed) as pair:
        clock.advance(timed, 100)
        timed.limit([pair.flow], limits)
        clock.advance(timed, 0.05)
        end = next_end(timed)
        assert (end.flow, end.cause) == (pair.flow, cause)


def test_a_shorter_limit_is_met_although_the_longer_one_was_waited_for(timed: Engine, clock: HandClock) -> None:
    with tunnel(timed, limits=FlowLimits(idle=50.0)) as pair:
        assert ends_by_now(timed) == []
        timed.limit([pair.flow], FlowLimits(idle=10.0))
        clock.advance(timed, 10.1)
        assert next_end(timed).cause is Cause.IDLE


@pytest.mark.parametrize("limits", [FlowLimits(), FlowLimits(idle=1000.0, lifetime=2000.0)])
def test_a_limit_that_goes_or_grows_lets_the_flow_live_on(timed: Engine, clock: HandClock, limits: FlowLimits) -> None:
    with tunnel(timed, limits=FlowLimits(idle=10.0, lifetime=20.0)) as pair:
        clock.advance(timed, 9)
        timed.limit([pair.flow], limits)
        assert ends_by_now(timed) == []
        clock.advance(timed, 900)
        assert ends_by_now(timed) == []
        pair.client.sendall(b"still")
        assert read_exactly(pair.target, 5) == b"still"


def test_the_lifetime_counts_from_the_begin(timed: Engine, clock: HandClock) -> None:
    with tunnel(timed, limits=FlowLimits(lifetime=500.0)) as pair:
        clock.advance(timed, 60)
        timed.limit([pair.flow], FlowLimits(lifetime=100.0))
        clock.advance(timed, 39)
        assert ends_by_now(timed) == []
        clock.advance(timed, 1.1)
        end = next_end(timed)
        assert end.cause is Cause.LIFETIME
        assert round(end.ended - end.started) == 100


def test_half_open_counts_from_the_fin_that_was_before(timed: Engine, clock: HandClock) -> None:
    with tunnel(timed) as pair:
        pair.client.shutdown(socket.SHUT_WR)
        assert read_all(pair.target) == (b"", 0)
        clock.advance(timed, 300)
        timed.limit([pair.flow], FlowLimits(half_open=400.0))
        clock.advance(timed, 99)
        assert ends_by_now(timed) == []
        clock.advance(timed, 1.1)
        assert next_end(timed).cause is Cause.HALF_OPEN


def test_a_flow_that_was_just_adopted_is_limited_as_well(build: str, clock: HandClock) -> None:
    with running(build, clock=clock) as engine:
        for _ in range(50):  # whichever thread is faster
            with tunnel(engine) as pair:
                engine.limit([pair.flow], FlowLimits(idle=5.0))
                clock.advance(engine, 5.1)
                assert next_end(engine).cause is Cause.IDLE


def test_numbers_of_flows_that_are_over_or_never_were_are_passed_by(timed: Engine, clock: HandClock) -> None:
    with tunnel(timed) as gone, tunnel(timed) as pair:
        timed.kill([gone.flow], Cause.KILL)
        next_end(timed)
        timed.limit([gone.flow, 10_000, pair.flow], FlowLimits(idle=1.0))
        clock.advance(timed, 1.1)
        assert next_end(timed).flow == pair.flow
    timed.stop()
    timed.limit([pair.flow], FlowLimits(idle=1.0))
    assert timed.ends() == []


# rates


def test_a_rate_that_comes_slows_a_flow_that_had_none(modal: Engine, clock: HandClock) -> None:
    with tunnel(modal) as pair:
        pair.client.sendall(bytes(200_000))
        read_exactly(pair.target, 200_000)
        modal.set_bucket(1, RATE)
        modal.limit([pair.flow], LIMITED)
        assert ends_by_now(modal) == []  # orders are carried out one after the other
        pair.client.sendall(bytes(50_000))
        read_exactly(pair.target, BURST)
        assert ends_by_now(modal) == []
        assert has_nothing(pair.target)
        clock.advance(modal, 1.01)
        read_exactly(pair.target, BURST)  # what a rested bucket has at most
        assert ends_by_now(modal) == []
        assert has_nothing(pair.target)
        modal.set_bucket(1, None)
        read_exactly(pair.target, 50_000 - 2 * BURST)


def test_a_rate_that_comes_holds_for_what_waits_already(modal: Engine) -> None:
    with tunnel(modal) as pair:
        sent = fill(pair.client)
        modal.set_bucket(1, RATE)
        modal.limit([pair.flow], LIMITED)
        assert ends_by_now(modal) == []
        before = modal.snapshot()[0].up  # until the order was carried out the kernel may have taken more and more
        received = 0
        while received < modal.snapshot()[0].up:
            received += len(pair.target.recv(1 << 20))
            assert ends_by_now(modal) == []
        modal.kill([pair.flow], Cause.KILL)
        assert before <= received <= next_end(modal).up <= before + BURST < sent


def test_a_flow_that_leaves_a_bucket_is_held_back_no_longer_and_the_others_are(modal: Engine) -> None:
    modal.set_bucket(1, RATE)
    with tunnel(modal, limits=LIMITED) as leaving, tunnel(modal, limits=LIMITED) as staying:
        for pair in (leaving, staying):
            pair.client.sendall(bytes(100_000))
        until(lambda: sum(live.up for live in modal.snapshot()) == BURST, "the burst to pass")
        modal.limit([leaving.flow], FOREVER)
        read_exactly(leaving.target, 100_000)
        assert ends_by_now(modal) == []
        assert {live.flow: live.up for live in modal.snapshot()}[staying.flow] <= BURST


def test_a_flow_that_goes_to_another_bucket_takes_from_that_one_only(modal: Engine, clock: HandClock) -> None:
    modal.set_bucket(1, 1)
    modal.set_bucket(2, RATE)
    with tunnel(modal, limits=LIMITED) as pair:
        pair.client.sendall(bytes(100_000))
        first = int(burst_of(1))
        read_exactly(pair.target, first)
        modal.limit([pair.flow], FOREVER._replace(buckets=(2,)))
        read_exactly(pair.target, BURST)
        assert ends_by_now(modal) == []
        assert modal.snapshot()[0].up == first + BURST
        assert modal.spend((1,), 1) is False
        clock.advance(modal, 1000)
        read_exactly(pair.target, BURST)
        assert modal.spend((1,), 900)


def test_other_times_leave_a_flow_its_place_among_those_that_wait(modal: Engine, clock: HandClock) -> None:
    modal.set_bucket(1, RATE)
    with tunnel(modal, limits=LIMITED) as pair:
        pair.client.sendall(bytes(3 * BURST))
        read_exactly(pair.target, BURST)
        for _ in range(20):
            modal.limit([pair.flow], LIMITED._replace(idle=1000.0))
            modal.limit([pair.flow], LIMITED)
        assert ends_by_now(modal) == []
        assert modal.snapshot()[0].up == BURST
        clock.advance(modal, 1.0)
        read_exactly(pair.target, BURST)


def test_what_was_sent_before_a_reset_is_delivered_whatever_becomes_of_the_rate(build: str) -> None:
    with running(build) as engine:
        engine.set_bucket(1, 1)
        with tunnel(engine, limits=LIMITED) as pair:
            first = int(burst_of(1))
            pair.client.sendall(b"x" * 20_000)
            read_exactly(pair.target, first)
            reset(pair.client)
            engine.limit([pair.flow], FOREVER)
            assert read_exactly(pair.target, 20_000 - first) == b"x" * (20_000 - first)
            assert is_reset(pair.target)
        end = next_end(engine)
        assert (end.closer, end.cause, end.up) == (Closer.CLIENT, Cause.RST, 20_000)


@pytest.mark.parametrize("mode", sorted(MODES))
def test_no_byte_is_lost_or_changed_while_limits_come_and_go(build: str, mode: str) -> None:
    over = threading.Event()
    with running(build, **MODES[mode]) as engine:
        engine.set_bucket(1, 40_000_000)
        engine.set_bucket(2, 60_000_000)
        up, down = os.urandom(2_000_000), os.urandom(1_500_000)
        pairs = [tunnel(engine, b"early", b"pending") for _ in range(6)]
        flows = [pair.flow for pair in pairs]

        def change() -> None:
            turn = 0
            while not over.wait(0.002):
                turn += 1
                buckets = ((), (1,), (1, 2), (2,))[turn % 4]
                engine.limit(flows[turn % 2 :: 2], FlowLimits(half_open=0.0, idle=600.0 + turn, buckets=buckets))

        changer = threading.Thread(target=change)
        changer.start()
        try:
            got = exchange([(pair, up, down) for pair in pairs])
        finally:
            over.set()
            changer.join()
        assert got == [(b"early" + up, b"pending" + down)] * 6
        assert [end.cause for end in next_ends(engine, 6)] == [Cause.FIN] * 6
    for pair in pairs:
        pair.client.close()
        pair.target.close()


# who is there


def test_a_snapshot_has_flows_that_were_only_just_adopted(build: str) -> None:
    engine = made(build)
    with tunnel(engine, record=b"waits") as pair:
        assert [(live.flow, live.record, live.up) for live in engine.snapshot()] == [(pair.flow, b"waits", 0)]
        engine.start()
        assert [live.flow for live in engine.snapshot()] == [pair.flow]
        engine.stop()
        assert engine.snapshot() == []
        next_end(engine)
        engine.close()
