"""The R calls on real sockets, through tabi and through proxies that misbehave."""

import errno
import os
import pwd
import select
import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from helpers.name_service import NameService
from helpers.serving import Running, allow_all, serving
from helpers.socks import heard_before_the_end, read_exactly
from helpers.targets import banner, closed_port, echo, target
from helpers.waiting import PATIENCE, until
from tabi import rcalls
from tabi.addr import Address, Endpoint, Name
from tabi.dial.wishes import Family
from tabi.errors import (
    DeniedError,
    DialTimeoutError,
    ProxyProtocolError,
    ProxyUnreachableError,
    RefusedError,
    UsageError,
)
from tabi.policy.verdict import Context, Request, Verdict
from tabi.rcalls import Raccept, Rbind, Rconnect, Rgetpeername, Rgetsockname, Rinit, Rlisten, Rselect
from tabi.testing import EvilPeer
from tabi.testing.evil import close_at
from tabi.testing.parts import socks5_server

VARIABLES = ("SOCKS5_SERVER", "SOCKS4_SERVER", "SOCKS_SERVER", "SOCKS_VERSION", "SOCKS5_USER", "SOCKS5_PASSWD")
SCHEMES = ["socks4", "socks4a", "socks5", "socks5h"]


@pytest.fixture(autouse=True)
def environment(nothing_left: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Know no proxy but what the test says; afterwards nothing is chosen."""
    for name in (*VARIABLES, "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield monkeypatch
    Rinit()


@pytest.fixture
def server() -> Iterator[Running]:
    with serving(policy=allow_all) as running:
        NameService({"v4.example": ["127.0.0.1"]}).serve(running)
        yield running


def url(scheme: str, running: Running) -> str:
    return f"{scheme}://127.0.0.1:{running.address[1]}"


def tcp(timeout: float | None = PATIENCE) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(timeout)
    return sock


# connect


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_callers_own_socket_is_connected(server: Running, scheme: str) -> None:
    Rinit(url(scheme, server))
    with target(banner(b"220 hello")) as address, tcp(None) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        number = sock.fileno()
        Rconnect(sock, address)
        assert sock.fileno() == number
        assert os.get_blocking(number)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getpeername() == server.address
        assert Rgetpeername(sock) == address
        assert sock.makefile("rb").read() == b"220 hello"
        with pytest.raises(OSError) as caught:
            Rconnect(sock, address)
        assert caught.value.errno == errno.EISCONN
    server.line(command="connect", socks=scheme[5])


def test_the_end_at_the_proxy_is_told(server: Running) -> None:
    Rinit(url("socks5h", server))
    with socket.create_server(("127.0.0.1", 0)) as listener, tcp() as sock:
        Rconnect(sock, listener.getsockname())
        theirs, address = listener.accept()
        with theirs:
            assert Rgetsockname(sock) == address


def test_names_go_to_the_proxy_or_are_resolved_here(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def addresses_of(name: Name, family: Family) -> tuple[Address, ...]:
        assert name.text == "local.example"
        return (ip_address("127.0.0.1"),) if family == 4 else ()

    monkeypatch.setattr("tabi.client.blocking.addresses_of", addresses_of)
    with target() as (_, port):
        for scheme, name in (("socks5h", "v4.example"), ("socks4", "local.example"), ("socks5", "local.example")):
            Rinit(url(scheme, server))
            with tcp() as sock:
                Rconnect(sock, (name, port))
                assert Rgetpeername(sock) == (name, port)
                sock.sendall(b"ping")
                assert sock.recv(4) == b"ping"


def test_a_proxy_with_a_name_is_reached_at_its_second_address(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the one socket that there is: nobody listens at the first."""

    def addresses_of(_name: Name, family: Family) -> tuple[Address, ...]:
        return (ip_address("127.0.0.2"), ip_address("127.0.0.1")) if family == 4 else ()

    monkeypatch.setattr("tabi.client.blocking.addresses_of", addresses_of)
    with target() as address, tcp() as sock:
        Rinit(f"socks5h://proxy.example:{server.address[1]}")
        Rconnect(sock, address)
        assert sock.getpeername() == server.address


@pytest.mark.parametrize(
    ("variable", "login"), [("SOCKS4_SERVER", pwd.getpwuid(os.geteuid()).pw_name), ("SOCKS5_SERVER", None)]
)
def test_the_environment_names_the_proxy(
    server: Running, environment: pytest.MonkeyPatch, variable: str, login: str | None
) -> None:
    environment.setenv(variable, f"127.0.0.1:{server.address[1]}")
    with target() as address, tcp() as sock:
        Rconnect(sock, address)
        assert sock.getpeername() == server.address
    line = server.line(command="connect")
    assert line.get("userid") == login


def test_without_a_proxy_all_calls_are_the_plain_ones(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("all_proxy", f"socks5h://127.0.0.1:{closed_port()}")
    environment.setenv("no_proxy", "127.0.0.0/8")
    with tcp() as listener, tcp() as sock:
        Rbind(listener, ("127.0.0.1", 0), "127.0.0.1")
        Rlisten(listener)
        Rconnect(sock, Rgetsockname(listener))
        theirs, address = Raccept(listener)
        with theirs:
            assert address == Rgetsockname(sock) == Rgetpeername(theirs)
            assert Rselect([theirs], [theirs], [], 0) == ([], [theirs], [])


# who says no


def test_what_a_proxy_refuses_is_told_apart(server: Running) -> None:
    def refuse(_request: Request, _context: Context) -> Verdict:
        return Verdict(allow=False, rule="nobody")

    with serving(policy=refuse) as strict:
        for running, error in ((server, RefusedError), (strict, DeniedError)):
            Rinit(url("socks5h", running))
            with tcp() as sock, pytest.raises(error):
                Rconnect(sock, ("127.0.0.1", closed_port()))
    Rinit(f"socks5h://127.0.0.1:{closed_port()}")
    with tcp() as sock, pytest.raises(ProxyUnreachableError):
        Rconnect(sock, ("127.0.0.1", 9))


def test_the_time_limit_is_the_sockets(listener: socket.socket) -> None:
    Rinit(f"socks5h://127.0.0.1:{listener.getsockname()[1]}")
    with tcp(0.05) as sock:
        with pytest.raises(DialTimeoutError) as caught:
            Rconnect(sock, ("127.0.0.1", 9))
        assert caught.value.limit == "connect"
        assert sock.gettimeout() == 0.05


def test_a_proxy_that_closes_early_is_told() -> None:
    with EvilPeer(socks5_server(Endpoint.parse("127.0.0.1:9")), close_at(2)).listening() as where, tcp() as sock:
        Rinit(f"socks5h://{where}")
        with pytest.raises(ProxyProtocolError):
            Rconnect(sock, ("127.0.0.1", 9))


@pytest.mark.parametrize("address", [("a\r\nb", 80), ("a.example", 65536), ("::1", 80)])
def test_what_cannot_be_said_is_the_callers_mistake(address: tuple[str, int]) -> None:
    Rinit("socks4a://127.0.0.1:1")
    with tcp() as sock, pytest.raises(UsageError):
        Rconnect(sock, address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(UsageError, match="associate"):
        Rconnect(sock, ("127.0.0.1", 9))


def test_a_proxy_of_another_family_cannot_be_reached_by_the_socket() -> None:
    Rinit("socks5h://[::1]:1080")
    with tcp() as sock, pytest.raises(ProxyUnreachableError):
        Rconnect(sock, ("127.0.0.1", 9))


# sockets that do not block


class Gate:
    """A SOCKS5 proxy that says nothing before it is told to, then gives one reply and echoes."""

    def __init__(self, reply: int) -> None:
        self.opened = threading.Event()
        self._reply = reply

    def __call__(self, sock: socket.socket) -> None:
        assert read_exactly(sock, 3) == b"\x05\x01\x00"  # RFC 1928 section 3
        self.opened.wait(PATIENCE)
        sock.sendall(b"\x05\x00")
        read_exactly(sock, 10)
        sock.sendall(bytes((5, self._reply)) + b"\x00\x01\x7f\x00\x00\x01\x00\x09")  # section 6
        echo(sock)


def begin(sock: socket.socket, proxy: tuple[str, int]) -> None:
    Rinit(f"socks5h://127.0.0.1:{proxy[1]}")
    with pytest.raises(BlockingIOError) as begun:
        Rconnect(sock, ("127.0.0.1", 80))
    assert begun.value.errno == errno.EINPROGRESS


def test_select_carries_on_with_what_is_under_way() -> None:
    gate = Gate(0)
    with target(gate) as proxy, tcp(0) as sock:
        begin(sock, proxy)
        with pytest.raises(OSError) as early:
            Rgetpeername(sock)
        assert early.value.errno == errno.ENOTCONN
        assert Rselect([sock], [sock], [], 0) == ([], [], [])
        gate.opened.set()
        assert Rselect([], [sock], [], PATIENCE) == ([], [sock], [])
        with pytest.raises(OSError) as done:
            Rconnect(sock, ("127.0.0.1", 80))
        assert done.value.errno == errno.EISCONN
        assert Rgetpeername(sock) == ("127.0.0.1", 80)
        assert Rgetsockname(sock) == ("127.0.0.1", 9)
        assert sock.gettimeout() == 0
        sock.sendall(b"ping")
        assert Rselect([sock], [], [], PATIENCE) == ([sock], [], [])
        assert sock.recv(4) == b"ping"


def test_calling_again_carries_on_as_well() -> None:
    gate = Gate(0)
    codes: list[int | None] = []
    with target(gate) as proxy, tcp(0) as sock:
        begin(sock, proxy)

        def call() -> bool:
            with pytest.raises(OSError) as caught:
                Rconnect(sock, ("127.0.0.1", 80))
            codes.append(caught.value.errno)
            return codes[-1] == errno.EISCONN

        assert not call()
        gate.opened.set()
        until(call, "the connection")
    assert set(codes[:-1]) == {errno.EALREADY}


def test_a_failure_is_ready_and_the_next_call_tells_it() -> None:
    gate = Gate(5)
    with target(gate) as proxy, tcp(0) as sock:
        begin(sock, proxy)
        gate.opened.set()
        assert Rselect([sock], [sock], [], PATIENCE) == ([sock], [sock], [])
        with pytest.raises(RefusedError):
            Rconnect(sock, ("127.0.0.1", 9))


def test_select_waits_no_longer_than_it_is_told(listener: socket.socket) -> None:
    """For a proxy that accepts and says nothing."""
    Rinit(f"socks5h://127.0.0.1:{listener.getsockname()[1]}")
    with tcp(0) as sock, tcp(0) as other:
        for one in (sock, other):
            with pytest.raises(BlockingIOError):
                Rconnect(one, ("127.0.0.1", 9))
        assert Rselect([sock], [sock, other], [], 0.01) == ([], [], [])


def test_what_is_given_up_is_closed_at_the_proxy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        Rinit(f"socks5h://127.0.0.1:{silent.getsockname()[1]}")
        sock = tcp(0)
        with pytest.raises(BlockingIOError):
            Rconnect(sock, ("127.0.0.1", 9))
        theirs, _ = silent.accept()
        with theirs:
            theirs.settimeout(PATIENCE)
            assert Rselect([], [sock], [], 0) == ([], [], [])
            sock.close()
            del sock
            assert heard_before_the_end(theirs) in (b"", b"\x05\x01\x00")  # a greeting perhaps


# bind


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_peer_comes_through_the_proxy(server: Running, scheme: str) -> None:
    Rinit(url(scheme, server))
    with tcp(None) as listener:
        Rbind(listener, ("", 0), "127.0.0.1")
        Rlisten(listener)
        where = Rgetsockname(listener)
        assert where != listener.getsockname()
        with socket.create_connection(where, PATIENCE) as theirs:
            theirs.sendall(b"220 hello")
            sock, peer = Raccept(listener)
            with sock:
                assert peer == theirs.getsockname() == Rgetpeername(sock)
                assert Rgetsockname(sock) == where
                assert os.get_blocking(sock.fileno())
                listener.close()
                assert sock.recv(9) == b"220 hello"
    server.line(command="bind")


def test_the_host_that_was_connected_to_last_is_expected(server: Running) -> None:
    """As SOCKS 4.2 has it; active FTP."""
    Rinit(url("socks4", server))
    with target() as address, tcp() as control, tcp() as data:
        Rconnect(control, address)
        Rbind(data, ("", 0))
        with socket.create_connection(Rgetsockname(data), PATIENCE) as theirs:
            sock, peer = Raccept(data)
            with sock:
                assert peer == theirs.getsockname()
    assert server.line(command="bind")["target"].startswith(address[0])


def test_nobody_else_is_let_in(server: Running) -> None:
    Rinit(url("socks5h", server))
    with tcp() as listener, socket.socket() as stranger:
        Rbind(listener, ("", 0), "127.0.0.2")
        stranger.setblocking(False)
        stranger.connect_ex(Rgetsockname(listener))
        with pytest.raises(DeniedError):
            Raccept(listener)


def test_waiting_for_a_peer_ends_at_the_sockets_limit(server: Running) -> None:
    Rinit(url("socks5h", server))
    with tcp() as listener:
        Rbind(listener, ("", 0), "127.0.0.1")
        listener.settimeout(0.05)
        with pytest.raises(DialTimeoutError):
            Raccept(listener)
    assert server.line(command="bind")["by"] == "client"


def test_a_listener_that_does_not_block_says_that_nobody_has_come(server: Running) -> None:
    Rinit(url("socks5h", server))
    with tcp() as listener:
        Rbind(listener, ("", 0), "127.0.0.1")
        listener.setblocking(False)
        with pytest.raises(BlockingIOError) as caught:
            Raccept(listener)
        assert caught.value.errno == errno.EAGAIN
        assert Rselect([listener], [], [], 0) == ([], [], [])
        with socket.create_connection(Rgetsockname(listener), PATIENCE) as theirs:
            assert Rselect([listener], [], [], PATIENCE) == ([listener], [], [])
            sock, peer = Raccept(listener)
            with sock:
                assert peer == theirs.getsockname()
                assert sock.gettimeout() == 0
            with pytest.raises(UsageError, match="one connection"):
                Raccept(listener)


def test_a_listener_that_is_closed_is_closed_at_the_proxy(server: Running) -> None:
    Rinit(url("socks4", server))
    with tcp() as listener:
        Rbind(listener, ("", 0), "127.0.0.1")
    assert server.line(command="bind")["by"] == "client"


def test_nobody_is_expected_before_anybody_was_connected_to(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tabi.client.rcalls._last.target", None)
    Rinit(url("socks5h", server))
    with tcp() as listener, pytest.raises(UsageError, match="whom to expect"):
        Rbind(listener, ("", 0))


def test_all_that_is_public_is_documented() -> None:
    for name in rcalls.__all__:
        assert getattr(rcalls, name).__doc__, name
    assert select.select.__name__ == "select"  # and nothing was replaced
