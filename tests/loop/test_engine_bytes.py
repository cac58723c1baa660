"""What a tunnel does to bytes: nothing. Both ways, by copying and by splice, in any size, with ends of their own."""

import os
import select
import socket
import threading
from collections.abc import Iterator

import pytest

from loop.engine_helpers import (
    FOREVER,
    MODES,
    PROBED,
    Tunnel,
    connected,
    exchange,
    fill,
    next_end,
    next_ends,
    pipes_held,
    read_all,
    read_exactly,
    running,
    tunnel,
    unsent,
    until,
    waiting,
)
from tabi.relay import Cause, Closer, Engine

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture(params=[*MODES, "both"])
def relay(build: str, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Run an engine that copies, one that splices, and one that changes over."""
    with running(build, **MODES.get(request.param, {})) as engine:
        yield engine


@pytest.mark.parametrize(("chunk", "size"), [(1 << 20, 12 << 20), (64_000, 4 << 20), (777, 200_000), (1, 500)])
def test_both_directions_at_once_arrive_whole_with_a_fin_each(relay: Engine, chunk: int, size: int) -> None:
    up, down = os.urandom(size), os.urandom(size - 1)
    with tunnel(relay) as pair:
        assert exchange([(pair, up, down)], chunk) == [(up, down)]
        end = next_end(relay)
    assert (end.cause, end.errno, end.up, end.down) == (Cause.FIN, 0, len(up), len(down))


def test_many_streams_take_turns_and_do_not_mix(relay: Engine) -> None:
    pairs = [(tunnel(relay), os.urandom(1 << 20), os.urandom(1 << 20)) for _ in range(12)]
    try:
        assert exchange(pairs) == [(up, down) for _, up, down in pairs]
        next_ends(relay, len(pairs))
    finally:
        for pair, _, _ in pairs:
            pair.__exit__()


def test_the_answer_to_a_half_closed_request_arrives(engine: Engine) -> None:
    with tunnel(engine) as pair:
        pair.client.sendall(b"question")
        pair.client.shutdown(socket.SHUT_WR)
        assert read_all(pair.target) == (b"question", 0)
        pair.target.sendall(b"late answer")
        pair.target.close()
        assert read_all(pair.client) == (b"late answer", 0)
        end = next_end(engine)
    assert (end.closer, end.cause, end.up, end.down) == (Closer.CLIENT, Cause.FIN, 8, 11)


def test_a_target_may_half_close_first(engine: Engine) -> None:
    with tunnel(engine) as pair:
        pair.target.sendall(b"banner")
        pair.target.shutdown(socket.SHUT_WR)
        assert read_all(pair.client) == (b"banner", 0)
        pair.client.sendall(b"thanks")
        pair.client.close()
        assert read_all(pair.target) == (b"thanks", 0)
        end = next_end(engine)
    assert (end.closer, end.cause, end.up, end.down) == (Closer.TARGET, Cause.FIN, 6, 6)


def test_a_fin_waits_for_the_bytes_before_it_when_the_reader_is_slow(relay: Engine) -> None:
    with tunnel(relay) as pair:
        sent = fill(pair.client)
        pair.client.shutdown(socket.SHUT_WR)
        data, error = read_all(pair.target)
        assert (len(data), error) == (sent, 0)
        pair.target.sendall(b"got it")
        pair.target.close()
        assert read_all(pair.client) == (b"got it", 0)
        assert next_end(relay).up == sent


def test_a_target_that_speaks_and_leaves_before_it_is_adopted_is_heard(engine: Engine) -> None:
    def speak(client: socket.socket, target: socket.socket) -> None:
        target.sendall(b"220 hello\r\n")
        target.close()

    with tunnel(engine, before=speak) as pair:
        assert read_all(pair.client) == (b"220 hello\r\n", 0)
        pair.client.close()
        end = next_end(engine)
    assert (end.closer, end.cause, end.down) == (Closer.TARGET, Cause.FIN, 11)


def test_a_client_that_half_closed_before_it_is_adopted_gets_its_answer(engine: Engine) -> None:
    def ask(client: socket.socket, target: socket.socket) -> None:
        client.sendall(b" rest")
        client.shutdown(socket.SHUT_WR)

    with tunnel(engine, early=b"early", before=ask) as pair:
        assert read_all(pair.target) == (b"early rest", 0)
        pair.target.sendall(b"answer")
        pair.target.close()
        assert read_all(pair.client) == (b"answer", 0)
        end = next_end(engine)
    assert (end.closer, end.cause, end.up, end.down) == (Closer.CLIENT, Cause.FIN, 10, 6)


def test_early_and_pending_go_first_however_large(relay: Engine) -> None:
    early, pending, up, down = (os.urandom(size) for size in (9 << 20, 8 << 20, 3 << 20, 3 << 20))
    with tunnel(relay, early, pending) as pair:
        assert exchange([(pair, up, down)]) == [(early + up, pending + down)]
        end = next_end(relay)
    assert (end.up, end.down) == (len(early) + len(up), len(pending) + len(down))


def test_early_and_pending_alone_are_delivered_without_an_event_of_the_peers(engine: Engine) -> None:
    with tunnel(engine, b"early", b"pending") as pair:
        assert read_exactly(pair.target, 5) == b"early"
        assert read_exactly(pair.client, 7) == b"pending"


def test_blocking_sockets_may_be_adopted(engine: Engine) -> None:
    def block(inbound: socket.socket, outbound: socket.socket) -> None:
        inbound.setblocking(True)
        outbound.setblocking(True)

    with tunnel(engine, b"early", b"pending", prepare=block) as pair:
        assert read_exactly(pair.target, 5) == b"early"
        with tunnel(engine) as other:  # the loop is not stuck in a read of the first flow
            other.target.sendall(b"pong")
            assert read_exactly(other.client, 4) == b"pong"


def small_buffers(inbound: socket.socket, outbound: socket.socket) -> None:
    """Let the kernel keep little."""
    for end in (inbound, outbound):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32_768)


def test_a_reader_that_does_not_read_stops_the_writer(relay: Engine) -> None:
    with tunnel(relay, before=small_buffers, prepare=small_buffers) as pair:
        sent = fill(pair.client, most=64 << 20)
        assert sent < 4 << 20
        pair.client.shutdown(socket.SHUT_WR)
        assert len(read_all(pair.target)[0]) == sent


def test_a_byte_is_counted_when_the_other_kernel_has_taken_it(relay: Engine) -> None:
    legs = []

    def remember(inbound: socket.socket, outbound: socket.socket) -> None:
        small_buffers(inbound, outbound)
        legs.append(outbound.dup())

    with tunnel(relay, before=small_buffers, prepare=remember) as pair, legs[0]:
        sent = fill(pair.client, calm=PROBED)
        # The counts are read one after the other, and a probe of the closed window may move bytes in between.
        until(lambda: relay.snapshot()[0].up == waiting(pair.target) + unsent(legs[0]), "the counts to agree")
        (live,) = relay.snapshot()
        assert live.down == 0
        relay.kill([pair.flow], Cause.KILL)
        assert 0 < live.up <= next_end(relay).up < sent


def test_an_urgent_byte_is_data_and_stops_nothing(relay: Engine) -> None:
    before, after = os.urandom(6 << 20), os.urandom(6 << 20)
    with tunnel(relay) as pair:
        got = []
        reader = threading.Thread(target=lambda: got.append(read_all(pair.target)))
        reader.start()
        pair.client.sendall(before)
        pair.client.send(b"!", socket.MSG_OOB)
        pair.client.sendall(after)
        pair.client.shutdown(socket.SHUT_WR)
        reader.join()
        assert got == [(before + b"!" + after, 0)]


def test_an_urgent_byte_between_small_messages_stops_nothing(relay: Engine) -> None:
    def speak(client: socket.socket, target: socket.socket) -> None:
        client.sendall(b"ab")
        client.send(b"!", socket.MSG_OOB)
        client.sendall(b"cd")

    with tunnel(relay, before=speak) as pair:
        assert read_exactly(pair.target, 5) == b"ab!cd"
        speak(pair.client, pair.target)
        assert read_exactly(pair.target, 5) == b"ab!cd"
        pair.client.shutdown(socket.SHUT_WR)
        assert read_all(pair.target) == (b"", 0)


def test_a_fin_queued_behind_an_urgent_byte_ends_nothing_early(relay: Engine) -> None:
    def speak(client: socket.socket, target: socket.socket) -> None:
        client.sendall(b"a" * 1000)
        client.send(b"!", socket.MSG_OOB)
        client.sendall(b"c" * 1000)
        client.shutdown(socket.SHUT_WR)

    with tunnel(relay, before=speak) as pair:
        assert read_all(pair.target) == (b"a" * 1000 + b"!" + b"c" * 1000, 0)


def bulk(pair: Tunnel, size: int = 8 << 20) -> None:
    """Send a bulk stream up, without a FIN."""
    data = memoryview(bytes(size))
    got = 0
    pair.client.setblocking(False)
    while got < size:
        readable, writable, _ = select.select([pair.target], [pair.client] if data else [], [], 10)
        if writable:
            data = data[pair.client.send(data[: 1 << 20]) :]
        if readable:
            got += len(pair.target.recv(1 << 20))
        assert readable or writable
    pair.client.setblocking(True)


def test_a_bulk_stream_is_spliced_and_small_talk_is_not(engine: Engine) -> None:
    before = pipes_held()
    with tunnel(engine) as pair:
        for _ in range(20):
            pair.client.sendall(b"small")
            assert read_exactly(pair.target, 5) == b"small"
        assert pipes_held() == before
        bulk(pair)
        assert pipes_held() > before


def test_idle_tunnels_hold_two_descriptors_each_and_share_the_pipes(build: str) -> None:
    with running(build) as engine:
        pairs = [tunnel(engine) for _ in range(10)]
        try:
            before = pipes_held()
            for pair in pairs:
                bulk(pair)
            assert pipes_held() == before + 1
            held = len(os.listdir("/proc/self/fd"))
            for pair in pairs:
                engine.kill([pair.flow], Cause.KILL)
            next_ends(engine, len(pairs))
            assert len(os.listdir("/proc/self/fd")) == held - 2 * len(pairs)
        finally:
            for pair in pairs:
                pair.__exit__()


def test_a_pipe_with_bytes_of_a_dead_flow_is_not_used_again(build: str) -> None:
    with running(build, splice_after=0, pipes=1) as engine:
        with tunnel(engine, before=small_buffers, prepare=small_buffers) as stuck:
            fill(stuck.client)
            until(pipes_held, "the pipe to be made")
            engine.kill([stuck.flow], Cause.KILL)
            next_end(engine)
        data = os.urandom(2 << 20)
        with tunnel(engine) as pair:
            assert exchange([(pair, data, data)]) == [(data, data)]


def test_without_a_pipe_left_streams_are_copied(build: str) -> None:
    with running(build, splice_after=0, pipes=1) as engine:
        before = pipes_held()
        with tunnel(engine, before=small_buffers, prepare=small_buffers) as stuck:
            fill(stuck.client)
            until(lambda: pipes_held() > before, "this one to sit on the pipe")
            data = os.urandom(4 << 20)
            with tunnel(engine) as pair:
                assert exchange([(pair, data, data)]) == [(data, data)]
            assert pipes_held() == before + 1


def test_a_socket_of_another_family_is_relayed(engine: Engine) -> None:
    client, inbound = socket.socketpair()
    outbound, target = connected()
    with Tunnel(client, target, engine.adopt(inbound.detach(), outbound.detach(), b"", b"", FOREVER, b"")) as pair:
        data = os.urandom(4 << 20)
        assert exchange([(pair, data, data)]) == [(data, data)]
        until(lambda: not len(engine), "the end")
