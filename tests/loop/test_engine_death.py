"""A bug in the engine's thread ends the process: nobody is promised a tunnel that would never carry a byte."""

import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from helpers.configured import ALLOW, JSON, LISTEN, configured
from helpers.serving import Command, command
from helpers.socks import connect5, dial, read_exactly, read_reply5, request5
from helpers.targets import target
from helpers.waiting import until
from loop.engine_helpers import NOT_BUILT, is_reset, next_ends, running, tunnel
from loop.lane_helpers import GREETING, LANES, opened, permit
from tabi.relay import Cause, Closer
from tabi.relay._pump import Pump
from tabi.relay.lane import Ask, Handover

DEADLY = b"the bug"

# Imported by every Python that has its directory in PYTHONPATH, before the program itself.
SITE = f"""
import threading

from tabi.relay._lane_py import Lane
from tabi.relay._pump import Pump

def copy(self, source, sink, size, copy=Pump._copy):
    count = copy(self, source, sink, size)
    if count > 0 and bytes(self._buffer[:count]) == {DEADLY!r}:
        raise ZeroDivisionError("injected")
    return count

def abandon(self, abandon=Lane.abandon):
    threading.main_thread().join(0.5)  # who does not wait for the dying engine shall be done before it
    abandon(self)

Pump._copy = copy
Lane.abandon = abandon
"""


@pytest.fixture
def fragile(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose pure engine dies of certain bytes."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, sys.path)]), "TABI_PURE": "1"}


def told(server: Command) -> str:
    """Wait for the diagnostics about the bug, with their traceback."""
    server.line("ZeroDivisionError: injected")
    return "\n".join(server.errors)


def test_a_bug_in_the_engine_ends_the_process_with_1(fragile: dict[str, str]) -> None:
    with command("--log-format", "json", env=fragile) as server, target() as there:
        proxy = server.address
        with connect5(proxy, *there) as one, connect5(proxy, *there) as other, dial(proxy) as early:
            early.sendall(b"\x05\x01\x00")
            assert read_exactly(early, 2) == b"\x05\x00"
            one.sendall(DEADLY)
            assert is_reset(other)
            assert is_reset(early)
            until(lambda: server.process.poll() is not None, "the process to end by itself")
        assert server.stop() == 1
        assert "bug in the engine" in told(server)
        assert "Traceback" in told(server)
        assert "sitecustomize.py" in told(server)
        ends = [(line["session"], line["by"], line["why"]) for line in server.records]
        assert sorted(ends) == [(1, "tabi", "bug"), (2, "tabi", "bug"), (3, "tabi", "bug")]


def test_whoever_is_in_a_handshake_is_reset_when_the_engine_dies(tmp_path: Path, fragile: dict[str, str]) -> None:
    text = LISTEN + JSON + ALLOW + '[time]\nhandshake = "10 min"\n'
    with (
        configured(tmp_path, text, workers=1, env=fragile) as server,
        target() as there,
        ExitStack() as stack,
    ):
        tunnel = stack.enter_context(connect5(server.address, *there))
        waiting = [stack.enter_context(dial(server.address)) for _ in range(100)]
        for number, sock in enumerate(waiting):
            if number % 2:
                sock.sendall(b"\x05\x01\x00")
                assert read_exactly(sock, 2) == b"\x05\x00"
        tunnel.sendall(DEADLY)
        assert all(map(is_reset, waiting))
        server.line("ended with 1; starting another")
        assert server.stop(signal.SIGTERM) == 0


def test_a_worker_whose_engine_has_died_is_replaced_and_the_next_takes_its_queue(
    tmp_path: Path, fragile: dict[str, str]
) -> None:
    with configured(tmp_path, LISTEN + JSON + ALLOW, workers=1, env=fragile) as server, target() as there:
        (first,) = server.workers(1)
        with connect5(server.address, *there) as one:
            one.sendall(DEADLY)
            server.line(rf"worker 0 \(process {first}\) ended with 1; starting another")
        assert "bug in the engine" in told(server)
        with connect5(server.address, *there) as sock:  # into the queue, before there is a successor
            sock.sendall(b"ping")
            assert read_exactly(sock, 4) == b"ping"
        assert server.workers(1) != [first]
        assert server.process.poll() is None
        assert server.stop(signal.SIGTERM) == 0


@pytest.mark.usefixtures("nothing_left")
def test_a_dead_engine_resets_and_reports_what_it_has_and_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("injected")

    with running("pure") as engine:
        monkeypatch.setattr(Pump, "_copy", fail)
        with tunnel(engine, record=b"idle") as idle, tunnel(engine, record=b"hit") as hit:
            assert engine.failure is None
            hit.client.sendall(b"x")
            ends = {end.record: end for end in next_ends(engine, 2)}
            assert {(end.closer, end.cause) for end in ends.values()} == {(Closer.TABI, Cause.BUG)}
            assert set(ends) == {b"idle", b"hit"}
            assert isinstance(engine.failure, ZeroDivisionError)
            assert all(map(is_reset, (idle.client, idle.target, hit.client, hit.target)))
        with tunnel(engine, record=b"late") as late:
            (end,) = next_ends(engine)
            assert (end.record, end.cause) == (b"late", Cause.BUG)
            assert is_reset(late.client)
            assert is_reset(late.target)
        assert len(engine) == 0
        engine.kill([1], Cause.KILL)


def epolls() -> set[int]:
    """List the descriptors of this process that are epolls."""
    links = {int(link.name): os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    return {fd for fd, link in links.items() if link == "anon_inode:[eventpoll]"}


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.skipif("compiled" not in LANES, reason=NOT_BUILT)
def test_a_compiled_engine_that_cannot_wait_any_more_resets_and_hands_over_all() -> None:
    others = epolls()
    with opened("compiled") as lane, target() as there:
        (epoll,) = epolls() - others
        lane.door()
        with lane.client(GREETING + request5(1, *there)) as relayed, lane.client(GREETING) as early:
            lane.engine.answer(lane.next(Ask).arrival, permit(there))
            assert read_exactly(early, 2) == read_exactly(relayed, 2) == b"\x05\x00"
            assert read_reply5(relayed)[0] == 0
            with Path(os.devnull).open() as null:
                os.dup2(null.fileno(), epoll, inheritable=False)
            lane.engine.kill([], Cause.KILL)
            (end,) = next_ends(lane.engine)
            (handover,) = lane.calls()  # is there with the end
            assert isinstance(lane.engine.failure, OSError)
            assert end.cause is Cause.BUG
            assert is_reset(relayed)
            assert isinstance(handover, Handover)
            assert handover.received == GREETING
            with lane.take(handover.fd) as inbound:
                inbound.sendall(b"alive")
                assert read_exactly(early, 5) == b"alive"
            lane.engine.call_in()


@pytest.mark.usefixtures("nothing_left")
def test_an_engine_that_dies_while_it_takes_flows_up_reports_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    from tabi.relay._relay import Relay

    held: list[socket.socket] = []
    with running("pure") as engine:
        monkeypatch.setattr(Relay, "_arm", lambda *_: 1 / 0)
        pairs = [tunnel(engine, record=bytes((n,))) for n in range(3)]
        ends = next_ends(engine, 3)
        assert sorted(end.record for end in ends) == [b"\0", b"\1", b"\2"]
        assert all(end.cause is Cause.BUG for end in ends)
        for pair in pairs:
            held += [pair.client, pair.target]
        assert all(map(is_reset, held))
        for sock in held:
            sock.close()
