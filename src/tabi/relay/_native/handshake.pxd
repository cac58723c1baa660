"""What comes from a client until its request is there (RFC 1928, RFC 1929, SOCKS4), and the way to its target.

The rules are those of `tabi.relay._lane_py`: half of a message, or one that is not plain, is the control plane's. All
that serve an arrival may end with it handed over or relayed; nobody may look at it afterwards.
"""

from libc.errno cimport EAGAIN, EALREADY, EINPROGRESS, EISCONN, ENOMEM, errno
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memchr, memcpy

from tabi.relay._native cimport arrival as arrivals
from tabi.relay._native cimport flow as flows
from tabi.relay._native cimport groups as sharing
from tabi.relay._native cimport memory
from tabi.relay._native cimport messages
from tabi.relay._native cimport permit as permits
from tabi.relay._native cimport relay as relays
from tabi.relay._native cimport rows as counts
from tabi.relay._native cimport tables as learnt
from tabi.relay._native cimport traffic
from tabi.relay._native cimport wheel as wheels
from tabi.relay._native.arrival cimport GREETING, LOGIN, PERMIT, REQUEST, TARGET, Arrival
from tabi.relay._native.flow cimport LIVE, UNBLOCKED, Flow
from tabi.relay._native.groups cimport Share
from tabi.relay._native.hall cimport Hall, ask, clock, hand_over, leave, wait, watch
from tabi.relay._native.messages cimport LONGEST_ANSWER, granted
from tabi.relay._native.net cimport Address, dial, is_loopback, is_same_place, local_address, prepared_socket
from tabi.relay._native.node cimport FLOW
from tabi.relay._native.permit cimport Permit
from tabi.relay._native.siphash cimport Mark, mark_of
from tabi.relay._native.sys cimport (
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    NS,
    add_count,
    close,
    recv,
    send,
    store_byte,
)
from tabi.relay._native.tables cimport User
from tabi.relay._native.tuning cimport tune

cdef enum:
    READ_SIZE = 4096  # as the control plane reads; what is behind the handshake is the target's
    MOST_MARKED = 1024  # bytes that a mark is made of: a request of SOCKS4a, a user, a door
    WITH_PASSWORD = 2


cdef inline bint is_inside(Hall *hall, Arrival *arrival) noexcept nogil:
    """Say whether its door is there still."""
    return hall.tables.door_numbers[arrival.place] == arrival.door.number


cdef inline Mark mark_below(
    Hall *hall, int64_t door, User *user, const uint8_t *message, size_t size
) noexcept nogil:
    """Mark a message of somebody who came in by a door; a login is nobody's."""
    cdef uint8_t data[MOST_MARKED]
    cdef size_t at = sizeof(int64_t)
    memcpy(data, &door, at)
    data[at] = user != NULL and user.is_known
    at += 1
    if user != NULL and user.is_known:
        data[at] = user.size
        memcpy(data + at + 1, user.name, user.size)
        at += <size_t>1 + user.size
    memcpy(data + at, message, size)
    return mark_of(hall.tables.key, data, at + size)


cdef inline Mark mark_of_request(Hall *hall, Arrival *arrival) noexcept nogil:
    """Mark its request."""
    cdef uint8_t *data = arrivals.received(arrival)
    cdef size_t size = arrival.begin - arrival.message
    return mark_below(hall, arrival.door.number, &arrival.user, data + arrival.message, size)


cdef inline bint say(Hall *hall, Arrival *arrival, uint8_t first, uint8_t second) noexcept nogil:
    """Send two bytes; False: the client does not take them, and has been handed over."""
    cdef uint8_t data[2]
    cdef ssize_t sent
    data[0], data[1] = first, second
    sent = send(arrival.flow.inbound.fd, data, 2, MSG_NOSIGNAL | MSG_DONTWAIT)
    if sent > 0:
        arrival.sent += <uint8_t>sent
    if sent == 2:
        return True
    hand_over(hall, arrival, errno if sent < 0 and errno != EAGAIN else 0)
    return False


