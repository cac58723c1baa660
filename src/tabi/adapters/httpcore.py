"""What httpx and httpx2 have in common: transports over a pool that connects through proxies.

The pool is httpcore's, or httpcore2's. Only what these document is used: a pool is told by ``network_backend`` how to
connect, so that none of their releases can come around the proxy. The modules are attributes: either pair will do.
"""

import select
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

from tabi.adapters.needs import Needs
from tabi.errors import UsageError
from tabi.machine.hop import Hop
from tabi.machine.url import ProxyLike, parse_proxies
from tabi.sync import create_connection

with Needs("anyio"):
    import anyio
    from anyio.abc import ByteStream, SocketAttribute
    from anyio.streams.tls import TLSAttribute, TLSStream

    from tabi.adapters.anyio import connect_tcp

__all__ = ["AsyncBody", "AsyncTransport", "Body", "Transport"]

_LIMITS = {"max_connections": 100, "max_keepalive_connections": 20, "keepalive_expiry": 5.0}  # httpx's own
_BROKEN = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)

# Any in this module: objects of httpx or of httpx2, of httpcore or of httpcore2.


class _Base:
    """What both transports share."""

    _client: ModuleType
    _core: ModuleType

    def _options(self, verify: ssl.SSLContext | bool, options: dict[str, Any]) -> dict[str, Any]:
        return _LIMITS | {"ssl_context": self._client.create_ssl_context(verify=verify)} | options

    def _asked(self, request: Any) -> Any:
        url = request.url
        return self._core.Request(
            method=request.method,
            url=self._core.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )

    def _answered(self, answer: Any, body: Any) -> Any:
        return self._client.Response(answer.status, headers=answer.headers, stream=body, extensions=answer.extensions)


class Transport(_Base):
    """The blocking transport; see `tabi.adapters.httpx`."""

    _body: type["Body"]

    def __init__(self, proxy: ProxyLike, *, verify: ssl.SSLContext | bool = True, **options: Any) -> None:
        backend = _Backend(self._core, parse_proxies(proxy))
        self._pool = self._core.ConnectionPool(network_backend=backend, **self._options(verify, options))

    def handle_request(self, request: Any) -> Any:
        """Answer a request of a client."""
        with _told_by(self._client, self._core, request):
            answer = self._pool.handle_request(self._asked(request))
        return self._answered(answer, self._body(self, answer.stream, request))

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


class AsyncTransport(_Base):
    """The asynchronous transport; see `tabi.adapters.httpx`."""

    _body: type["AsyncBody"]

    def __init__(self, proxy: ProxyLike, *, verify: ssl.SSLContext | bool = True, **options: Any) -> None:
        backend = _AsyncBackend(self._core, parse_proxies(proxy))
        self._pool = self._core.AsyncConnectionPool(network_backend=backend, **self._options(verify, options))

    async def handle_async_request(self, request: Any) -> Any:
        """Answer a request of a client."""
        with _told_by(self._client, self._core, request):
            answer = await self._pool.handle_async_request(self._asked(request))
        return self._answered(answer, self._body(self, answer.stream, request))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


class Body:
    """The bytes of an answer; their errors are the client's."""

    def __init__(self, transport: Transport, stream: Any, request: Any) -> None:
        self._transport = transport
        self._stream = stream
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        with _told_by(self._transport._client, self._transport._core, self._request):
            yield from self._stream

    def close(self) -> None:
        """Give the connection back, or up."""
        self._stream.close()


class AsyncBody:
    """The bytes of an answer; their errors are the client's."""

    def __init__(self, transport: AsyncTransport, stream: Any, request: Any) -> None:
        self._transport = transport
        self._stream = stream
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _told_by(self._transport._client, self._transport._core, self._request):
            async for data in self._stream:
                yield data

    async def aclose(self) -> None:
        """Give the connection back, or up."""
        await self._stream.aclose()


@contextmanager
def _told_by(client: ModuleType, core: ModuleType, request: Any) -> Iterator[None]:
    """Raise a client's error, which has the same name, for one of the pool's; its cause is the first there was."""
    kinds = (core.TimeoutException, core.NetworkError, core.ProtocolError, core.UnsupportedProtocol)
    try:
        yield
    except kinds as error:
        first = error.__cause__ or error.__context__ or error  # a pool takes the cause away from what it raises on
        raise getattr(client, type(error).__name__)(str(error), request=request) from first


@contextmanager
def _told_as(core: ModuleType, late: str, broken: str) -> Iterator[None]:
    """Raise a pool's error for one of ours, of sockets or of anyio."""
    try:
        yield
    except TimeoutError as error:
        raise getattr(core, late)(str(error)) from error
    except _BROKEN as error:
        raise getattr(core, broken)(str(error)) from error


def _only_tcp(path: str) -> NoReturn:
    raise UsageError(f"{path}: a Unix socket is not to be reached through a proxy")


