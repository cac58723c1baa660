"""git: clone over HTTP by ALL_PROXY and by http.proxy, clone and push over git:// by core.gitProxy."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.members import Members
from helpers.names import ONLY_HERE, teach
from helpers.programs import need, run, running, wait_for_port
from helpers.serving import serving
from helpers.targets import closed_port
from helpers.web import Site, noise, site

SIZE = 2_000_000
ENVIRONMENT = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0"} | {
    f"GIT_{who}_{what}": "tabi@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}


def git(directory: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return run(need("git"), *arguments, cwd=directory, environment=ENVIRONMENT | environment)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A bare repository with one big file in one commit."""
    work, bare = tmp_path / "work", tmp_path / "served" / "project.git"
    work.mkdir()
    (work / "file").write_bytes(noise(SIZE))
    for step in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "file"),
        ("commit", "--quiet", "--message=one"),
        ("clone", "--quiet", "--bare", ".", bare),
        ("--git-dir", bare, "update-server-info"),  # a web server that knows nothing of git will do then
    ):
        done = git(work, *step)
        assert done.returncode == 0, done.stderr
    return bare


@pytest.fixture
def web(repository: Path) -> Iterator[Site]:
    with site(directory=repository.parent) as server:
        yield server


@contextmanager
def daemon(repository: Path, directory: Path) -> Iterator[int]:
    """Run `git daemon`, which takes pushes as well; yields its port."""
    port, log = closed_port(), directory / "daemon.log"
    own = ("--listen=127.0.0.1", f"--port={port}", "--export-all", "--enable=receive-pack", "--reuseaddr")
    program = (need("git"), "daemon", *own, f"--base-path={repository.parent}")
    with running(*program, environment=ENVIRONMENT, log=log) as process:
        wait_for_port(("127.0.0.1", port), process, log)
        yield port


@pytest.mark.parametrize("way", ["ALL_PROXY", "http.proxy"])
def test_clone_over_http(way: str, web: Site, tmp_path: Path) -> None:
    with serving() as server:
        teach(server, "127.0.0.1")
        proxy = f"socks5h://{server.addresses[0]}"
        url = web.url("/project.git", host=ONLY_HERE)
        if way == "ALL_PROXY":
            done = git(tmp_path, "clone", "--quiet", url, "copy", ALL_PROXY=proxy)
        else:
            done = git(tmp_path, "-c", f"http.proxy={proxy}", "clone", "--quiet", url, "copy")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "copy/file").read_bytes() == noise(SIZE)
        server.line(socks="5", target=f"{ONLY_HERE}:{web.port}", reply=0)


@pytest.mark.parametrize(("password", "is_right"), [("secret", True), ("guess", False)])
def test_password_decides(password: str, is_right: bool, web: Site, tmp_path: Path, members: Members) -> None:
    proxy = f"socks5h://anna:{password}@{members.addresses[0]}"
    done = git(tmp_path, "clone", "--quiet", web.url("/project.git"), "copy", ALL_PROXY=proxy)
    assert (done.returncode == 0) is is_right, done.stderr
    assert (b"rejected by the SOCKS5 server" in done.stderr) is not is_right
    assert members.line(user="anna")["why"] == ("fin" if is_right else "auth")
    assert (web.connections > 0) is is_right


def test_clone_and_push_over_git_protocol(repository: Path, tmp_path: Path) -> None:
    with daemon(repository, tmp_path) as port, serving() as server:
        teach(server, "127.0.0.1")
        script = tmp_path / "proxy"
        script.write_text(f'#!/bin/sh\nexec {need("nc.openbsd")} -X 5 -x {server.addresses[0]} "$1" "$2"\n')
        script.chmod(0o755)
        through = ("-c", f"core.gitProxy={script}")
        done = git(tmp_path, *through, "clone", "--quiet", f"git://{ONLY_HERE}:{port}/project.git", "copy")
        assert done.returncode == 0, done.stderr
        copy = tmp_path / "copy"
        (copy / "more").write_bytes(noise(SIZE + 1))
        for step in (("add", "more"), ("commit", "--quiet", "--message=two"), (*through, "push", "--quiet")):
            done = git(copy, *step)
            assert done.returncode == 0, done.stderr
        assert git(repository, "show", "main:more").stdout == noise(SIZE + 1)
        server.idle()
        assert [line["target"] for line in server.lines] == 2 * [f"{ONLY_HERE}:{port}"]


def test_refused_target_is_told(tmp_path: Path) -> None:
    with serving() as server:
        url = f"http://127.0.0.1:{closed_port()}/project.git"
        done = git(tmp_path, "clone", "--quiet", url, "copy", ALL_PROXY=f"socks5h://{server.addresses[0]}")
        assert done.returncode == 128
        assert b"(5)" in done.stderr
        server.line(reply=5)
