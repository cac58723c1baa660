"""From adopt to end: who may be adopted, what is told about it, and what is left behind (nothing)."""

import errno
import gc
import os
import select
import sys
import threading
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from loop.engine_helpers import (
    FOREVER,
    MODES,
    Tunnel,
    allocated,
    connected,
    exchange,
    fill,
    is_reset,
    made,
    next_end,
    next_ends,
    read_exactly,
    reset,
    running,
    tunnel,
    until,
)
from tabi.relay import ENGINE_NAME, Cause, Closer, Engine, FlowLimits, make_engine
from tabi.relay._flow import Flow, Side

pytestmark = pytest.mark.usefixtures("nothing_left")


def assert_works(engine: Engine) -> None:
    """Check that the engine still serves."""
    with tunnel(engine) as pair:
        pair.client.sendall(b"ping")
        assert read_exactly(pair.target, 4) == b"ping"
        engine.kill([pair.flow], Cause.KILL)
        next_end(engine)


def test_the_engine_that_is_made_is_the_one_that_is_named() -> None:
    engine = make_engine(workers=2)
    assert engine.name == ENGINE_NAME
    engine.stop()
    engine.close()


def test_a_record_comes_back_in_snapshot_and_end(engine: Engine) -> None:
    with tunnel(engine, record=b"alice\0example.com") as pair:
        pair.client.sendall(b"ping")
        assert read_exactly(pair.target, 4) == b"ping"
        pair.target.sendall(b"pong!")
        assert read_exactly(pair.client, 5) == b"pong!"
        until(lambda: engine.snapshot()[0].down == 5, "the count")
        (live,) = engine.snapshot()
        assert (live.flow, live.record, live.up, live.down) == (pair.flow, b"alice\0example.com", 4, 5)
        assert live.started <= live.last
        engine.kill([pair.flow], Cause.KILL)
        end = next_end(engine)
    assert (end.flow, end.record, end.up, end.down) == (pair.flow, b"alice\0example.com", 4, 5)
    assert end.started == live.started
    assert end.ended >= live.last
    assert engine.snapshot() == []


@pytest.mark.parametrize("together", [False, True])
def test_an_end_soon_after_another_is_told_of_although_nothing_else_happens(engine: Engine, together: bool) -> None:
    engine.tell_together(together)
    with ExitStack() as stack:
        pairs = [stack.enter_context(tunnel(engine)) for _ in range(20)]
        for pair in pairs:
            engine.kill([pair.flow], Cause.KILL)
            assert next_end(engine).flow == pair.flow


def test_what_is_to_be_told_together_is_told_when_the_engine_stops(engine: Engine) -> None:
    engine.tell_together(True)
    with tunnel(engine) as first, tunnel(engine) as second:
        engine.kill([first.flow], Cause.KILL)
        next_end(engine)
        engine.kill([second.flow], Cause.KILL)
        engine.stop()
        assert next_end(engine).flow == second.flow


def test_a_snapshot_can_be_taken_while_flows_come_and_go(engine: Engine) -> None:
    stop = threading.Event()
    seen: list[int] = []

    def look() -> None:
        while not stop.is_set():
            seen.append(len(engine.snapshot()))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(100):
            with tunnel(engine):
                pass
            next_end(engine)
    finally:
        stop.set()
        watcher.join()
    assert seen


@pytest.mark.parametrize("cause", [Cause.KILL, Cause.POLICY])
def test_a_killed_flow_is_reset_on_both_sides(engine: Engine, cause: Cause) -> None:
    with tunnel(engine) as pair, tunnel(engine) as other:
        engine.kill([pair.flow, 10_000], cause)
        assert is_reset(pair.client)
        assert is_reset(pair.target)
        end = next_end(engine)
        assert (end.flow, end.closer, end.cause, end.errno) == (pair.flow, Closer.TABI, cause, 0)
        other.client.sendall(b"alive")
        assert read_exactly(other.target, 5) == b"alive"


@pytest.mark.parametrize("mode", MODES)
def test_a_kill_throws_away_what_is_under_way(build: str, mode: str) -> None:
    with running(build, **MODES[mode]) as engine, tunnel(engine) as pair:
        fill(pair.client)
        engine.kill([pair.flow], Cause.KILL)
        assert is_reset(pair.client)
        next_end(engine)