cdef inline void begin(Hall *hall, Arrival *arrival, int64_t now) noexcept nogil:
    """Let it be a flow. Its sides are open, watched, and may be owed something."""
    cdef Flow *flow = arrival.flow
    cdef Permit *permit = arrival.permit
    flow.before = NULL
    flow.node.kind = FLOW
    flow.node.tick = 0
    flow.started = flow.last = now
    flow.idle = permit.idle
    flow.half_open = permit.half_open
    flow.lifetime = 0
    if permit.lifetime > 0:  # it counts from accept; 0 would be for ever
        flow.lifetime = <float>max(permit.lifetime - (now - arrival.accepted) / <double>NS, 0.001)
    flow.record = permit.facts
    add_count(&permit.facts.holders, 1)
    flow.tail.session = arrival.number
    flow.tail.accepted = arrival.moment
    flow.tail.port = arrival.client.port
    flow.tail.handshake = (arrival.requested - arrival.accepted) / <float>1e6
    flow.tail.resolve = (arrival.resolved - arrival.requested) / <float>1e6
    flow.tail.connect = (now - arrival.resolved) / <float>1e6
    add_count(&hall.begun, 1)
    store_byte(&flow.node.state, LIVE)
    if flow.share != NULL:
        sharing.join(flow.share)
    flow.inbound.marks |= UNBLOCKED
    flow.outbound.marks |= UNBLOCKED
    tune(flow, permit.tuning)
    relays.arm(hall.relay, flow)
    if flow.inbound.err:
        traffic.linger(hall.relay, flow, &flow.inbound)
    elif arrival.is_unsure or flow.inbound.out != NULL or flow.outbound.out != NULL:
        relays.queue(hall.relay, flow, &flow.inbound)
        if flow.node.state == LIVE:
            relays.queue(hall.relay, flow, &flow.outbound)
    permits.let_go(permit)
    arrivals.dispose(arrival)


cdef inline bint prepare(Arrival *arrival) noexcept nogil:
    """Take what the flow will need; False if there is no memory, and nothing is taken then."""
    cdef Flow *flow = arrival.flow
    cdef size_t early = arrival.size - arrival.begin
    if arrival.permit.share != NULL:
        flow.share = traffic.copy_for(arrival.permit.share, flow)
        if flow.share == NULL:
            return False
    if early and not flows.owe(&flow.outbound, arrivals.received(arrival) + arrival.begin, early):
        memory.drop(flow.share)
        flow.share = NULL
        return False
    return True


cdef inline void connected(Hall *hall, Arrival *arrival) noexcept nogil:
    """Answer, and relay."""
    cdef Flow *flow = arrival.flow
    cdef Address ours
    cdef uint8_t answer[LONGEST_ANSWER]
    cdef size_t size
    cdef ssize_t sent
    if local_address(flow.outbound.fd, &ours) < 0 or is_same_place(&ours, &arrival.permit.target):
        hand_over(hall, arrival, 0)  # both SYNs were ours (RFC 9293 section 3.5)
        return
    if not prepare(arrival):
        hand_over(hall, arrival, 0)
        return
    size = granted(
        arrivals.received(arrival)[0], &arrival.permit.target if arrival.permit.shows_target else &ours, answer
    )
    sent = send(flow.inbound.fd, answer, size, MSG_NOSIGNAL | MSG_DONTWAIT)
    if sent < 0 and errno != EAGAIN:  # told once: the flow passes it on behind what came early
        flows.fail(&flow.inbound, errno)
    elif sent < <ssize_t>size:
        sent = max(<ssize_t>0, sent)
        if not flows.owe(&flow.inbound, answer + sent, size - sent):
            flows.fail(&flow.inbound, ENOMEM)
    leave(hall, arrival)
    begin(hall, arrival, clock(hall))


cdef inline void connect(Hall *hall, Arrival *arrival, Permit *permit) noexcept nogil:
    """Go to the target."""
    cdef Flow *flow = arrival.flow
    cdef int fd, error
    if not counts.enter_all(&hall.rows, permit.counters, permit.counts):
        hand_over(hall, arrival, 0)
        return
    arrival.permit = permits.hold(permit)
    fd = prepared_socket(permit.target.size, hall.keepalive)
    if fd < 0:  # no descriptors: the control plane finds out, and says so
        hand_over(hall, arrival, 0)
        return
    error = dial(fd, &permit.target)
    if error == EINPROGRESS and is_loopback(&permit.target):
        # The handshake took place within the first call; asking again spares a turn.
        error = dial(fd, &permit.target)
    if error not in (0, EISCONN, EINPROGRESS, EALREADY):
        close(fd)
        hand_over(hall, arrival, 0)
        return
    flow.outbound.fd = fd
    if not (watch(hall, arrival, &flow.inbound) and watch(hall, arrival, &flow.outbound)):
        hand_over(hall, arrival, 0)
    elif error in (0, EISCONN):
        connected(hall, arrival)
    else:
        arrival.stage = TARGET
        wait(hall, arrival, arrival.resolved + permit.patience)


