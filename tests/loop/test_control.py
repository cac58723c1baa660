"""The control socket: who may, what can be asked, and what clients of it cannot do."""

import json
import os
import resource
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.configured import ALLOW, JSON, LISTEN, Configured, configured, logged_in, tabi, tunnel_as, user
from helpers.socks import dial, echoes, read_all, read_exactly
from helpers.udp import Association
from helpers.waiting import PATIENCE, until
from loop.engine_helpers import is_reset

OPEN = LISTEN + JSON + ALLOW
STANDARD = 3  # descriptors that every process has; a limit of so many leaves none to open
TRIES = 3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Configured]:
    with configured(tmp_path, OPEN + user("alice") + user("bob")) as running:
        running.workers(2)
        yield running


def says(server: Configured, data: bytes, *, fin: bool = False) -> bytes:
    """Send bytes to the socket and read to the end."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(server.control))
        try:
            sock.sendall(data)
            if fin:
                sock.shutdown(socket.SHUT_WR)
            return read_all(sock)
        except (BrokenPipeError, ConnectionResetError):
            return b""


# the socket


def test_only_its_owner_can_use_it(server: Configured) -> None:
    status = server.control.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_uid == os.geteuid()
    assert server.line("control socket").endswith(f"control socket {server.control}")


def test_one_that_a_dead_server_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "control.sock"))
    with configured(tmp_path, OPEN) as server:
        assert len(server.workers(2)) == 2
        assert server.stop() == 0
        assert not server.control.exists()


def test_one_that_a_server_listens_on_is_left_alone(server: Configured, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "control.sock").symlink_to(server.control)
    with configured(other, OPEN) as second:
        until(lambda: second.process.poll() is not None, "the end")
        assert second.stop() == 1
        assert "another tabi listens there" in second.errors[-1]
    assert len(server.rows("status")) == 2


@pytest.mark.parametrize("path", ["x" * 200, "file/control"], ids=["too long", "below a file"])
def test_a_path_that_cannot_be_used_is_told(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "tabi.toml").write_text(OPEN)
    done = tabi("serve", "--config", str(tmp_path / "tabi.toml"), "--workers", "1", "--control", str(tmp_path / path))
    assert done.returncode == 1
    assert "choose another path by --control" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_that_has_to_wait_for_a_descriptor_is_told_once_and_answered(server: Configured) -> None:
    assert len(server.rows("status")) == 2
    before = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    for _ in range(2):  # it is told anew once it could be accepted
        told = len(server.errors)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (STANDARD, before[1]))
            sock.connect(str(server.control))
            sock.sendall(b'{"do": "status"}\n')
            until(lambda told=told: len(server.errors) > told, "a line about it")
            turns = switches(server.process.pid)
            until(lambda turns=turns: switches(server.process.pid) > turns + TRIES, "several tries")
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)
            assert json.loads(read_all(sock))["running"] == 2
        assert server.errors[told:] == [
            "tabi: error: the control socket cannot accept: Too many open files; tried again until it can"
        ]


def switches(process: int) -> int:
    """Count how often a process has gone to sleep and been woken: each try to accept is once."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


# clients that mean ill


NONSENSE = [
    b"\n",
    b"garbage\n",
    b"[]\n",
    b"{}\n",
    b"null\n",
    b'"do"\n',
    b"\xff\xfe\x00\n",
    b"[" * 20_000 + b"\n",
    b'{"do": 1}\n',
    b'{"do": ["reload"]}\n',
    b'{"do": "explode"}\n',
    b'{"do": "sessions", "arguments": []}\n',
    b'{"do": "sessions", "arguments": null}\n',
    b'{"do": "sessions", "arguments": {"user": 1}}\n',
    b'{"do": "sessions", "arguments": {"color": "red"}}\n',
    b'{"do": "kill", "arguments": {"user": ["*"]}}\n',
    b'{"do": "lift", "arguments": {"client": "nobody"}}\n',
    b'{"do": "lift", "arguments": {"client": ""}}\n',
    b'{"do": "lift", "arguments": {"host": "127.0.0.1"}}\n',
    b'{"do": "status", "arguments": {"user": "alice"}}\n',
]


