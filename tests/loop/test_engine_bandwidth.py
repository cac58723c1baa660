"""Flows that share token buckets: the rate holds to the byte, in equal parts, and nothing is lost over it.

Most run the relay in the test's own thread, by a clock that the test moves: what passes is then exact.
"""

import errno
import os
import select
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loop.engine_helpers import (
    DEADLINE,
    MODES,
    HandClock,
    Tunnel,
    exchange,
    next_end,
    next_ends,
    read_all,
    read_exactly,
    reset,
    running,
    tunnel,
    until,
)
from loop.engine_stage import BLOCK, Stage, send_some
from tabi.relay import Cause, Closer, Engine, FlowLimits
from tabi.relay.bucket import QUANTUM, Cell, burst_of

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture(params=sorted(MODES))
def stage(request: pytest.FixtureRequest, build: str) -> Iterator[Stage]:
    made = Stage(build, request.param)
    yield made
    made.close()


@pytest.mark.parametrize("count", [1, 3, 20])
@pytest.mark.parametrize("rate", [700, 50_000, 4_000_000])
def test_never_more_than_the_rate_and_the_burst_and_hardly_less(stage: Stage, rate: int, count: int) -> None:
    stage.bucket(7, rate)
    feed = [stage.tunnel(7).client for _ in range(count)]
    begin, burst = stage.clock.now, burst_of(rate)
    for seconds in (0.0, 0.02, 0.5, 0.001, 0.1, *[0.05] * 20, *[0.2] * 20):
        stage.step(seconds, feed=feed)
        assert sum(stage.moved()) <= rate * (stage.clock.now - begin) + burst
    lasted = stage.clock.now - begin
    assert sum(stage.moved()) >= rate * lasted * 0.98 - QUANTUM  # a look comes at most a tick late


@pytest.mark.parametrize("rate", [20_000, 3_000_000])
def test_equal_flows_get_equal_parts_whoever_came_first(stage: Stage, rate: int) -> None:
    stage.bucket(7, rate)
    feed = [stage.tunnel(7).client for _ in range(2)]
    for _ in range(50):
        stage.step(0.1, feed=feed)
    feed += [stage.tunnel(7).client for _ in range(3)]
    before = stage.moved()
    for _ in range(100):
        stage.step(0.1, feed=feed)
    gained = [now - then for now, then in zip(stage.moved(), before, strict=True)]
    fair = rate * 10 / 5
    assert gained == pytest.approx([fair] * 5, rel=0.03, abs=2 * QUANTUM)


def test_the_first_in_a_batch_does_not_take_the_burst(stage: Stage) -> None:
    stage.bucket(7, 4_000_000)
    feed = [stage.tunnel(7).client for _ in range(4)]
    stage.step(0, feed=feed)
    assert stage.moved() == pytest.approx([burst_of(4_000_000) / 4] * 4, rel=0.03)


def test_a_reader_that_stands_still_blocks_nobody(stage: Stage) -> None:
    stage.bucket(7, 1_000_000)
    stuck, other = stage.tunnel(7), stage.tunnel(7)
    stage.tunnels.remove(stuck)  # nobody reads there
    for _ in range(300):
        stage.step(0.1, feed=[stuck.client, other.client])

    def is_full() -> bool:  # the kernel may still make room when it probes the window, by a clock of its own
        before = stage.moved()
        for _ in range(20):
            stage.step(0.1, feed=[stuck.client, other.client])
        gained = [now - then for now, then in zip(stage.moved(), before, strict=True)]
        assert sum(gained) == pytest.approx(2_000_000, rel=0.02)
        return gained[0] == 0

    until(is_full, "the stream that nobody reads to stand still")
    full = stage.moved()[0]
    stage.tunnels.append(stuck)
    # The kernel takes its time, of a clock that is not the test's, until a stream that stood still flows again.
    feed = [stuck.client, other.client]
    until(lambda: stage.step(0.1, feed=feed) or stage.moved()[0] > full + 2_000_000, "the stream to flow again")
    before = stage.moved()[0]
    for _ in range(20):
        stage.step(0.1, feed=feed)
    assert stage.moved()[0] - before == pytest.approx(1_000_000, rel=0.05)


def test_both_directions_of_a_flow_are_one(stage: Stage) -> None:
    stage.bucket(7, 1_000_000)
    both, single = stage.tunnel(7), stage.tunnel(7)
    for _ in range(50):
        stage.step(0.1, feed=[both.client, both.target, single.client])
    assert stage.moved() == pytest.approx([2_500_000 + burst_of(1_000_000) / 2] * 2, rel=0.03)
    up, down = stage.counts()[0]
    assert down == pytest.approx(up, rel=0.05)


