"""The relay itself: one edge-triggered epoll, the flows on it, and what to do about what it says.

Bytes are moved by `_pump`; here it is decided what follows. The rules, each of which some relay has paid for
with lost data:

- An end is passed on behind the last byte: FIN by shutdown once everything is delivered; when both sides have
  ended they are closed without it.
- A reset is passed on as a reset, behind the bytes that came before it. They sit in four places: the kernel's
  receive queue of the broken side (it survives a reset), our `out`, a pipe, and the send queue of the living
  side, which SO_LINGER 0 would throw away. So the flow *lingers*: what the living side sends is thrown
  away, for who is stuck in sending does not read; the rest is delivered until SIOCOUTQ says 0, and then it is reset,
  or earlier when that makes no progress.
- SO_ERROR is asked before any read: after a FIN it is the only sign of a reset, and every call that meets the
  error first takes it away: from then on a read says that the side has ended in order. So who has met an error before
  the flow was ours must say so. RDHUP and HUP alone say nothing but "read".
- What we cut ourselves (limits, kill, stop) is reset on both sides, so that nobody takes a cut for an end.
- A flow that shares token buckets (`_groups`) moves bytes in its turn only, whatever the bytes follow: early data,
  what was sent before a reset. While it waits for tokens it is we who hold it back, and no limit of idleness counts.

Everything here belongs to one thread, but for `Relay.live`. It knows no threads and no queues.
"""

import select
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

from tabi.relay._flow import Flow, Linger, Side
from tabi.relay._groups import Groups, Share
from tabi.relay._pipes import PipePool
from tabi.relay._pump import Pump, Pumped
from tabi.relay._spin import LENGTH, Spin
from tabi.relay._tune import tune
from tabi.relay._wheel import TICK, Wheel
from tabi.relay.bucket import Bucket
from tabi.relay.interface import Cause, Closer, End, FlowLimits, Live

__all__ = ["LINGER_MOST", "LINGER_STALL", "Relay"]

# A flow that lingers is given up when the living side has acknowledged nothing for this long, in seconds. A
# reader opens its window a segment at a time (64 KiB on loopback), so this serves readers down to 2 KB/s; and
# six retransmissions fit in. A direct connection would have lost at once whatever was not there yet.
LINGER_STALL: Final = 30.0

# And in all after `half_open`; where that is no limit, after this many seconds.
LINGER_MOST: Final = 600.0

# Looks at SIOCOUTQ come after an eighth of the time lingered so far, at most so many seconds apart.
_LINGER_LOOK: Final = 0.5

# Seconds between looks at a flow that waits for tokens: its turn comes by itself, only limits are looked after.
_HELD_LOOK: Final = 1.0

# Events taken at once: it bounds how stale the time stamp of a batch can be.
_BATCH: Final = 256

_OUT: Final = select.EPOLLOUT
_ERR: Final = select.EPOLLERR
_PRI: Final = select.EPOLLPRI
# Bits with which a short read does not mean that nothing follows.
_UNSURE: Final = select.EPOLLRDHUP | select.EPOLLHUP | _ERR | _PRI
_READABLE: Final = select.EPOLLIN | _UNSURE
_INTEREST: Final = select.EPOLLIN | _OUT | select.EPOLLRDHUP | _PRI | select.EPOLLET


class Neighbour(Protocol):
    """Who else lives on the relay's epoll."""

    def handle(self, fd: int, event: int) -> None:
        """Take an event that is about no flow."""

    def wait(self, now: float) -> float:
        """Return the seconds until there is something to look at; -1: never."""

    def look(self, now: float) -> None:
        """Do what is due."""


