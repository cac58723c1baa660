"""socat: SOCKS4 and SOCKS4a, and SOCKS5 where the version has it (1.8)."""

import re
import subprocess

import pytest

from helpers.members import Members
from helpers.programs import need, run
from helpers.serving import Running, serving
from helpers.socks import read_all
from helpers.targets import banner, closed_port, target
from helpers.web import noise

KINDS = ["SOCKS4", "SOCKS4A", "SOCKS5-CONNECT"]


def socat(
    kind: str, server: Running | Members, host: str, port: int, *options: str, sends: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    program = need("socat")
    proxy_host, proxy_port = server.address
    if kind == "SOCKS5-CONNECT":
        if not re.search(rb"(?i)socks5-connect", run(program, "-hh").stdout):
            pytest.skip("socat is older than 1.8, the first with SOCKS5")
        address = f"{kind}:{proxy_host}:{proxy_port}:{host}:{port}"
    else:
        address = f"{kind}:{proxy_host}:{host}:{port},socksport={proxy_port}"
    return run(program, "-t", "20", "-", ",".join((address, *options)), sends=sends)


@pytest.mark.parametrize("kind", KINDS)
def test_address_and_half_close(kind: str) -> None:
    data = noise(1_000_000)
    with target(lambda sock: sock.sendall(read_all(sock))) as place, serving() as server:
        done = socat(kind, server, *place, sends=data)
        assert done.returncode == 0, done.stderr
        assert done.stdout == data
        server.line(to=f"127.0.0.1:{place[1]}", up=len(data), down=len(data))


@pytest.mark.parametrize(("kind", "version"), [("SOCKS4A", "4a"), ("SOCKS5-CONNECT", "5")])
def test_name_is_looked_up_by_the_proxy(kind: str, version: str) -> None:
    with target(banner(b"hello")) as (_, port), serving() as server:
        done = socat(kind, server, "localhost", port)
        assert (done.returncode, done.stdout) == (0, b"hello"), done.stderr
        server.line(socks=version, target=f"localhost:{port}")


@pytest.mark.parametrize("kind", ["SOCKS4", "SOCKS4A"])
def test_user_id_is_logged_as_a_claim(kind: str) -> None:
    with target(banner(b"hello")) as place, serving() as server:
        done = socat(kind, server, *place, "socksuser=anna")
        assert (done.returncode, done.stdout) == (0, b"hello"), done.stderr
        server.line(userid="anna")


@pytest.mark.parametrize("kind", KINDS)
def test_refused_target_is_told(kind: str) -> None:
    with serving() as server:
        done = socat(kind, server, "127.0.0.1", closed_port())
        assert done.returncode == 1
        server.line(reply=5, by="tabi")


@pytest.mark.parametrize(("kind", "version"), [("SOCKS4", "4"), ("SOCKS4A", "4a"), ("SOCKS5-CONNECT", "5")])
def test_without_a_password_it_is_refused_where_users_exist(kind: str, version: str, members: Members) -> None:
    """SOCKS4 has none, and socat's SOCKS5 has no word for it: who a SOCKS4 client claims to be counts for nothing."""
    claim = () if kind == "SOCKS5-CONNECT" else ("socksuser=anna",)
    with target(banner(b"hello")) as place:
        done = socat(kind, members, *place, *claim)
    assert (done.returncode, done.stdout) == (1, b"")
    members.line(why="auth", by="tabi", socks=version)
