"""A worker that died and whose successor cannot be started: it is tried again, told once, and seen by who asks."""

import asyncio
import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from helpers import looping
from helpers.configured import ALLOW, LISTEN, configured
from helpers.serving import SERVE
from helpers.socks import connect5, dial, echoes, read_exactly
from tabi.config.load import load
from tabi.errors import ConfigError
from tabi.server import process, supervisor
from tabi.server.process import WorkerProcess
from tabi.server.supervisor import Supervisor

OPEN = LISTEN + ALLOW
FAILURES = 3
STANDARD = 3  # descriptors that every process has; a limit of so many leaves none to open


class Failing:
    """Stands for `subprocess.Popen`, and fails as many times as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failures = 0
        self.tried = 0
        self._popen = subprocess.Popen
        monkeypatch.setattr(process.subprocess, "Popen", self._start)

    def _start(self, *arguments, **options):
        self.tried += 1
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return self._popen(*arguments, **options)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Failing:
    return Failing(monkeypatch)


def supervised(directory: Path, workers: int = 2) -> Supervisor:
    file = directory / "tabi.toml"
    file.write_text(OPEN)
    return Supervisor(lambda: load(str(file)), workers=workers)


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Supervisor]:
    """Run a supervisor with two workers, in this process."""
    one = supervised(directory)
    await one.start()
    try:
        yield one
    finally:
        await one.stop(0.0)


async def numbers(one: Supervisor) -> list[int]:
    return [row["worker"] for row in await one.ask("status")]


async def lose(one: Supervisor) -> None:
    """End worker 0, and wait until the supervisor has seen it."""
    worker = one._workers[0]
    os.kill(worker.process.pid, signal.SIGKILL)
    await worker.ended.wait()


async def until_both_serve(one: Supervisor) -> None:
    async with asyncio.timeout(looping.PATIENCE):
        while await numbers(one) != [0, 1]:
            await asyncio.sleep(0.001)


def told(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


def test_it_is_tried_again_until_it_can_be_started_and_told_once(
    tmp_path: Path, starts: Failing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "RESTART_PAUSE", 0.0)

    async def main() -> None:
        async with running(tmp_path) as one:
            starts.failures, before = FAILURES, starts.tried
            await lose(one)
            await until_both_serve(one)
            assert starts.tried == before + FAILURES + 1
            assert told(caplog, "cannot be started") == [
                "worker 0 cannot be started: Too many open files; tried again until it can be"
            ]
            await looping.until(lambda: told(caplog, "worker 0 is started at last"))

    looping.run(main())


def test_a_reload_starts_it_at_once_or_says_that_it_is_missing(
    tmp_path: Path, starts: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "RESTART_PAUSE", 3600.0)
    monkeypatch.setattr(supervisor, "YOUNG", math.inf)  # it may have taken long to start

    async def main() -> None:
        async with running(tmp_path) as one:
            starts.failures = 1
            await lose(one)
            assert await numbers(one) == [1]
            reloaded = await one.reload()
            assert (reloaded.generation, reloaded.missing) == (2, (0,))
            reloaded = await one.reload()
            assert (reloaded.generation, reloaded.missing) == (3, ())
            assert await numbers(one) == [0, 1]

    looping.run(main())


def test_a_server_whose_workers_cannot_be_started_does_not_start(tmp_path: Path, starts: Failing) -> None:
    starts.failures = 2

    async def main() -> None:
        with pytest.raises(ConfigError, match="workers cannot be started: Too many open files"):
            await supervised(tmp_path).start()

    looping.run(main())


def test_a_start_that_fails_leaves_no_descriptor(starts: Failing) -> None:
    starts.failures = 1

    async def main() -> None:
        before = os.listdir("/proc/self/fd")
        with pytest.raises(OSError, match="Too many open files"):
            WorkerProcess(0)
        assert os.listdir("/proc/self/fd") == before

    looping.run(main())


def test_a_process_whose_end_nobody_would_hear_of_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []

    def refuse(pid: int) -> int:
        begun.append(pid)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", refuse)

    async def main() -> None:
        with pytest.raises(OSError, match="Too many open files"):
            WorkerProcess(0)

    looping.run(main())
    (process,) = begun
    assert not Path(f"/proc/{process}").exists()


def test_a_server_out_of_descriptors_serves_again_once_it_has_some(tmp_path: Path, echo: tuple[str, int]) -> None:
    with configured(tmp_path, OPEN, workers=1) as server:
        (first,) = server.workers(1)
        before = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (STANDARD, before[1]))
        os.kill(first, signal.SIGKILL)
        server.line("worker 0 cannot be started: Too many open files")
        with dial(server.address) as waiting:
            waiting.sendall(b"\x05\x01\x00")
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)
            assert read_exactly(waiting, 2) == b"\x05\x00"
        assert server.workers(1) != [first]
        with connect5(server.address, *echo) as sock:
            assert echoes(sock)
        server.line("worker 0 is started at last")
        assert len([line for line in server.errors if "cannot be started" in line]) == 1
        assert server.stop() == 0
        assert not [line for line in server.errors if "Traceback" in line]


def test_status_and_reload_name_who_is_missing(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with configured(tmp_path, OPEN, workers=2, program=(str(python), *SERVE[1:]), env=env) as server:
        _, other = server.workers(2)
        assert server.tabi("status").stderr == ""
        assert server.ask("status").items() >= {"wanted": 2, "running": 2}.items()
        python.unlink()
        os.kill(other, signal.SIGKILL)
        server.line(f"worker 1 cannot be started: No such file or directory: {python}; tried again until it can be")
        missing = "tabi: worker 1 is missing; the server's log says why\n"
        done = server.tabi("status")
        assert (done.returncode, done.stderr) == (0, missing)
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["worker", "0"]
        assert json.loads(server.tabi("status", "--json").stdout).items() >= {"wanted": 2, "running": 1}.items()
        done = server.tabi("reload")
        assert (done.returncode, done.stdout, done.stderr) == (0, "reloaded\n", missing)
        server.line("generation 2; 0 sessions ended; worker 1 is missing$")
        python.symlink_to(sys.executable)
        done = server.tabi("reload")
        assert (done.returncode, done.stdout, done.stderr) == (0, "reloaded\n", "")
        assert len(server.rows("status")) == 2
