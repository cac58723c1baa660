"""A reset on one side becomes a reset on the other, behind the bytes that came before it.

The measure is what the same peers see of each other on a direct connection.
"""

import errno
import select
import socket
from collections.abc import Callable, Iterator

import pytest

from loop.engine_helpers import (
    DEADLINE,
    MODES,
    PROBED,
    HandClock,
    await_reset,
    direct,
    ends_by_now,
    fill,
    is_reset,
    next_end,
    pipes_held,
    read_all,
    read_exactly,
    reset,
    running,
    tunnel,
    unsent,
    until,
    waiting,
)
from tabi.relay import Cause, Closer, Engine, FlowLimits

pytestmark = pytest.mark.usefixtures("nothing_left")

Seen = tuple[object, ...]


@pytest.fixture(params=list(MODES))
def relay(build: str, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Run an engine that copies and one that splices."""
    with running(build, **MODES[request.param]) as engine:
        yield engine


def send_until_error(end: socket.socket) -> int:
    """Send, a byte at a time, until that fails; return the errno."""
    poll = select.poll()
    poll.register(end, 0)
    for _ in range(int(DEADLINE * 100)):
        try:
            end.send(b"k")
        except OSError as error:
            return error.errno or 0
        poll.poll(10)
    return 0


def idle(actor: socket.socket, other: socket.socket) -> Seen:
    """Reset a silent connection."""
    reset(actor)
    await_reset(other)
    return read_all(other)


def data_and_reset(actor: socket.socket, other: socket.socket) -> Seen:
    """Send, and reset at once."""
    actor.sendall(b"e" * 5000)
    reset(actor)
    await_reset(other)
    return read_all(other)


def data_arrived_then_reset(actor: socket.socket, other: socket.socket) -> Seen:
    """Send, and reset when it has arrived."""
    actor.sendall(b"e" * 5000)
    until(lambda: waiting(other) == 5000, "the data")
    reset(actor)
    await_reset(other)
    return read_all(other)


def answer_and_close_with_unread_input(actor: socket.socket, other: socket.socket) -> Seen:
    """Answer and leave without reading all of the question (HTTP 413): the kernel resets."""
    other.sendall(b"r" * 100_000)
    until(lambda: waiting(actor) == 100_000, "the question")
    actor.sendall(b"e" * 5000)
    until(lambda: waiting(other) == 5000, "the answer")
    actor.close()
    await_reset(other)
    return read_all(other)


def fin_then_reset(actor: socket.socket, other: socket.socket) -> Seen:
    """Half-close, and reset later."""
    actor.sendall(b"e" * 100)
    actor.shutdown(socket.SHUT_WR)
    seen = read_all(other)
    reset(actor)
    await_reset(other)
    return *seen, send_until_error(other)


def close_while_the_other_sends(actor: socket.socket, other: socket.socket) -> Seen:
    """Close in order; what the other sends afterwards is answered by a reset."""
    actor.close()
    return *read_all(other), send_until_error(other)


def slow_reader(actor: socket.socket, other: socket.socket) -> Seen:
    """Fill everything and reset; the other reads only then. Every byte that was acknowledged arrives."""
    sent = fill(actor)
    taken = sent - unsent(actor)
    reset(actor)  # a probe of the window may have brought some more meanwhile
    data, error = read_all(other)
    return taken <= len(data) <= sent, error


def reset_against_the_stream(actor: socket.socket, other: socket.socket) -> Seen:
    """Reset while the other's data is stuck on the way."""
    fill(other)
    reset(actor)
    await_reset(other)
    return read_all(other)


SCENARIOS = [
    idle,
    data_and_reset,
    data_arrived_then_reset,
    answer_and_close_with_unread_input,
    fin_then_reset,
    close_while_the_other_sends,
    slow_reader,
    reset_against_the_stream,
]


@pytest.mark.parametrize("closer", [Closer.CLIENT, Closer.TARGET])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_reset_looks_as_on_a_direct_connection(
    relay: Engine, closer: Closer, scenario: Callable[[socket.socket, socket.socket], Seen]
) -> None:
    with direct() as plain, tunnel(relay) as pair:
        expected = scenario(plain.client, plain.target)
        ends = (pair.client, pair.target) if closer is Closer.CLIENT else (pair.target, pair.client)
        assert scenario(*ends) == expected
        end = next_end(relay)
    assert (end.closer, end.cause) == (closer, Cause.RST)
    assert end.errno in {errno.ECONNRESET, errno.EPIPE}


def test_every_byte_of_4_mb_reaches_a_slow_reader_before_the_reset(relay: Engine) -> None:
    size, piece = 4_000_000, 50_000

    def shrink(client: socket.socket, target: socket.socket) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)

    got = 0
    with tunnel(relay, before=shrink) as pair:
        left = memoryview(bytes(size))
        pair.target.setblocking(False)
        pacemaker = select.poll()  # of nothing: its timeout is the pace of the reader
        while got < size:
            while left:
                try:
                    left = left[pair.target.send(left) :]
                except BlockingIOError:
                    break
            if not left and pair.target.fileno() >= 0 and not unsent(pair.target):
                reset(pair.target)
            got += len(read_exactly(pair.client, min(piece, size - got)))
            pacemaker.poll(5)
        assert pair.target.fileno() < 0
        assert is_reset(pair.client)
        end = next_end(relay)
    assert (end.closer, end.cause, end.down) == (Closer.TARGET, Cause.RST, size)


