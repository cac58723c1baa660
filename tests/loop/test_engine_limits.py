"""Time limits, by a clock that the test moves."""

import socket

import pytest

from loop.engine_helpers import (
    HandClock,
    Tunnel,
    ends_by_now,
    is_reset,
    next_end,
    read_all,
    read_exactly,
    tunnel,
)
from tabi.relay import Cause, Closer, End, Engine, FlowLimits

pytestmark = pytest.mark.usefixtures("nothing_left")


def talk(pair: Tunnel) -> None:
    """Let a byte go through."""
    pair.client.sendall(b"?")
    assert read_exactly(pair.target, 1) == b"?"


def assert_cut(end: End, cause: Cause, pair: Tunnel) -> None:
    """Check that a flow was cut by us, with a reset on both sides."""
    assert (end.flow, end.closer, end.cause, end.errno) == (pair.flow, Closer.TABI, cause, 0)
    for peer in (pair.client, pair.target):
        if not peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            assert is_reset(peer)


def test_a_silent_flow_ends_at_its_idle_limit(timed: Engine, clock: HandClock) -> None:
    with tunnel(timed, limits=FlowLimits(idle=60.0)) as pair:
        clock.advance(timed, 59)
        assert ends_by_now(timed) == []
        clock.advance(timed, 1.1)
        assert_cut(next_end(timed), Cause.IDLE, pair)


def test_a_byte_postpones_the_idle_limit(timed: Engine, clock: HandClock) -> None:
    with tunnel(timed, limits=FlowLimits(idle=60.0)) as pair:
        for _ in range(4):
            talk(pair)
            assert ends_by_now(timed) == []
            clock.advance(timed, 59)
            assert ends_by_now(timed) == []
        clock.advance(timed, 1.1)
        end = next_end(timed)
        assert_cut(end, Cause.IDLE, pair)
    assert (end.started, round(end.ended)) == (1000.0, 1237)


def test_the_lifetime_is_not_postponed(timed: Engine, clock: HandClock) -> None:
    with tunnel(timed, limits=FlowLimits(lifetime=100.0)) as pair:
        clock.advance(timed, 99)
        talk(pair)
        assert ends_by_now(timed) == []
        clock.advance(timed, 1.1)
        assert_cut(next_end(timed), Cause.LIFETIME, pair)


def test_without_limits_a_flow_lives_on(timed: Engine, clock: HandClock) -> None:
    with tunnel(timed, limits=FlowLimits()) as pair:
        for _ in range(3):
            clock.advance(timed, 1e6)
            assert ends_by_now(timed) == []
        talk(pair)


@pytest.mark.parametrize("side", ["client", "target"])
def test_a_half_open_flow_ends_when_the_open_direction_is_silent(timed: Engine, clock: HandClock, side: str) -> None:
    with tunnel(timed, limits=FlowLimits(half_open=600.0)) as pair:
        ended, speaking = (pair.client, pair.target) if side == "client" else (pair.target, pair.client)
        clock.advance(timed, 10_000)  # before the FIN there is no such limit
        assert ends_by_now(timed) == []
        ended.shutdown(socket.SHUT_WR)
        assert read_all(speaking) == (b"", 0)
        assert ends_by_now(timed) == []
        for _ in range(3):
            clock.advance(timed, 599)
            assert ends_by_now(timed) == []
            speaking.sendall(b"more")
            assert read_exactly(ended, 4) == b"more"
            assert ends_by_now(timed) == []
        clock.advance(timed, 601)
        end = next_end(timed)
        assert (end.closer, end.cause) == (Closer.TABI, Cause.HALF_OPEN)
        assert is_reset(ended)


def test_half_open_without_a_limit_lasts(timed: Engine, clock: HandClock) -> None:
    with tunnel(timed, limits=FlowLimits(half_open=0.0)) as pair:
        pair.client.shutdown(socket.SHUT_WR)
        assert read_all(pair.target) == (b"", 0)
        clock.advance(timed, 1e6)
        assert ends_by_now(timed) == []
        pair.target.sendall(b"at last")
        pair.target.close()
        assert read_all(pair.client) == (b"at last", 0)
        assert next_end(timed).cause is Cause.FIN


def test_each_flow_has_limits_of_its_own(timed: Engine, clock: HandClock) -> None:
    with (
        tunnel(timed, limits=FlowLimits(idle=10.0)) as short,
        tunnel(timed, limits=FlowLimits(idle=500.0)) as long,
        tunnel(timed, limits=FlowLimits(idle=0.5)) as shortest,
    ):
        clock.advance(timed, 0.6)
        assert next_end(timed).flow == shortest.flow
        clock.advance(timed, 10)
        assert next_end(timed).flow == short.flow
        clock.advance(timed, 480)  # farther than the wheel looks ahead
        assert ends_by_now(timed) == []
        clock.advance(timed, 10)
        assert next_end(timed).flow == long.flow


def test_limits_are_met_by_the_real_clock_without_an_event(engine: Engine) -> None:
    with tunnel(engine, limits=FlowLimits(idle=0.05)) as pair:
        assert_cut(next_end(engine), Cause.IDLE, pair)


def test_a_snapshot_says_when_a_byte_last_moved(timed: Engine, clock: HandClock) -> None:
    with tunnel(timed) as pair:
        clock.advance(timed, 5)
        assert ends_by_now(timed) == []
        assert timed.snapshot()[0].last == 1000.0
        talk(pair)
        assert ends_by_now(timed) == []
        (live,) = timed.snapshot()
    assert (live.started, live.last) == (1000.0, 1005.0)
