"""The supervisor and its workers: start, death, limits over all of them, the end."""

import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.configured import ALLOW, JSON, LISTEN, asked_as, children, configured, gone, tunnel_as, user
from helpers.serving import SERVE
from helpers.socks import connect5, dial, echoes, greet5, read_exactly, read_reply5, request5
from helpers.targets import closed_port
from helpers.waiting import PATIENCE, until
from loop.engine_helpers import is_reset

OPEN = LISTEN + JSON + ALLOW


# start


def test_all_workers_accept(tmp_path: Path, echo: tuple[str, int]) -> None:
    with configured(tmp_path, OPEN, workers=4) as server:
        assert len(set(server.workers(4)) | {server.process.pid}) == 5
        tunnels: list[socket.socket] = []

        def all_have_some() -> bool:
            tunnels.append(connect5(server.address, *echo))
            return all(row["tunnels"] for row in server.rows("status"))

        until(all_have_some, "every worker to have a tunnel")
        assert all(map(echoes, tunnels))
        numbers = [row["session"] for row in server.rows("sessions")]
        assert len(set(numbers)) == len(tunnels)
        for sock in tunnels:
            sock.close()
        assert server.stop() == 0


def test_listeners_of_both_families_are_told_with_the_ports_that_they_got(
    tmp_path: Path, echo: tuple[str, int]
) -> None:
    text = 'listen = ["127.0.0.1:0", "[::1]:0"]\n' + ALLOW
    with configured(tmp_path, text) as server:
        four, six = server.ports(2)
        assert four
        assert six
        for proxy in (("127.0.0.1", four), ("::1", six)):
            with connect5(proxy, *echo) as sock:
                assert echoes(sock)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_second_tabi_on_the_same_address_fails(tmp_path: Path, workers: int) -> None:
    with configured(tmp_path, OPEN, workers=workers) as server:
        port = server.ports()[0]
        other = tmp_path / "other"
        other.mkdir()
        with configured(other, f'listen = ["127.0.0.1:{port}"]\n', workers=workers) as second:
            until(lambda: second.process.poll() is not None, "the end")
            assert second.stop() == 1
            assert any("address in use" in line for line in second.errors), second.errors


def test_errors_of_the_file_are_all_told_with_their_lines(tmp_path: Path) -> None:
    with configured(tmp_path, 'listen = ["nowhere"]\n[[rule]]\nallow = "perhaps"\nprot = 1\n') as server:
        until(lambda: server.process.poll() is not None, "the end")
        assert server.stop() == 1
        told = "\n".join(server.errors)
        for line in (1, 3, 4):
            assert f"{server.file}:{line}" in told, told
        assert "Traceback" not in told


def test_a_control_socket_that_cannot_be_made_ends_it_all(tmp_path: Path) -> None:
    (tmp_path / "control.sock").write_text("precious")
    with configured(tmp_path, OPEN) as server:
        until(lambda: server.process.poll() is not None, "the end")
        assert server.stop() == 1
        assert (tmp_path / "control.sock").read_text() == "precious"
        assert "file of another kind" in server.errors[-1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_a_user_that_does_not_exist_ends_it_all_without_a_traceback(tmp_path: Path) -> None:
    with configured(tmp_path, 'run_as = "nobody-of-that-name"\n' + OPEN, workers=3) as server:
        until(lambda: server.process.poll() is not None, "the end")
        assert server.stop() == 1
        assert "useradd" in "\n".join(server.errors)
        assert "Traceback" not in "\n".join(server.errors)


# the service manager

# The program that takes the place of this one has the socket as descriptor 3, and keeps the process number.
ACTIVATE = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'}; "
    "os.execv(sys.argv[2], sys.argv[2:])"
)


def activated(listener: socket.socket) -> dict[str, Any]:
    """Have `configured` start the server as a service manager does."""
    fd = listener.fileno()
    return {"program": (sys.executable, "-c", ACTIVATE, str(fd), *SERVE), "pass_fds": [fd]}


