"""Listeners of the gate: what lets a program in whose SYN is sent on, at whatever address it has asked for.

Where nftables has tproxy, one transparent listener of each family takes all of them. Elsewhere each target gets a
listener of its own for as long as somebody waits for it; every address is local in the gate.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from tabi.addr import Endpoint
from tabi.net.errno_map import dial_error
from tabi.net.listeners import Acceptor
from tabi.net.sockopts import prepare_listener

__all__ = ["Doors", "Listen", "OnEntry"]

Listen: TypeAlias = Callable[[Endpoint], Awaitable[socket.socket]]
"""Makes a listener in the gate that is bound to the very target; raises OSError."""
OnEntry: TypeAlias = Callable[[socket.socket, Endpoint, Endpoint], None]
"""Is given each connection, with the program's end and the target's."""

_log = logging.getLogger("tabi")


class Doors:
    """Who lets programs in.

    Args:
        common: the transparent listeners; they stay the caller's. None: there is no tproxy.
        listen: makes listeners where there are no such.
        on_entry: is given each connection.
    """

    def __init__(self, common: tuple[socket.socket, ...] | None, listen: Listen | None, on_entry: OnEntry) -> None:
        assert common is not None or listen is not None, "somebody has to listen"
        self._listen = None if common is not None else listen
        self._on_entry = on_entry
        self._loop = asyncio.get_running_loop()
        self._common = [self._accept_from(listener.dup()) for listener in common or ()]
        self._doors: dict[Endpoint, _Door] = {}
        self._opening = asyncio.Lock()

    async def open(self, target: Endpoint) -> Callable[[], None]:
        """Have somebody listen for `target`, and return what is to be called when nobody waits for that any more.

        Raises:
            DialError: nobody can.
        """
        if self._listen is None:
            return _nothing
        async with self._opening:  # or two that want the same would meet at bind()
            if target not in self._doors:
                self._doors[target] = _Door(self._accept_from(await self._ask(self._listen, target)))
        self._doors[target].waiting += 1
        return partial(self._leave, target)

    def close(self) -> None:
        """Stop listening; whoever waits in a queue is reset."""
        for acceptor in (*self._common, *(door.acceptor for door in self._doors.values())):
            acceptor.abandon()
        self._common.clear()
        self._doors.clear()

    async def _ask(self, listen: Listen, target: Endpoint) -> socket.socket:
        try:
            return await listen(target)
        except OSError as error:
            raise dial_error(error, target) from None

    def _accept_from(self, listener: socket.socket) -> Acceptor:
        prepare_listener(listener)
        return Acceptor(listener, self._on_entry, _tell_exhausted, self._loop)

    def _leave(self, target: Endpoint) -> None:
        door = self._doors.get(target)
        if door is None:  # all are closed already
            return
        door.waiting -= 1
        if not door.waiting:
            del self._doors[target]
            door.acceptor.abandon()


class _Door:
    """The listener of one target, and how many wait for it."""

    def __init__(self, acceptor: Acceptor) -> None:
        self.acceptor = acceptor
        self.waiting = 0


def _nothing() -> None:
    """Do nothing."""


def _tell_exhausted(error: OSError | None) -> None:
    if error is not None:
        _log.warning("connections of the program have to wait: %s; raise the limit of descriptors (ulimit -n)", error)
