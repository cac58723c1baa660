"""The state of one flow: two sides and what is said about them at the end.

An idle flow is what these structs weigh, the record, and nothing else: 176 bytes. The engine's thread alone writes to a
flow from `Loop.orders` to `Loop.ended`; before and after it is the control plane's. Meanwhile others may read `taken`
and `last`, one aligned word each, and what does not change: `number`, `record`, `started`.
"""

from libc.errno cimport EBADF, EIO, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from tabi.relay._native cimport memory
from tabi.relay._native.groups cimport Share
from tabi.relay._native.node cimport Node
from tabi.relay._native.sys cimport (
    SHUT_WR,
    SO_OOBINLINE,
    abort_on_close,
    add_count,
    close,
    do_not_block,
    set_option,
    shutdown,
    take_socket_error,
    unsent_bytes,
)

cdef enum Mark:  # of a side
    AT_END = 1  # nothing more will be read from here
    SHUT = 2  # we have sent our FIN
    QUEUED = 4  # has something to move, or may have: its turn will come
    OUTBOUND = 8  # it is the target's
    SETTLED = 32  # what congestion control it has has been seen to
    UNBLOCKED = 16  # the descriptor does not block: splice goes by that, and by nothing else
    COPIED = 64  # what comes from here is not spliced

cdef enum FlowMark:  # of `Flow.node.marks`
    READY = 1  # stands in the list of those that go on
    FIN_IN = 2  # the first FIN was the client's
    FIN_OUT = 4  # or the target's
    WELL = 8  # both sides are open, and registered

cdef enum State:  # of `Flow.node.state`
    FREE = 0
    GIVEN = 1  # on its way to the engine's thread
    LIVE = 2
    OVER = 3  # on its way back; plus the closer
    ARRIVING = 6  # in the express lane, and not yet a flow

cdef struct Owed:  # bytes for a socket, not yet taken by its kernel; the side frees it
    size_t begin
    size_t end
    uint8_t bytes[1]

cdef struct Record:  # of the control plane; shared by flows of the express lane, whose tails differ
    int64_t holders  # the last of them frees it
    uint32_t size
    char bytes[1]

cdef struct Linger:  # one side is broken, while what it sent before is delivered to the other; the flow frees it
    int64_t mark  # bytes that the living side's peer has acknowledged, or a constant more
    int64_t moved  # when that last grew
    int64_t since
    bint is_outbound  # that is broken

cdef struct Side:
    int fd  # ours from adopt to the end
    uint8_t err  # the first errno; sticky, because the kernel tells it once
    uint8_t marks
    uint8_t big  # how surely this is a bulk stream
    uint8_t pipe  # number of the one that bytes from this socket are in, on the way to its peer
    int64_t taken  # bytes that this socket's kernel took
    Owed *out

cdef struct Tail:  # what the express lane adds to a record (`tabi.relay.lane.Tail`)
    int64_t session  # 0: there is none
    double accepted
    float handshake
    float resolve
    float connect
    uint16_t port

cdef struct Flow:
    Node node
    # fixed
    int64_t number  # low 32 bits: of its slot, from 1; above: how often that was used before
    int64_t started
    Record *record
    # the engine's thread's
    Side inbound
    Side outbound
    int64_t last  # when a byte last moved; when the flow ended, once it is over
    Share *share  # NULL: it may move as fast as it can
    Linger *linger  # NULL: no side is broken
    void *before  # ARRIVING: the arrival that it is; GIVEN: the tuning that it is to have, or NULL
    Tail tail
    float idle  # seconds
    float half_open
    float lifetime
    uint32_t fin_tick  # when the first FIN came


cdef inline void let_go_of(Record *record) noexcept nogil:
    """Be one less that holds a record; NULL is nothing."""
    if record != NULL and not add_count(&record.holders, -1):
        memory.drop(record)


cdef inline Flow *flow_of(Side *side) noexcept nogil:
    """Give the flow of a side."""
    if side.marks & OUTBOUND:
        side -= 1
    return <Flow *>(<char *>side - <size_t>&(<Flow *>NULL).inbound)


cdef inline Side *peer_of(Side *side) noexcept nogil:
    """Give the other side."""
    return side - 1 if side.marks & OUTBOUND else side + 1


cdef inline Side *broken_side(Flow *flow) noexcept nogil:
    """Give the side that broke first; the flow must linger."""
    return &flow.outbound if flow.linger.is_outbound else &flow.inbound


cdef inline bint is_held_back(Flow *flow) noexcept nogil:
    """Say whether it waits for tokens: then it is ours, and no peer's doing that nothing moves."""
    return flow.share != NULL and flow.share.at != NULL


cdef inline void fail(Side *side, int error) noexcept nogil:
    """Remember that the socket is broken; the first error stays."""
    if not side.err:
        side.err = error if 0 < error < 256 else EIO


cdef inline void take_error(Side *side) noexcept nogil:
    """Ask the kernel which error it holds."""
    cdef int error = take_socket_error(side.fd)
    if error:
        fail(side, error)


cdef inline bint open_side(Side *side) noexcept nogil:
    """Prepare the descriptor; False: that cannot be.

    Out-of-band data inline: the urgent byte arrives as the data that it is (RFC 6093, 4).
    """
    if set_option(side.fd, SO_OOBINLINE, 1) < 0:
        fail(side, errno)
        return False
    return True


cdef inline void unblock(Side *side) noexcept nogil:
    """See to it that a splice does not block. Reads and writes say so each time; most flows never get to a splice."""
    if not side.marks & UNBLOCKED:
        side.marks |= UNBLOCKED
        if do_not_block(side.fd) < 0:
            fail(side, errno)


cdef inline void send_fin(Side *side) noexcept nogil:
    """Shut our direction down; a socket that cannot do that any more is broken."""
    cdef int error
    side.marks |= SHUT
    if shutdown(side.fd, SHUT_WR) < 0:
        error = errno  # ENOTCONN; the kernel may still know the cause
        take_error(side)
        fail(side, error)


cdef inline int64_t unsent(Side *side) noexcept nogil:
    """Count the bytes in the kernel's queue that the peer has not acknowledged."""
    cdef int count = 0
    if unsent_bytes(side.fd, &count) < 0:
        fail(side, errno)
        return 0
    return count


cdef inline int64_t acknowledged(Side *side) noexcept nogil:
    """Count the bytes that the peer's kernel has, up to a constant (our FIN, what was sent before us)."""
    return side.taken - unsent(side)


cdef inline void forget_owed(Side *side) noexcept nogil:
    """Give up what is owed."""
    memory.drop(side.out)
    side.out = NULL


cdef inline bint owe(Side *side, const void *data, size_t size) noexcept nogil:
    """Keep bytes for a side that is owed none yet; False if there is no memory."""
    cdef Owed *owed = <Owed *>memory.take(sizeof(Owed) + size)
    if owed == NULL:
        return False
    owed.begin = 0
    owed.end = size
    memcpy(owed.bytes, data, size)
    side.out = owed
    return True


cdef inline void close_side(Side *side, bint reset) noexcept nogil:
    """Close the descriptor, with RST if told so and the socket is not broken itself."""
    forget_owed(side)
    if side.fd < 0:
        return
    if reset and not side.err and abort_on_close(side.fd) < 0:
        fail(side, errno)
        if errno == EBADF:  # somebody closed it behind our back: the number is not ours any more
            return
    if close(side.fd) < 0 and errno == EBADF:
        fail(side, EBADF)
