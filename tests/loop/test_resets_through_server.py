"""A reset through the whole server looks as it does on a direct connection, and the log says who did it.

The scenarios are those of the engine's own tests; here the sockets have come through accept, handshake, dialling and
hand-over, each of which could take an error away or a byte.
"""

import errno
import select
import socket
from collections.abc import Callable, Iterator

import pytest

from helpers.serving import Running, serving
from helpers.socks import LINGER_ZERO, connect5, dial, greet5, read_exactly, read_reply5, request4, request5, reset
from helpers.targets import target
from helpers.tcp_table import reset_in_queue
from helpers.waiting import PATIENCE, until
from loop.engine_helpers import direct, fill, is_reset, read_all, unsent
from loop.test_engine_resets import SCENARIOS
from tabi.policy.verdict import Grants, Limits, Verdict

pytestmark = pytest.mark.usefixtures("nothing_left")

GREETING = b"\x05\x01\x00"
Scenario = Callable[[socket.socket, socket.socket], tuple[object, ...]]


@pytest.fixture(params=["127.0.0.1", "::1"])
def host(request: pytest.FixtureRequest) -> str:
    """Name the address of both server and target."""
    return str(request.param)


@pytest.fixture
def server() -> Iterator[Running]:
    """Run a server as it is by default."""
    with serving() as running:
        yield running


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Listen as a target that the test itself plays."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as sock:
        sock.settimeout(PATIENCE)
        yield sock


