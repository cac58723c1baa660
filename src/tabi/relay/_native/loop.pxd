"""The engine's thread: one epoll, one turn after the other; and how the control plane talks to it.

Orders come by a stack, ends go by another; a flow's own slot is the message both times. Nobody holds a lock here, and
the thread never asks for Python's. An eventfd, the bell, wakes it, and is rung only when it sleeps.

What an event is for stands in its 64 bits: a pointer, and in its lowest three bits what it points to (`Tag`). Another
kind of client of this epoll is another tag.
"""

from libc.errno cimport EINTR, ENOMEM, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport strncpy

from tabi.relay._native cimport groups as sharing, hall as halls, lane as lanes, memory, pipes as pool, pump as pumps
from tabi.relay._native cimport relay as relays, report as reports, slab as slabs, spin as spins, traffic
from tabi.relay._native cimport wheel as wheels
from tabi.relay._native.arrival cimport Arrival, Listener
from tabi.relay._native.flow cimport ARRIVING, LIVE, Flow, Side, flow_of
from tabi.relay._native.groups cimport Group, Share
from tabi.relay._native.hall cimport Hall
from tabi.relay._native.lane cimport Errand
from tabi.relay._native.node cimport ARRIVAL, BUCKET, CUT, ERRAND, FLOW, LIMIT, Node, load_node, push, take_all
from tabi.relay._native.relay cimport SHUTDOWN, Cause, Relay
from tabi.relay._native.report cimport Report
from tabi.relay._native.slab cimport Slab
from tabi.relay._native.spin cimport Spin
from tabi.relay._native.sys cimport (
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLLET,
    EPOLLIN,
    add_count,
    block_sigpipe,
    check,
    close,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    eventfd,
    eventfd_write,
    load_count,
    load_int,
    monotonic,
    sem_post,
    sem_t,
    store_int,
    swap_int,
)

cdef enum Tag:
    SIDE = 0
    BELL = 1
    LISTENER = 2
    TAGS = 7  # the bits

cdef enum:
    BATCH = 256  # events taken at once: it bounds how stale the time stamp of a batch can be
    LONGEST = 3_600_000  # milliseconds of one sleep

cdef struct Order:  # made by the control plane, freed by the engine's thread
    Node node  # `kind` says what is to be done, `cause` why flows are cut
    Group *group  # BUCKET: whose rate is another
    Share *share  # LIMIT: what each flow gets a copy of, NULL: none; freed with the order
    float idle
    float half_open
    float lifetime
    uint32_t count
    int64_t numbers[1]  # of flows

cdef struct Loop:
    # the engine's thread's
    Relay relay
    Spin spin
    epoll_event events[BATCH]
    Slab arrivals  # slots of the express lane's flows
    Hall *hall  # of that lane; NULL: it is not open
    # the control plane's
    Slab slab
    bint is_over  # for good
    Cause why  # that is: SHUTDOWN or BUG
    # between them
    int bell
    Report report
    Node *orders
    Node *ended
    int asleep
    int stopping
    int64_t over  # flows whose ends have been handed back
    int64_t hand  # the clock, if somebody else moves it


cdef inline int64_t clock(Loop *loop) noexcept nogil:
    """Say what time it is, in nanoseconds."""
    cdef int64_t hand = load_count(&loop.hand)
    return hand if hand else monotonic()


cdef inline int prepare(Loop *loop, int pipes, int splice_after, const char *steady, bint spin) noexcept nogil:
    """Open what it needs. Return an errno; `dispose` is due in any case."""
    cdef epoll_event event
    cdef Relay *relay = &loop.relay
    cdef bint has_slabs
    loop.bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    relay.epoll = epoll_create1(EPOLL_CLOEXEC)
    if not reports.prepare(&loop.report) or loop.bell < 0 or relay.epoll < 0:
        return errno
    event.events = EPOLLIN | EPOLLET  # each ring is an edge, so nobody needs to read it
    event.data.u64 = BELL
    if epoll_ctl(relay.epoll, EPOLL_CTL_ADD, loop.bell, &event) < 0:
        return errno
    relay.groups.wheel = &relay.wheel
    relay.pump.splice_after = splice_after
    strncpy(relay.pump.steady, steady, sizeof(relay.pump.steady) - 1)
    relay.pump.buffer = <uint8_t *>memory.take(pumps.READ_SIZE)
    pool.prepare(&relay.pump.pipes, pipes)
    spins.prepare(&loop.spin, spin)
    has_slabs = slabs.prepare(&loop.arrivals, 1) and slabs.prepare(&loop.slab, 0)  # the latter says that both are there
    return 0 if relay.pump.buffer != NULL and has_slabs else ENOMEM


cdef inline void wake(Loop *loop) noexcept nogil:
    """End the sleep of the engine's thread."""
    if swap_int(&loop.asleep, 0):
        eventfd_write(loop.bell, 1)


