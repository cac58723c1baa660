"""The hall of the express lane: who waits in there, how long, and the ways out, to the control plane and to the relay.

Everything but `called` and `waiting` belongs to the engine's thread. Calls are gathered and go at the end of a turn.
"""

from libc.errno cimport EIO
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from tabi.relay._native cimport arrival as arrivals
from tabi.relay._native cimport memory
from tabi.relay._native cimport permit as permits
from tabi.relay._native cimport rows as counts
from tabi.relay._native cimport slab as slabs
from tabi.relay._native cimport tables as learnt
from tabi.relay._native cimport traffic
from tabi.relay._native cimport wheel as wheels
from tabi.relay._native.arrival cimport ASK, EXHAUSTED, HANDOVER, Arrival, Ask, Call, Exhausted, Listener
from tabi.relay._native.flow cimport ARRIVING, FREE, Flow, Side
from tabi.relay._native.node cimport ARRIVAL, Node, push
from tabi.relay._native.relay cimport Relay
from tabi.relay._native.rows cimport Rows
from tabi.relay._native.slab cimport Slab
from tabi.relay._native.sys cimport (
    EPOLL_CTL_DEL,
    add_count,
    check,
    close,
    epoll_ctl,
    load_count,
    monotonic,
    store_byte,
)
from tabi.relay._native.tables cimport Tables

cdef enum:
    CHAINS = 1024  # of arrivals that wait for a permit

cdef struct Hall:
    Relay *relay
    Slab *slab
    const int64_t *hand  # the clock, if somebody else moves it
    Rows rows
    int64_t numbers  # the row by which sessions are numbered
    int64_t patience
    int keepalive[3]  # seconds of silence, between probes, and how many of these (`tabi.relay.options`)
    Tables tables
    Listener *listeners
    Listener *left  # those to be freed
    Arrival *arrivals
    Arrival *asking[CHAINS]
    Flow *gone  # slots that are free once all events of this turn have been seen
    Node *newest  # the calls of this turn
    Node *oldest
    int64_t calls
    bint is_paused
    # between the planes
    Node *called
    int64_t waiting  # calls that were not taken yet
    int64_t begun  # flows


cdef inline int64_t clock(Hall *hall) noexcept nogil:
    """Say what time it is, in nanoseconds."""
    cdef int64_t hand = load_count(hall.hand)
    return hand if hand else monotonic()


cdef inline void call(Hall *hall, Call *message, int kind) noexcept nogil:
    """Have the control plane told when the turn is over."""
    message.kind = <uint8_t>kind
    message.node.next = hall.newest
    if hall.newest == NULL:
        hall.oldest = &message.node
    hall.newest = &message.node
    hall.calls += 1


cdef inline bint publish(Hall *hall) noexcept nogil:
    """Tell it; say whether there was something."""
    if hall.newest == NULL:
        return False
    add_count(&hall.waiting, hall.calls)
    push(&hall.called, hall.newest, hall.oldest)
    hall.newest = hall.oldest = NULL
    hall.calls = 0
    return True


cdef inline void sweep(Hall *hall) noexcept nogil:
    """Free what events of this turn may have been about."""
    cdef Flow *flow
    cdef Listener *listener
    while hall.gone != NULL:
        flow = hall.gone
        hall.gone = <Flow *>flow.node.next
        flow.node.next = <Node *>hall.slab.free
        hall.slab.free = flow
    while hall.left != NULL:
        listener = hall.left
        hall.left = listener.next
        memory.drop(listener)


cdef inline Arrival *arrive(Hall *hall, Listener *listener, int fd) noexcept nogil:
    """Make an arrival of a connection, which belongs to it; NULL if there is no memory."""
    cdef Arrival *arrival = <Arrival *>memory.take_zeroed(1, sizeof(Arrival))
    cdef Flow *flow
    if arrival == NULL:
        return NULL
    flow = slabs.take(hall.slab, ARRIVING)
    if flow == NULL:
        memory.drop(arrival)
        return NULL
    flow.node.kind = ARRIVAL
    flow.before = arrival
    flow.inbound.fd = fd
    flow.outbound.fd = -1
    arrival.flow = flow
    arrival.listener = listener.fd
    arrival.room = arrivals.ROOM
    arrival.after = hall.arrivals
    if arrival.after != NULL:
        arrival.after.before = arrival
    hall.arrivals = arrival
    return arrival


cdef inline Arrival **chain_of(Hall *hall, int64_t number) noexcept nogil:
    return &hall.asking[<uint64_t>number % CHAINS]


cdef inline void end_asking(Hall *hall, Arrival *arrival) noexcept nogil:
    """Wait for no permit any more."""
    cdef Arrival **at = chain_of(hall, arrival.number)
    if not arrival.is_asking:
        return
    arrival.is_asking = False
    while at[0] != arrival:
        at = &at[0].next_asking
    at[0] = arrival.next_asking