def test_a_kill_right_behind_adopt_finds_the_flow(engine: Engine) -> None:
    pairs = [tunnel(engine) for _ in range(50)]
    for pair in pairs:
        client, inbound = connected()
        outbound, target = connected()
        with Tunnel(client, target, engine.adopt(inbound.detach(), outbound.detach(), b"", b"", FOREVER, b"")) as late:
            engine.kill([pair.flow, late.flow], Cause.KILL)
            assert {end.flow for end in next_ends(engine, 2)} == {pair.flow, late.flow}
        pair.__exit__()


def test_the_length_counts_flows_from_adopt_to_end(build: str) -> None:
    engine = made(build)
    with tunnel(engine) as first, tunnel(engine) as second:
        assert len(engine) == 2  # not even started
        engine.start()
        engine.kill([first.flow], Cause.KILL)
        next_end(engine)
        assert len(engine) == 1
        engine.stop()
        assert len(engine) == 0
        assert [end.flow for end in engine.ends()] == [second.flow]
    engine.close()


def test_stop_resets_what_is_left_and_its_ends_can_still_be_taken(build: str) -> None:
    engine = made(build)
    engine.start()
    with tunnel(engine) as first, tunnel(engine) as second:
        first.client.sendall(b"ping")
        assert read_exactly(first.target, 4) == b"ping"
        engine.stop()
        engine.stop()
        for pair in (first, second):
            assert is_reset(pair.client)
            assert is_reset(pair.target)
        assert select.select([engine.fileno()], [], [], 0)[0]
        ends = engine.ends()
    assert {(end.flow, end.closer, end.cause) for end in ends} == {
        (first.flow, Closer.TABI, Cause.SHUTDOWN),
        (second.flow, Closer.TABI, Cause.SHUTDOWN),
    }
    assert not select.select([engine.fileno()], [], [], 0)[0]
    engine.close()


@pytest.mark.parametrize("started", [True, False])
def test_a_flow_adopted_after_stop_is_reset_and_reported(build: str, started: bool) -> None:
    engine = made(build)
    if started:
        engine.start()
    engine.stop()
    with tunnel(engine, b"early", record=b"late") as pair:
        end = next_end(engine)
        assert (end.flow, end.record, end.closer, end.cause) == (pair.flow, b"late", Closer.TABI, Cause.SHUTDOWN)
        assert is_reset(pair.client)
        assert is_reset(pair.target)
        engine.kill([pair.flow], Cause.KILL)
        assert len(engine) == 0
    engine.close()


def test_an_engine_is_started_once(build: str) -> None:
    with running(build) as engine:
        with pytest.raises(RuntimeError):
            engine.start()
        engine.stop()
        with pytest.raises(RuntimeError):
            engine.start()


def test_the_switch_interval_is_short_while_the_pure_engine_runs() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.003)
    try:
        with running("pure"):
            assert sys.getswitchinterval() == pytest.approx(50e-6)
        assert sys.getswitchinterval() == pytest.approx(0.003)
    finally:
        sys.setswitchinterval(before)


def test_stop_ends_what_an_engine_that_was_never_started_was_given(build: str) -> None:
    engine = made(build)
    with tunnel(engine, b"early") as pair:
        engine.stop()
        assert [(end.flow, end.cause, end.up) for end in engine.ends()] == [(pair.flow, Cause.SHUTDOWN, 0)]
        assert is_reset(pair.client)
        assert is_reset(pair.target)
    engine.close()


def test_ends_come_in_batches_with_one_descriptor_to_watch(engine: Engine) -> None:
    pairs = [tunnel(engine) for _ in range(40)]
    try:
        assert not select.select([engine.fileno()], [], [], 0)[0]
        assert engine.ends() == []
        engine.kill([pair.flow for pair in pairs], Cause.KILL)
        assert select.select([engine.fileno()], [], [], 20)[0]
        assert [end.flow for end in engine.ends()] == [pair.flow for pair in pairs]
        assert not select.select([engine.fileno()], [], [], 0)[0]
    finally:
        for pair in pairs:
            pair.__exit__()


