"""Handshakes that a hostile or careless client sends, and what it may hear, typed from the documents."""

import socket

import pytest

from helpers.serving import Running
from helpers.socks import dial, read_all, request4, request5

NO_AUTH = b"\x05\x01\x00"  # RFC 1928 section 3
USERPASS = b"\x05\x01\x02"
FAILED5 = b"\x00\x01\x00\x00\x00\x00\x00\x00"  # RSV, ATYP 1, 0.0.0.0, port 0: what follows VER and REP of a failure
REJECTED4 = b"\x00\x5b" + bytes(6)  # SOCKS4.protocol: VN 0, CD 91
SECRET = b"correct horse"


def failure5(reply: int) -> bytes:
    """A whole SOCKS5 failure reply, RFC 1928 section 6."""
    return bytes((5, reply)) + FAILED5


def login(user: bytes, password: bytes) -> bytes:
    """RFC 1929 section 2."""
    return bytes((1, len(user))) + user + bytes((len(password),)) + password


def converse(running: Running, sends: bytes, *, fin: bool = False) -> bytes:
    """Send, and read until the server closes, which it must do in order: a reset would raise here."""
    with dial(running.address) as sock:
        sock.sendall(sends)
        if fin:
            sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


class NeverReached:
    """A target that must not be connected to."""

    def __enter__(self) -> "NeverReached":
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        with self._listener, pytest.raises(BlockingIOError):
            self._listener.accept()


def handshakes(port: int) -> dict[str, tuple[bytes, int]]:
    """Whole handshakes, and how many bytes the server says before the tunnel."""
    domain = b"localhost"
    return {
        "socks5": (NO_AUTH + request5(1, "127.0.0.1", port), 2 + 10),
        "socks5 name": (NO_AUTH + request5(1, domain, port), 2 + 10),
        "socks4": (request4(1, "127.0.0.1", port, b"me"), 8),
        "socks4a": (request4(1, "0.0.0.1", port, b"me", domain), 8),
    }
