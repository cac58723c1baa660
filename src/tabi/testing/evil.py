"""Peers that misbehave over real sockets, to attack a server or to pose as a server or a target.

A peer has a part (`tabi.testing.parts`), the conversation that a good peer would hold, and a vice, which
changes how it is held: `dribble`, `garbage`, `stall`, `wrong_version`, `huge`, `close_at`, `reset_at`;
`Vice()` is a good peer. Every wait has a deadline.
"""

import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from tabi.addr import Endpoint
from tabi.errors import Stage
from tabi.testing.dribble import Cut, each_byte, whole
from tabi.testing.parts import Part
from tabi.wire.address import Buffer

__all__ = [
    "HUGE", "Encounter", "Ending", "EvilPeer", "Vice",
    "close_at", "dribble", "garbage", "huge", "reset_at", "stall", "wrong_version",
]  # fmt: skip

A = TypeVar("A")
T = TypeVar("T")

HUGE = 100_000
"""Bytes of a field that never ends, where the protocol has no length byte for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vice:
    """How a peer deviates from its part.

    Args:
        cut: how its bytes are cut into segments.
        pause: seconds between the segments.
        stall: stage at which it falls silent and holds the connection; CONNECT: before its first byte.
        spoil: changes what is said at a stage.
        end_at: offset in all that it says at which it ends the connection.
        reset: whether that end is a reset (RST) rather than a close (FIN, after which it still listens).
    """

    cut: Cut = whole
    pause: float = 0.0
    stall: Stage | None = None
    spoil: Callable[[Stage, bytes], bytes] = lambda _stage, says: says
    end_at: int | None = None
    reset: bool = False


def dribble(*, pause: float = 0.0) -> Vice:
    """Say everything byte by byte."""
    return Vice(cut=each_byte, pause=pause)


def garbage(stage: Stage, *, seed: int = 0, size: int = 1000) -> Vice:
    """Say random bytes instead of what belongs to `stage`; with the same seed the same."""
    noise = random.Random(seed).randbytes(size)
    return Vice(spoil=lambda at, says: noise if at is stage else says)


def stall(stage: Stage) -> Vice:
    """Fall silent instead of saying what belongs to `stage`, and hold the connection."""
    return Vice(stall=stage)


def wrong_version(stage: Stage, version: int = 0x07) -> Vice:
    """Begin what belongs to `stage` by another version byte."""
    return Vice(spoil=lambda at, says: bytes((version,)) + says[1:] if at is stage else says)


def huge(stage: Stage) -> Vice:
    """Say a message of `stage` whose fields are as long as can be; where no length byte says so, `HUGE`."""
    return Vice(spoil=lambda at, says: _blow_up(at, says) if at is stage else says)


def close_at(offset: int) -> Vice:
    """Close after `offset` bytes, and listen until the other side closes as well."""
    return Vice(end_at=offset)


def reset_at(offset: int) -> Vice:
    """Reset after `offset` bytes."""
    return Vice(end_at=offset, reset=True)


class Ending(Enum):
    """How an encounter ended."""

    CLOSED = "closed"  # the other side closed
    RESET = "reset"  # the other side reset
    LEFT = "left"  # we reset, as our vice wants
    DEADLINE = "deadline"  # the other side still held the connection when the time was over
    STOPPED = "stopped"  # the block of `EvilPeer.listening` ended first


@dataclass(frozen=True, slots=True)
class Encounter:
    """What came of one connection.

    Args:
        heard: all bytes that the other side sent.
        said: how many bytes of ours were sent.
        ending: who ended it.
    """

    heard: bytes
    said: int
    ending: Ending


class EvilPeer:
    """A peer that plays a part with a vice.

    Args:
        part: the conversation.
        vice: what is wrong with it.
        deadline: seconds for a whole connection, and for the end of the peer's threads.

    As a server or target, for as long as the block lasts::

        with EvilPeer(socks5_server(bound), reset_at(3)).listening() as where:
            ...  # connect to `where`

    As a client; here a server that gives up at once, so that the stall ends early:

    >>> from tabi.testing.parts import socks5_client
    >>> server = EvilPeer((), close_at(0))
    >>> with server.listening() as where:
    ...     EvilPeer(socks5_client(where), stall(Stage.GREETING)).attack(where).ending
    <Ending.CLOSED: 'closed'>

    """

    def __init__(self, part: Part, vice: Vice | None = None, *, deadline: float = 10.0) -> None:
        self._encounters: list[Encounter] = []
        self._changed = threading.Condition()
        self._part = part
        self._vice = vice or Vice()
        self._deadline = deadline

    def attack(self, where: Endpoint) -> Encounter:
        """Connect to `where`, play the part, and stay until the other side ends the connection.

        Raises:
            OSError: no connection.
        """
        with socket.create_connection((str(where.host), where.port), timeout=self._deadline) as sock:
            return _Talk(sock, self._deadline).play(self._part, self._vice)

    @contextmanager
    def listening(self, host: str = "127.0.0.1") -> Iterator[Endpoint]:
        """Accept connections on a free port of `host` and play the part on each, until the block ends.

        Raises:
            TimeoutError: a thread did not end.
        """
        stopped = threading.Event()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, 0), family=family) as listener:
            acceptor = threading.Thread(target=self._accept, args=(listener, stopped), name="evil peer")
            acceptor.start()
            try:
                yield Endpoint.from_sockaddr(listener.getsockname())
            finally:
                stopped.set()
                listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
                _join(acceptor, self._deadline)

    def encounters(self, count: int = 1) -> list[Encounter]:
        """Wait until `count` connections of the listening peer have ended; return them in that order.

        Raises:
            TimeoutError: they did not within the deadline.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._encounters) >= count, self._deadline):
                raise TimeoutError(f"{len(self._encounters)} of {count} connections ended")
            return list(self._encounters)

    def _accept(self, listener: socket.socket, stopped: threading.Event) -> None:
        talks: list[tuple[_Talk, threading.Thread]] = []
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                if not stopped.is_set():
                    raise
                break
            talk = _Talk(sock, self._deadline)
            thread = threading.Thread(target=self._serve, args=(talk,), name="evil peer's talk")
            thread.start()
            talks.append((talk, thread))
        for talk, thread in talks:
            talk.stop()
            _join(thread, self._deadline)

    def _serve(self, talk: "_Talk") -> None:
        with talk.sock:
            encounter = talk.play(self._part, self._vice)
        with self._changed:
            self._encounters.append(encounter)
            self._changed.notify_all()


