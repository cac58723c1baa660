"""An engine with an open lane, a listener of its own, and what a control plane would do, step by step."""

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from helpers.socks import request5
from loop.engine_helpers import BUILDS, DEADLINE, HandClock, made, next_end
from tabi.relay import End, FlowLimits, LaneEngine
from tabi.relay.lane import NONE, PASSWORD, Ask, Call, Counter, Door, Exhausted, Handover, Permit
from tabi.relay.rows import SharedRows
from tabi.relay.tuning import Tuning

C = TypeVar("C", Ask, Handover, Exhausted)

LANES = sorted(build for build, engine in BUILDS.items() if engine is not None)
"""The builds that are there; each has a lane."""

ALL, CLIENT, HANDSHAKES, USER, RULE, NUMBERS, FAILURES = range(7)
NO_LIMIT = -1
LOGIN = b"\x01\x05alice\x06secret"  # RFC 1929 section 2
GREETING = b"\x05\x01\x00"  # RFC 1928 section 3
WITH_PASSWORD = b"\x05\x01\x02"


@dataclass
class Lane:
    """An engine that accepts from `listener`, and counts in rows of which there is one for each constant above."""

    engine: LaneEngine
    listener: socket.socket
    rows: SharedRows
    waiting: list[Call] = field(default_factory=list)
    handed: set[int] = field(default_factory=set)  # descriptors that were handed over, and taken by nobody yet
    doors: int = 0

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self.listener.getsockname()[:2]
        return host, port

    def door(
        self,
        methods: int = NONE | PASSWORD,
        *,
        socks4: bool = True,
        caps: tuple[int, int, int] = (NO_LIMIT, NO_LIMIT, NO_LIMIT),
        client: str = "",
    ) -> int:
        """Teach the door of clients of this host."""
        self.doors += 1
        counters = tuple(Counter(row, cap) for row, cap in zip((ALL, CLIENT, HANDSHAKES), caps, strict=True))
        host = self.address[0]
        self.engine.teach_door(
            Door(self.doors, self.listener.fileno(), host, client or host, methods, socks4, counters)  # type: ignore[arg-type]  # there are three
        )
        self.settle()
        return self.doors

    def teach_pass(self, door: int, *, seconds: float = 60.0) -> None:
        """Teach LOGIN."""
        failures = Counter(FAILURES, self.rows.total(FAILURES))
        self.engine.teach_pass(door, LOGIN, b"alice", time.monotonic() + seconds, failures)
        self.settle()

    def settle(self) -> None:
        """Wait until the engine has done all that it was told by now."""
        self.engine.stop_accepting(-1)

    def client(self, data: bytes = b"") -> socket.socket:
        """Connect, and send."""
        sock = socket.create_connection(self.address, DEADLINE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(data)
        return sock

    def next(self, kind: type[C]) -> C:
        """Wait for the next call, which must be of this kind."""
        deadline = time.monotonic() + DEADLINE
        while not self.waiting:
            readable, _, _ = select.select([self.engine.fileno()], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"no {kind.__name__} came"
            assert not self.engine.ends()
            self.waiting += self.calls()
        call = self.waiting.pop(0)
        assert isinstance(call, kind), call
        return call

    def calls(self) -> list[Call]:
        """Take what waits now."""
        calls = self.engine.calls()
        for call in calls:
            if isinstance(call, Handover):
                self.handed |= {call.fd, call.outbound} - {-1}
        return calls

    def take(self, fd: int) -> socket.socket:
        """Take a descriptor that was handed over; the others are closed in the end."""
        self.handed.remove(fd)
        sock = socket.socket(fileno=fd)
        sock.setblocking(True)
        return sock

    def next_end(self) -> End:
        """Wait for the end of a flow, with no call before it."""
        end = next_end(self.engine)
        assert self.is_quiet(), self.waiting
        return end

    def is_quiet(self) -> bool:
        """Have the engine do all that it can do by now; say whether it wants nothing."""
        self.settle()
        self.waiting += self.calls()
        return not self.waiting

    def counts(self) -> tuple[int, ...]:
        """Say how many are counted as connections, of the client, as handshakes, with the user and with the rule."""
        return tuple(map(self.rows.own, (ALL, CLIENT, HANDSHAKES, USER, RULE)))


@contextmanager
def opened(
    build: str, *, patience: float = DEADLINE, host: str = "127.0.0.1", clock: HandClock | None = None
) -> Iterator[Lane]:
    """Run an engine of this build with an open lane, and see that it leaves nothing counted that it should not."""
    engine = made(build, **({} if clock is None else {"clock": clock}))
    engine.start()
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        rows = engine.make_rows(memoryview(bytearray(8 * 7)).cast("q"), 1, 0)
        engine.open_lane(rows, numbers=NUMBERS, patience=patience)
        with socket.create_server((host, 0), family=family, backlog=2048) as listener:
            listener.setblocking(False)
            lane = Lane(engine, listener, rows)
            engine.accept_from(listener.fileno())
            try:
                yield lane
            finally:
                engine.stop()
                lane.calls()
                for fd in lane.handed:
                    os.close(fd)
    finally:
        engine.stop()
        engine.close()


def permit(
    target: tuple[str, int],
    *,
    until: float | None = None,
    limits: FlowLimits | None = None,
    patience: float = DEADLINE,
    limit: int = NO_LIMIT,
    shows_target: bool = False,
    facts: bytes = b"facts",
    tuning: Tuning | None = None,
) -> Permit:
    """Permit to connect to a target."""
    return Permit(
        until=time.monotonic() + DEADLINE if until is None else until,
        address=target[0],
        port=target[1],
        shows_target=shows_target,
        limits=FlowLimits() if limits is None else limits,
        patience=patience,
        counters=(Counter(RULE, limit),),
        facts=facts,
        tuning=tuning,
    )


def connect5(target: tuple[str, int]) -> bytes:
    """A CONNECT (RFC 1928 section 4)."""
    return request5(1, *target)
