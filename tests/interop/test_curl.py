"""curl, the client that nearly everybody tries first: all four of its SOCKS schemes, logins, errors, bulk both ways."""

import json
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

from helpers.members import Members
from helpers.programs import need, run
from helpers.serving import Running, command, serving
from helpers.targets import closed_port
from helpers.web import PAGE, noise, sha256, site

SIZE = 20_000_000
SCHEMES = ["socks4", "socks4a", "socks5", "socks5h"]
VERSIONS = dict(zip(SCHEMES, ("4", "4a", "5", "5"), strict=True))
REMOTE = {"socks4a", "socks5h"}  # here the proxy looks names up
PROXY_FAILED = 97  # CURLE_PROXY
# What curl sends and receives, counted by itself: headers and bodies each way.
COUNTS = '{"up": [%{size_request}, %{size_upload}], "down": [%{size_header}, %{size_download}]}'


def curl(proxy: str, *arguments: str | Path, sends: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    own = ("--disable", "--silent", "--show-error", "--max-time", "60", "--noproxy", "")
    return run(need("curl"), *own, "--proxy", proxy, *arguments, sends=sends)


def proxy_url(scheme: str, server: Running | Members, login: str = "") -> str:
    return f"{scheme}://{login}{server.addresses[0]}"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_page_comes_by_address(scheme: str) -> None:
    with site() as web, serving() as server:
        done = curl(proxy_url(scheme, server), web.url())
        assert (done.returncode, done.stdout) == (0, PAGE), done.stderr
        server.line(socks=VERSIONS[scheme], target=f"127.0.0.1:{web.port}", by="client", why="fin")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_name_is_looked_up_where_the_scheme_says(scheme: str) -> None:
    with site() as web, serving() as server:
        here = ("--resolve", f"localhost:{web.port}:127.0.0.1")
        done = curl(proxy_url(scheme, server), *here, web.url(host="localhost"))
        assert (done.returncode, done.stdout) == (0, PAGE), done.stderr
        asked = "localhost" if scheme in REMOTE else "127.0.0.1"
        server.line(socks=VERSIONS[scheme], target=f"{asked}:{web.port}", to=f"127.0.0.1:{web.port}")


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_target_and_proxy_on_ipv6(scheme: str) -> None:
    with site("::1") as web, serving() as server:
        done = curl(f"{scheme}://{server.addresses[1]}", web.url())
        assert (done.returncode, done.stdout) == (0, PAGE), done.stderr
        server.line(listener=str(server.addresses[1]), to=f"[::1]:{web.port}")


@pytest.mark.parametrize("login", ["anna:secret", "bj%C3%B6rn:p%3Ass%40w%C3%B6rd", "k%20b:x"])
def test_right_password_opens(login: str, members: Members) -> None:
    with site() as web:
        done = curl(proxy_url("socks5h", members, f"{login}@"), web.url())
        assert (done.returncode, done.stdout) == (0, PAGE), done.stderr
        assert members.line(method="password", reply=0)["user"] == unquote(login.partition(":")[0])


@pytest.mark.parametrize("login", ["anna:Secret", "anna:secret2", "hans:secret"])
def test_wrong_password_does_not(login: str, members: Members) -> None:
    with site() as web:
        done = curl(proxy_url("socks5", members, f"{login}@"), web.url())
        assert (done.returncode, done.stdout) == (PROXY_FAILED, b"")
        assert b"rejected by the SOCKS5 server (1 1)" in done.stderr
        assert members.line(why="auth", by="tabi")["user"] == login.partition(":")[0]
        assert web.connections == 0
        assert "secret" not in json.dumps(members.lines).lower()


def test_empty_password_does_not_open(members: Members) -> None:
    with site() as web:
        done = curl(proxy_url("socks5", members, "anna:@"), web.url())
        assert done.returncode == PROXY_FAILED
        assert b"rejected by the SOCKS5 server (1 1)" in done.stderr
        members.line(why="auth", by="tabi")
        assert web.connections == 0


def test_no_password_where_one_is_wanted(members: Members) -> None:
    with site() as web:
        done = curl(proxy_url("socks5", members), web.url())
        assert done.returncode == PROXY_FAILED
        assert b"No authentication method was acceptable" in done.stderr
        members.line(why="auth", socks="5")
        done = curl(proxy_url("socks4", members, "anna@"), web.url())
        assert done.returncode == PROXY_FAILED
        members.line(why="auth", socks="4")
        assert web.connections == 0


def test_password_where_none_is_wanted() -> None:
    with site() as web, serving() as server:
        done = curl(proxy_url("socks5", server, "anna:secret@"), web.url())
        assert (done.returncode, done.stdout) == (0, PAGE), done.stderr
        server.line(method="none", reply=0)


@pytest.mark.parametrize(("scheme", "code"), list(zip(SCHEMES, ("91", "91", "5", "5"), strict=True)))
def test_refused_target_is_told(scheme: str, code: str) -> None:
    with serving() as server:
        done = curl(proxy_url(scheme, server), f"http://127.0.0.1:{closed_port()}/")
        assert done.returncode == PROXY_FAILED
        assert f"({code})" in done.stderr.decode()
        server.line(reply=5, why="failed", by="tabi")


@pytest.mark.parametrize(("scheme", "code"), [("socks4a", "91"), ("socks5h", "4")])
def test_unknown_name_is_told(scheme: str, code: str) -> None:
    with serving() as server:
        done = curl(proxy_url(scheme, server), "http://nobody.invalid/")
        assert done.returncode == PROXY_FAILED
        assert f"({code})" in done.stderr.decode()
        server.line(target="nobody.invalid:80", reply=4)


@pytest.mark.parametrize("scheme", ["socks4a", "socks5h"])
def test_big_download_is_whole_and_counted(scheme: str, tmp_path: Path) -> None:
    with site() as web, serving() as server:
        file = tmp_path / "file"
        done = curl(proxy_url(scheme, server), "--output", file, "--write-out", COUNTS, web.url(f"/noise/{SIZE}"))
        assert done.returncode == 0, done.stderr
        assert sha256(file.read_bytes()) == sha256(noise(SIZE))
        counts = json.loads(done.stdout)
        server.line(up=sum(counts["up"]), down=sum(counts["down"]), by="client", why="fin")


@pytest.mark.parametrize("scheme", ["socks4a", "socks5h"])
def test_big_upload_is_whole_and_counted(scheme: str, tmp_path: Path) -> None:
    with site() as web, serving() as server:
        file = tmp_path / "file"
        file.write_bytes(noise(SIZE))
        done = curl(proxy_url(scheme, server), "--upload-file", file, "--write-out", COUNTS, web.url("/file"))
        assert done.returncode == 0, done.stderr
        answer, counts = done.stdout[:64], json.loads(done.stdout[64:])
        assert answer.decode() == sha256(noise(SIZE))
        server.line(up=sum(counts["up"]), down=sum(counts["down"]), by="client", why="fin")


def test_kept_alive_connection_is_one_session() -> None:
    with site() as web, serving() as server:
        done = curl(proxy_url("socks5h", server), web.url("/1"), web.url("/2"), web.url("/3"))
        assert done.stdout == 3 * PAGE, done.stderr
        server.idle()
        assert (len(server.lines), web.connections) == (1, 1)


def test_many_at_once() -> None:
    with site() as web, serving() as server:
        done = curl(proxy_url("socks5h", server), "--parallel", "--parallel-immediate", web.url("/[1-40]"))
        assert done.stdout == 40 * PAGE, done.stderr
        server.idle()
        assert len(server.lines) == web.connections


def test_http_proxy_by_mistake_is_told_what_this_is() -> None:
    with site() as web, serving() as server:
        done = curl(proxy_url("http", server), "--write-out", "%{http_code}", web.url("/secret-path"))
        assert done.returncode == 0
        assert b"This port speaks SOCKS" in done.stdout
        assert done.stdout.endswith(b"501")
        assert b"secret-path" not in done.stdout
        server.line(why="protocol", by="tabi")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_command_serves_and_logs(scheme: str) -> None:
    with site() as web, command("--log-format", "json") as tabi:
        port = tabi.ports(2)[0]
        here = ("--resolve", f"localhost:{web.port}:127.0.0.1")
        done = curl(f"{scheme}://127.0.0.1:{port}", "--write-out", COUNTS, *here, web.url(host="localhost"))
        answer, counts = done.stdout[: len(PAGE)], json.loads(done.stdout[len(PAGE) :])
        assert (done.returncode, answer) == (0, PAGE), done.stderr
        line = tabi.record(reply=0)
        asked = "localhost" if scheme in REMOTE else "127.0.0.1"
        assert (line["socks"], line["command"], line["reply"]) == (VERSIONS[scheme], "connect", 0)
        assert (line["target"], line["to"]) == (f"{asked}:{web.port}", f"127.0.0.1:{web.port}")
        assert (line["up"], line["down"]) == (sum(counts["up"]), sum(counts["down"]))
        assert (line["by"], line["why"]) == ("client", "fin")
        assert tabi.stop() == 0