cdef inline Arrival *who_asks(Hall *hall, int64_t number) noexcept nogil:
    """Find the one that waits for a permit by this number; NULL: it is not there any more."""
    cdef Arrival *arrival = chain_of(hall, number)[0]
    while arrival != NULL and arrival.number != number:
        arrival = arrival.next_asking
    return arrival


cdef inline bint ask(Hall *hall, Arrival *arrival, uint32_t size) noexcept nogil:
    """Wait for a permit for a request of this size; False if there is no memory."""
    cdef Arrival **chain = chain_of(hall, arrival.number)
    cdef Ask *question = <Ask *>memory.take(sizeof(Ask) + size)
    if question == NULL:
        return False
    question.arrival = arrival.number
    question.door = arrival.door.number
    question.user = arrival.user
    question.size = size
    memcpy(question.message, arrivals.received(arrival) + arrival.message, size)
    arrival.is_asking = True
    arrival.next_asking = chain[0]
    chain[0] = arrival
    call(hall, &question.call, ASK)
    return True


cdef inline bint watch(Hall *hall, Arrival *arrival, Side *side) noexcept nogil:
    """Have events of one of its sockets; False: that cannot be."""
    cdef bint *hears = &arrival.hears_client if side == &arrival.flow.inbound else &arrival.hears_target
    if not hears[0]:
        hears[0] = traffic.watch(hall.relay, side) == 0
    return hears[0]


cdef inline void ignore(Hall *hall, int fd) noexcept nogil:
    """Have no more events of a socket."""
    epoll_ctl(hall.relay.epoll, EPOLL_CTL_DEL, fd, NULL)


cdef inline void leave(Hall *hall, Arrival *arrival) noexcept nogil:
    """Take it out of the lists."""
    wheels.disarm(&hall.relay.wheel, &arrival.flow.node)
    end_asking(hall, arrival)
    if arrival.before != NULL:
        arrival.before.after = arrival.after
    else:
        check(hall.arrivals == arrival)
        hall.arrivals = arrival.after
    if arrival.after != NULL:
        arrival.after.before = arrival.before


cdef inline void hand_over(Hall *hall, Arrival *arrival, int error) noexcept nogil:
    """Give it to the control plane with all that is known; nobody else has its descriptors then."""
    cdef Flow *flow = arrival.flow
    leave(hall, arrival)
    arrival.fd = flow.inbound.fd
    arrival.outbound = flow.outbound.fd
    arrival.error = error
    if arrival.hears_client:
        ignore(hall, arrival.fd)
    if arrival.permit != NULL:
        counts.leave_all(&hall.rows, arrival.permit.counters, arrival.permit.counts)
        arrival.target = arrival.permit.target
        if arrival.hears_target:
            ignore(hall, arrival.outbound)
        permits.let_go(arrival.permit)
        arrival.permit = NULL
    flow.before = NULL
    store_byte(&flow.node.state, FREE)
    flow.node.next = <Node *>hall.gone
    hall.gone = flow
    call(hall, &arrival.call, HANDOVER)


cdef inline void call_in(Hall *hall) noexcept nogil:
    """Hand over all that wait."""
    while hall.arrivals != NULL:
        hand_over(hall, hall.arrivals, 0)


cdef inline void forget(Hall *hall) noexcept nogil:
    """Know nothing any more."""
    learnt.clear(&hall.tables)
    call_in(hall)


cdef inline void wait(Hall *hall, Arrival *arrival, int64_t deadline) noexcept nogil:
    """Let it wait as long."""
    arrival.deadline = deadline
    wheels.arm(&hall.relay.wheel, &arrival.flow.node, deadline, hall.relay.now)


cdef inline void look(Hall *hall, Arrival *arrival) noexcept nogil:
    """Hand it over if its patience is over."""
    if arrival.is_asking:
        return
    if arrival.deadline <= hall.relay.now:
        hand_over(hall, arrival, 0)
    else:
        wheels.arm(&hall.relay.wheel, &arrival.flow.node, arrival.deadline, hall.relay.now)


cdef inline void dispose(Hall *hall) noexcept nogil:
    """Free what is left, with calls that nobody took; the engine's thread must be over."""
    cdef Node *node = hall.called
    cdef Node *after
    cdef Arrival *arrival
    while node != NULL:
        after = node.next
        if (<Call *>node).kind == HANDOVER:
            arrival = <Arrival *>node
            close(arrival.fd)
            if arrival.outbound >= 0:
                close(arrival.outbound)
            arrivals.dispose(arrival)
        else:
            memory.drop(node)
        node = after
    learnt.close(&hall.tables)
    memory.drop(hall)
