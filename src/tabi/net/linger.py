"""Closing in order: the last bytes reach the peer, although it may still be sending.

close() with unread bytes in the receive queue sends a reset, which makes the peer's kernel throw away a reply that it
has not read yet. So: send, shut down our direction, read and discard until the peer closes, at most for `PATIENCE`
seconds (RFC 1928 section 6: within ten seconds after a failure reply) and `MOST` bytes, then close.
"""

import asyncio
import socket
from collections.abc import Callable

__all__ = ["MOST", "PATIENCE", "Lingerer", "reset", "turn_away"]

PATIENCE = 5.0
MOST = 1 << 20
_CHUNK = 65_536
_LINGER_ZERO = b"\x01\0\0\0\0\0\0\0"  # struct linger {on, 0 seconds}: close() resets


def reset(sock: socket.socket) -> None:
    """Close so that the peer gets a reset: it must not take a cut for an end."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    finally:
        sock.close()


def turn_away(sock: socket.socket) -> None:
    """Close at once so that the peer reads an end, not an error, whatever it has sent already.

    close() with unread bytes resets; the end of stream that is sent before stays what the peer reads first.
    """
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:  # it has gone already
        pass
    sock.close()


class Lingerer:
    """Sockets that are being closed in order. Call from the event loop only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: dict[socket.socket, tuple[asyncio.TimerHandle, Callable[[], None]]] = {}
        self._read: dict[socket.socket, int] = {}

    def __len__(self) -> int:
        """Sockets not closed yet."""
        return len(self._open)

    def close(self, sock: socket.socket, last: bytes = b"", *, then: Callable[[], None]) -> None:
        """Send `last`, close `sock` in order, and call `then` once it is closed. `sock` must be non-blocking."""
        try:
            if last and sock.send(last) < len(last):
                raise BlockingIOError
            sock.shutdown(socket.SHUT_WR)
        except OSError:  # the peer has gone, or reads nothing: there is nobody left to be polite to
            sock.close()
            then()
            return
        self._open[sock] = (self._loop.call_later(PATIENCE, self._finish, sock), then)
        self._read[sock] = 0
        self._loop.add_reader(sock.fileno(), self._discard, sock)
        self._discard(sock)

    def close_all(self) -> None:
        """Close what is left, at shutdown."""
        for sock in tuple(self._open):
            self._finish(sock)

    def _discard(self, sock: socket.socket) -> None:
        try:
            size = len(sock.recv(_CHUNK))
        except BlockingIOError:
            return
        except OSError:
            size = 0
        self._read[sock] += size
        if size == 0 or self._read[sock] > MOST:
            self._finish(sock)

    def _finish(self, sock: socket.socket) -> None:
        timer, then = self._open.pop(sock)
        del self._read[sock]
        timer.cancel()
        self._loop.remove_reader(sock.fileno())
        sock.close()
        then()
