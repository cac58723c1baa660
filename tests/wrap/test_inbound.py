"""What the program listens on, reached by BIND; the test plays the proxy, and whoever comes through it."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from helpers.gates import Lab, Running, gating
from helpers.socks import LINGER_ZERO, address5, read_exactly
from helpers.waiting import PATIENCE, until
from tabi.addr import Endpoint
from tabi.errors import DialError, Reply, TabiError
from tabi.machine.url import parse_proxies
from tabi.wrap.inbound import Inbound

PORT = 5000


class Heard:
    """What an inbound port has told."""

    def __init__(self) -> None:
        self.places: list[str] = []
        self.entries: list[tuple[str, int | None]] = []
        self.losses: list[TabiError] = []

    def listening(self, _port: int, address: Endpoint) -> None:
        self.places.append(str(address))

    def entered(self, _port: int, peer: Endpoint, error: OSError | None) -> None:
        self.entries.append((str(peer), error and error.errno))

    def lost(self, _port: int, error: TabiError) -> None:
        self.losses.append(error)


@contextmanager
def proxy_socket() -> Iterator[socket.socket]:
    """Listen as a proxy does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        yield listener


def hear_bind(listener: socket.socket) -> socket.socket:
    """Accept, and read greeting and request: BIND for anybody."""
    sock, _ = listener.accept()
    sock.settimeout(PATIENCE)
    assert read_exactly(sock, 3) == b"\x05\x01\x00"
    sock.sendall(b"\x05\x00")
    assert read_exactly(sock, 10) == b"\x05\x02\x00\x01" + bytes(6)
    return sock


def reply(code: int, host: str, port: int) -> bytes:
    """RFC 1928 section 6."""
    return bytes((5, code, 0)) + address5(host) + port.to_bytes(2, "big")


def serve_bind(listener: socket.socket, port: int) -> socket.socket:
    """Say that we listen."""
    sock = hear_bind(listener)
    sock.sendall(reply(0, "203.0.113.1", port))
    return sock


@contextmanager
def opened(lab: Lab, running: Running, listener: socket.socket) -> Iterator[tuple[Heard, socket.socket]]:
    """Have the program's port reachable; gives the connection of the first BIND."""
    heard = Heard()
    proxies = parse_proxies(f"socks5h://127.0.0.1:{listener.getsockname()[1]}")

    async def make() -> Inbound:
        return Inbound(proxies, PORT, transparent=lab.transparent, adopt=running.gate.adopt, watcher=heard)

    inbound = running.call(make)
    entering = asyncio.run_coroutine_threadsafe(inbound.__aenter__(), running.loop)
    with serve_bind(listener, 4000) as first:
        entering.result(PATIENCE)
        try:
            yield heard, first
        finally:
            running.call(lambda: inbound.__aexit__(None, None, None))


@contextmanager
def program_listening(lab: Lab, host: str) -> Iterator[socket.socket]:
    """Have the program listen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with lab.program.call(socket.create_server, (host, PORT), family=family) as listener:
        listener.settimeout(PATIENCE)
        yield listener


@pytest.mark.parametrize(("host", "peer"), [("0.0.0.0", "203.0.113.50"), ("::", "2001:db8::50")])
def test_a_peer_reaches_the_program_which_sees_who_has_come(lab: Lab, host: str, peer: str) -> None:
    with gating(lab) as running, proxy_socket() as listener, program_listening(lab, host) as program:
        with opened(lab, running, listener) as (heard, first):
            assert heard.places == ["203.0.113.1:4000"]
            first.sendall(reply(0, peer, 7777) + b"hello")
            sock, address = program.accept()
            with sock:
                sock.settimeout(PATIENCE)
                assert address[:2] == sock.getpeername()[:2] == (peer, 7777)
                assert read_exactly(sock, 5) == b"hello"
                sock.sendall(b"and you?")
                assert read_exactly(first, 8) == b"and you?"
            assert first.recv(1) == b""
            with serve_bind(listener, 4001):
                until(lambda: len(heard.places) == 2, "the proxy to listen again")
            until(lambda: heard.entries, "it to be told")
            assert heard.entries == [(str(Endpoint.parse(f"[{peer}]:7777" if ":" in peer else f"{peer}:7777")), None)]


def test_a_peer_on_the_proxys_own_loopback_comes_from_the_gate(lab: Lab) -> None:
    """No packet may come from 127.0.0.1."""
    with gating(lab) as running, proxy_socket() as listener, program_listening(lab, "0.0.0.0") as program:
        with opened(lab, running, listener) as (_, first):
            first.sendall(reply(0, "127.0.0.1", 7777))
            sock, address = program.accept()
            with sock:
                assert address[0] == "198.18.0.1"


def test_a_peer_is_reset_where_the_program_does_not_listen(lab: Lab) -> None:
    with gating(lab) as running, proxy_socket() as listener, opened(lab, running, listener) as (heard, first):
        first.sendall(reply(0, "203.0.113.50", 7777))
        with pytest.raises(ConnectionResetError):
            first.recv(1)
        until(lambda: heard.entries, "it to be told")
        assert heard.entries == [("203.0.113.50:7777", 111)]


def test_a_proxy_that_does_not_bind_says_so_at_once(lab: Lab) -> None:
    with gating(lab) as running, proxy_socket() as listener:
        proxies = parse_proxies(f"socks5h://127.0.0.1:{listener.getsockname()[1]}")

        async def enter() -> None:
            async with Inbound(
                proxies, PORT, transparent=lab.transparent, adopt=running.gate.adopt, watcher=Heard()
            ):
                raise AssertionError("it has opened")

        entering = asyncio.run_coroutine_threadsafe(enter(), running.loop)
        with hear_bind(listener) as sock:
            sock.sendall(reply(7, "0.0.0.0", 0))
            with pytest.raises(DialError) as caught:
                entering.result(PATIENCE)
        assert caught.value.reply is Reply.COMMAND_NOT_SUPPORTED


def test_a_proxy_that_breaks_off_is_asked_again(lab: Lab) -> None:
    with gating(lab) as running, proxy_socket() as listener, opened(lab, running, listener) as (heard, first):
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        first.close()
        with serve_bind(listener, 4001):
            until(lambda: len(heard.places) == 2, "the proxy to listen again")
            assert len(heard.losses) == 1, "the second one has not broken off"


def test_the_proxy_listens_no_more_when_it_is_over(lab: Lab) -> None:
    with gating(lab) as running, proxy_socket() as listener:
        with opened(lab, running, listener) as (_, first):
            theirs = first.dup()
        with theirs:
            theirs.settimeout(PATIENCE)
            with pytest.raises(ConnectionResetError):
                theirs.recv(1)
