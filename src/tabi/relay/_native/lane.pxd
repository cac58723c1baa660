"""The express lane of the engine's thread: listeners, events, and what the control plane has to say.

What it is: `tabi.relay.lane`. How it goes about it: `tabi.relay._lane_py`, of which this is the twin.
"""

from libc.errno cimport EAGAIN, EALREADY, EINPROGRESS, EISCONN, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t

from tabi.relay._native cimport handshake
from tabi.relay._native cimport memory
from tabi.relay._native cimport permit as permits
from tabi.relay._native cimport rows as counts
from tabi.relay._native cimport tables as learnt
from tabi.relay._native.arrival cimport EXHAUSTED, PERMIT, Arrival, Exhausted, Listener
from tabi.relay._native.flow cimport ARRIVING, OUTBOUND, Flow, Side
from tabi.relay._native.hall cimport (
    Hall,
    arrive,
    call,
    call_in,
    clock,
    end_asking,
    forget,
    hand_over,
    ignore,
    wait,
    watch,
    who_asks,
)
from tabi.relay._native.net cimport Address, accept_client, dial, local_address
from tabi.relay._native.node cimport Node
from tabi.relay._native.permit cimport Permit
from tabi.relay._native.siphash cimport Mark, mark_of
from tabi.relay._native.sys cimport (
    EPOLL_CTL_ADD,
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    close,
    epoll_ctl,
    epoll_event,
    load_count,
    sem_t,
    wall_clock,
)
from tabi.relay._native.tables cimport Door, Pass
from tabi.relay._native.traffic cimport unsure

cdef enum:
    MOST_CALLS = 1024
    ACCEPTS = 16  # connections per turn and listener, so that flows get their turn
    LISTENER_TAG = 2  # `loop.Tag`

cdef enum What:  # an errand is about
    LISTEN = 1
    LEAVE
    DOOR
    PASS
    ANSWER
    CALL_IN
    FORGET
    RESUME

cdef struct Errand:  # made by the control plane, freed by the engine's thread
    Node node
    What what
    sem_t *done  # somebody waits there; NULL: nobody does
    Listener *listener
    Permit *permit
    Door door
    Pass login
    Mark mark  # of the door
    int fd
    int64_t arrival


cdef inline Mark mark_of_door(Hall *hall, int listener, Address *local, Address *client) noexcept nogil:
    """Mark where a client comes in; ports are left out."""
    cdef Address place[3]
    place[0], place[1] = local[0], client[0]
    place[0].port = place[1].port = 0
    place[0].is_scoped = place[1].is_scoped = 0
    place[2] = place[0]
    (<int *>&place[2])[0] = listener
    return mark_of(hall.tables.key, <const unsigned char *>place, sizeof(place))


# accepting


cdef inline void stop_accepting(Hall *hall, int fd) noexcept nogil:
    """Leave a listener alone."""
    cdef Listener **at = &hall.listeners
    cdef Listener *listener
    while at[0] != NULL and at[0].fd != fd:
        at = &at[0].next
    listener = at[0]
    if listener == NULL:
        return
    at[0] = listener.next
    if listener.is_heard:
        ignore(hall, fd)
    listener.is_heard = False
    listener.next = hall.left
    hall.left = listener


cdef inline void give_up(Hall *hall, Listener *listener, int error) noexcept nogil:
    """Leave a listener alone, and say why."""
    cdef Exhausted *message = <Exhausted *>memory.take(sizeof(Exhausted))
    if message != NULL:  # else the listener is silent until there is memory for anything again
        message.listener = listener.fd
        message.error = error
        call(hall, &message.call, EXHAUSTED)
    stop_accepting(hall, listener.fd)


cdef inline void listen(Hall *hall, Listener *listener) noexcept nogil:
    """Have the epoll tell of connections, again and again until they are accepted."""
    cdef epoll_event event
    event.events = EPOLLIN
    event.data.u64 = <uint64_t>listener | LISTENER_TAG
    listener.is_heard = epoll_ctl(hall.relay.epoll, EPOLL_CTL_ADD, listener.fd, &event) == 0
    if not listener.is_heard:
        give_up(hall, listener, ENOMEM)


cdef inline void pause(Hall *hall) noexcept nogil:
    """Accept nothing until `resume`."""
    cdef Listener *listener = hall.listeners
    hall.is_paused = True
    while listener != NULL:
        if listener.is_heard:
            ignore(hall, listener.fd)
        listener.is_heard = False
        listener = listener.next


cdef inline void resume(Hall *hall) noexcept nogil:
    """Accept again."""
    cdef Listener *listener = hall.listeners
    cdef Listener *after
    if not hall.is_paused:
        return
    hall.is_paused = False
    while listener != NULL:
        after = listener.next
        listen(hall, listener)
        listener = after


cdef inline bint has_door(Hall *hall, Arrival *arrival) noexcept nogil:
    """Find the door of an arrival, and count it in there."""
    cdef Mark mark
    cdef int place
    if arrival.client.is_scoped:
        return False
    mark = mark_of_door(hall, arrival.listener, &arrival.local, &arrival.client)
    place = learnt.find_door(&hall.tables, &mark)
    if place < 0 or not counts.enter_all(&hall.rows, hall.tables.doors[place].counters, 3):
        return False
    arrival.place = place
    arrival.door = hall.tables.doors[place]
    return True


