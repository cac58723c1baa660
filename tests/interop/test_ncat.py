"""Ncat, from the Nmap project: SOCKS4, SOCKS4a and SOCKS5 with a password."""

import subprocess

import pytest

from helpers.members import Members
from helpers.programs import need, run
from helpers.serving import Running, serving
from helpers.socks import read_all
from helpers.targets import banner, closed_port, target
from helpers.web import noise

KINDS = ["socks4", "socks5"]


def ncat(
    kind: str, server: Running | Members, *arguments: str | int, sends: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    own = ("--proxy", str(server.addresses[0]), "--proxy-type", kind, "--wait", "20")
    return run(need("ncat"), *own, *map(str, arguments), sends=sends)


@pytest.mark.parametrize("kind", KINDS)
def test_address_and_half_close(kind: str) -> None:
    data = noise(1_000_000)
    with target(lambda sock: sock.sendall(read_all(sock))) as place, serving() as server:
        done = ncat(kind, server, *place, sends=data)
        assert done.returncode == 0, done.stderr
        assert done.stdout == data
        server.line(socks=kind[-1], to=f"127.0.0.1:{place[1]}", up=len(data), down=len(data))


@pytest.mark.parametrize(("kind", "version"), [("socks4", "4a"), ("socks5", "5")])
def test_name_is_looked_up_by_the_proxy_when_asked_to(kind: str, version: str) -> None:
    with target(banner(b"hello")) as (_, port), serving() as server:
        done = ncat(kind, server, "--proxy-dns", "remote", "localhost", port)
        assert (done.returncode, done.stdout) == (0, b"hello"), done.stderr
        server.line(socks=version, target=f"localhost:{port}")


def test_target_on_ipv6() -> None:
    with target(banner(b"hello"), "::1") as (_, port), serving() as server:
        done = ncat("socks5", server, "::1", port)
        assert (done.returncode, done.stdout) == (0, b"hello"), done.stderr
        server.line(to=f"[::1]:{port}")


def test_right_password_opens(members: Members) -> None:
    with target(banner(b"hello")) as place:
        done = ncat("socks5", members, "--proxy-auth", "nick:se:cret", *place)
        assert (done.returncode, done.stdout) == (0, b"hello"), done.stderr
        members.line(method="password", user="nick")


@pytest.mark.parametrize("login", [("--proxy-auth", "anna:guess"), ()])
def test_wrong_or_no_password_does_not(login: tuple[str, ...], members: Members) -> None:
    with target(banner(b"hello")) as place:
        done = ncat("socks5", members, *login, *place)
        assert done.returncode != 0
        assert done.stdout == b""
        members.line(why="auth")


def test_socks4_user_id_is_logged_as_a_claim() -> None:
    with target(banner(b"hello")) as place, serving() as server:
        done = ncat("socks4", server, "--proxy-auth", "anna", *place)
        assert done.returncode == 0, done.stderr
        line = server.line(userid="anna")
        assert "user" not in line


@pytest.mark.parametrize("kind", KINDS)
def test_refused_target_is_told(kind: str) -> None:
    with serving() as server:
        done = ncat(kind, server, "127.0.0.1", closed_port())
        assert done.returncode != 0
        server.line(socks=kind[-1], reply=5)
