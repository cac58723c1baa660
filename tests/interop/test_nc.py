"""OpenBSD's nc: a bare pipe through the proxy, and with -N the classic half-close."""

import socket
import subprocess

import pytest

from helpers.members import Members
from helpers.programs import need, run
from helpers.serving import Running, serving
from helpers.socks import read_all
from helpers.targets import banner, closed_port, echo, target
from helpers.web import noise

VERSIONS = ["4", "5"]


def nc(
    version: str, server: Running | Members, *arguments: str | int, sends: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    own = ("-X", version, "-x", str(server.addresses[0]))
    return run(need("nc.openbsd"), *own, *map(str, arguments), sends=sends)


def answer_after_the_end(sock: socket.socket) -> None:
    """Say nothing before the client has said that it is done."""
    request = read_all(sock)
    sock.sendall(b"%d bytes came, and then the end" % len(request))


@pytest.mark.parametrize("version", VERSIONS)
def test_late_answer_arrives_after_the_client_has_closed_its_direction(version: str) -> None:
    with target(answer_after_the_end) as place, serving() as server:
        done = nc(version, server, "-N", *place, sends=b"request\n")
        assert (done.returncode, done.stdout) == (0, b"8 bytes came, and then the end"), done.stderr
        server.line(socks=version, to=f"127.0.0.1:{place[1]}", up=8, down=30, why="fin")


@pytest.mark.parametrize("version", VERSIONS)
def test_megabytes_come_back_after_the_half_close(version: str) -> None:
    def hold_back(sock: socket.socket) -> None:
        sock.sendall(read_all(sock))

    data = noise(5_000_000)
    with target(hold_back) as place, serving() as server:
        done = nc(version, server, "-N", *place, sends=data)
        assert done.stdout == data, done.stderr
        server.line(up=len(data), down=len(data))


def test_both_directions_at_full_speed() -> None:
    data = noise(5_000_000)
    with target(echo) as place, serving() as server:
        done = nc("5", server, "-N", *place, sends=data)
        assert done.stdout == data, done.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_target_that_speaks_first_and_ends(version: str) -> None:
    with target(banner(b"220 ready\r\n")) as place, serving() as server:
        done = nc(version, server, "-N", *place)
        assert (done.returncode, done.stdout) == (0, b"220 ready\r\n"), done.stderr
        server.line(up=0, down=11)


def test_name_is_looked_up_by_the_proxy() -> None:
    with target(banner(b"hello")) as (_, port), serving() as server:
        done = nc("5", server, "-N", "localhost", port)
        assert (done.returncode, done.stdout) == (0, b"hello"), done.stderr
        server.line(target=f"localhost:{port}")


def test_target_on_ipv6() -> None:
    with target(banner(b"hello"), "::1") as (_, port), serving() as server:
        done = nc("5", server, "-N", "::1", port)
        assert (done.returncode, done.stdout) == (0, b"hello"), done.stderr
        server.line(to=f"[::1]:{port}")


@pytest.mark.parametrize(("version", "complaint"), [("4", b"rejected or failed"), ("5", b"Connection refused")])
def test_refused_target_is_told(version: str, complaint: bytes) -> None:
    with serving() as server:
        done = nc(version, server, "-N", "127.0.0.1", closed_port())
        assert done.returncode == 1
        assert complaint in done.stderr
        server.line(socks=version, reply=5)


@pytest.mark.parametrize(("version", "complaint"), [("4", b"rejected or failed"), ("5", b"method")])
def test_it_cannot_log_in_where_users_exist_and_says_so(version: str, complaint: bytes, members: Members) -> None:
    with target(banner(b"hello")) as place:
        done = nc(version, members, "-N", *place)
    assert (done.returncode, done.stdout) == (1, b"")
    assert complaint in done.stderr
    members.line(why="auth", by="tabi", socks=version)


def test_http_connect_by_mistake_fails_with_an_answer() -> None:
    with serving() as server:
        done = nc("connect", server, "-N", "127.0.0.1", closed_port())
        assert done.returncode == 1
        assert b"501 Not Implemented" in done.stderr
        server.line(why="protocol")
