"""What the gate does with a connect, seen from the program and from the proxy."""

import asyncio
import errno
import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.gates import Lab, Running, gating, waiting
from helpers.serving import allow_all, serving
from helpers.socks import echoes, read_all, read_exactly
from helpers.syns import watching
from helpers.targets import target
from helpers.waiting import PATIENCE, until
from tabi.addr import Name
from tabi.relay import Cause, Closer
from tabi.wrap.answers import NO_HOST, REFUSED, SILENCE
from tabi.wrap.gate import GateOptions
from tabi.wrap.names import Names

V4, V6 = "203.0.113.7", "2001:db8::7"
USER_TIMEOUT = 18  # TCP_USER_TIMEOUT, linux/tcp.h
RECVERR4, RECVERR6 = (socket.IPPROTO_IP, 11), (socket.IPPROTO_IPV6, 25)  # linux/in.h, linux/in6.h


@contextmanager
def program_socket(lab: Lab, host: str = V4) -> Iterator[socket.socket]:
    """Make a non-blocking socket of the program's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with lab.program.call(socket.socket, family, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        yield sock


def begin(sock: socket.socket, host: str, port: int) -> None:
    """Send the SYN, and do not wait."""
    sock.setblocking(False)
    assert sock.connect_ex((host, port)) == errno.EINPROGRESS
    sock.settimeout(PATIENCE)


def outcome(sock: socket.socket) -> int:
    """Wait until it is decided, and give the errno."""
    _, decided, _ = select.select([], [sock], [], PATIENCE)
    assert decided, "it is held for ever"
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@contextmanager
def connected(lab: Lab, running: Running, host: str = V4, port: int = 80) -> Iterator[socket.socket]:
    """Connect, and read who is there."""
    running.proxy.answer(0)
    with program_socket(lab, host) as sock:
        begin(sock, host, port)
        assert outcome(sock) == 0
        line = f"{host} {port}\n".encode()
        assert read_exactly(sock, len(line)) == line
        yield sock


@pytest.mark.parametrize("host", [V4, V6])
def test_bytes_and_ends_travel_both_ways(lab: Lab, host: str) -> None:
    with gating(lab) as running:
        with connected(lab, running, host) as sock:
            assert echoes(sock, b"x" * 300_000)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b""
        until(lambda: running.ends, "the end")
    (end,) = running.ends
    assert (end.closer, end.cause) == (Closer.CLIENT, Cause.FIN)
    assert end.record.endswith(f" {running.decisions[0].target}".encode())
    assert end.up == 300_000


def test_a_proxy_that_dies_resets_the_program(lab: Lab) -> None:
    with gating(lab) as running:
        with connected(lab, running) as sock:
            running.proxy.abort()
            with pytest.raises(ConnectionResetError):
                sock.recv(1)


def test_a_program_that_dies_resets_the_proxy(lab: Lab) -> None:
    with gating(lab) as running:
        with connected(lab, running) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        until(lambda: running.proxy.asked[0].is_gone, "the proxy to hear of it")


def test_a_syn_that_comes_again_while_it_is_held_is_the_same_connect(lab: Lab) -> None:
    """The kernel sends it again after a second."""
    with gating(lab) as running, lab.gate.entering(watching()) as syns, program_socket(lab) as sock:
        begin(sock, V4, 80)
        until(lambda: syns.count(80) >= 2, "a second SYN")
        running.proxy.answer(0)
        assert outcome(sock) == 0
        assert len(running.proxy.asked) == 1


def test_a_program_that_has_gone_while_held_leaves_nothing(lab: Lab, connects: Path) -> None:
    with gating(lab, options=GateOptions(patience=0.2)) as running:
        command = lab.program.command(str(connects), V4, "80", "blocking")
        with subprocess.Popen(command, start_new_session=True) as process:
            until(lambda: running.proxy.asked and waiting(lab.program, 80), "it to wait")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)
        until(lambda: not waiting(lab.program, 80), "its socket to be gone")
        running.proxy.answer(0)
        until(lambda: running.proxy.asked[0].is_gone, "the proxy to be left")
        until(lambda: not len(running.gate), "nothing to be held")
    assert not running.ends
    assert not running.decisions


def test_a_connect_from_the_same_port_takes_the_place_of_the_one_before(lab: Lab) -> None:
    with gating(lab) as running:
        with program_socket(lab) as sock:
            begin(sock, V4, 80)
            until(lambda: running.proxy.asked, "the first")
            own = sock.getsockname()
        with program_socket(lab) as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(own)
            begin(again, V4, 80)
            until(lambda: len(running.proxy.asked) == 2, "the second")
            until(lambda: running.proxy.asked[0].is_gone, "the first to be given up")
            running.proxy.answer(0)
            assert outcome(again) == 0
            until(lambda: not len(running.gate), "nothing to be held")


def test_an_answer_that_was_lost_is_given_again_and_nobody_is_dialled(lab: Lab) -> None:
    with gating(lab) as running, program_socket(lab) as sock:
        begin(sock, V4, 80)
        until(lambda: running.proxy.asked, "it to be held")
        with lab.deaf():
            running.proxy.answer(5)
            until(lambda: running.decisions, "the answer")
        assert outcome(sock) == errno.ECONNREFUSED
        assert len(running.proxy.asked) == 1
    assert running.decisions[0].answer is REFUSED


def test_silence_of_the_proxy_is_silence_of_the_target(lab: Lab) -> None:
    """The program's own kernel ends it, by its own limit, as if nobody were between."""
    with gating(lab, options=GateOptions(timeout=0.1)) as running, program_socket(lab) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, USER_TIMEOUT, 1500)
        begin(sock, V4, 80)
        assert outcome(sock) == errno.ETIMEDOUT
        until(lambda: running.decisions, "it to be over")
    assert [one.answer for one in running.decisions] == [SILENCE], "it was not dialled again"