def test_what_one_flow_leaves_another_gets(stage: Stage) -> None:
    stage.bucket(7, 1_000_000)
    quiet, busy = stage.tunnel(7), stage.tunnel(7)
    sent = 0
    for _ in range(100):
        sent += quiet.client.send(bytes(1000))
        stage.step(0.1, feed=[busy.client])
    assert stage.moved()[0] == sent
    assert sum(stage.moved()) == pytest.approx(10_000_000, rel=0.03)


def test_a_flow_of_two_groups_keeps_to_both(stage: Stage) -> None:
    for number, rate in ((1, 500_000), (2, 500_000), (9, 600_000)):
        stage.bucket(number, rate)
    feed = [stage.tunnel(*buckets).client for buckets in ((1, 9), (1, 9), (2, 9), (2,))]
    begin = stage.clock.now
    for _ in range(100):
        stage.step(0.1, feed=feed)
        lasted = stage.clock.now - begin
        first, second, third, fourth = stage.moved()
        assert first + second <= 500_000 * lasted + burst_of(500_000)
        assert third + fourth <= 500_000 * lasted + burst_of(500_000)
        assert first + second + third <= 600_000 * lasted + burst_of(600_000)
    assert first == pytest.approx(second, rel=0.03)
    assert first + second + third == pytest.approx(6_000_000, rel=0.05)
    assert third + fourth == pytest.approx(5_000_000, rel=0.05)
    assert min(first, third) > 1_500_000  # of a fair third of 600,000 in ten seconds


groups = st.lists(st.sets(st.sampled_from([1, 2, 3]), max_size=3).map(tuple), min_size=1, max_size=5)
pauses = st.lists(st.tuples(st.floats(0, 0.4), st.integers(0, 31)), min_size=1, max_size=25)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rates=st.tuples(*[st.integers(1, 2_000_000)] * 3), flows=groups, pauses=pauses, mode=st.sampled_from(sorted(MODES))
)
def test_whatever_flows_share_what_no_bucket_gives_more_than_it_has(
    build: str, rates: tuple[int, int, int], flows: list[tuple[int, ...]], pauses: list[tuple[float, int]], mode: str
) -> None:
    stage = Stage(build, mode)
    for number, rate in enumerate(rates, 1):
        stage.bucket(number, rate)
    pairs = [stage.tunnel(*buckets) for buckets in flows]
    begin, sent = stage.clock.now, [bytearray() for _ in flows]
    try:
        for seconds, who in pauses:
            for index, pair in enumerate(pairs):
                if who >> index & 1:
                    sent[index] += BLOCK[: send_some(pair.client, BLOCK)]
            stage.step(seconds)
            for number, rate in enumerate(rates, 1):
                moved = sum(count for count, buckets in zip(stage.moved(), flows, strict=True) if number in buckets)
                assert moved <= rate * (stage.clock.now - begin) + burst_of(rate)
        for number in (1, 2, 3):
            stage.bucket(number, None)
        # The kernel may take a moment to open a window again, by a clock of its own.
        until(lambda: stage.step(0.1) or [stage.received(one.target) for one in pairs] == sent, "every byte, unchanged")
    finally:
        stage.close()


def test_an_unlimited_flow_beside_them_is_not_held_back(stage: Stage) -> None:
    stage.bucket(7, 1000)
    slow, fast, unset = stage.tunnel(7), stage.tunnel(), stage.tunnel(8)
    for _ in range(10):
        for pair in (slow, fast, unset):
            send_some(pair.client, BLOCK)
        stage.step(0)
    assert stage.moved() == [burst_of(1000), 10 * len(BLOCK), 10 * len(BLOCK)]


def test_bytes_that_came_with_the_flow_count_as_well(stage: Stage) -> None:
    stage.bucket(7, 10_000)
    pair = stage.tunnel(7, early=b"e" * 30_000, pending=b"p" * 30_000)
    stage.step(0)
    assert sum(stage.moved()) <= burst_of(10_000)
    for _ in range(70):
        stage.step(0.1)
    assert stage.received(pair.target) == b"e" * 30_000
    assert stage.received(pair.client) == b"p" * 30_000


def test_a_fin_comes_behind_the_last_byte(stage: Stage) -> None:
    stage.bucket(7, 100_000)
    pair = stage.tunnel(7)
    pair.client.send(BLOCK)
    pair.client.shutdown(socket.SHUT_WR)
    stage.step(1.0)
    assert 0 < stage.moved()[0] < len(BLOCK)
    assert select.select([pair.target], [], [], 0)[0] == []  # no end yet
    for _ in range(30):
        stage.step(0.1)
    assert stage.received(pair.target) == BLOCK
    assert pair.target.recv(1) == b""
    pair.target.send(b"answer")
    pair.target.shutdown(socket.SHUT_WR)
    stage.step(1.0)
    assert stage.received(pair.client) == b"answer"
    assert (stage.ends[1].closer, stage.ends[1].cause) == (Closer.CLIENT, Cause.FIN)