cdef inline void give_order(Loop *loop, Node *order, bint ring) noexcept nogil:
    """Have the engine's thread do something; it owns the order from here on. It may be left asleep until `wake`."""
    push(&loop.orders, order, order)
    if ring:
        wake(loop)


cdef inline int64_t patience(Loop *loop) noexcept nogil:
    """Say for how many nanoseconds there is nothing to do but to wait; -1 for ever."""
    if loop.relay.ready_count or loop.relay.groups.busy != NULL:
        return 0
    return reports.wait(&loop.report, wheels.wait(&loop.relay.wheel, clock(loop)))


cdef inline int look_for_events(Loop *loop) noexcept nogil:
    """Take events if there are some."""
    return epoll_wait(loop.relay.epoll, loop.events, BATCH, 0)


cdef inline int spin_for_events(Loop *loop) noexcept nogil:
    """Look for events, or for an order, for as long as a spin lasts."""
    cdef int64_t end = monotonic() + loop.spin.length
    cdef int count = look_for_events(loop)
    while not count and load_node(&loop.orders) == NULL:
        if monotonic() >= end:
            spins.note_spin(&loop.spin, True)
            return 0
        count = look_for_events(loop)
    spins.note_spin(&loop.spin, False)
    return count


cdef inline int sleep_for_events(Loop *loop, int64_t timeout) noexcept nogil:
    """Take events as soon as there are some; wake up for orders and when the timeout is over."""
    cdef int count
    swap_int(&loop.asleep, 1)
    if load_node(&loop.orders) != NULL or load_int(&loop.stopping):
        store_int(&loop.asleep, 0)
        return look_for_events(loop)
    timeout = min((timeout + 999_999) // 1_000_000, <int64_t>LONGEST) if timeout >= 0 else LONGEST
    count = epoll_wait(loop.relay.epoll, loop.events, BATCH, <int>timeout)
    store_int(&loop.asleep, 0)
    return count


cdef inline int wait_for_events(Loop *loop) noexcept nogil:
    """Wait for something to do. Return the count of events, or -1."""
    cdef int count
    cdef int64_t begin, timeout = patience(loop)
    if not timeout:
        return look_for_events(loop)
    if not loop.spin.length:
        return sleep_for_events(loop, timeout)
    if spins.is_worth_it(&loop.spin, timeout):
        count = spin_for_events(loop)
        if count or load_node(&loop.orders) != NULL:
            return count
        return sleep_for_events(loop, timeout)
    begin = monotonic()
    count = sleep_for_events(loop, timeout)
    spins.note_wait(&loop.spin, monotonic() - begin)
    return count


cdef inline void dispatch(Loop *loop, epoll_event *event) noexcept nogil:
    """Give an event to whom it is for."""
    cdef uint64_t tag = event.data.u64 & TAGS
    cdef Flow *flow
    if tag == SIDE:
        flow = flow_of(<Side *>event.data.u64)
        if flow.node.state == LIVE:
            traffic.handle(&loop.relay, <Side *>event.data.u64, event.events)
        elif flow.node.state == ARRIVING:
            lanes.handle(loop.hall, <Side *>event.data.u64, flow, event.events)
    elif tag == LISTENER:
        lanes.knock(loop.hall, <Listener *>(event.data.u64 & ~<uint64_t>TAGS))
    else:
        check(tag == BELL)


cdef inline void look_at_due(Loop *loop) noexcept nogil:
    """Look at all whose tick has come."""
    cdef Node *node = wheels.due(&loop.relay.wheel, loop.relay.now)
    cdef Node *after
    while node != NULL:
        after = node.next
        if node.kind == FLOW:
            traffic.look(&loop.relay, <Flow *>node)
        elif node.kind == ARRIVAL:
            halls.look(loop.hall, <Arrival *>(<Flow *>node).before)
        else:
            sharing.rouse(&loop.relay.groups, <Group *>node)
        node = after


cdef inline void obey_for_flows(Loop *loop, Order *order) noexcept nogil:
    """Do to each flow that is named what is ordered; those that are over are passed by."""
    cdef uint32_t number
    cdef Flow *flow
    for number in range(order.count):
        flow = slabs.find(&loop.slab, order.numbers[number])
        if flow == NULL:
            flow = slabs.find(&loop.arrivals, order.numbers[number])
        if flow == NULL:
            continue
        if order.node.kind == CUT:
            relays.cut(&loop.relay, flow, <Cause>order.node.cause)
        else:
            traffic.limit(&loop.relay, flow, order.idle, order.half_open, order.lifetime, order.share)


cdef inline void hand_back(Loop *loop) noexcept nogil:
    """Let the control plane have the flows that are over, and the calls, and tell it of them."""
    cdef Relay *relay = &loop.relay
    cdef bint has_calls = loop.hall != NULL and halls.publish(loop.hall)
    cdef bint has_ends = False
    if relay.over != NULL:
        add_count(&loop.over, relay.over_count)
        has_ends = push(&loop.ended, relay.over, relay.over_oldest)
        relay.over = relay.over_oldest = NULL
        relay.over_count = 0
    if has_calls or loop.is_over and (has_ends or loop.report.owes):
        reports.tell(&loop.report)
    elif has_ends:
        reports.note_ends(&loop.report)
    if loop.hall != NULL:
        lanes.keep_pace(loop.hall)


cdef inline void run_errand(Loop *loop, Errand *errand) noexcept nogil:
    """Do what is asked of the express lane. Who waits for it finds what came of it."""
    cdef sem_t *done = errand.done
    lanes.run(loop.hall, errand)
    memory.drop(errand)
    if done != NULL:
        hand_back(loop)
        sem_post(done)


cdef inline void obey(Loop *loop, Node *node) noexcept nogil:
    """Do what is ordered, the oldest order first."""
    cdef Node *after
    cdef Order *order
    while node != NULL:
        after = node.next
        if node.kind == FLOW:
            traffic.take_up(&loop.relay, <Flow *>node)
        elif node.kind == ERRAND:
            run_errand(loop, <Errand *>node)
        else:
            order = <Order *>node
            if node.kind == BUCKET:
                sharing.rate_changed(&loop.relay.groups, order.group)
            else:
                obey_for_flows(loop, order)
            memory.drop(order.share)
            memory.drop(order)
        node = after


cdef inline bint is_waited_for(Node *orders) noexcept nogil:
    """Say whether somebody waits for one of these."""
    while orders != NULL:
        if orders.kind == ERRAND and (<Errand *>orders).done != NULL:
            return True
        orders = orders.next
    return False


cdef inline void handle(Loop *loop, int count) noexcept nogil:
    """Handle so many events."""
    cdef int number
    for number in range(count):
        dispatch(loop, &loop.events[number])


cdef inline void turn(Loop *loop, int count) noexcept nogil:
    """Handle so many events, and do all that is due.

    Orders are taken off the stack before the clock is read, and obeyed last: who gives one finds all done that was due;
    and who waits for one, all that there was an event of.
    """
    cdef Node *orders = take_all(&loop.orders) if load_node(&loop.orders) != NULL else NULL
    loop.relay.now = clock(loop)
    handle(loop, count)
    if loop.hall != NULL and is_waited_for(orders):
        handle(loop, look_for_events(loop))
    if loop.relay.ready_count:
        traffic.go_on(&loop.relay)
    look_at_due(loop)
    if loop.relay.groups.busy != NULL:
        traffic.serve_groups(&loop.relay)
    obey(loop, orders)
    hand_back(loop)
    reports.pay(&loop.report)
    if loop.hall != NULL:
        halls.sweep(loop.hall)


cdef inline int run(Loop *loop) noexcept nogil:
    """Serve until `stopping` is set. Return 0, or the errno that epoll failed with."""
    cdef int count
    block_sigpipe()
    while not load_int(&loop.stopping):
        count = wait_for_events(loop)
        if count < 0:
            if errno != EINTR:
                return errno
            count = 0
        turn(loop, count)
    return 0


cdef inline void cut_all(Loop *loop, Slab *slab) noexcept nogil:
    """Cut all flows that have their slots here."""
    cdef int index
    for index in range(slab.slots):
        if slabs.at(slab, index).node.state == LIVE:
            relays.cut(&loop.relay, slabs.at(slab, index), loop.why)


cdef inline void shut_down(Loop *loop, Cause why) noexcept nogil:
    """Cut all flows, close everything but what tells of their ends. The engine's thread must be over."""
    cdef Relay *relay = &loop.relay
    if loop.is_over:
        return
    loop.is_over = True
    loop.why = why
    relay.now = clock(loop)
    obey(loop, take_all(&loop.orders))
    if loop.hall != NULL:
        lanes.end(loop.hall)
    cut_all(loop, &loop.slab)
    cut_all(loop, &loop.arrivals)
    traffic.go_on(relay)
    hand_back(loop)
    if loop.hall != NULL:
        halls.sweep(loop.hall)
    pool.close_all(&relay.pump.pipes)
    close(relay.epoll)
    close(loop.bell)
    loop.bell = -1


cdef inline void turn_away(Loop *loop) noexcept nogil:
    """End the flows that came when the engine was over."""
    cdef Node *node = take_all(&loop.orders)
    cdef Node *after
    loop.relay.now = clock(loop)
    while node != NULL:
        after = node.next
        check(node.kind == FLOW)  # nobody gives other orders then
        traffic.turn_away(&loop.relay, <Flow *>node, loop.why)
        node = after
    hand_back(loop)


cdef inline void dispose(Loop *loop) noexcept nogil:
    """Free what is left; the engine's thread must be over, or never have been."""
    if loop.slab.chunks != NULL:
        shut_down(loop, SHUTDOWN)
        slabs.close(&loop.slab)
        slabs.close(&loop.arrivals)
    if loop.hall != NULL:
        halls.dispose(loop.hall)
    memory.drop(loop.relay.pump.buffer)
    free(loop.relay.ready)
    memory.drop(loop)
