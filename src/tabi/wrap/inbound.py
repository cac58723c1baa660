"""What the program listens on, reached through the proxy: BIND (RFC 1928 section 4), again and again.

A BIND lets one connection in. So as soon as somebody has come, or nobody has in the proxy's time, the proxy is asked
for the next; its port may be another each time, and the watcher is told. The connection into the program is made in the
gate, from a socket that has the peer's own address and port: accept() and getpeername show who has come.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from ipaddress import IPv4Address
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from tabi.addr import Address, Endpoint, Name, address_text
from tabi.dial import chain
from tabi.dial.chain import Bound
from tabi.dial.direct import DirectOptions, direct
from tabi.dial.wishes import Connection, Plan
from tabi.errors import TabiError
from tabi.machine.hop import Hop
from tabi.net.driver import drive
from tabi.net.linger import reset
from tabi.net.sockopts import prepare_outbound
from tabi.net.system_resolver import SystemResolver
from tabi.net.tasks import spawn
from tabi.wrap.wiring import PROGRAM4, PROGRAM6

__all__ = ["Adopt", "Inbound", "InboundWatcher", "MakeTransparent"]

_BIND_TIMEOUT = 30.0  # seconds until the proxy listens
_ACCEPT_TIMEOUT = 150.0  # seconds; proxies give up after two minutes (SOCKS4.protocol), and their word says more
_PROGRAM_TIMEOUT = 3.0  # seconds for the program to be connected; nothing but its own queue is in the way
_LONGEST_PAUSE = 60.0  # seconds until a proxy that fails is asked again
_SETTLED = 10.0  # seconds of listening after which an end is no failure
_ANYBODY = Endpoint(IPv4Address(0), 0)

MakeTransparent: TypeAlias = Callable[[int, int, Endpoint | None], Awaitable[socket.socket]]
"""Makes a socket in the gate that may have any address: family, kind, what it is bound to (`House.transparent`)."""
Adopt: TypeAlias = Callable[[socket.socket, socket.socket, Endpoint, Endpoint], None]
"""Relays between a peer's socket and the program's, who are at these ends (`Gate.adopt`)."""


class InboundWatcher(Protocol):
    """Who hears what becomes of it; called in the loop."""

    def listening(self, port: int, address: Endpoint) -> None:
        """Hear where the proxy listens for the program's `port`."""

    def entered(self, port: int, peer: Endpoint, error: OSError | None) -> None:
        """Hear who has come, and why the program did not let him in, if so."""

    def lost(self, port: int, error: TabiError) -> None:
        """Hear that the proxy does not listen for now; it is asked again."""


class Inbound(AbstractAsyncContextManager["Inbound"]):
    """One port of the program, reachable from enter to exit.

    Args:
        hops: the proxies, the nearest first; the last one listens.
        port: what the program listens on.
        transparent: makes sockets in the gate.
        adopt: relays.
        watcher: hears what becomes of it.

    Raises:
        TabiError: on enter: the proxy does not listen for us.
    """

    def __init__(
        self, hops: Sequence[Hop], port: int, *, transparent: MakeTransparent, adopt: Adopt, watcher: InboundWatcher
    ) -> None:
        self._hops = tuple(hops)
        self._port = port
        self._transparent = transparent
        self._adopt = adopt
        self._watcher = watcher
        self._resolver = SystemResolver()
        self._open: set[socket.socket] = set()  # that nobody else has taken
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        bound = await self._bind()
        self._tasks.add(spawn(self._serve(bound), name=f"inbound {self._port}"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Have the proxy listen no more; connections that stand are the relay's."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sock in self._open:
            reset(sock)

    async def _serve(self, bound: Bound) -> None:
        failures = 0
        while True:
            begun = self._loop.time()
            try:
                connection = await drive(
                    chain.accept(bound, timeout=_ACCEPT_TIMEOUT), resolver=self._resolver, client=None
                )
            except TabiError as error:
                self._close(_socket(bound))
                has_settled = self._loop.time() - begun >= _SETTLED
                failures = 0 if has_settled else failures + 1
                await self._pause(failures, error)
            else:
                failures = 0
                self._tasks.add(spawn(self._let_in(connection), name=f"inbound {self._port}: {connection.remote}"))
            bound = await self._bind_again(failures)

    async def _bind_again(self, failures: int) -> Bound:
        while True:
            try:
                return await self._bind()
            except TabiError as error:
                failures += 1
                await self._pause(failures, error)

    async def _pause(self, failures: int, error: TabiError) -> None:
        """Wait the longer the more often it has failed; not at all where it has not."""
        if failures:
            self._watcher.lost(self._port, error)
            await asyncio.sleep(min(2.0 ** (failures - 1), _LONGEST_PAUSE))

    async def _bind(self) -> Bound:
        plan = chain.bind(self._hops, _ANYBODY, reach=_reach, timeout=_BIND_TIMEOUT)
        bound = await drive(plan, resolver=self._resolver, client=None)
        self._open.add(_socket(bound))
        self._watcher.listening(self._port, bound.local)
        return bound

    async def _let_in(self, connection: Connection) -> None:
        """Connect a peer to the program, or reset it."""
        peer, outside = connection.remote, _socket(connection)
        try:
            try:
                inside = await self._connect(peer)
            except OSError as error:
                self._close(outside)
                self._watcher.entered(self._port, peer, error)
                return
            self._open.discard(outside)
            self._adopt(outside, inside, peer, Endpoint(_program(peer), self._port))
            self._watcher.entered(self._port, peer, None)
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.discard(task)

    async def _connect(self, peer: Endpoint) -> socket.socket:
        family = socket.AF_INET if _program(peer).version == 4 else socket.AF_INET6
        inside = await self._transparent(family, socket.SOCK_STREAM, peer if _can_be_shown(peer) else None)
        try:
            prepare_outbound(inside)
            async with asyncio.timeout(_PROGRAM_TIMEOUT):
                await self._loop.sock_connect(inside, (address_text(_program(peer)), self._port))
        except BaseException:
            inside.close()
            raise
        return inside

    def _close(self, sock: socket.socket) -> None:
        self._open.discard(sock)
        reset(sock)


def _program(peer: Endpoint) -> Address:
    """Choose which of the program's addresses a peer comes to."""
    return PROGRAM6 if not isinstance(peer.host, Name) and peer.host.version == 6 else PROGRAM4


def _can_be_shown(peer: Endpoint) -> bool:
    """Say whether a packet may come from there: no name, and nothing that is a host's own affair."""
    host = peer.host
    if isinstance(host, Name) or host.is_loopback or host.is_unspecified or host.is_multicast:
        return False
    return not (host.is_reserved if host.version == 4 else host.is_link_local)  # 240/4; and what wants a link


def _reach(proxy: Endpoint) -> Plan:
    return direct(proxy, permit=_anything, options=DirectOptions(timeout=_BIND_TIMEOUT))


def _anything(_address: Address) -> bool:
    return True


def _socket(connection: Connection) -> socket.socket:
    assert isinstance(connection.handle, socket.socket)
    return connection.handle