def test_a_fin_that_nothing_comes_before_waits_for_no_tokens_in_a_rested_bucket(stage: Stage) -> None:
    stage.bucket(7, 1)
    pair = stage.tunnel(7)
    pair.client.shutdown(socket.SHUT_WR)
    pair.target.shutdown(socket.SHUT_WR)
    stage.step(0)
    assert stage.ends[1].cause is Cause.FIN


@pytest.mark.parametrize("others", [0, 40])  # then a turn comes less often than a living side may be silent otherwise
def test_what_was_sent_before_a_reset_is_delivered_at_the_rate(stage: Stage, others: int) -> None:
    rate, data = 500, BLOCK[:10_000]  # so much fits into the relay's own receive buffer, and survives
    stage.bucket(7, rate)
    pair = stage.tunnel(7)
    feed = [stage.tunnel(7).client for _ in range(others)]
    begin = stage.clock.now
    pair.client.send(data)
    stage.step(0, feed=feed)
    reset(pair.client)
    stage.tunnels = [Tunnel(pair.target, pair.target), *stage.tunnels[1:]]
    while not stage.ends:
        stage.step(2.0, feed=feed)
        lasted = stage.clock.now - begin
        assert sum(stage.moved()) <= rate * lasted + burst_of(rate)
        assert lasted <= (others + 1) * len(data) / rate + 100
    assert stage.received(pair.target) == data
    assert (stage.ends[1].closer, stage.ends[1].cause) == (Closer.CLIENT, Cause.RST)
    assert stage.errors == {pair.target.fileno(): errno.ECONNRESET}


def test_a_living_side_that_does_not_read_after_a_reset_is_given_up(stage: Stage) -> None:
    stage.bucket(7, 1_000_000)
    pair = stage.tunnel(7)
    for _ in range(300):
        stage.step(0.1, feed=[pair.client], read=False)
    reset(pair.client)
    stage.tunnels = []
    until(lambda: stage.step(1.0, read=False) or stage.ends, "the end")
    assert stage.ends[1].cause is Cause.RST
    pair.target.settimeout(DEADLINE)
    assert read_all(pair.target)[1] == errno.ECONNRESET
    pair.target.close()


def test_a_flow_that_waits_for_tokens_is_not_idle(stage: Stage) -> None:
    stage.bucket(7, 100)  # five seconds for a quantum, fifty until each has had one
    feed = [stage.tunnel(7, idle=2.0).client for _ in range(10)]
    for _ in range(200):
        stage.step(0.5, feed=feed)
    assert not stage.ends
    assert min(stage.moved()) > 0


def test_a_silent_flow_of_a_group_is_idle(stage: Stage) -> None:
    stage.bucket(7, 100)
    pair = stage.tunnel(7, idle=20.0)
    pair.client.send(b"x")
    stage.step(0.1)
    for _ in range(25):
        stage.step(1.0)
    assert stage.ends[1].cause is Cause.IDLE


def test_a_flow_that_is_cut_while_it_waits_leaves_its_part_to_the_others(stage: Stage) -> None:
    stage.bucket(7, 100_000)
    pairs = [stage.tunnel(7) for _ in range(3)]
    feed = [pair.client for pair in pairs]
    stage.step(1.0, feed=feed)
    stage.cut(pairs[1])
    feed.pop(1)
    before = stage.moved()
    for _ in range(100):
        stage.step(0.1, feed=feed)
    gained = [now - then for now, then in zip(stage.moved(), before, strict=True)]
    assert gained == pytest.approx([500_000, 0, 500_000], rel=0.03)


def test_what_waits_for_a_slow_reader_is_delivered_at_the_rate_as_well(stage: Stage) -> None:
    stage.bucket(7, 4_000_000)
    pair = stage.tunnel(7)
    for _ in range(300):
        stage.step(0.1, feed=[pair.client], read=False)
    stage.bucket(7, 1)
    before, begin = sum(stage.moved()), stage.clock.now
    until(lambda: stage.step(0.1) or sum(stage.moved()) > before, "the kernel to take more")
    assert 0 < sum(stage.moved()) - before <= burst_of(1) + stage.clock.now - begin


def test_another_rate_holds_at_once_and_none_sets_free(stage: Stage) -> None:
    stage.bucket(7, 1)
    pair = stage.tunnel(7)
    stage.step(0, feed=[pair.client])
    at_first = sum(stage.moved())
    assert at_first <= burst_of(1)
    stage.bucket(7, 100_000)
    stage.step(10.0, feed=[pair.client])
    assert at_first < sum(stage.moved()) <= at_first + burst_of(100_000)
    stage.bucket(7, None)
    stage.step(0)
    left = stage.moved()[0]
    pair.client.send(BLOCK)
    stage.step(0)
    assert stage.moved()[0] == left + len(BLOCK)


