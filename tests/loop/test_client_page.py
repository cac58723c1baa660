"""The Python of the client library's pages, run against a server: as it is written, but for ports and addresses."""

import asyncio
import contextlib
import io
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from helpers.name_service import NameService
from helpers.pages import ROOT, blocks
from helpers.serving import Running, allow_all, serving
from helpers.targets import closed_port, datagram_echo, target
from helpers.waiting import PATIENCE, until
from helpers.web import PAGE as BODY
from helpers.web import Site
from tabi import compat

PAGE = ROOT / "docs" / "howto" / "client-library.md"
README = ROOT / "README.md"
STATUS = "HTTP/1.1 200 OK\r\n"


class Reader:
    """Runs what a page shows: the proxy and the site are where the test has them."""

    def __init__(self, running: Running, port: int) -> None:
        self._replaced = {"127.0.0.1:1080": str(running.addresses[0]), '"example.org", 80': f'"example.org", {port}'}
        self.names: dict[str, Any] = {}

    def run(self, text: str) -> str:
        """Run a block and give what it prints."""
        for shown, here in self._replaced.items():
            text = text.replace(shown, here)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(text, "page", "exec"), self.names)
        return printed.getvalue()


@pytest.fixture
def reader() -> Iterator[Reader]:
    """Serve what the pages speak of."""
    with serving(policy=allow_all) as running, Site(("127.0.0.1", 0), None) as site:
        NameService({"example.org": ["127.0.0.1"]}).serve(running)
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        try:
            yield Reader(running, site.port)
        finally:
            site.shutdown()
            thread.join(PATIENCE)


def python(page: Any) -> list[str]:
    return [block.text for block in blocks(page) if block.language == "python"]


def test_six_lines_of_the_readme_work_as_shown(reader: Reader) -> None:
    (text,) = [text for text in python(README) if "tabi.sync" in text]
    assert len(text.splitlines()) == 6
    said = reader.run(text)
    assert said.startswith(STATUS)
    assert said.endswith(BODY.decode())


@pytest.fixture
def page(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run every block of the page in its order; gives the names that they define."""
    for name in ("http_proxy", "no_proxy", "NO_PROXY", "SOCKS5_SERVER", "SOCKS4_SERVER", "SOCKS_SERVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("all_proxy", "socks5h://one.example")
    monkeypatch.setitem(sys.modules, "socks", None)  # to be restored
    assert [reader.run(text) for text in python(PAGE)] == [f"{STATUS.encode()}\n"] * 2 + [""] * 7
    assert sys.modules["socks"] is compat
    return reader.names


def test_every_block_of_the_page_runs(page: dict[str, Any]) -> None:
    assert [str(hop) for hop in page["proxy"]] == ["socks5h://one.example:1080"]
    assert asyncio.iscoroutinefunction(page["first_line_too"])


def test_reasons_are_told_as_on_the_page(page: dict[str, Any], reader: Reader) -> None:
    proxy = reader.run('print("socks5h://127.0.0.1:1080")').strip()
    nobody = f"socks5h://127.0.0.1:{closed_port()}"
    assert page["say_why"]("127.0.0.1", closed_port(), proxy).startswith("the target says no: proxy socks5h://")
    assert page["say_why"]("127.0.0.1", 9, nobody).startswith("the proxy is down: ")
    assert page["say_why"]("nobody.example", 80, proxy).startswith("the target cannot be reached (reply 4): ")


def test_a_peer_is_received_as_on_the_page(page: dict[str, Any]) -> None:
    import socket

    told: list[tuple[str, int]] = []
    received: list[tuple[tuple[str, int], bytes]] = []
    waiting = threading.Thread(target=lambda: received.append(page["receive"]("127.0.0.1", told.append)))
    waiting.start()
    until(lambda: told, "the listener's address")
    with socket.create_connection(told[0], PATIENCE) as peer:
        peer.sendall(b"a file")
        address = peer.getsockname()
    waiting.join(PATIENCE)
    assert received == [(address, b"a file")]


def test_a_file_is_fetched_as_on_the_page(
    page: dict[str, Any], reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a server that connects back to where it is told to."""
    import socket

    def serve(control: socket.socket) -> None:
        host, port = control.makefile("r").readline().split()
        with socket.create_connection((host, int(port)), PATIENCE) as data:
            data.sendall(b"a file")

    monkeypatch.delenv("all_proxy")
    monkeypatch.setenv("SOCKS_SERVER", reader.run('print("127.0.0.1:1080")').strip())

    def ask(control: socket.socket, where: tuple[str, int]) -> None:
        control.sendall(f"{where[0]} {where[1]}\n".encode())

    with target(serve) as server:
        assert page["fetch"](server, ask) == b"a file"


def test_a_datagram_is_answered_as_on_the_page(page: dict[str, Any]) -> None:
    with datagram_echo() as echo:
        assert page["ask"](b"ping", echo) == (b"ping", echo)
