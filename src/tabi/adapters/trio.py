"""trio through proxies.

::

    stream = await open_tcp_stream("example.org", 80, proxy="socks5h://127.0.0.1:1080")

For TLS wrap it, ``trio.SSLStream(stream, context, server_hostname="example.org")``.
"""

import errno
import socket
from collections import deque
from collections.abc import Coroutine
from typing import TypeVar

from tabi.adapters.needs import Needs
from tabi.addr import Endpoint
from tabi.client import plans
from tabi.client.plain import PlainSocket
from tabi.dial.wishes import (
    Cancel,
    Cancellable,
    Close,
    Connection,
    Done,
    Fact,
    Failed,
    Open,
    Peek,
    Read,
    Resolve,
    Send,
    Sleep,
    Steps,
    Wish,
)
from tabi.errors import Stage, TabiError
from tabi.machine.url import ProxyLike
from tabi.net.errno_map import dial_error
from tabi.net.linger import reset
from tabi.net.system_names import addresses_of

with Needs("trio"):
    import trio

__all__ = ["drive", "open_socket", "open_tcp_stream"]

T = TypeVar("T")


async def open_tcp_stream(
    host: str, port: int, *, proxy: ProxyLike = None, timeout: float | None = None
) -> trio.SocketStream:
    """Connect to a target through `proxy`, as `trio.open_tcp_stream` does without one.

    Cancelled or not, nothing but the stream is left.

    Args:
        host, port: the target, a name or an address.
        proxy: a URL, several, the nearest first, or None.
        timeout: seconds for look-ups, connections and handshakes together; None: 30.

    Raises:
        UsageError, OSError: as `tabi.aio.open_connection`.
    """
    sock = await open_socket(host, port, proxy=proxy, timeout=timeout)
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


async def open_socket(
    host: str, port: int, *, proxy: ProxyLike = None, timeout: float | None = None
) -> socket.socket:
    """Connect as `open_tcp_stream` does, and give the socket itself, which does not block."""
    return _socket(await drive(plans.connect((host, port), proxy, timeout)))


async def drive(plan: Steps[T]) -> T:
    """Carry `plan` out and return its result; a connection's ``handle`` is a non-blocking socket, now the caller's.

    The twin of `tabi.net.driver.drive`: each wish is a task of one nursery. However it ends nothing else is left open;
    where it was cancelled, a socket that is connected without the plan having been told is reset.

    Raises:
        TabiError: what the plan raises.
    """
    outcome: list[T] = []
    failure: TabiError | None = None
    driver = _Driver()
    try:
        async with trio.open_nursery() as nursery:
            try:
                outcome.append(await _converse(plan, driver, nursery))
            except TabiError as error:  # raised outside: a nursery would make a group of it
                failure = error
            nursery.cancel_scope.cancel()
    except BaseException:
        outcome.clear()
        driver.is_cut = True
        raise
    finally:
        plan.close()
        driver.close(outcome)
    if failure is not None:
        raise failure
    return outcome[0]


async def _converse(plan: Steps[T], driver: "_Driver", nursery: trio.Nursery) -> T:
    try:
        batch = next(plan)
        while True:
            for wish in batch:
                driver.take(wish, nursery)
            batch = plan.send(await driver.next_fact())
    except StopIteration as stop:
        value: T = stop.value
        return value


class _Driver:
    """What is under way for one plan, and the facts that it has not been told yet."""

    def __init__(self) -> None:
        self._under_way: dict[Wish, trio.CancelScope] = {}
        self._facts: deque[Fact] = deque()
        self._news = trio.Event()
        self._sockets: set[PlainSocket] = set()
        self._known: set[object] = set()  # to the plan
        self.is_cut = False

    def take(self, wish: Wish, nursery: trio.Nursery) -> None:
        if isinstance(wish, Cancel):
            scope = self._under_way.pop(wish.wish, None)
            if scope is not None:
                scope.cancel()
        elif isinstance(wish, Close):
            self._give_up(wish.connection)
            self._drop(_socket(wish.connection))
        else:
            scope = self._under_way[wish] = trio.CancelScope()
            nursery.start_soon(self._carry_out, wish, scope)

    async def next_fact(self) -> Fact:
        while True:
            while not self._facts:
                self._news = trio.Event()
                await self._news.wait()
            fact = self._facts.popleft()
            if self._under_way.pop(fact.wish, None) is not None:
                if isinstance(fact, Done) and isinstance(fact.value, Connection):
                    self._known.add(fact.value.handle)
                return fact
            # It was cancelled after it had come true.

    def close(self, results: list[T]) -> None:
        """Close every socket but those of the results."""
        kept = [one.handle for one in results if isinstance(one, Connection)]
        for sock in self._sockets:
            if sock not in kept:
                (reset if self.is_cut and sock not in self._known else PlainSocket.close)(sock)

    async def _carry_out(self, wish: Cancellable, scope: trio.CancelScope) -> None:
        with scope:
            try:
                fact: Fact = Done(wish, await self._value(wish))
            except TabiError as error:
                fact = Failed(wish, error)
            except trio.ClosedResourceError:  # given up, while it waited
                return
            self._facts.append(fact)
            self._news.set()

    async def _value(self, wish: Cancellable) -> object:
        match wish:
            case Open():
                return await self._open(wish)
            case Sleep(seconds=seconds):
                await trio.sleep(seconds)
                return None
            case Resolve(name=name, family=family):
                return await trio.to_thread.run_sync(addresses_of, name, family, abandon_on_cancel=True)
            case Send(connection=connection, data=data):
                await _translated(_send(_socket(connection), data), connection)
                return None
            case Read(connection=connection, size=size):
                return await _translated(_receive(_socket(connection), size, 0), connection)
            case Peek(connection=connection, size=size):
                return await _translated(_receive(_socket(connection), size, socket.MSG_PEEK), connection)

    async def _open(self, wish: Open) -> Connection:
        remote = Endpoint(wish.address, wish.port)
        try:
            sock = PlainSocket(socket.AF_INET if wish.address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        except OSError as error:
            raise dial_error(error, remote) from None
        self._sockets.add(sock)
        sock.setblocking(False)
        code = sock.connect_ex((str(wish.address), wish.port))
        if code == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code:
            local = Endpoint.from_sockaddr(sock.getsockname())
            if local != remote:
                return Connection(sock, remote, local)
            # Both SYNs were ours: a port of the ephemeral range without a listener (RFC 9293 section 3.5).
            code = errno.ECONNREFUSED
        self._drop(sock)
        raise dial_error(OSError(code, ""), remote)

    def _give_up(self, connection: Connection) -> None:
        """Cancel what is under way on a connection that is to be closed."""
        for wish in list(self._under_way):
            if isinstance(wish, Send | Read | Peek) and wish.connection is connection:
                self._under_way.pop(wish).cancel()

    def _drop(self, sock: PlainSocket) -> None:
        self._sockets.discard(sock)
        trio.lowlevel.notify_closing(sock)
        sock.close()


async def _translated(io: Coroutine[None, None, T], connection: Connection) -> T:
    try:
        return await io
    except OSError as error:
        raise dial_error(error, connection.remote, stage=Stage.NEGOTIATE) from None


async def _send(sock: PlainSocket, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[sock.send(rest) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)


async def _receive(sock: PlainSocket, size: int, flags: int) -> bytes:
    while True:
        try:
            return sock.recv(size, flags)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock)


def _socket(connection: Connection) -> PlainSocket:
    assert isinstance(connection.handle, PlainSocket)
    return connection.handle
