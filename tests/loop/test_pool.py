"""The thread pool: bounded, on demand, and never a reason to hang."""

import asyncio
import gc
import subprocess
import sys
import threading

import pytest

from helpers.looping import PATIENCE, run, until
from tabi.net.pool import Pool


def test_results_and_errors_come_back() -> None:
    async def main() -> None:
        pool = Pool(2)
        assert await pool.submit(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await pool.submit(divmod, 7, 0)
        assert await pool.submit(str, 1) == "1"  # the thread outlived the error
        pool.close()

    run(main())


def test_calls_run_side_by_side_up_to_the_size_and_no_further() -> None:
    async def main() -> None:
        pool = Pool(3)
        gate = threading.Event()
        lock = threading.Lock()
        inside, most = 0, 0

        def call() -> None:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            gate.wait(PATIENCE)
            with lock:
                inside -= 1

        calls = [pool.submit(call) for _ in range(7)]
        await until(lambda: inside == 3)
        assert pool.threads == 3
        gate.set()
        await asyncio.gather(*calls)
        assert most == 3
        pool.close()
        await until(lambda: pool.threads == 0)

    run(main())


def test_a_free_thread_is_used_before_another_is_made() -> None:
    async def main() -> None:
        pool = Pool(5)
        for _ in range(20):
            await pool.submit(str, 1)
            await until(lambda: pool._free == pool.threads)
        assert pool.threads == 1
        pool.close()

    run(main())


def test_idle_threads_end() -> None:
    async def main() -> None:
        pool = Pool(2, idle=0.0)
        await pool.submit(str, 1)
        await until(lambda: pool.threads == 0)
        assert await pool.submit(str, 2) == "2"

    run(main())


def test_a_cancelled_call_that_has_not_begun_is_not_made() -> None:
    async def main() -> None:
        pool = Pool(1)
        gate = threading.Event()
        made: list[int] = []
        first = pool.submit(gate.wait, PATIENCE)
        second = pool.submit(made.append, 2)
        third = pool.submit(made.append, 3)
        second.cancel()
        gate.set()
        await asyncio.gather(first, third)
        assert made == [3]
        pool.close()

    run(main())


def test_a_call_that_outlives_its_loop_is_dropped_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    crashed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", crashed.append)
    pool = Pool(1)
    gate = threading.Event()

    async def main() -> None:
        pool.submit(gate.wait, PATIENCE)

    asyncio.run(main())
    gate.set()

    async def after() -> None:
        assert await pool.submit(str, 5) == "5"  # by the same thread: it lived through the closed loop
        pool.close()

    run(after())
    gc.collect()
    assert crashed == []


def test_a_closed_pool_takes_no_calls() -> None:
    async def main() -> None:
        pool = Pool(1)
        pool.close()
        with pytest.raises(RuntimeError, match="closed"):
            pool.submit(str, 1)

    run(main())


def test_a_call_that_hangs_does_not_hold_up_the_exit() -> None:
    program = (
        "import asyncio, threading\n"
        "from tabi.net.pool import Pool\n"
        "async def main():\n"
        "    Pool(1).submit(threading.Event().wait)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=PATIENCE, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
