"""What the engine tests share: tunnels on loopback, streams through them, and conditions to wait for.

Every wait is for a condition and has a deadline; nothing is timed.
"""

import array
import errno
import fcntl
import os
import select
import selectors
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from tabi.relay import Cause, End, Engine, FlowLimits
from tabi.relay._engine_py import PureEngine
from tabi.relay.tuning import Tuning

try:
    from tabi.relay._engine import CompiledEngine, allocated
except ImportError:
    CompiledEngine = None  # type: ignore[assignment,misc]

    def allocated() -> int:
        """Count the blocks of memory of compiled engines: there are none."""
        return 0


DEADLINE = 20.0
BUILDS: dict[str, Callable[..., Engine] | None] = {"compiled": CompiledEngine, "pure": PureEngine}
NOT_BUILT = "the compiled engine is not built here: no C compiler, or no Python.h"

# How an engine is made to move bytes in one way only.
MODES = {"copy": {"pipes": 0}, "splice": {"splice_after": 0, "pipes": 16}}

ABORT = struct.pack("ii", 1, 0)
FOREVER = FlowLimits(half_open=0.0)


def made(build: str, **options: object) -> Engine:
    """Make an engine of this build."""
    engine = BUILDS[build]
    assert engine is not None, NOT_BUILT
    return engine(**options)


@contextmanager
def running(build: str, **options: object) -> Iterator[Engine]:
    """Run an engine of this build and stop it."""
    engine = made(build, **options)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()
        engine.close()


def connected() -> tuple[socket.socket, socket.socket]:
    """Connect two sockets with each other over TCP on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.settimeout(DEADLINE)
    return near, far


@dataclass
class Tunnel:
    """The two ends that a client and a target hold, and the flow between them."""

    client: socket.socket
    target: socket.socket
    flow: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.target.close()


def tunnel(
    engine: Engine,
    early: bytes = b"",
    pending: bytes = b"",
    *,
    limits: FlowLimits = FOREVER,
    record: bytes = b"",
    error: int = 0,
    tuning: Tuning | None = None,
    before: Callable[[socket.socket, socket.socket], object] = lambda client, target: None,
    prepare: Callable[[socket.socket, socket.socket], object] = lambda inbound, outbound: None,
) -> Tunnel:
    """Make a tunnel. `before` acts on the ends, `prepare` on the engine's sockets, before they are adopted."""
    client, inbound = connected()
    outbound, target = connected()
    before(client, target)
    prepare(inbound, outbound)
    flow = engine.adopt(
        inbound.detach(), outbound.detach(), early, pending, limits, record, error=error, tuning=tuning
    )
    return Tunnel(client, target, flow)


@contextmanager
def direct() -> Iterator[Tunnel]:
    """Connect client and target with each other, for comparison."""
    with Tunnel(*connected()) as pair:
        yield pair


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition comes true that no descriptor tells of."""
    deadline = time.monotonic() + DEADLINE
    idle = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        idle.wait(0.002)


def next_ends(engine: Engine, count: int = 1) -> list[End]:
    """Wait for so many ends and take them."""
    ends: list[End] = []
    deadline = time.monotonic() + DEADLINE
    while len(ends) < count:
        readable, _, _ = select.select([engine.fileno()], [], [], max(0.0, deadline - time.monotonic()))
        assert readable, f"{count - len(ends)} of {count} flows did not end"
        ends += engine.ends()
    return ends


def next_end(engine: Engine) -> End:
    """Wait for one end and take it."""
    (end,) = next_ends(engine)
    return end


def ends_by_now(engine: Engine) -> list[End]:
    """Let the engine do all that is due by its clock; take the ends."""
    with tunnel(engine) as witness:
        engine.kill([witness.flow], Cause.KILL)  # orders are taken after timers
        ends: list[End] = []
        while witness.flow not in [end.flow for end in ends]:
            ends += next_ends(engine)
        return [end for end in ends if end.flow != witness.flow]


def read_exactly(end: socket.socket, count: int) -> bytes:
    """Read so many bytes."""
    parts = bytearray()
    while len(parts) < count:
        part = end.recv(count - len(parts))
        assert part, f"the stream ended after {len(parts)} of {count} bytes"
        parts += part
    return bytes(parts)


def reset(end: socket.socket) -> None:
    """Reset a connection."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    end.close()


def read_all(end: socket.socket) -> tuple[bytes, int]:
    """Read until the end (errno 0) or an error (its errno)."""
    parts = []
    try:
        while part := end.recv(1 << 18):
            parts.append(part)
    except ConnectionError as error:
        return b"".join(parts), error.errno or errno.EIO
    return b"".join(parts), 0


