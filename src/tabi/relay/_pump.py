"""Moving bytes from one socket to another: by copying, or by splice once a stream proves bulky.

Knows sides and pipes, no flows, no time and no ends: it moves what can be moved now, notes what it saw on the
sides (`eof`, `err`) and says how far it came.

Why it may stop where it stops: with edge-triggered epoll a side that was not read until the kernel said
"empty" gets no new event. So a pump ends at EAGAIN, or after a read that filled less than the buffer, which
says the same unless an urgent byte is about (reads stop in front of it) or a FIN came with the data (there is
no edge of its own for it then). The event's bits tell; where there is no event the caller must say
`sure=False`.
"""

import os
import sys
from enum import Enum
from socket import MSG_NOSIGNAL
from typing import Final

from tabi.relay._congestion import settle
from tabi.relay._flow import Side
from tabi.relay._pipes import PIPE_SIZE, PipePool

__all__ = ["READ_SIZE", "SPLICE_AFTER", "Pump", "Pumped"]

# One buffer for all flows. 32 and 64 KiB cost up to 1.6 times the CPU per byte, 256 KiB gains nothing.
READ_SIZE: Final = 128 * 1024

# A read of this size counts towards a bulk stream; a splice that brings less than _SMALL counts against.
_LARGE: Final = READ_SIZE // 2
_SMALL: Final = 16 * 1024

# Large reads in a row before splice is used: a single one may be a request with a body; it does not pay there.
SPLICE_AFTER: Final = 2
_BULKIEST: Final = 8  # so many small splices in a row end it again

# Reads per turn: other flows wait for at most so many.
_ROUNDS: Final = 8

# os.SPLICE_F_NONBLOCK is missing from the stubs of Python 3.11. It is about the pipe; the sockets are
# non-blocking.
_NONBLOCK: Final = 2


_ALL: Final = sys.maxsize


class Pumped(Enum):
    """How far a pump came."""

    WAITS = 0  # for an event on one of the two sides, or one of them is broken
    MORE = 1  # the turn is over, there may be more: come back
    ENDED = 2  # the source has ended and all that it sent is with the sink's kernel


