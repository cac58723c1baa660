"""Log forging under a configuration: what clients choose, in the log, in lists on a terminal, in explanations.

Comments such as A16 are rows of the project's catalogue of adversarial inputs.
"""

import itertools
import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from helpers.configured import ALLOW, JSON, LISTEN, Configured, configured, logged_in, tabi, user
from helpers.hostile import NO_AUTH, USERPASS, login
from helpers.socks import dial, read_all, request4, request5
from helpers.targets import target
from helpers.waiting import until

EVIL = {
    "a line": b"x\n2026-11-20T00:00:00.000Z session=1 user=root",
    "CR": b"x\rsession=1",
    "a field": b"x user=root why=fin",
    "quotes": b'x" user="root',
    "JSON": b'x", "user": "root", "y": "',
    "backslashes": b"x\\",
    "colours": b"\x1b[31mred\x1b[0m",
    "a title": b"\x1b]0;owned\x07",
    "CSI of one byte": b"\x9b2J",
    "CSI as UTF-8": "\u009b2J".encode(),
    "DEL": b"x\x7f",
    "no UTF-8": b"\xff\xfe\xc3",
    "a surrogate": b"\xed\xa0\x80",
    "right to left": "\u202etxt.exe".encode(),
    "line separator": "x\u2028y".encode(),
    "wide": "用户\u3000名".encode(),
}
CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
SENT_ON = {key: name for key, name in EVIL.items() if not CONTROL.search(name)}
"""Those that may be a user's name as far as the handshake is concerned."""
HEAD = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z session=\d+ client=127\.[0-9.]+:\d+ listener=127\.0\.0\.1:\d+ "
WORD = r'(?:[A-Za-z0-9._:/@\[\]+,-]+|"(?:[^"\\]|\\.)*")'
FIELD = f"[a-z_0-9]+={WORD}"
LINE = re.compile(f"{HEAD}{FIELD}(?: {FIELD})*")
SOURCES = (f"127.0.{third}.{last}" for third, last in itertools.product(range(3, 250), range(1, 250)))
"""Each conversation has a client of its own: of one client's failed sessions not all have a line."""
OPEN = 'auth = "any"\n' + LISTEN + user("alice") + '[[client]]\nfrom = "127.0.0.0/8"\nsocks4 = true\n' + ALLOW


