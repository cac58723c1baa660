"""The Python of docs/howto/adapters.md, run as it is written but for the proxy's port, against the real libraries."""

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from helpers.name_service import NameService
from helpers.pages import ROOT, blocks
from helpers.serving import Running, serving
from helpers.targets import banner, http, target
from helpers.waiting import PATIENCE

for package in ("aiohttp", "anyio", "httpx", "httpx2", "paramiko", "redis", "requests", "trio", "websockets"):
    pytest.importorskip(package, reason=f"{package} is not installed: make setup")

import trio
from websockets.sync.server import ServerConnection, serve

PAGE = ROOT / "docs" / "howto" / "adapters.md"
BODY = "hello through tabi\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        NameService({"site.example": ["127.0.0.1"]}).serve(running)
        yield running


@pytest.fixture(scope="module")
def page(server: Running) -> dict[str, Any]:
    """Run every block; gives the names that they define."""
    names: dict[str, Any] = {}
    for block in blocks(PAGE):
        if block.language == "python":
            text = block.text.replace("127.0.0.1:1080", str(server.addresses[0]))
            exec(compile(text, str(PAGE), "exec"), names)
    return names


def test_a_page_is_fetched_by_each_http_library(page: dict[str, Any]) -> None:
    with target(http()) as (_, port):
        url = f"http://site.example:{port}/"
        for blocking in ("with_requests", "with_urllib3", "with_httpx"):
            assert page[blocking](url) == BODY
        for asynchronous in ("with_async_httpx", "with_aiohttp"):
            assert asyncio.run(page[asynchronous](url)) == BODY


def test_streams_bring_what_is_said_first(page: dict[str, Any]) -> None:
    with target(banner(b"220 hello")) as (_, port):
        assert trio.run(page["first_bytes_by_trio"], "site.example", port) == b"220 hello"
        assert trio.run(page["first_bytes_by_anyio"], "site.example", port) == b"220 hello"
        assert asyncio.run(page["first_bytes_by_anyio"]("site.example", port)) == b"220 hello"


def test_websockets_ask_and_are_answered(page: dict[str, Any]) -> None:
    def answer(connection: ServerConnection) -> None:
        connection.send(f"{connection.request.headers['Host']}: {connection.recv()}")

    with serve(answer, "127.0.0.1", 0) as peer:
        port = peer.socket.getsockname()[1]
        thread = threading.Thread(target=peer.serve_forever)
        thread.start()
        try:
            said = f"site.example:{port}: ping"
            assert page["ask"]("site.example", port, "ping") == said
            assert asyncio.run(page["ask_too"]("site.example", port, "ping")) == said
        finally:
            peer.shutdown()
            thread.join(PATIENCE)


def speak_redis(sock: socket.socket) -> None:
    """Answer as redis does: HELLO by the protocol's version, INCRBY by a number, what a client says of itself by OK."""
    with sock.makefile("rb") as lines:
        while count := lines.readline():
            words = [lines.read(int(lines.readline()[1:]) + 2)[:-2].upper() for _ in range(int(count[1:]))]
            answers = {b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n", b"INCRBY": b":7\r\n"}
            sock.sendall(answers.get(words[0], b"+OK\r\n"))


def test_a_database_counts(page: dict[str, Any], server: Running) -> None:
    with target(speak_redis) as (_, port):
        assert page["count"]("site.example", port, "visits") == 7
    server.line(target=f"site.example:{port}")


@pytest.mark.parametrize("name", ["urllib3", "requests", "httpx", "httpx2", "aiohttp", "trio", "anyio"])
def test_a_library_that_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # what import makes of it is ModuleNotFoundError
    for module in (f"tabi.adapters.{name}", "anyio.abc"):  # which need no anyio any more once they are there
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ModuleNotFoundError, match=f"pip install {name}$"):
        __import__(f"tabi.adapters.{name}")
