"""The buffer and the event loop that both halves share.

A machine owns its buffer. Its protocol is written top to bottom as a generator that yields either a number
(bytes that the buffer must hold before it can go on) or an event, and returns the last event. Any cut of the
input therefore gives the same events, and what lies behind the last message of the handshake stays in the
buffer and comes out as `take_early`.

Read from the peer only after `NeedData`: the buffer then holds less than `Machine.longest` bytes and the one read
that was just made, whatever the peer sends.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from tabi.errors import PeerClosedError, Stage, TabiError, UsageError
from tabi.wire.address import Buffer

__all__ = ["MAX_MESSAGE", "Failed", "Machine", "NeedData"]

MAX_MESSAGE = 520
"""Bytes of the longest message: a SOCKS4a request of 8, USERID and domain of 255 each, two NULs. The next
longest are user name and password (RFC 1929, 513 bytes) and a SOCKS5 request with a domain (RFC 1928 section
4, 262)."""


@dataclass(frozen=True, slots=True)
class NeedData:
    """Nothing to tell yet. Read at most `need` more bytes: by this rule a socket is never read too far."""

    need: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The handshake is over. Send what `data_to_send` still holds, then close.

    Args:
        error: whose fault, at which stage, with which reply.
        asked: what the peer had asked for, as far as it was read; escaped, for the log.
    """

    error: TabiError
    asked: str = ""


E = TypeVar("E")  # the events of one half


class Message(Protocol):
    """What `Machine._message` can read: a codec of `tabi.wire`."""

    @staticmethod
    def size(buf: Buffer, /) -> int:
        """Bytes needed, as far as known."""

    @classmethod
    def decode(cls, buf: Buffer) -> Self:
        """Read a whole message."""


M = TypeVar("M", bound=Message)


class Machine(ABC, Generic[E]):
    """Base of both halves; see the module docstring.

    Attributes:
        longest: bytes of the longest message that this machine reads.
    """

    longest = MAX_MESSAGE

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._out = bytearray()
        self._sent_before = 0
        self._need = 0
        self._at_eof = False
        self._over = False
        self._steps = self._run()

    @abstractmethod
    def _run(self) -> Generator[int | E, None, E]:
        """The protocol, top to bottom; a TabiError that it raises becomes `Failed`."""

    @property
    @abstractmethod
    def stage(self) -> Stage:
        """How far the handshake has come."""

    @property
    def is_over(self) -> bool:
        """Whether `next_event` has given the last event of the handshake."""
        return self._over

    def receive_data(self, data: Buffer) -> None:
        """Take bytes from the peer; empty means that it closed its direction. Then call `next_event`."""
        if data:
            self._buffer += data
        else:
            self._at_eof = True

    def data_to_send(self) -> bytes:
        """Take, and clear, what is to be sent to the peer."""
        if self._sent_before:
            skipped = min(self._sent_before, len(self._out))
            self._sent_before -= skipped
            del self._out[:skipped]
        data = bytes(self._out)
        self._out.clear()
        return data

    def skip_sent(self, count: int) -> None:
        """Begin where somebody else has begun: so many bytes of what is to be sent has the peer had already."""
        self._sent_before = count

    def next_event(self) -> E | Failed | NeedData:
        """Go on as far as the bytes allow.

        Returns:
            an event, or `NeedData`. After the last event of the handshake there are no more.

        Raises:
            UsageError: called after the end.
        """
        if self._over:
            raise UsageError("the handshake is over; no more events will come")
        while True:
            missing = self._need - len(self._buffer)
            if missing > 0:
                return self._end(self._truncation()) if self._at_eof else NeedData(missing)
            try:
                step = next(self._steps)
            except StopIteration as end:
                self._over = True
                last: E = end.value
                return last
            except TabiError as error:
                return self._end(error)
            if not isinstance(step, int):
                self._need = 0
                return step
            self._need = step

    def take_early(self) -> bytes:
        """Take the bytes that came behind the handshake: they belong to the tunnel.

        Raises:
            UsageError: the handshake is not over, its bytes are the machine's.
        """
        if not self._over:
            raise UsageError("the handshake is not over; what has come may belong to it")
        early = bytes(self._buffer)
        self._buffer.clear()
        return early

    def _message(self, kind: type[M]) -> Generator[int | E, None, M]:
        """Wait for one whole message and take it out of the buffer; it stays there when decoding fails."""
        while len(self._buffer) < (size := kind.size(self._buffer)):
            assert size <= self.longest, "a codec asks for more than any message has"
            yield size
        message = kind.decode(self._buffer[:size])
        del self._buffer[:size]
        return message

    def _end(self, error: TabiError) -> Failed:
        self._over = True
        return self._failed(error)

    @abstractmethod
    def _failed(self, error: TabiError) -> Failed:
        """Make the last event out of what went wrong."""

    def _truncation(self) -> TabiError:
        """Say what it means that the peer closed its direction inside a message, or before one."""
        got = len(self._buffer)
        text = f"peer closed in the {self.stage.value}, {got} bytes into a message"
        return PeerClosedError(text, stage=self.stage)
