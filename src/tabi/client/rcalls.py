"""Koblas' R calls for sockets of the caller's own; see `tabi.rcalls`.

As with the originals (How_to_SOCKSify and What_SOCKS_expects of the SOCKS 4.1 and 4.2 packages) a program makes a TCP
socket and calls these in the place of the socket calls; that very socket is then connected to the proxy, with whatever
options were set on it. `Rconnect` asks for CONNECT; `Rbind` asks for BIND and waits for the first reply, after which
`Rgetsockname` gives the address at the proxy; `Raccept` waits for the second reply. What a proxy is not for, because
there is none or ``no_proxy`` names the target, is the plain socket call.

On a socket that does not block, `Rconnect` raises BlockingIOError (EINPROGRESS) unless it is done at once, and goes on
each time that it, or `Rselect`, is called: no I/O on the socket before a further `Rconnect` has raised OSError
(EISCONN). `Rselect` gives such a socket as ready when its `Rconnect` has failed, else as sockets are ready. One that is
given up is closed when the program lets go of it. The time limit is that of the socket; without one, or without
blocking, it is 30 seconds, for `Raccept` 150.

What differs: names may be given, and go to the proxy where its URL says so; errors are those of `tabi.sync`, which all
but the caller's own mistakes are OSErrors. A socket whose `Rconnect` or `Rbind` failed is of no further use.
"""

import errno
import math
import os
import select
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeAlias

from tabi.addr import Endpoint, parse_host
from tabi.client import plans
from tabi.client.blocking import Carried
from tabi.client.plans import AddressLike, show_address
from tabi.client.rcalls_sockets import State, advance, begin, double, os_error, socket_of, states
from tabi.client.socks_server import socks_server
from tabi.dial import chain
from tabi.dial.chain import Bound
from tabi.errors import TabiError, UsageError
from tabi.machine.hop import Hop
from tabi.machine.url import parse_proxy

__all__ = ["Raccept", "Rbind", "Rconnect", "Rgetpeername", "Rgetsockname", "Rinit", "Rlisten", "Rselect"]

Selected: TypeAlias = tuple[list[Any], list[Any], list[Any]]  # Any: whatever select.select takes
Remote: TypeAlias = AddressLike | None


class _Chosen:
    """What `Rinit` has set."""

    proxy: Hop | None = None


class _Last(threading.local):
    """Whom a thread has connected to last."""

    target: Endpoint | None = None


_last = _Last()


def Rinit(proxy: str | Hop | None = None) -> None:
    """Choose the proxy of all calls from now on; None leaves it to the environment, each time.

    The originals' SOCKSinit(name), which found the server. It need not be called.

    Args:
        proxy: a URL, ``"socks5h://user:password@host:1080"``.

    Raises:
        UsageError: a URL that cannot be used.
    """
    _Chosen.proxy = parse_proxy(proxy) if isinstance(proxy, str) else proxy


def Rconnect(sock: socket.socket, address: AddressLike) -> None:
    """Connect `sock` to `address` by CONNECT.

    Args:
        sock: a TCP socket, not connected.
        address: ``(host, port)``.

    Raises:
        UsageError: an address that cannot be used; nothing was sent.
        BlockingIOError: the socket does not block: it has begun (EINPROGRESS), or goes on (EALREADY).
        OSError: EISCONN, it is connected; else as `tabi.sync.create_connection`.
    """
    state = states.get(sock)
    if state is None:
        _begin_to_connect(sock, address)
        return
    if state.failure is not None:
        del states[sock]
        raise state.failure
    if state.carried is not None:
        _go_on_connecting(sock, state, errno.EALREADY)
    raise os_error(errno.EISCONN)


def Rbind(sock: socket.socket, address: tuple[str, int], remote: Remote = None) -> None:
    """Have the proxy listen for one connection from `remote`, by BIND; blocks until it does.

    Args:
        sock: a TCP socket, not connected.
        address: as for bind(2); a proxy listens where it likes, and is told the port.
        remote: the host that is expected, or ``(host, port)``, SOCKS 4.1's last argument; None, as in 4.2, the one that
            this thread has called `Rconnect` for last.

    Raises:
        UsageError: it cannot be said, or there is nobody to expect.
        OSError: as `tabi.sync.bind`.
    """
    _check_fresh(sock)
    peer = _expected(address, remote)
    hop = _hop(peer)
    if hop is None:
        sock.bind(address)
        return
    state = begin(sock, hop, peer, chain.bind)
    bound = advance(sock, state, wait=True)
    assert isinstance(bound, Bound)
    socket_of(bound).close()
    state.bound = replace(bound, handle=None)
    state.sockname = show_address(bound.local)


def Rlisten(sock: socket.socket, backlog: int = 1) -> None:
    """Listen; at a proxy nothing is left to do after `Rbind`, which takes one connection.

    Raises:
        OSError: as listen(2), for a socket without proxy.
    """
    if sock not in states:
        sock.listen(backlog)


def Raccept(sock: socket.socket) -> tuple[socket.socket, Any]:  # Any: as socket.accept
    """Wait for the peer, once: for the second reply of BIND.

    Returns:
        a connected socket with the time limit of `sock`, and the peer's address as the proxy tells it. As with the
        originals both are one connection: `sock` may be closed, but not shut down.

    Raises:
        UsageError: a connection has been accepted.
        BlockingIOError: the socket does not block, and nobody has come.
        OSError: as `tabi.sync.Listener.accept`.
    """
    state = states.get(sock)
    if state is None:
        return sock.accept()
    if state.bound is None:
        raise UsageError("a proxy accepts one connection for each Rbind; make another socket")
    if state.carried is None:
        state.handle = double(sock)
        bound = replace(state.bound, handle=state.handle)
        state.carried = Carried(chain.accept(bound, timeout=sock.gettimeout() or plans.ACCEPT_TIMEOUT))
    connection = advance(sock, state, wait=sock.gettimeout() != 0)
    if connection is None:
        raise os_error(errno.EAGAIN)
    accepted = socket_of(connection)
    accepted.settimeout(sock.gettimeout())
    states[accepted] = State(connection.remote, sockname=state.sockname)
    state.handle = state.bound = None
    return accepted, show_address(connection.remote)


