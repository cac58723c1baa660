"""Writing log lines to a descriptor that may be slow, without ever waiting for it.

Lines are gathered during one turn of the event loop and written together. What a full pipe does not take is kept up to
`MOST` bytes; beyond that lines are lost, counted, and the loss is told as soon as there is room. Several processes may
write to one descriptor: a line goes out in one piece, and to what is no file only as much of it as cannot be torn.
"""

import asyncio
import logging
import os
import select
import stat
import time
import weakref
from collections import deque
from collections.abc import Callable

__all__ = ["MOST", "LineHandler", "LineWriter"]

MOST = 4 << 20  # bytes kept for a slow reader: some 15,000 lines
_ATOMIC = select.PIPE_BUF  # a pipe that polls writable takes this much without blocking
_CUT = b" [cut]"
_RETRY = 0.05  # seconds between two tries at a full pipe
_RETRY_BROKEN = 1.0  # seconds, where writing fails
_WHOLE = 1 << 20  # a file takes a batch at once

_logger = logging.getLogger("tabi")


def _tell_loss(count: int) -> str:
    return f"tabi: {count} log lines were lost: nobody read them fast enough"


class LineWriter:
    """Write lines to a descriptor. Call from the event loop only.

    Args:
        fd: stays the caller's.
        loop: the running loop.
        tell_loss: makes the line that says how many were lost.
    """

    def __init__(
        self, fd: int, loop: asyncio.AbstractEventLoop, *, tell_loss: Callable[[int], str] = _tell_loss
    ) -> None:
        self._tell_loss = tell_loss
        self._is_broken = False
        self._fd = _unblocked(self, fd)
        self._loop = loop
        self._at_once = _WHOLE if stat.S_ISREG(os.fstat(fd).st_mode) else _ATOMIC
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._scheduled: asyncio.Handle | None = None

    def write(self, text: str) -> None:
        """Take one line, or several ended by newlines; the last newline is added here."""
        for line in text.split("\n"):
            data = self._bounded(line.encode("utf-8", "backslashreplace")) + b"\n"
            if self._size + len(data) > MOST:
                self._lost += 1
                continue
            self._lines.append(data)
            self._size += len(data)
        if self._scheduled is None:
            self._scheduled = self._loop.call_soon(self._flush)

    def _bounded(self, line: bytes) -> bytes:
        """Cut a line that would have to be written in several pieces."""
        if len(line) < self._at_once:
            return line
        return line[: self._at_once - len(_CUT) - 1].decode("utf-8", "ignore").encode() + _CUT

    def flush(self, patience: float = 1.0) -> None:
        """Write out what is kept, at the end of the program, for `patience` seconds at most."""
        self._write_out(patience)

    def _flush(self) -> None:
        self._scheduled = None
        self._write_out(0.0)
        if self._lines:
            self._scheduled = self._loop.call_later(_RETRY_BROKEN if self._is_broken else _RETRY, self._flush)

    def _write_out(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        while self._lines or self._lost:
            if not self._lines:
                self._lines.append(self._tell_loss(self._lost).encode() + b"\n")
                self._size += len(self._lines[0])
                self._lost = 0
            ready = self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                return
            try:
                self._write_some()
            except (BrokenPipeError, BlockingIOError):
                if ready[0][1] & (select.POLLERR | select.POLLHUP):  # the reader has gone for good
                    self._lines.clear()
                    self._size = 0
                elif time.monotonic() < deadline:  # another process took the room first
                    continue
                return
            except OSError as error:  # a full disk, for instance: the lines are kept, up to MOST, and tried again
                if not self._is_broken:
                    self._is_broken = True
                    _logger.warning("log lines cannot be written: %s; the last ones are kept", error.strerror)
                return
            self._is_broken = False

    def _write_some(self) -> None:
        """Write whole lines, as many as go together: several processes may share the descriptor."""
        chunk = self._lines.popleft()
        while self._lines and len(chunk) + len(self._lines[0]) <= self._at_once:
            chunk += self._lines.popleft()
        written = 0
        try:
            written = os.write(self._fd, chunk[: self._at_once])
        finally:
            self._size -= written
            if rest := chunk[written:]:
                self._lines.appendleft(rest)


def _unblocked(owner: object, fd: int) -> int:
    """Open a pipe once more, non-blocking: of several processes that see it writable the last one would have to wait.

    The flag cannot be set on the descriptor itself, which belongs to whoever started us as well.
    """
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return fd
    try:
        own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # no /proc, or the pipe belongs to another user; or nobody reads it any more
        return fd
    weakref.finalize(owner, os.close, own)
    return own


class LineHandler(logging.Handler):
    """Diagnostics go the same way as session lines, so that neither waits for a slow reader."""

    def __init__(self, writer: LineWriter, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._writer = writer
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        self._loop.call_soon_threadsafe(self._writer.write, f"tabi: {record.levelname.lower()}: {self.format(record)}")
