"""`tabi connect` as a user has it: a process between pipes or at a terminal, through real proxies."""

import os
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.connect_proxy import connect_proxy
from helpers.serving import Running, serving
from helpers.socks import LINGER_ZERO, read_all
from helpers.targets import banner, closed_port, target
from helpers.waiting import PATIENCE
from tabi.server import Passwords

PROGRAM = [sys.executable, "-m", "tabi", "connect"]
BYTES = bytes(range(251)) * 20_000


def url(server: Running | tuple[str, int], scheme: str = "socks5h", login: str = "") -> str:
    """Write the URL of a proxy."""
    host, port = server if isinstance(server, tuple) else server.address
    return f"{scheme}://{login}{host}:{port}"


def command(*arguments: str, **environment: str) -> dict[str, Any]:
    """Say how to run it: no proxy variables but those of the test."""
    own = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {"args": [*PROGRAM, *arguments], "env": own | environment}


def connect(*arguments: str, sends: bytes = b"", **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """Run it to its end."""
    how = command(*arguments, **environment)
    return subprocess.run(**how, input=sends, capture_output=True, timeout=PATIENCE, check=False)


def place_of(address: tuple[str, int]) -> str:
    """Write a target."""
    return f"{address[0]}:{address[1]}"


def answer_after_the_end(sock: socket.socket) -> None:
    """Say nothing before the client is done, and then all that it said."""
    sock.sendall(read_all(sock))


@pytest.mark.parametrize("scheme", ["socks5h", "socks5", "socks4a", "socks4"])
def test_each_side_ends_in_its_own_time_and_every_byte_arrives(scheme: str) -> None:
    with target(answer_after_the_end) as there, serving() as server:
        done = connect("-x", url(server, scheme), place_of(there), sends=BYTES)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == BYTES
        line = server.only_line()
    assert (line["up"], line["down"], line["why"]) == (len(BYTES), len(BYTES), "fin")


def test_a_target_may_speak_first_and_end_first() -> None:
    got: list[bytes] = []

    def server_first(sock: socket.socket) -> None:
        sock.sendall(b"220 ready\r\n")
        sock.shutdown(socket.SHUT_WR)
        got.append(read_all(sock))

    with target(server_first) as there, serving() as server:
        with subprocess.Popen(
            **command("-x", url(server), place_of(there)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.read() == b"220 ready\r\n"  # the output has ended, the input not yet
            process.stdin.write(b"still here")
            process.stdin.close()
            assert process.wait(PATIENCE) == 0
        server.idle()
    assert got == [b"still here"]


def test_a_chain_of_three_kinds() -> None:
    with target(answer_after_the_end) as there, serving() as first, connect_proxy(b"me:se cret") as second:
        with serving(authenticator=Passwords({b"anna": b"secret"})) as third:
            proxies = [url(first, "socks4"), url(second, "http", "me:se%20cret@"), url(third, "socks5", "anna:secret@")]
            done = connect(*(word for proxy in proxies for word in ("-x", proxy)), place_of(there), sends=b"hello")
            assert (done.returncode, done.stdout) == (0, b"hello"), done.stderr
            assert third.only_line()["user"] == "anna"
        assert first.only_line()["target"] == place_of(second)


def test_a_password_that_was_typed_is_warned_of_and_never_shown(tmp_path: Path) -> None:
    with target(banner(b"hello")) as there, serving(authenticator=Passwords({b"anna": b"hunter2"})) as server:
        done = connect("-x", url(server, login="anna:hunter2@"), place_of(there))
        assert (done.returncode, done.stdout) == (0, b"hello")
        assert b"-x @FILE" in done.stderr
        file = tmp_path / "proxy.url"
        file.write_text(url(server, login="anna:hunter2@") + "\n")
        quiet = connect("-x", f"@{file}", place_of(there))
        assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, b"hello", b"")
        wrong = connect("-x", url(server, login="anna:hunter3@"), place_of(there))
    assert wrong.returncode == 1
    assert b"password" in wrong.stderr
    assert b"hunter" not in done.stderr + wrong.stderr


@pytest.mark.parametrize(("exempt", "is_used"), [("", True), ("127.0.0.1", False)])
def test_without_a_url_the_environment_says_which(exempt: str, is_used: bool) -> None:
    with target(banner(b"hello")) as there, serving() as server:
        done = connect(place_of(there), ALL_PROXY=url(server), no_proxy=exempt)
        assert (done.returncode == 0) is is_used
        server.idle()
        assert len(server.lines) == is_used
    if not is_used:
        assert b"no proxy for 127.0.0.1: " in done.stderr


def test_no_proxy_at_all_is_an_error_that_says_the_way_out() -> None:
    with target(banner(b"hello")) as there:
        done = connect(place_of(there))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"give one by -x URL" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-x", "gopher://127.0.0.1", "127.0.0.1:1"], b"proxy scheme \"gopher\" is none of"),
        (["-x", "socks5h://127.0.0.1", "127.0.0.1"], b"the target: "),
        (["-x", "socks5h://127.0.0.1", "--timeout", "0", "127.0.0.1:1"], b"--timeout: 0 is no number of seconds"),
        (["-x", "socks5h://127.0.0.1", "--timeout", "nan", "127.0.0.1:1"], b"--timeout: nan is no number of seconds"),
        (["-x", "@/nowhere/at/all", "127.0.0.1:1"], b"/nowhere/at/all"),
    ],
)
def test_what_cannot_be_read_is_told(arguments: list[str], told: bytes) -> None:
    done = connect(*arguments)
    assert (done.returncode, done.stdout) == (1, b"")
    assert told in done.stderr
    assert b"Traceback" not in done.stderr


