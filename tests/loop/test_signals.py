"""The process: how it ends by signals, how it fails, and what it loads for that."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import Future

import pytest

from helpers.processes import freeze
from helpers.serving import Command, Running, command, serving
from helpers.socks import connect5, dial, read_exactly
from helpers.targets import accept, target
from helpers.waiting import PATIENCE, until
from loop.engine_helpers import is_reset, read_all
from tabi.config.settings import TimeLimits

# The command, with an hour for sessions to finish: what ends sooner did not wait for it.
PATIENT = (
    sys.executable,
    "-c",
    "import sys; from tabi.config.settings import TimeLimits; TimeLimits.__init__.__kwdefaults__['drain'] = 3600.0; "
    "from tabi.cli.main import main; sys.exit(main(['serve', *sys.argv[1:]]))",
    "--listen",
    "127.0.0.1:0",
    "--log-format",
    "json",
)

both_signals = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])


def is_refused(port: int) -> bool:
    """Tell whether nobody listens."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def ended(server: Command) -> int:
    """Wait for the process to end by itself; gives its exit code."""
    until(lambda: server.process.poll() is not None, "the server to end")
    return server.stop()


# signals


@both_signals
def test_an_idle_server_ends_at_once_with_0(number: int) -> None:
    with command(program=PATIENT) as server:
        server.ports()
        assert server.stop(number) == 0
        assert server.sessions == []


@both_signals
def test_a_server_whose_sessions_have_ended_is_idle(number: int) -> None:
    with command(program=PATIENT) as server, target() as there:
        proxy = ("127.0.0.1", server.ports()[0])
        with connect5(proxy, *there) as sock:
            sock.sendall(b"x")
            assert read_exactly(sock, 1) == b"x"
        server.record(why="fin")
        assert server.stop(number) == 0


@both_signals
def test_running_sessions_may_finish_while_nobody_is_let_in(number: int, listener: socket.socket) -> None:
    with command(program=PATIENT) as server:
        (port,) = server.ports()
        with connect5(("127.0.0.1", port), *listener.getsockname()) as client, accept(listener) as there:
            os.kill(server.process.pid, number)
            server.line("not accepting any more")
            until(lambda: is_refused(port), "the listener to be closed")
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            assert read_all(there) == (b"question", 0)
            there.sendall(b"answer")
            there.shutdown(socket.SHUT_WR)
            assert read_all(client) == (b"answer", 0)
        assert ended(server) == 0
        line = server.record(command="connect")
        assert (line["why"], line["up"], line["down"]) == ("fin", 8, 6)


@both_signals
def test_what_does_not_finish_within_the_limit_is_reset(number: int, listener: socket.socket) -> None:
    with command("--log-format", "json") as server:
        proxy = ("127.0.0.1", server.ports(2)[0])
        with connect5(proxy, *listener.getsockname()) as client, accept(listener) as there:
            client.sendall(b"ping")
            assert read_exactly(there, 4) == b"ping"
            os.kill(server.process.pid, number)
            assert is_reset(client)
            assert is_reset(there)
        assert ended(server) == 0
        line = server.record(command="connect")
        assert (line["by"], line["why"]) == ("tabi", "shutdown")


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(first: int, second: int, listener: socket.socket) -> None:
    with command(program=PATIENT) as server:
        proxy = ("127.0.0.1", server.ports()[0])
        with connect5(proxy, *listener.getsockname()) as client, accept(listener) as there, dial(proxy) as handshake:
            os.kill(server.process.pid, first)
            server.line("2 sessions have 3600 s")
            assert server.stop(second) == 0
            assert is_reset(client)
            assert is_reset(there)
            assert is_reset(handshake)
        assert [line["why"] for line in server.records] == ["shutdown"] * 2


