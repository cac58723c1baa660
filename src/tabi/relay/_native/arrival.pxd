"""A client's connection in the express lane, from accept until it is a flow or is handed over.

The engine's thread alone knows it until then. It lies beside the slot of the flow that it may become: the slot's sides
carry the descriptors, and events come by them. An arrival that is handed over is the message itself; whoever takes the
call frees it.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from tabi.relay._native cimport memory
from tabi.relay._native cimport permit as permits
from tabi.relay._native.flow cimport Flow
from tabi.relay._native.net cimport Address
from tabi.relay._native.node cimport Node
from tabi.relay._native.permit cimport Permit
from tabi.relay._native.tables cimport Door, User

cdef enum:
    ROOM = 320  # bytes from a client, at first

cdef enum Stage:  # what it waits for
    GREETING = 0
    LOGIN
    REQUEST
    PERMIT
    TARGET

cdef enum CallKind:
    ASK = 1
    HANDOVER
    EXHAUSTED

cdef struct Listener:  # a listening socket of somebody else's; the lane frees this
    int fd
    Address local
    bint is_wildcard
    bint is_heard  # by the epoll
    bint is_left  # to be freed when the turn is over
    Listener *next

cdef struct Call:  # what begins every message to the control plane, which frees it
    Node node
    uint8_t kind

cdef struct Exhausted:
    Call call
    int listener
    int error

cdef struct Ask:
    Call call
    int64_t arrival
    int64_t door
    User user
    uint32_t size
    uint8_t message[1]

cdef struct Arrival:
    Call call
    Arrival *before  # in the list of all
    Arrival *after
    Arrival *next_asking  # in its chain of those that wait for a permit
    Flow *flow
    int64_t number
    int fd  # once it is handed over; before that the flow's sides have the descriptors
    int outbound
    int listener
    int error
    Address client
    Address local
    Door door  # as it was when the client came in; number 0: nothing is counted
    int place  # of the door
    Stage stage
    bint is_unsure  # there may be more to read than the next event will tell of
    bint was_hung_up
    bint is_asking
    bint hears_client
    bint hears_target
    uint8_t sent
    int64_t accepted
    int64_t requested
    int64_t resolved
    int64_t deadline
    double moment  # of accept, by the clock on the wall
    Permit *permit
    Address target  # of an attempt that is handed over
    size_t begin  # of the message that is next
    size_t message  # where the request begins; it ends where the next one would begin
    size_t size
    size_t room
    uint8_t *more  # the bytes, where `inline` has no room for them
    User user
    uint8_t bytes[ROOM]


cdef inline uint8_t *received(Arrival *arrival) noexcept nogil:
    """Give the bytes that came."""
    return arrival.more if arrival.more != NULL else arrival.bytes


cdef inline bint keep(Arrival *arrival, const uint8_t *data, size_t count) noexcept nogil:
    """Add to what came; False if there is no memory."""
    cdef uint8_t *larger
    if arrival.size + count > arrival.room:
        larger = <uint8_t *>memory.take(arrival.size + count)
        if larger == NULL:
            return False
        memcpy(larger, received(arrival), arrival.size)
        memory.drop(arrival.more)
        arrival.more = larger
        arrival.room = arrival.size + count
    memcpy(received(arrival) + arrival.size, data, count)
    arrival.size += count
    return True


cdef inline void dispose(Arrival *arrival) noexcept nogil:
    """Free it. Its permit must have been let go by the engine's thread."""
    memory.drop(arrival.more)
    memory.drop(arrival)