cdef inline void serve(Hall *hall, Arrival *arrival) noexcept nogil:
    """Serve a new connection as far as that goes at once."""
    cdef Flow *flow = arrival.flow
    if not has_door(hall, arrival):
        hand_over(hall, arrival, 0)
        return
    arrival.moment = wall_clock()
    arrival.deadline = arrival.accepted + hall.patience
    handshake.read(hall, arrival)
    if flow.node.state != ARRIVING:  # the slot is nobody else's in this turn
        return
    if not watch(hall, arrival, &flow.inbound):
        hand_over(hall, arrival, 0)
    elif arrival.stage < PERMIT:
        wait(hall, arrival, arrival.deadline)


cdef inline void accept(Hall *hall, Listener *listener) noexcept nogil:
    """Take connections; some at a time."""
    cdef int turn, fd
    cdef Address client
    cdef Arrival *arrival
    cdef int64_t now = clock(hall)
    for turn in range(ACCEPTS):
        fd = accept_client(listener.fd, &client)
        if fd < 0:
            if errno == EAGAIN:
                return
            if errno in (EMFILE, ENFILE, ENOBUFS, ENOMEM):
                give_up(hall, listener, errno)
                return
            continue  # accept(2): errors of the one connection, which has gone; the next may be fine
        arrival = arrive(hall, listener, fd)
        if arrival == NULL:
            close(fd)
            give_up(hall, listener, ENOMEM)
            return
        arrival.number = counts.number(&hall.rows, hall.numbers)
        arrival.accepted = now
        arrival.client = client
        arrival.local = listener.local
        if listener.is_wildcard and local_address(fd, &arrival.local) < 0:
            hand_over(hall, arrival, errno)
        else:
            serve(hall, arrival)


cdef inline void knock(Hall *hall, Listener *listener) noexcept nogil:
    """Take an event of a listener."""
    if listener.is_heard:
        accept(hall, listener)


# events of arrivals


cdef inline void on_target(Hall *hall, Arrival *arrival, uint32_t event) noexcept nogil:
    """Believe in a connection when the kernel says so once more: an event may be of who had the number before."""
    cdef Flow *flow = arrival.flow
    cdef int error
    if event & EPOLLERR:
        hand_over(hall, arrival, 0)  # the error is still in the socket
    elif event & EPOLLOUT:
        error = dial(flow.outbound.fd, &arrival.permit.target)
        if error in (0, EISCONN):
            arrival.is_unsure = True
            handshake.connected(hall, arrival)
        elif error not in (EINPROGRESS, EALREADY):  # it has failed since the event was made, and the error is told
            close(flow.outbound.fd)
            flow.outbound.fd = -1
            arrival.hears_target = False
            hand_over(hall, arrival, 0)


cdef inline void meanwhile(Hall *hall, Arrival *arrival, uint32_t event) noexcept nogil:
    """Note what the client does while it has to wait. Its bytes stay in the kernel, as does its error."""
    if event & (EPOLLIN | unsure()):
        arrival.is_unsure = True
    if event & (EPOLLERR | EPOLLHUP):
        if arrival.is_asking:
            arrival.was_hung_up = True
        else:
            hand_over(hall, arrival, 0)


cdef inline void handle(Hall *hall, Side *side, Flow *flow, uint32_t event) noexcept nogil:
    """Take an event of a slot that is no flow yet."""
    cdef Arrival *arrival = <Arrival *>flow.before
    if side.marks & OUTBOUND:
        on_target(hall, arrival, event)
    elif arrival.stage >= PERMIT:
        meanwhile(hall, arrival, event)
    elif event & EPOLLERR:
        hand_over(hall, arrival, 0)  # the error is still in the socket
    elif event & (EPOLLIN | unsure()):
        arrival.is_unsure = (event & unsure()) != 0
        handshake.read(hall, arrival)


# errands


cdef inline void answer(Hall *hall, int64_t number, Permit *permit) noexcept nogil:
    """Go on with an arrival that asked."""
    cdef Arrival *arrival = who_asks(hall, number)
    cdef Mark mark
    if arrival == NULL:
        return
    end_asking(hall, arrival)
    if permit != NULL:
        mark = handshake.mark_of_request(hall, arrival)
        learnt.add_permit(&hall.tables, &mark, permit)
    if permit == NULL or arrival.was_hung_up:
        hand_over(hall, arrival, 0)
        return
    arrival.resolved = clock(hall)
    handshake.connect(hall, arrival, permit)


cdef inline void accept_from(Hall *hall, Listener *listener) noexcept nogil:
    """Begin to accept."""
    listener.next = hall.listeners
    hall.listeners = listener
    if not hall.is_paused:
        listen(hall, listener)


cdef inline void run(Hall *hall, Errand *errand) noexcept nogil:
    """Do what is asked for."""
    if errand.what == LISTEN:
        accept_from(hall, errand.listener)
    elif errand.what == LEAVE:
        stop_accepting(hall, errand.fd)
    elif errand.what == DOOR:
        learnt.add_door(&hall.tables, &errand.mark, &errand.door)
    elif errand.what == PASS:
        learnt.add_pass(&hall.tables, &errand.login)
    elif errand.what == ANSWER:
        answer(hall, errand.arrival, errand.permit)
    elif errand.what == CALL_IN:
        call_in(hall)
    elif errand.what == FORGET:
        forget(hall)
    else:
        resume(hall)
    permits.let_go(errand.permit)


cdef inline void keep_pace(Hall *hall) noexcept nogil:
    """Accept nothing more while too many calls wait to be taken."""
    if not hall.is_paused and load_count(&hall.waiting) >= MOST_CALLS:
        pause(hall)


cdef inline void end(Hall *hall) noexcept nogil:
    """Leave everything; who waits is handed over."""
    while hall.listeners != NULL:
        stop_accepting(hall, hall.listeners.fd)
    forget(hall)
