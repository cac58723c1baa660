"""The caller's own sockets that the R calls work on: what is known of each, and the plan that is under way on it.

A plan wants sockets of its own, so it is given doubles: further descriptors of the caller's socket, which the kernel
knows as one connection. What is known is forgotten with the socket.
"""

import errno
import os
import socket
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tabi.addr import Address, Endpoint, Name
from tabi.client import plans
from tabi.client.blocking import Carried
from tabi.client.plain import PlainSocket
from tabi.dial.chain import Bound
from tabi.dial.lookup import look_up
from tabi.dial.wishes import Connection, Family, Steps
from tabi.dial.within import within
from tabi.errors import TabiError
from tabi.machine.hop import Hop

__all__ = ["State", "advance", "begin", "double", "os_error", "socket_of", "states"]

_FAMILIES: tuple[Family, ...] = (4, 6)


@dataclass(slots=True)
class State:
    """What is known of a socket beside what the kernel knows. It knows nothing of the socket, which it must not keep.

    Args:
        target: what it was connected to or who is expected, never the proxy; once it is accepted, who has come.
        carried: what is under way.
        failure: what that ended in while `Rselect` was called, and nobody has been told yet.
        bound: the proxy listens; without a handle, or the port would stay open when the socket is closed.
        handle: the socket that will be accepted.
        sockname: our end as the proxy tells it.
    """

    target: Endpoint
    carried: Carried[Any] | None = None  # Any: of a Connection, or of a Bound
    failure: TabiError | None = None
    bound: Bound | None = None
    handle: PlainSocket | None = None
    sockname: tuple[str, int] | None = None

    @property
    def is_connected(self) -> bool:
        return self.carried is None and self.failure is None and self.bound is None


states: "weakref.WeakKeyDictionary[socket.socket, State]" = weakref.WeakKeyDictionary()


def begin(sock: socket.socket, hop: Hop, target: Endpoint, ask: Callable[..., Steps[Any]]) -> State:
    """Have a plan under way whose only socket is `sock`.

    Args:
        ask: makes the plan, `tabi.dial.chain.connect` or `bind`.

    Raises:
        UsageError: it cannot be said to this proxy.
    """
    seconds = sock.gettimeout() or plans.CONNECT_TIMEOUT
    if isinstance(target.host, Name) and not hop.scheme.takes_names:
        plan = within(_with_one_address(hop, target.host, target.port, ask, seconds), seconds)
    else:
        plan = ask([hop], target, reach=plans.reach(seconds), timeout=seconds)
    state = State(target, Carried(plan, _Doubles(sock, hop.proxy.port).make))
    states[sock] = state
    weakref.finalize(sock, _let_go, state)
    return state


def _with_one_address(hop: Hop, name: Name, port: int, ask: Callable[..., Steps[Any]], seconds: float) -> Steps[Any]:
    """Resolve here, and take what comes first: one socket can ask once."""
    addresses = yield from look_up(name, tuple(filter(hop.takes_family, _FAMILIES)))
    plan = ask([hop], Endpoint(addresses[0], port), reach=plans.reach(seconds), timeout=seconds)
    return (yield from plan)


def advance(sock: socket.socket, state: State, *, wait: bool) -> Connection | None:
    """Carry on; give what it ended in, None where it goes on.

    Raises:
        TabiError: it failed, and the socket is no longer known.
    """
    assert state.carried is not None
    os.set_blocking(sock.fileno(), False)
    try:
        is_over = state.carried.advance(wait=wait)
    except BaseException:
        del states[sock]
        _let_go(state)
        raise
    finally:
        sock.settimeout(sock.gettimeout())  # the doubles do not block, so the socket did not either
    if not is_over:
        return None
    connection = state.carried.result
    assert isinstance(connection, Connection)
    state.carried = None
    return connection


def _let_go(state: State) -> None:
    """Close what is open for a socket that is gone."""
    if state.carried is not None:
        state.carried.give_up()
        state.carried = None
    if state.handle is not None:
        state.handle.close()


class _Doubles:
    """Descriptors for a plan that are all the same socket: the caller's.

    Args:
        sock: that one.
        port: the proxy's.
    """

    def __init__(self, sock: socket.socket, port: int) -> None:
        self._sock = weakref.ref(sock)
        self._port = port
        self._last: PlainSocket | None = None

    def make(self, address: Address) -> PlainSocket:
        """See `tabi.client.blocking.MakeSocket`; one at a time, the next after a failure."""
        sock = self._sock()
        if sock is None or (self._last is not None and self._last.fileno() >= 0):
            raise os_error(errno.EALREADY)
        if sock.family != (socket.AF_INET if address.version == 4 else socket.AF_INET6):
            raise os_error(errno.EAFNOSUPPORT)
        if self._last is not None:
            # After a failure Linux answers one connect(2) by ECONNABORTED; else this begins what the plan goes on with.
            sock.connect_ex((str(address), self._port))
        self._last = double(sock)
        return self._last


def double(sock: socket.socket) -> PlainSocket:
    """Make a further descriptor of a socket, which then does not block."""
    other = PlainSocket(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))
    other.setblocking(False)
    return other


def socket_of(connection: Connection) -> PlainSocket:
    """Give the double that a plan has ended in."""
    assert isinstance(connection.handle, PlainSocket)
    return connection.handle


def os_error(code: int) -> OSError:
    """Make the error that goes with a number of `errno`."""
    return OSError(code, os.strerror(code))