class Relay:
    """Holds flows and moves their bytes, a turn at a time.

    Args:
        bell: an eventfd that ends the wait of a turn.
        clock: seconds, monotonic.
        pipes: where pipes come from.
        splice_after: large reads in a row before a stream is spliced.
        spin: look again for a moment before going to sleep, where that has paid.
        steady: congestion control of bulk streams on near legs; empty is the system's.
    """

    __slots__ = (
        "_bell", "_clock", "_ended", "_epoll", "_flows", "_groups", "_has_groups", "_neighbour", "_now", "_pipes",
        "_pump", "_ready", "_sides", "_spin", "_wheel",
    )  # fmt: skip

    def __init__(
        self,
        bell: int,
        *,
        clock: Callable[[], float],
        pipes: PipePool,
        splice_after: int,
        spin: bool = False,
        steady: bytes = b"",
    ) -> None:
        self._bell = bell
        self._clock = clock
        self._now = clock()  # stamped once per batch of events
        self._flows: dict[int, Flow] = {}
        self._sides: dict[int, Side] = {}
        self._ready: list[Side] = []
        self._ended: list[End] = []
        self._wheel: Wheel[Flow] = Wheel()
        self._groups = Groups()
        self._neighbour: Neighbour | None = None
        self._has_groups = False  # once a flow has shared a bucket; before that they cost nothing
        self._pipes = pipes
        self._pump = Pump(pipes, splice_after, steady)
        self._spin = Spin() if spin else None
        self._epoll = select.epoll()
        self._epoll.register(bell, select.EPOLLIN | select.EPOLLET)

    def turn(self, at_most: float = -1.0) -> bool:
        """Wait for something to do, so many seconds unless it is -1, and do it. Return whether the bell rang."""
        timeout = 0.0 if self._ready else _sooner(at_most, self._wheel.wait(self._clock()))
        if self._has_groups:
            timeout = _sooner(timeout, self._groups.wait(self._clock()))
        neighbour = self._neighbour
        if neighbour is not None:
            timeout = _sooner(timeout, neighbour.wait(self._clock()))
        events = self._events(timeout)
        self._now = self._clock()
        rang = False
        for fd, event in events:
            side = self._sides.get(fd)
            if side is not None:
                self._handle(side, event)
            elif fd == self._bell:
                rang = True
            elif neighbour is not None:
                neighbour.handle(fd, event)
        if neighbour is not None:
            neighbour.look(self._now)
        if self._ready:
            self._go_on()
        for flow in self._wheel.due(self._flows, self._now):
            self._look(flow)
        if self._has_groups:
            for flow, share in self._groups.serve(self._now):
                self._take_turn(flow, share)
        return rang

    def take_up(self, flow: Flow) -> None:
        """Make a flow ours. Whatever is there to be read or written comes as its first event.

        Not within a batch of events: the flow may have the descriptor of one that was closed in it.
        """
        self._now = self._clock()
        self._flows[flow.number] = flow
        self._join(flow)
        is_open = self._open(flow.inbound)
        if not self._open(flow.outbound) or not is_open:
            self._cut(flow, Cause.ERROR)
        elif flow.inbound.err:  # which the kernel has told already, and never tells again
            self._linger(flow, flow.inbound)
        else:
            self._arm(flow)
            if flow.tuning is not None:
                tune(flow, flow.tuning)

    def _open(self, side: Side) -> bool:
        """Prepare and watch a side; False: that cannot be."""
        if not side.open():
            return False
        try:
            self._epoll.register(side.fd, _INTEREST)
        except OSError as error:
            side.fail(error)
            return False
        self._sides[side.fd] = side
        return True

    def begin(self, flow: Flow, *, is_sure: bool) -> None:
        """Make a flow ours whose sides are open and watched, and if not `is_sure` see what events there were before."""
        self._flows[flow.number] = flow
        inbound, outbound = flow.inbound, flow.outbound
        self._sides[inbound.fd] = inbound
        self._sides[outbound.fd] = outbound
        limits = flow.limits
        if flow.tuning is not None:
            tune(flow, flow.tuning)
        if limits.buckets:
            self._join(flow)
        if limits.idle or limits.lifetime:
            self._arm(flow)
        if inbound.err:
            self._linger(flow, inbound)
        elif not is_sure or inbound.out is not None or outbound.out is not None:
            self._queue(flow, inbound)
            self._queue(flow, outbound)

    def share_with(self, neighbour: Neighbour) -> None:
        """Wait and look at the epoll for somebody else as well."""
        self._neighbour = neighbour

    def watch(self, fd: int) -> bool:
        """Have the epoll tell of a socket as it does of those of flows; False: it cannot."""
        try:
            self._epoll.register(fd, _INTEREST)
        except OSError:  # ENOMEM, ENOSPC (fs.epoll.max_user_watches)
            return False
        return True

    def listen(self, fd: int) -> bool:
        """Have the epoll tell of connections, again and again until they are accepted; False: it cannot."""
        try:
            self._epoll.register(fd, select.EPOLLIN)
        except OSError:
            return False
        return True

    def ignore(self, fd: int) -> None:
        """Hear no more of a descriptor."""
        self._epoll.unregister(fd)

    def cut(self, number: int, cause: Cause) -> None:
        """Reset both sides of a flow, if there is one of this number."""
        self._now = self._clock()
        if (flow := self._flows.get(number)) is not None:
            self._cut(flow, cause)

    def limit(self, number: int, limits: FlowLimits) -> None:
        """Have a flow keep to other limits, if there is one of this number.

        Not within a batch of events: the flow must not have its turn.
        """
        self._now = self._clock()
        flow = self._flows.get(number)
        if flow is None:
            return
        has_other_groups = limits.buckets != flow.limits.buckets
        flow.limits = limits
        if has_other_groups:
            self._regroup(flow)
        self._arm(flow)

    def set_bucket(self, number: int, bucket: Bucket | None) -> None:
        """Let the flows that name this number share a bucket, or none any more; to be called again for a new rate."""
        self._groups.set_bucket(number, bucket)

    def take_ends(self) -> list[End]:
        """Take the ends of the flows that are over since the last call."""
        ends, self._ended = self._ended, []
        return ends

    def live(self) -> list[Live]:
        """List the flows, from any thread: copying the table is one step under the GIL."""
        return [flow.live() for flow in list(self._flows.values())]

    def close(self, cause: Cause) -> None:
        """Cut all flows and close everything but the bell. The last ends stay to be taken."""
        for number in list(self._flows):
            self.cut(number, cause)
        self._pipes.close()
        self._epoll.close()

    def abandon(self, cause: Cause) -> None:
        """Do the same after a bug, whatever state it has left things in: every socket is reset, every flow reported."""
        for flow in list(self._flows.values()):
            for side in (flow.inbound, flow.outbound):
                if side.sock is None:
                    side.open()
                self._pump.drop(side)
                side.close(reset=True)
            self._note_end(flow, Closer.TABI, cause, 0)
        self._pipes.close()
        self._epoll.close()

    def _events(self, timeout: float) -> list[tuple[int, int]]:
        """Wait for events."""
        spin, poll = self._spin, self._epoll.poll
        if spin is None or not timeout:
            return poll(timeout, _BATCH)
        begin = monotonic()
        if spin.is_worth_it(timeout):
            while monotonic() - begin < LENGTH:
                if events := poll(0, _BATCH):
                    spin.note_spin(was_vain=False)
                    return events
            spin.note_spin(was_vain=True)
            return poll(timeout, _BATCH)
        events = poll(timeout, _BATCH)
        spin.note_wait(monotonic() - begin)
        return events

    def _handle(self, side: Side, event: int) -> None:
        flow, peer = side.flow, side.peer
        assert flow is not None
        assert peer is not None
        if event & _ERR:
            side.take_error()
        if side.err or flow.linger is not None:
            self._linger(flow, side)
            return
        if event & _OUT and (side.out is not None or peer.in_pipe):
            self._move(flow, peer, side, sure=False)
        if event & _READABLE and side.flow is not None:
            self._move(flow, side, peer, sure=not event & _UNSURE)

    def _go_on(self) -> None:
        """Give the flows whose turn was too short another one."""
        ready, self._ready = self._ready, []
        for side in ready:
            side.queued = False
            if side.flow is not None and side.peer is not None:
                self._move(side.flow, side, side.peer, sure=False)

    def _move(self, flow: Flow, source: Side, sink: Side, *, sure: bool) -> None:
        """Pump, and draw the conclusions."""
        if flow.linger is not None:
            self._linger(flow, source)
            return
        before = sink.taken
        if flow.share is None:
            pumped = self._pump.run(source, sink, sure=sure)
        else:
            pumped = self._pump_within(flow.share, source, sink)
        if sink.taken != before:
            flow.last = self._now
        if source.err or sink.err:
            self._linger(flow, source if source.err else sink)
        elif pumped is Pumped.MORE:
            self._queue(flow, source)
        elif pumped is Pumped.ENDED:
            self._pass_fin(flow, source, sink)

    def _queue(self, flow: Flow, source: Side) -> None:
        """Come back to a side that may have more."""
        if not source.queued:
            source.queued = True
            if flow.share is None:
                self._ready.append(source)
            else:
                self._groups.want(flow, flow.share)

    def _pump_within(self, share: Share, source: Side, sink: Side) -> Pumped:
        """Pump what the flow's share allows; outside its turn, queue for one."""
        if source.eof and sink.out is None and not source.in_pipe:
            return Pumped.ENDED  # that costs nothing
        if not share.most:
            return Pumped.MORE
        before = sink.taken
        pumped = self._pump.run_within(source, sink, share.most)
        share.spend(sink.taken - before)
        return pumped

    def _join(self, flow: Flow) -> None:
        """Have a flow share the buckets that its limits name."""
        if flow.limits.buckets:
            flow.share = self._groups.join(flow.limits.buckets)
            self._has_groups = True

    def _regroup(self, flow: Flow) -> None:
        """Take a flow from its groups to those that its limits name now; what has something to move comes along."""
        if flow.share is not None:
            self._groups.leave(flow, flow.share)
            flow.share = None
        self._join(flow)
        for side in (flow.inbound, flow.outbound):
            if side.queued:
                side.queued = False
                self._queue(flow, side)

    def _take_turn(self, flow: Flow, share: Share) -> None:
        """Let a flow move what its groups gave it: half for each side if both want, and the one's rest for the other.

        The sides take turns in going first.
        """
        sides = [side for side in (flow.inbound, flow.outbound) if side.queued]
        if share.last_first:
            sides.reverse()
        share.last_first = not share.last_first
        for side in sides:
            side.queued = False
        reserved = share.most // 2 if len(sides) > 1 else 0
        share.most -= reserved
        for side in sides:
            if side.peer is None:  # the flow is over, and its share settled
                return
            self._move(flow, side, side.peer, sure=False)
            share.most += reserved
            reserved = 0
        share.settle()

    def _pass_fin(self, flow: Flow, source: Side, sink: Side) -> None:
        """Tell the sink that the source has ended, or finish when both have.

        A side is read only while nothing waits for its peer, so `eof` means that all it sent is delivered.
        """
        if flow.fin_from is None:
            flow.fin_from = source
            flow.fin_time = self._now
        if sink.eof:
            self._finish(flow, *flow.verdict())
        elif not sink.shut:
            sink.send_fin()
            if sink.err:
                self._linger(flow, sink)
            else:
                self._arm(flow)

    def _linger(self, flow: Flow, side: Side) -> None:
        """Deliver what a broken side sent before it broke; then, or when that is idle or impossible, finish.

        `side` is where something happened. The first side that broke stays the broken one.
        """
        linger = flow.linger
        if linger is None:
            assert side.peer is not None
            linger = flow.linger = Linger(side, side.peer.acknowledged(), self._now)
            side.out = None  # the other direction has nowhere to go
            self._pump.drop(side.peer)
        broken = linger.broken
        living = broken.peer
        assert living is not None
        if living.err:
            pumped = Pumped.WAITS
        elif flow.share is None:
            pumped = self._pump.run(broken, living, sure=False)
        else:
            pumped = self._pump_within(flow.share, broken, living)
        if pumped is Pumped.MORE:
            self._queue(flow, broken)
        if not living.err and self._pump.discard(living):  # who is stuck in sending would never read
            self._queue(flow, living)
        if living.err or (pumped is Pumped.ENDED and not living.unsent()):
            self._finish(flow, *flow.verdict())
        else:
            self._arm(flow)

    def _look(self, flow: Flow) -> None:
        """Do what is due for a flow whose tick has come."""
        if flow.linger is not None:
            if self._is_hopeless(flow, flow.linger):
                self._finish(flow, *flow.verdict())
            else:
                self._linger(flow, flow.linger.broken)
        elif (due := flow.deadline()) is not None and due[0] <= self._now:
            if due[1] is not Cause.LIFETIME and flow.is_held_back():
                self._wheel.arm(flow, self._now + _HELD_LOOK, self._now)
            else:
                self._cut(flow, due[1])
        else:
            self._arm(flow)

    def _is_hopeless(self, flow: Flow, linger: Linger) -> bool:
        """Tell whether to give up waiting for the acknowledgements of the living side."""
        living = linger.broken.peer
        assert living is not None
        acknowledged = living.acknowledged()
        if acknowledged > linger.mark:
            linger.mark = acknowledged
            linger.moved = self._now
        if flow.is_held_back():
            linger.moved = linger.since = self._now
        lifetime = flow.limits.lifetime
        return (
            self._now - linger.moved >= LINGER_STALL
            or self._now - linger.since >= (flow.limits.half_open or LINGER_MOST)
            or bool(lifetime and self._now - flow.started >= lifetime)
        )

    def _arm(self, flow: Flow) -> None:
        """See to it that the wheel looks at the flow in time."""
        if flow.linger is not None:
            age = self._now - flow.linger.since
            pause = _HELD_LOOK if flow.is_held_back() else min(max(age / 8, TICK), _LINGER_LOOK)
            self._wheel.arm(flow, self._now + pause, self._now)
        elif (due := flow.deadline()) is not None:
            self._wheel.arm(flow, due[0], self._now)

    def _cut(self, flow: Flow, cause: Cause) -> None:
        """End a flow ourselves. One that was reset by a peer and still lingers keeps its cause."""
        if flow.linger is not None:
            self._finish(flow, *flow.verdict())
        else:
            self._finish(flow, Closer.TABI, cause, 0)

    def _finish(self, flow: Flow, closer: Closer, cause: Cause, error: int) -> None:
        """Close both sides, by RST where they live unless both ended by FIN, and note the end."""
        if flow.share is not None:
            self._groups.leave(flow, flow.share)
        for side in (flow.inbound, flow.outbound):
            self._sides.pop(side.fd, None)
            self._pump.drop(side)
            side.close(reset=cause is not Cause.FIN)
        self._note_end(flow, closer, cause, error)

    def _note_end(self, flow: Flow, closer: Closer, cause: Cause, error: int) -> None:
        """Forget a flow, not earlier than this: until then `abandon` finds it."""
        del self._flows[flow.number]
        error = error or flow.inbound.err or flow.outbound.err
        record, up, down = flow.record + flow.tail, flow.outbound.taken, flow.inbound.taken
        self._ended.append(End(flow.number, record, closer, cause, error, up, down, flow.started, self._now))


def _sooner(one: float, other: float) -> float:
    """Take the shorter of two waits; -1 is for ever."""
    return min(one, other) if one >= 0 and other >= 0 else max(one, other)