@pytest.fixture(params=list(MODES))
def timed(build: str, clock: HandClock, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Run an engine by that clock."""
    with running(build, clock=clock, **MODES[request.param]) as engine:
        yield engine


def read_until_more_comes(end: socket.socket, before: int) -> int:
    """Read what is there and wait until more of it has come. Return the bytes read in all."""
    before += len(end.recv(waiting(end)))
    until(lambda: waiting(end), "more bytes")
    return before


def narrow(client: socket.socket, target: socket.socket) -> None:
    """Let the client's kernel take little at a time."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)


def test_a_reset_behind_bytes_that_nobody_reads_is_passed_on_in_the_end(timed: Engine, clock: HandClock) -> None:
    with tunnel(timed, before=narrow) as pair:
        fill(pair.target, calm=PROBED)
        reset(pair.target)
        assert ends_by_now(timed) == []  # it has noticed
        clock.advance(timed, 29)
        assert ends_by_now(timed) == []
        clock.advance(timed, 2)
        end = next_end(timed)
        assert (end.closer, end.cause) == (Closer.TARGET, Cause.RST)
        data, error = read_all(pair.client)
        assert error == errno.ECONNRESET
        assert len(data) < end.down  # SO_LINGER 0 threw away the rest: direct, it would not have come either


def test_who_is_stuck_in_sending_behind_a_reset_can_send_on_and_learns_of_it(relay: Engine) -> None:
    with tunnel(relay) as pair:
        taken = fill(pair.client) - unsent(pair.client)
        fill(pair.target)
        reset(pair.client)
        pair.target.sendall(bytes(8 << 20))  # more than all buffers have room for, and nobody will read it
        data, error = read_all(pair.target)
        assert len(data) >= taken
        assert error == errno.ECONNRESET
        end = next_end(relay)
    assert (end.closer, end.cause) == (Closer.CLIENT, Cause.RST)


def test_a_reset_waits_as_long_as_its_bytes_make_progress(timed: Engine, clock: HandClock) -> None:
    with tunnel(timed, before=narrow) as pair:
        taken = fill(pair.target) - unsent(pair.target)
        reset(pair.target)
        assert ends_by_now(timed) == []  # it has noticed
        got = 0
        for _ in range(5):
            got = read_until_more_comes(pair.client, got)
            clock.advance(timed, 29)
            assert ends_by_now(timed) == []
        got += len(read_exactly(pair.client, taken - got))
        until(lambda: clock.advance(timed, 0.1) or ends_by_now(timed), "the end")
        assert read_all(pair.client)[1] == errno.ECONNRESET


@pytest.mark.parametrize(
    ("limits", "most"), [(FlowLimits(half_open=100.0), 100), (FlowLimits(half_open=0.0, lifetime=90.0), 90)]
)
def test_even_progress_ends_at_the_half_open_limit_and_at_the_lifetime(
    timed: Engine, clock: HandClock, limits: FlowLimits, most: int
) -> None:
    with tunnel(timed, limits=limits, before=narrow) as pair:
        fill(pair.target)
        reset(pair.target)
        got = 0
        for _ in range(most // 20):
            assert ends_by_now(timed) == []
            got = read_until_more_comes(pair.client, got)
            clock.advance(timed, 20)
        clock.advance(timed, 20)
        end = next_end(timed)
        assert (end.closer, end.cause) == (Closer.TARGET, Cause.RST)
        assert read_all(pair.client)[1] == errno.ECONNRESET


@pytest.mark.parametrize("closer", [Closer.CLIENT, Closer.TARGET])
def test_a_side_that_is_reset_before_it_is_adopted_is_noticed(relay: Engine, closer: Closer) -> None:
    def act(client: socket.socket, target: socket.socket) -> None:
        actor = client if closer is Closer.CLIENT else target
        actor.sendall(b"last words")
        reset(actor)

    with tunnel(relay, before=act) as pair:
        other = pair.target if closer is Closer.CLIENT else pair.client
        assert read_all(other) == (b"last words", errno.ECONNRESET)
        end = next_end(relay)
    assert (end.closer, end.cause, end.errno) == (closer, Cause.RST, errno.ECONNRESET)


@pytest.mark.parametrize("buckets", [(), (1,)], ids=["at once", "in its turn"])
def test_a_reset_that_was_met_before_the_flow_is_adopted_is_passed_on_all_the_same(
    relay: Engine, buckets: tuple[int, ...]
) -> None:
    def say_and_reset(client: socket.socket, target: socket.socket) -> None:
        client.sendall(b"last words")
        reset(client)

    def meet(inbound: socket.socket, outbound: socket.socket) -> None:
        await_reset(inbound)
        with pytest.raises(ConnectionResetError):
            inbound.send(b"reply")

    relay.set_bucket(1, 1_000_000)
    limits = FlowLimits(buckets=buckets)
    met = errno.ECONNRESET
    with tunnel(relay, b"early, ", b"reply", limits=limits, error=met, before=say_and_reset, prepare=meet) as pair:
        assert read_all(pair.target) == (b"early, last words", errno.ECONNRESET)
        end = next_end(relay)
    assert (end.closer, end.cause, end.errno) == (Closer.CLIENT, Cause.RST, errno.ECONNRESET)


def test_early_is_delivered_before_the_reset_of_the_client(relay: Engine) -> None:
    early = b"e" * (1 << 20)
    with tunnel(relay, early, before=lambda client, target: reset(client)) as pair:
        assert read_all(pair.target) == (early, errno.ECONNRESET)
        assert next_end(relay).up == len(early)


def test_a_dead_peer_is_an_error_and_the_other_side_is_reset(relay: Engine) -> None:
    # A window that stays shut for longer than TCP_USER_TIMEOUT: the kernel gives the connection up with ETIMEDOUT,
    # as it does when keepalive goes unanswered (tcp(7)).
    def give_up_soon(inbound: socket.socket, outbound: socket.socket) -> None:
        outbound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 100)

    with tunnel(relay, prepare=give_up_soon) as pair:
        pair.target.sendall(b"still there?")
        assert read_exactly(pair.client, 12) == b"still there?"
        with pytest.raises(ConnectionResetError):
            for _ in range(100):
                fill(pair.client)
        end = next_end(relay)
    assert (end.closer, end.cause, end.errno) == (Closer.TARGET, Cause.ERROR, errno.ETIMEDOUT)


def test_both_sides_reset_is_one_end_by_the_first(relay: Engine) -> None:
    def act(client: socket.socket, target: socket.socket) -> None:
        reset(client)
        reset(target)

    with tunnel(relay, before=act):
        end = next_end(relay)
    assert end.cause is Cause.RST


def test_the_living_side_may_break_while_a_reset_waits_for_it(relay: Engine) -> None:
    with tunnel(relay) as pair:
        fill(pair.target)
        reset(pair.target)
        read_exactly(pair.client, 1000)
        reset(pair.client)
        end = next_end(relay)
    assert (end.closer, end.cause) == (Closer.TARGET, Cause.RST)


def test_killing_a_flow_whose_reset_waits_keeps_the_cause(relay: Engine) -> None:
    with tunnel(relay, before=narrow) as pair:
        fill(pair.target)
        reset(pair.target)
        assert ends_by_now(relay) == []  # it has noticed
        relay.kill([pair.flow], Cause.KILL)
        end = next_end(relay)
        assert read_all(pair.client)[1] == errno.ECONNRESET
    assert (end.closer, end.cause, end.errno) == (Closer.TARGET, Cause.RST, errno.ECONNRESET)


def test_a_flow_whose_reset_waits_holds_no_pipe_for_the_dead_direction(build: str) -> None:
    with running(build, **MODES["splice"]) as engine, tunnel(engine, before=narrow) as pair:
        fill(pair.client, calm=PROBED)
        fill(pair.target, calm=PROBED)
        before = pipes_held()
        reset(pair.target)
        assert ends_by_now(engine) == []
        assert pipes_held() == before - 1
