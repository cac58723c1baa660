"""tsocks under curl. It never takes 127.0.0.0/8 to a proxy, so the target has another address, in a namespace."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.members import Members, serving_members
from helpers.namespaces import Namespace, why_not
from helpers.programs import need, run
from helpers.serving import SERVE, Running, serving
from helpers.targets import closed_port
from helpers.web import PAGE, noise, site

ADDRESS = "192.0.2.1"  # RFC 5737: for documentation, so nobody's


@pytest.fixture
def host() -> Iterator[Namespace]:
    need("tsocks")
    if reason := why_not():
        pytest.skip(reason)
    with Namespace("tsocks") as namespace:
        namespace.address("lo", f"{ADDRESS}/32")
        yield namespace


def tsocks(
    host: Namespace,
    directory: Path,
    server: Running | Members,
    version: int,
    *arguments: str,
    login: tuple[str, str] = ("", ""),
) -> subprocess.CompletedProcess[bytes]:
    configuration = directory / "tsocks.conf"
    address, port = server.address
    configuration.write_text(f"server = {address}\nserver_port = {port}\nserver_type = {version}\n")
    own = ("--disable", "--silent", "--show-error", "--max-time", "60")
    environment = {"TSOCKS_CONF_FILE": str(configuration), "TSOCKS_USERNAME": login[0], "TSOCKS_PASSWORD": login[1]}
    return run(
        *host.command(need("tsocks"), need("curl"), *own, *arguments),
        environment={name: value for name, value in environment.items() if value},
    )


@pytest.mark.parametrize("version", [4, 5])
def test_page_comes_by_address(version: int, host: Namespace, tmp_path: Path) -> None:
    with host.entering(site(ADDRESS)) as web, host.entering(serving()) as server:
        done = tsocks(host, tmp_path, server, version, web.url())
        assert (done.returncode, done.stdout) == (0, PAGE), done.stderr
        server.line(socks=str(version), to=f"{ADDRESS}:{web.port}", reply=0)


def test_big_download_is_whole(host: Namespace, tmp_path: Path) -> None:
    with host.entering(site(ADDRESS)) as web, host.entering(serving()) as server:
        done = tsocks(host, tmp_path, server, 5, web.url("/noise/5000000"))
        assert done.stdout == noise(5_000_000), done.stderr


@pytest.mark.parametrize(("password", "is_right"), [("secret", True), ("guess", False)])
def test_password_decides(password: str, is_right: bool, host: Namespace, tmp_path: Path) -> None:
    program = tuple(host.command(*SERVE))
    with host.entering(site(ADDRESS)) as web, serving_members(tmp_path, program) as accounts:
        server = Members(accounts)
        done = tsocks(host, tmp_path, server, 5, web.url(), login=("anna", password))
        assert done.stdout == (PAGE if is_right else b""), done.stderr
        assert (b"authentication failed" in done.stderr) is not is_right
        assert server.line(user="anna")["why"] == ("fin" if is_right else "auth")
        assert web.connections == is_right


@pytest.mark.parametrize("version", [4, 5])
def test_refused_target_is_told(version: int, host: Namespace, tmp_path: Path) -> None:
    with host.entering(serving()) as server:
        done = tsocks(host, tmp_path, server, version, f"http://{ADDRESS}:{host.call(closed_port, ADDRESS)}/")
        assert done.returncode != 0
        assert b"refused" in done.stderr
        server.line(socks=str(version), reply=5)
