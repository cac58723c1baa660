"""Pipes to splice through: pooled, of one size, and within what the kernel grants a user.

What the budget is and why a pipe that cannot grow is worse than none: `tabi.relay._pipes`. Every pipe is in the pool's
table; a side that uses one holds its number. Descriptors are closed here only.
"""

from libc.stdint cimport uint8_t, uint32_t

from tabi.relay._native.sys cimport F_SETPIPE_SZ, O_CLOEXEC, O_NONBLOCK, check, close, fcntl, pipe2

cdef enum:
    PIPE_SIZE = 1 << 20
    MOST = 255  # so many are told apart by a byte; 0 is no pipe
    PAUSE = 256  # requests that are turned down once the kernel has refused

cdef struct Pipe:
    int read_end
    int write_end
    uint32_t held  # bytes
    uint8_t below  # the next of the free ones

cdef struct Pipes:
    Pipe table[MOST + 1]
    int budget
    int made
    uint8_t free  # the one that was given back last
    uint8_t blank  # the first entry without descriptors
    uint32_t turn_down


cdef inline void prepare(Pipes *pipes, int budget) noexcept nogil:
    """Allow so many pipes."""
    cdef int number
    pipes.budget = min(budget, <int>MOST)
    for number in range(1, MOST + 1):
        pipes.table[number].below = number + 1 if number < MOST else 0
    pipes.blank = 1


cdef inline bint make(Pipe *pipe) noexcept nogil:
    """Make a pipe and let it grow; False if the kernel has no descriptor or no pages for it."""
    cdef int ends[2]
    if pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0:  # EMFILE, ENFILE: descriptors are for tunnels, copying needs none
        return False
    if fcntl(ends[1], F_SETPIPE_SZ, PIPE_SIZE) < 0:  # EPERM: the user's pages are spent; EBUSY, ENOMEM
        close(ends[0])
        close(ends[1])
        return False
    pipe.read_end = ends[0]
    pipe.write_end = ends[1]
    pipe.held = 0
    return True


cdef inline uint8_t borrow(Pipes *pipes) noexcept nogil:
    """Lend a pipe; 0 says: copy."""
    cdef uint8_t number = pipes.free
    if number:
        pipes.free = pipes.table[number].below
        return number
    if pipes.turn_down:
        pipes.turn_down -= 1
        return 0
    if pipes.made >= pipes.budget:
        return 0
    number = pipes.blank
    if not make(&pipes.table[number]):
        pipes.turn_down = PAUSE
        return 0
    pipes.blank = pipes.table[number].below
    pipes.made += 1
    return number


cdef inline void give(Pipes *pipes, uint8_t number) noexcept nogil:
    """Take back a pipe that is empty."""
    check(not pipes.table[number].held)
    pipes.table[number].below = pipes.free
    pipes.free = number


cdef inline void discard(Pipes *pipes, uint8_t number) noexcept nogil:
    """Take back a pipe that may not be empty: what is in it is of a flow that is over."""
    cdef Pipe *pipe = &pipes.table[number]
    close(pipe.read_end)
    close(pipe.write_end)
    pipe.held = 0
    pipe.below = pipes.blank
    pipes.blank = number
    pipes.made -= 1


cdef inline void close_all(Pipes *pipes) noexcept nogil:
    """Close what is in the pool; nothing is lent any more."""
    cdef uint8_t number
    while pipes.free:
        number = pipes.free
        pipes.free = pipes.table[number].below
        discard(pipes, number)
    check(pipes.made == 0)
