"""Messages between processes of one tabi: whole objects, and descriptors with them.

A SEQPACKET pair keeps packets apart; a message is as many of them as it takes. No descriptor is needed to send or
receive one, so a process that has run out of them still hears and answers. Objects are pickled: both ends are our own
program, started by us, and nobody else holds the sockets.
"""

import asyncio
import os
import pickle
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from tabi.net.tasks import spawn

__all__ = ["MOST_POSTED", "Channel", "ClosedError", "Message"]

MOST_POSTED = 10_000  # messages that wait for an end that hangs
_PACKET = 32_768  # a packet of this size fits into the default buffer of a Unix socket with room for others
_MOST_FDS = 250  # SCM_MAX_FD of the kernel is 253
_FIRST, _LAST = 1, 2  # what a packet is of its message, in its first byte


class ClosedError(ConnectionError):
    """The other process has closed its end, or died."""


class Message(NamedTuple):
    """What came.

    Args:
        value: an object.
        fds: descriptors that are now ours.
        lost: there were descriptors, and this process could not have all of them; it has none.
    """

    value: Any  # whatever the other end sent; both ends are the same program
    fds: list[int]
    lost: bool = False


class Channel:
    """One end. Send from as many tasks as you like, receive in one."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._sending = asyncio.Lock()
        self._posted: deque[object] = deque(maxlen=MOST_POSTED)
        self._posting: asyncio.Task[None] | None = None
        self._pieces: list[bytes] = []  # of the message that is coming

    @classmethod
    def pair(cls) -> tuple[Self, socket.socket]:
        """Make a channel and the socket of its other end, which a child process inherits."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    async def send(self, value: object, fds: Sequence[int] = ()) -> None:
        """Send an object, with duplicates of `fds`, which stay the caller's.

        Raises:
            ClosedError: nobody is there any more.
        """
        data = memoryview(pickle.dumps(value))
        pieces = [data[at : at + _PACKET] for at in range(0, len(data), _PACKET)]
        async with self._sending:
            for piece in pieces:
                kind = (piece is pieces[0]) * _FIRST | (piece is pieces[-1]) * _LAST
                await self._send((bytes((kind,)), piece), fds if kind & _LAST else ())

    def post(self, value: object) -> None:
        """Send an object when there is room; nobody hears whether it came.

        An end that takes nothing misses the oldest of more than `MOST_POSTED`.
        """
        self._posted.append(value)
        if self._posting is None or self._posting.done():
            self._posting = spawn(self._send_posted(), name="posted messages")

    async def _send_posted(self) -> None:
        try:
            while self._posted:
                await self.send(self._posted.popleft())
        except ClosedError:
            self._posted.clear()

    async def receive(self) -> Message:
        """Wait for a message.

        Raises:
            ClosedError: nobody is there any more.
        """
        while True:
            try:
                data, fds, flags, _ = socket.recv_fds(self._sock, _PACKET + 1, _MOST_FDS)
            except BlockingIOError:
                await self._ready(self._sock.fileno(), writing=False)
                continue
            except OSError as error:
                raise ClosedError(f"the other process is gone: {error}") from None
            if not data:
                raise ClosedError("the other process is gone")
            if (message := self._add(data, fds, lost=bool(flags & socket.MSG_CTRUNC))) is not None:
                return message

    def _add(self, packet: bytes, fds: list[int], *, lost: bool) -> Message | None:
        """Take a packet in, and give the message that it makes whole."""
        if packet[0] & _FIRST:
            self._pieces = []  # a sender that was cancelled has left the one before unfinished
        self._pieces.append(packet[1:])
        if not packet[0] & _LAST:
            return None
        pieces, self._pieces = self._pieces, []
        if lost:
            while fds:
                os.close(fds.pop())
        return Message(pickle.loads(b"".join(pieces)), fds, lost)

    def hang_up(self) -> None:
        """Hear no more: what has come is still received, and then whoever receives gets `ClosedError`."""
        self._sock.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Close this end."""
        if self._posting is not None:
            self._posting.cancel()
        self._sock.close()

    async def _send(self, packet: Sequence[bytes | memoryview], fds: Sequence[int]) -> None:
        while True:
            try:
                socket.send_fds(self._sock, packet, fds)
            except BlockingIOError:
                await self._ready(self._sock.fileno(), writing=True)
            except OSError as error:
                raise ClosedError(f"the other process is gone: {error}") from None
            else:
                return

    @staticmethod
    async def _ready(fd: int, *, writing: bool) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
        add(fd, ready.set)
        try:
            await ready.wait()
        finally:
            remove(fd)