def test_who_refused_and_why_is_told() -> None:
    with serving() as server:
        done = connect("-x", url(server), f"127.0.0.1:{closed_port()}")
        assert done.returncode == 1
        assert b"refused" in done.stderr
    nobody = connect("-x", url(("127.0.0.1", closed_port())), "127.0.0.1:1")
    assert nobody.returncode == 1
    assert b"proxy socks5h://127.0.0.1:" in nobody.stderr
    assert b"Traceback" not in done.stderr + nobody.stderr


def test_a_target_that_says_nothing_is_waited_for_no_longer_than_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = connect("--timeout", "0.2", "-x", url(silent.getsockname()), "127.0.0.1:1")
    assert done.returncode == 1
    assert b"0.2" in done.stderr


def test_a_reset_is_told_and_is_no_end() -> None:
    def reset_behind(sock: socket.socket) -> None:
        sock.sendall(b"half of it")
        assert sock.recv(1) == b"!"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)

    with target(reset_behind) as there, serving() as server:
        with subprocess.Popen(
            **command("-x", url(server), place_of(there)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read(10) == b"half of it"
            process.stdin.write(b"!")
            process.stdin.flush()
            assert process.wait(PATIENCE) == 1
            assert process.stderr.read() == b"tabi: the connection has broken: Connection reset by peer\n"


def test_it_ends_when_nobody_reads_its_output_any_more() -> None:
    def talk(sock: socket.socket) -> None:
        try:
            while True:
                sock.sendall(bytes(1 << 16))
        except OSError:
            return

    with target(talk) as there, serving() as server:
        with subprocess.Popen(
            **command("-x", url(server), place_of(there)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read(1) == b"\0"
            process.stdout.close()
            assert process.wait(PATIENCE) == 1
            assert process.stderr.read() == b""


def at_a_terminal(arguments: dict[str, Any], talk: Callable[[int], None]) -> int:
    """Run it with a terminal for standard input; gives its exit code."""
    ours, its = pty.openpty()
    try:
        with subprocess.Popen(**arguments, stdin=its, stdout=subprocess.DEVNULL) as process:
            talk(ours)
            return process.wait(PATIENCE)
    finally:
        os.close(ours)
        os.close(its)


def test_at_a_terminal_the_end_of_the_target_is_the_end() -> None:
    def one_line(sock: socket.socket) -> None:
        assert sock.recv(5) == b"quit\n"

    with target(one_line) as there, serving() as server:
        assert at_a_terminal(command("-x", url(server), place_of(there)), lambda fd: _type(fd, b"quit\n")) == 0


def _type(fd: int, text: bytes) -> None:
    assert os.write(fd, text) == len(text)


def test_many_at_once_do_not_disturb_each_other() -> None:
    with target(answer_after_the_end) as there, serving() as server:
        found: dict[int, bytes] = {}

        def one(number: int) -> None:
            found[number] = connect("-x", url(server), place_of(there), sends=b"%d" % number * 50_000).stdout

        threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {number: b"%d" % number * 50_000 for number in range(4)}
