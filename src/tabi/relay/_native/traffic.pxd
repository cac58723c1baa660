"""What happens to flows: events, turns, deadlines, orders; and what follows from each.

The rules are those of `tabi.relay._relay`, which explains them: an end is passed on behind the last byte, a reset as a
reset behind all that came before it (the flow *lingers*), SO_ERROR is asked before any read, RDHUP and HUP alone say
nothing but "read", what we cut ourselves is reset on both sides, and a flow that shares token buckets moves bytes in
its turn only.
"""

from libc.errno cimport ENOMEM, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memmove

from tabi.relay._native cimport flow as flows
from tabi.relay._native cimport groups as sharing
from tabi.relay._native cimport memory
from tabi.relay._native cimport pump as pumps
from tabi.relay._native cimport wheel as wheels
from tabi.relay._native.flow cimport AT_END, FIN_IN, FIN_OUT, LIVE, OUTBOUND, QUEUED, READY, SHUT, Flow, Linger, Side
from tabi.relay._native.groups cimport Share
from tabi.relay._native.pump cimport ENDED, MORE, WAITS, Pumped
from tabi.relay._native.relay cimport (
    ERROR,
    FIN,
    HELD_LOOK,
    LIFETIME,
    Cause,
    Relay,
    arm,
    cut,
    deadline,
    finish_by_peer,
    queue,
    retire,
    seconds,
)
from tabi.relay._native.sys cimport (
    EPOLL_CTL_ADD,
    EPOLLERR,
    EPOLLET,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLPRI,
    EPOLLRDHUP,
    epoll_ctl,
    epoll_event,
    store_byte,
)
from tabi.relay._native.tuning cimport Tuning, tune

cdef enum:
    LINGER_STALL = 30  # seconds without an acknowledgement after which a flow that lingers is given up
    LINGER_MOST = 600  # and in all, where `half_open` is no limit


cdef inline uint32_t unsure() noexcept nogil:
    """Give the bits with which a short read does not mean that nothing follows."""
    return EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI


cdef inline Pumped pump_within(Relay *relay, Share *share, Side *source, Side *sink) noexcept nogil:
    """Pump what the flow's share allows; outside its turn, queue for one."""
    cdef int64_t before = sink.taken
    cdef Pumped pumped
    if source.marks & AT_END and not pumps.waits(&relay.pump, source, sink):
        return ENDED  # that costs nothing
    if not share.most:
        return MORE
    pumped = pumps.run_within(&relay.pump, source, sink, share.most)
    sharing.spent(share, sink.taken - before)
    return pumped


cdef inline Pumped pump(Relay *relay, Flow *flow, Side *source, Side *sink, bint sure) noexcept nogil:
    """Move bytes from one side of a flow to the other."""
    if flow.share != NULL:
        return pump_within(relay, flow.share, source, sink)
    return pumps.run(&relay.pump, source, sink, sure)


cdef inline bint begin_linger(Relay *relay, Flow *flow, Side *side) noexcept nogil:
    """Note that a side broke; the other direction has nowhere to go. False if there is no memory."""
    cdef Side *living = flows.peer_of(side)
    flow.linger = <Linger *>memory.take(sizeof(Linger))
    if flow.linger == NULL:
        return False
    flow.linger.mark = flows.acknowledged(living)
    flow.linger.moved = flow.linger.since = relay.now
    flow.linger.is_outbound = (side.marks & OUTBOUND) != 0
    flows.forget_owed(side)
    pumps.drop(&relay.pump, living)
    return True


cdef inline void linger(Relay *relay, Flow *flow, Side *side) noexcept nogil:
    """Deliver what a broken side sent before it broke; then, or when that is idle or impossible, finish.

    `side` is where something happened. The first side that broke stays the broken one.
    """
    cdef Side *broken
    cdef Side *living
    cdef Pumped pumped = WAITS
    cdef bint has_more = False
    if flow.linger == NULL and not begin_linger(relay, flow, side):
        cut(relay, flow, ERROR)
        return
    broken = flows.broken_side(flow)
    living = flows.peer_of(broken)
    if not living.err:
        pumped = pump(relay, flow, broken, living, False)
    if not living.err:
        has_more = pumps.discard(&relay.pump, living)  # who is stuck in sending would never read
    if living.err or (pumped == ENDED and not flows.unsent(living)):
        finish_by_peer(relay, flow)
        return
    arm(relay, flow)
    if pumped == MORE:
        queue(relay, flow, broken)
    if has_more and flow.node.state == LIVE:
        queue(relay, flow, living)


