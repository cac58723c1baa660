"""The supervisor: binds every listener, builds the configuration, keeps the workers running.

It never touches a client's byte. Every listener is opened once per worker with SO_REUSEPORT, after a first bind without
it has shown that no other program has the address, and stays open here: a worker that dies leaves its queue to its
successor. Sockets that the service manager opened are shared by all workers.

A reload is all or nothing: load, have every worker say that it is ready, then have all swap. One that cannot changes
nothing anywhere.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv6Address
from typing import Final

from tabi.addr import Endpoint
from tabi.config.load import Configuration
from tabi.config.openness import find_openings
from tabi.errors import ConfigError
from tabi.net.channel import Channel, ClosedError
from tabi.net.listeners import open_listener
from tabi.net.tasks import spawn
from tabi.server.accounts import Judged
from tabi.server.live import Row
from tabi.server.orders import Answer, Ask, Discard, Prepare, Ready, Stop, Swap, Unready
from tabi.server.sharedtable import SharedTable

__all__ = ["Supervisor"]

READY_WITHIN: Final = 30.0  # seconds for a worker to start or to prepare a configuration
ANSWER_WITHIN: Final = 5.0  # seconds for a worker to answer a question
END_WITHIN: Final = 10.0  # seconds for a worker to end, beyond what its sessions are given
RESTART_PAUSE: Final = 1.0  # seconds before a worker that died young is started again
YOUNG: Final = 5.0  # seconds

_logger = logging.getLogger("tabi")


class WorkerProcess:
    """One worker as the supervisor sees it."""

    def __init__(self, index: int, on_judged: "Callable[[WorkerProcess, Judged], None]") -> None:
        ours, theirs = Channel.pair()
        self.on_judged = on_judged
        self.index = index
        self.channel = ours
        self.started = time.monotonic()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tabi.server.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self.pidfd = os.pidfd_open(self.process.pid)
        self.verdict: asyncio.Future[Ready | Unready] | None = None
        self._awaited = 0  # the generation that `verdict` is about
        self.answers: dict[int, asyncio.Future[list[Row]]] = {}
        self.has_now: frozenset[Endpoint] = frozenset()
        self._will_have: frozenset[Endpoint] = frozenset()
        self.ended = asyncio.Event()
        _ = spawn(self._listen(), name=f"worker {index}")

    async def _listen(self) -> None:
        """Sort what the worker says until it is gone."""
        while True:
            try:
                value = (await self.channel.receive()).value
            except ClosedError:
                break
            if isinstance(value, Judged):
                self.on_judged(self, value)
            elif isinstance(value, Answer):
                if (waiting := self.answers.pop(value.number, None)) is not None and not waiting.done():
                    waiting.set_result(value.rows)
            elif self.verdict is not None and not self.verdict.done() and value.generation == self._awaited:
                self.verdict.set_result(value)  # and not one that comes too late, about what was given up
        gone = ClosedError(f"worker {self.index} is gone")
        for future in (self.verdict, *self.answers.values()):
            if future is not None and not future.done():
                future.set_exception(gone)
        self.channel.close()

    async def prepare(
        self, order: Prepare, sockets: Mapping[Endpoint, socket.socket], table: SharedTable | None = None
    ) -> Ready | Unready:
        """Have it prepare, and hear whether it could; a new worker needs the table as well.

        Raises:
            ClosedError: it died over it.
            TimeoutError: it did not answer.
        """
        self._will_have = frozenset(order.listeners)
        fds = [sockets[endpoint].fileno() for endpoint in order.new]
        if table is not None:
            fds.insert(0, table.fileno())
        return await self._order(order, fds)

    async def swap(self, generation: int) -> None:
        """Have it live by what it prepared, and hear that it does.

        Raises:
            ClosedError: it died over it.
            TimeoutError: it did not answer.
        """
        _ = await self._order(Swap(generation))
        self.has_now = self._will_have

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
            _logger.warning("worker %d gave no answer: %s", self.index, _text(error))
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


class Supervisor:
    """Runs the workers of one server.

    Args:
        load: reads and builds the configuration; called again for each reload, in a thread.
        workers: how many; None: as configured, else one per core.
        inherited: listening sockets from the service manager; they stand for the configured addresses then.
    """

    def __init__(
        self,
        load: Callable[[], Configuration],
        *,
        workers: int | None = None,
        inherited: Iterable[socket.socket] = (),
    ) -> None:
        self._load = load
        self._wanted_workers = workers
        self._inherited = {Endpoint.from_sockaddr(sock.getsockname()): sock for sock in inherited}
        self._listeners: dict[Endpoint, list[socket.socket]] = {}
        self._bound: dict[Endpoint, list[Endpoint]] = {}  # what became of the configured addresses: port 0 of any
        self._workers: dict[int, WorkerProcess] = {}
        self._generation = 0
        self._numbers = itertools.count(1)
        self._reloading = asyncio.Lock()
        self._stopping = False

    @property
    def addresses(self) -> tuple[Endpoint, ...]:
        """Where the server listens."""
        return tuple(self._listeners)

    async def start(self) -> None:
        """Load, bind, start every worker, and return when all accept.

        Raises:
            ConfigError: the configuration cannot be used, or a listener not be opened.
        """
        async with self._reloading:  # also whoever wants to reload waits for it
            self.configuration = await asyncio.to_thread(self._load)
            self._generation += 1
            self._count = self._wanted_workers or self.configuration.workers or len(os.sched_getaffinity(0))
            if self.configuration.settings.udp.shared_port is not None and self._count > 1:
                _logger.warning("udp.shared_port can be had by one process only: one worker instead of %d", self._count)
                self._count = 1
            self._listeners, self._bound = self._open(self.configuration)
            self._table = SharedTable.create(self._count)
            starting = [self._start_worker(index) for index in range(self._count)]
            for error in await asyncio.gather(*starting, return_exceptions=True):
                if isinstance(error, BaseException):
                    await self.stop(0.0)
                    raise error

    async def reload(self) -> None:
        """Load the configuration anew and have all workers live by it.

        Raises:
            ConfigError: it cannot be used, or a worker could not; nothing has changed then.
        """
        async with self._reloading:
            if self._stopping or not self._generation:
                raise ConfigError("the server is being stopped")
            configuration = await asyncio.to_thread(self._load)
            if configuration.user != self.configuration.user:
                raise ConfigError("user cannot change while the server runs; restart it")
            listeners, bound = self._open(configuration)
            self._generation += 1
            try:
                await self._prepare_all(configuration, listeners)
            except ConfigError:
                for worker in self._workers.values():
                    with contextlib.suppress(ClosedError):  # one that has died has nothing to forget
                        await worker.channel.send(Discard(self._generation))
                added = (sockets for endpoint, sockets in listeners.items() if endpoint not in self._listeners)
                _close(sock for sockets in added for sock in sockets)
                raise
            dropped = (sockets for endpoint, sockets in self._listeners.items() if endpoint not in listeners)
            gone = [sock for sockets in dropped for sock in sockets]
            self.configuration, self._listeners, self._bound = configuration, listeners, bound
            await asyncio.gather(*(self._swap(worker) for worker in tuple(self._workers.values())))
            _close(gone)

    async def ask(self, what: str, arguments: Mapping[str, str] | None = None) -> list[Row]:
        """Ask every worker; the rows of those that answer."""
        question = Ask(next(self._numbers), what, dict(arguments or {}))
        workers = sorted(self._workers.values(), key=lambda worker: worker.index)
        answers = await asyncio.gather(*(worker.ask(question) for worker in workers))
        return [
            {"worker": worker.index, **row} for worker, answer in zip(workers, answers, strict=True) for row in answer
        ]

    async def stop(self, drain: float | None = None) -> None:
        """Stop accepting, let sessions finish, end every worker."""
        self._stopping = True
        if not self._generation:  # it has not even loaded
            return
        patience = self.configuration.settings.time.drain if drain is None else drain
        workers = tuple(self._workers.values())
        _close(sock for sockets in self._listeners.values() for sock in sockets)  # the workers' own are open still
        await asyncio.gather(*(worker.end(patience) for worker in workers))

    def stop_at_once(self) -> None:
        """Have the workers end without waiting for their sessions."""
        for worker in self._workers.values():
            _ = spawn(worker.channel.send(Stop(0.0)), name=f"stop worker {worker.index}", on_error=lambda _: None)

    # listeners

    def _open(
        self, configuration: Configuration
    ) -> tuple[dict[Endpoint, list[socket.socket]], dict[Endpoint, list[Endpoint]]]:
        """Open what is not open yet, one socket per worker; all or nothing."""
        if self._inherited:
            openings = find_openings(configuration.access, configuration.rules.rules, self._inherited)
            if openings:  # the file alone was judged by the addresses that it names
                raise ConfigError(
                    "\n".join(
                        f"{configuration.path}: rule {opening.number + 1} lets public clients such as {opening.client}"
                        f" through the inherited listener {opening.listener} without authentication;"
                        ' ask for a password, limit "from" to your networks, or write open = true in it'
                        for opening in openings
                    )
                )
            return {endpoint: [sock] * self._count for endpoint, sock in self._inherited.items()}, {}
        wanted = configuration.settings.listen
        ports4 = {endpoint.port for endpoint in wanted if not isinstance(endpoint.host, IPv6Address)}
        before = {endpoint: list(bound) for endpoint, bound in self._bound.items()}
        listeners: dict[Endpoint, list[socket.socket]] = {}
        bound: dict[Endpoint, list[Endpoint]] = {}
        fresh: list[socket.socket] = []
        try:
            for endpoint in wanted:
                if before.get(endpoint):
                    known = before[endpoint].pop(0)
                    listeners[known] = self._listeners[known]
                else:
                    sockets = self._open_for_all(endpoint, v6only=endpoint.port in ports4)
                    fresh += sockets
                    known = Endpoint.from_sockaddr(sockets[0].getsockname())
                    listeners[known] = sockets
                bound.setdefault(endpoint, []).append(known)
        except ConfigError:
            _close(fresh)
            raise
        return listeners, bound

    def _open_for_all(self, endpoint: Endpoint, *, v6only: bool) -> list[socket.socket]:
        if self._count == 1:
            return [open_listener(endpoint, v6only=v6only)]
        with open_listener(endpoint, v6only=v6only) as probe:  # fails where another program listens, also another tabi
            bound = Endpoint.from_sockaddr(probe.getsockname())
        return [open_listener(bound, v6only=v6only, share=True) for _ in range(self._count)]

    # workers

    async def _start_worker(self, index: int) -> None:
        worker = self._workers[index] = WorkerProcess(index, self._share)
        asyncio.get_running_loop().add_reader(worker.pidfd, self._on_death, worker)
        order = self._order(self.configuration, self._listeners, worker)
        try:
            verdict = await worker.prepare(order, self._sockets_of(worker, self._listeners), self._table)
            if isinstance(verdict, Unready):
                raise ConfigError(verdict.why)
            await worker.swap(self._generation)
        except (ClosedError, TimeoutError, ConfigError) as error:
            if worker.process.poll() is None:  # its death starts the next try
                worker.process.kill()
            raise ConfigError(f"worker {index} did not start: {_text(error)}") from None

    async def _swap(self, worker: WorkerProcess) -> None:
        """Have a worker go over to what it said it was ready for; its successor does, where it cannot."""
        try:
            await worker.swap(self._generation)
        except (ClosedError, TimeoutError) as error:
            _logger.error("worker %d did not go over to the new configuration: %s", worker.index, _text(error))
            if worker.process.poll() is None:
                worker.process.kill()

    async def _prepare_all(
        self, configuration: Configuration, listeners: Mapping[Endpoint, list[socket.socket]]
    ) -> None:
        workers = tuple(self._workers.values())
        verdicts = await asyncio.gather(
            *(
                worker.prepare(self._order(configuration, listeners, worker), self._sockets_of(worker, listeners))
                for worker in workers
            ),
            return_exceptions=True,
        )
        for worker, verdict in zip(workers, verdicts, strict=True):
            if isinstance(verdict, Unready):
                raise ConfigError(f"worker {worker.index} refused the configuration: {verdict.why}")
            if isinstance(verdict, ClosedError | TimeoutError):
                raise ConfigError(f"worker {worker.index} did not take the configuration: {_text(verdict)}")
            if isinstance(verdict, BaseException):
                raise verdict

    def _order(
        self, configuration: Configuration, listeners: Mapping[Endpoint, list[socket.socket]], worker: WorkerProcess
    ) -> Prepare:
        return Prepare(
            generation=self._generation,
            configuration=configuration,
            listeners=tuple(listeners),
            new=tuple(endpoint for endpoint in listeners if endpoint not in worker.has_now),
            index=worker.index,
            workers=self._count,
        )

    @staticmethod
    def _sockets_of(
        worker: WorkerProcess, listeners: Mapping[Endpoint, list[socket.socket]]
    ) -> dict[Endpoint, socket.socket]:
        return {endpoint: sockets[worker.index] for endpoint, sockets in listeners.items()}

    def _on_death(self, worker: WorkerProcess) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(worker.pidfd)
        code = worker.process.wait()
        worker.ended.set()
        del self._workers[worker.index]
        os.close(worker.pidfd)
        self._table.clear(worker.index)
        if self._stopping:
            return
        _logger.error("worker %d (process %d) ended with %d; starting another", worker.index, worker.process.pid, code)
        _ = spawn(self._replace(worker), name=f"replace worker {worker.index}")

    async def _replace(self, dead: WorkerProcess) -> None:
        if time.monotonic() - dead.started < YOUNG:
            await asyncio.sleep(RESTART_PAUSE)
        async with self._reloading:
            if not self._stopping:
                try:
                    await self._start_worker(dead.index)
                except ConfigError as error:
                    _logger.error("%s", error)

    def _share(self, source: WorkerProcess, judged: Judged) -> None:
        """Pass on what one worker has judged."""
        for worker in self._workers.values():
            if worker is not source:
                _ = spawn(worker.channel.send(judged), name=f"tell worker {worker.index}", on_error=lambda _: None)


def _close(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def _text(error: Exception) -> str:
    return str(error) or "not in time"