def Rgetsockname(sock: socket.socket) -> Any:  # Any: as socket.getsockname
    """Give our end as others see it: after `Rbind` where the proxy listens, after `Rconnect` what it told, if anything.

    SOCKS4 and many SOCKS5 proxies tell 0.0.0.0 and port 0 of a CONNECT.
    """
    state = states.get(sock)
    return state.sockname if state is not None and state.sockname is not None else sock.getsockname()


def Rgetpeername(sock: socket.socket) -> Any:  # Any: as socket.getpeername
    """Give the other end, which is never the proxy: as it was asked for, or as the proxy told it of who has come.

    Raises:
        OSError: it is not connected (ENOTCONN), to the target that is: a proxy may well be.
    """
    state = states.get(sock)
    if state is None:
        return sock.getpeername()
    if not state.is_connected:
        raise os_error(errno.ENOTCONN)
    return show_address(state.target)


def Rselect(
    readers: Iterable[Any],  # Any: whatever select.select takes
    writers: Iterable[Any],
    exceptional: Iterable[Any] = (),
    timeout: float | None = None,
) -> Selected:
    """Wait as `select.select` does, and meanwhile carry on with each `Rconnect` that is under way on these sockets.

    Raises:
        OSError, ValueError: as `select.select`.
    """
    wanted = list(readers), list(writers), list(exceptional)
    end = math.inf if timeout is None else time.monotonic() + timeout
    while True:
        under_way, failed = _carry_on([*wanted[0], *wanted[1]])
        found = _select(wanted, under_way, failed, 0.0 if failed else max(0.0, end - time.monotonic()))
        if any(found) or time.monotonic() >= end:
            return found


def _carry_on(wanted: list[Any]) -> tuple[dict[Any, Carried[Any]], list[Any]]:
    """Carry on with what is under way; give what still is, and the sockets whose `Rconnect` has failed."""
    under_way: dict[Any, Carried[Any]] = {}
    failed: list[Any] = []
    for one in wanted:
        state = states.get(one) if isinstance(one, socket.socket) else None
        if state is None or state.bound is not None:
            continue
        if state.carried is not None:
            try:
                _go_on_connecting(one, state, errno.EALREADY, wait=False)
            except BlockingIOError:
                under_way[one] = state.carried
            except TabiError as error:
                state.failure = error
                states[one] = state
        if state.failure is not None:
            failed.append(one)
    return under_way, failed


def _select(wanted: Selected, under_way: dict[Any, Carried[Any]], failed: list[Any], seconds: float) -> Selected:
    """Wait once, for what is wanted and for what is under way; give what is wanted. A failure is ready for all."""
    reads, writes = ([one for one in some if one not in under_way and one not in failed] for some in wanted[:2])
    more_reads: list[int] = []
    more_writes: list[int] = []
    for carried in under_way.values():
        readable, writable, left = carried.awaited()
        more_reads += readable
        more_writes += writable
        seconds = min(seconds, math.inf if left is None else max(0.0, left))
    limit = None if seconds == math.inf else seconds
    ready = select.select(reads + more_reads, writes + more_writes, wanted[2], limit)
    return (
        [one for one in wanted[0] if one in failed or one in ready[0]],
        [one for one in wanted[1] if one in failed or one in ready[1]],
        ready[2],
    )


def _begin_to_connect(sock: socket.socket, address: AddressLike) -> None:
    _check_fresh(sock)
    target = _endpoint(address)
    hop = _hop(target)
    if hop is None:
        _last.target = target
        sock.connect(address if isinstance(address, tuple) else show_address(target))
        return
    _go_on_connecting(sock, begin(sock, hop, target, chain.connect), errno.EINPROGRESS)


def _go_on_connecting(sock: socket.socket, state: State, unfinished: int, *, wait: bool | None = None) -> None:
    connection = advance(sock, state, wait=sock.gettimeout() != 0 if wait is None else wait)
    if connection is None:
        raise os_error(unfinished)
    socket_of(connection).close()
    state.sockname = show_address(connection.local)
    _last.target = state.target


def _check_fresh(sock: socket.socket) -> None:
    if sock.type != socket.SOCK_STREAM:
        raise UsageError("the R calls are for TCP sockets; tabi.sync.associate has datagrams")
    if sock in states:
        raise os_error(errno.EISCONN)
    try:
        sock.getpeername()
    except OSError:
        return
    raise os_error(errno.EISCONN)


def _endpoint(address: AddressLike) -> Endpoint:
    return plans.read_address(address[:2] if isinstance(address, tuple) else address)


def _expected(address: tuple[str, int], remote: Remote) -> Endpoint:
    if remote is not None:
        return Endpoint(parse_host(remote), address[1]) if isinstance(remote, str) else _endpoint(remote)
    if _last.target is None:
        raise UsageError("whom to expect? Give Rbind the host as its last argument, or call Rconnect before")
    return Endpoint(_last.target.host, address[1])


def _hop(target: Endpoint) -> Hop | None:
    return _Chosen.proxy or socks_server(target, os.environ)