def is_reset(end: socket.socket) -> bool:
    """Wait for the end of a silent connection; say whether it was a reset."""
    return read_all(end) == (b"", errno.ECONNRESET)


def await_event(end: socket.socket, event: int) -> None:
    """Wait for an event of poll() without reading; POLLERR and POLLHUP always end the wait."""
    poll = select.poll()
    poll.register(end, event)
    events = poll.poll(DEADLINE * 1000)
    assert events, "nothing came"
    assert events[0][1] & event, events


def await_reset(end: socket.socket) -> None:
    """Wait until a reset has arrived, without reading."""
    await_event(end, select.POLLERR)


def waiting(end: socket.socket) -> int:
    """Count the bytes that can be read (FIONREAD)."""
    count = array.array("i", [0])
    fcntl.ioctl(end.fileno(), termios.FIONREAD, count)
    return count[0]


def unsent(end: socket.socket) -> int:
    """Count the bytes that the other kernel has not acknowledged (SIOCOUTQ)."""
    count = array.array("i", [0])
    fcntl.ioctl(end.fileno(), termios.TIOCOUTQ, count)
    return count[0]


PROBED = 0.5
"""Seconds, more than the kernel waits before it probes a closed window, 200 ms and then 400: a probe may be taken, and
make room for some thousand bytes more."""


def fill(end: socket.socket, most: int = 64 << 20, calm: float = 0.1) -> int:
    """Send until everything in between is full: no byte is taken and none is acknowledged for so many seconds.

    Who needs an engine that has done all it can, and a kernel that moves nothing any more, waits for `PROBED`.
    """
    block = bytes(range(256)) * 256
    sent, quiet = 0, 0
    state = (-1, -1)
    end.setblocking(False)
    while sent < most and quiet < calm / 0.005:
        try:
            sent += end.send(block)
        except BlockingIOError:
            select.select([], [end], [], 0.005)
        quiet = quiet + 1 if state == (sent, unsent(end)) else 0
        state = sent, unsent(end)
    end.settimeout(DEADLINE)
    return sent


@dataclass
class Stream:
    """What one end is to send, what it has received, and how it went."""

    end: socket.socket
    send: memoryview
    chunk: int
    received: bytearray = field(default_factory=bytearray)
    ended: bool = False

    def write(self) -> bool:
        """Send a chunk; FIN after the last. Return whether there is more."""
        if self.send:
            try:
                self.send = self.send[self.end.send(self.send[: self.chunk]) :]
            except BlockingIOError:
                return True
        if not self.send:
            self.end.shutdown(socket.SHUT_WR)
            return False
        return True

    def read(self) -> None:
        """Read what is there."""
        part = self.end.recv(1 << 18)
        self.received += part
        self.ended = not part


def exchange(pairs: list[tuple[Tunnel, bytes, bytes]], chunk: int = 1 << 20) -> list[tuple[bytes, bytes]]:
    """Send `up` and `down` at once in every tunnel, a FIN behind each; return what target and client got."""
    selector = selectors.DefaultSelector()
    streams = []
    for pair, up, down in pairs:
        for end, data in ((pair.client, up), (pair.target, down)):
            end.setblocking(False)
            stream = Stream(end, memoryview(data), chunk)
            streams.append(stream)
            selector.register(end, selectors.EVENT_READ | selectors.EVENT_WRITE, stream)
    deadline = time.monotonic() + DEADLINE * 2
    open_streams = len(streams)
    with selector:
        while open_streams:
            events = selector.select(DEADLINE)
            assert events, "the streams stand still"
            assert time.monotonic() < deadline, "the streams take too long"
            for key, event in events:
                stream = key.data
                interest = key.events
                if event & selectors.EVENT_READ:
                    stream.read()
                    interest &= ~selectors.EVENT_READ if stream.ended else interest
                if event & selectors.EVENT_WRITE and not stream.write():
                    interest &= ~selectors.EVENT_WRITE
                if not interest:
                    selector.unregister(stream.end)
                    open_streams -= 1
                elif interest != key.events:
                    selector.modify(stream.end, interest, stream)
    for stream in streams:
        stream.end.settimeout(DEADLINE)
    return [
        (bytes(target.received), bytes(client.received))
        for client, target in zip(streams[::2], streams[1::2], strict=True)
    ]


def pipes_held() -> int:
    """Count the pipes of this process (both ends are one pipe)."""
    links = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        if link.startswith("pipe:"):
            links.add(link)
    return len(links)


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, engine: Engine, seconds: float) -> None:
        """Let time pass and wake the engine, which waits by the real clock."""
        self.now += seconds
        engine.kill((), Cause.KILL)
