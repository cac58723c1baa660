"""The library's two fronts under one set of calls, so that one scenario tests both."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Coroutine
from typing import Any, Protocol

from helpers.waiting import PATIENCE
from tabi import aio, sync

__all__ = ["FRONTS", "Aio", "Front", "Stream", "Sync"]


class Stream(Protocol):
    """A connection."""

    def send(self, data: bytes) -> None: ...
    def end(self) -> None:
        """Close our direction."""

    def read(self, size: int) -> bytes:
        """Read exactly so many bytes, fewer only at the end."""

    def read_all(self) -> bytes: ...
    def close(self) -> None: ...


class Front(Protocol):
    """Sync or Aio."""

    def connect(self, address: Any, **options: Any) -> Stream: ...
    def bind(self, peer: Any = None, **options: Any) -> Any:
        """Give something with `address`, `accept` (a Stream and an address) and `close`."""

    def associate(self, **options: Any) -> Any:
        """Give something with `sendto`, `recvfrom(seconds)`, `relay` and `close`."""

    def resolve(self, host: str, **options: Any) -> str: ...
    def close(self) -> None: ...


class Sync:
    """`tabi.sync`."""

    def connect(self, address: Any, ssl: ssl.SSLContext | None = None, **options: Any) -> Stream:
        sock = sync.create_connection(address, **options)
        sock.settimeout(PATIENCE)
        if ssl is not None:
            sock = ssl.wrap_socket(sock, server_hostname=address[0])
        return _SyncStream(sock)

    def bind(self, peer: Any = None, **options: Any) -> Any:
        return _SyncListener(sync.bind(peer, **options))

    def associate(self, **options: Any) -> Any:
        return _SyncDatagrams(sync.associate(**options))

    def resolve(self, host: str, **options: Any) -> str:
        return sync.resolve(host, **options)

    def close(self) -> None:
        """Nothing stays."""


class _SyncStream:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := self.sock.recv(size - len(data))):
            data += more
        return data

    def read_all(self) -> bytes:
        return self.read(1 << 30)

    def close(self) -> None:
        self.sock.close()


class _SyncListener:
    def __init__(self, listener: sync.Listener) -> None:
        self._listener = listener
        self.address = listener.address
        self.close = listener.close

    def accept(self, timeout: float | None = None) -> tuple[Stream, tuple[str, int]]:
        sock, peer = self._listener.accept(timeout)
        return _SyncStream(sock), peer


class _SyncDatagrams:
    def __init__(self, datagrams: sync.DatagramSocket) -> None:
        self._datagrams = datagrams
        self.relay = datagrams.relay
        self.sendto = datagrams.sendto
        self.getsockname = datagrams.getsockname
        self.close = datagrams.close

    def recvfrom(self, seconds: float = PATIENCE) -> tuple[bytes, tuple[str, int]]:
        self._datagrams.settimeout(seconds)
        return self._datagrams.recvfrom()


class Aio:
    """`tabi.aio`, on a loop in a thread of its own; what the loop is told of fails the test."""

    def __init__(self) -> None:
        self._told: list[dict[str, Any]] = []
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _loop, context: self._told.append(context))
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop of a test")
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any], patience: float = PATIENCE) -> Any:
        """Run a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, patience), self._loop).result()

    def connect(self, address: Any, **options: Any) -> Stream:
        return _AioStream(self, *self.run(aio.open_connection(*address, **options)))

    def bind(self, peer: Any = None, **options: Any) -> Any:
        return _AioListener(self, self.run(aio.bind(peer, **options)))

    def associate(self, **options: Any) -> Any:
        return _AioDatagrams(self, self.run(aio.associate(**options)))

    def resolve(self, host: str, **options: Any) -> str:
        return str(self.run(aio.resolve(host, **options)))

    def close(self) -> None:
        """End the loop and its threads."""
        self.run(self._tidy())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()
        assert self._told == []

    async def _tidy(self) -> None:
        await asyncio.sleep(0)  # transports that were closed let go of their sockets in the turn after
        await self._loop.shutdown_default_executor()


class _AioStream:
    def __init__(self, front: Aio, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._front = front
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        async def send() -> None:
            self.writer.write(data)
            await self.writer.drain()

        self._front.run(send())

    def end(self) -> None:
        async def end() -> None:
            self.writer.write_eof()

        self._front.run(end())

    def read(self, size: int) -> bytes:
        async def read() -> bytes:
            try:
                return await self.reader.readexactly(size)
            except asyncio.IncompleteReadError as error:
                return error.partial

        return self._front.run(read())

    def read_all(self) -> bytes:
        return self._front.run(self.reader.read())

    def close(self) -> None:
        async def close() -> None:
            self.writer.close()
            try:
                await self.writer.wait_closed()
            except OSError:  # the other end was faster
                pass

        self._front.run(close())


class _AioListener:
    def __init__(self, front: Aio, listener: aio.Listener) -> None:
        self._front = front
        self._listener = listener
        self.address = listener.address
        self.close = listener.close

    def accept(self, timeout: float | None = None) -> tuple[Stream, tuple[str, int]]:
        streams, peer = self._front.run(self._listener.accept(timeout))
        return _AioStream(self._front, *streams), peer


class _AioDatagrams:
    def __init__(self, front: Aio, datagrams: aio.DatagramSocket) -> None:
        self._front = front
        self._datagrams = datagrams
        self.relay = datagrams.relay
        self.getsockname = datagrams.getsockname

    def sendto(self, data: bytes, address: Any) -> int:
        return self._front.run(self._datagrams.sendto(data, address))

    def recvfrom(self, seconds: float = PATIENCE) -> tuple[bytes, tuple[str, int]]:
        return self._front.run(self._datagrams.recvfrom(), seconds)

    def close(self) -> None:
        async def close() -> None:
            self._datagrams.close()

        self._front.run(close())


FRONTS: dict[str, type[Sync] | type[Aio]] = {"sync": Sync, "aio": Aio}