@pytest.fixture(scope="module", params=["text", "json"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    """Run a server with workers that writes one of the formats."""
    text = OPEN + f'[log]\nformat = "{request.param}"\n'
    with configured(tmp_path_factory.mktemp("log"), text) as running:
        running.workers(2)
        yield running


def fields(line: str) -> dict[str, str]:
    """Take a line of either format apart."""
    if line.startswith("{"):
        return {key: str(value) for key, value in json.loads(line).items()}
    assert LINE.fullmatch(line), line
    found = dict(re.findall(f" ([a-z_0-9]+)=({WORD})", line))
    return {key: re.sub(r"\\(.)", r"\1", value.strip('"')) for key, value in found.items()}


def converse(server: Configured, sends: bytes) -> dict[str, str]:
    """Send, read to the end, and give the fields of the one new line."""
    before = len(server.sessions)
    with dial(server.address, (next(SOURCES), 0)) as sock:
        own = "{}:{}".format(*sock.getsockname())
        sock.sendall(sends)
        sock.shutdown(socket.SHUT_WR)
        read_all(sock)
    line = until(lambda: next((one for one in server.sessions[before:] if own in one), ""), f"the line of {own}")
    assert line.isprintable()
    assert line.isascii() or not line.startswith("{")
    assert len(server.sessions) == before + 1
    return fields(line)


def test_a_line_is_read_as_it_is_written(server: Configured) -> None:
    with target() as there:
        found = converse(server, NO_AUTH + request5(1, *there))
    assert (found["command"], found["target"], found["reply"]) == ("connect", f"127.0.0.1:{there[1]}", "0")


@pytest.mark.parametrize("name", EVIL.values(), ids=EVIL)
def test_a_user_name_forges_nothing(server: Configured, name: bytes) -> None:
    found = converse(server, USERPASS + login(name, b"guess"))
    assert (found["why"], found.get("reply")) == ("auth", None)
    assert found.get("user") != "root"
    assert ("user" in found) == (not CONTROL.search(name))


@pytest.mark.parametrize("name", EVIL.values(), ids=EVIL)
def test_a_userid_forges_nothing(server: Configured, name: bytes) -> None:
    with target() as there:
        found = converse(server, request4(1, *there, userid=name))
    assert (found["socks"], found["why"], found["reply"]) == ("4", "fin", "0")
    assert "user" not in found
    assert found["userid"] != "root"


@pytest.mark.parametrize("name", EVIL.values(), ids=EVIL)
@pytest.mark.parametrize("version", ["5", "4a"])
def test_a_target_forges_nothing(server: Configured, name: bytes, version: str) -> None:
    five = NO_AUTH + request5(1, name, 80)
    found = converse(server, five if version == "5" else request4(1, "0.0.0.1", 80, b"", name))
    assert (found["why"], found["command"]) == ("protocol", "connect")
    assert "user" not in found


# what is shown on a terminal


@pytest.mark.parametrize("name", SENT_ON.values(), ids=SENT_ON)
def test_names_in_the_list_of_failed_logins_do_nothing_to_a_terminal(server: Configured, name: bytes) -> None:
    converse(server, USERPASS + login(name, b"guess"))
    until(lambda: server.rows("lockouts"), "the failure")
    listed = server.tabi("lockouts").stdout.splitlines()
    assert all(map(str.isprintable, listed))
    assert {len(re.split(" {2,}", line)) for line in listed} == {6}
    json.loads(server.tabi("lockouts", "--json").stdout)
    assert server.tabi("lockouts", "--lift").returncode == 0


def test_user_names_in_the_list_of_sessions_do_nothing_to_a_terminal(tmp_path: Path) -> None:
    names = ["x  relay  0", 'x"  "y', "-", "\\", "用户\u00a0名"]
    guessed = "\u009b2J\u202e"  # whose failures have the next ones wait
    text = LISTEN + JSON + ALLOW + "".join(user(json.dumps(name)[1:-1]) for name in names[:4])
    with target() as there, configured(tmp_path, text) as server, ExitStack() as stack:
        for name in names[:4]:
            stack.enter_context(logged_in(server.address, name.encode())).sendall(request5(1, *there))
        for name in (guessed, names[4]):
            for _ in range(6):
                stack.enter_context(dial(server.address)).sendall(USERPASS + login(name.encode(), b"guess"))
        until(lambda: len(server.rows("sessions", stage="relay")) == 4, "the tunnels")
        until(lambda: {guessed, names[4]} <= {row["user"] for row in server.rows("sessions")}, "guesses that wait")
        head, *rows = server.tabi("sessions").stdout.splitlines()
        assert all(map(str.isprintable, rows))
        assert {len(re.findall(f"{WORD}(?: +|$)", row)) for row in rows} == {len(head.split())}
        assert all(re.fullmatch(f"{WORD}(?: {{2,}}{WORD})*", row) for row in rows), rows
        assert '"\\x9b2J\\u202e"' in "\n".join(rows)


@pytest.mark.parametrize("where", ["--user", "--userid", "target", "rule", "user"])
def test_an_explanation_does_nothing_to_a_terminal(tmp_path: Path, where: str) -> None:
    evil = "x\u009b2J"
    file = tmp_path / "tabi.toml"
    file.write_text(
        ("" if where == "--userid" else user("x\\u009b2J" if where == "user" else "alice"))
        + '[[rule]]\nname = "%s"\nallow = true\nuserid = "me"\n' % ("x\\u009b2J\\n" if where == "rule" else "all")
    )
    said = {
        "--user": ["--user", evil], "user": ["--user", evil], "--userid": ["--version", "4", "--userid", evil],
    }.get(where, ["--user", "alice"])  # fmt: skip
    asked = ["connect", f"{evil}:80" if where == "target" else "127.0.0.1:80"]
    for more in ([], ["--json"]):
        done = tabi("explain", "--config", str(file), "--from", "127.0.0.1", *said, *more, *asked)
        shown = done.stdout + done.stderr
        assert "x" in shown
        assert all(map(str.isprintable, shown.splitlines())), shown


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_set_file_of_somebody_else_does_nothing_to_a_terminal(tmp_path: Path, more: tuple[str, ...]) -> None:
    (tmp_path / "block").write_bytes(b"good.example\n\x1b[2Jevil\n\xc2\x9b2J\n" + "\u202ebad\n".encode())
    file = tmp_path / "tabi.toml"
    file.write_text('[[set]]\nname = "bad"\nfile = "block"\n[[rule]]\nrefuse = "not-allowed"\nto = "@bad"\n')
    done = tabi("check", str(file), *more)
    assert done.returncode == 1
    assert "block" in done.stdout
    assert all(map(str.isprintable, done.stdout.splitlines())), done.stdout
