"""Make the wishes of a plan (`tabi.dial`) true on asyncio, with raw non-blocking sockets and callbacks.

No task is started for a wish: the coroutine that drives waits for the next fact, whoever brings it. A literal address
on loopback usually connects at once, and then nothing is waited for at all. Readers and writers are registered by
number: a selector that does not know a socket object makes its repr first, at the cost of four system calls.
"""

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from tabi.addr import Address, Endpoint, Name, address_text
from tabi.dial.wishes import (
    Cancel,
    Close,
    Connection,
    Done,
    Fact,
    Failed,
    Family,
    Open,
    Peek,
    Read,
    Resolve,
    Send,
    Sleep,
    Steps,
    Wish,
)
from tabi.errors import DialError, Reply, Stage, TabiError
from tabi.net.errno_map import dial_error
from tabi.net.linger import reset
from tabi.net.sockopts import prepare_outbound

__all__ = ["Asks", "Begun", "ChooseEgress", "drive"]

T = TypeVar("T")
ChooseEgress: TypeAlias = Callable[[Address], Address | str | None]

IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; the socket module has no name for it yet

_CONNECTED = (0, errno.EISCONN)


class Begun(NamedTuple):
    """A connect that somebody else has begun: a non-blocking socket, with or without its success or its error."""

    target: Endpoint
    sock: socket.socket


class Asks(Protocol):
    """The part of `tabi.net.resolver.Resolver` that dialling needs."""

    def ask(self, name: Name, family: Family, client: Hashable) -> asyncio.Future[tuple[Address, ...]]:
        """Return a future of the addresses, done at once where they are known; cancelling it withdraws."""


def _any_egress(_target: Address) -> None:
    """Leave the choice to the kernel."""


def _nothing() -> None:
    """Do nothing."""


async def drive(
    plan: Steps[T],
    *,
    resolver: Asks,
    client: Hashable,
    egress: ChooseEgress = _any_egress,
    on_wait: Callable[[], None] = _nothing,
    begun: Begun | None = None,
) -> T:
    """Carry `plan` out and return its result, a connection or several; their handles are now the caller's sockets.

    A handle is a non-blocking socket. However it ends, by connection, error or cancellation, nothing else is left:
    every other socket is closed, no timer, reader, writer or look-up stays. Where it was cancelled, a socket
    that is connected without the plan having been told is reset: its peer must not take a cut for an end.

    Args:
        plan: a fresh plan.
        resolver: who looks names up.
        client: on whose account.
        egress: gives, for the address of a target, the local address or the interface that the connection is to come
            from; None leaves it to the kernel. Targets of another family than that address are unreachable.
        on_wait: called before the first wait, if there is one.
        begun: a connect that is under way already, taken where the plan opens its target without an egress.

    Raises:
        TabiError: what the plan raises.
    """
    driver = _Driver(resolver, client, egress, on_wait, begun)
    result: T | None = None
    try:
        batch = next(plan)
        while True:
            for wish in batch:
                driver.take(wish)
            batch = plan.send(await driver.next_fact())
    except StopIteration as stop:
        value: T = stop.value
        result = value
        return value
    except asyncio.CancelledError:
        driver.is_cut = True
        raise
    finally:
        plan.close()
        driver.close(result)


