"""Blocking calls that look like those of the socket module; see `tabi.sync`."""

import socket
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tabi.addr import Address
from tabi.client import plans
from tabi.client.blocking import drive
from tabi.client.datagrams import DatagramSocket, open_datagrams
from tabi.client.plain import PlainSocket
from tabi.client.plans import AddressLike, show_address
from tabi.dial.chain import Bound
from tabi.dial.wishes import Connection
from tabi.errors import UsageError
from tabi.machine.url import ProxyLike

__all__ = ["Listener", "associate", "bind", "create_connection", "resolve"]


def create_connection(
    address: AddressLike, timeout: float | None = None, *, proxy: ProxyLike = None
) -> socket.socket:
    """Connect to `address` through `proxy`, as `socket.create_connection` does without one.

    The socket is a real one: hand it to `ssl.SSLContext.wrap_socket`, call `makefile` or `detach`. Nothing of what
    the target sends has been read. Its peer name is that of the first proxy.

    Args:
        address: the target, ``(host, port)``.
        timeout: seconds for look-ups, connections and handshakes together, and then the socket's own timeout; None:
            30 seconds, and a socket that blocks.
        proxy: a URL (``"socks5h://user:password@host:1080"``), several, the nearest first, or None.

    Raises:
        UsageError: an address, URL or name that cannot be used; nothing was sent. It is a ValueError.
        ProxyUnreachableError: a proxy could not be reached.
        ProxyAuthError: a proxy refused the credentials, or wants some.
        ProxyProtocolError: a proxy does not speak its protocol, or closed without an answer.
        DeniedError: a proxy refused by its rules.
        DialError: the target could not be reached; `RefusedError`, `NameUnknownError` and `DialTimeoutError` are such.
            All of these but UsageError are OSErrors, and `hop`, `stage` and `reply` say where and why.
    """
    return _take_socket(drive(plans.connect(address, proxy, timeout)), timeout)


def bind(peer: AddressLike | None = None, timeout: float | None = None, *, proxy: ProxyLike) -> "Listener":
    """Have a proxy listen for one connection, from `peer` (RFC 1928 section 4, BIND).

    Args:
        peer: who is expected, ``(host, port)``; proxies compare the host. None: anybody, where the proxy allows it.
        timeout: seconds until it listens; None: 30.
        proxy: as for `create_connection`; the last one listens.

    Raises:
        UsageError, OSError: as `create_connection`.
    """
    return Listener(drive(plans.bind(peer, proxy, timeout)))


def resolve(host: str, timeout: float | None = None, *, proxy: ProxyLike) -> str:
    """Have a proxy look `host` up, so that nobody here is asked: Tor's RESOLVE and RESOLVE_PTR, which few others speak.

    Args:
        host: a name, or an address whose name is wanted.
        timeout: seconds for all of it; None: 30.
        proxy: as for `create_connection`; the last one looks it up.

    Returns:
        the address of a name, or the name of an address.

    Raises:
        UsageError, OSError: as `create_connection`; `DialError` with reply 7 where the proxy does not know the command.
    """
    return str(drive(plans.resolve(host, proxy, timeout)))


def associate(
    timeout: float | None = None,
    *,
    proxy: ProxyLike,
    allow_relay: Callable[[Address], bool] = plans.nobody,
) -> DatagramSocket:
    """Open a datagram socket whose datagrams go through `proxy` (RFC 1928 section 7).

    Args:
        timeout: seconds for each proxy's handshake, and then the socket's own timeout; None: 30 seconds, and a socket
            that blocks.
        proxy: as for `create_connection`; every one must speak SOCKS5.
        allow_relay: says of a relay outside the first proxy's own network whether to send to it. By default the
            proxy's own address is taken instead.

    Raises:
        UsageError, OSError: as `create_connection`.
    """
    return open_datagrams(proxy, timeout, allow_relay)


class Listener:
    """A proxy's port for one connection; made by `bind`. Close it, or use it as a context manager."""

    def __init__(self, bound: Bound) -> None:
        self._bound: Bound | None = bound
        self._address = show_address(bound.local)
        self._sock = _socket_of(bound)

    @property
    def address(self) -> tuple[str, int]:
        """Where the peer is to connect to, as the proxy tells it."""
        return self._address

    def accept(self, timeout: float | None = None) -> tuple[socket.socket, tuple[str, int]]:
        """Wait for the peer; once. The listener has then served, however it ends.

        Args:
            timeout: seconds, and then the socket's own timeout; None: 150, longer than proxies wait, and a socket that
                blocks.

        Returns:
            a connected socket and the peer's address, as the proxy tells it.

        Raises:
            UsageError: it has been called before, or the listener is closed.
            DialTimeoutError: nobody came in time.
            OSError: as `create_connection`.
        """
        if self._bound is None:
            raise UsageError("a listener on a proxy accepts one connection; ask for another by bind()")
        bound, self._bound = self._bound, None
        try:
            connection = drive(plans.accept(bound, timeout))
        except BaseException:
            self._sock.close()
            raise
        return _take_socket(connection, timeout), show_address(connection.remote)

    def fileno(self) -> int:
        """Descriptor of the control connection, readable when `accept` has something to say; -1 when closed."""
        return self._sock.fileno() if self._bound is not None else -1

    def close(self) -> None:
        """Give the port up, unless its connection was accepted."""
        if self._bound is not None:
            self._bound = None
            self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Listener on {self._address}{'' if self._bound is not None else ', closed'}>"


def _take_socket(connection: Connection, timeout: float | None) -> socket.socket:
    sock = _socket_of(connection)
    sock.settimeout(timeout)
    return sock


def _socket_of(connection: Connection) -> socket.socket:
    assert isinstance(connection.handle, PlainSocket)
    return connection.handle
