"""Flows that share token buckets: who waits for tokens, and who gets how many.

The rules are those of `tabi.relay._groups`: a flow of groups moves no byte outside its turn; it queues at the first of
its groups that has to give it something; once per batch of events the groups hand out what their buckets have, in equal
parts to all that wait; what a turn leaves over goes back. A group without tokens is looked at again by the wheel.

`next_turn` walks through all that: each share that it returns may move `most` bytes before it is called again.
"""

from libc.stdint cimport int64_t, uint32_t

from tabi.relay._native cimport bucket as buckets
from tabi.relay._native cimport memory
from tabi.relay._native cimport wheel as wheels
from tabi.relay._native.bucket cimport QUANTUM, Bucket
from tabi.relay._native.node cimport Node
from tabi.relay._native.sys cimport check
from tabi.relay._native.wheel cimport TICK, Wheel

cdef struct Group:  # made by the control plane, which keeps it as long as the engine; the rest is the engine's thread's
    Node node  # for the wheel
    Bucket bucket
    Share *first  # the queue
    Share *last
    Group *busier  # the next of the groups that are served
    uint32_t flows
    uint32_t queued
    int64_t held  # tokens handed to flows that stand in another group's queue or have their turn
    int64_t spare  # tokens that are being handed out
    bint is_served  # that is going on
    bint is_busy  # stands in the list of groups that are served next

cdef struct Part:  # of a share: one of its groups
    Group *group
    int64_t credit

cdef struct Share:  # what one flow has to do with its groups; the flow frees it
    Node *flow
    Group *at  # in whose queue it stands
    Share *before
    Share *after
    int64_t most  # bytes that may be moved now; 0 outside the flow's turn
    bint last_first  # in its last turn the side that comes second went first
    uint32_t count
    Part parts[1]  # so many as `count` says

cdef struct Groups:
    Wheel *wheel
    Group *busy  # to be served, the first in the list
    Group *busiest  # and the last
    Group *serving  # what is left of this round
    Group *current
    uint32_t left  # of the queue of the current one, as it was when its service began
    int64_t drawn


cdef inline Share *make_share(uint32_t count) noexcept nogil:
    """Make one of so many parts, which the caller fills in."""
    cdef Share *share = <Share *>memory.take_zeroed(1, sizeof(Share) + sizeof(Part) * count)
    if share != NULL:
        share.count = count
    return share


cdef inline void check_is_empty(Group *group) noexcept nogil:
    """See to it that all flows have left, and given back what they had."""
    check(not group.flows)
    check(not group.queued)
    check(not group.held)
    check(not group.spare)


cdef inline bint are_alike(Share *one, Share *other) noexcept nogil:
    """Say whether two shares are in the same groups; NULL is in none."""
    cdef uint32_t number
    if one == NULL or other == NULL or one.count != other.count:
        return one == other
    for number in range(one.count):
        if one.parts[number].group != other.parts[number].group:
            return False
    return True


cdef inline void rouse(Groups *groups, Group *group) noexcept nogil:
    """See to it that a group is served in the next round."""
    if group.is_busy:
        return
    group.is_busy = True
    group.busier = NULL
    if groups.busy == NULL:
        groups.busy = group
    else:
        groups.busiest.busier = group
    groups.busiest = group


cdef inline void unqueue(Share *share) noexcept nogil:
    """Take a share out of the queue that it stands in."""
    cdef Group *group = share.at
    if share.before != NULL:
        share.before.after = share.after
    else:
        group.first = share.after
    if share.after != NULL:
        share.after.before = share.before
    else:
        group.last = share.before
    group.queued -= 1
    share.at = NULL


cdef inline void enqueue(Groups *groups, Group *group, Share *share) noexcept nogil:
    """Put a share at the end of a group's queue."""
    share.at = group
    share.after = NULL
    share.before = group.last
    if group.last != NULL:
        group.last.after = share
    else:
        group.first = share
    group.last = share
    group.queued += 1
    if not group.node.tick:  # else it has just run dry, and its time will come
        rouse(groups, group)


cdef inline void want(Groups *groups, Share *share) noexcept nogil:
    """A flow has, or may have, something to move."""
    if share.at == NULL:
        enqueue(groups, share.parts[0].group, share)


