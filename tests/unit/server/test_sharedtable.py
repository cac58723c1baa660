"""Counts over several processes: never above the limit by more than workers - 1, never stuck, nothing left over."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.waiting import PATIENCE, until
from tabi.relay.bucket import Bucket
from tabi.server.counts import Counts, LocalCounts
from tabi.server.sharedtable import SharedTable


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Hand:
    return Hand()


@contextmanager
def tables(columns: int, *, rows: int = 64, clock: Hand | None = None) -> Iterator[list[SharedTable]]:
    """Make the views that so many workers have, in one process: enough where nobody races."""
    hand = clock or Hand()
    first = SharedTable.create(columns, rows=rows, clock=hand)
    views = [first, *(SharedTable(os.dup(first.fileno()), column, clock=hand) for column in range(1, columns))]
    yield views
    for view in views:
        view.close()


def test_a_limit_holds_over_all_workers() -> None:
    with tables(3) as (one, two, three):
        assert one.acquire(b"k", 2)
        assert two.acquire(b"k", 2)
        assert not three.acquire(b"k", 2)
        assert not one.acquire(b"k", 2)
        assert three.acquire(b"other", 2)
        assert [view.total(b"k") for view in (one, two, three)] == [2, 2, 2]
        assert [view.own(b"k") for view in (one, two, three)] == [1, 1, 0]
        two.release(b"k")
        assert three.acquire(b"k", 2)
        assert one.counted() == [b"k"]
        assert sorted(three.counted()) == [b"k", b"other"]


def test_two_who_refused_each_other_try_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with tables(2) as (one, two):
        assert two.acquire(b"k")
        take_back = one.release

        def both_take_back(key: bytes) -> None:
            take_back(key)
            two.release(key)

        with monkeypatch.context() as patched:
            patched.setattr(one, "release", both_take_back)
            assert one.acquire(b"k", 1)
        assert [view.own(b"k") for view in (one, two)] == [1, 0]


def test_without_a_limit_all_are_counted() -> None:
    with tables(2) as (one, two):
        for _ in range(5):
            assert one.acquire(b"k")
        assert two.total(b"k") == 5
        assert not two.acquire(b"k", 5)
        assert two.acquire(b"k", 6)


def test_what_a_dead_worker_counted_is_cleared() -> None:
    with tables(3) as (one, two, three):
        for key in (b"a", b"b", b"c"):
            assert one.acquire(key)
            assert two.acquire(key)
        three.clear(1)
        assert [three.total(key) for key in (b"a", b"b", b"c")] == [1, 1, 1]
        one.clear(0)
        assert [three.total(key) for key in (b"a", b"b", b"c")] == [0, 0, 0]


def test_rows_whose_line_is_zero_are_taken_by_other_keys() -> None:
    with tables(2, rows=8) as (one, two):
        for number in range(1000):
            key = b"client %d" % number
            assert one.acquire(key, 1)
            assert two.total(key) == 1
            one.release(key)
        assert one.counted() == []


def test_a_full_table_counts_for_this_worker_alone_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with tables(2, rows=8) as (one, two), caplog.at_level(logging.WARNING, "tabi"):
        for number in range(8):
            assert one.acquire(b"%d" % number, 1)
        assert caplog.records == []
        assert one.acquire(b"more", 2)
        assert one.acquire(b"more", 2)
        assert not one.acquire(b"more", 2)
        assert one.acquire(b"still more", 2)
        assert (one.own(b"more"), one.total(b"more"), two.total(b"more")) == (2, 2, 0)
        assert b"more" in one.counted()
        assert [record.message for record in caplog.records if "it is full" in record.message] != []
        assert len(caplog.records) == 1
        assert one.cell(b"bucket") is None
        one.release(b"0")
        one.release(b"more")
        assert two.total(b"more") == 0  # its count goes on where it began
        one.release(b"more")
        assert one.acquire(b"more", 2)
        assert two.total(b"more") == 1  # and then there is room


HOLDER = """
import fcntl, sys
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX, 1, 0)
print("locked", flush=True)
sys.stdin.readline()
"""


def test_a_worker_that_stands_still_with_the_lock_blocks_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with tables(1) as (table,), caplog.at_level(logging.WARNING, "tabi"):
        assert table.acquire(b"known")
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(table.fileno())],
            pass_fds=[table.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "locked\n"
            assert table.acquire(b"known", 2)  # what has a row needs no lock
            assert table.acquire(b"new", 1)
            assert not table.acquire(b"new", 1)
            assert "keeps its lock" in caplog.records[0].message
            holder.kill()
        table.release(b"new")
        assert table.acquire(b"new", 1)
        assert len(caplog.records) == 1


def test_a_bucket_is_shared_by_all_who_name_its_key(clock: Hand) -> None:
    with tables(2, clock=clock) as (one, two):
        buckets = [Bucket(1, 3, cell=view.cell(b"alice")) for view in (one, two)]
        assert [buckets[turn % 2].spend(1, clock.now) for turn in range(5)] == [True, True, True, False, False]
        assert one.acquire(b"alice", 1)  # a count of the same key is another thing
        assert two.total(b"alice") == 1
        assert one.cell(b"alice") is one.cell(b"alice")


def test_the_row_of_a_bucket_is_kept_until_it_is_full_again_and_nobody_has_it(clock: Hand) -> None:
    with tables(2, rows=1, clock=clock) as (one, two):
        assert Bucket(1, 10, cell=one.cell(b"alice")).spend(10, clock.now)
        assert two.cell(b"bob") is None
        one.clear(0)
        assert two.cell(b"bob") is None  # alice's would be full at once otherwise
        clock.now += 10
        bucket = Bucket(1, 10, cell=two.cell(b"bob"))
        assert bucket.spend(10, clock.now)


def test_a_column_that_there_is_not_is_refused() -> None:
    with tables(2) as (one, _):
        with pytest.raises(ValueError, match="column 2 of 2"):
            SharedTable(one.fileno(), 2)


steps = st.lists(
    st.tuples(st.booleans(), st.sampled_from([b"a", b"b", b"c", b"d"]), st.none() | st.integers(0, 4)), max_size=100
)


@given(steps, st.sampled_from([1, 2, 64]))
@pytest.mark.parametrize("kind", ["shared", "local"])
def test_one_worker_counts_like_a_counter(kind: str, steps: list[tuple[bool, bytes, int | None]], rows: int) -> None:
    with tables(1, rows=rows) as (table,):
        counts: Counts = table if kind == "shared" else LocalCounts()
        expected: Counter[bytes] = Counter()
        logging.getLogger("tabi").disabled = True  # small tables are full: the counts are right all the same
        for is_acquire, key, limit in steps:
            if is_acquire:
                fits = limit is None or expected[key] < limit
                assert counts.acquire(key, limit) is fits
                expected[key] += fits
            elif expected[key]:
                counts.release(key)
                expected[key] -= 1
            assert [counts.own(key) for key in b"a b c d".split()] == [expected[key] for key in b"a b c d".split()]
            assert counts.total(key) == expected[key]
        assert sorted(counts.counted()) == sorted(key for key, count in expected.items() if count)
        logging.getLogger("tabi").disabled = False


# several processes

WORKER = """
import fcntl, json, mmap, random, sys
from tabi.server import sharedtable
from tabi.server.sharedtable import SharedTable

