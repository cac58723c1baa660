"""Ten thousand connects by the library, both fronts, in every way that they end, and nothing of them is left."""

import asyncio
import gc
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import pytest

import tabi.aio
import tabi.sync
from helpers.serving import Running, serving
from helpers.waiting import PATIENCE, until
from tabi.config.settings import TimeLimits
from tabi.errors import DialError, ProxyUnreachableError, RefusedError

pytestmark = pytest.mark.soak

CONNECTS = 10_000
WARM_UP = 10  # part of it that goes first
AT_ONCE = 16
BLOCKS = 2_500  # a thing per connect that is not let go would be 10,000 at least


class Way(NamedTuple):
    """A connect, and how it has to end: echoed, or by this error."""

    proxy: tuple[str, ...]
    target: tuple[str, int]
    error: type[DialError] | None


def end_of(error: OSError, way: Way) -> str:
    """Name the end of a connect that has failed; another error than was meant is the test's failure."""
    if way.error is None or not isinstance(error, way.error):
        raise AssertionError(f"{way}: {error!r}") from error
    return way.error.__name__


def connect_blocking(way: Way) -> str:
    try:
        with tabi.sync.create_connection(way.target, PATIENCE, proxy=way.proxy) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            return "echoed"
    except OSError as error:
        return end_of(error, way)


async def connect_on_a_loop(way: Way) -> str:
    try:
        reader, writer = await tabi.aio.open_connection(*way.target, proxy=way.proxy, timeout=PATIENCE)
    except OSError as error:
        return end_of(error, way)
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    writer.close()
    await writer.wait_closed()
    return "echoed"


def all_blocking(ways: list[Way]) -> Counter[str]:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return Counter(threads.map(connect_blocking, ways))


async def all_on_a_loop(ways: list[Way]) -> Counter[str]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(way: Way) -> str:
        async with places:
            return await connect_on_a_loop(way)

    ended = Counter(await asyncio.gather(*(one(way) for way in ways)))
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return ended


def drive(ways: list[Way], connects: int) -> None:
    """Go all ways in turn, half of the connects by each front."""
    turns = [ways[number % len(ways)] for number in range(connects // 2)]
    meant = Counter("echoed" if way.error is None else way.error.__name__ for way in turns)
    assert all_blocking(turns) == meant
    assert asyncio.run(all_on_a_loop(turns)) == meant


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


@contextmanager
def target(server: Running) -> Iterator[tuple[str, int]]:
    """Echo, on the loop of a server: a thread for each of 10,000 would be what is left."""

    async def start() -> asyncio.Server:
        return await asyncio.start_server(echo, "127.0.0.1", 0, backlog=4 * AT_ONCE)

    listening = server.call(start())
    yield listening.sockets[0].getsockname()[:2]
    server.call_sync(listening.close)


def left(server: Running) -> tuple[int, frozenset[threading.Thread]]:
    """Count this process' descriptors, and list its threads, once the server is idle and its log forgotten."""
    server.idle()
    server.raw.clear()
    server.lines.clear()
    gc.collect()
    return len(os.listdir("/proc/self/fd")), frozenset(threading.enumerate())


def test_after_10_000_connects_nothing_is_left() -> None:
    # Soon over, for the engine remembers the numbers of flows that it wanted to look at until their time has come.
    with serving(time=TimeLimits(half_open=1.0)) as server, target(server) as there, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen: whoever connects is refused
        nobody = bound.getsockname()[1]
        host, port = server.address
        for_nobody = (f"socks5h://127.0.0.1:{nobody}",)
        ways = [
            Way((f"socks5h://{host}:{port}",), there, None),
            Way((f"socks4://{host}:{port}",), there, None),
            Way((f"socks5h://{host}:{port}", f"socks4://{host}:{port}"), there, None),
            Way((f"socks5://{host}:{port}",), ("127.0.0.1", nobody), RefusedError),
            Way(for_nobody, there, ProxyUnreachableError),
        ]
        drive(ways, CONNECTS // WARM_UP)
        before, blocks = left(server), sys.getallocatedblocks()
        drive(ways, CONNECTS - CONNECTS // WARM_UP)
        until(lambda: left(server) == before, lambda: f"{left(server)} to be {before} again")
        until(lambda: left(server) == before and sys.getallocatedblocks() - blocks < BLOCKS, "memory to be given back")
