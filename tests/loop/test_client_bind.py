"""BIND by the client library, blocking and on asyncio alike: a proxy that listens for us."""

import asyncio
import os
import select
import socket
from collections.abc import Iterator

import pytest

from helpers.fronts import Front
from helpers.serving import Running, allow_all, serving
from helpers.waiting import PATIENCE
from tabi import aio, sync
from tabi.addr import Endpoint
from tabi.errors import DeniedError, DialTimeoutError, ProxyProtocolError, Stage, UsageError
from tabi.testing import EvilPeer
from tabi.testing.evil import close_at
from tabi.testing.parts import socks5_server

LOCAL = ("127.0.0.1", 0)


@pytest.fixture
def server() -> Iterator[Running]:
    """Run tabi, which lets anybody be waited for."""
    with serving(policy=allow_all) as running:
        yield running


def proxy(running: Running, scheme: str = "socks5h", listener: int = 0) -> str:
    return f"{scheme}://{running.addresses[listener]}"


@pytest.mark.parametrize(
    ("scheme", "listener", "peer"),
    [
        ("socks5h", 0, LOCAL),
        ("socks5h", 1, ("::1", 0)),
        ("socks5h", 0, None),
        ("socks4", 0, LOCAL),
        ("socks4a", 0, None),
    ],
)
def test_a_peer_that_is_expected_comes_through(
    front: Front, server: Running, scheme: str, listener: int, peer: tuple[str, int] | None
) -> None:
    waiting = front.bind(peer, proxy=proxy(server, scheme, listener))
    with socket.create_connection(waiting.address, PATIENCE) as theirs:
        theirs.sendall(b"220 hello")  # in the socket before the second reply is read
        stream, address = waiting.accept()
        assert address == theirs.getsockname()[:2]
        assert stream.read(9) == b"220 hello"
        stream.send(b"bye")
        stream.end()
        assert theirs.recv(9) == b"bye"
        assert theirs.recv(9) == b""
        stream.close()


def test_the_last_proxy_of_a_chain_listens(front: Front, server: Running) -> None:
    with serving(policy=allow_all) as second:
        waiting = front.bind(LOCAL, proxy=[proxy(server), proxy(second)])
        with socket.create_connection(waiting.address, PATIENCE) as theirs:
            stream, address = waiting.accept()
            assert address == theirs.getsockname()
            stream.close()
        assert second.line(command="bind")
    assert server.line(command="connect")


def test_nobody_else_is_let_in(front: Front, server: Running) -> None:
    waiting = front.bind(("127.0.0.2", 0), proxy=proxy(server))
    with socket.socket() as stranger:
        stranger.setblocking(False)
        stranger.connect_ex(waiting.address)  # and is reset, perhaps before it knows that it was connected
        with pytest.raises(DeniedError) as caught:
            waiting.accept()
    assert caught.value.hop is not None
    assert caught.value.stage is Stage.REQUEST


def test_waiting_ends_at_the_time_limit(front: Front, server: Running) -> None:
    waiting = front.bind(LOCAL, proxy=proxy(server))
    with pytest.raises(DialTimeoutError) as caught:
        waiting.accept(0.1)
    assert caught.value.limit == "connect"
    with pytest.raises(UsageError, match="one connection"):
        waiting.accept()


def test_the_proxys_time_limit_is_told_as_its_word(front: Front) -> None:
    from tabi.config.settings import TimeLimits

    with serving(policy=allow_all, time=TimeLimits(bind=0.1)) as running:
        waiting = front.bind(LOCAL, proxy=proxy(running))
        with pytest.raises(DialTimeoutError, match="proxy answered 6") as caught:
            waiting.accept()
    assert caught.value.limit == ""


def test_a_proxy_that_goes_away_is_told(front: Front) -> None:
    with EvilPeer(socks5_server(Endpoint.parse("127.0.0.1:9")), close_at(12)).listening() as where:
        waiting = front.bind(LOCAL, proxy=f"socks5h://{where}")
        assert waiting.address == ("127.0.0.1", 9)
        with pytest.raises(ProxyProtocolError):
            waiting.accept()


def test_a_listener_that_is_given_up_is_closed_at_the_proxy(front: Front, server: Running) -> None:
    waiting = front.bind(LOCAL, proxy=proxy(server))
    waiting.close()
    waiting.close()
    assert server.line(command="bind")["by"] == "client"
    with pytest.raises(UsageError):
        waiting.accept()


@pytest.mark.parametrize("given", [None, "http://127.0.0.1:1", []])
def test_a_listener_needs_a_proxy_that_can(front: Front, given: object) -> None:
    with pytest.raises(UsageError):
        front.bind(LOCAL, proxy=given)


def test_a_blocking_listener_can_be_waited_for_by_select(nothing_left: None, server: Running) -> None:
    with sync.bind(LOCAL, proxy=proxy(server)) as listener:
        assert select.select([listener], [], [], 0) == ([], [], [])
        with socket.create_connection(listener.address, PATIENCE):
            assert select.select([listener], [], [], PATIENCE)[0] == [listener]
            sock, _ = listener.accept(PATIENCE)
            with sock:
                assert sock.gettimeout() == PATIENCE
                assert listener.fileno() == -1
        assert "closed" in repr(listener)


def test_a_blocking_peer_comes_as_a_socket_that_blocks(nothing_left: None, server: Running) -> None:
    with sync.bind(LOCAL, proxy=proxy(server)) as listener, socket.create_connection(listener.address, PATIENCE):
        sock, _ = listener.accept()
        with sock:
            assert os.get_blocking(sock.fileno())


def test_an_asynchronous_listener_is_closed_by_its_block_and_by_cancellation(
    nothing_left: None, server: Running
) -> None:
    async def main() -> None:
        async with await aio.bind(LOCAL, proxy=proxy(server)) as listener:
            assert str(listener.address[1]) in repr(listener)
        assert "closed" in repr(listener)
        listener = await aio.bind(LOCAL, proxy=proxy(server))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await listener.accept()

    asyncio.run(main())
    server.idle()
