"""OpenSSH with tabi behind its ProxyCommand: a command, files by sftp and scp, and an sshd of our own on loopback."""

import os
import pwd
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.members import Members
from helpers.name_service import NameService
from helpers.names import ONLY_HERE, teach
from helpers.pages import ROOT, blocks
from helpers.programs import need, run
from helpers.serving import Running, serving
from helpers.sshd import Sshd, serving_sshd
from helpers.targets import closed_port
from helpers.web import noise, sha256

SIZE = 3_000_000


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def proxy_command(kind: str, server: Running | Members) -> str:
    host, port = server.address
    return {
        "nc": f"{need('nc.openbsd')} -X 5 -x {host}:{port} %h %p",
        "nc4": f"{need('nc.openbsd')} -X 4 -x {host}:{port} %h %p",
        "ncat": f"{need('ncat')} --proxy {host}:{port} --proxy-type socks5 --proxy-dns remote %h %p",
        "socat": f"{need('socat')} - SOCKS4A:{host}:%h:%p,socksport={port}",
        "tabi": shlex.join([sys.executable, "-m", "tabi", "connect", "-x", f"socks5h://{host}:{port}", "%h:%p"]),
    }[kind]


def ssh(sshd: Sshd, kind: str, server: Running, name: str, command: str) -> subprocess.CompletedProcess[bytes]:
    return run(need("ssh"), *sshd.options(proxy_command(kind, server), name), name, command)


@pytest.mark.parametrize(
    ("kind", "version", "name"),
    [
        ("nc", "5", ONLY_HERE),
        ("nc4", "4", "127.0.0.1"),
        ("ncat", "5", ONLY_HERE),
        ("socat", "4a", ONLY_HERE),
        ("tabi", "5", ONLY_HERE),
    ],
)
def test_command_runs_through_the_proxy(kind: str, version: str, name: str, sshd: Sshd) -> None:
    with serving() as server:
        teach(server, "127.0.0.1")
        done = ssh(sshd, kind, server, name, "echo $SSH_CONNECTION; exit 7")
        assert done.returncode == 7, done.stderr
        assert done.stdout.decode().split()[2:] == ["127.0.0.1", str(sshd.port)]
        server.line(socks=version, target=f"{name}:{sshd.port}", to=f"127.0.0.1:{sshd.port}", reply=0)


@pytest.mark.parametrize("program", ["ncat", "tabi"])
@pytest.mark.parametrize(("password", "is_right"), [("secret", True), ("guess", False)])
def test_password_decides(
    program: str, password: str, is_right: bool, sshd: Sshd, members: Members, tmp_path: Path
) -> None:
    login = f"{proxy_command('ncat', members)} --proxy-auth anna:{password}"
    if program == "tabi":
        url = tmp_path / "proxy.url"
        url.write_text(f"socks5h://anna:{password}@{members.addresses[0]}\n")
        login = shlex.join([sys.executable, "-m", "tabi", "connect", "-x", f"@{url}", "%h:%p"])
    done = run(need("ssh"), *sshd.options(login, "127.0.0.1"), "127.0.0.1", "exit 7")
    assert done.returncode == (7 if is_right else 255), done.stderr
    assert members.line(user="anna")["why"] == ("fin" if is_right else "auth")


def test_much_output_is_whole(sshd: Sshd) -> None:
    with serving() as server:
        file = sshd.directory / "much"
        file.write_bytes(noise(SIZE))
        done = ssh(sshd, "nc", server, "127.0.0.1", f"cat {shlex.quote(str(file))}")
        assert done.stdout == noise(SIZE), done.stderr


def test_scp_takes_a_file_there_and_back(sshd: Sshd, tmp_path: Path) -> None:
    here, there, back = (tmp_path / name for name in ("here", "there", "back"))
    here.write_bytes(noise(SIZE))
    with serving() as server:
        options = sshd.options(proxy_command("nc", server), "127.0.0.1")
        for source, sink in ((str(here), f"127.0.0.1:{there}"), (f"127.0.0.1:{there}", str(back))):
            done = run(need("scp"), "-q", *options, source, sink)
            assert done.returncode == 0, done.stderr
        assert sha256(there.read_bytes()) == sha256(back.read_bytes()) == sha256(noise(SIZE))
        server.idle()
        assert len(server.lines) == 2


def test_sftp_takes_a_file_there_and_back(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(noise(SIZE))
    with serving() as server:
        options = sshd.options(proxy_command("ncat", server), "127.0.0.1")
        batch = f"put {tmp_path}/here {tmp_path}/there\nget {tmp_path}/there {tmp_path}/back\n"
        done = run(need("sftp"), "-q", *options, "-b", "-", "127.0.0.1", sends=batch.encode())
        assert done.returncode == 0, done.stderr
        for name in ("there", "back"):
            assert sha256((tmp_path / name).read_bytes()) == sha256(noise(SIZE))


def test_refused_target_ends_the_client_at_once(sshd: Sshd) -> None:
    with serving() as server:
        nowhere = Sshd(closed_port(), sshd.directory)
        done = ssh(nowhere, "nc", server, "127.0.0.1", "true")
        assert done.returncode == 255
        assert b"Connection refused" in done.stderr
        server.line(reply=5)


def test_paramiko_runs_a_command_as_the_page_shows(sshd: Sshd) -> None:
    [text] = [one.text for one in blocks(ROOT / "docs" / "howto" / "adapters.md") if "import paramiko" in one.text]
    with serving() as running:
        NameService({"site.example": ["127.0.0.1"]}).serve(running)
        names = {"PROXY": f"socks5h://127.0.0.1:{running.address[1]}"}
        exec(text, names)
        sshd.options("none", "site.example")  # writes known_hosts
        user, key = pwd.getpwuid(os.geteuid()).pw_name, str(sshd.directory / "user")
        known = str(sshd.directory / "known_hosts")
        assert names["run"]("echo through $((40 + 2))", "site.example", sshd.port, user, key, known) == "through 42\n"
        running.line(target=f"site.example:{sshd.port}")
