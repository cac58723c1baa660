"""The far end of a connection in virtual time: plays a part (`tabi.testing.parts`) as a peer over sockets would."""

import math
from collections.abc import Iterator

from tabi.errors import TabiError
from tabi.testing.dribble import Cut, whole
from tabi.testing.parts import Part

__all__ = ["FakeStream"]


class FakeStream:
    """What a plan finds behind a connection of the `FakeClock`.

    A chain of proxies is one part after the other: ``socks5_server(a) + socks4_server(b)``.

    Args:
        part: the conversation.
        cut: how what it says is cut; each piece is a segment, so no read gives more than one.
        pace: seconds before each segment.
        ends: what comes behind the last segment: an error of a Read or Peek, b"" for the end of the stream, None for
            silence.

    Attributes:
        heard: all bytes that the plan sent.
        closed: whether the plan closed the connection.

    >>> from tabi.addr import Endpoint
    >>> from tabi.testing.parts import socks5_server
    >>> stream = FakeStream(socks5_server(Endpoint.parse("192.0.2.1:4321")), pace=0.5)
    >>> stream.send(bytes.fromhex("05 01 00"), 10.0)
    >>> stream.due()
    10.5
    >>> stream.take(512, 10.5).hex(" ")
    '05 00'
    """

    def __init__(
        self, part: Part, *, cut: Cut = whole, pace: float = 0.0, ends: bytes | TabiError | None = None
    ) -> None:
        self.heard: bytes = b""
        self.closed: bool = False
        self._lines = list(part)
        self._unheard = b""
        self._cut = cut
        self._pace = pace
        self._ends = ends
        self._segments: list[tuple[float, bytes]] = []
        self._last = 0.0
        self._advance(0.0)

    @property
    def unread(self) -> bytes:
        """What it has said and the plan has not read."""
        return b"".join(data for _, data in self._segments)

    def send(self, data: bytes, now: float) -> None:
        """Take what the plan sends."""
        self.heard += data
        self._unheard += data
        self._advance(now)

    def due(self) -> float:
        """Say when there is something to read, ``math.inf`` for never."""
        if self._segments:
            return self._segments[0][0]
        return math.inf if self._ends is None or self._lines else self._last

    def take(self, size: int, now: float, *, peek: bool = False) -> bytes | TabiError:
        """Give at most `size` bytes of the first segment, or what the stream ends with."""
        if not self._segments:
            assert self._ends is not None
            return self._ends
        time, data = self._segments[0]
        assert time <= now, "read before it was due"
        if not peek:
            self._segments[:1] = [(time, data[size:])] if len(data) > size else []
        return data[:size]

    def _advance(self, now: float) -> None:
        for says in self._answers():
            for piece in self._cut(says):
                self._last = max(self._last, now) + self._pace
                self._segments.append((self._last, piece))

    def _answers(self) -> Iterator[bytes]:
        while self._lines:
            line = self._lines[0]
            needed = 0 if line.hears is None else line.hears(self._unheard)
            if len(self._unheard) < needed:
                return
            self._unheard = self._unheard[needed:]
            del self._lines[0]
            yield line.says