class _Driver:
    """What is under way for one plan, and the facts that it has not been told yet."""

    def __init__(
        self,
        resolver: Asks,
        client: Hashable,
        egress: ChooseEgress,
        on_wait: Callable[[], None],
        begun: Begun | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._resolver = resolver
        self._client = client
        self._egress = egress
        self._on_wait = on_wait
        self._sleeps: dict[Sleep, float] = {}  # that have no timer yet, and when they are over
        self._under_way: dict[Wish, Callable[[], object]] = {}  # how to give each up
        self._facts: deque[Fact | BaseException] = deque()
        self._begun = begun
        self._sockets: set[socket.socket] = set() if begun is None else {begun.sock}
        self._news: asyncio.Future[None] | None = None
        self.is_cut = False

    def take(self, wish: Wish) -> None:
        match wish:
            case Cancel(wish=other):
                give_up = self._under_way.pop(other, None)
                if give_up is not None:
                    give_up()
            case Open():
                self._open(wish)
            case Sleep(seconds=seconds):
                self._sleep(wish, seconds)
            case Resolve():
                self._resolve(wish)
            case Send(connection=connection, data=data):
                self._send(wish, _socket(connection), memoryview(data))
            case Read(connection=connection):
                self._read(wish, _socket(connection), 0)
            case Peek(connection=connection):
                self._read(wish, _socket(connection), socket.MSG_PEEK)
            case Close(connection=connection):
                self._drop(_socket(connection))

    async def next_fact(self) -> Fact:
        while True:
            while not self._facts:
                await self._wait()
            fact = self._facts.popleft()
            if isinstance(fact, BaseException):
                raise fact
            if self._under_way.pop(fact.wish, None) is not None:
                return fact
            # It was cancelled after it had come true.

    async def _wait(self) -> None:
        if self._news is None:
            self._on_wait()
        for sleep, end in self._sleeps.items():
            self._under_way[sleep] = self._loop.call_at(end, self._tell, Done(sleep)).cancel
        self._sleeps.clear()
        self._news = self._loop.create_future()
        await self._news

    def close(self, result: object) -> None:
        results = result if isinstance(result, tuple) else (result,)
        kept = [one.handle for one in results if isinstance(one, Connection)]
        for give_up in self._under_way.values():
            give_up()
        if self._begun is not None:
            self._drop(self._begun.sock)
        for sock in self._sockets:
            if sock not in kept:
                sock.close()

    def _tell(self, fact: Fact | BaseException) -> None:
        self._facts.append(fact)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _sleep(self, wish: Sleep, seconds: float) -> None:
        if seconds <= 0:
            self._under_way[wish] = _nothing
            self._tell(Done(wish))
        else:  # most plans that end at once never need the timer
            self._sleeps[wish] = self._loop.time() + seconds
            self._under_way[wish] = partial(self._sleeps.pop, wish)

    def _resolve(self, wish: Resolve) -> None:
        asked = self._resolver.ask(wish.name, wish.family, self._client)
        self._under_way[wish] = asked.cancel
        if asked.done():
            self._resolved(wish, asked)
        else:
            asked.add_done_callback(partial(self._resolved, wish))

    def _resolved(self, wish: Resolve, asked: asyncio.Future[tuple[Address, ...]]) -> None:
        if asked.cancelled():
            return
        error = asked.exception()
        if error is None:
            self._tell(Done(wish, asked.result()))
        elif isinstance(error, TabiError):
            self._tell(Failed(wish, error))
        else:
            self._tell(error)  # a bug of the resolver: it ends the drive

    def _open(self, wish: Open) -> None:
        remote = Endpoint(wish.address, wish.port)
        self._under_way[wish] = _nothing
        try:
            sock = self._make_socket(remote, wish.address)
        except OSError as error:
            self._tell(Failed(wish, dial_error(error, remote)))
            return
        if sock is None:
            text = f"{remote}: not to be reached from the egress address {self._egress(wish.address)}"
            self._tell(Failed(wish, DialError(text, reply=Reply.NETWORK_UNREACHABLE, retryable=False)))
            return
        self._under_way[wish] = partial(self._drop, sock)
        peer = (address_text(wish.address), wish.port)
        code = sock.connect_ex(peer)
        if code == errno.EINPROGRESS and wish.address.is_loopback:
            # The handshake took place within the first call; asking again spares a turn of the loop.
            code = sock.connect_ex(peer)
        if code in (errno.EINPROGRESS, errno.EALREADY):
            self._loop.add_writer(sock.fileno(), self._decided, wish, remote, sock)
        else:
            self._opened(wish, remote, sock, code)

    def _make_socket(self, target: Endpoint, address: Address) -> socket.socket | None:
        egress = self._egress(address)
        begun = self._begun
        if begun is not None and egress is None and begun.target == target:
            self._begun = None
            return begun.sock
        if egress is not None and not isinstance(egress, str) and egress.version != address.version:
            return None
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._sockets.add(sock)
        prepare_outbound(sock)
        if isinstance(egress, str):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, egress.encode() + b"\0")
        elif egress is not None:
            # The port is chosen at connect, unique per target; chosen at bind there were 28,000 for all.
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((str(egress), 0))
        return sock

    def _decided(self, wish: Open, remote: Endpoint, sock: socket.socket) -> None:
        self._loop.remove_writer(sock.fileno())
        self._opened(wish, remote, sock, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _opened(self, wish: Open, remote: Endpoint, sock: socket.socket, code: int) -> None:
        if code not in _CONNECTED:
            self._drop(sock)
            self._tell(Failed(wish, dial_error(OSError(code, ""), remote)))
            return
        local = Endpoint.from_sockaddr(sock.getsockname())
        if local.port == remote.port and local.host == remote.host:
            # Both SYNs were ours: a port of the ephemeral range without a listener (RFC 9293 section 3.5).
            self._drop(sock)
            refused = OSError(errno.ECONNREFUSED, "")
            self._tell(Failed(wish, dial_error(refused, remote)))
            return
        self._tell(Done(wish, Connection(sock, remote, local)))

    def _drop(self, sock: socket.socket) -> None:
        if sock not in self._sockets:  # it failed, and was given up before the failure could be told; or it is not ours
            return
        self._loop.remove_writer(sock.fileno())
        self._sockets.discard(sock)
        if self.is_cut:
            reset(sock)
        else:
            sock.close()

    def _send(self, wish: Send, sock: socket.socket, rest: memoryview) -> None:
        self._under_way[wish] = partial(self._loop.remove_writer, sock.fileno())
        try:
            rest = rest[sock.send(rest) :] if rest else rest
        except BlockingIOError:
            pass
        except OSError as error:
            self._loop.remove_writer(sock.fileno())
            self._tell(Failed(wish, dial_error(error, wish.connection.remote, stage=Stage.NEGOTIATE)))
            return
        if rest:
            self._loop.add_writer(sock.fileno(), self._send, wish, sock, rest)
        else:
            self._loop.remove_writer(sock.fileno())
            self._tell(Done(wish))

    def _read(self, wish: Read | Peek, sock: socket.socket, flags: int) -> None:
        self._under_way[wish] = partial(self._loop.remove_reader, sock.fileno())
        try:
            data = sock.recv(wish.size, flags)
        except BlockingIOError:
            self._loop.add_reader(sock.fileno(), self._read, wish, sock, flags)
        except OSError as error:
            self._loop.remove_reader(sock.fileno())
            self._tell(Failed(wish, dial_error(error, wish.connection.remote, stage=Stage.NEGOTIATE)))
        else:
            self._loop.remove_reader(sock.fileno())
            self._tell(Done(wish, data))


def _socket(connection: Connection) -> socket.socket:
    assert isinstance(connection.handle, socket.socket)
    return connection.handle