class _Backend:
    """See httpcore's NetworkBackend."""

    def __init__(self, core: ModuleType, hops: tuple[Hop, ...]) -> None:
        self._core = core
        self._hops = hops

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[tuple[Any, ...]] | None = None,
    ) -> "_Stream":
        if local_address is not None:
            raise UsageError("local_address: the connection to a proxy comes from where the kernel says")
        with _told_as(self._core, "ConnectTimeout", "ConnectError"):
            sock = create_connection((host, port), timeout, proxy=self._hops)
            try:
                _prepare(sock, socket_options)
            except BaseException:
                sock.close()
                raise
        return _Stream(self._core, sock)

    def connect_unix_socket(self, path: str, *_: Any, **__: Any) -> NoReturn:
        _only_tcp(path)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class _Stream:
    """See httpcore's NetworkStream."""

    def __init__(self, core: ModuleType, sock: socket.socket) -> None:
        self._core = core
        self._sock = sock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _told_as(self._core, "ReadTimeout", "ReadError"):
            self._sock.settimeout(timeout)
            return self._sock.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _told_as(self._core, "WriteTimeout", "WriteError"):
            self._sock.settimeout(timeout)
            rest = memoryview(buffer)
            while rest:  # the limit is for each step, as httpcore has it; that of sendall is for all of them
                rest = rest[self._sock.send(rest) :]

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> "_Stream":
        with _told_as(self._core, "ConnectTimeout", "ConnectError"):
            try:
                self._sock.settimeout(timeout)
                return _Stream(self._core, ssl_context.wrap_socket(self._sock, server_hostname=server_hostname))
            except BaseException:
                self.close()
                raise

    def get_extra_info(self, info: str) -> Any:
        match info:
            case "ssl_object":
                return self._sock if isinstance(self._sock, ssl.SSLSocket) else None
            case "client_addr":
                return self._sock.getsockname()
            case "server_addr":
                return self._sock.getpeername()
            case "socket":
                return self._sock
            case "is_readable":
                return _is_readable(self._sock)
        return None


class _AsyncBackend:
    """See httpcore's AsyncNetworkBackend."""

    def __init__(self, core: ModuleType, hops: tuple[Hop, ...]) -> None:
        self._core = core
        self._hops = hops

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[tuple[Any, ...]] | None = None,
    ) -> "_AsyncStream":
        if local_address is not None:
            raise UsageError("local_address: the connection to a proxy comes from where the kernel says")
        with _told_as(self._core, "ConnectTimeout", "ConnectError"):
            stream = await connect_tcp(host, port, proxy=self._hops, timeout=timeout)
            try:
                _prepare(stream.extra(SocketAttribute.raw_socket), socket_options)
            except BaseException:
                await anyio.aclose_forcefully(stream)
                raise
        return _AsyncStream(self._core, stream)

    async def connect_unix_socket(self, path: str, *_: Any, **__: Any) -> NoReturn:
        _only_tcp(path)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class _AsyncStream:
    """See httpcore's AsyncNetworkStream."""

    def __init__(self, core: ModuleType, stream: ByteStream) -> None:
        self._core = core
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _told_as(self._core, "ReadTimeout", "ReadError"), anyio.fail_after(timeout):
            try:
                return await self._stream.receive(max_bytes)
            except anyio.EndOfStream:
                return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _told_as(self._core, "WriteTimeout", "WriteError"), anyio.fail_after(timeout):
            if buffer:
                await self._stream.send(buffer)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> "_AsyncStream":
        with _told_as(self._core, "ConnectTimeout", "ConnectError"), anyio.fail_after(timeout):
            try:
                stream = await TLSStream.wrap(
                    self._stream,
                    ssl_context=ssl_context,
                    hostname=server_hostname,
                    standard_compatible=False,
                    server_side=False,
                )
            except BaseException:
                await anyio.aclose_forcefully(self._stream)
                raise
        return _AsyncStream(self._core, stream)

    def get_extra_info(self, info: str) -> Any:
        match info:
            case "ssl_object":
                return self._stream.extra(TLSAttribute.ssl_object, None)
            case "client_addr":
                return self._stream.extra(SocketAttribute.local_address, None)
            case "server_addr":
                return self._stream.extra(SocketAttribute.remote_address, None)
            case "socket":
                return self._stream.extra(SocketAttribute.raw_socket, None)
            case "is_readable":
                return _is_readable(self._stream.extra(SocketAttribute.raw_socket))
        return None


def _prepare(sock: socket.socket, options: Iterable[tuple[Any, ...]] | None) -> None:
    for option in ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *(options or ())):
        sock.setsockopt(*option)


def _is_readable(sock: socket.socket) -> bool:
    """Tell whether a connection that is idle has ended, or has something that nobody asked for."""
    if sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
