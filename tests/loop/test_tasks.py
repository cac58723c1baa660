"""Spawned tasks have a name, live until they are done, and their errors are heard once."""

import asyncio
import gc
import logging
import weakref

import pytest

from helpers.looping import run, until
from tabi.net.tasks import begin, pending, settle, spawn


class TroubleError(Exception):
    pass


async def fail() -> None:
    await asyncio.sleep(0)
    raise TroubleError("oh no")


def test_a_task_needs_a_name_and_keeps_it() -> None:
    async def main() -> None:
        task = spawn(asyncio.sleep(0), name="s1 relay")
        assert task.get_name() == "s1 relay"
        await task

    run(main())


def test_a_task_that_nobody_else_holds_lives_until_it_is_done() -> None:
    async def main() -> None:
        finished: list[int] = []
        gates: list[weakref.ref[asyncio.Future[None]]] = []

        async def work() -> None:
            gate = asyncio.get_running_loop().create_future()
            gates.append(weakref.ref(gate))  # weak: loop, future and task would all go if nobody held the task
            await gate
            finished.append(1)

        spawn(work(), name="forgotten")
        await asyncio.sleep(0)
        gc.collect()
        gate = gates[0]()
        assert gate is not None
        gate.set_result(None)
        await until(lambda: finished)
        assert pending() == ()

    run(main())


def test_an_error_that_nobody_waits_for_is_logged_once_with_the_name(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        spawn(fail(), name="s1 lookup")
        await until(lambda: not pending())

    run(main())  # fails if asyncio tells of it as well
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("tabi", logging.ERROR)
    assert "s1 lookup" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], TroubleError)


def test_an_error_that_somebody_waits_for_is_theirs_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        with pytest.raises(TroubleError):
            await spawn(fail(), name="awaited")
        results = await asyncio.gather(spawn(fail(), name="gathered"), return_exceptions=True)
        assert isinstance(results[0], TroubleError)

    run(main())
    assert caplog.records == []


def test_whoever_stopped_waiting_does_not_count(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def fail_later() -> None:
            await gate.wait()
            raise TroubleError("oh no")

        task = spawn(fail_later(), name="left alone")
        await asyncio.wait({task}, timeout=0)
        gate.set()
        await until(task.done)

    run(main())
    assert ["left alone" in record.getMessage() for record in caplog.records] == [True]


def test_on_error_has_the_error_instead_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[BaseException] = []

    async def main() -> None:
        spawn(fail(), name="watched", on_error=heard.append)
        await until(lambda: not pending())

    run(main())
    assert [type(error) for error in heard] == [TroubleError]
    assert caplog.records == []


def test_a_cancellation_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[BaseException] = []

    async def main() -> None:
        spawn(asyncio.sleep(60), name="cancelled", on_error=heard.append).cancel()
        await until(lambda: not pending())

    run(main())
    assert heard == []
    assert caplog.records == []


def test_settle_ends_all_tasks_and_lets_them_clean_up() -> None:
    async def main() -> None:
        cleaned: list[str] = []

        async def tidy(name: str, turns: int) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                for _ in range(turns):
                    await asyncio.sleep(0)
                cleaned.append(name)

        async def last_words() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                spawn(tidy("late", 1), name="late")
                await asyncio.sleep(0)

        for turns in range(4):
            spawn(tidy(f"t{turns}", turns), name=f"t{turns}")
        spawn(last_words(), name="last words")
        await asyncio.sleep(0)
        await settle()
        assert pending() == ()
        assert sorted(cleaned) == ["late", "t0", "t1", "t2", "t3"]

    run(main())


def test_settle_called_by_a_spawned_task_spares_it() -> None:
    async def main() -> None:
        spawn(asyncio.sleep(60), name="other")
        await spawn(settle(), name="closer")
        assert pending() == ()

    run(main())


def test_errors_while_settling_are_told(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def stumble() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                raise TroubleError("while closing")

        spawn(stumble(), name="stumbler")
        await asyncio.sleep(0)
        await settle()

    run(main())
    assert ["stumbler" in record.getMessage() for record in caplog.records] == [True]


def no_name() -> str:
    raise AssertionError("nothing waits, so nothing needs a name")


def test_what_needs_no_wait_is_done_at_once_without_a_task() -> None:
    async def main() -> None:
        done: list[int] = []

        async def work() -> None:
            done.append(1)

        assert begin(work(), name=no_name) is None
        assert done == [1]
        with pytest.raises(ZeroDivisionError):
            begin(divide(), name=no_name)
        assert pending() == ()

    async def divide() -> None:
        _ = 1 / 0

    run(main())


def test_what_has_to_wait_goes_on_in_a_task_from_there() -> None:
    async def main() -> None:
        gates: list[asyncio.Future[str]] = [asyncio.get_running_loop().create_future() for _ in range(2)]
        got: list[object] = []

        async def work() -> int:
            got.append(await gates[0])
            try:
                await gates[1]
            except TroubleError as error:
                got.append(error)
            await asyncio.sleep(0)
            return 7

        task = begin(work(), name=lambda: "s1")
        assert task is not None
        assert task.get_name() == "s1"
        gates[0].set_result("first")
        trouble = TroubleError()
        gates[1].set_exception(trouble)
        assert await task == 7
        assert got == ["first", trouble]

    run(main())


@pytest.mark.parametrize("turns", [0, 1])
def test_what_has_begun_can_be_cancelled_before_and_after_its_task_has(turns: int) -> None:
    async def main() -> None:
        cleaned: list[int] = []

        async def work() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                cleaned.append(1)

        task = begin(work(), name=lambda: "s1")
        assert task is not None
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cleaned == [1]

    run(main())
