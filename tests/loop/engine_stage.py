"""An engine without its thread, for tests of what passes when: they move the clock and each of its turns."""

import errno
import socket
from collections.abc import Sequence

from loop.engine_helpers import MODES, HandClock, Tunnel, connected, made
from tabi.relay import Cause, End, FlowLimits
from tabi.relay._engine_py import PureEngine
from tabi.relay.bucket import Cell

__all__ = ["BLOCK", "Stage", "send_some"]

BLOCK = bytes(range(256)) * 1024


class Stage:
    """An engine that is moved by this thread, and tunnels through it whose ends the test holds.

    Args:
        build: of the engine.
        mode: a key of MODES.
        clock: to share one among stages.
    """

    def __init__(self, build: str, mode: str, clock: HandClock | None = None) -> None:
        self.clock = clock or HandClock()
        self.tunnels: list[Tunnel] = []
        self.ends: dict[int, End] = {}
        self.got: dict[int, bytearray] = {}
        self.errors: dict[int, int] = {}
        self._flows: list[int] = []
        self.engine = made(build, clock=self.clock, **MODES[mode])

    def close(self) -> None:
        """End all; a compiled engine checks by itself that its groups are empty then (where it was built to check)."""
        groups = list(self.engine._relay._groups._groups.values()) if isinstance(self.engine, PureEngine) else []
        self.engine.stop()
        assert [(one.flows, one.held, one.spare, len(one.queue)) for one in groups] == [(0, 0, 0, 0)] * len(groups)
        self.engine.ends()
        self.engine.close()
        for pair in self.tunnels:
            pair.client.close()
            pair.target.close()

    def bucket(self, number: int, rate: int | None, cell: Cell | None = None) -> None:
        """Set a bucket."""
        self.engine.set_bucket(number, rate, cell)
        self.engine.step()

    def tunnel(self, *buckets: int, early: bytes = b"", pending: bytes = b"", idle: float = 0.0) -> Tunnel:
        """Make a tunnel whose flow shares these buckets."""
        client, inbound = connected()
        outbound, target = connected()
        limits = FlowLimits(idle=idle, half_open=0.0, buckets=buckets)
        flow = self.engine.adopt(inbound.detach(), outbound.detach(), early, pending, limits, b"")
        for end in (client, target):
            end.setblocking(False)
            self.got[end.fileno()] = bytearray()
        pair = Tunnel(client, target, flow)
        self.tunnels.append(pair)
        self._flows.append(flow)
        return pair

    def cut(self, pair: Tunnel) -> None:
        """Kill a flow."""
        self.engine.kill([pair.flow], Cause.KILL)
        self._turn()

    def counts(self) -> list[tuple[int, int]]:
        """Count what each flow has moved, up and down."""
        counted = {one.flow: (one.up, one.down) for one in (*self.engine.snapshot(), *self.ends.values())}
        return [counted[flow] for flow in self._flows]

    def moved(self) -> list[int]:
        """Count what each flow has moved, both directions together."""
        return [up + down for up, down in self.counts()]

    def step(self, seconds: float = 0.0, *, feed: Sequence[socket.socket] = (), read: bool = True) -> None:
        """Let time pass, keep these ends sending, read everything, until nothing moves any more."""
        self.clock.now += seconds
        quiet = 0
        while quiet < 3:
            before = self.moved(), len(self.ends)
            for end in feed:
                send_some(end, BLOCK)
            self._turn()
            if read:
                for pair in self.tunnels:
                    self._read(pair.client)
                    self._read(pair.target)
            quiet = quiet + 1 if before == (self.moved(), len(self.ends)) else 0

    def _turn(self) -> None:
        self.engine.step()
        for over in self.engine.ends():
            self.ends[over.flow] = over

    def _read(self, end: socket.socket) -> None:
        try:
            while end.fileno() not in self.errors and (part := end.recv(1 << 20)):
                self.got[end.fileno()] += part
        except BlockingIOError:
            pass
        except ConnectionError as error:
            self.errors[end.fileno()] = error.errno or errno.EIO

    def received(self, end: socket.socket) -> bytes:
        """Give what has come out of this end so far."""
        return bytes(self.got[end.fileno()])


def send_some(end: socket.socket, data: bytes) -> int:
    """Send what the kernel takes at once."""
    try:
        return end.send(data)
    except BlockingIOError:
        return 0