cdef inline void pass_fin(Relay *relay, Flow *flow, Side *source, Side *sink) noexcept nogil:
    """Tell the sink that the source has ended, or finish when both have.

    A side is read only while nothing waits for its peer, so AT_END means that all it sent is delivered.
    """
    if not flow.node.marks & (FIN_IN | FIN_OUT):
        flow.node.marks |= FIN_OUT if source.marks & OUTBOUND else FIN_IN
        flow.fin_tick = wheels.tick_of(relay.now)
    if sink.marks & AT_END:
        finish_by_peer(relay, flow)
    elif not sink.marks & SHUT:
        flows.send_fin(sink)
        if sink.err:
            linger(relay, flow, sink)
        else:
            arm(relay, flow)


cdef inline void move(Relay *relay, Flow *flow, Side *source, bint sure) noexcept nogil:
    """Pump, and draw the conclusions."""
    cdef Side *sink = flows.peer_of(source)
    cdef int64_t before = sink.taken
    cdef Pumped pumped
    if flow.linger != NULL:
        linger(relay, flow, source)
        return
    pumped = pump(relay, flow, source, sink, sure)
    if sink.taken != before:
        flow.last = relay.now
    if source.err or sink.err:
        linger(relay, flow, source if source.err else sink)
    elif pumped == MORE:
        queue(relay, flow, source)
    elif pumped == ENDED:
        pass_fin(relay, flow, source, sink)


cdef inline void handle(Relay *relay, Side *side, uint32_t event) noexcept nogil:
    """Do what an event asks for."""
    cdef Flow *flow = flows.flow_of(side)
    if event & EPOLLERR:
        flows.take_error(side)
    if side.err or flow.linger != NULL:
        linger(relay, flow, side)
        return
    if event & EPOLLOUT and pumps.waits(&relay.pump, flows.peer_of(side), side):
        move(relay, flow, flows.peer_of(side), False)
    if event & (EPOLLIN | unsure()) and flow.node.state == LIVE:
        move(relay, flow, side, not event & unsure())


cdef inline void go_on_with(Relay *relay, Flow *flow, Side *side) noexcept nogil:
    """Move on from this side if it was to be come back to."""
    if flow.node.state == LIVE and side.marks & QUEUED:
        side.marks &= ~QUEUED
        move(relay, flow, side, False)


cdef inline void go_on(Relay *relay) noexcept nogil:
    """Give the flows whose turn was too short another one."""
    cdef uint32_t number, count = relay.ready_count
    cdef Flow *flow
    if not count:
        return
    for number in range(count):
        flow = relay.ready[number]
        flow.node.marks &= ~READY
        if flow.node.state != LIVE:
            retire(relay, flow)
            continue
        go_on_with(relay, flow, &flow.inbound)
        go_on_with(relay, flow, &flow.outbound)
    relay.ready_count -= count
    memmove(relay.ready, relay.ready + count, relay.ready_count * sizeof(Flow *))


cdef inline void take_turn(Relay *relay, Flow *flow) noexcept nogil:
    """Let a flow move what its groups gave it: half for each side if both want, and the one's rest for the other.

    The sides take turns in going first.
    """
    cdef Share *share = flow.share
    cdef Side *first = &flow.outbound if share.last_first else &flow.inbound
    cdef Side *second = flows.peer_of(first)
    cdef bint has_first = (first.marks & QUEUED) != 0
    cdef bint has_second = (second.marks & QUEUED) != 0
    cdef int64_t reserved = share.most // 2 if has_first and has_second else 0
    share.last_first = not share.last_first
    first.marks &= ~QUEUED
    second.marks &= ~QUEUED
    share.most -= reserved
    if has_first:
        move(relay, flow, first, False)
    if has_second and flow.node.state == LIVE:
        share.most += reserved
        move(relay, flow, second, False)
    if flow.node.state == LIVE:  # else its share is settled, and gone
        sharing.settle(share)


cdef inline void serve_groups(Relay *relay) noexcept nogil:
    """Hand out tokens, and let everybody move as much."""
    cdef Share *share
    sharing.begin_round(&relay.groups)
    while True:
        share = sharing.next_turn(&relay.groups, relay.now)
        if share == NULL:
            return
        take_turn(relay, <Flow *>share.flow)


cdef inline bint is_hopeless(Relay *relay, Flow *flow) noexcept nogil:
    """Tell whether to give up waiting for the acknowledgements of the living side."""
    cdef Linger *linger = flow.linger
    cdef int64_t acknowledged = flows.acknowledged(flows.peer_of(flows.broken_side(flow)))
    if acknowledged > linger.mark:
        linger.mark = acknowledged
        linger.moved = relay.now
    if flows.is_held_back(flow):
        linger.moved = linger.since = relay.now
    return (
        relay.now - linger.moved >= seconds(LINGER_STALL)
        or relay.now - linger.since >= seconds(flow.half_open if flow.half_open > 0 else LINGER_MOST)
        or (flow.lifetime > 0 and relay.now - flow.started >= seconds(flow.lifetime))
    )


