"""Failed logins over real workers: one limit for all of them, which the death of a worker changes nothing about.

The test is one more worker: it has the memory that they share, and so need not fail ten times and wait for it.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from helpers.configured import ALLOW, JSON, LISTEN, Configured, configured, user
from helpers.hostile import USERPASS, login
from helpers.socks import dial, read_all
from helpers.waiting import until
from tabi.server.admission import client_key
from tabi.server.auth import WRONG
from tabi.server.lockouts import LockoutRules, Lockouts

WORKERS = 4
ATTEMPTS = 16  # fewer than the log would hold back
GOOD, BAD = b"\x05\x02\x01\x00", b"\x05\x02\x01\x01"
CLIENT = client_key(ip_address("127.0.0.1"))
LIMIT = LockoutRules().failures


@contextmanager
def serving(directory: Path, workers: int = WORKERS) -> Iterator[Configured]:
    """Run a server with a user that has to log in."""
    with configured(directory, LISTEN + JSON + user("alice") + ALLOW, workers=workers) as running:
        running.workers(workers)
        yield running
        assert running.stop() == 0, running.errors


@contextmanager
def shared_with(server: Configured) -> Iterator[Lockouts]:
    """Take part in what its workers share."""
    directory = Path(f"/proc/{server.process.pid}/fd")
    found = (one for one in directory.iterdir() if os.readlink(one).startswith("/memfd:tabi-failures"))
    descriptor = os.open(next(found), os.O_RDWR)
    try:
        yield Lockouts.attach(descriptor)
    finally:
        os.close(descriptor)


def fail(lockouts: Lockouts, times: int) -> None:
    """Fail as alice, so long ago that no delay is due any more."""
    for _ in range(times):
        lockouts.failed(time.monotonic() - 10, CLIENT, b"alice", exempt=True)


def answers(server: Configured, password: bytes, count: int = ATTEMPTS) -> set[bytes]:
    """Log in so often at once; the kernel spreads the connections over the workers."""
    with ExitStack() as stack:
        socks = [stack.enter_context(dial(server.address)) for _ in range(count)]
        for sock in socks:
            sock.sendall(USERPASS + login(b"alice", password))
        for sock in socks:
            sock.shutdown(1)
        return {read_all(sock) for sock in socks}


def notes(server: Configured) -> list[str]:
    """Why logins were refused, as the log has it so far."""
    return [record["note"] for record in server.records if record["why"] == "auth"]


def test_workers_that_race_for_the_last_guess_judge_no_more_than_one_each(tmp_path: Path) -> None:
    with serving(tmp_path) as server, shared_with(server) as lockouts:
        fail(lockouts, LIMIT - 1)
        assert answers(server, b"guess") == {BAD}
        until(lambda: len(notes(server)) == ATTEMPTS, lambda: f"a line of each: {notes(server)}")
        judged = [note for note in notes(server) if note == WRONG]
        assert 1 <= len(judged) <= 1 + WORKERS - 1
        assert all(note.startswith("locked until 2") for note in notes(server) if note != WRONG)
        assert lockouts.pair_gate(time.monotonic(), CLIENT, b"alice").closed


def test_a_lift_reaches_all_workers(tmp_path: Path) -> None:
    with serving(tmp_path) as server, shared_with(server) as lockouts:
        fail(lockouts, LIMIT)
        assert answers(server, b"secret") == {BAD}
        (row,) = server.rows("lockouts")
        assert (row["user"], row["failures"], row["closed"]) == ("alice", LIMIT, 1)
        assert server.rows("lift", user="alice") == [{"lifted": 1}]
        assert lockouts.entries(time.monotonic()) == []
        assert answers(server, b"secret") == {GOOD}


@pytest.mark.parametrize("failures", [LIMIT, LIMIT - 1])
def test_the_successor_of_a_dead_worker_knows_what_was_counted(tmp_path: Path, failures: int) -> None:
    with serving(tmp_path, workers=1) as server, shared_with(server) as lockouts:
        fail(lockouts, failures)
        assert answers(server, b"guess", 1) == {BAD}  # the last that there may be, of nine
        (first,) = server.workers(1)
        os.kill(first, signal.SIGKILL)
        until(lambda: server.workers(1) != [first], "its successor")
        assert answers(server, b"secret", 1) == {BAD}
        assert [one.failures for one in lockouts.entries(time.monotonic())] == [LIMIT]
        lockouts.lift(time.monotonic())
        assert answers(server, b"secret", 1) == {GOOD}
