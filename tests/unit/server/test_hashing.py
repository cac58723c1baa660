"""The queue for hashes: its width, its length, and whose turn is next."""

import asyncio
import os
import subprocess
import sys
import threading

import pytest

from helpers.looping import run, until
from helpers.virtual_time import HeldExecutor
from tabi.server.hashing import MAX_WAITING, HashQueue, Job, shared_queue

A, B, C = b"aaaa", b"bbbb", b"cccc"


class Bench:
    """A queue in front of an executor that the test drives; `done` are the names of the jobs that were done."""

    def __init__(self, cores: int = 1, waiting: int = MAX_WAITING) -> None:
        self.executor = HeldExecutor()
        self.queue = HashQueue(cores, waiting=waiting, executor=self.executor)
        self.done: list[str] = []

    def submit(self, client: bytes, name: str) -> Job | None:
        def work() -> bool:
            self.done.append(name)
            return True

        return self.queue.submit(client, work)

    async def finish_all(self) -> None:
        while self.executor.begun:
            await self.finish()

    async def finish(self) -> None:
        self.executor.finish()
        await asyncio.sleep(0)  # the thread's word comes to the loop,
        await asyncio.sleep(0)  # the future tells its callbacks
        await asyncio.sleep(0)


def test_as_many_at_once_as_there_are_cores_and_not_one_more() -> None:
    async def main() -> None:
        bench = Bench(cores=3)
        for number in range(10):
            assert bench.submit(A, str(number)) is not None
        assert len(bench.executor.begun) == 3
        assert len(bench.queue) == 7
        while len(bench.queue):
            await bench.finish()
            assert len(bench.executor.begun) == 3
        await bench.finish_all()
        assert bench.done == [str(number) for number in range(10)]
        assert bench.submit(A, "again") is not None
        assert len(bench.executor.begun) == 1

    run(main())


def test_the_sixty_fifth_that_would_wait_is_refused_and_never_done() -> None:
    async def main() -> None:
        bench = Bench()
        jobs = [bench.submit(number.to_bytes(4, "big"), str(number)) for number in range(66)]
        assert [job is None for job in jobs] == [False] * 65 + [True]
        await bench.finish_all()
        assert bench.done == [str(number) for number in range(65)]

    run(main())


def test_turns_go_round_by_address() -> None:
    async def main() -> None:
        bench = Bench()
        for client, name in [(A, "a0"), (A, "a1"), (A, "a2"), (A, "a3"), (B, "b1"), (B, "b2"), (C, "c1")]:
            bench.submit(client, name)
        await bench.finish_all()
        assert bench.done == ["a0", "a1", "b1", "c1", "a2", "b2", "a3"]

    run(main())


def test_an_address_that_fills_the_queue_makes_room_for_others_but_not_for_itself() -> None:
    async def main() -> None:
        bench = Bench(waiting=4)
        flood = [bench.submit(A, f"a{number}") for number in range(5)]
        assert bench.submit(A, "a5") is None
        other = bench.submit(B, "b1")
        assert other is not None
        assert bench.submit(B, "b2") is not None  # two and two: nobody has more than others
        assert bench.submit(B, "b3") is None
        assert [job.result.done() and job.result.result() for job in flood if job] == [False] * 3 + [None] * 2
        await bench.finish_all()
        assert bench.done == ["a0", "a1", "b1", "a2", "b2"]
        assert await other.result is True

    run(main())


def test_a_job_that_is_withdrawn_makes_room_and_is_never_done() -> None:
    async def main() -> None:
        bench = Bench(waiting=1)
        bench.submit(A, "a0")
        waiting = bench.submit(A, "a1")
        assert waiting is not None
        assert bench.submit(A, "a2") is None
        bench.queue.withdraw(waiting)
        bench.queue.withdraw(waiting)
        assert len(bench.queue) == 0
        assert bench.submit(A, "a3") is not None
        await bench.finish_all()
        assert bench.done == ["a0", "a3"]
        assert not waiting.begun

    run(main())


