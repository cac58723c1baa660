"""proxychains4 under curl: a preloaded library, names travelling to the proxy in disguise, chains of proxies."""

import subprocess
from pathlib import Path

import pytest

from helpers.members import Members
from helpers.names import ONLY_HERE, teach
from helpers.programs import need, run
from helpers.serving import Running, serving
from helpers.targets import closed_port
from helpers.web import PAGE, noise, site

CONNECTION_FAILED = 7  # curl knows of no proxy here


def proxychains(directory: Path, proxies: list[str], *arguments: str) -> subprocess.CompletedProcess[bytes]:
    program, curl = need("proxychains4"), need("curl")
    configuration = directory / "proxychains.conf"
    head = ["strict_chain", "proxy_dns", "tcp_read_time_out 20000", "tcp_connect_time_out 20000", "[ProxyList]"]
    configuration.write_text("\n".join([*head, *proxies]) + "\n")
    own = ("--disable", "--silent", "--show-error", "--max-time", "60")
    return run(program, "-q", "-f", configuration, curl, *own, *arguments)


def entry(kind: str, server: Running | Members, login: str = "") -> str:
    host, port = server.address
    return f"{kind} {host} {port} {login}"


@pytest.mark.parametrize("kind", ["socks4", "socks5"])
def test_page_comes_by_address(kind: str, tmp_path: Path) -> None:
    with site() as web, serving() as server:
        done = proxychains(tmp_path, [entry(kind, server)], web.url())
        assert (done.returncode, done.stdout) == (0, PAGE), done.stderr
        server.line(socks=kind[-1], target=f"127.0.0.1:{web.port}", reply=0)


@pytest.mark.parametrize(("kind", "version"), [("socks4", "4a"), ("socks5", "5")])
def test_name_is_looked_up_by_the_proxy(kind: str, version: str, tmp_path: Path) -> None:
    with site() as web, serving() as server:
        teach(server, "127.0.0.1")
        done = proxychains(tmp_path, [entry(kind, server)], web.url(host=ONLY_HERE))
        assert (done.returncode, done.stdout) == (0, PAGE), done.stderr
        server.line(socks=version, target=f"{ONLY_HERE}:{web.port}", to=f"127.0.0.1:{web.port}")


def test_big_download_is_whole(tmp_path: Path) -> None:
    with site() as web, serving() as server:
        done = proxychains(tmp_path, [entry("socks5", server)], web.url("/noise/5000000"))
        assert done.stdout == noise(5_000_000), done.stderr


def test_chain_through_two_servers(tmp_path: Path, members: Members) -> None:
    with site() as web, serving() as first:
        chain = [entry("socks4", first), entry("socks5", members, "anna secret")]
        done = proxychains(tmp_path, chain, web.url())
        assert (done.returncode, done.stdout) == (0, PAGE), done.stderr
        first.line(target=str(members.addresses[0]))
        members.line(target=f"127.0.0.1:{web.port}", user="anna")


def test_wrong_password_does_not_open(tmp_path: Path, members: Members) -> None:
    with site() as web:
        done = proxychains(tmp_path, [entry("socks5", members, "anna guess")], web.url())
        assert done.returncode == CONNECTION_FAILED
        members.line(why="auth", user="anna")
        assert web.connections == 0


@pytest.mark.parametrize("kind", ["socks4", "socks5"])
def test_refused_target_is_told(kind: str, tmp_path: Path) -> None:
    with serving() as server:
        done = proxychains(tmp_path, [entry(kind, server)], f"http://127.0.0.1:{closed_port()}/")
        assert done.returncode == CONNECTION_FAILED
        server.line(reply=5)
