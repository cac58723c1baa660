"""One worker process: a `Server` on the listeners that the supervisor hands it.

``python -m tabi.server.worker FD``: FD is the worker's end of a `tabi.net.channel`. All that it lives by comes through
there. When the supervisor is gone, the worker ends: without it there is nobody to reload or to log for.
"""

import asyncio
import logging
import os
import signal
import socket
import sys

from tabi.addr import Address
from tabi.errors import ConfigError
from tabi.net.channel import Channel, ClosedError
from tabi.net.lines import LineHandler, LineWriter
from tabi.net.privileges import drop_privileges, give_up_new_privileges
from tabi.net.sockopts import raise_descriptor_limit
from tabi.net.tasks import spawn
from tabi.server import manage
from tabi.server.configured import ConfiguredServer, Prepared
from tabi.server.hashing import shared_queue
from tabi.server.live import Row
from tabi.server.lockouts import Lockouts
from tabi.server.orders import Answer, Ask, Discard, Moved, Prepare, Ready, Stop, Swap, Unready
from tabi.server.server import Server
from tabi.server.sharedtable import SharedTable

__all__ = ["Worker", "main"]

STDOUT, STDERR = 1, 2
NO_DESCRIPTORS = "it is out of descriptors for new listeners; raise its limit (LimitNOFILE= of the unit) or lower cap"


class Worker:
    """Carries out orders, one at a time.

    Args:
        channel: to the supervisor.
        sessions: takes session lines.
    """

    def __init__(self, channel: Channel, sessions: LineWriter) -> None:
        self._channel = channel
        self._sessions = sessions
        self._sockets: dict[int, socket.socket] = {}
        self._left: list[socket.socket] = []
        self._own: frozenset[Address] = frozenset()
        self._order: Prepare | None = None
        self._prepared: Prepared | None = None
        self._table: SharedTable | None = None
        self._lockouts: Lockouts | None = None
        self._configured: ConfiguredServer | None = None

    async def run(self) -> int:
        """Serve until told to stop, until the supervisor is gone or the engine has failed; return the exit code."""
        drain: float | None = None
        try:
            while drain is None:
                message = await self._channel.receive()
                match message.value:
                    case Prepare() as order if message.lost:
                        await self._channel.send(Unready(order.generation, NO_DESCRIPTORS))
                    case Prepare() as order:
                        await self._prepare(order, message.fds)
                    case Swap(generation):
                        await self._channel.send(Ready(generation, await self._swap()))
                    case Discard():
                        self._discard()
                    case Moved(own):
                        await self._move(own)
                    case Ask() as question:
                        await self._channel.send(Answer(question.number, self._answer(question)))
                    case Stop(drain=drain):
                        pass
        except ClosedError:
            drain = 0.0
        if self._configured is not None:
            _ = spawn(self._heed_while_stopping(self._configured.server), name="orders while stopping")
            await self._configured.stop(drain)  # which ends the other task
            return 1 if self._configured.server.has_failed else 0
        return 0

    async def _heed_while_stopping(self, server: Server) -> None:
        while True:
            try:
                message = await self._channel.receive()
                match message.value:
                    case Ask() as question:
                        await self._channel.send(Answer(question.number, self._answer(question)))
                    case Stop():
                        server.stop_at_once()
                for fd in message.fds:  # of a reload that came too late
                    os.close(fd)
            except ClosedError:
                server.stop_at_once()
                return

    async def _prepare(self, order: Prepare, fds: list[int]) -> None:
        self._discard()  # what nothing became of, should we not have heard of that
        if self._table is None:
            self._table = SharedTable.attach(fds.pop(0), order.index)
            self._lockouts = Lockouts.attach(fds.pop(0))
        sockets = [_listener(fd) for fd in fds]
        self._sockets |= zip(order.new, sockets, strict=False)
        self._left = sockets[len(order.new) :]
        self._order = order
        self._own = order.own
        try:
            if self._configured is None and order.configuration.user is not None:
                drop_privileges(order.configuration.user)
            self._prepared = ConfiguredServer.prepare(order.configuration.on_host(order.own), order.generation)
        except ConfigError as error:
            await self._channel.send(Unready(order.generation, str(error)))
        else:
            await self._channel.send(Ready(order.generation))

    async def _swap(self) -> int:
        """Live by what was prepared; nothing here can fail, for all was made ready before.

        Returns:
            how many sessions were ended.
        """
        order, prepared = self._order, self._prepared
        self._order = self._prepared = None
        if order is None or prepared is None:
            raise RuntimeError("told to swap without having prepared")
        prepared = prepared._replace(configuration=prepared.configuration.on_host(self._own))
        listeners = {number: self._sockets[number] for number in order.listeners}
        ended = 0
        if self._configured is None:
            self._configured = ConfiguredServer(
                prepared,
                write_log=self._sessions.write,
                counts=self._table,
                lockouts=self._lockouts,
                workers=order.workers,
                hashes=None if self._table is None else shared_queue(order.workers, order.index, self._table.fileno()),
                numbers=None if self._table is None else self._table.numbers(),
            )
            self._configured.server.on_failure = self._channel.hang_up  # as if there was no supervisor
            await self._configured.server.start(list(listeners.values()))
            self._configured.server.take_over(self._left)
        else:
            ended = await self._configured.swap(prepared, list(listeners.values()))
        self._sockets = listeners  # the server has closed the others, once their queue was accepted
        self._left = []
        return ended

    async def _move(self, own: frozenset[Address]) -> None:
        self._own = own
        if self._configured is not None:
            await self._configured.move(own)

    def _discard(self) -> None:
        order, self._order, self._prepared = self._order, None, None
        for number in order.new if order is not None else ():
            self._sockets.pop(number).close()
        for sock in self._left:
            sock.close()
        self._left = []

    def _answer(self, question: Ask) -> list[Row]:
        configured = self._configured
        if configured is None:
            return []
        match question.what:
            case "sessions":
                return manage.sessions(configured.server, question.arguments)
            case "kill":
                return manage.kill(configured.server, question.arguments)
            case "status":
                return [
                    {
                        "pid": os.getpid(),
                        "sessions": len(configured.server.sessions()),
                        "tunnels": len(configured.server.engine),
                    }
                ]
            case _:
                raise RuntimeError(f"unknown question {question.what!r}")


def _listener(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock


async def _run(fd: int) -> int:
    loop = asyncio.get_running_loop()
    # The supervisor tells us when to end; a Ctrl-C in the terminal reaches it as well.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, lambda: None)
    sessions, diagnostics = LineWriter(STDOUT, loop), LineWriter(STDERR, loop)
    logger = logging.getLogger("tabi")
    logger.addHandler(LineHandler(diagnostics, loop))
    logger.propagate = False
    channel = Channel(socket.socket(fileno=fd))
    try:
        return await Worker(channel, sessions).run()
    finally:
        channel.close()
        sessions.flush()
        diagnostics.flush()


def main(argv: list[str]) -> int:
    """Run a worker; for the supervisor only."""
    raise_descriptor_limit()
    give_up_new_privileges()
    return asyncio.run(_run(int(argv[1])))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
