"""The client library through servers that others wrote: microsocks, Dante, ssh -D and tinyproxy, on loopback."""

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from helpers.fronts import FRONTS, Front
from helpers.proxies import dante, microsocks, ssh, tinyproxy
from helpers.targets import banner, closed_port, datagram_echo, echo, target
from helpers.waiting import PATIENCE
from tabi import rcalls
from tabi.errors import DeniedError, ProxyAuthError, ProxyProtocolError, RefusedError, Reply

LOGIN = "alice:ses%40me"
Serve = Callable[..., AbstractContextManager[str]]

@pytest.fixture(params=FRONTS)
def front(request: pytest.FixtureRequest) -> Iterator[Front]:
    front = FRONTS[request.param]()
    try:
        yield front
    finally:
        front.close()


@pytest.mark.parametrize(
    ("serve", "scheme"),
    [(dante, "socks5h"), (microsocks, "socks5h"), (ssh, "socks5h"), (ssh, "socks4a"), (tinyproxy, "http")],
)
@pytest.mark.parametrize("handler", [echo, banner(b"220 hello\r\n")], ids=["echo", "banner"])
def test_connections_go_through(front: Front, serve: Serve, scheme: str, handler, tmp_path: Path) -> None:
    with serve(tmp_path) as where, target(handler) as address:
        stream = front.connect(address, proxy=f"{scheme}://{where}")
        if handler is echo:
            stream.send(b"220 hello\r\n")
        assert stream.read(11) == b"220 hello\r\n"
        stream.close()


def test_dante_speaks_socks4(front: Front, tmp_path: Path) -> None:
    with dante(tmp_path) as where, target() as address:
        stream = front.connect(address, proxy=f"socks4://bob@{where}")
        stream.send(b"ping")
        assert stream.read(4) == b"ping"
        stream.close()


@pytest.mark.parametrize("serve", [dante, microsocks])
def test_a_target_that_refuses_is_told_apart(front: Front, serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path) as where, pytest.raises(RefusedError) as caught:
        front.connect(("127.0.0.1", closed_port()), proxy=f"socks5h://{where}")
    assert caught.value.reply is Reply.CONNECTION_REFUSED


def test_rules_of_dante_are_told_apart(front: Front, tmp_path: Path) -> None:
    with dante(tmp_path) as where, pytest.raises(DeniedError):
        front.connect(("127.0.0.3", 9), proxy=f"socks5h://{where}")


def test_microsocks_takes_the_right_password_only(front: Front, tmp_path: Path) -> None:
    with microsocks(tmp_path, "-u", "alice", "-P", "ses@me") as where, target() as address:
        front.connect(address, proxy=f"socks5h://{LOGIN}@{where}").close()
        for wrong in ("alice:barley@", ""):
            with pytest.raises(ProxyAuthError):
                front.connect(address, proxy=f"socks5h://{wrong}{where}")


def test_what_microsocks_cannot_do_is_told(front: Front, tmp_path: Path) -> None:
    with microsocks(tmp_path) as where:
        for ask in (lambda: front.bind(("127.0.0.1", 0), proxy=f"socks5h://{where}"),
                    lambda: front.associate(proxy=f"socks5h://{where}")):  # fmt: skip
            with pytest.raises(OSError) as caught:
                ask()
            assert caught.value.reply is Reply.COMMAND_NOT_SUPPORTED
            assert not caught.value.retryable


@pytest.mark.parametrize("scheme", ["socks4", "socks5h"])
def test_dante_listens_for_us(front: Front, scheme: str, tmp_path: Path) -> None:
    with dante(tmp_path) as where:
        waiting = front.bind(("127.0.0.1", 0), proxy=f"{scheme}://{where}")
        with socket.create_connection(waiting.address, PATIENCE) as theirs:
            theirs.sendall(b"220 hello")
            stream, address = waiting.accept()
            assert address == theirs.getsockname()
            assert stream.read(9) == b"220 hello"
            stream.close()


@pytest.mark.parametrize("scheme", ["socks4", "socks5h"])
def test_the_r_calls_go_through_dante(scheme: str, tmp_path: Path) -> None:
    with dante(tmp_path) as where, target() as address, socket.socket() as control, socket.socket() as data:
        rcalls.Rinit(f"{scheme}://{where}")
        try:
            rcalls.Rconnect(control, address)
            rcalls.Rbind(data, ("", 0))
            with socket.create_connection(rcalls.Rgetsockname(data), PATIENCE) as theirs:
                sock, peer = rcalls.Raccept(data)
                with sock:
                    assert peer == theirs.getsockname()
        finally:
            rcalls.Rinit()


def test_datagrams_go_through_dante(front: Front, tmp_path: Path) -> None:
    with dante(tmp_path) as where, datagram_echo() as there:
        sock = front.associate(proxy=f"socks5h://{where}")
        for data in (b"ping", b"x" * 60_000):
            sock.sendto(data, there)
            assert sock.recvfrom() == (data, there)
        sock.close()


def test_chains_go_through_three_kinds(front: Front, tmp_path: Path) -> None:
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    for directory in (one, two, three):
        directory.mkdir()
    with dante(one) as first, microsocks(two) as second, tinyproxy(three) as third, target() as address:
        chain = [f"socks4://{first}", f"http://{third}", f"socks5h://{second}", f"socks5h://{first}"]
        stream = front.connect(address, proxy=chain)
        stream.send(b"ping")
        assert stream.read(4) == b"ping"
        stream.close()


def test_what_is_no_proxy_at_all_is_told(front: Front) -> None:
    with target(banner(b"SSH-2.0-OpenSSH_9.2\r\n")) as (host, port):
        for scheme in ("socks5h", "socks4a", "http"):
            with pytest.raises(ProxyProtocolError):
                front.connect(("127.0.0.1", 9), proxy=f"{scheme}://{host}:{port}")
