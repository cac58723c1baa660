"""The memory of failed logins: rows are found again, nothing is lost between processes, and no death leaves a mess."""

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.waiting import PATIENCE, until
from tabi.server.failures import Failures, Key, Past, Shape

HERE = b"\xc0\x00\x02\x01"
SIX = b"\x20\x01\x0d\xb8\x00\x00\x00\x00"
SHAPE = Shape(entries=64, failures=4, users=3)

keys = st.tuples(st.binary(min_size=4, max_size=4) | st.binary(min_size=8, max_size=8), st.binary(max_size=255))


def by_age(past: Past) -> tuple[float, ...]:
    """Weigh: the oldest goes first."""
    return tuple(past.failures[-1:]) or (0.0,)


def note(failures: Failures, now: float, key: Key) -> None:
    with failures.changing():
        failures.pairs.note(failures.pairs.take(key, by_age), now, key[1])


@given(st.lists(keys, max_size=16, unique=True))
def test_what_was_noted_is_found_under_its_key_only(used: list[Key]) -> None:
    failures = Failures.private(SHAPE)
    for number, key in enumerate(used):
        assert failures.pairs.past(key) == Past()
        note(failures, number + 1.0, key)
        note(failures, number + 2.0, key)
    for number, key in enumerate(used):
        assert list(failures.pairs.past(key).failures) == [number + 1.0, number + 2.0]
    assert sorted(key for _, key in failures.pairs.taken()) == sorted(used)
    assert list(failures.clients.taken()) == []


@pytest.mark.parametrize("key", [(HERE, b""), (HERE, b"a"), (SIX, b"\xff" * 255)])
def test_a_key_can_be_read_again(key: Key) -> None:
    failures = Failures.private(SHAPE)
    note(failures, 1.0, key)
    assert [key for _, key in failures.pairs.taken()] == [key]


def test_the_parts_of_a_key_cannot_be_shifted_into_each_other() -> None:
    failures = Failures.private(SHAPE)
    note(failures, 1.0, (b"abcdefgh", b"ijkl"))
    for other in ((b"abcd", b"efghijkl"), (b"abcdefgh", b"ijkl\0"), (b"abcdefgh", b"ijk")):
        assert failures.pairs.past(other) == Past()


def test_the_last_moments_are_kept() -> None:
    failures = Failures.private(SHAPE)
    for moment in (3.0, 1.0, 2.0, 5.0, 4.0, 6.0):
        note(failures, moment, (HERE, b"alice"))
    assert list(failures.pairs.past((HERE, b"alice")).failures) == [3.0, 4.0, 5.0, 6.0]


def test_of_a_client_the_last_moment_of_each_user_is_kept() -> None:
    failures = Failures.private(SHAPE)
    clients, key = failures.clients, (HERE, b"")
    row = clients.take(key, by_age)
    for moment, user in ((1.0, b"a"), (2.0, b"b"), (3.0, b"a"), (4.0, b"c")):
        clients.note(row, moment, user)
    assert list(clients.past(key).users) == [2.0, 3.0, 4.0]
    clients.note(row, 5.0, b"d")  # in the place of b
    assert list(clients.past(key).users) == [3.0, 4.0, 5.0]
    clients.note(row, 6.0, b"b")
    assert list(clients.past(key).users) == [4.0, 5.0, 6.0]


def test_wiping_leaves_nothing() -> None:
    failures = Failures.private(SHAPE)
    row = failures.clients.take((HERE, b""), by_age)
    failures.clients.note(row, 1.0, b"a")
    failures.clients.wipe(row)
    assert failures.clients.past((HERE, b"")) == Past([], [])
    failures.clients.note(row, 2.0, b"a")
    assert failures.clients.past((HERE, b"")) == Past([2.0], [2.0])


def test_a_row_that_becomes_another_keys_while_it_is_read_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = Failures.private(SHAPE._replace(entries=1))
    for number in range(16):
        note(failures, number + 1.0, (HERE, b"%d" % number))
    read = failures.pairs.read

    def meanwhile(row: int) -> Past:
        with monkeypatch.context() as patched:
            patched.setattr(failures.pairs, "read", read)
            note(failures, 99.0, (HERE, b"new"))  # displaces the oldest
        return read(row)

    with monkeypatch.context() as patched:
        patched.setattr(failures.pairs, "read", meanwhile)
        assert failures.pairs.past((HERE, b"0")) == Past()
    assert list(failures.pairs.past((HERE, b"new")).failures) == [99.0]


