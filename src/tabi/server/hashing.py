"""A queue for password hashes: as many at once as there are cores, few waiting, no address before another.

Hashing is the dearest thing that a stranger can make a server do. So the queue is short, whoever does not fit is told
at once, and turns go round by client address: one address that floods it delays itself.

Workers share cores and length (`shared_queue`): each has its part of them. Where there are more workers than cores,
several have the same core, and take turns by a lock of a file, which one that dies lets go of.
"""

import asyncio
import fcntl
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Final

from tabi.server.admission import ClientKey

__all__ = ["MAX_WAITING", "HashQueue", "Job", "shared_queue"]

MAX_WAITING: Final = 64
_LOCKS: Final = 1 << 40  # bytes from here on are locked: behind the end of any file that is used for it


class Job:
    """One hash to be made.

    Attributes:
        result: what the work gave; None: it was put out of the queue for the sake of another address.
        begun: it is being done, or is over.
    """

    __slots__ = ("begun", "client", "result", "work")

    def __init__(self, client: ClientKey, work: Callable[[], bool], result: asyncio.Future[bool | None]) -> None:
        self.client: ClientKey = client
        self.work: Callable[[], bool] = work
        self.result: asyncio.Future[bool | None] = result
        self.begun: bool = False


class HashQueue:
    """See the module. Lives on the running loop.

    Args:
        cores: hashes at once; None: the cores that this process may use. Where several workers share them, their share.
        waiting: jobs that wait beyond those.
        executor: what does them; None: threads of its own.
        core: what a thread holds while it does one, and may wait for.
    """

    def __init__(
        self,
        cores: int | None = None,
        *,
        waiting: int = MAX_WAITING,
        executor: Executor | None = None,
        core: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._cores = cores or len(os.sched_getaffinity(0))
        self._waiting = waiting
        self._core = core
        self._executor = executor or ThreadPoolExecutor(self._cores, thread_name_prefix="tabi password")
        self._running = 0
        self._queues: dict[ClientKey, deque[Job]] = {}  # whose turn is next stands first
        self._length = 0

    def __len__(self) -> int:
        """Jobs that wait."""
        return self._length

    def submit(self, client: ClientKey, work: Callable[[], bool]) -> Job | None:
        """Have `work` done in a thread. Await the job's `result`; `withdraw` it if you do not wait for its end.

        Returns:
            the job, or None: too many are waiting.
        """
        job = Job(client, work, asyncio.get_running_loop().create_future())
        if self._running < self._cores:
            self._begin(job)
            return job
        if self._length >= self._waiting and not self._make_room(client):
            return None
        self._queues.setdefault(client, deque()).append(job)
        self._length += 1
        return job

    def withdraw(self, job: Job) -> None:
        """Take a job out of the queue; one that has begun goes on to its end."""
        queue = self._queues.get(job.client, ())
        if job in queue:
            self._drop(job)

    def close(self) -> None:
        """End the threads; waits for hashes that are being made, some ten milliseconds."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _make_room(self, client: ClientKey) -> bool:
        """Drop the youngest job of the address that has most, unless that is the one that asks."""
        longest = max(self._queues, key=lambda key: len(self._queues[key]))
        if len(self._queues[longest]) <= len(self._queues.get(client, ())) + 1:
            return False
        job = self._queues[longest][-1]
        self._drop(job)
        if not job.result.done():
            job.result.set_result(None)
        return True

    def _drop(self, job: Job) -> None:
        queue = self._queues[job.client]
        queue.remove(job)
        self._length -= 1
        if not queue:
            del self._queues[job.client]

    def _begin(self, job: Job) -> None:
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._executor, self._do, job.work)  # raises where no thread can be started
        job.begun = True
        self._running += 1
        running.add_done_callback(partial(self._on_done, job))

    def _do(self, work: Callable[[], bool]) -> bool:
        with self._core():
            return work()

    def _on_done(self, job: Job, done: asyncio.Future[bool]) -> None:
        self._running -= 1
        error = None if done.cancelled() else done.exception()
        if job.result.done():  # cancelled: nobody waits any more
            pass
        elif done.cancelled():
            job.result.cancel()
        elif error is not None:
            job.result.set_exception(error)
        else:
            job.result.set_result(done.result())
        self._begin_next()

    def _begin_next(self) -> None:
        while self._queues and self._running < self._cores:
            client = next(iter(self._queues))
            queue = self._queues.pop(client)
            job = queue.popleft()
            self._length -= 1
            if queue:
                self._queues[client] = queue  # behind all others
            if job.result.done():  # cancelled, and its owner has not come to withdraw it
                continue
            try:
                self._begin(job)
            except RuntimeError as error:  # no thread to be had, or closed
                job.result.set_exception(error)


def shared_queue(workers: int, index: int, file: int) -> HashQueue:
    """Make a worker's part of the queue that all workers have together.

    Args:
        workers: how many there are.
        index: which one this is.
        file: descriptor of a file that all of them have.
    """
    cores = len(os.sched_getaffinity(0))
    return HashQueue(
        max(1, cores // workers),
        waiting=max(1, MAX_WAITING // workers),
        core=partial(_kept, file, index % cores) if workers > cores else nullcontext,
    )


@contextmanager
def _kept(file: int, core: int) -> Iterator[None]:
    """Keep a core from the other processes, waiting for it as long as they have it; fcntl(2) locks belong to one."""
    fcntl.lockf(file, fcntl.LOCK_EX, 1, _LOCKS + core)
    try:
        yield
    finally:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, _LOCKS + core)