def test_what_makes_no_sense_is_refused_and_hurts_nobody(server: Configured) -> None:
    pids = server.workers(2)
    for wish in NONSENSE:
        answer = json.loads(says(server, wish))
        assert answer["ok"] is False, wish
        assert answer["error"]
    assert server.workers(2) == pids
    assert not [line for line in server.errors if "Traceback" in line]


def test_any_text_to_pick_by_is_answered(server: Configured) -> None:
    pids = server.workers(2)
    for text in ("\\ud800", "\\udcff", "\\u0000", "[", "[!", "\\\\", "*" * 50):
        for wish in ("sessions", "kill", "lift"):
            assert json.loads(says(server, f'{{"do": "{wish}", "arguments": {{"user": "{text}"}}}}\n'.encode()))
    assert server.workers(2) == pids


def test_a_line_without_end_and_silent_clients_do_not_hurt(server: Configured) -> None:
    silent = []
    for _ in range(50):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(server.control))
        sock.send(b'{"do": ')
        silent.append(sock)
    assert says(server, b"x" * 1_000_000) == b""
    assert json.loads(says(server, b'{"do": "status"', fin=True))["ok"] is False
    with socket.socket(socket.AF_UNIX) as sock:  # goes away without waiting for the answer
        sock.connect(str(server.control))
        sock.send(b'{"do": "reload"}\n')
    assert len(server.rows("status")) == 2
    assert server.stop() == 0
    for sock in silent:
        sock.close()
    assert not [line for line in server.errors if "Traceback" in line]


# sessions


def test_sessions_are_listed_in_every_stage_and_picked(server: Configured, echo: tuple[str, int]) -> None:
    with (
        dial(server.address) as silent,
        tunnel_as(server.address, b"alice", echo) as alice,
        tunnel_as(server.address, b"bob", echo) as bob,
    ):
        assert echoes(alice)
        assert silent
        # The echo is counted when it has been sent, and may be read before.
        (row,) = until(lambda: [it for it in server.rows("sessions", user="alice") if it["down"]], "the echo to count")
        assert row["stage"] == "relay"
        assert (row["command"], row["target"], row["to"]) == ("connect", f"127.0.0.1:{echo[1]}", f"127.0.0.1:{echo[1]}")
        assert (row["up"], row["down"], row["rule"], row["worker"] in (0, 1)) == (4, 4, "all", True)
        assert row["client"] == f"127.0.0.1:{alice.getsockname()[1]}"
        until(lambda: len(server.rows("sessions")) == 3, "the silent one to be accepted")
        assert [one["stage"] for one in server.rows("sessions", user="")] == ["handshake"]
        assert len(server.rows("sessions", client="127.0.0.1")) == 3
        assert len(server.rows("sessions", client="127.*", user="?*")) == 2
        assert server.rows("sessions", session=str(row["session"]))[0]["user"] == "alice"
        assert not server.rows("sessions", user="bob", target="*:1")
        shown = server.tabi("sessions", "user=alice")
        assert shown.returncode == 0
        assert [line.split()[0] for line in shown.stdout.splitlines()] == ["session", str(row["session"])]
        as_json = json.loads(server.tabi("sessions", "user=bob", "--json").stdout)
        assert as_json["rows"][0]["client"].endswith(f":{bob.getsockname()[1]}")


def test_kill_resets_both_sides_of_those_that_match(server: Configured) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        there = listener.getsockname()
        alice, far = tunnel_as(server.address, b"alice", there), listener.accept()[0]
        bob, stays = tunnel_as(server.address, b"bob", there), listener.accept()[0]
        for sock in (far, stays):
            sock.settimeout(PATIENCE)
        done = server.tabi("sessions", "user=alice", "--kill")
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) == 2
        assert is_reset(alice)
        assert is_reset(far)
        assert server.record(user="alice", why="kill", by="tabi")
        bob.sendall(b"still here")
        assert read_exactly(stays, 10) == b"still here"
        for sock in (alice, far, bob, stays):
            sock.close()


def test_kill_ends_handshakes_and_associations_as_well(tmp_path: Path) -> None:
    with configured(tmp_path, OPEN) as server:
        with dial(server.address) as silent, Association(server.address) as association:
            until(lambda: len(server.rows("sessions")) == 2, "both")
            assert len(server.rows("kill", session="*")) == 2
            assert is_reset(silent)
            assert is_reset(association.control)
        assert {server.record(command="udp_associate")["why"], server.record(command="udp_associate")["by"]} == {
            "kill",
            "tabi",
        }
        until(lambda: not server.rows("sessions"), "none to be left")