# several processes

WORKER = """
import json, random, sys
from tabi.server import failures as module
from tabi.server.failures import Failures, Shape

module._PATIENCE = 1_000_000  # whoever has the lock may be kept from the processor for long
descriptor, column, notes, keys = map(int, sys.argv[1:5])
failures = Failures.attach(descriptor, Shape(*map(int, sys.argv[5:])))
chance = random.Random(column)
print("ready", flush=True)
sys.stdin.readline()
noted = {str(key): [] for key in range(keys)}
for number in range(notes):
    user = str(chance.randrange(keys))
    key = (b"here", user.encode())
    moment = column * 1e7 + number + 1
    with failures.changing():
        row = failures.pairs.take(key, lambda past: past.failures[-1:])
        failures.pairs.note(row, moment, key[1])
    noted[user].append(moment)
    assert moment in failures.pairs.past(key).failures or keys > 16, "noted is seen"
print(json.dumps(noted), flush=True)
sys.stdin.readline()
"""


@contextmanager
def working(failures: Failures, shape: Shape, *, notes: int, keys: int) -> Iterator[list["subprocess.Popen[str]"]]:
    """Run four processes that note failures as fast as they can."""
    with ExitStack() as stack:
        processes = []
        for column in range(4):
            arguments = map(str, [failures.fileno(), column, notes, keys, *shape])
            process = subprocess.Popen(
                [sys.executable, "-c", WORKER, *arguments],
                pass_fds=[failures.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.communicate, timeout=PATIENCE)
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert line_of(process) == "ready\n"
        for process in processes:
            say(process)
        yield processes


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def say(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_processes_that_fail_at_the_same_moment_lose_nothing() -> None:
    shape = Shape(entries=64, failures=4000, users=1)
    failures = Failures.create(shape)
    with working(failures, shape, notes=500, keys=5) as processes:
        reports: Sequence[dict[str, list[float]]] = [json.loads(line_of(process)) for process in processes]
        for key in map(str, range(5)):
            expected = sorted(moment for report in reports for moment in report[key])
            assert list(failures.pairs.past((b"here", key.encode())).failures) == expected
    failures.close()


def test_processes_that_are_killed_at_any_moment_leave_whole_rows_and_a_free_lock(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shape = Shape(entries=4, failures=8, users=1)
    failures = Failures.create(shape)
    with working(failures, shape, notes=100_000_000, keys=40) as processes:
        for process in processes:
            seen = moments(failures)
            until(lambda seen=seen: moments(failures) != seen, "the processes to go on")
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)
    assert {key for _, key in failures.pairs.taken()} <= {(b"here", b"%d" % key) for key in range(40)}
    assert all(moment % 1e7 >= 1 and moment < 4e7 for moment in moments(failures))
    with caplog.at_level(logging.WARNING, "tabi"):
        note(failures, 5e7, (b"here", b"after"))
    assert caplog.records == []
    assert list(failures.pairs.past((b"here", b"after")).failures) == [5e7]
    failures.close()


def moments(failures: Failures) -> set[float]:
    return {moment for row, _ in failures.pairs.taken() for moment in failures.pairs.read(row).failures}


HOLDER = """
import fcntl, sys
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX, 1, 0)
print("locked", flush=True)
sys.stdin.readline()
"""


def test_where_somebody_stands_still_with_the_lock_failures_count_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = Failures.create(SHAPE)
    with caplog.at_level(logging.WARNING, "tabi"):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(failures.fileno())],
            pass_fds=[failures.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with holder:
            assert line_of(holder) == "locked\n"
            for moment in (1.0, 2.0):
                note(failures, moment, (HERE, b"alice"))
            holder.kill()
        note(failures, 3.0, (HERE, b"alice"))
    assert list(failures.pairs.past((HERE, b"alice")).failures) == [1.0, 2.0, 3.0]
    (record,) = caplog.records
    assert "keeps its lock" in record.message
    failures.close()
