"""Moving bytes from one socket to another: by copying, or by splice once a stream proves bulky.

Knows sides and pipes, no time and no ends: it moves what can be moved now, notes what it saw on the sides and says how
far it came. Why it may stop where it stops, and the sizes: `tabi.relay._pump`.
"""

from libc.errno cimport EAGAIN, ENOMEM, errno
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t

from tabi.relay._native cimport flow as flows
from tabi.relay._native cimport pipes as pool
from tabi.relay._native.congestion cimport NAME_MOST, has_near_peer, set_congestion_control
from tabi.relay._native.flow cimport AT_END, COPIED, SETTLED, Owed, Side
from tabi.relay._native.pipes cimport PIPE_SIZE, Pipe, Pipes
from tabi.relay._native.sys cimport MSG_DONTWAIT, MSG_NOSIGNAL, SPLICE_F_NONBLOCK, recv, send, splice

cdef enum:
    READ_SIZE = 128 * 1024
    LARGE = READ_SIZE // 2  # a read of this size counts towards a bulk stream
    SMALL = 16 * 1024  # a splice that brings less counts against
    BULKIEST = 8  # so many small splices in a row end a bulk stream
    ROUNDS = 8  # reads per turn: other flows wait for at most so many

cdef enum Pumped:
    WAITS = 0  # for an event on one of the two sides, or one of them is broken
    MORE = 1  # the turn is over, there may be more: come back
    ENDED = 2  # the source has ended and all that it sent is with the sink's kernel

cdef extern from * nogil:
    """
    #define ALL ((int64_t)1 << 62)
    """
    const int64_t ALL

cdef struct Pump:
    char steady[NAME_MOST]  # the congestion control of bulk streams on near legs; empty: leave what there is
    uint8_t *buffer  # READ_SIZE bytes, for all flows
    int splice_after  # large reads in a row before a stream is spliced
    Pipes pipes


cdef inline int64_t in_pipe(Pump *pump, Side *source) noexcept nogil:
    """Count the bytes from this side that are in its pipe."""
    return pump.pipes.table[source.pipe].held if source.pipe else 0


cdef inline void put_pipe_back(Pump *pump, Side *source) noexcept nogil:
    """Let others have the pipe if it is empty."""
    if source.pipe and not pump.pipes.table[source.pipe].held:
        pool.give(&pump.pipes, source.pipe)
        source.pipe = 0


cdef inline void drop(Pump *pump, Side *source) noexcept nogil:
    """Give up what is in the pipe of a side."""
    if source.pipe:
        pool.discard(&pump.pipes, source.pipe)
        source.pipe = 0


cdef inline bint discard(Pump *pump, Side *source) noexcept nogil:
    """Read what there is and throw it away; say whether there may be more."""
    cdef int number
    cdef ssize_t count
    for number in range(ROUNDS):
        count = recv(source.fd, pump.buffer, READ_SIZE, MSG_DONTWAIT)
        if count <= 0:
            if count < 0 and errno != EAGAIN:
                flows.fail(source, errno)
            return False
    return True


cdef inline bint is_bulk(Pump *pump, Side *source, Side *sink) noexcept nogil:
    """Say whether a stream is to be spliced; the sink of one that is worth it gets the congestion control of such."""
    if source.big < pump.splice_after:
        return False
    if pump.steady[0] and not sink.marks & SETTLED:
        sink.marks |= SETTLED
        if has_near_peer(sink.fd):
            set_congestion_control(sink.fd, pump.steady)
    return not source.marks & COPIED


cdef inline bint has_pipe(Pump *pump, Side *source) noexcept nogil:
    """Borrow a pipe if it has none."""
    if not source.pipe:
        source.pipe = pool.borrow(&pump.pipes)
        if not source.pipe:
            source.big = 0  # copy; ask again after the next large reads
            return False
    return True


cdef inline bint deliver_owed(Side *sink, int64_t end) noexcept nogil:
    """Write what is owed to the sink until it is gone or `end` is reached (True), or the sink is full or broken."""
    cdef Owed *owed = sink.out
    cdef ssize_t count
    while owed.begin < owed.end and sink.taken < end:
        count = send(
            sink.fd, owed.bytes + owed.begin, min(owed.end - owed.begin, <size_t>(end - sink.taken)),
            MSG_NOSIGNAL | MSG_DONTWAIT,
        )
        if count < 0:
            if errno != EAGAIN:
                flows.fail(sink, errno)
            return False
        owed.begin += count
        sink.taken += count
    if owed.begin == owed.end:
        flows.forget_owed(sink)
    return True


cdef inline bint deliver_pipe(Pump *pump, Side *source, Side *sink, int64_t end) noexcept nogil:
    """Do the same with what is in the source's pipe."""
    cdef Pipe *pipe = &pump.pipes.table[source.pipe]
    cdef ssize_t count
    flows.unblock(sink)
    while pipe.held and sink.taken < end:
        count = splice(
            pipe.read_end, NULL, sink.fd, NULL, min(<int64_t>pipe.held, end - sink.taken), SPLICE_F_NONBLOCK
        )
        if count < 0:
            if errno != EAGAIN:
                flows.fail(sink, errno)
            return False
        pipe.held -= count
        sink.taken += count
    return True


