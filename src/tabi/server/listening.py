"""What the supervisor listens on, and how it goes over from one list of addresses to another.

Every listener is opened once per worker with SO_REUSEPORT, after a first bind without it has shown that no other
program has the address, and stays open here: a worker that dies leaves its queue to its successor. Sockets that the
service manager opened are shared by all workers.

Addresses may overlap from one list to the next: ``127.0.0.1:1080`` becomes ``0.0.0.0:1080``, or ``[::]:1080`` is to
take IPv4 as well once ``0.0.0.0:1080`` is gone. The new sockets are opened beside the old ones, which SO_REUSEPORT
permits among sockets of one user; so nothing is closed before all is open, and a reload that fails has changed nothing.
That no other program has the address is then read from the kernel's table: a bind cannot tell our own sockets from
others.
"""

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from tabi.addr import Endpoint
from tabi.errors import ConfigError
from tabi.net.listeners import open_listener
from tabi.net.occupied import occupied, overlap
from tabi.net.sockopts import refuse_newcomers

__all__ = ["Listener", "Listening"]

# Seconds that a listener which is to be closed still completes handshakes that have begun, while it ignores those that
# begin. Longer than the way to most clients and back, and shorter than the second after which an ignored client tries
# again and finds whoever listens then.
_LAST_CALL: Final = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """One address, for all workers.

    Args:
        number: by which supervisor and workers know it.
        asked: as configured; port 0 is any.
        bound: as it is.
        only6: whether ``::`` leaves IPv4 to another listener.
        sockets: one for each worker.
    """

    number: int
    asked: Endpoint
    bound: Endpoint
    only6: bool
    sockets: tuple[socket.socket, ...]

    def serves(self, endpoint: Endpoint, *, only6: bool) -> bool:
        """Say whether it will do for an address of the configuration."""
        # one that also takes IPv4 may stay beside a listener for IPv4, which the kernel prefers
        return endpoint in (self.asked, self.bound) and (only6 or not self.only6)

    def close(self, *, but: Container[int] = ()) -> None:
        """Close our descriptors but those for some workers; what a worker has is its own."""
        for worker, sock in enumerate(self.sockets):
            if worker not in but:
                sock.close()


class Listening:
    """All listeners of one server.

    Args:
        workers: how many each listener is opened for.
        inherited: listening sockets from the service manager; they stand for the configured addresses then.
    """

    def __init__(self, workers: int, inherited: Iterable[socket.socket] = ()) -> None:
        self._workers = workers
        self._numbers = itertools.count(1)
        self._inherited = tuple(self._take(sock) for sock in inherited)
        self._left: dict[int, list[socket.socket]] = {}  # by the worker whose successor is to empty their queues
        self.current: tuple[Listener, ...] = ()

    @property
    def addresses(self) -> tuple[Endpoint, ...]:
        """Where the server listens."""
        return tuple(listener.bound for listener in self.current)

    def plan(self, wanted: Sequence[Endpoint]) -> tuple[Listener, ...]:
        """Open what is not open yet, all or nothing.

        Returns:
            what to go over to by `adopt`, or to `discard`.

        Raises:
            ConfigError: an address cannot be had.
        """
        if self._inherited:
            return self._inherited
        ports4 = {endpoint.port for endpoint in wanted if not isinstance(endpoint.host, IPv6Address)}
        free = list(self.current)
        planned: list[Listener] = []
        try:
            for endpoint in wanted:
                only6 = endpoint.port in ports4
                known = next((one for one in free if one.serves(endpoint, only6=only6)), None)
                if known is None:
                    known = self._open(endpoint, only6=only6, beside=planned)
                else:
                    free.remove(known)
                planned.append(known)
        except ConfigError:
            self.discard(planned)
            raise
        return tuple(planned)

    def discard(self, planned: Iterable[Listener]) -> None:
        """Close what was opened for a plan that nothing became of."""
        for listener in planned:
            if listener not in self.current:
                listener.close()

    async def adopt(self, planned: tuple[Listener, ...]) -> tuple[Listener, ...]:
        """Go over to a plan.

        Returns:
            those that are to be closed once what waits in their queues is accepted; nobody comes to them any more.
        """
        gone = tuple(listener for listener in self.current if listener not in planned)
        self.current = planned
        for listener in gone:
            for sock in listener.sockets:
                with contextlib.suppress(OSError):  # without the filter who comes at the very last is reset
                    refuse_newcomers(sock)
        if gone:
            await asyncio.sleep(_LAST_CALL)
        return gone

    def leave(self, worker: int, gone: Iterable[Listener]) -> None:
        """Keep the sockets of a worker that has not emptied their queues for its successor; they are closed here."""
        self._left.setdefault(worker, []).extend(listener.sockets[worker] for listener in gone)

    def left(self, worker: int) -> tuple[socket.socket, ...]:
        """Give the sockets that a successor is to empty and to close."""
        return tuple(self._left.get(worker, ()))

    def emptied(self, worker: int) -> None:
        """A successor has done so."""
        for sock in self._left.pop(worker, ()):
            sock.close()

    def close(self) -> None:
        """Close all of our descriptors."""
        for listener in self.current:
            listener.close()
        for worker in tuple(self._left):
            self.emptied(worker)

    def _take(self, sock: socket.socket) -> Listener:
        bound = Endpoint.from_sockaddr(sock.getsockname())
        return Listener(next(self._numbers), bound, bound, only6=False, sockets=(sock,) * self._workers)

    def _open(self, endpoint: Endpoint, *, only6: bool, beside: Iterable[Listener]) -> Listener:
        """Open an address for every worker."""
        held = [sock for one in {*self.current, *beside} for sock in one.sockets]
        held += [sock for socks in self._left.values() for sock in socks]
        if any(overlap(Endpoint.from_sockaddr(sock.getsockname()), endpoint) for sock in held):
            _check_that_nobody_else_has(endpoint, held)
            bound = endpoint
        else:
            with open_listener(endpoint, v6only=only6) as probe:  # fails where any other program listens
                bound = Endpoint.from_sockaddr(probe.getsockname())
        sockets: list[socket.socket] = []
        try:
            sockets.extend(open_listener(bound, v6only=only6, share=True) for _ in range(self._workers))
        except ConfigError:
            for sock in sockets:
                sock.close()
            raise
        return Listener(next(self._numbers), endpoint, bound, only6, tuple(sockets))


def _check_that_nobody_else_has(endpoint: Endpoint, ours: Iterable[socket.socket]) -> None:
    inodes = {os.fstat(sock.fileno()).st_ino for sock in ours}
    for inode, other in occupied(endpoint.port):
        if inode not in inodes and overlap(other, endpoint):
            raise ConfigError(
                f"cannot listen on {endpoint}: another program listens on {other}; stop it (ss -ltnp shows it)"
                " or choose another port"
            )