cdef inline void look(Relay *relay, Flow *flow) noexcept nogil:
    """Do what is due for a flow whose tick has come."""
    cdef Cause cause = FIN
    cdef int64_t due
    if flow.linger != NULL:
        if is_hopeless(relay, flow):
            finish_by_peer(relay, flow)
        else:
            linger(relay, flow, flows.broken_side(flow))
        return
    due = deadline(relay, flow, &cause)
    if not due or due > relay.now:
        arm(relay, flow)
    elif cause != LIFETIME and flows.is_held_back(flow):
        wheels.arm(&relay.wheel, &flow.node, relay.now + HELD_LOOK, relay.now)
    else:
        cut(relay, flow, cause)


cdef inline int watch(Relay *relay, Side *side) noexcept nogil:
    """Register a side, once and for all."""
    cdef epoll_event event
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET
    event.data.u64 = <uint64_t>side
    return epoll_ctl(relay.epoll, EPOLL_CTL_ADD, side.fd, &event)


cdef inline bint open_and_watch(Relay *relay, Side *side) noexcept nogil:
    """Prepare and register a side; False: that cannot be."""
    if not flows.open_side(side):
        return False
    if watch(relay, side) < 0:
        flows.fail(side, errno)
        return False
    return True


cdef inline void close_once(Flow *flow) noexcept nogil:
    """See to it that one descriptor for both sides is closed once."""
    if flow.inbound.fd == flow.outbound.fd:
        flow.outbound.fd = -1


cdef inline void turn_away(Relay *relay, Flow *flow, Cause cause) noexcept nogil:
    """End a flow that came when the engine was over."""
    store_byte(&flow.node.state, LIVE)
    if flow.share != NULL:
        sharing.join(flow.share)
    flows.open_side(&flow.inbound)
    flows.open_side(&flow.outbound)
    close_once(flow)
    cut(relay, flow, cause)


cdef inline void take_up(Relay *relay, Flow *flow) noexcept nogil:
    """Make a flow ours, between batches of events. Whatever is there to be read or written comes as its first event."""
    cdef bint is_open
    flow.node.tick = 0
    store_byte(&flow.node.state, LIVE)
    if flow.share != NULL:
        sharing.join(flow.share)
    tune(flow, <const Tuning *>flow.before)  # first: the epoll tells at once of what there is
    is_open = open_and_watch(relay, &flow.inbound)
    if not open_and_watch(relay, &flow.outbound) or not is_open:
        close_once(flow)
        cut(relay, flow, ERROR)
    elif flow.inbound.err:  # which the kernel has told already, and never tells again
        linger(relay, flow, &flow.inbound)
    else:
        look(relay, flow)  # its time may have come while it waited to be taken up


cdef inline Share *copy_for(Share *share, Flow *flow) noexcept nogil:
    """Make a share in the same groups; NULL if there is no memory."""
    cdef Share *made = sharing.make_share(share.count)
    cdef uint32_t number
    if made != NULL:
        made.flow = &flow.node
        for number in range(share.count):
            made.parts[number].group = share.parts[number].group
    return made


cdef inline void queue_again(Relay *relay, Flow *flow, Side *side) noexcept nogil:
    """Let a side that stood in a queue stand where its flow's share says now."""
    if flow.node.state == LIVE and side.marks & QUEUED:
        side.marks &= ~QUEUED
        queue(relay, flow, side)


cdef inline bint regroup(Relay *relay, Flow *flow, Share *share) noexcept nogil:
    """Take a flow from its groups to those of this share; what has something to move comes along."""
    cdef Share *made = NULL
    if share != NULL:
        made = copy_for(share, flow)
        if made == NULL:
            return False
        sharing.join(made)
    if flow.share != NULL:
        sharing.quit(flow.share)
        memory.drop(flow.share)
    flow.share = made
    queue_again(relay, flow, &flow.inbound)
    queue_again(relay, flow, &flow.outbound)
    return True


cdef inline void limit(
    Relay *relay, Flow *flow, float idle, float half_open, float lifetime, Share *share
) noexcept nogil:
    """Have a flow keep to other limits. Not within a batch of events: the flow must not have its turn."""
    flow.idle = idle
    flow.half_open = half_open
    flow.lifetime = lifetime
    if not sharing.are_alike(flow.share, share) and not regroup(relay, flow, share):
        flows.fail(&flow.inbound, ENOMEM)
        cut(relay, flow, ERROR)
    elif flow.node.state == LIVE:
        look(relay, flow)  # a limit may have been passed already
