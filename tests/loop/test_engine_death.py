"""A bug in the engine's thread ends the process: nobody is promised a tunnel that would never carry a byte."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from helpers.configured import ALLOW, JSON, LISTEN, configured
from helpers.serving import Command, command
from helpers.socks import connect5, dial, read_exactly
from helpers.targets import target
from helpers.waiting import until
from loop.engine_helpers import is_reset, next_ends, running, tunnel
from tabi.relay import Cause, Closer
from tabi.relay._pump import Pump

DEADLY = b"the bug"

# Imported by every Python that has its directory in PYTHONPATH, before the program itself.
SITE = f"""
from tabi.relay._pump import Pump

def copy(self, source, sink, size, copy=Pump._copy):
    count = copy(self, source, sink, size)
    if count > 0 and bytes(self._buffer[:count]) == {DEADLY!r}:
        raise ZeroDivisionError("injected")
    return count

Pump._copy = copy
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


def has_ended(sock: socket.socket) -> bool:
    """Say whether the connection is over. In the express lane the process may be gone before a handshake is reset."""
    try:
        return not sock.recv(1)
    except ConnectionResetError:
        return True


def test_a_bug_in_the_engine_ends_the_process_with_1(fragile: dict[str, str]) -> None:
    with command("--log-format", "json", env=fragile) as server, target() as there:
        proxy = server.address
        with connect5(proxy, *there) as one, connect5(proxy, *there) as other, dial(proxy) as early:
            early.sendall(b"\x05\x01\x00")
            assert read_exactly(early, 2) == b"\x05\x00"
            one.sendall(DEADLY)
            assert is_reset(other)
            assert has_ended(early)
            until(lambda: server.process.poll() is not None, "the process to end by itself")
        assert server.stop() == 1
        assert "bug in the engine" in told(server)
        assert "Traceback" in told(server)
        assert "sitecustomize.py" in told(server)
        ends = [(line["session"], line["by"], line["why"]) for line in server.records]
        assert sorted(ends)[:2] == [(1, "tabi", "bug"), (2, "tabi", "bug")]  # the handshake may be gone unlogged


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