class _Over(Exception):  # noqa: N818 - not an error: how a talk is left from wherever it stands
    def __init__(self, ending: Ending) -> None:
        super().__init__(ending)
        self.ending = ending


class _Talk:
    """One connection."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self.sock = sock
        self._end = time.monotonic() + seconds
        self._stopped = False
        self._heard = b""
        self._unread = b""
        self._said = 0
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each piece is a segment

    def stop(self) -> None:
        """End it from another thread."""
        self._stopped = True
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended already

    def play(self, part: Part, vice: Vice) -> Encounter:
        """Play the part to its end."""
        try:
            if vice.stall is not Stage.CONNECT:
                self._speak(part, vice)
            while True:
                self._hear()
        except _Over as over:
            ending = Ending.STOPPED if self._stopped else over.ending
            return Encounter(self._heard, self._said, ending)

    def _speak(self, part: Part, vice: Vice) -> None:
        for line in part:
            if vice.end_at == self._said:
                break
            if line.hears is not None:
                self._wait_for(line.hears)
            if vice.stall is line.stage:
                return
            says = vice.spoil(line.stage, line.says)
            if vice.end_at is not None:
                says = says[: vice.end_at - self._said]
            self._say(says, vice)
        if vice.end_at is not None:
            self._leave(vice)

    def _wait_for(self, size: Callable[[Buffer], int]) -> None:
        while len(self._unread) < (needed := size(self._unread)):
            self._hear()
        self._unread = self._unread[needed:]

    def _hear(self) -> None:
        self.sock.settimeout(self._left())
        data = self._guarded(self.sock.recv, 65536)
        if not data:
            raise _Over(Ending.CLOSED)
        self._heard += data
        self._unread += data

    def _say(self, data: bytes, vice: Vice) -> None:
        for piece in vice.cut(data):
            self.sock.settimeout(self._left())
            self._guarded(self.sock.sendall, piece)
            self._said += len(piece)
            if vice.pause:
                time.sleep(min(vice.pause, self._left()))

    def _guarded(self, act: Callable[[A], T], argument: A) -> T:
        try:
            return act(argument)
        except TimeoutError:
            raise _Over(Ending.DEADLINE) from None
        except OSError:
            raise _Over(Ending.RESET) from None

    def _left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise _Over(Ending.DEADLINE)
        return left

    def _leave(self, vice: Vice) -> None:
        if not vice.reset:
            self._guarded(self.sock.shutdown, socket.SHUT_WR)
            return
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        raise _Over(Ending.LEFT)


def _blow_up(stage: Stage, says: bytes) -> bytes:
    if stage is Stage.AUTH:
        return b"\x01\xff" + b"u" * 255 + b"\xff" + b"p" * 255  # RFC 1929 section 2
    if says[:1] == b"\x05" and stage is Stage.GREETING:
        return b"\x05\xff" + bytes(255)  # RFC 1928 section 3; from a server: a refusal with a tail
    if says[:1] == b"\x05" and stage is Stage.REQUEST:
        return says[:3] + b"\x03\xff" + b"d" * 255 + says[-2:]  # RFC 1928 sections 4 and 6
    return says[:8] + b"u" * HUGE  # SOCKS4: a USERID without its NUL; anything else: a flood


def _join(thread: threading.Thread, seconds: float) -> None:
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"{thread.name} did not end within {seconds} s")
