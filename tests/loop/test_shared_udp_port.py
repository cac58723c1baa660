"""One UDP port for all associations: told apart by their source, never guessed."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from helpers.clocks import HeldClock
from helpers.serving import Running, serving
from helpers.socks import greet5, read_all, read_reply5, request5, reset
from helpers.udp import (
    Association,
    address_of,
    datagrams,
    header,
    is_quiet,
    refused,
    stranger,
)
from helpers.waiting import until
from tabi.addr import Endpoint
from tabi.config.settings import UdpSettings

pytestmark = pytest.mark.usefixtures("nothing_left")

V4 = "127.0.0.1"
OTHER = "127.0.0.2"
V6 = "::1"


# one shared port


@contextmanager
def one_port() -> Iterator[Running]:
    """Run a server with one port for all associations."""
    with datagrams() as free:
        port = address_of(free)[1]
    with serving(udp=UdpSettings(shared_port=port)) as server:
        yield server


@pytest.fixture
def shared() -> Iterator[Running]:
    """Do so for a whole test."""
    with one_port() as server:
        yield server


def waiting(running: Running, control: socket.socket) -> bool:
    """Say whether the request on a control connection has reached the server."""
    client = Endpoint.from_sockaddr(control.getsockname())
    sessions = running.call_sync(lambda: list(running.server._sessions.values()))
    return any(session.client == client and session.is_served for session in sessions)


def waits(running: Running, association: Association) -> bool:
    """Say whether its request has reached the server and is not answered."""
    until(lambda: waiting(running, association.control), "the request")
    running.call_sync(lambda: None)
    return is_quiet(association.control)


def test_two_clients_on_the_shared_port_are_told_apart(shared: Running, there: socket.socket) -> None:
    with Association(shared.address) as first, datagrams() as elsewhere:
        first.talk(there)
        with Association(shared.address) as second:
            assert second.relay == first.relay
            second.talk(elsewhere)
            first.talk(there)
            second.talk(elsewhere)
            stranger(first.relay, header(*address_of(there)) + b"stranger")
            first.talk(there)
        first.talk(there)


def test_on_the_shared_port_the_second_waits_until_the_first_has_sent(shared: Running, there: socket.socket) -> None:
    with (
        Association(shared.address) as first,
        closing(Association(shared.address)) as second,
        closing(Association(shared.address)) as third,
    ):
        assert waits(shared, second)
        assert waits(shared, third)
        first.send_raw(b"malformed")
        assert waits(shared, second)
        first.talk(there)
        ready = until(lambda: [one for one in (second, third) if not is_quiet(one.control)], "one of them")
        assert len(ready) == 1
        ready[0].granted().talk(there)
        last = third if ready[0] is second else second
        last.granted().talk(there)
        first.talk(there)


def test_on_the_shared_port_a_declared_port_waits_for_nobody(shared: Running, there: socket.socket) -> None:
    with Association(shared.address) as first, Association(shared.address, declare=True) as second:
        second.talk(there)
        first.talk(there)
        second.talk(there)


def test_on_the_shared_port_another_address_waits_for_nobody(shared: Running, there: socket.socket) -> None:
    with (
        Association(shared.address) as first,
        closing(Association(shared.address)) as second,
        Association(shared.address, OTHER) as other,
    ):
        other.talk(there)
        assert waits(shared, second)
        first.talk(there)
        second.granted().talk(there)


def test_on_the_shared_port_a_declared_port_is_one_associations_own(shared: Running, there: socket.socket) -> None:
    with Association(shared.address, declare=True) as first:
        assert refused(shared.address, *address_of(first.sock)) == 1
        assert shared.line(reply=1)["why"] == "failed"
        first.talk(there)


def test_on_the_shared_port_the_end_of_the_first_lets_the_second_go_on(shared: Running, there: socket.socket) -> None:
    first = Association(shared.address).granted()
    with closing(first), closing(Association(shared.address)) as second:
        assert waits(shared, second)
        first.close()
        second.granted().talk(there)


@pytest.mark.parametrize("by_reset", [False, True])
def test_on_the_shared_port_a_client_that_leaves_while_it_waits_is_let_go(
    shared: Running, there: socket.socket, by_reset: bool
) -> None:
    with Association(shared.address) as first, closing(Association(shared.address)) as second:
        assert waits(shared, second)
        if by_reset:
            reset(second.control)
        second.close()
        assert shared.line(by="client")["why"] == ("rst" if by_reset else "fin")
        first.talk(there)
        with Association(shared.address) as third:
            third.talk(there)


def test_on_the_shared_port_the_wait_ends_at_the_handshake_deadline_with_reply_1(
    monkeypatch: pytest.MonkeyPatch, there: socket.socket
) -> None:
    clock = HeldClock(monkeypatch)
    with datagrams() as free:
        port = address_of(free)[1]
    with serving(udp=UdpSettings(shared_port=port)) as server:
        with Association(server.address) as first, greet5(server.address) as second:
            clock.advance(server, 6)
            second.sendall(request5(3, "0.0.0.0", 0))
            until(lambda: waiting(server, second), "the request")
            clock.advance(server, 3.9)
            assert is_quiet(second)
            clock.advance(server, 0.2)  # more than 10 s after accept
            assert read_reply5(second)[0] == 1
            assert read_all(second) == b""
            line = server.line(why="limit:handshake")
            assert line["reply"] == 1
            first.talk(there)  # the first is none the worse for it
            with Association(server.address) as third:
                third.talk(there)


def test_a_shared_port_that_is_taken_is_answered_by_1() -> None:
    with datagrams() as taken, serving(udp=UdpSettings(shared_port=address_of(taken)[1])) as server:
        assert refused(server.address) == 1
        assert server.only_line()["why"] == "failed"


def test_datagrams_without_an_association_are_counted_and_told_of_once_in_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HeldClock(monkeypatch)
    with (
        one_port() as server,
        Association(server.address) as association,
        datagrams(host=OTHER) as scan,
    ):
        (port,) = server.server._shared_ports.values()
        for _ in range(2):
            scan.sendto(b"scan", association.relay)
        until(lambda: port._strangers == 2, "both to be counted")
        clock.advance(server, 59)
        assert caplog.messages == []
        clock.advance(server, 1)
        until(lambda: caplog.messages, "the account")
        assert caplog.messages[0] == (
            f"2 datagrams at the shared UDP port {port.bound} were dropped: their source has no association"
            f" (the last: {OTHER}:{address_of(scan)[1]})"
        )
        scan.sendto(b"scan", association.relay)
        until(lambda: port._strangers == 1, "the next to be counted")
    assert [message.partition(" ")[0] for message in caplog.messages] == ["2", "1"]