def closed_descriptor() -> int:
    """Return a number that is no descriptor."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    os.close(write_end)
    return write_end


@pytest.mark.parametrize("dead", ["inbound", "outbound", "both"])
def test_a_closed_descriptor_is_an_end_by_error(engine: Engine, dead: str) -> None:
    client, inbound = connected()
    outbound, target = connected()
    living = {"inbound": target, "outbound": client, "both": None}[dead]
    legs = SimpleNamespace(inbound=inbound.detach(), outbound=outbound.detach())
    for leg in vars(legs):
        if dead in {leg, "both"}:
            os.close(getattr(legs, leg))
    with Tunnel(client, target, engine.adopt(legs.inbound, legs.outbound, b"e", b"p", FOREVER, b"r")) as pair:
        end = next_end(engine)
        assert (end.flow, end.closer, end.cause, end.errno) == (pair.flow, Closer.TABI, Cause.ERROR, errno.EBADF)
        if living is not None:
            assert is_reset(living)
    assert len(engine) == 0
    assert_works(engine)


def test_a_descriptor_that_is_no_socket_is_an_end_by_error_and_is_closed(engine: Engine) -> None:
    client, inbound = connected()
    read_end, write_end = os.pipe()
    engine.adopt(inbound.detach(), write_end, b"", b"", FOREVER, b"")
    end = next_end(engine)
    assert (end.cause, end.errno) == (Cause.ERROR, errno.ENOTSOCK)
    assert os.read(read_end, 1) == b""
    assert is_reset(client)
    os.close(read_end)
    client.close()
    assert_works(engine)


def test_one_descriptor_for_both_sides_is_an_end_by_error(engine: Engine) -> None:
    client, inbound = connected()
    fd = inbound.detach()
    engine.adopt(fd, fd, b"", b"", FOREVER, b"")
    end = next_end(engine)
    assert (end.cause, end.errno) == (Cause.ERROR, errno.EEXIST)
    assert is_reset(client)
    client.close()
    assert_works(engine)


def test_a_descriptor_that_somebody_else_closes_harms_its_own_flow_only(engine: Engine) -> None:
    legs: list[int] = []
    with tunnel(engine, prepare=lambda inbound, outbound: legs.append(inbound.fileno())) as pair:
        pair.client.sendall(b"ping")
        assert read_exactly(pair.target, 4) == b"ping"
        os.close(legs[0])
        engine.kill([pair.flow], Cause.KILL)
        end = next_end(engine)
        assert (end.cause, end.errno) == (Cause.KILL, errno.EBADF)
        assert is_reset(pair.target)
    assert_works(engine)


def test_only_the_first_of_two_fins_costs_a_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    fins = []
    send_fin = Side.send_fin
    monkeypatch.setattr(Side, "send_fin", lambda side: fins.append(side) or send_fin(side))
    with running("pure") as engine, tunnel(engine) as pair:
        exchange([(pair, b"up", b"down")])
        next_end(engine)
    assert len(fins) == 1


def held_by(build: str) -> int:
    """Count the objects of flows that are alive, or the blocks of memory."""
    if build == "compiled":
        return allocated()
    return sum(isinstance(thing, (Flow, Side)) for thing in gc.get_objects())


@pytest.mark.parametrize("ending", ["fin", "reset", "kill", "limit"])
def test_a_flow_that_is_over_leaves_nothing_for_the_garbage_collector(build: str, ending: str) -> None:
    gc.collect()
    gc.disable()
    try:
        with running(build, splice_after=0) as engine:
            none = held_by(build)
            assert_works(engine)
            if build == "pure":  # whose thread lets go of a flow behind its end
                until(lambda: held_by(build) == none, "the first flow to be let go of")
            before = held_by(build)
            with tunnel(engine, b"early", limits=FlowLimits(idle=0.05 if ending == "limit" else 0)) as pair:
                assert ending == "limit" or held_by(build) > before
                if ending == "fin":
                    exchange([(pair, b"up", b"down")])
                elif ending == "reset":
                    fill(pair.client)
                    reset(pair.client)
                    read_exactly(pair.target, 5)
                    pair.target.close()
                elif ending == "kill":
                    engine.kill([pair.flow], Cause.KILL)
                next_end(engine)
            until(lambda: held_by(build) == before, "no flow is left")
    finally:
        gc.enable()


def test_two_thousand_flows_come_and_go_and_leave_nothing(build: str) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    up = down = 0
    with running(build) as engine:
        inside = len(os.listdir("/proc/self/fd"))
        for number in range(2000):
            with tunnel(engine, b"early", b"pending") as pair:
                if number % 3 == 0:
                    pair.client.close()
                elif number % 3 == 1:
                    reset(pair.target)
                else:
                    engine.kill([pair.flow], Cause.KILL)
            if number % 100 == 99:
                for end in next_ends(engine, 100):
                    up, down = up + end.up, down + end.down
                    assert end.up in {0, 5}
                    assert end.down in {0, 7}
        assert len(engine) == 0
        assert engine.snapshot() == []
        assert len(os.listdir("/proc/self/fd")) == inside
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert up > 0
    assert down > 0


def test_descriptors_that_come_back_at_once_are_not_confused(engine: Engine) -> None:
    """The lowest free number is given out next, so each flow has the numbers of the one before."""
    for number in range(300):
        with tunnel(engine) as pair:
            word = number.to_bytes(4, "big")
            pair.client.sendall(word)
            assert read_exactly(pair.target, 4) == word
            reset(pair.client)
            assert is_reset(pair.target)
    assert len(next_ends(engine, 300)) == 300


def test_a_wakeup_is_never_lost(engine: Engine) -> None:
    """Four threads adopt and kill as fast as they can; every flow ends."""

    def drive() -> None:
        for _ in range(100):
            with tunnel(engine) as pair:
                engine.kill([pair.flow], Cause.KILL)

    threads = [threading.Thread(target=drive) for _ in range(4)]
    for thread in threads:
        thread.start()
    ends = next_ends(engine, 400)
    for thread in threads:
        thread.join()
    assert len({end.flow for end in ends}) == 400


def test_each_build_is_an_engine_and_says_which(build: str) -> None:
    engine = made(build, clock=lambda: 0.0)
    assert engine.name == build
    assert engine.failure is None
    engine.stop()
    engine.close()


def is_epoll(fd: str) -> bool:
    """Tell an epoll by its link; the descriptor of the listing itself is gone."""
    link = f"/proc/self/fd/{fd}"
    return os.path.lexists(link) and "eventpoll" in os.readlink(link)


def test_a_compiled_engine_whose_epoll_is_taken_away_says_so_and_reports_its_flows(build: str) -> None:
    if build == "pure":
        pytest.skip("the pure engine fails by exceptions: test_engine_death")
    before = set(os.listdir("/proc/self/fd"))
    with running(build) as engine, tunnel(engine, record=b"cut") as pair:
        pair.client.sendall(b"ping")
        assert read_exactly(pair.target, 4) == b"ping"
        (epoll,) = (fd for fd in set(os.listdir("/proc/self/fd")) - before if is_epoll(fd))
        os.close(int(epoll))
        pair.client.sendall(b"ping")  # wakes the turn that runs
        end = next_end(engine)
        assert (end.record, end.closer, end.cause) == (b"cut", Closer.TABI, Cause.BUG)
        assert isinstance(engine.failure, OSError)
        assert engine.failure.errno == errno.EBADF
        with tunnel(engine, record=b"late") as late:
            assert next_end(engine).cause is Cause.BUG
            assert is_reset(late.client)
        assert len(engine) == 0


def test_flows_adopted_without_ringing_are_relayed_from_the_ring_on(engine: Engine) -> None:
    (client, inbound), (outbound, target) = connected(), connected()
    with client, target:
        engine.adopt(inbound.detach(), outbound.detach(), b"early", b"", FOREVER, b"", ring=False)
        assert len(engine) == 1
        engine.ring()
        assert read_exactly(target, 5) == b"early"
        engine.kill([1], Cause.KILL)
        assert next_end(engine).cause is Cause.KILL
