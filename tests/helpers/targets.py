"""Targets for tests: small servers on loopback whose every part is told what to do."""

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from helpers.waiting import PATIENCE

Handler = Callable[[socket.socket], None]


def echo(sock: socket.socket) -> None:
    """Send back what comes, until the end."""
    while data := sock.recv(65536):
        sock.sendall(data)


def banner(text: bytes) -> Handler:
    """Speak first, then end."""

    def handle(sock: socket.socket) -> None:
        sock.sendall(text)

    return handle


def http(body: bytes = b"hello through tabi\n") -> Handler:
    """Answer one HTTP request."""

    def handle(sock: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            data = sock.recv(65536)
            if not data:
                return
            request += data
        sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    return handle


@contextmanager
def target(handler: Handler = echo, host: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[str, int]]:
    """Run a TCP server whose connections `handler` serves, each in a thread; yields its address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=512)
    threads: list[threading.Thread] = []
    open_sockets: set[socket.socket] = set()

    def serve_one(sock: socket.socket) -> None:
        try:
            with sock:
                sock.settimeout(PATIENCE)
                handler(sock)
        except OSError:  # a test that ends its side is no failure here; the test asserts what it wants
            pass
        finally:
            open_sockets.discard(sock)

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            open_sockets.add(sock)
            thread = threading.Thread(target=serve_one, args=(sock,))
            threads.append(thread)
            thread.start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()[:2]
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept(2), which close() alone does not
        listener.close()
        acceptor.join(PATIENCE)
        for sock in tuple(open_sockets):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:  # already gone
                pass
        for thread in threads:
            thread.join(PATIENCE)


@contextmanager
def same_port(*hosts: str, handler: Handler = echo) -> Iterator[int]:
    """Run targets at several addresses, all on one port, and yield it; who has it at one of them already keeps it.

    Skips the test where this host has not all of the addresses, as without IPv6.
    """
    while True:
        with ExitStack() as stack:
            try:
                _, port = stack.enter_context(target(handler, hosts[0]))
                for host in hosts[1:]:
                    stack.enter_context(target(handler, host, port))
            except OSError as error:
                if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    pytest.skip(f"this host has not all of {', '.join(hosts)}: {error}")
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            yield port
            return


def accept(listener: socket.socket) -> socket.socket:
    """Accept as a target that the test itself plays, every wait bounded."""
    sock, _ = listener.accept()
    sock.settimeout(PATIENCE)
    return sock


def closed_port(host: str = "127.0.0.1") -> int:
    """Give a port on which nothing listens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as sock:
        return int(sock.getsockname()[1])


@contextmanager
def datagram_echo(host: str = "127.0.0.1") -> Iterator[tuple[str, int]]:
    """Run a UDP server that sends each datagram back; yields its address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    over = threading.Event()
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        address = sock.getsockname()[:2]

        def serve() -> None:
            while True:
                data, source = sock.recvfrom(65536)
                if over.is_set():
                    return
                sock.sendto(data, source)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield address
        finally:
            over.set()
            with socket.socket(family, socket.SOCK_DGRAM) as waker:
                waker.sendto(b"", address)
            thread.join(PATIENCE)