cdef inline void join(Share *share) noexcept nogil:
    """A flow begins."""
    cdef uint32_t number
    for number in range(share.count):
        share.parts[number].group.flows += 1


cdef inline void spent(Share *share, int64_t count) noexcept nogil:
    """Pay for bytes that were moved."""
    cdef uint32_t number
    share.most -= count
    for number in range(share.count):
        share.parts[number].credit -= count
        share.parts[number].group.held -= count


cdef inline void settle(Share *share) noexcept nogil:
    """Give back what is left."""
    cdef uint32_t number
    cdef Part *part
    share.most = 0
    for number in range(share.count):
        part = &share.parts[number]
        part.group.held -= part.credit
        if part.group.is_served:
            part.group.spare += part.credit
        else:
            buckets.give_back(&part.group.bucket, part.credit, False)
        part.credit = 0


cdef inline void quit(Share *share) noexcept nogil:
    """A flow is over, or goes to other groups."""
    cdef uint32_t number
    if share.at != NULL:
        unqueue(share)
    settle(share)
    for number in range(share.count):
        share.parts[number].group.flows -= 1


cdef inline void rate_changed(Groups *groups, Group *group) noexcept nogil:
    """The bucket of a group has another rate, or none any more."""
    wheels.disarm(groups.wheel, &group.node)  # its time was reckoned by the old rate
    if group.queued:
        rouse(groups, group)


cdef inline void begin_round(Groups *groups) noexcept nogil:
    """Serve all that are busy now; who becomes so meanwhile comes next time."""
    check(groups.serving == NULL)
    check(groups.current == NULL)
    groups.serving = groups.busy
    groups.busy = NULL


cdef inline void begin_service(Groups *groups, Group *group, int64_t now) noexcept nogil:
    """Draw what the bucket has."""
    groups.current = group
    groups.left = group.queued
    groups.drawn = buckets.draw(&group.bucket, now, group.queued, group.held) if group.queued else 0
    group.spare = groups.drawn
    group.is_served = True


cdef inline void end_service(Groups *groups, Group *group, int64_t now) noexcept nogil:
    """Give the rest back; see to it that a group with a queue is served again: at once if it has tokens, else later."""
    cdef int64_t pause
    group.is_served = False
    group.is_busy = False
    groups.current = NULL
    buckets.give_back(&group.bucket, group.spare, False)
    group.spare = 0
    buckets.tell(&group.bucket, group.queued)
    if group.queued:
        pause = buckets.wait(&group.bucket, now)
        if pause > 0 or not groups.drawn:
            wheels.arm(groups.wheel, &group.node, now + max(pause, <int64_t>TICK), now)
        else:
            rouse(groups, group)


cdef inline Part *missing(Share *share) noexcept nogil:
    """Give the next of the parts that are empty: its group has to give something before the flow may have its turn."""
    cdef uint32_t number
    for number in range(share.count):
        if not share.parts[number].credit:
            return &share.parts[number]
    return NULL


cdef inline Share *hand_out(Groups *groups, Group *group) noexcept nogil:
    """Give the first in the queue its part. Return the share if it may have its turn now."""
    cdef Share *share = group.first
    cdef Part *lacking
    cdef uint32_t number
    cdef int64_t part = max(<int64_t>QUANTUM, group.spare // groups.left)
    unqueue(share)
    group.spare -= part
    groups.left -= 1
    group.held += part
    for number in range(share.count):
        if share.parts[number].group == group:
            share.parts[number].credit = part
    lacking = missing(share)
    if lacking != NULL:
        enqueue(groups, lacking.group, share)
        return NULL
    share.most = share.parts[0].credit
    for number in range(1, share.count):
        share.most = min(share.most, share.parts[number].credit)
    return share


cdef inline Share *next_turn(Groups *groups, int64_t now) noexcept nogil:
    """Return whose turn it is, NULL at the end of the round."""
    cdef Group *group
    cdef Share *share
    while True:
        group = groups.current
        if group == NULL:
            if groups.serving == NULL:
                return NULL
            group = groups.serving
            groups.serving = group.busier
            begin_service(groups, group, now)
        while groups.left and group.spare >= QUANTUM and group.queued:
            share = hand_out(groups, group)
            if share != NULL:
                return share
        end_service(groups, group, now)
