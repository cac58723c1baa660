"""Make the wishes of a plan (`tabi.dial`) true by blocking: non-blocking sockets, one selector, no event loop.

The twin of `tabi.net.driver`. It keeps nothing between calls, so any number of threads may drive at once. Names are
looked up by the system in threads, since a look-up has no time limit of its own: one that is given up runs to its end
unheard.
"""

import errno
import heapq
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Generic, TypeAlias, TypeVar

from tabi.addr import Address, Endpoint
from tabi.client.plain import PlainSocket
from tabi.dial.wishes import (
    Cancel,
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
from tabi.errors import DialError, Stage
from tabi.net.errno_map import dial_error
from tabi.net.system_names import addresses_of

__all__ = ["Carried", "MakeSocket", "drive"]

T = TypeVar("T")
MakeSocket: TypeAlias = Callable[[Address], PlainSocket]
"""Makes the TCP socket that is to be connected to an address; OSError where there is none."""

_IN_PROGRESS = (errno.EINPROGRESS, errno.EALREADY)
_LONGEST_WAIT = 3600.0  # seconds; poll() cannot wait for weeks
_CONNECTED = (0, errno.EISCONN)


def drive(plan: Steps[T]) -> T:
    """Carry `plan` out and return its result; a connection's ``handle`` is a non-blocking socket, now the caller's.

    However it ends, nothing else is left open.

    Args:
        plan: a fresh plan; without a time limit of its own it may take for ever.

    Raises:
        TabiError: what the plan raises.
    """
    carried = Carried(plan)
    carried.advance(wait=True)
    return carried.result


def _new_socket(address: Address) -> PlainSocket:
    return PlainSocket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)


class Carried(Generic[T]):
    """A plan under way, for callers that cannot wait for its end in one call.

    Args:
        plan: a fresh plan; nothing is done before `advance`.
        make_socket: where its sockets come from.

    Attributes:
        result: what the plan returned; there when `advance` has returned True.
    """

    result: T

    def __init__(self, plan: Steps[T], make_socket: MakeSocket = _new_socket) -> None:
        self._plan = plan
        self._selector = selectors.PollSelector()  # poll takes no descriptor of its own, unlike epoll
        self._driver = _Driver(self._selector, make_socket)
        self._is_begun = False

    def advance(self, *, wait: bool) -> bool:
        """Carry on: to the end, or without `wait` as far as it goes at once. Tell whether it is over.

        Raises:
            TabiError: what the plan raises; then it is over too.
        """
        try:
            if not self._is_begun:
                self._is_begun = True
                self._driver.take_all(next(self._plan))
            while (fact := self._driver.next_fact(wait=wait)) is not None:
                self._driver.take_all(self._plan.send(fact))
        except StopIteration as stop:
            self.result = stop.value
            self._close(stop.value)
            return True
        except BaseException:
            self._close(None)
            raise
        return False

    def awaited(self) -> tuple[list[int], list[int], float | None]:
        """Give the descriptors that it waits for to be readable, and writable, and the seconds until its next timer."""
        keys = self._selector.get_map().values()
        readable = [key.fd for key in keys if key.events & selectors.EVENT_READ]
        writable = [key.fd for key in keys if key.events & selectors.EVENT_WRITE]
        return readable, writable, self._driver.seconds_left()

    def give_up(self) -> None:
        """End it, whether it is over or not; nothing of it is left open but a result."""
        self._close(None)

    def _close(self, result: object) -> None:
        self._plan.close()
        self._driver.close(result)
        self._selector.close()


