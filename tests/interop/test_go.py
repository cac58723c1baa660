"""Go's golang.org/x/net/proxy, and net/http with its own copy of it."""

import subprocess
from pathlib import Path

import pytest

from helpers.members import Members
from helpers.names import ONLY_HERE, teach
from helpers.programs import need, need_path, run
from helpers.serving import Running, serving
from helpers.socks import read_all
from helpers.targets import closed_port, echo, target
from helpers.waiting import PATIENCE
from helpers.web import PAGE, noise, site

SIZE = 1_000_000
LIBRARIES = Path("/usr/share/gocode")  # where Debian puts the sources of libraries


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = need("go")
    need_path(LIBRARIES / "src/golang.org/x/net/proxy", "golang-golang-x-net-dev")
    directory = tmp_path_factory.mktemp("go")
    environment = {
        "GO111MODULE": "off",
        "GOPATH": str(LIBRARIES),
        "GOCACHE": str(directory / "cache"),
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    source, binary = Path(__file__).parent / "go/client.go", directory / "client"
    done = run(program, "build", "-o", binary, source, environment=environment, patience=15 * PATIENCE)
    assert done.returncode == 0, done.stderr
    return binary


def go(
    client: Path, server: Running | Members, place: str, *login: str, sends: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return run(client, str(server.addresses[0]), place, *login, sends=sends)


def test_address_and_half_close(client: Path) -> None:
    with target(lambda sock: sock.sendall(read_all(sock))) as (host, port), serving() as server:
        done = go(client, server, f"{host}:{port}", sends=noise(SIZE))
        assert (done.returncode, done.stdout) == (0, noise(SIZE)), done.stderr
        server.line(socks="5", to=f"{host}:{port}", up=SIZE, down=SIZE, why="fin")


def test_name_is_looked_up_by_the_proxy(client: Path) -> None:
    with target(echo) as (host, port), serving() as server:
        teach(server, host)
        done = go(client, server, f"{ONLY_HERE}:{port}", sends=b"hello")
        assert (done.returncode, done.stdout) == (0, b"hello"), done.stderr
        server.line(target=f"{ONLY_HERE}:{port}")


def test_target_on_ipv6(client: Path) -> None:
    with target(echo, "::1") as (_, port), serving() as server:
        done = go(client, server, f"[::1]:{port}", sends=b"hello")
        assert (done.returncode, done.stdout) == (0, b"hello"), done.stderr
        server.line(to=f"[::1]:{port}")


def test_http_client_of_the_standard_library(client: Path) -> None:
    with site() as web, serving() as server:
        teach(server, "127.0.0.1")
        done = go(client, server, web.url(host=ONLY_HERE))
        assert (done.returncode, done.stdout) == (0, PAGE), done.stderr
        server.line(target=f"{ONLY_HERE}:{web.port}")


@pytest.mark.parametrize(("password", "is_right"), [("secret", True), ("guess", False)])
def test_password_decides(password: str, is_right: bool, client: Path, members: Members) -> None:
    with target(echo) as (host, port):
        done = go(client, members, f"{host}:{port}", "anna", password, sends=b"hello")
        assert done.stdout == (b"hello" if is_right else b"")
        assert (b"authentication failed" in done.stderr) is not is_right
        assert members.line(user="anna")["why"] == ("fin" if is_right else "auth")


def test_refused_target_is_told(client: Path) -> None:
    with serving() as server:
        done = go(client, server, f"127.0.0.1:{closed_port()}")
        assert done.returncode == 1
        assert b"connection refused" in done.stderr
        server.line(reply=5)


def test_unknown_name_is_told(client: Path) -> None:
    with serving() as server:
        teach(server, "127.0.0.1")
        done = go(client, server, "nobody.invalid:80")
        assert done.returncode == 1
        assert b"host unreachable" in done.stderr
        server.line(reply=4)
