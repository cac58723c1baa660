"""A proxy for HTTP CONNECT on loopback, for tests of clients; it can ask for a login."""

import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager

from helpers.targets import target
from helpers.waiting import PATIENCE

__all__ = ["connect_proxy"]


@contextmanager
def connect_proxy(login: bytes = b"", host: str = "127.0.0.1") -> Iterator[tuple[str, int]]:
    """Run it; yields its address.

    Args:
        login: ``user:password`` that it wants, if any.
        host: where it listens.
    """
    wanted = b"Proxy-Authorization: Basic " + b64encode(login)

    def serve(inbound: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):  # byte by byte: what follows belongs to the tunnel
            more = inbound.recv(1)
            if not more:
                return
            head += more
        first, *fields = head.split(b"\r\n")
        if login and wanted not in fields:
            inbound.sendall(b"HTTP/1.1 407 Login\r\nProxy-Authenticate: Basic realm=x\r\n\r\n")
            return
        name, _, port = first.split()[1].decode().rpartition(":")
        try:
            outbound = socket.create_connection((name.strip("[]"), int(port)), PATIENCE)
        except ConnectionRefusedError:
            inbound.sendall(b"HTTP/1.1 502 Bad Gateway\r\nProxy-Status: test; error=connection_refused\r\n\r\n")
            return
        with outbound:
            inbound.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=_copy, args=(outbound, inbound))
            back.start()
            _copy(inbound, outbound)
            back.join(PATIENCE)

    with target(serve, host) as address:
        yield address


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:  # either end is gone; the other direction notices by itself
        pass
