"""Flows that share token buckets: who waits for tokens, and who gets how many.

A flow of one or more groups moves no byte outside its turn. What happens to it is only noted (`Groups.want`), and the
flow queues at the first of its groups. Once per batch of events the groups hand out what their buckets have, in equal
parts to all that wait, so that the first in a batch does not take all. A flow of several groups passes through their
queues one after the other and keeps what it got; whoever stands in a queue comes first in time, so nobody starves. What
a turn leaves over goes back.

A group without tokens is looked at again by a wheel of its own: its flows get no new edge from epoll.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from tabi.relay._flow import Flow
from tabi.relay._wheel import TICK, Wheel
from tabi.relay.bucket import QUANTUM, Bucket

__all__ = ["Group", "Groups", "Share"]

_UNLIMITED: Final = Bucket()


class Group:
    """The flows of one bucket."""

    __slots__ = ("bucket", "flows", "held", "is_busy", "is_served", "number", "queue", "spare", "tick")

    def __init__(self, number: int, bucket: Bucket) -> None:
        self.number = number
        self.bucket = bucket
        self.flows = 0
        self.queue: OrderedDict[Flow, None] = OrderedDict()
        self.held = 0  # tokens handed to flows that stand in another group's queue or have their turn
        self.spare = 0  # tokens that are being handed out
        self.is_served = False  # that is going on
        self.is_busy = False  # stands in the list of groups that are served next
        self.tick = 0  # where the wheel will look at it; 0 is nowhere


class Share:
    """What one flow has to do with its groups."""

    __slots__ = ("at", "credits", "groups", "last_first", "most")

    def __init__(self, groups: tuple[Group, ...]) -> None:
        self.groups = groups
        self.credits = [0] * len(groups)
        self.at: Group | None = None  # in whose queue it stands
        self.most = 0  # bytes that may be moved now; 0 outside the flow's turn
        self.last_first = False  # in its last turn the side that comes second went first

    def missing(self) -> Group | None:
        """Give the next of the groups that have to give it something before it may have its turn."""
        return next((group for group, got in zip(self.groups, self.credits, strict=True) if not got), None)

    def spend(self, count: int) -> None:
        """Pay for bytes that were moved."""
        self.most -= count
        for index, group in enumerate(self.groups):
            self.credits[index] -= count
            group.held -= count

    def settle(self) -> None:
        """Give back what is left."""
        self.most = 0
        for index, group in enumerate(self.groups):
            if left := self.credits[index]:
                self.credits[index] = 0
                group.held -= left
                if group.is_served:
                    group.spare += left
                else:
                    group.bucket.give_back(left)


class Groups:
    """All groups of one engine."""

    __slots__ = ("_busy", "_groups", "_wheel")

    def __init__(self) -> None:
        self._groups: dict[int, Group] = {}
        self._wheel: Wheel[Group] = Wheel()
        self._busy: list[Group] = []

    def set_bucket(self, number: int, bucket: Bucket | None) -> None:
        """Have a group draw from this bucket, which may be the one that it has, at another rate; None: no limit."""
        group = self._groups.get(number)
        if group is None:
            if bucket is not None:
                self._groups[number] = Group(number, bucket)
            return
        group.bucket = _UNLIMITED if bucket is None else bucket
        group.tick = 0  # its time was reckoned by the old rate
        if group.queue:
            self._rouse(group)
        self._forget(group)

    def join(self, numbers: tuple[int, ...]) -> Share:
        """Give a flow its share in these groups."""
        groups = []
        for number in dict.fromkeys(numbers):
            group = self._groups.get(number)
            if group is None:
                group = self._groups[number] = Group(number, _UNLIMITED)
            group.flows += 1
            groups.append(group)
        return Share(tuple(groups))

    def leave(self, flow: Flow, share: Share) -> None:
        """A flow is over."""
        if share.at is not None:
            del share.at.queue[flow]
            share.at = None
        share.settle()
        for group in share.groups:
            group.flows -= 1
            self._forget(group)

    def want(self, flow: Flow, share: Share) -> None:
        """A flow has, or may have, something to move."""
        if share.at is None:
            self._enqueue(share.groups[0], flow, share)

    def wait(self, now: float) -> float:
        """Return the seconds until something is to be handed out: -1 if nothing will be."""
        return 0.0 if self._busy else self._wheel.wait(now)

    def serve(self, now: float) -> Iterator[tuple[Flow, Share]]:
        """Hand out tokens: each flow that is yielded may move `Share.most` bytes before the next one is asked for."""
        for group in self._wheel.due(self._groups, now):
            self._rouse(group)
        busy, self._busy = self._busy, []
        for group in busy:
            drawn = 0
            if group.queue:
                group.spare = drawn = group.bucket.draw(now, len(group.queue), group.held)
                group.is_served = True
                yield from self._serve(group)
                group.is_served = False
                group.bucket.give_back(group.spare)
                group.bucket.tell(len(group.queue))
                group.spare = 0
            group.is_busy = False
            if group.queue:
                self._come_back(group, now, is_dry=not drawn)

    def _serve(self, group: Group) -> Iterator[tuple[Flow, Share]]:
        """Give every flow that stands in the queue now its part, as far as the tokens go."""
        left = len(group.queue)
        while left and group.spare >= QUANTUM and group.queue:
            flow, _ = group.queue.popitem(last=False)
            share = flow.share
            assert share is not None
            part = max(QUANTUM, group.spare // left)
            group.spare -= part
            left -= 1
            group.held += part
            share.credits[share.groups.index(group)] = part
            share.at = None
            if (missing := share.missing()) is not None:
                self._enqueue(missing, flow, share)
            else:
                share.most = min(share.credits)
                yield flow, share

    def _enqueue(self, group: Group, flow: Flow, share: Share) -> None:
        group.queue[flow] = None
        share.at = group
        if not group.tick:  # else it has just run dry, and its time will come
            self._rouse(group)

    def _rouse(self, group: Group) -> None:
        if not group.is_busy:
            group.is_busy = True
            self._busy.append(group)

    def _come_back(self, group: Group, now: float, *, is_dry: bool) -> None:
        """See to it that a group with a queue is served again: at once if it has tokens, else in a while."""
        wait = group.bucket.wait(now)
        if wait > 0 or is_dry:
            self._wheel.arm(group, now + max(wait, TICK), now)
        else:
            self._rouse(group)

    def _forget(self, group: Group) -> None:
        if not group.flows and group.bucket.rate is None:
            self._groups.pop(group.number, None)