def test_a_connection_that_waits_to_be_accepted_is_not_left_hanging(listener: socket.socket) -> None:
    with command(program=PATIENT) as server:
        (port,) = server.ports()
        freeze(server.process.pid)
        try:
            waiting = dial(("127.0.0.1", port))  # the kernel has taken it, the server has not
        finally:
            os.kill(server.process.pid, signal.SIGTERM)
            os.kill(server.process.pid, signal.SIGCONT)
        with waiting:
            waiting.sendall(b"\x05\x01\x00")
            waiting.shutdown(socket.SHUT_WR)
            data, code = read_all(waiting)
        assert (data, code) in [(b"", errno.ECONNRESET), (b"\x05\x00", 0)]
        assert ended(server) == 0


# the same of the server as a library


def stopping(server: Running, drain: float) -> "Future[None]":
    """Begin to stop a server that runs in this process."""
    return asyncio.run_coroutine_threadsafe(server.server.stop(drain), server.loop)


def test_stop_waits_for_the_last_session_and_no_longer(listener: socket.socket) -> None:
    with serving() as server:
        with connect5(server.address, *listener.getsockname()) as client, accept(listener) as there:
            stopped = stopping(server, 3600)
            client.sendall(b"still here")
            assert read_exactly(there, 10) == b"still here"
            assert not stopped.done()
        stopped.result(PATIENCE)
        assert server.lines[0]["why"] in {"fin", "rst"}


def test_stopping_twice_is_stopping_once(listener: socket.socket) -> None:
    with serving() as server:
        server.call(server.server.stop())
        server.call(server.server.stop())


def test_stop_at_once_cuts_the_wait_short(listener: socket.socket) -> None:
    with serving(time=TimeLimits(drain=3600)) as server:
        with connect5(server.address, *listener.getsockname()) as client, accept(listener) as there:
            stopped = stopping(server, 3600)
            server.call_sync(server.server.stop_at_once)
            stopped.result(PATIENCE)
            assert is_reset(client)
            assert is_reset(there)


# failures and usage


def run(*arguments: str, python: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, *python, "-m", "tabi", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3,
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_in_use_is_exit_1_with_the_address_and_a_way_out(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as taken:
        port = taken.getsockname()[1]
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        done = run("serve", "--listen", "127.0.0.1:0", "--listen", shown)
    assert done.returncode == 1
    assert done.stderr.startswith(f"tabi: cannot listen on {shown}: address in use")
    assert "ss -ltnp" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "listening" not in done.stderr
    assert done.stdout == ""


def test_an_address_that_is_not_ours_is_exit_1() -> None:
    done = run("serve", "--listen", "192.0.2.1:0")  # RFC 5737: nobody's
    assert done.returncode == 1
    assert done.stderr.startswith("tabi: cannot listen on 192.0.2.1:0: no interface of this host has that address")


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "--listen", "127.0.0.1"),
        ("serve", "--listen", "127.0.0.1:65536"),
        ("serve", "--listen", "::1:1080:"),
        ("serve", "--listen", "127.1:1080"),
        ("serve", "--listen", ""),
        ("serve", "--log-format", "xml"),
        ("serve", "now"),
        ("sever",),
        (),
    ],
)
def test_wrong_usage_is_exit_2_and_says_how(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: tabi")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_version_names_the_engine() -> None:
    from tabi import __version__
    from tabi.relay import ENGINE_NAME

    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"tabi {__version__} (engine: {ENGINE_NAME})\n", "")


@pytest.mark.parametrize("arguments", [("--help",), ("serve", "--help")])
def test_help_loads_neither_asyncio_nor_the_server(arguments: tuple[str, ...]) -> None:
    done = run(*arguments, python=("-X", "importtime"))
    assert done.returncode == 0
    assert done.stdout.startswith("usage: tabi")
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in loaded  # the list is what it is taken for
    forbidden = ("asyncio", "socket", "ssl", "logging", "aiodns", "tabi.server", "tabi.net", "tabi.relay")
    assert [name for name in loaded if name.startswith(forbidden)] == []
