"""Dante's socksify: CONNECT under curl, UDP under a small client, active FTP through BIND.

Left alone socksify goes straight to loopback and to the local network, and straight wherever no proxy will do: two
variables forbid it, or the tests would pass without us. `resolveprotocol: fake` sends names to the proxy.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.members import Members
from helpers.names import ONLY_HERE, teach
from helpers.programs import need, run, running, wait_for_port
from helpers.serving import command, serving
from helpers.targets import closed_port, datagram_echo
from helpers.web import PAGE, noise, sha256, site

VERSIONS = ["4", "5"]
SIZE = 2_000_000
CONNECTION_FAILED = 7  # curl knows of no proxy here

UDP_CLIENT = """
import socket, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.settimeout(20)
    for number in range(count):
        sock.sendto(b"datagram %d" % number, (host, port))
        data, source = sock.recvfrom(2048)
        print(data.decode(), "from", *source)
"""

VSFTPD = """
listen=YES
listen_address=127.0.0.1
listen_port={port}
background=NO
run_as_launching_user=YES
secure_chroot_dir={root}
seccomp_sandbox=NO
anonymous_enable=YES
no_anon_password=YES
local_enable=NO
anon_root={root}
write_enable=YES
anon_upload_enable=YES
port_enable=YES
pasv_enable=NO
connect_from_port_20=NO
xferlog_enable=NO
vsftpd_log_file={log}
"""


def socksify(
    directory: Path,
    proxy: tuple[str, int],
    version: str,
    *arguments: str | Path,
    method: str = "none",
    user: str = "anna",
    sends: bytes = b"",
) -> subprocess.CompletedProcess[bytes]:
    configuration = directory / "socks.conf"
    configuration.write_text(
        f"logoutput: {directory / 'socks.log'}\n"
        "resolveprotocol: fake\n"
        f"route {{ from: 0.0.0.0/0 to: 0.0.0.0/0 via: {proxy[0]} port = {proxy[1]}\n"
        f"  proxyprotocol: socks_v{version}\n  protocol: tcp udp\n"
        f"  command: connect bind udpassociate\n  method: {method} }}\n"
    )
    environment = {
        "SOCKS_CONF": str(configuration),
        "SOCKS_AUTOADD_LANROUTES": "no",
        "SOCKS_DIRECTROUTE_FALLBACK": "no",
        "SOCKS_USERNAME": user,
        "SOCKS_PASSWORD": "secret",
    }
    return run(need("socksify"), *arguments, environment=environment, sends=sends, cwd=directory)


def curl(*arguments: str | Path) -> tuple[str | Path, ...]:
    return (need("curl"), "--disable", "--silent", "--show-error", "--max-time", "60", *arguments)


@contextmanager
def vsftpd(directory: Path) -> Iterator[str]:
    """Run vsftpd, active mode only, with a file to get and a place to put; yields its URL."""
    program = need("vsftpd")
    root, log = directory / "ftp", directory / "vsftpd.log"
    (root / "incoming").mkdir(parents=True)
    (root / "file").write_bytes(noise(SIZE))
    root.chmod(0o555)  # vsftpd serves no root that can be written to
    port = closed_port()
    configuration = directory / "vsftpd.conf"
    configuration.write_text(VSFTPD.format(port=port, root=root, log=directory / "vsftpd.own.log"))
    try:
        with running(program, configuration, log=log) as process:
            wait_for_port(("127.0.0.1", port), process, log)
            yield f"ftp://127.0.0.1:{port}"
    finally:
        root.chmod(0o755)


@pytest.mark.parametrize("version", VERSIONS)
def test_connect_by_address(version: str, tmp_path: Path) -> None:
    with site() as web, serving() as server:
        done = socksify(tmp_path, server.address, version, *curl(web.url()))
        assert (done.returncode, done.stdout) == (0, PAGE), done.stderr
        server.line(socks=version, to=f"127.0.0.1:{web.port}", by="client", why="fin")


def test_connect_by_name(tmp_path: Path) -> None:
    with site() as web, serving() as server:
        teach(server, "127.0.0.1")
        done = socksify(tmp_path, server.address, "5", *curl(web.url(host=ONLY_HERE)))
        assert (done.returncode, done.stdout) == (0, PAGE), done.stderr
        server.line(socks="5", target=f"{ONLY_HERE}:{web.port}")


@pytest.mark.parametrize("version", VERSIONS)
def test_refused_target_is_told(version: str, tmp_path: Path) -> None:
    with serving() as server:
        done = socksify(tmp_path, server.address, version, *curl(f"http://127.0.0.1:{closed_port()}/"))
        assert done.returncode == CONNECTION_FAILED
        server.line(socks=version, reply=5)


@pytest.mark.parametrize(("user", "is_right"), [("anna", True), ("nick", False)])
def test_password_decides(user: str, is_right: bool, tmp_path: Path, members: Members) -> None:
    with site() as web:
        done = socksify(tmp_path, members.address, "5", *curl(web.url()), method="username", user=user)
        assert done.stdout == (PAGE if is_right else b"")
        assert members.line(user=user)["why"] == ("fin" if is_right else "auth")
        assert web.connections == is_right


@pytest.mark.parametrize("name", ["127.0.0.1", ONLY_HERE])
def test_udp_datagrams_go_and_come(name: str, tmp_path: Path) -> None:
    with datagram_echo() as (host, port), serving() as server:
        teach(server, host)
        done = socksify(tmp_path, server.address, "5", sys.executable, "-I", "-c", UDP_CLIENT, name, str(port), "5")
        expected = "".join(f"datagram {number} from {host} {port}\n" for number in range(5))
        assert (done.returncode, done.stdout.decode()) == (0, expected), done.stderr
        server.line(command="udp_associate", up=50, down=50, by="client")


@pytest.mark.parametrize("version", VERSIONS)
def test_active_ftp_download_through_bind(version: str, tmp_path: Path) -> None:
    with vsftpd(tmp_path) as url, serving() as server:
        done = socksify(tmp_path, server.address, version, *curl("--ftp-port", "-", "-o", "got", f"{url}/file"))
        assert done.returncode == 0, done.stderr
        assert sha256((tmp_path / "got").read_bytes()) == sha256(noise(SIZE))
        server.line(socks=version, command="bind", reply=0, up=0, down=SIZE, by="target", why="fin")


@pytest.mark.parametrize("version", VERSIONS)
def test_active_ftp_upload_through_bind(version: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(noise(SIZE))
    with vsftpd(tmp_path) as url, serving() as server:
        upload = ("--ftp-port", "-", "--upload-file", "mine", f"{url}/incoming/")
        done = socksify(tmp_path, server.address, version, *curl(*upload))
        assert done.returncode == 0, done.stderr
        assert sha256((tmp_path / "ftp/incoming/mine").read_bytes()) == sha256(noise(SIZE))
        server.line(socks=version, command="bind", reply=0, up=SIZE, down=0, by="client", why="fin")


def test_tnftp_gets_several_files_each_through_a_bind_of_its_own(tmp_path: Path) -> None:
    with vsftpd(tmp_path) as url, serving() as server:
        host, port = url.removeprefix("ftp://").split(":")
        wishes = b"user anonymous x\nget file one\nget file two\nquit\n"
        done = socksify(tmp_path, server.address, "5", need("tnftp"), "-A", "-n", host, port, sends=wishes)
        assert done.returncode == 0, done.stderr
        for name in ("one", "two"):
            assert sha256((tmp_path / name).read_bytes()) == sha256(noise(SIZE)), done.stdout
        server.idle()
        assert [line["down"] for line in server.lines if line["command"] == "bind"] == [SIZE, SIZE]


def test_the_command_serves_bind_and_logs(tmp_path: Path) -> None:
    with vsftpd(tmp_path) as url, command("--log-format", "json") as tabi:
        proxy = ("127.0.0.1", tabi.ports(2)[0])
        done = socksify(tmp_path, proxy, "5", *curl("--ftp-port", "-", "-o", "got", f"{url}/file"))
        assert done.returncode == 0, done.stderr
        line = tabi.record(command="bind")
        assert line["target"].startswith("127.0.0.1:")
        assert (line["reply"], line["up"], line["down"]) == (0, 0, SIZE)
        assert (line["by"], line["why"]) == ("target", "fin")
        assert tabi.stop() == 0