def test_sockets_of_the_service_manager_are_shared_by_all_workers(tmp_path: Path, echo: tuple[str, int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with configured(tmp_path, ALLOW + JSON, **activated(listener)) as server:
            port = listener.getsockname()[1]
            assert server.ports() == [port]
            with connect5(server.address, *echo) as sock:
                assert echoes(sock)
                server.reload(ALLOW + JSON + "[time]\nhandshake = 5\n")
                assert echoes(sock)
            with connect5(server.address, *echo) as sock:
                assert echoes(sock)
            assert server.stop() == 0


def test_a_reload_says_that_spin_needs_a_restart(tmp_path: Path) -> None:
    with configured(tmp_path, OPEN, workers=1) as server:
        server.reload(OPEN + "[tunnel]\nspin = true\n")
        server.reload(OPEN + "[tunnel]\nspin = false\n")
        server.line("^tabi: warning: tunnel.spin changes only when the server is restarted")
        server.reload(OPEN)
        assert server.stop() == 0
        assert sum("tunnel.spin" in line for line in server.errors) == 1


def test_a_descriptor_that_is_no_listener_is_refused(tmp_path: Path) -> None:
    with socket.socket() as unbound:
        with configured(tmp_path, OPEN, **activated(unbound)) as server:
            until(lambda: server.process.poll() is not None, "the end")
            assert server.stop() == 1
            assert "no listening TCP socket" in server.errors[-1]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(PATIENCE)
        yield sock


def test_the_service_manager_is_told_of_start_reloads_and_end(tmp_path: Path, manager: socket.socket) -> None:
    env = os.environ | {"NOTIFY_SOCKET": manager.getsockname()}
    with configured(tmp_path, OPEN, env=env) as server:
        first = manager.recv(4096).decode().split("\n")
        assert first == ["READY=1", f"STATUS=listening on 127.0.0.1:{server.ports()[0]}"]
        server.reload(OPEN)
        os.kill(server.process.pid, signal.SIGHUP)
        for _ in range(2):
            assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", manager.recv(4096).decode())
            assert manager.recv(4096).decode().split("\n") == first
        server.write("listen = 1\n")
        assert not server.ask("reload")["ok"]
        assert manager.recv(4096).startswith(b"RELOADING=1")
        assert manager.recv(4096).decode().split("\n") == first
        assert server.stop() == 0
        assert manager.recv(4096) == b"STOPPING=1"


def test_the_watchdog_is_fed(tmp_path: Path, manager: socket.socket) -> None:
    env = os.environ | {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "20000"}
    with configured(tmp_path, OPEN, env=env):
        assert manager.recv(4096).startswith(b"READY=1")
        assert [manager.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3


# limits over all workers

WORKERS = 4
LIMITED = LISTEN + JSON + user("alice", b"secret", "sessions = 2") + user("bob") + ALLOW


def test_a_limit_of_two_sessions_holds_over_four_workers(tmp_path: Path, echo: tuple[str, int]) -> None:
    with configured(tmp_path, LIMITED, workers=WORKERS) as server:
        let_in = []
        for _ in range(12):  # one after the other: nothing races, so nothing overshoots
            sock, reply = asked_as(server.address, b"alice", echo)
            let_in.append(sock) if reply == 0 else sock.close()
        assert len(let_in) == 2
        assert server.record(user="alice", why="limit:user-sessions")
        with tunnel_as(server.address, b"bob", echo) as other:
            assert echoes(other)
        for sock in let_in:
            sock.close()
        until(lambda: not server.rows("sessions", user="alice"), "alice's sessions to end")
        with tunnel_as(server.address, b"alice", echo), tunnel_as(server.address, b"alice", echo):
            pass


def test_all_at_once_overshoot_by_workers_less_one_at_most(tmp_path: Path, echo: tuple[str, int]) -> None:
    with configured(tmp_path, LIMITED, workers=WORKERS) as server:
        socks = []
        for _ in range(24):
            sock = dial(server.address)
            sock.sendall(b"\x05\x01\x02\x01\x05alice\x06secret" + request5(1, *echo))
            socks.append(sock)
        replies = []
        for sock in socks:
            assert read_exactly(sock, 4) == b"\x05\x02\x01\x00"
            replies.append(read_reply5(sock)[0])
        assert 1 <= replies.count(0) <= 2 + WORKERS - 1
        for sock in socks:
            sock.close()


def test_a_cap_of_two_connections_per_client_holds_over_four_workers(tmp_path: Path, echo: tuple[str, int]) -> None:
    with configured(tmp_path, OPEN + "[cap]\nper_client = 2\n", workers=WORKERS) as server:
        kept = [connect5(server.address, *echo), connect5(server.address, *echo)]
        for _ in range(8):
            with dial(server.address) as sock:
                assert is_reset(sock) or sock.recv(1) == b""
        for sock in kept:
            assert echoes(sock)
            sock.close()
        until(lambda: not server.rows("sessions"), "the sessions to end")
        with connect5(server.address, *echo) as sock:
            assert echoes(sock)


# death


def test_the_successor_of_a_killed_worker_serves_who_waits_and_counts_from_nothing(
    tmp_path: Path, echo: tuple[str, int]
) -> None:
    with configured(tmp_path, LIMITED, workers=2) as server:
        first = server.workers(2)
        for _ in range(6):
            tunnel_as(server.address, b"bob", echo).close()
        until(lambda: len(server.records) == 6, "their lines")
        kept = [tunnel_as(server.address, b"alice", echo) for _ in range(2)]
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        waiting = [dial(server.address) for _ in range(8)]  # nobody is there to accept them
        for sock in waiting:
            sock.sendall(b"\x05\x01\x02\x01\x03bob\x06secret" + request5(1, *echo))
        for sock in waiting:
            assert read_exactly(sock, 4) == b"\x05\x02\x01\x00"
            assert read_reply5(sock)[0] == 0
            assert echoes(sock)
            sock.close()
        for sock in kept:
            assert is_reset(sock) or sock.recv(1) == b""
            sock.close()
        with tunnel_as(server.address, b"alice", echo), tunnel_as(server.address, b"alice", echo) as sock:
            assert echoes(sock)
        assert not set(server.workers(2)) & set(first)
        until(lambda: len(server.records) >= 6 + 8 + 2, "the lines of the successors")
        numbers = [record["session"] for record in server.records]
        assert len(set(numbers)) == len(numbers)  # none is given anew
        for pid in first:
            server.line(rf"process {pid}\) ended with -9")
        server.reload(LIMITED)
        assert server.stop() == 0


# the end


def test_sigterm_lets_sessions_finish(tmp_path: Path, echo: tuple[str, int]) -> None:
    with configured(tmp_path, OPEN + "[time]\ndrain = 3600\n") as server:
        port = server.ports()[0]
        with connect5(server.address, *echo) as sock:
            os.kill(server.process.pid, signal.SIGTERM)
            until(lambda: not listens(port), "the listener to be closed")
            assert echoes(sock)
            assert server.process.poll() is None
        until(lambda: server.process.poll() is not None, "the end")
        assert server.stop() == 0
        assert server.record(why="fin")
        assert not server.control.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(tmp_path: Path, echo: tuple[str, int], number: int) -> None:
    with configured(tmp_path, OPEN + "[time]\ndrain = 3600\n") as server:
        port = server.ports()[0]
        pids = server.workers(2)
        with connect5(server.address, *echo) as sock:
            os.kill(server.process.pid, number)
            until(lambda: not listens(port), "the listener to be closed")
            assert server.stop(number) == 0
            assert is_reset(sock)
        gone(pids)
        assert server.record(why="shutdown")
        assert not server.control.exists()


def test_a_signal_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    with configured(tmp_path, OPEN, workers=4) as server:
        until(lambda: children(server.process.pid), "a worker to be started")
        pids = children(server.process.pid)
        assert server.stop() == 0
        gone(pids)


def test_workers_end_when_the_supervisor_is_killed(tmp_path: Path, echo: tuple[str, int]) -> None:
    with configured(tmp_path, OPEN + "[time]\ndrain = 3600\n", workers=3) as server:
        port, pids = server.ports()[0], server.workers(3)
        with connect5(server.address, *echo) as sock:
            os.kill(server.process.pid, signal.SIGKILL)
            gone(pids)
            assert is_reset(sock)
        with socket.create_server(("127.0.0.1", port)):
            pass
        server.stop()


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


# the log


def test_lines_of_all_workers_stay_whole_in_one_pipe(tmp_path: Path) -> None:
    each, clients = 60, 8
    nobody = closed_port()
    with configured(tmp_path, OPEN, workers=4) as server:
        for _ in range(each):
            socks = [greet5(server.address) for _ in range(clients)]
            for sock in socks:
                sock.sendall(request5(1, "127.0.0.1", nobody))
            for sock in socks:
                assert read_reply5(sock)[0] == 5  # connection refused
                sock.close()
        assert server.stop() == 0
        assert all(record["reply"] == 5 for record in server.records)
        held = sum(int(re.findall(r"(\d+) more failed", record["note"])[0]) for record in server.records
                   if "more failed" in record.get("note", ""))  # fmt: skip
        told = sum(int(match[1]) for line in server.errors if (match := re.search(r"(\d+) failed sessions of", line)))
        assert len(server.records) + held + told == each * clients