# lockouts


def test_failed_logins_of_all_workers_are_listed_and_lifted(server: Configured) -> None:
    for _ in range(2):
        with dial(server.address) as sock:
            sock.sendall(b"\x05\x01\x02\x01\x05alice\x05wrong")
            assert read_exactly(sock, 4) == b"\x05\x02\x01\x01"
    (row,) = server.rows("lockouts")
    assert (row["user"], row["client"], row["failures"]) == ("alice", "127.0.0.1", 2)
    shown = server.tabi("lockouts")
    assert shown.returncode == 0
    assert "alice" in shown.stdout
    assert json.loads(server.tabi("lockouts", "--json").stdout)["ok"]
    assert len([line for line in server.tabi("lockouts").stdout.splitlines() if "alice" in line]) == 1
    assert server.tabi("lockouts", "--lift", "--user", "bob").stdout.split() == ["lifted", "0"]
    assert server.rows("lockouts")
    lifted = server.tabi("lockouts", "--lift", "--client", "127.0.0.1", "--user", "alice")
    assert lifted.stdout.split() == ["lifted", "1"]
    assert server.rows("lockouts") == []
    logged_in(server.address, b"alice").close()


# the commands


@pytest.mark.parametrize("name", ["reload", "status", "sessions", "lockouts"])
def test_without_a_server_the_error_is_clear(tmp_path: Path, name: str) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale"))
    for path in ("stale", "missing"):
        done = tabi(name, "--control", str(tmp_path / path))
        assert done.returncode == 1
        assert "is the server running?" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["sessions", "color=red"], "color"),
        (["sessions", "alice"], "FIELD=VALUE"),
        (["sessions", "--kill"], "--kill needs a filter"),
        (["lockouts", "--lift", "--client", "nobody"], "is no client"),
        (["lockouts", "--user", "alice"], "--lift"),
    ],
)
def test_wrong_wishes_are_told(server: Configured, arguments: list[str], text: str) -> None:
    done = server.tabi(*arguments)
    assert done.returncode != 0
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_commands_answer_in_json(server: Configured, echo: tuple[str, int]) -> None:
    assert json.loads(server.tabi("reload", "--json").stdout)["ok"]
    assert [row["worker"] for row in json.loads(server.tabi("status", "--json").stdout)["rows"]] == [0, 1]
    server.write("listen = 1\n")
    done = server.tabi("reload", "--json")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    assert f"{server.file}:1" in answer["error"]
    assert answer["problems"] == json.loads(tabi("check", "--json", str(server.file)).stdout)["problems"]
    assert [one["line"] for one in answer["problems"]] == [1]
    with tunnel_as(server.address, b"alice", echo) as sock:
        assert echoes(sock)


def test_warnings_are_folded_for_people_and_whole_in_json(server: Configured) -> None:
    server.write(OPEN + '[[rule]]\nallow = true\nto = "10.0.0.0/8"\n' * 30)
    done = server.tabi("reload")
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert len([line for line in lines if "can never match: rule" in line]) == 20
    assert lines[20:] == [
        f"{server.file}: warning: 10 more of 30: can never match; `tabi check {server.file}` lists all"
    ]
    server.line(f"^tabi: {lines[20]}$")
    assert len([line for line in server.errors if "can never match: rule" in line]) == 20
    answer = json.loads(server.tabi("reload", "--json").stdout)
    assert len(answer["problems"]) == 30
    assert answer["problems"] == json.loads(tabi("check", "--json", str(server.file)).stdout)["problems"]


def test_reload_says_so(server: Configured) -> None:
    done = server.tabi("reload")
    assert (done.returncode, done.stdout) == (0, "reloaded\n")
    server.line("tabi.toml: reloaded")


def test_status_names_each_worker(server: Configured, echo: tuple[str, int]) -> None:
    with tunnel_as(server.address, b"alice", echo):
        lines = server.tabi("status").stdout.splitlines()
        assert lines[0].split() == ["worker", "pid", "sessions", "tunnels"]
        assert [int(line.split()[1]) for line in lines[1:]] == server.workers(2)
        assert sum(int(line.split()[3]) for line in lines[1:]) == 1