def accept(listener: socket.socket) -> socket.socket:
    """Accept, every wait bounded."""
    sock, _ = listener.accept()
    sock.settimeout(PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def where(server: Running, host: str) -> tuple[str, int]:
    """Give the listener on `host`."""
    return next((host, one.port) for one in server.addresses if str(one.host) == host)


@pytest.mark.parametrize("by", ["client", "target"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_reset_looks_as_on_a_direct_connection(server: Running, host: str, by: str, scenario: Scenario) -> None:
    with direct() as plain:
        expected = scenario(plain.client, plain.target)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        listener.settimeout(PATIENCE)
        with connect5(where(server, host), *listener.getsockname()[:2]) as client, accept(listener) as there:
            assert scenario(*((client, there) if by == "client" else (there, client))) == expected
    line = server.only_line()
    assert (line["by"], line["why"], line["reply"]) == (by, "rst", 0)


def test_every_byte_of_4_mb_reaches_a_reader_of_1_mb_per_second_before_the_reset(
    server: Running, listener: socket.socket
) -> None:
    size, piece = 4_000_000, 50_000
    pacemaker = select.poll()  # of nothing: its timeout is the pace of the reader
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.settimeout(PATIENCE)
        client.connect(server.address)
        client.sendall(GREETING + request5(1, *listener.getsockname()))
        there = accept(listener)
        assert read_exactly(client, 2) == b"\x05\x00"
        assert read_reply5(client)[0] == 0
        left = memoryview(bytes(range(250)) * (size // 250))
        sent = bytes(left)
        there.setblocking(False)
        got = bytearray()
        while len(got) < size:
            while left:
                try:
                    left = left[there.send(left) :]
                except BlockingIOError:
                    break
            if not left and there.fileno() >= 0 and not unsent(there):
                reset(there)
            got += read_exactly(client, min(piece, size - len(got)))
            pacemaker.poll(50)
        assert there.fileno() < 0
        assert is_reset(client)
    assert got == sent
    line = server.only_line()
    assert (line["by"], line["why"], line["down"]) == ("target", "rst", size)


def fates(listener: socket.socket) -> list[tuple[bytes, int]]:
    """Say of each connection that waits what came and which error it ended in, 0 for an orderly end."""
    found = []
    listener.setblocking(False)
    while True:
        try:
            there, _ = listener.accept()
        except BlockingIOError:
            return found
        with there:
            there.settimeout(PATIENCE)
            found.append(read_all(there))


@pytest.mark.parametrize("early", [b"", b"early" * 2000])
def test_a_reset_right_behind_the_request_never_becomes_an_end(
    server: Running, listener: socket.socket, early: bytes
) -> None:
    for _ in range(100):
        sock = dial(server.address)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        sock.sendall(GREETING + request5(1, *listener.getsockname()) + early)
        sock.close()
    reset(greet5(server.address))  # is accepted behind all of them
    server.idle()
    seen = fates(listener)
    assert {code for _, code in seen} <= {errno.ECONNRESET}  # some are noticed before anybody is dialled
    assert all(early.startswith(data) for data, _ in seen)
    told = [(line["by"], line["why"]) for line in server.lines]
    assert set(told) == {("client", "rst")}


def test_early_data_arrives_before_the_reset_that_follows_it(server: Running, listener: socket.socket) -> None:
    for _ in range(50):
        sock = greet5(server.address)
        sock.sendall(request5(1, *listener.getsockname()) + b"last words")
        reset(sock)
    server.idle()
    seen = fates(listener)
    # Whoever is dialled at all: the data was read together with the request, and goes first.
    assert seen == [(b"last words", errno.ECONNRESET)] * len(seen)
    assert seen


@pytest.mark.parametrize("bandwidth", [None, 1_000_000])
def test_a_reset_that_is_there_before_the_request_is_read_stays_behind_the_early_data(
    listener: socket.socket, bandwidth: int | None
) -> None:
    grants = Grants(limits=Limits(bandwidth=bandwidth))

    def leave() -> None:
        sock = dial(server.address)
        sock.sendall(request4(1, *listener.getsockname()) + b"last words")
        reset_in_queue(sock)

    with serving(policy=lambda _request, _context: Verdict(allow=True, rule="all", grants=grants)) as server:
        server.call_sync(leave)  # the loop accepts nobody, and answers nothing, until it returns
        line = server.only_line()
    assert fates(listener) == [(b"last words", errno.ECONNRESET)]
    assert (line["by"], line["why"], line["up"]) == ("client", "rst", 10)


@pytest.mark.parametrize("stuck", [False, True])
def test_a_tunnel_that_shutdown_cuts_is_reset_on_both_sides_and_never_ended(
    listener: socket.socket, stuck: bool
) -> None:
    with serving() as server:
        with connect5(server.address, *listener.getsockname()) as client, accept(listener) as there:
            client.sendall(b"ping")
            assert read_exactly(there, 4) == b"ping"
            if stuck:
                fill(client)
                fill(there)
            server.close()
            assert read_all(client)[1] == errno.ECONNRESET
            assert read_all(there)[1] == errno.ECONNRESET
        line = server.lines[0]
        assert (line["by"], line["why"]) == ("tabi", "shutdown")
        assert len(server.lines) == 1


def test_a_half_open_tunnel_that_shutdown_cuts_is_reset_too(listener: socket.socket) -> None:
    with serving() as server:
        with connect5(server.address, *listener.getsockname()) as client, accept(listener) as there:
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            assert read_all(there) == (b"question", 0)
            server.close()
            assert is_reset(client)  # the answer is missing; an end here would say that it was empty


def test_sessions_in_every_stage_are_reset_by_shutdown(listener: socket.socket) -> None:
    with serving() as server, socket.create_server(("127.0.0.1", 0)) as never:
        handshake = dial(server.address)
        greeted = greet5(server.address)
        associated = greet5(server.address)
        associated.sendall(request5(3, "0.0.0.0", 0))
        assert read_reply5(associated)[0] == 0
        binding = greet5(server.address)
        binding.sendall(request5(2, *never.getsockname()))
        assert read_reply5(binding)[0] == 0
        until(lambda: len(server.server) == 4, "the sessions")
        server.close()
        for sock in (handshake, greeted, associated, binding):
            with sock:
                assert is_reset(sock)
        assert [(line["by"], line["why"]) for line in server.lines] == [("tabi", "shutdown")] * 4


@pytest.mark.parametrize("by", ["client", "target"])
def test_an_urgent_byte_stays_in_its_place(server: Running, listener: socket.socket, by: str) -> None:
    with connect5(server.address, *listener.getsockname()) as client, accept(listener) as there:
        sender, receiver = (client, there) if by == "client" else (there, client)
        sender.sendall(b"ab")
        assert read_exactly(receiver, 2) == b"ab"
        sender.send(b"!", socket.MSG_OOB)
        sender.sendall(b"cd" * 500_000)
        sender.shutdown(socket.SHUT_WR)
        assert read_all(receiver) == (b"!" + b"cd" * 500_000, 0)


def test_a_reset_of_one_session_touches_no_other(server: Running) -> None:
    with target() as there:
        with connect5(server.address, *there) as steady:
            for _ in range(50):
                sock = connect5(server.address, *there)
                sock.sendall(b"x" * 10_000)
                reset(sock)
                steady.sendall(b"steady")
                assert read_exactly(steady, 6) == b"steady"
    server.idle()
    assert sorted(line["why"] for line in server.lines) == ["fin"] + ["rst"] * 50