sharedtable._PATIENCE = 1_000_000  # whoever has the lock may be kept from the processor for long
descriptor, scales, column, limit, tries, clients = map(int, sys.argv[1:7])
table = SharedTable.attach(descriptor, column)
# What is held, counted under a lock, between the acquire and the release: never more than are really held.
scale = memoryview(mmap.mmap(scales, 4096)).cast("q")

def weigh(step):
    fcntl.lockf(scales, fcntl.LOCK_EX)
    scale[0] += step
    scale[1] = max(scale[0], scale[1])
    fcntl.lockf(scales, fcntl.LOCK_UN)

chance = random.Random(column)
held = admitted = 0
print("ready", flush=True)
sys.stdin.readline()
for turn in range(tries):
    client = b"%d" % chance.randrange(clients) if clients else b""
    if clients:  # rows come and go
        assert table.acquire(client), client
    if table.acquire(b"user", limit):
        admitted += 1
        held += 1
        weigh(1)
    if held and chance.random() < 0.7:
        weigh(-1)
        held -= 1
        table.release(b"user")
    if clients:
        table.release(client)
if sys.stdin.readline() == "release\\n":
    for _ in range(held):
        weigh(-1)
        table.release(b"user")
own, keys = table.own(b"user"), len(table.counted())
print(json.dumps({"admitted": admitted, "held": held, "own": own, "keys": keys}), flush=True)
sys.stdin.readline()
"""


class Workers:
    """Processes that acquire and release as fast as they can."""

    def __init__(self, count: int, limit: int, *, tries: int, rows: int = 1 << 10, clients: int = 0) -> None:
        self.table = SharedTable.create(count + 1, rows=rows)
        self.table_of_test = SharedTable(os.dup(self.table.fileno()), count)
        self.scales = os.memfd_create("scales")
        os.truncate(self.scales, 4096)
        descriptors = [self.table.fileno(), self.scales]
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, *map(str, [*descriptors, column, limit, tries, clients])],
                pass_fds=descriptors,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for column in range(count)
        ]
        for process in self.processes:
            assert self._line(process) == "ready"
        self.say("go")

    @staticmethod
    def _line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def say(self, what: str) -> None:
        for process in self.processes:
            if process.poll() is None:
                assert process.stdin is not None
                process.stdin.write(what + "\n")
                process.stdin.flush()

    def reports(self) -> list[dict[str, Any]]:
        return [json.loads(self._line(process)) for process in self.processes if process.poll() is None]

    @property
    def held(self) -> int:
        """How many are held now."""
        return memoryview(os.pread(self.scales, 16, 0)).cast("q")[0]

    @property
    def most(self) -> int:
        """How many were held at once, at the worst."""
        return memoryview(os.pread(self.scales, 16, 0)).cast("q")[1]

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=PATIENCE)
        self.table.close()
        self.table_of_test.close()
        os.close(self.scales)


@contextmanager
def working(count: int, limit: int, **options: int) -> Iterator[Workers]:
    workers = Workers(count, limit, **options)
    try:
        yield workers
    finally:
        workers.close()


@pytest.mark.parametrize(("count", "limit", "clients"), [(2, 1, 0), (4, 2, 0), (4, 3, 50), (3, 100, 5)])
def test_racing_workers_never_go_far_above_a_limit_and_end_at_zero(count: int, limit: int, clients: int) -> None:
    with working(count, limit, tries=4000, clients=clients) as workers:
        workers.say("release")
        reports = workers.reports()
        assert 0 < workers.most <= limit + count - 1
        assert sum(report["admitted"] for report in reports) >= limit
        assert [(report["own"], report["keys"]) for report in reports] == [(0, 0)] * count
        assert workers.table.total(b"user") == 0
        assert workers.table_of_test.acquire(b"user", 1)


def test_rows_that_come_and_go_in_a_crowded_table_are_never_mixed_up() -> None:
    with working(4, 1000, tries=3000, rows=64, clients=30) as workers:
        workers.say("release")
        assert [report["keys"] for report in workers.reports()] == [0] * 4
        assert workers.table.total(b"user") == 0
        assert [workers.table.total(b"%d" % client) for client in range(30)] == [0] * 30


def test_a_worker_that_is_killed_blocks_nobody_and_its_column_is_cleared() -> None:
    with working(3, 6, tries=1000) as workers:
        workers.say("keep")
        held = [report["held"] for report in workers.reports()]
        victim = max(range(3), key=lambda column: held[column])
        assert held[victim] > 0
        assert workers.table.total(b"user") == sum(held)
        workers.processes[victim].send_signal(signal.SIGKILL)
        workers.processes[victim].wait(PATIENCE)
        workers.table.clear(victim)
        assert workers.table.total(b"user") == sum(held) - held[victim]
        for _ in range(6 - sum(held) + held[victim]):
            assert workers.table_of_test.acquire(b"user", 6)
        assert not workers.table_of_test.acquire(b"user", 6)


def test_workers_that_are_killed_at_any_moment_leave_a_table_that_works() -> None:
    with working(4, 3, tries=10_000_000, rows=32, clients=20) as workers:
        for column, process in enumerate(workers.processes):
            seen = workers.held
            until(lambda seen=seen: workers.held != seen, "the workers to go on")
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)
            workers.table.clear(column)
        assert [workers.table.total(b"%d" % client) for client in range(20)] == [0] * 20
        for _ in range(3):
            assert workers.table_of_test.acquire(b"user", 3)
        assert not workers.table_of_test.acquire(b"user", 3)


def test_a_number_is_given_once_and_a_successor_goes_on() -> None:
    with tables(3) as views:
        given = [next(one) for one in [view.numbers() for view in views] for _ in range(4)]
        assert sorted(given) == list(range(1, 13))
        views[0].clear(1)  # its worker is dead
        assert views[0].acquire(b"k")
        successor = SharedTable(os.dup(views[1].fileno()), 1)
        numbers = successor.numbers()
        assert [next(numbers) for _ in range(2)] == [14, 17]
        del numbers
        successor.close()