class _Driver:
    """What is under way for one plan, and the facts that it has not been told yet."""

    def __init__(self, selector: selectors.BaseSelector, make_socket: MakeSocket) -> None:
        self._selector = selector
        self._make_socket = make_socket
        self._under_way: dict[Wish, Callable[[], object]] = {}  # how to give each up
        self._facts: deque[Fact] = deque()
        self._timers: list[tuple[float, int, Sleep]] = []
        self._numbers = count()
        self._sockets: set[PlainSocket] = set()

    def take_all(self, batch: tuple[Wish, ...]) -> None:
        for wish in batch:
            self.take(wish)

    def take(self, wish: Wish) -> None:
        match wish:
            case Cancel(wish=other):
                give_up = self._under_way.pop(other, None)
                if give_up is not None:
                    give_up()
            case Open():
                self._open(wish)
            case Sleep(seconds=seconds):
                self._under_way[wish] = _nothing
                heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), wish))
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

    def next_fact(self, *, wait: bool) -> Fact | None:
        """Give the next fact; None where there is none yet, and nobody is to `wait`."""
        while True:
            while not self._facts:
                self._turn(wait=wait)
                if not wait and not self._facts:
                    return None
            fact = self._facts.popleft()
            if self._under_way.pop(fact.wish, None) is not None:
                return fact
            # It was cancelled after it had come true.

    def close(self, result: object) -> None:
        kept = result.handle if isinstance(result, Connection) else None
        for give_up in self._under_way.values():
            give_up()
        for sock in self._sockets:
            if sock is not kept:
                sock.close()

    def seconds_left(self) -> float | None:
        """Tell how long it is until the next timer; None without one."""
        while self._timers and self._timers[0][2] not in self._under_way:
            heapq.heappop(self._timers)
        return min(self._timers[0][0] - time.monotonic(), _LONGEST_WAIT) if self._timers else None

    def _turn(self, *, wait: bool) -> None:
        """Look at sockets and timers; with `wait` until one is ready. A plan that waits for none is a bug."""
        left = self.seconds_left()
        assert left is not None or self._selector.get_map(), "the plan waits for nothing"
        if not wait:
            left = 0.0
        for key, _ in self._selector.select(left):
            key.data()
        while self._timers and self._timers[0][0] <= time.monotonic():
            self._facts.append(Done(heapq.heappop(self._timers)[2]))

    def _watch(self, sock: PlainSocket, event: int, wish: Wish, then: Callable[[], None]) -> None:
        """Call `then` once, when `sock` is ready."""

        def ready() -> None:
            self._selector.unregister(sock)
            then()

        self._under_way[wish] = partial(self._selector.unregister, sock)
        self._selector.register(sock, event, ready)

    def _tell(self, fact: Fact) -> None:
        self._under_way[fact.wish] = _nothing
        self._facts.append(fact)

    def _resolve(self, wish: Resolve) -> None:
        """Look up in a thread, which says that it is done by closing its end of a pair."""
        mine, its = socket.socketpair()
        answer: list[Fact] = []

        def look_up() -> None:
            with its:
                try:
                    answer.append(Done(wish, addresses_of(wish.name, wish.family)))
                except DialError as error:
                    answer.append(Failed(wish, error))

        def answered() -> None:
            self._drop(mine)
            if answer:
                self._tell(answer[0])
            else:
                error = DialError(f"{wish.name}: the look-up ended without an answer", stage=Stage.RESOLVE)
                self._tell(Failed(wish, error))

        self._sockets.add(mine)
        threading.Thread(target=look_up, name=f"look up {wish.name}", daemon=True).start()
        self._watch(mine, selectors.EVENT_READ, wish, answered)
        self._under_way[wish] = partial(self._give_up, mine)

    def _open(self, wish: Open) -> None:
        remote = Endpoint(wish.address, wish.port)
        try:
            sock = self._make_socket(wish.address)
        except OSError as error:
            self._tell(Failed(wish, dial_error(error, remote)))
            return
        self._sockets.add(sock)
        sock.setblocking(False)
        code = sock.connect_ex((str(wish.address), wish.port))
        if code in _IN_PROGRESS:
            self._watch(sock, selectors.EVENT_WRITE, wish, partial(self._decided, wish, remote, sock))
            self._under_way[wish] = partial(self._give_up, sock)
        else:
            self._opened(wish, remote, sock, code)

    def _decided(self, wish: Open, remote: Endpoint, sock: PlainSocket) -> None:
        self._opened(wish, remote, sock, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _opened(self, wish: Open, remote: Endpoint, sock: PlainSocket, code: int) -> None:
        if code in _CONNECTED:
            local = Endpoint.from_sockaddr(sock.getsockname())
            if local != remote:
                self._tell(Done(wish, Connection(sock, remote, local)))
                return
            # Both SYNs were ours: a port of the ephemeral range without a listener (RFC 9293 section 3.5).
            code = errno.ECONNREFUSED
        self._drop(sock)
        self._tell(Failed(wish, dial_error(OSError(code, ""), remote)))

    def _send(self, wish: Send, sock: PlainSocket, rest: memoryview) -> None:
        try:
            rest = rest[sock.send(rest) :] if rest else rest
        except BlockingIOError:
            pass
        except OSError as error:
            self._tell(Failed(wish, dial_error(error, wish.connection.remote, stage=Stage.NEGOTIATE)))
            return
        if rest:
            self._watch(sock, selectors.EVENT_WRITE, wish, partial(self._send, wish, sock, rest))
        else:
            self._tell(Done(wish))

    def _read(self, wish: Read | Peek, sock: PlainSocket, flags: int) -> None:
        try:
            data = sock.recv(wish.size, flags)
        except BlockingIOError:
            self._watch(sock, selectors.EVENT_READ, wish, partial(self._read, wish, sock, flags))
        except OSError as error:
            self._tell(Failed(wish, dial_error(error, wish.connection.remote, stage=Stage.NEGOTIATE)))
        else:
            self._tell(Done(wish, data))

    def _give_up(self, sock: PlainSocket) -> None:
        self._selector.unregister(sock)
        self._drop(sock)

    def _drop(self, sock: PlainSocket) -> None:
        self._sockets.discard(sock)
        sock.close()


def _nothing() -> None:
    """Give up what is over already."""


def _socket(connection: Connection) -> PlainSocket:
    assert isinstance(connection.handle, PlainSocket)
    return connection.handle
