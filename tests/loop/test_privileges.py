"""Workers that become another user: what they cannot do any more, and that all the rest goes on."""

import os
import pwd
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.configured import ALLOW, JSON, Configured, asked_as, configured, tunnel_as, user
from helpers.socks import dial, echoes, read_exactly
from helpers.waiting import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")


@pytest.fixture
def somebody() -> pwd.struct_passwd:
    """Find a user that every system has."""
    for name in ("nobody", "daemon"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("neither nobody nor daemon exists here")


def low_port(*but: int) -> int:
    """Find a free port that root alone may listen on."""
    limit = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if limit < 2:
        pytest.skip("every port of this host is free to all")
    for port in range(min(limit, 1024) - 1, 0, -1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in but:
            return port
    pytest.skip("no low port is free")


def text(somebody: pwd.struct_passwd, *ports: int) -> str:
    listeners = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
    head = f'run_as = "{somebody.pw_name}"\nlisten = [{listeners}]\n'
    return head + JSON + user("alice", b"secret", "sessions = 2") + user("bob") + ALLOW


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@pytest.fixture
def port() -> int:
    return low_port()


@pytest.fixture
def server(tmp_path: Path, somebody: pwd.struct_passwd, port: int) -> Iterator[Configured]:
    with configured(tmp_path, text(somebody, port)) as running:
        running.workers(2)
        yield running


def test_workers_are_somebody_else_for_good_and_the_supervisor_is_root(
    server: Configured, somebody: pwd.struct_passwd
) -> None:
    assert status(server.process.pid)["Uid"].split() == ["0"] * 4
    for pid in server.workers(2):
        seen = status(pid)
        # real, effective, saved, of the file system: with none of them 0 there is no way back (setuid(2))
        assert seen["Uid"].split() == [str(somebody.pw_uid)] * 4
        assert seen["Gid"].split() == [str(somebody.pw_gid)] * 4
        assert seen["Groups"] == ""
        assert [int(seen[kind], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0] * 4
        assert seen["NoNewPrivs"] == "1"


def test_the_control_socket_is_roots(server: Configured) -> None:
    status = server.control.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o600)


def test_logins_limits_and_the_log_work(server: Configured, echo: tuple[str, int]) -> None:
    let_in = []
    for _ in range(8):  # however they fall to the two workers, who count in shared memory
        sock, reply = asked_as(server.address, b"alice", echo)
        let_in.append(sock) if reply == 0 else sock.close()
    assert len(let_in) == 2
    assert all(map(echoes, let_in))
    with dial(server.address) as sock:
        sock.sendall(b"\x05\x01\x02\x01\x05alice\x05wrong")
        assert read_exactly(sock, 4) == b"\x05\x02\x01\x01"
    for sock in let_in:
        sock.close()
    assert server.record(user="alice", why="fin")
    assert server.record(user="alice", why="limit:user-sessions")
    assert server.record(user="alice", why="auth")
    assert server.rows("sessions", user="bob") == []


def test_a_reload_opens_another_low_port_and_keeps_sessions(
    server: Configured, somebody: pwd.struct_passwd, port: int, echo: tuple[str, int]
) -> None:
    another = low_port(port)
    with tunnel_as(server.address, b"bob", echo) as kept:
        server.reload(text(somebody, another))
        assert echoes(kept)
        with tunnel_as(("127.0.0.1", another), b"bob", echo) as sock:
            assert echoes(sock)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_successor_is_somebody_else_as_well(
    server: Configured, somebody: pwd.struct_passwd, echo: tuple[str, int]
) -> None:
    first = server.workers(2)
    os.kill(first[0], 9)
    server.line("worker 0 .* ended with -9")
    second = until(lambda: [pid for pid in server.workers(2) if pid not in first], "the successor")
    assert status(second[0])["Uid"].split() == [str(somebody.pw_uid)] * 4
    for _ in range(6):
        with tunnel_as(server.address, b"bob", echo) as sock:
            assert echoes(sock)


def test_a_first_hash_and_a_first_name_that_come_by_a_reload_can_be_had(
    tmp_path: Path, somebody: pwd.struct_passwd, port: int, echo: tuple[str, int]
) -> None:
    """What they need is read from the disk when it is first wanted, and there only root may be able to read."""
    full = text(somebody, port)
    with configured(tmp_path, full[: full.index("[[user]]")] + ALLOW) as server:
        server.ports()
        server.reload(full)
        sock, reply = asked_as(server.address, b"bob", (b"localhost", echo[1]))  # type: ignore[arg-type]  # a name
        assert reply == 0
        with sock:
            assert echoes(sock)
