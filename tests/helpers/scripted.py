"""A SOCKS5 proxy that is told what to answer, and when; there is nothing behind it, so any target may be asked for."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

from helpers.socks import LINGER_ZERO

__all__ = ["Asked", "ScriptedProxy", "scripted_proxy"]


class Asked:
    """One request, and the connection that it came by."""

    def __init__(self, host: str, port: int, writer: asyncio.StreamWriter) -> None:
        self.host = host
        self.port = port
        self.is_gone = False
        self._writer = writer
        self._reply: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def reply(self) -> int:
        """Wait for what is to be answered."""
        return await self._reply

    def answer(self, reply: int) -> None:
        """Answer, if it has not been; in the loop."""
        if not self._reply.done():
            self._reply.set_result(reply)

    def abort(self) -> None:
        """Reset the connection; in the loop."""
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        self._writer.transport.abort()


class ScriptedProxy:
    """What was asked, in order; `answer` lets everybody go on who waits, and whoever comes later.

    On success the target that was asked for says who it is, ``ADDRESS PORT``, and then sends back what it hears.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answered = 0
        """When `answer` was called, in nanoseconds of `time.monotonic_ns`."""
        self.port = 0
        self._loop = asyncio.get_running_loop()
        self._reply: int | None = None

    def of(self, port: int) -> list[Asked]:
        """Give the requests for a port."""
        return [asked for asked in self.asked if asked.port == port]

    def answer(self, reply: int) -> None:
        """Answer with this code from now on, from any thread."""
        self._loop.call_soon_threadsafe(self._answer, reply)

    def hold(self) -> None:
        """Let requests wait from now on, from any thread."""
        self._reply = None

    def abort(self) -> None:
        """Reset all connections, from any thread."""
        self._loop.call_soon_threadsafe(lambda: [asked.abort() for asked in self.asked])

    def _answer(self, reply: int) -> None:
        self.answered = time.monotonic_ns()
        self._reply = reply
        for asked in self.asked:
            asked.answer(reply)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection (RFC 1928)."""
        asked = None
        try:
            _, methods = await reader.readexactly(2)
            await reader.readexactly(methods)
            writer.write(b"\x05\x00")
            host, port = await _request(reader)
            asked = Asked(host, port, writer)
            self.asked.append(asked)
            if self._reply is not None:
                asked.answer(self._reply)
            await self._speak(asked, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):  # it has gone; a test asks `is_gone`
            pass
        finally:
            if asked is not None:
                asked.is_gone = True
            writer.close()

    async def _speak(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = asyncio.ensure_future(reader.read(1 << 16))  # an end while the answer is awaited is one as well
        answer = asyncio.ensure_future(asked.reply())
        try:
            await asyncio.wait((end, answer), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                return
            code = answer.result()
            writer.write(bytes((5, code, 0, 1, 0, 0, 0, 0, 0, 0)))
            if code == 0:
                writer.write(f"{asked.host} {asked.port}\n".encode())
                data = await end
                while data:
                    writer.write(data)
                    await writer.drain()
                    data = await reader.read(1 << 16)
        finally:
            end.cancel()
            answer.cancel()
            await asyncio.gather(end, answer, return_exceptions=True)


async def _request(reader: asyncio.StreamReader) -> tuple[str, int]:
    """RFC 1928 section 4."""
    _, command, _, kind = await reader.readexactly(4)
    assert command == 1, command
    if kind == 3:
        host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
    else:
        host = str(ip_address(await reader.readexactly(4 if kind == 1 else 16)))
    return host, int.from_bytes(await reader.readexactly(2), "big")


@asynccontextmanager
async def scripted_proxy() -> AsyncIterator[ScriptedProxy]:
    """Run one on a free port of 127.0.0.1."""
    proxy = ScriptedProxy()
    serving: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(proxy.serve(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=1024)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in tuple(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.wait_closed()
