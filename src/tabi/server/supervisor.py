"""The supervisor: builds the configuration, keeps the listeners open and the workers running.

It never touches a client's byte. A reload is all or nothing: load, open what is new, have every worker say that it is
ready, then have all swap. One that cannot changes nothing anywhere.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from tabi.addr import Address, Endpoint
from tabi.config.load import Configuration
from tabi.config.openness import find_openings
from tabi.errors import ConfigError
from tabi.net.channel import ClosedError
from tabi.net.tasks import spawn
from tabi.server.home import Home
from tabi.server.listening import Listener, Listening
from tabi.server.live import Row
from tabi.server.lockouts import Lockouts, parse_client
from tabi.server.orders import Ask, Discard, Moved, Prepare, Stop, Unready
from tabi.server.process import WorkerProcess, text_of
from tabi.server.sharedtable import SharedTable

__all__ = ["Reloaded", "Supervisor"]

RESTART_PAUSE: Final = 1.0  # seconds before a worker that died young, or could not be started, is started again
YOUNG: Final = 5.0  # seconds
DISCARD_WITHIN: Final = 5.0  # seconds for a worker to hear that nothing comes of a reload

_logger = logging.getLogger("tabi")


class Reloaded(NamedTuple):
    """What a reload has changed.

    Args:
        generation: of the configuration that holds now; the one from the start is 1.
        opened: where the server listens since.
        closed: where it does not listen any more.
        ended: sessions that the new configuration refuses.
        missing: numbers of the workers that do not run and could not be started now either.
    """

    generation: int
    opened: tuple[Endpoint, ...]
    closed: tuple[Endpoint, ...]
    ended: int
    missing: tuple[int, ...] = ()


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
        self._inherited = tuple(inherited)
        self._listening = Listening(0)
        self._home = Home(self._tell_moved)
        self._workers: dict[int, WorkerProcess] = {}
        self._generation = 0
        self._numbers = itertools.count(1)
        self._unstarted: set[int] = set()  # workers of which the log says that they cannot be started
        self._reloading = asyncio.Lock()
        self._stopping = False

    @property
    def addresses(self) -> tuple[Endpoint, ...]:
        """Where the server listens."""
        return self._listening.addresses

    @property
    def wanted(self) -> int:
        """How many workers there should be."""
        return self._count

    async def start(self) -> None:
        """Load, bind, start every worker, and return when all accept.

        Raises:
            ConfigError: the configuration cannot be used, or a listener not be opened.
        """
        async with self._reloading:  # also whoever wants to reload waits for it
            self._home.start()
            self.configuration: Configuration = await asyncio.to_thread(self._load)
            self._spins = self.configuration.settings.tunnel.spin
            self._generation += 1
            self._count = self._wanted_workers or self.configuration.workers or len(os.sched_getaffinity(0))
            if self.configuration.settings.udp.shared_port is not None and self._count > 1:
                _logger.warning("udp.shared_port can be had by one process only: one worker instead of %d", self._count)
                self._count = 1
            self._check_openness(self.configuration)
            self._listening = Listening(self._count, self._inherited)
            await self._listening.adopt(self._listening.plan(self.configuration.settings.listen))
            self._table = SharedTable.create(self._count)
            self._lockouts = Lockouts.create()
            starting = [self._start_worker(index) for index in range(self._count)]
            for error in await asyncio.gather(*starting, return_exceptions=True):
                if isinstance(error, BaseException):
                    await self.stop(0.0)
                    if isinstance(error, OSError):
                        raise ConfigError(f"workers cannot be started: {text_of(error)}") from None
                    raise error

    async def reload(self) -> Reloaded:
        """Load the configuration anew and have all workers live by it; those that are missing are started.

        Raises:
            ConfigError: it cannot be used, or a worker could not; nothing has changed then.
        """
        async with self._reloading:
            if self._stopping or not self._generation:
                raise ConfigError("the server is being stopped")
            self._home.look()  # where changes are not heard of
            configuration = await asyncio.to_thread(self._load)
            self._check_that_it_needs_no_restart(configuration)
            self._check_openness(configuration)
            listeners = self._listening.plan(configuration.settings.listen)
            self._generation += 1
            try:
                await self._prepare_all(configuration, listeners)
            except ConfigError:
                await asyncio.gather(*(self._discard(worker) for worker in tuple(self._workers.values())))
                self._listening.discard(listeners)
                raise
            reloaded = await self._swap_all(configuration, listeners)
            if configuration.settings.tunnel.spin is not self._spins:
                _logger.warning("tunnel.spin changes only when the server is restarted; all else is as the file says")
            await asyncio.gather(*map(self._fill, range(self._count)))
            return reloaded._replace(missing=tuple(sorted(set(range(self._count)) - self._serving())))

    async def ask(self, what: str, arguments: Mapping[str, str] | None = None) -> list[Row]:
        """Give the rows of an answer: of lockouts, which all workers share, ours; else those of each that answers.

        Raises:
            UsageError: lockouts are to be lifted of a client that is none.
        """
        wanted = dict(arguments or {})
        if what == "lockouts":
            return [entry.row() for entry in self._lockouts.entries(time.monotonic())]
        if what == "lift":
            return [{"lifted": self._lift(**wanted)}]
        question = Ask(next(self._numbers), what, wanted)
        workers = sorted(self._workers.values(), key=lambda worker: worker.index)
        answers = await asyncio.gather(*(worker.ask(question) for worker in workers))
        return [
            {"worker": worker.index, **row} for worker, answer in zip(workers, answers, strict=True) for row in answer
        ]

    async def stop(self, drain: float | None = None) -> None:
        """Stop accepting, let sessions finish, end every worker."""
        self._stopping = True
        self._home.stop()
        if not self._generation:  # it has not even loaded
            return
        patience = self.configuration.settings.time.drain if drain is None else drain
        workers = tuple(self._workers.values())
        self._listening.close()  # the workers' own are open still
        await asyncio.gather(*(worker.end(patience) for worker in workers))

    def stop_at_once(self) -> None:
        """Have the workers end without waiting for their sessions."""
        for worker in self._workers.values():
            worker.channel.post(Stop(0.0))

    def _lift(self, client: str | None = None, user: str | None = None) -> int:
        return self._lockouts.lift(
            time.monotonic(),
            None if client is None else parse_client(client),
            None if user is None else user.encode("utf-8", "surrogateescape"),
        )

    def _check_that_it_needs_no_restart(self, configuration: Configuration) -> None:
        if configuration.user != self.configuration.user:
            raise ConfigError(f"{configuration.path}: run_as cannot change while the server runs; restart it")
        if configuration.settings.udp.shared_port is not None and self._count > 1:
            raise ConfigError(
                f"{configuration.path}: udp.shared_port can be had by one process only, and {self._count} workers run;"
                " restart the server"
            )

    def _check_openness(self, configuration: Configuration) -> None:
        """Refuse what lets anybody through inherited listeners; the file alone was judged by the addresses in it."""
        inherited = [Endpoint.from_sockaddr(sock.getsockname()) for sock in self._inherited]
        openings = find_openings(configuration.access, configuration.rules, inherited)
        if inherited and openings:
            raise ConfigError(
                "\n".join(
                    f"{configuration.path}: rule {opening.number + 1} lets public clients such as {opening.client}"
                    f" through the inherited listener {opening.listener} without authentication;"
                    ' ask for a password, limit "from" to your networks, or write open = true in it'
                    for opening in openings
                )
            )

    # workers

    async def _start_worker(self, index: int) -> None:
        """Start one and wait until it accepts.

        Raises:
            ConfigError: it did not get that far; its death starts the next try.
            OSError: there is no process, so that no death will.
        """
        worker = self._workers[index] = WorkerProcess(index)
        asyncio.get_running_loop().add_reader(worker.pidfd, self._on_death, worker)
        left = self._listening.left(index)
        order = self._order(self.configuration, self._listening.current, worker)
        sockets = [*_descriptors(order, self._listening.current), *(sock.fileno() for sock in left)]
        fds = [self._table.fileno(), self._lockouts.fileno(), *sockets]
        try:
            verdict = await worker.prepare(order, fds)
            if isinstance(verdict, Unready):
                raise ConfigError(verdict.why)
            await worker.swap(self._generation)
        except (ClosedError, TimeoutError, ConfigError) as error:
            if worker.process.poll() is None:  # its death starts the next try
                worker.process.kill()
            raise ConfigError(f"worker {index} did not start: {text_of(error)}") from None
        self._listening.emptied(index)

    async def _prepare_all(self, configuration: Configuration, listeners: tuple[Listener, ...]) -> None:
        workers = tuple(self._workers.values())
        orders = [self._order(configuration, listeners, worker) for worker in workers]
        verdicts = await asyncio.gather(
            *(
                worker.prepare(order, _descriptors(order, listeners))
                for worker, order in zip(workers, orders, strict=True)
            ),
            return_exceptions=True,
        )
        for worker, verdict in zip(workers, verdicts, strict=True):
            if isinstance(verdict, Unready):
                raise ConfigError(f"worker {worker.index} refused the configuration: {verdict.why}")
            if isinstance(verdict, ClosedError | TimeoutError):
                raise ConfigError(f"worker {worker.index} did not take the configuration: {text_of(verdict)}")
            if isinstance(verdict, BaseException):
                raise verdict

    @staticmethod
    async def _discard(worker: WorkerProcess) -> None:
        """Have a worker forget what it prepared; one that is dead need not, one that hangs does so later."""
        with contextlib.suppress(ClosedError, TimeoutError):
            async with asyncio.timeout(DISCARD_WITHIN):
                await worker.channel.send(Discard())

    async def _swap_all(self, configuration: Configuration, listeners: tuple[Listener, ...]) -> Reloaded:
        """Go over to what all are ready for; who waits in a queue that goes is accepted by its worker or the next."""
        opened = tuple(one.bound for one in listeners if one not in self._listening.current)
        self.configuration = configuration
        gone = await self._listening.adopt(listeners)
        workers = tuple(self._workers.values())
        ended = await asyncio.gather(*map(self._swap, workers))
        swapped = {worker.index for worker, count in zip(workers, ended, strict=True) if count is not None}
        for index in set(range(self._count)) - swapped:
            self._listening.leave(index, gone)
        for listener in gone:
            listener.close(but=set(range(self._count)) - swapped)
        total = sum(count or 0 for count in ended)
        return Reloaded(self._generation, opened, tuple(one.bound for one in gone), total)

    async def _swap(self, worker: WorkerProcess) -> int | None:
        """Have a worker go over to what it said it was ready for; its successor does, where it cannot (None)."""
        try:
            return await worker.swap(self._generation)
        except (ClosedError, TimeoutError) as error:
            _logger.error("worker %d did not go over to the new configuration: %s", worker.index, text_of(error))
            if worker.process.poll() is None:
                worker.process.kill()
            return None

    def _order(self, configuration: Configuration, listeners: Iterable[Listener], worker: WorkerProcess) -> Prepare:
        numbers = tuple(listener.number for listener in listeners)
        return Prepare(
            generation=self._generation,
            configuration=configuration,
            listeners=numbers,
            new=tuple(number for number in numbers if number not in worker.has_now),
            index=worker.index,
            workers=self._count,
            own=self._home.addresses,
        )

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
        pause, is_begun = RESTART_PAUSE if time.monotonic() - dead.started < YOUNG else 0.0, False
        while not is_begun:
            await asyncio.sleep(pause)
            async with self._reloading:
                is_begun = await self._fill(dead.index)
            pause = RESTART_PAUSE

    async def _fill(self, index: int) -> bool:
        """Start a worker where none is; False where there could be no process, so that nothing starts the next try."""
        if self._stopping or index in self._workers:
            return True
        try:
            await self._start_worker(index)
        except ConfigError as error:
            _logger.error("%s", error)
        except OSError as error:
            if index not in self._unstarted:
                self._unstarted.add(index)
                _logger.error("worker %d cannot be started: %s; tried again until it can be", index, text_of(error))
            return False
        else:
            if index in self._unstarted:
                _logger.warning("worker %d is started at last", index)
        self._unstarted.discard(index)
        return True

    def _serving(self) -> set[int]:
        """Say which workers have got as far as to accept."""
        return {worker.index for worker in self._workers.values() if worker.has_now}

    def _tell_moved(self, own: frozenset[Address]) -> None:
        """Have every worker judge by other addresses of this host."""
        for worker in self._workers.values():
            worker.channel.post(Moved(own))


def _descriptors(order: Prepare, listeners: Iterable[Listener]) -> list[int]:
    """Give the descriptors of the listeners that are new to a worker."""
    return [one.sockets[order.index].fileno() for one in listeners if one.number in order.new]