@pytest.mark.parametrize("host", ["198.18.0.1", "198.19.1.1", "fd00:5ec:0:1::9"])
def test_no_proxy_is_asked_for_an_address_of_ours(lab: Lab, host: str) -> None:
    with gating(lab) as running, program_socket(lab, host) as sock:
        running.proxy.answer(0)
        begin(sock, host, 80)
        assert outcome(sock) == errno.EHOSTUNREACH
        until(lambda: running.decisions, "it to be over")
        assert running.decisions[0].answer is NO_HOST
        assert not running.proxy.asked


@pytest.mark.parametrize(("host", "option"), [(V4, RECVERR4), (V6, RECVERR6)])
def test_an_error_wakes_nobody_before_the_connect_has_ended(lab: Lab, host: str, option: tuple[int, int]) -> None:
    """A message that is queued at the socket would do so (see tabi.wrap.packets): with IPv6 where that is asked for."""
    with gating(lab) as running, program_socket(lab, host) as sock:
        sock.setsockopt(*option, 1)
        running.proxy.answer(4)
        begin(sock, host, 80)
        assert outcome(sock) == errno.EHOSTUNREACH
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recvmsg(1, 512, socket.MSG_ERRQUEUE)


def test_news_of_an_unreachable_target_is_delayed_where_that_is_wanted(lab: Lab) -> None:
    """A refusal is not: it comes from the target itself."""
    with gating(lab, options=GateOptions(delay_unreachable=PATIENCE)) as running:
        with program_socket(lab) as sock, program_socket(lab) as other:
            begin(sock, V4, 80)
            until(lambda: running.proxy.asked, "it to be held")
            running.proxy.answer(4)
            until(lambda: running.proxy.asked[0].is_gone, "the proxy to have answered")
            running.proxy.hold()
            begin(other, V4, 81)
            until(lambda: len(running.proxy.asked) == 2, "the other to be held")
            running.proxy.answer(5)
            assert outcome(other) == errno.ECONNREFUSED
            until(lambda: len(running.gate) == 1, "the other to be over")
            assert waiting(lab.program, 80) == 1
    assert [one.answer for one in running.decisions] == [REFUSED]


def test_those_beyond_the_bound_wait_for_their_turn(lab: Lab) -> None:
    with gating(lab, options=GateOptions(most=8)) as running:
        socks = [lab.program.call(socket.socket) for _ in range(12)]
        try:
            for sock in socks:
                begin(sock, V4, 80)
            until(lambda: len(running.proxy.asked) == 8 and running.crowds, "as many as are held")
            assert len(running.gate) == 8
            running.proxy.answer(0)
            assert [outcome(sock) for sock in socks] == [0] * 12
        finally:
            for sock in socks:
                sock.close()
    assert running.crowds == [8]
    assert len(running.proxy.asked) == 12


def test_a_name_reaches_a_server_of_ours_and_its_target(lab: Lab) -> None:
    names = Names()
    host = str(names.address_of(Name("localhost"), 4))
    with target() as (_, port), serving(policy=allow_all) as server:
        proxy = f"socks5h://127.0.0.1:{server.address[1]}"
        with gating(lab, proxies=[proxy], names=names) as running, program_socket(lab) as sock:
            begin(sock, host, port)
            assert outcome(sock) == 0
            assert sock.getpeername() == (host, port)
            assert echoes(sock)
            until(lambda: running.decisions, "it to be over")
            assert str(running.decisions[0].target) == f"localhost:{port}"
        assert server.line()["target"] == f"localhost:{port}"


def descriptors() -> set[str]:
    """Name what this process has open."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:  # that by which the directory was read
            pass
    return found


def test_nothing_is_left_when_the_gate_closes(lab: Lab) -> None:
    """Held, connected and answered ones: descriptors, tasks."""

    def tasks(running: Running) -> int:
        async def count() -> int:
            return len([task for task in asyncio.all_tasks() if task.get_name().startswith("connect ")])

        return running.call(count)

    before = descriptors()
    with gating(lab) as running:
        with connected(lab, running, port=80) as sock, program_socket(lab) as held:
            running.proxy.hold()
            begin(held, V4, 81)
            until(lambda: len(running.proxy.asked) == 2, "one to be held")
            assert tasks(running) == 1
            assert running.gate.connections == 1
            running.call(running.close)
            assert tasks(running) == 0
            assert len(running.gate) == 0
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
            assert waiting(lab.program, 81) == 1, "it was not answered"
            until(lambda: all(asked.is_gone for asked in running.proxy.asked), "the proxy to be left")
    assert [end.cause for end in running.ends] == [Cause.SHUTDOWN]
    assert descriptors() <= before
