"""Standard input and output at the one end, a connected socket at the other."""

import errno
import os
import socket
import threading
from typing import Final

__all__ = ["Shuttle"]

_PIECE: Final = 1 << 16


class Shuttle:
    """Carry bytes both ways until both directions have ended, each in its own time.

    The end of the input is passed on as the end of our direction, and the target's as the end of the output; whoever
    still has something to say goes on. A terminal does not end by itself, so there the target's end is enough.

    Args:
        sock: connected and blocking; stays the caller's.
        source: descriptor to read from.
        sink: descriptor to write to; it is closed when the target has ended.
    """

    def __init__(self, sock: socket.socket, source: int = 0, sink: int = 1) -> None:
        self._sock = sock
        self._source = source
        self._sink = sink
        self._failure: OSError | None = None

    def run(self) -> None:
        """Carry, and return when it is done.

        Raises:
            BrokenPipeError: nobody reads the output any more.
            OSError: the connection was reset, or reading or writing failed.
        """
        # One thread for each direction: the descriptors are shared with others, who do not expect them not to block.
        # A daemon, for a read from a terminal cannot be called off.
        upwards = threading.Thread(target=self._carry_up, name="standard input", daemon=True)
        upwards.start()
        while data := self._sock.recv(_PIECE):
            _write_all(self._sink, data)
        is_terminal = os.isatty(self._source)
        os.close(self._sink)
        if not is_terminal:
            upwards.join()
        if self._failure is not None:
            raise self._failure

    def _carry_up(self) -> None:
        try:
            while data := os.read(self._source, _PIECE):
                self._send(data)
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:  # `run` raises it, once the target has ended
            self._failure = error

    def _send(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except BrokenPipeError:  # not the output's, which means something else
            raise ConnectionAbortedError(errno.ECONNABORTED, "the target has closed and takes nothing more") from None


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
