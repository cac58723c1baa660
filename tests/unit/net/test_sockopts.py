"""Socket options are really set, and accepted sockets have them from their listener."""

import errno
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tabi.net.sockopts import prepare_listener, prepare_outbound, raise_descriptor_limit, refuse_newcomers

EXPECTED = {
    (socket.IPPROTO_TCP, socket.TCP_NODELAY): 1,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 60,
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 10,
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): 5,
    (socket.SOL_SOCKET, socket.SO_OOBINLINE): 1,
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT): 0,  # would kill a peer whose window stays closed
}


def options(sock: socket.socket) -> dict[tuple[int, int], int]:
    return {key: sock.getsockopt(*key) for key in EXPECTED}


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_an_accepted_socket_inherits_all_options_of_the_listener(family: int, host: str) -> None:
    with socket.socket(family) as listener, socket.socket(family) as client:
        prepare_listener(listener)
        listener.bind((host, 0))
        listener.listen()
        client.connect(listener.getsockname()[:2])
        accepted, _ = listener.accept()
        with accepted:
            assert options(accepted) == EXPECTED


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_an_outbound_socket_has_the_same_options(family: int) -> None:
    with socket.socket(family) as sock:
        prepare_outbound(sock)
        assert options(sock) == EXPECTED


def test_a_dead_idle_peer_is_found_within_two_minutes() -> None:
    with socket.socket() as sock:
        prepare_outbound(sock)
        found = options(sock)
    idle, interval, count = (
        found[socket.IPPROTO_TCP, option]
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    )
    assert idle + interval * count <= 120


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_descriptor_limit_is_raised_to_the_hard_one(limits: tuple[int, int]) -> None:
    _, hard = limits
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    got = raise_descriptor_limit()
    wanted = hard if hard != resource.RLIM_INFINITY else int(Path("/proc/sys/fs/nr_open").read_text())
    assert got == wanted
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, hard)
    assert raise_descriptor_limit() == wanted


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_listener_that_refuses_newcomers_keeps_who_is_there_and_leaves_the_rest_to_the_next(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family, reuse_port=True) as old:
        address = old.getsockname()[:2]
        with socket.create_connection(address, 20) as queued, socket.socket(family) as late:
            refuse_newcomers(old)
            late.setblocking(False)
            assert late.connect_ex(address) == errno.EINPROGRESS
            accepted, _ = old.accept()
            with accepted:
                queued.sendall(b"still here")
                assert accepted.recv(100) == b"still here"
            old.setblocking(False)
            with pytest.raises(BlockingIOError):
                old.accept()
            with socket.create_server(address, family=family, reuse_port=True) as new:
                old.close()
                new.settimeout(20)  # the SYN comes again within a second or so
                accepted, peer = new.accept()
                accepted.close()
                assert peer[:2] == late.getsockname()[:2]
