"""Closes, resets, stalls, kills and limits at random: every byte, every flow and every descriptor is accounted for."""

import random
import select
import socket
from dataclasses import dataclass, field

import pytest

from loop.engine_helpers import FOREVER, MODES, reset, running, tunnel, until
from tabi.relay import Cause, End, Engine

pytestmark = pytest.mark.usefixtures("nothing_left")

OPERATIONS = 4000
AT_ONCE = 12  # tunnels
PERIOD = 65_521  # a prime: a block that is lost, doubled or moved does not go unnoticed
STREAM = random.Random(1).randbytes(PERIOD) * 6
MOST = 5 * PERIOD


def part(begin: int, size: int) -> bytes:
    """Give what belongs at this place of every stream."""
    begin %= PERIOD
    return STREAM[begin : begin + size]


@dataclass
class Peer:
    """One end of a tunnel: what it has sent and received, and how that went."""

    sock: socket.socket
    sent: int = 0
    received: int = 0
    is_open: bool = True
    is_sending: bool = True
    has_heard_all: bool = False  # read the other's FIN
    was_reset: bool = False  # and has been told so, which happens once: reading ends as by a FIN then

    def send(self, size: int) -> None:
        """Send what the kernel takes."""
        try:
            self.sent += self.sock.send(part(self.sent, size))
        except BlockingIOError:
            pass
        except ConnectionError:
            self.is_sending = False
            self.was_reset = True

    def finish(self) -> None:
        """Send the FIN."""
        self.is_sending = False
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:  # it was reset
            pass

    def receive(self, size: int, other: "Peer") -> None:
        """Read, and compare with what was sent. A FIN is behind all that the other has ever sent."""
        try:
            data = self.sock.recv(size)
        except BlockingIOError:
            return
        except ConnectionError:
            self.close()
            return
        assert data == part(self.received, len(data))
        self.received += len(data)
        if not data and self.was_reset:
            self.close()
        elif not data:
            assert self.received == other.sent
            self.has_heard_all = True

    def close(self) -> None:
        """Close, which is a reset if something has not been read."""
        self.is_open = self.is_sending = False
        self.sock.close()

    def reset(self) -> None:
        """Reset."""
        self.is_open = self.is_sending = False
        reset(self.sock)


@dataclass
class Pair:
    """A tunnel and its two ends."""

    flow: int
    client: Peer
    target: Peer
    is_disturbed: bool = False  # by a reset, a close or a kill


@dataclass
class Chaos:
    """What may happen to tunnels, and what must be true of them afterwards."""

    engine: Engine
    chance: random.Random
    pairs: dict[int, Pair] = field(default_factory=dict)
    ends: dict[int, End] = field(default_factory=dict)
    done: list[Pair] = field(default_factory=list)

    def open(self) -> None:
        """Open a tunnel, with bytes that are owed to either side, under a limit or not."""
        early, pending = (part(0, self.chance.choice((0, 0, 5, 90_000))) for _ in range(2))
        limits = FOREVER._replace(buckets=self.chance.choice(((), (), (1,), (1, 2))))
        made = tunnel(self.engine, early, pending, limits=limits, record=b"record")
        for end in (made.client, made.target):
            end.setblocking(False)
        client, target = Peer(made.client, sent=len(early)), Peer(made.target, sent=len(pending))
        self.pairs[made.flow] = Pair(made.flow, client, target)

    def step(self) -> None:
        """Do something to somebody."""
        chance = self.chance
        if len(self.pairs) < AT_ONCE and chance.random() < 0.3:
            self.open()
        if not self.pairs:
            return
        pair = chance.choice(list(self.pairs.values()))
        peer, other = chance.sample((pair.client, pair.target), 2)
        act = chance.random()
        size = chance.choice((1, 100, 5000, MOST))
        if act < 0.45 and peer.is_sending:
            peer.send(size)
        elif act < 0.90 and peer.is_open:
            peer.receive(size, other)
        elif act < 0.94 and peer.is_sending:
            peer.finish()
        elif act < 0.955:
            self.disturb(pair, peer)
        else:
            self.govern(pair)
        self.gather()

    def disturb(self, pair: Pair, peer: Peer) -> None:
        """End a tunnel in one of the rude ways."""
        pair.is_disturbed = True
        way = self.chance.choice((Peer.close, Peer.reset, None))
        if way is None:
            self.engine.kill([pair.flow], Cause.KILL)
        elif peer.is_open:
            way(peer)

    def govern(self, pair: Pair) -> None:
        """Change what it has to keep to."""
        self.engine.set_bucket(self.chance.choice((1, 2)), self.chance.choice((None, 10_000_000, 80_000_000)))
        buckets = self.chance.choice(((), (1,), (2,), (2, 1)))
        self.engine.limit([pair.flow], FOREVER._replace(buckets=buckets))

    def gather(self) -> None:
        """Take the ends that have come; nobody reads there any more but what is left."""
        for end in self.engine.ends():
            assert end.flow not in self.ends
            self.ends[end.flow] = end
            self.done.append(self.pairs.pop(end.flow))

    def settle(self) -> None:
        """Let all that is open end in order, and read everything."""
        for number in (1, 2):
            self.engine.set_bucket(number, None)

        def is_over() -> bool:
            for pair in self.pairs.values():
                for peer, other in ((pair.client, pair.target), (pair.target, pair.client)):
                    if peer.is_sending:
                        peer.finish()
                    if peer.is_open and not peer.has_heard_all:
                        peer.receive(MOST, other)
            self.gather()
            return not self.pairs

        until(is_over, "all tunnels to end")

    def judge(self, pair: Pair) -> None:
        """See that what the engine tells of a tunnel is what its two ends have seen."""
        end = self.ends[pair.flow]
        client, target = pair.client, pair.target
        assert end.record == b"record"
        for counted, sender, receiver in ((end.up, client, target), (end.down, target, client)):
            if receiver.is_open and not receiver.has_heard_all:
                self.empty(receiver, sender)
            assert receiver.received <= counted <= sender.sent
            if end.cause is Cause.FIN:
                assert counted == sender.sent
            if receiver.has_heard_all:
                assert receiver.received == counted == sender.sent
        if not pair.is_disturbed:
            assert end.cause is Cause.FIN, end

    def empty(self, receiver: Peer, sender: Peer) -> None:
        """Read to the end or to the reset; the flow is over, so one of them is there or on its way."""
        while receiver.is_open and not receiver.has_heard_all:
            readable, _, _ = select.select([receiver.sock], [], [], 20)
            assert readable
            receiver.receive(MOST, sender)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mode", [*MODES, "both"])
def test_whatever_happens_every_byte_and_every_flow_is_accounted_for(build: str, mode: str, seed: int) -> None:
    with running(build, **MODES.get(mode, {})) as engine:
        chaos = Chaos(engine, random.Random(seed))
        for _ in range(OPERATIONS):
            chaos.step()
        chaos.settle()
        assert len(engine) == 0
        assert engine.snapshot() == []
        for pair in chaos.done:
            chaos.judge(pair)
            pair.client.sock.close()
            pair.target.sock.close()
        causes = {end.cause for end in chaos.ends.values()}
        assert causes >= {Cause.FIN, Cause.RST, Cause.KILL}
        assert sum(end.up + end.down for end in chaos.ends.values()) > 20 * MOST