def test_a_job_that_nobody_waits_for_any_more_keeps_its_core_until_it_ends() -> None:
    async def main() -> None:
        bench = Bench()
        first, second = bench.submit(A, "a0"), bench.submit(A, "a1")
        assert first is not None
        assert second is not None
        first.result.cancel()
        await asyncio.sleep(0)
        assert len(bench.executor.begun) == 1
        bench.queue.withdraw(first)
        assert not second.begun
        await bench.finish()
        assert second.begun
        await bench.finish()
        assert await second.result is True

    run(main())


def test_a_cancelled_job_that_was_not_withdrawn_yet_is_passed_over() -> None:
    async def main() -> None:
        bench = Bench()
        jobs = [bench.submit(A, f"a{number}") for number in range(3)]
        assert jobs[1] is not None
        jobs[1].result.cancel()
        await bench.finish_all()
        assert bench.done == ["a0", "a2"]

    run(main())


def failing() -> bool:
    raise ZeroDivisionError("no memory for a hash")


def test_an_error_reaches_whoever_waits_and_frees_the_core() -> None:
    async def main() -> None:
        bench = Bench()
        broken, following = bench.queue.submit(A, failing), bench.submit(A, "next")
        assert broken is not None
        assert following is not None
        await bench.finish()
        with pytest.raises(ZeroDivisionError):
            await broken.result
        await bench.finish()
        assert await following.result is True

    run(main())


def test_hashes_are_made_in_threads_and_those_end_with_the_queue() -> None:
    async def main() -> None:
        queue = HashQueue(2)
        names: set[str] = set()

        def work() -> bool:
            names.add(threading.current_thread().name)
            return False

        jobs = [queue.submit(A, work) for _ in range(20)]
        await until(lambda: all(job is not None and job.result.done() for job in jobs))
        assert len(names) <= 2
        assert all(name.startswith("tabi password") for name in names)
        queue.close()
        assert not names & {thread.name for thread in threading.enumerate()}

    run(main())


@pytest.mark.parametrize(("workers", "cores", "at_once"), [(1, 2, 2), (2, 2, 1), (4, 2, 1), (2, 8, 4), (80, 2, 1)])
def test_workers_have_64_waiting_places_together(
    monkeypatch: pytest.MonkeyPatch, workers: int, cores: int, at_once: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))

    async def main() -> int:
        queue = shared_queue(workers, 0, file)
        go_on = threading.Event()
        jobs = [queue.submit(b"%d" % number, go_on.wait) for number in range(at_once + MAX_WAITING + 1)]
        go_on.set()
        taken = [job.result for job in jobs if job is not None]
        assert all(await asyncio.gather(*taken))
        queue.close()
        return len(taken) - at_once

    file = os.memfd_create("locks")
    try:
        assert run(main()) == max(1, MAX_WAITING // workers)
    finally:
        os.close(file)


HOLDER = """
import os, sys
from tabi.server.hashing import shared_queue
os.sched_getaffinity = lambda _pid: {0}
with shared_queue(2, 1, int(sys.argv[1]))._core():
    print("held", flush=True)
    sys.stdin.read()
"""


def is_waiting_for_a_lock(pid: int) -> bool:
    with open("/proc/locks") as locks:  # "7: -> POSIX  ADVISORY  WRITE 4711 00:01:1234 0 EOF", proc_locks(5)
        return any(line.split()[1] == "->" and line.split()[5] == str(pid) for line in locks)


def test_workers_that_share_a_core_hash_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    file = os.memfd_create("locks")

    async def main() -> None:
        queue = shared_queue(2, 0, file)
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(file)], pass_fds=[file], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            assert other.stdout.readline() == b"held\n"
            job = queue.submit(A, lambda: True)
            assert job is not None
            await until(lambda: is_waiting_for_a_lock(os.getpid()))
            assert not job.result.done()
            other.kill()  # who dies lets go
            assert await job.result
        queue.close()

    try:
        run(main())
    finally:
        os.close(file)
