"""Is a proxy right before it is fast? Two transfers that a relay must bring through whole: an answer that comes after
the client has shut down its side, and bytes both ways at once with an end each way. A proxy that loses some of them is
measured all the same, and marked."""

import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench import socks
from bench.axes import Point
from bench.peers import Peer
from bench.runs import Bench

__all__ = ["fault_of"]

_PATIENCE = 20.0  # seconds for a step
_BYTES = 4 << 20
_POINT = Point(name="faithful", label="", mode="")


def fault_of(bench: Bench, peer: Peer) -> str:
    """Say what a proxy does wrong, in a few words; nothing when it does all right.

    Raises:
        ProxyError: it does not start.
    """
    if peer.kind == "limit":
        return ""
    with bench.started(peer, _POINT) as proxy:
        address = (proxy.setup.host, proxy.setup.port)
        for transfer, words in (
            (_late_answer, "loses an answer after a half-close"),
            (_both_ways, "loses bytes at an end"),
        ):
            try:
                if not transfer(address):
                    return words
            except (OSError, EOFError):
                return words
    return ""


def _late_answer(proxy: tuple[str, int]) -> bool:
    """Send, shut down, and only then is answered."""
    sent = os.urandom(_BYTES)

    def serve(sock: socket.socket) -> None:
        sock.sendall(hashlib.sha256(_read_all(sock)).digest())

    with _target(serve) as there, _connect(proxy, there) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        return _read_all(client) == hashlib.sha256(sent).digest()


def _both_ways(proxy: tuple[str, int]) -> bool:
    up, down = os.urandom(_BYTES), os.urandom(_BYTES)
    arrived: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        reader = threading.Thread(target=lambda: arrived.append(_read_all(sock)))
        reader.start()
        sock.sendall(down)
        sock.shutdown(socket.SHUT_WR)
        reader.join()

    with _target(serve) as there, _connect(proxy, there) as client:
        writer = threading.Thread(target=_send_to_the_end, args=(client, up))
        writer.start()
        received = _read_all(client)
        writer.join()
    return received == down and arrived == [up]


def _send_to_the_end(sock: socket.socket, data: bytes) -> None:
    try:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    except OSError:  # cut off: the target misses bytes, and that is what decides
        pass


def _read_all(sock: socket.socket) -> bytes:
    """Read to the end. One that is a reset gives what came before it, which then is too little."""
    parts = []
    try:
        while part := sock.recv(1 << 16):
            parts.append(part)
    except OSError:
        pass
    return b"".join(parts)


@contextmanager
def _target(serve: Callable[[socket.socket], None]) -> Iterator[tuple[str, int]]:
    """Listen for one connection and serve it in a thread; on leaving, wait for that."""

    def work() -> None:
        try:
            sock, _ = listener.accept()
        except OSError:  # nobody came
            return
        with sock:
            sock.settimeout(_PATIENCE)
            try:
                serve(sock)
            except OSError:  # cut off: the client misses bytes
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(_PATIENCE)
        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            thread.join()


def _connect(proxy: tuple[str, int], there: tuple[str, int]) -> socket.socket:
    sock = socket.create_connection(proxy, _PATIENCE)
    try:
        socks.greet(sock)
        socks.connect(sock, there)
    except BaseException:
        sock.close()
        raise
    return sock