cdef inline bint deliver(Pump *pump, Side *source, Side *sink, int64_t end) noexcept nogil:
    """Write what waits for the sink. A short write is followed by another: only EAGAIN arms the edge that calls us."""
    if sink.out != NULL and not deliver_owed(sink, end):
        return False
    return not in_pipe(pump, source) or deliver_pipe(pump, source, sink, end)


cdef inline bint waits(Pump *pump, Side *source, Side *sink) noexcept nogil:
    """Say whether something waits for the sink."""
    return sink.out != NULL or in_pipe(pump, source) != 0


cdef inline ssize_t copy(Pump *pump, Side *source, Side *sink, size_t size) noexcept nogil:
    """Read up to `size` bytes once and write at once, keep what the sink does not take.

    Return the bytes read, -1: none now.
    """
    cdef ssize_t written, count = recv(source.fd, pump.buffer, size, MSG_DONTWAIT)
    if count <= 0:
        if count < 0:
            if errno == EAGAIN:
                return -1
            flows.fail(source, errno)  # after all the data that came before it, and once
        source.marks |= AT_END
        return 0
    source.big = min(source.big + 1, <int>BULKIEST) if count >= LARGE else source.big >> 1
    written = send(sink.fd, pump.buffer, count, MSG_NOSIGNAL | MSG_DONTWAIT)
    if written < 0:
        if errno != EAGAIN:
            flows.fail(sink, errno)
            return count
        written = 0
    sink.taken += written
    if written < count and not flows.owe(sink, pump.buffer + written, count - written):
        flows.fail(sink, ENOMEM)
    return count


cdef inline bint fill_pipe(Pump *pump, Side *source, size_t size) noexcept nogil:
    """Put up to `size` bytes into the pipe, which is empty. False: nothing came, a read must find out why.

    Splice says 0 and EAGAIN in front of an urgent byte as well.
    """
    cdef Pipe *pipe = &pump.pipes.table[source.pipe]
    cdef ssize_t count
    flows.unblock(source)
    count = splice(source.fd, NULL, pipe.write_end, NULL, size, SPLICE_F_NONBLOCK)
    if count < 0:
        if errno == EAGAIN:
            return False
        flows.fail(source, errno)
        source.marks |= AT_END
        return True
    pipe.held = count
    if count >= LARGE:
        source.big = min(source.big + 1, <int>BULKIEST)
    elif count < SMALL and source.big:
        source.big -= 1
    return count > 0


cdef inline Pumped turn(Pump *pump, Side *source, Side *sink, bint sure) noexcept nogil:
    cdef int number
    cdef ssize_t count
    for number in range(ROUNDS):
        if waits(pump, source, sink) and not deliver(pump, source, sink, ALL):
            return WAITS
        if source.marks & AT_END:
            return ENDED
        if is_bulk(pump, source, sink) and has_pipe(pump, source):
            if fill_pipe(pump, source, PIPE_SIZE):
                continue
            sure = False  # the read below decides
        count = copy(pump, source, sink, READ_SIZE)
        if count < 0 or sink.err:
            return WAITS
        if sure and 0 < count < READ_SIZE and sink.out == NULL:
            return WAITS
    return MORE


cdef inline Pumped turn_within(Pump *pump, Side *source, Side *sink, int64_t end) noexcept nogil:
    """Move until the sink has taken `end` bytes in all. No more is read than it may take."""
    cdef int number
    cdef int64_t size
    for number in range(ROUNDS):
        if waits(pump, source, sink):
            if not deliver(pump, source, sink, end):
                return WAITS
            if waits(pump, source, sink):
                return MORE
        if source.marks & AT_END:
            return ENDED
        size = min(end - sink.taken, <int64_t>PIPE_SIZE)
        if size <= 0:
            return MORE
        if is_bulk(pump, source, sink) and has_pipe(pump, source) and fill_pipe(pump, source, size):
            continue
        if copy(pump, source, sink, min(size, <int64_t>READ_SIZE)) < 0 or sink.err:
            return WAITS
    return MORE


cdef inline Pumped run(Pump *pump, Side *source, Side *sink, bint sure) noexcept nogil:
    """Move what can be moved from source to sink.

    `sure` says that a short read means that the source is empty: the event did not tell of an end, an error or an
    urgent byte.
    """
    cdef Pumped pumped = turn(pump, source, sink, sure)
    put_pipe_back(pump, source)
    return pumped


cdef inline Pumped run_within(Pump *pump, Side *source, Side *sink, int64_t most) noexcept nogil:
    """Do the same, but let the sink take `most` bytes at most: MORE also when it has."""
    cdef Pumped pumped = turn_within(pump, source, sink, sink.taken + most)
    put_pipe_back(pump, source)
    return pumped