class Pump:
    """Moves bytes for the flows of one thread."""

    __slots__ = ("_buffer", "_pipes", "_splice_after", "_steady", "_view")

    def __init__(self, pipes: PipePool, splice_after: int, steady: bytes = b"") -> None:
        self._pipes = pipes
        self._steady = steady  # the congestion control of bulk streams on near legs; empty: leave what there is
        self._splice_after = splice_after
        self._buffer = bytearray(READ_SIZE)
        self._view = memoryview(self._buffer)

    def run(self, source: Side, sink: Side, *, sure: bool) -> Pumped:
        """Move what can be moved from source to sink.

        Args:
            source: read from, unless bytes wait for the sink.
            sink: written to.
            sure: a short read means that the source is empty.
        """
        pumped = self._turn(source, sink, sure)
        if source.pipe is not None and not source.in_pipe:
            self._pipes.give(source.pipe)
            source.pipe = None
        return pumped

    def run_within(self, source: Side, sink: Side, most: int) -> Pumped:
        """Do the same, but let the sink take `most` bytes at most: MORE also when it has."""
        pumped = self._turn_within(source, sink, sink.taken + most)
        if source.pipe is not None and not source.in_pipe:
            self._pipes.give(source.pipe)
            source.pipe = None
        return pumped

    def discard(self, source: Side) -> bool:
        """Read what there is and throw it away; say whether there may be more."""
        assert source.sock is not None
        try:
            for _ in range(_ROUNDS):
                if not source.sock.recv_into(self._buffer):
                    return False
        except BlockingIOError:
            return False
        except OSError as error:
            source.fail(error)
            return False
        return True

    def drop(self, source: Side) -> None:
        """Give up what is in the pipe of a side."""
        if source.pipe is not None:
            self._pipes.discard(source.pipe)
            source.pipe = None
            source.in_pipe = 0

    def _turn(self, source: Side, sink: Side, sure: bool) -> Pumped:
        for _ in range(_ROUNDS):
            if (sink.out is not None or source.in_pipe) and not self._deliver(source, sink, _ALL):
                return Pumped.WAITS
            if source.eof:
                return Pumped.ENDED
            if source.big >= self._splice_after and self._has_pipe(source, sink):
                if self._splice(source, PIPE_SIZE):
                    continue
                sure = False  # splice says 0 and EAGAIN at an urgent byte as well: the read below decides
            count = self._copy(source, sink, READ_SIZE)
            if count < 0 or sink.err:
                return Pumped.WAITS
            if sure and 0 < count < READ_SIZE and sink.out is None:
                return Pumped.WAITS
        return Pumped.MORE

    def _turn_within(self, source: Side, sink: Side, end: int) -> Pumped:
        """Move until the sink has taken `end` bytes in all. No more is read than it may take."""
        for _ in range(_ROUNDS):
            if sink.out is not None or source.in_pipe:
                if not self._deliver(source, sink, end):
                    return Pumped.WAITS
                if sink.out is not None or source.in_pipe:
                    return Pumped.MORE
            if source.eof:
                return Pumped.ENDED
            size = min(end - sink.taken, PIPE_SIZE)
            if size <= 0:
                return Pumped.MORE
            if source.big >= self._splice_after and self._has_pipe(source, sink) and self._splice(source, size):
                continue
            if self._copy(source, sink, min(size, READ_SIZE)) < 0 or sink.err:
                return Pumped.WAITS
        return Pumped.MORE

    def _deliver(self, source: Side, sink: Side, end: int) -> bool:
        """Write what waits for the sink until it is gone or `end` is reached (True), or the sink is full or broken.

        A short write is followed by another: only the EAGAIN arms the edge that will call us again.
        """
        assert sink.sock is not None
        try:
            while sink.out is not None and sink.taken < end:
                count = sink.sock.send(sink.out[: end - sink.taken], MSG_NOSIGNAL)
                sink.taken += count
                sink.out = sink.out[count:] if count < len(sink.out) else None
            while source.in_pipe and sink.taken < end:
                assert source.pipe is not None
                count = os.splice(source.pipe[0], sink.fd, min(source.in_pipe, end - sink.taken), flags=_NONBLOCK)
                source.in_pipe -= count
                sink.taken += count
        except BlockingIOError:
            return False
        except OSError as error:
            sink.fail(error)
            return False
        return True

    def _copy(self, source: Side, sink: Side, size: int) -> int:
        """Read up to `size` bytes once and write at once, keep what the sink does not take.

        Return the bytes read, -1: none now.
        """
        assert source.sock is not None
        assert sink.sock is not None
        try:
            count = source.sock.recv_into(self._buffer, size)
        except BlockingIOError:
            return -1
        except OSError as error:  # after all the data that came before it, and once
            source.fail(error)
            source.eof = True
            return 0
        if not count:
            source.eof = True
            return 0
        source.big = min(source.big + 1, _BULKIEST) if count >= _LARGE else source.big >> 1
        try:
            written = sink.sock.send(self._view[:count], MSG_NOSIGNAL)
        except BlockingIOError:
            written = 0
        except OSError as error:
            sink.fail(error)
            return count
        sink.taken += written
        if written < count:
            sink.out = memoryview(bytes(self._view[written:count]))
        return count

    def _has_pipe(self, source: Side, sink: Side) -> bool:
        """Borrow a pipe for a bulk stream, if it may have one, and see to it that its sink has the control of such."""
        if self._steady and not sink.is_settled:
            sink.is_settled = True
            assert sink.sock is not None
            settle(sink.sock, self._steady)
        if source.is_copied:
            source.big = 0
            return False
        if source.pipe is None:
            source.pipe = self._pipes.take()
            if source.pipe is None:
                source.big = 0  # copy; ask again after the next large reads
                return False
        return True

    def _splice(self, source: Side, size: int) -> bool:
        """Put up to `size` bytes into the pipe, which is empty. False: nothing came, a read must find out why."""
        assert source.pipe is not None
        try:
            count = os.splice(source.fd, source.pipe[1], size, flags=_NONBLOCK)
        except BlockingIOError:
            return False
        except OSError as error:
            source.fail(error)
            source.eof = True
            return True
        source.in_pipe = count
        if count >= _LARGE:
            source.big = min(source.big + 1, _BULKIEST)
        elif count < _SMALL and source.big:
            source.big -= 1
        return count > 0
