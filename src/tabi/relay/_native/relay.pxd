"""The flows of the engine's thread: when each is looked at next, who comes back to which, and how one ends.

What an event means for a flow is decided in `traffic`; the rules for all that are those of `tabi.relay._relay`.
"""

from libc.errno cimport ECONNRESET, ENOMEM, ENOTCONN, EPIPE
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport realloc

from tabi.relay._native cimport flow as flows
from tabi.relay._native cimport groups as sharing
from tabi.relay._native cimport memory
from tabi.relay._native cimport pump as pumps
from tabi.relay._native cimport wheel as wheels
from tabi.relay._native.flow cimport FIN_IN, FIN_OUT, LIVE, OVER, QUEUED, READY, Flow, Side
from tabi.relay._native.groups cimport Groups
from tabi.relay._native.node cimport Node
from tabi.relay._native.pump cimport Pump
from tabi.relay._native.sys cimport NS, check, store_byte
from tabi.relay._native.wheel cimport TICK, Wheel

cdef enum Cause:  # the values of tabi.relay.interface.Cause, which a test compares
    FIN = 0
    RST
    ERROR
    IDLE
    HALF_OPEN
    LIFETIME
    KILL
    POLICY
    SHUTDOWN
    BUG

cdef enum Closer:  # and those of Closer
    CLIENT = 0
    TARGET
    TABI

cdef enum:
    LINGER_LOOK = NS // 2  # looks at SIOCOUTQ are at most so far apart
    HELD_LOOK = NS  # between looks at a flow that waits for tokens

cdef struct Relay:
    int epoll  # the loop's, which closes it
    int64_t now  # stamped once per batch of events
    Wheel wheel
    Groups groups
    Pump pump
    Flow **ready  # to go on with, as they have more than fits into a turn
    uint32_t ready_count
    uint32_t ready_room
    Node *over  # flows that are over, the newest first, until the loop hands them back
    Node *over_oldest
    int64_t over_count


cdef inline int64_t seconds(double count) noexcept nogil:
    """Give so many seconds in nanoseconds."""
    return <int64_t>(count * NS)


cdef inline int64_t fin_time(Relay *relay, Flow *flow) noexcept nogil:
    """Say when the first FIN came, to a tick."""
    return relay.now - <int64_t>(wheels.tick_of(relay.now) - flow.fin_tick) * TICK


cdef inline int64_t deadline(Relay *relay, Flow *flow, Cause *cause) noexcept nogil:
    """Say when the next of its time limits is reached and which one it is; 0: there is none."""
    cdef int64_t when, nearest = 0
    if flow.lifetime > 0:
        nearest = flow.started + seconds(flow.lifetime)
        cause[0] = LIFETIME
    if flow.idle > 0:
        when = flow.last + seconds(flow.idle)
        if not nearest or when < nearest:
            nearest = when
            cause[0] = IDLE
    if flow.half_open > 0 and flow.node.marks & (FIN_IN | FIN_OUT):
        when = max(flow.last, fin_time(relay, flow)) + seconds(flow.half_open)
        if not nearest or when < nearest:
            nearest = when
            cause[0] = HALF_OPEN
    return nearest


cdef inline void retire(Relay *relay, Flow *flow) noexcept nogil:
    """Put a flow that is over where the loop hands it back."""
    flow.node.next = relay.over
    if relay.over == NULL:
        relay.over_oldest = &flow.node
    relay.over = &flow.node
    relay.over_count += 1


cdef inline void finish(Relay *relay, Flow *flow, int closer, Cause cause, int error) noexcept nogil:
    """Close both sides, by RST where they live unless both ended by FIN, and note the end."""
    check(flow.node.state == LIVE)
    wheels.disarm(&relay.wheel, &flow.node)
    if flow.share != NULL:
        sharing.quit(flow.share)
        memory.drop(flow.share)
        flow.share = NULL
    memory.drop(flow.linger)
    flow.linger = NULL
    pumps.drop(&relay.pump, &flow.inbound)
    pumps.drop(&relay.pump, &flow.outbound)
    flows.close_side(&flow.inbound, cause != FIN)
    flows.close_side(&flow.outbound, cause != FIN)
    if not error:
        error = flow.inbound.err or flow.outbound.err
    flow.inbound.err = error
    flow.last = relay.now
    flow.node.cause = cause
    store_byte(&flow.node.state, OVER + closer)
    if not flow.node.marks & READY:  # else its place in that list is still to come
        retire(relay, flow)


cdef inline Cause cause_of(int error) noexcept nogil:
    """Tell a reset from other errors, whichever call met it: EPIPE is SO_ERROR of a reset after a FIN, ENOTCONN is
    shutdown() on a socket whose reset has been told to somebody already."""
    return RST if error in (ECONNRESET, EPIPE, ENOTCONN) else ERROR


cdef inline void finish_by_peer(Relay *relay, Flow *flow) noexcept nogil:
    """Note the end that a peer made: which side, how, and with which errno."""
    cdef Side *broken
    if flow.linger != NULL:
        broken = flows.broken_side(flow)
        finish(relay, flow, CLIENT if broken == &flow.inbound else TARGET, cause_of(broken.err), broken.err)
    else:
        check(flow.node.marks & (FIN_IN | FIN_OUT))
        finish(relay, flow, CLIENT if flow.node.marks & FIN_IN else TARGET, FIN, 0)


cdef inline void cut(Relay *relay, Flow *flow, Cause cause) noexcept nogil:
    """End a flow ourselves. One that was reset by a peer and still lingers keeps its cause."""
    if flow.linger != NULL:
        finish_by_peer(relay, flow)
    else:
        finish(relay, flow, TABI, cause, 0)


cdef inline void arm(Relay *relay, Flow *flow) noexcept nogil:
    """See to it that the wheel looks at the flow in time."""
    cdef int64_t when
    cdef Cause cause = FIN
    if flow.linger != NULL:
        when = min(max((relay.now - flow.linger.since) // 8, <int64_t>TICK), <int64_t>LINGER_LOOK)
        when = relay.now + (HELD_LOOK if flows.is_held_back(flow) else when)
    else:
        when = deadline(relay, flow, &cause)
    if when:
        wheels.arm(&relay.wheel, &flow.node, when, relay.now)


cdef inline bint has_room(Relay *relay) noexcept nogil:
    """Make room for another flow in the list of those that go on."""
    cdef uint32_t room = relay.ready_room * 2 or 64
    cdef void *larger
    if relay.ready_count < relay.ready_room:
        return True
    larger = realloc(relay.ready, room * sizeof(Flow *))
    if larger == NULL:
        return False
    relay.ready = <Flow **>larger
    relay.ready_room = room
    return True


cdef inline void queue(Relay *relay, Flow *flow, Side *source) noexcept nogil:
    """Come back to a side that may have more."""
    if source.marks & QUEUED:
        return
    source.marks |= QUEUED
    if flow.share != NULL:
        sharing.want(&relay.groups, flow.share)
    elif not flow.node.marks & READY:
        if has_room(relay):
            flow.node.marks |= READY
            relay.ready[relay.ready_count] = flow
            relay.ready_count += 1
        else:
            flows.fail(source, ENOMEM)
            cut(relay, flow, ERROR)
