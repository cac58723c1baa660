"""A TCP connection whose every wait ends, and which remembers what was said."""

import socket
import struct
import time
from enum import Enum
from typing import Final, Protocol, Self, TypeVar

from tabi.addr import Endpoint
from tabi.client.plain import PlainSocket
from tabi.errors import TabiError
from tabi.wire.address import Buffer

__all__ = ["Deadline", "Ending", "Line", "NoAnswerError", "Record"]

_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close by RST
_MOST: Final = 1 << 20  # bytes that are read to an end; who sends more never ends
_PIECE: Final = 1 << 16
_SHOWN: Final = 48  # bytes of a piece in the evidence
_LINES: Final = 40  # pieces


class Ending(Enum):
    """How a connection stands."""

    CLOSED = "closed"
    RESET = "reset"
    OPEN = "left open"


class NoAnswerError(TabiError):
    """What was waited for did not come.

    Args:
        ending: why not.
        got: the bytes that came instead.
    """

    def __init__(self, ending: Ending, got: bytes = b"") -> None:
        said = {Ending.CLOSED: "closes", Ending.RESET: "resets", Ending.OPEN: "is silent"}[ending]
        after = f" after {len(got)} bytes ({got[:16].hex(' ')})" if got else " without an answer"
        super().__init__(f"{said}{after}")
        self.ending = ending
        self.got = got


class Deadline:
    """The moment when an examination has to end.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether it has passed."""
        return time.monotonic() >= self._at

    def left(self, most: float) -> float:
        """Give how long may still be waited, `most` seconds at most; never 0, which sockets take for something else."""
        return max(0.001, min(most, self._at - time.monotonic()))


class Record:
    """What was sent and received, as evidence."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def sent(self, data: bytes, shown: str = "") -> None:
        """Note what was sent; `shown` stands for what is nobody's business."""
        self._note(">", shown or _hex(data))

    def received(self, data: bytes) -> None:
        """Note what came."""
        self._note("<", _hex(data))

    def ended(self, ending: Ending) -> None:
        """Note that it came to an end."""
        self._note("<", f"({ending.value})")

    def lines(self) -> tuple[str, ...]:
        """Give it, the oldest first."""
        return tuple(self._lines)

    def _note(self, way: str, text: str) -> None:
        if len(self._lines) < _LINES:
            self._lines.append(f"{way} {text}")


class Message(Protocol):
    """What can be read: a codec of `tabi.wire`."""

    @staticmethod
    def size(buf: Buffer, /) -> int:
        """Bytes needed, as far as known."""

    @classmethod
    def decode(cls, buf: Buffer) -> Self:
        """Read a whole message."""


M = TypeVar("M", bound=Message)


class Line:
    """One connection; nothing waits longer than `patience`, and all waits together not beyond `deadline`.

    Args:
        sock: connected; the line's from now on.
        deadline: of the examination.
        patience: seconds for one answer.
        record: where all is noted.
    """

    def __init__(self, sock: PlainSocket, deadline: Deadline, patience: float, record: Record) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each piece is a segment
        self.sock = sock
        self._deadline = deadline
        self._patience = patience
        self._record = record

    @property
    def remote(self) -> Endpoint:
        """Who is at the other end."""
        return Endpoint.from_sockaddr(self.sock.getpeername())

    @property
    def local(self) -> Endpoint:
        """Our own end."""
        return Endpoint.from_sockaddr(self.sock.getsockname())

    def send(self, data: bytes, shown: str = "") -> None:
        """Send all of it.

        Args:
            data: bytes.
            shown: what the evidence has instead, where they hold a password.

        Raises:
            NoAnswerError: the other side is gone, or takes nothing.
        """
        self._record.sent(data, shown)
        self.sock.settimeout(self._deadline.left(self._patience))
        try:
            self.sock.sendall(data)
        except TimeoutError:
            raise NoAnswerError(Ending.OPEN) from None
        except OSError:  # what had been said before may tell why
            raise NoAnswerError(Ending.RESET, self.pending()) from None

    def read(self, size: int) -> bytes:
        """Read exactly `size` bytes.

        Raises:
            NoAnswerError: they did not come.
        """
        data = b""
        wait = Deadline(self._deadline.left(self._patience))
        while len(data) < size:
            try:
                more = self._recv(size - len(data), wait)
            except NoAnswerError as error:
                raise NoAnswerError(error.ending, data) from None
            if not more:
                raise NoAnswerError(Ending.CLOSED, data)
            data += more
        return data

    def read_some(self, size: int) -> bytes:
        """Read up to `size` bytes, b"" at the end.

        Raises:
            NoAnswerError: nothing came, or a reset.
        """
        return self._recv(size, self._deadline)

    def message(self, kind: type[M]) -> M:
        """Read one message and not a byte more.

        Raises:
            NoAnswerError: it did not come.
            ProtocolError: what came is none.
        """
        data = b""
        wait = Deadline(self._deadline.left(self._patience))
        while len(data) < (size := kind.size(data)):
            try:
                more = self._recv(size - len(data), wait)
            except NoAnswerError as error:
                raise NoAnswerError(error.ending, data) from None
            if not more:
                raise NoAnswerError(Ending.CLOSED, data)
            data += more
        return kind.decode(data)

    def read_to_end(self, patience: float | None = None) -> tuple[bytes, Ending]:
        """Read until the other side ends its direction, or nothing comes any more within `patience` seconds.

        Returns:
            what came, and how it ended: OPEN where it did not.
        """
        data = b""
        wait = Deadline(self._deadline.left(self._patience if patience is None else patience))
        while len(data) < _MOST:
            try:
                more = self._recv(_PIECE, wait)
            except NoAnswerError as error:
                return data, error.ending
            if not more:
                return data, Ending.CLOSED
            data += more
        return data, Ending.OPEN

    def pending(self) -> bytes:
        """Take what lies there already; waits for nothing."""
        self.sock.settimeout(0)
        try:
            return self.sock.recv(_PIECE)
        except OSError:
            return b""

    def end(self) -> None:
        """End our direction; the other one goes on."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:  # whoever reads next sees that it is gone
            pass

    def reset(self) -> None:
        """End it by a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.sock.close()

    def close(self) -> None:
        """Close it."""
        self.sock.close()

    def _recv(self, size: int, wait: Deadline) -> bytes:
        if wait.is_over:  # whoever sends byte by byte would keep us for ever
            raise NoAnswerError(Ending.OPEN)
        self.sock.settimeout(wait.left(self._patience))
        try:
            data = self.sock.recv(size)
        except TimeoutError:
            raise NoAnswerError(Ending.OPEN) from None
        except OSError:
            self._record.ended(Ending.RESET)
            raise NoAnswerError(Ending.RESET) from None
        if data:
            self._record.received(data)
        else:
            self._record.ended(Ending.CLOSED)
        return data


def _hex(data: bytes) -> str:
    shown = data[:_SHOWN].hex(" ")
    return shown if len(data) <= _SHOWN else f"{shown} … ({len(data)} bytes)"
