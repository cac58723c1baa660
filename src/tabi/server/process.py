"""One worker process as the supervisor sees it: what it is told, what it answers, its end."""

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

from tabi.net.channel import Channel, ClosedError
from tabi.net.tasks import spawn
from tabi.server.live import Row
from tabi.server.orders import Answer, Ask, Prepare, Ready, Stop, Swap, Unready

__all__ = ["WorkerProcess", "text_of"]

READY_WITHIN: Final = 30.0  # seconds for a worker to start or to prepare a configuration
ANSWER_WITHIN: Final = 5.0  # seconds for a worker to answer a question
END_WITHIN: Final = 10.0  # seconds for a worker to end, beyond what its sessions are given

_logger = logging.getLogger("tabi")


class WorkerProcess:
    """One worker as the supervisor sees it.

    Raises:
        OSError: no process can be started, for want of descriptors or memory, say; nothing is left of it.
    """

    def __init__(self, index: int) -> None:
        ours, theirs = Channel.pair()
        self.index = index
        self.channel = ours
        self.started: float = time.monotonic()
        self.process: subprocess.Popen[bytes]
        self.pidfd: int
        with theirs:
            try:
                self.process, self.pidfd = _start(theirs.fileno())
            except OSError:
                ours.close()
                raise
        self.verdict: asyncio.Future[Ready | Unready] | None = None
        self._awaited = 0  # the generation that `verdict` is about
        self.answers: dict[int, asyncio.Future[list[Row]]] = {}
        self.has_now: frozenset[int] = frozenset()  # numbers of listeners
        self._will_have: frozenset[int] = frozenset()
        self.ended: asyncio.Event = asyncio.Event()
        _ = spawn(self._listen(), name=f"worker {index}")

    async def _listen(self) -> None:
        """Sort what the worker says until it is gone."""
        while True:
            try:
                value = (await self.channel.receive()).value
            except ClosedError:
                break
            if isinstance(value, Answer):
                if (waiting := self.answers.pop(value.number, None)) is not None and not waiting.done():
                    waiting.set_result(value.rows)
            elif self.verdict is not None and not self.verdict.done() and value.generation == self._awaited:
                self.verdict.set_result(value)  # and not one that comes too late, about what was given up
        gone = ClosedError(f"worker {self.index} is gone")
        for future in (self.verdict, *self.answers.values()):
            if future is not None and not future.done():
                future.set_exception(gone)
        self.channel.close()

    async def prepare(self, order: Prepare, fds: Sequence[int]) -> Ready | Unready:
        """Have it prepare, and hear whether it could.

        Args:
            order: what to prepare.
            fds: for a new worker those of the table and of the lockouts; then those of the sockets that the order
                speaks of.

        Raises:
            ClosedError: it died over it.
            TimeoutError: it did not answer.
        """
        self._will_have = frozenset(order.listeners)
        return await self._order(order, fds)

    async def swap(self, generation: int) -> int:
        """Have it live by what it prepared, and hear that it does, and how many sessions that ended.

        Raises:
            ClosedError: it died over it.
            TimeoutError: it did not answer.
        """
        done = await self._order(Swap(generation))
        self.has_now = self._will_have
        return done.ended if isinstance(done, Ready) else 0

    async def _order(self, order: Prepare | Swap, fds: Sequence[int] = ()) -> Ready | Unready:
        self._awaited = order.generation
        self.verdict = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(READY_WITHIN):
            await self.channel.send(order, fds)
            return await self.verdict

    async def ask(self, question: Ask) -> list[Row]:
        """Put a question to it; a worker that cannot answer is told of in the log.

        Returns:
            its rows; none where it does not answer.
        """
        waiting: asyncio.Future[list[Row]] = asyncio.get_running_loop().create_future()
        self.answers[question.number] = waiting
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                await self.channel.send(question)
                return await waiting
        except (ClosedError, TimeoutError) as error:
            _logger.warning("worker %d gave no answer: %s", self.index, text_of(error))
            return []
        finally:
            self.answers.pop(question.number, None)

    async def end(self, patience: float) -> None:
        """Have it stop, and wait until it has; by force when it takes longer than it was given."""
        try:
            async with asyncio.timeout(patience + END_WITHIN):
                with contextlib.suppress(ClosedError):  # it has ended already
                    await self.channel.send(Stop(patience))
                await self.ended.wait()
        except TimeoutError:
            _logger.error("worker %d (process %d) did not end; it is killed", self.index, self.process.pid)
            self.process.kill()
            await self.ended.wait()


def _start(channel: int) -> "tuple[subprocess.Popen[bytes], int]":
    """Start a worker's process; gives it and a descriptor that tells of its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tabi.server.worker", str(channel)], stdin=subprocess.DEVNULL, pass_fds=[channel]
    )
    try:
        return process, os.pidfd_open(process.pid)
    except OSError:  # nobody would hear of its end
        process.kill()
        process.wait()
        raise


def text_of(error: Exception) -> str:
    """Say why a worker did not answer, or could not be started."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or "not in time"