cdef inline bint take_request(Hall *hall, Arrival *arrival, size_t end) noexcept nogil:
    """Find out what comes of a request that ends here; False: it is not whole, or not plain."""
    cdef Permit *permit = NULL
    cdef Mark mark
    if not end:
        return False
    arrival.requested = clock(hall)
    counts.change(&hall.rows, arrival.door.counters[2].row, -1)
    arrival.message = arrival.begin
    arrival.begin = end
    if is_inside(hall, arrival):
        mark = mark_of_request(hall, arrival)
        permit = learnt.find_permit(&hall.tables, &mark, arrival.requested)
    if permit != NULL:
        arrival.resolved = arrival.requested
        connect(hall, arrival, permit)
        return True
    arrival.stage = PERMIT
    return ask(hall, arrival, <uint32_t>(end - arrival.message))


cdef inline bint log_in(Hall *hall, Arrival *arrival, uint8_t *data) noexcept nogil:
    """Let in who is known (RFC 1929)."""
    cdef size_t end = messages.end_of_login(data, arrival.size, arrival.begin)
    cdef Mark mark
    cdef User *user
    if not end or not is_inside(hall, arrival):
        return False
    mark = mark_below(hall, arrival.door.number, NULL, data + arrival.begin, end - arrival.begin)
    user = learnt.find_user(&hall.tables, &hall.rows, &mark, clock(hall))
    if user == NULL:
        return False
    arrival.user = user[0]
    arrival.begin = end
    arrival.stage = REQUEST
    return True


cdef inline uint8_t greet(Arrival *arrival, uint8_t *data) noexcept nogil:
    """Choose the strongest of the methods that both sides have (RFC 1928 section 3); 255: none."""
    cdef size_t end = messages.end_of_greeting(data, arrival.size)
    cdef size_t offered = data[1] if end else 0
    if offered and arrival.door.methods & 2 and memchr(data + 2, WITH_PASSWORD, offered) != NULL:
        arrival.stage = LOGIN
        arrival.begin = end
        return WITH_PASSWORD
    if offered and arrival.door.methods & 1 and memchr(data + 2, 0, offered) != NULL:
        arrival.stage = REQUEST
        arrival.begin = end
        return 0
    return 255


cdef inline void advance(Hall *hall, Arrival *arrival) noexcept nogil:
    """Take the messages that are there. Half of one, or one that is not plain, is the control plane's."""
    cdef uint8_t *data = arrivals.received(arrival)
    cdef uint8_t method
    if arrival.stage == GREETING:
        if data[0] == 4:
            if not arrival.door.socks4 or not take_request(
                hall, arrival, messages.end_of_request4(data, arrival.size)
            ):
                hand_over(hall, arrival, 0)
            return
        method = greet(arrival, data)
        if method == 255:
            hand_over(hall, arrival, 0)
            return
        if not say(hall, arrival, 5, method):
            return
    if arrival.stage == LOGIN and arrival.begin < arrival.size:
        if not log_in(hall, arrival, data):
            hand_over(hall, arrival, 0)
            return
        if not say(hall, arrival, 1, 0):
            return
    if arrival.stage == REQUEST and arrival.begin < arrival.size:
        if not take_request(hall, arrival, messages.end_of_request5(data, arrival.size, arrival.begin)):
            hand_over(hall, arrival, 0)


cdef inline bint read(Hall *hall, Arrival *arrival) noexcept nogil:
    """Take what is there. False: nothing was, and the arrival waits on; else it may be gone."""
    cdef uint8_t *buffer = hall.relay.pump.buffer
    cdef ssize_t count = recv(arrival.flow.inbound.fd, buffer, READ_SIZE, MSG_DONTWAIT)
    cdef int error
    if count < 0:
        error = errno
        if error == EAGAIN:
            return False
        hand_over(hall, arrival, error)
        return True
    if not count:  # the end, which is there to be read once more
        hand_over(hall, arrival, 0)
        return True
    if count == READ_SIZE:
        arrival.is_unsure = True
    if arrivals.keep(arrival, buffer, count):
        advance(hall, arrival)
    else:
        hand_over(hall, arrival, ENOMEM)  # what was read is lost
    return True
