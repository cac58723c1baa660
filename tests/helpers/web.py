"""A web site on loopback: a page, a big file, uploads answered by their checksum, connections kept alive."""

import hashlib
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from helpers.waiting import PATIENCE

__all__ = ["PAGE", "Site", "noise", "sha256", "site"]

PAGE = b"hello through tabi\n"


@cache
def noise(size: int) -> bytes:
    """Give bytes that no compression, no pattern and no repeated buffer can fake."""
    return random.Random(size).randbytes(size)


def sha256(data: bytes) -> str:
    """Checksum as hexadecimal text."""
    return hashlib.sha256(data).hexdigest()


class Site(ThreadingHTTPServer):
    """The server; it counts connections."""

    request_queue_size = 512  # more than one client opens at once: a dropped SYN costs a second

    def __init__(self, address: tuple[str, int], directory: Path | None) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.connections = 0
        self.directory = directory
        super().__init__(address, partial(_Handler, directory=directory))

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def url(self, path: str = "/", host: str = "") -> str:
        """Give the address of a page, under another name for the host if need be."""
        own = str(self.server_address[0])
        return f"http://{host or (f'[{own}]' if ':' in own else own)}:{self.port}{path}"


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    server: Site

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        path, _, size = self.path.strip("/").partition("/")
        if path == "noise":
            self._answer(noise(int(size)))
        elif self.server.directory is not None:
            super().do_GET()
        else:
            self._answer(PAGE)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(sha256(body).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def site(host: str = "127.0.0.1", directory: Path | None = None) -> Iterator[Site]:
    """Run a web site: every path is `PAGE`, or the files of `directory`; /noise/SIZE is a big file."""
    with Site((host, 0), directory) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(PATIENCE)
