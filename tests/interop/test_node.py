"""Node's `socks` package, which the proxy agents of the npm world stand on: CONNECT, BIND, UDP ASSOCIATE."""

import json
import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from helpers.members import Members
from helpers.names import ONLY_HERE, teach
from helpers.programs import need, need_path, run
from helpers.serving import Running, allow_all, serving
from helpers.socks import read_all
from helpers.targets import closed_port, datagram_echo, echo, target
from helpers.web import noise

HERE = Path(__file__).parent / "node"
SIZE = 1_000_000
ANYBODY = "0.0.0.0"


def node(
    command: str,
    version: int,
    server: Running | Members,
    destination: tuple[str, int],
    login: dict[str, str] | None = None,
    data: bytes = b"",
    **more: Any,
) -> subprocess.CompletedProcess[bytes]:
    program = need("node")
    need_path(HERE / "node_modules/socks", "node's socks package")
    host, port = server.address
    proxy = {"host": host, "port": port, "type": version, **(login or {})}
    place = {"host": destination[0], "port": destination[1]}
    options = {"command": command, "proxy": proxy, "destination": place, "timeout": 30000, **more}
    return run(program, HERE / "client.js", json.dumps(options), sends=data)


@pytest.mark.parametrize("version", [4, 5])
def test_connect_and_half_close(version: int) -> None:
    with target(lambda sock: sock.sendall(read_all(sock))) as place, serving() as server:
        done = node("connect", version, server, place, data=noise(SIZE))
        assert (done.returncode, done.stdout) == (0, noise(SIZE)), done.stderr
        server.line(socks=str(version), to=f"127.0.0.1:{place[1]}", up=SIZE, down=SIZE, why="fin")


@pytest.mark.parametrize(("version", "logged"), [(4, "4a"), (5, "5")])
def test_connect_by_name(version: int, logged: str) -> None:
    with target(echo) as (host, port), serving() as server:
        teach(server, host)
        done = node("connect", version, server, (ONLY_HERE, port), data=b"hello")
        assert (done.returncode, done.stdout) == (0, b"hello"), done.stderr
        server.line(socks=logged, target=f"{ONLY_HERE}:{port}")


def test_connect_to_ipv6() -> None:
    with target(echo, "::1") as place, serving() as server:
        done = node("connect", 5, server, place, data=b"hello")
        assert (done.returncode, done.stdout) == (0, b"hello"), done.stderr


@pytest.mark.parametrize(("password", "is_right"), [("secret", True), ("guess", False)])
def test_password_decides(password: str, is_right: bool, members: Members) -> None:
    login = {"userId": "anna", "password": password}
    with target(echo) as place:
        done = node("connect", 5, members, place, login, b"hello")
        assert done.stdout == (b"hello" if is_right else b"")
        assert (b"Authentication failed" in done.stderr) is not is_right
        assert members.line(user="anna")["why"] == ("fin" if is_right else "auth")


@pytest.mark.parametrize(("version", "complaint"), [(4, b"Failed"), (5, b"ConnectionRefused")])
def test_refused_target_is_told(version: int, complaint: bytes) -> None:
    with serving() as server:
        done = node("connect", version, server, ("127.0.0.1", closed_port()))
        assert done.returncode == 1
        assert complaint in done.stderr
        server.line(reply=5)


@pytest.mark.parametrize("peer", [ANYBODY, "127.0.0.1"])
@pytest.mark.parametrize("version", [4, 5])
def test_bind_takes_its_peer_and_relays_both_ways(version: int, peer: str) -> None:
    policy = {"policy": allow_all} if peer == ANYBODY else {}
    with serving(**policy) as server:
        done = node("bind", version, server, (peer, 0))
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout)
        assert facts["heard"] == ["client: from the peer", "peer: from the client"]
        assert facts["bound"]["host"] == "127.0.0.1"
        assert facts["established"] == facts["peer"]
        line = server.line(socks=str(version), command="bind", up=15, down=13, reply=0)
        assert line["to"] == f"{facts['peer']['host']}:{facts['peer']['port']}"


@pytest.mark.parametrize(("version", "complaint"), [(4, b"Failed"), (5, b"NotAllowed")])
def test_bind_for_anybody_is_refused_unless_a_rule_allows_it(version: int, complaint: bytes) -> None:
    with serving() as server:
        done = node("bind", version, server, (ANYBODY, 0))
        assert done.returncode == 1
        assert complaint in done.stderr
        server.line(command="bind", reply=2, why="policy")


def test_associate_relays_to_addresses_and_names_of_both_families() -> None:
    with datagram_echo() as (host, port), datagram_echo("::1") as (host6, port6), serving() as server:
        teach(server, host)
        places = [(host, port), (host6, port6), (ONLY_HERE, port)]
        sends = [{"host": place, "port": number} for place, number in places]
        done = node("associate", 5, server, (ANYBODY, 0), sends=sends)
        assert done.returncode == 0, done.stderr
        heard = [(str(ip_address(source)), number, text) for source, number, text in json.loads(done.stdout)["heard"]]
        assert heard == [(host, port, f"to {host}"), (host6, port6, f"to {host6}"), (host, port, f"to {ONLY_HERE}")]
        server.line(command="udp_associate", by="client", why="fin")
