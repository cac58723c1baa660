"""Java's own SOCKS client, java.net.Socket with a Proxy: version 5, and version 4 by a system property."""

import subprocess
from pathlib import Path

import pytest

from helpers.members import Members
from helpers.names import ONLY_HERE, teach
from helpers.programs import need, run
from helpers.serving import Running, serving
from helpers.socks import read_all
from helpers.targets import closed_port, echo, target
from helpers.waiting import PATIENCE
from helpers.web import noise

SIZE = 1_000_000
# The JVM is started for a moment only: no second compiler, no threads for a collector of garbage.
QUICK = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("java")
    directory = tmp_path_factory.mktemp("java")
    source = Path(__file__).parent / "java/Client.java"
    done = run(need("javac"), "-d", directory, source, patience=6 * PATIENCE)
    assert done.returncode == 0, done.stderr
    return directory


def java(
    classes: Path, version: int, server: Running | Members, place: tuple[str, int], *login: str, sends: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    options = (*QUICK, f"-DsocksProxyVersion={version}", "-cp", classes, "Client")
    return run(need("java"), *options, *map(str, server.address), *map(str, place), *login, sends=sends)


@pytest.mark.parametrize("version", [4, 5])
def test_address_and_half_close(version: int, classes: Path) -> None:
    with target(lambda sock: sock.sendall(read_all(sock))) as place, serving() as server:
        done = java(classes, version, server, place, sends=noise(SIZE))
        assert (done.returncode, done.stdout) == (0, noise(SIZE)), done.stderr
        server.line(socks=str(version), to=f"127.0.0.1:{place[1]}", up=SIZE, down=SIZE, why="fin")


def test_name_is_looked_up_by_the_proxy(classes: Path) -> None:
    with target(echo) as (host, port), serving() as server:
        teach(server, host)
        done = java(classes, 5, server, (ONLY_HERE, port), sends=b"hello")
        assert (done.returncode, done.stdout) == (0, b"hello"), done.stderr
        server.line(socks="5", target=f"{ONLY_HERE}:{port}")


def test_target_on_ipv6(classes: Path) -> None:
    with target(echo, "::1") as place, serving() as server:
        done = java(classes, 5, server, place, sends=b"hello")
        assert (done.returncode, done.stdout) == (0, b"hello"), done.stderr
        server.line(to=f"[::1]:{place[1]}")


@pytest.mark.parametrize(("password", "is_right"), [("secret", True), ("guess", False)])
def test_password_decides(password: str, is_right: bool, classes: Path, members: Members) -> None:
    with target(echo) as place:
        done = java(classes, 5, members, place, "anna", password, sends=b"hello")
        assert done.stdout == (b"hello" if is_right else b"")
        assert (b"authentication failed" in done.stderr) is not is_right
        assert members.line(user="anna")["why"] == ("fin" if is_right else "auth")


@pytest.mark.parametrize(("version", "complaint"), [(4, b"SOCKS"), (5, b"SOCKS: Connection refused")])
def test_refused_target_is_told(version: int, complaint: bytes, classes: Path) -> None:
    with serving() as server:
        done = java(classes, version, server, ("127.0.0.1", closed_port()))
        assert done.returncode == 1
        assert complaint in done.stderr
        server.line(reply=5)
