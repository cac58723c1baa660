"""Calls for asyncio that look like its own; see `tabi.aio`."""

import asyncio
import socket
import ssl as ssl_module
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeAlias, TypeVar

from tabi.addr import Address
from tabi.client import plans
from tabi.client.aio_datagrams import DatagramSocket, open_datagrams
from tabi.client.driving import drive
from tabi.client.plans import AddressLike, show_address
from tabi.dial.chain import Bound
from tabi.dial.wishes import Connection
from tabi.errors import UsageError
from tabi.machine.url import ProxyLike

__all__ = ["Listener", "associate", "bind", "create_connection", "open_connection", "open_socket", "resolve"]

P = TypeVar("P", bound=asyncio.BaseProtocol)

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Tls: TypeAlias = ssl_module.SSLContext | bool | None

STREAM_LIMIT = 65_536  # bytes that a StreamReader buffers, asyncio's own default


async def open_connection(
    host: str,
    port: int,
    *,
    proxy: ProxyLike = None,
    timeout: float | None = None,
    ssl: Tls = None,
    server_hostname: str | None = None,
    limit: int = STREAM_LIMIT,
) -> Streams:
    """Connect to a target through `proxy`, as `asyncio.open_connection` does without one.

    Args:
        host: the target, a name or an address.
        port: its port.
        proxy: a URL (``"socks5h://user:password@host:1080"``), several, the nearest first, or None.
        timeout: seconds for look-ups, connections and handshakes together, and again for that of TLS; None: 30.
        ssl: speak TLS with the target, as asyncio has it.
        server_hostname: the name in its certificate; None: `host`.
        limit: bytes that the reader buffers.

    Returns:
        reader and writer; the writer's ``get_extra_info`` says what asyncio's says, and its peer name is that of the
        first proxy.

    Raises:
        UsageError: an address, URL or name that cannot be used; nothing was sent. It is a ValueError.
        OSError: of the kinds that `tabi.sync.create_connection` raises; `hop`, `stage` and `reply` say where and why.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await create_connection(
        lambda: protocol, host, port, proxy=proxy, timeout=timeout, ssl=ssl, server_hostname=server_hostname
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def create_connection(
    protocol_factory: Callable[[], P],
    host: str,
    port: int,
    *,
    proxy: ProxyLike = None,
    timeout: float | None = None,
    ssl: Tls = None,
    server_hostname: str | None = None,
) -> tuple[asyncio.Transport, P]:
    """Connect to a target through `proxy`, as ``loop.create_connection`` does without one.

    Args:
        protocol_factory: makes the protocol.
        host, port, proxy, timeout, ssl, server_hostname: as for `open_connection`.

    Raises:
        UsageError, OSError: as `open_connection`.
    """
    connection = await drive(plans.connect((host, port), proxy, timeout))
    name = (server_hostname or host) if ssl else server_hostname
    return await _hand_over(connection, protocol_factory, timeout, ssl, name)


async def open_socket(
    host: str, port: int, *, proxy: ProxyLike = None, timeout: float | None = None
) -> socket.socket:
    """Connect to a target through `proxy` and give the socket itself, for libraries that take ``sock=``.

    Args:
        host, port, proxy, timeout: as for `open_connection`.

    Returns:
        a connected socket that does not block. Nothing of what the target sends has been read.

    Raises:
        UsageError, OSError: as `open_connection`.
    """
    return _socket_of(await drive(plans.connect((host, port), proxy, timeout)))


async def bind(peer: AddressLike | None = None, *, proxy: ProxyLike, timeout: float | None = None) -> "Listener":
    """Have a proxy listen for one connection, from `peer` (RFC 1928 section 4, BIND).

    Args:
        peer: who is expected, ``(host, port)``; proxies compare the host. None: anybody, where the proxy allows it.
        proxy: as for `open_connection`; the last one listens.
        timeout: seconds until it listens; None: 30.

    Raises:
        UsageError, OSError: as `open_connection`.
    """
    return Listener(await drive(plans.bind(peer, proxy, timeout)))


async def resolve(host: str, *, proxy: ProxyLike, timeout: float | None = None) -> str:
    """Have a proxy look `host` up, so that nobody here is asked: Tor's RESOLVE and RESOLVE_PTR, which few others speak.

    Args:
        host: a name, or an address whose name is wanted.
        proxy: as for `open_connection`; the last one looks it up.
        timeout: seconds for all of it; None: 30.

    Returns:
        the address of a name, or the name of an address.

    Raises:
        UsageError, OSError: as `open_connection`; `DialError` with reply 7 where the proxy does not know the command.
    """
    return str(await drive(plans.resolve(host, proxy, timeout)))


async def associate(
    *,
    proxy: ProxyLike,
    timeout: float | None = None,
    allow_relay: Callable[[Address], bool] = plans.nobody,
) -> DatagramSocket:
    """Open a datagram socket whose datagrams go through `proxy` (RFC 1928 section 7).

    Args:
        proxy: as for `open_connection`; every one must speak SOCKS5.
        timeout: seconds for each proxy's handshake; None: 30.
        allow_relay: says of a relay outside the first proxy's own network whether to send to it. By default the
            proxy's own address is taken instead.

    Raises:
        UsageError, OSError: as `open_connection`.
    """
    return await open_datagrams(proxy, timeout, allow_relay)


class Listener:
    """A proxy's port for one connection; made by `bind`. Close it, or use it as an asynchronous context manager."""

    def __init__(self, bound: Bound) -> None:
        self._bound: Bound | None = bound
        self._address = show_address(bound.local)
        self._sock = _socket_of(bound)

    @property
    def address(self) -> tuple[str, int]:
        """Where the peer is to connect to, as the proxy tells it."""
        return self._address

    async def accept(self, timeout: float | None = None) -> tuple[Streams, tuple[str, int]]:
        """Wait for the peer; once. The listener has then served, however it ends.

        Args:
            timeout: seconds; None: 150, longer than proxies wait.

        Returns:
            reader and writer, and the peer's address, as the proxy tells it.

        Raises:
            UsageError: it has been called before, or the listener is closed.
            DialTimeoutError: nobody came in time.
            OSError: as `open_connection`.
        """
        if self._bound is None:
            raise UsageError("a listener on a proxy accepts one connection; ask for another by bind()")
        bound, self._bound = self._bound, None
        try:
            connection = await drive(plans.accept(bound, timeout))
            streams = await asyncio.open_connection(sock=self._sock)
        except BaseException:
            self._sock.close()
            raise
        return streams, show_address(connection.remote)

    def close(self) -> None:
        """Give the port up, unless its connection was accepted."""
        if self._bound is not None:
            self._bound = None
            self._sock.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Listener on {self._address}{'' if self._bound is not None else ', closed'}>"


async def _hand_over(
    connection: Connection, factory: Callable[[], P], timeout: float | None, ssl: Tls, name: str | None
) -> tuple[asyncio.Transport, P]:
    sock = _socket_of(connection)
    loop = asyncio.get_running_loop()
    limit = (timeout or plans.CONNECT_TIMEOUT) if ssl else None
    try:
        return await loop.create_connection(
            factory, sock=sock, ssl=ssl, server_hostname=name, ssl_handshake_timeout=limit
        )
    except BaseException:
        sock.close()  # asyncio closes what it has begun to use, and only that
        raise


def _socket_of(connection: Connection) -> socket.socket:
    assert isinstance(connection.handle, socket.socket)
    return connection.handle