@pytest.mark.parametrize("other", ["same", "pure"])
@pytest.mark.parametrize("mode", sorted(MODES))
def test_workers_share_a_bucket_by_how_many_flows_wait(build: str, other: str, mode: str) -> None:
    words = memoryview(bytearray(8 * 3)).cast("q")
    clock = HandClock()
    stages = [Stage(one, mode, clock) for one in (build, build if other == "same" else other)]
    for column, stage in enumerate(stages):
        stage.bucket(7, 400_000, Cell(words, column))
    feeds = [[stage.tunnel(7).client for _ in range(count)] for stage, count in zip(stages, (3, 1), strict=True)]
    begin = clock.now
    for tick in range(1000):
        clock.now += 0.01
        stages[tick % 2].step(0, feed=feeds[tick % 2])
        moved = [sum(stage.moved()) for stage in stages]
        assert sum(moved) <= 400_000 * (clock.now - begin) + burst_of(400_000)
    assert sum(moved) >= 400_000 * 10 * 0.97
    assert moved[0] / moved[1] == pytest.approx(3, rel=0.1)
    for stage in stages:
        stage.close()


# the engine in its own thread


@pytest.fixture(params=sorted(MODES))
def modal(request: pytest.FixtureRequest, build: str) -> Iterator[Engine]:
    with running(build, **MODES[request.param]) as engine:
        yield engine


def test_no_byte_is_lost_or_changed_under_a_rate(modal: Engine) -> None:
    modal.set_bucket(1, 30_000_000)
    modal.set_bucket(2, 50_000_000)
    limits = [FlowLimits(half_open=0.0, buckets=buckets) for buckets in ((1,), (2,), (1, 2), ())]
    up, down = os.urandom(1_500_000), os.urandom(1_000_000)
    pairs = [tunnel(modal, b"early", b"pending", limits=limit) for limit in limits * 2]
    got = exchange([(pair, up, down) for pair in pairs])
    assert got == [(b"early" + up, b"pending" + down)] * 8
    for end in next_ends(modal, 8):
        assert (end.cause, end.up, end.down) == (Cause.FIN, len(up) + 5, len(down) + 7)
    for pair in pairs:
        pair.client.close()
        pair.target.close()


def test_a_flow_without_tokens_is_pumped_when_there_are_some_though_nothing_happens(build: str) -> None:
    clock = HandClock()
    with running(build, clock=clock) as engine:
        engine.set_bucket(1, 1000)
        with tunnel(engine, limits=FlowLimits(buckets=(1,))) as pair:
            pair.client.sendall(bytes(10_000))
            read_exactly(pair.target, 4096)
            clock.advance(engine, 3.1)
            read_exactly(pair.target, 3100)
            assert select.select([pair.target], [], [], 0)[0] == []
            engine.set_bucket(1, None)
            read_exactly(pair.target, 10_000 - 7196)


def test_bytes_that_are_moved_elsewhere_are_taken_from_the_same_bucket(build: str) -> None:
    clock = HandClock()
    with running(build, clock=clock) as engine:
        engine.set_bucket(1, 1000)
        engine.set_bucket(2, 100_000)
        assert engine.spend((1, 2), 4000)
        assert not engine.spend((2, 1), 500)
        assert engine.spend((2,), 21_000)  # what the refused one would have taken is there again
        assert not engine.spend((2,), 1)
        assert engine.spend((3,), 1 << 30)  # nobody set it
        with tunnel(engine, limits=FlowLimits(buckets=(1,))) as pair:
            pair.client.sendall(bytes(2000))
            clock.advance(engine, 1.0)
            assert len(read_exactly(pair.target, 1096)) == 1096
            assert select.select([pair.target], [], [], 0)[0] == []


def test_a_limited_flow_is_killed_and_a_stopped_engine_leaves_nothing(build: str) -> None:
    with running(build) as engine:
        engine.set_bucket(1, 1)
        limits = FlowLimits(buckets=(1,))
        with tunnel(engine, limits=limits) as killed, tunnel(engine, limits=limits) as left:
            for pair in (killed, left):
                pair.client.sendall(bytes(100_000))
            until(lambda: sum(live.up for live in engine.snapshot()) == 4096, "the burst")
            engine.kill([killed.flow], Cause.KILL)
            assert next_end(engine).cause is Cause.KILL
            engine.stop()
            assert next_end(engine).cause is Cause.SHUTDOWN
            engine.set_bucket(1, 5)  # nobody is there to take it
            engine.set_bucket(2, None)
