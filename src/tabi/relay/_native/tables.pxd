"""What the express lane was taught: doors, passes, permits. Bounded; nothing here is a refusal.

What is looked up is known by its mark alone, so no password lies here. A place is one of a few that the mark begins
with. A door that finds none free is not taken; the other two displace what was there, and are taught again.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tabi.relay._native cimport memory
from tabi.relay._native cimport permit as permits
from tabi.relay._native.permit cimport Permit
from tabi.relay._native.rows cimport Counter, Rows, total
from tabi.relay._native.siphash cimport Mark, is_same

cdef enum:
    DOORS = 8192  # places; the control plane teaches half as many
    PASSES = 4096
    PERMITS = 8192
    DOOR_WINDOW = 16
    WINDOW = 4

cdef struct Door:
    int64_t number
    uint8_t methods
    bint socks4
    Counter counters[3]  # all connections, the client's, its handshakes

cdef struct User:
    bint is_known  # else nobody has logged in
    uint8_t size
    uint8_t name[255]

cdef struct Pass:
    Mark mark
    int64_t until  # 0: there is none
    Counter failures  # and how many there were
    User user

cdef struct Verdict:
    Mark mark
    Permit *permit  # NULL: there is none

cdef struct Tables:
    uint64_t key[2]
    Mark *door_marks
    int64_t *door_numbers  # 0: the place is free
    Door *doors
    Pass *passes
    Verdict *verdicts


cdef inline void close(Tables *tables) noexcept nogil:
    """Free the tables, which are empty."""
    memory.drop(tables.door_marks)
    memory.drop(tables.door_numbers)
    memory.drop(tables.doors)
    memory.drop(tables.passes)
    memory.drop(tables.verdicts)


cdef inline bint prepare(Tables *tables) noexcept nogil:
    """Make empty ones; False if there is no memory, and `close` is due in any case."""
    tables.door_marks = <Mark *>memory.take_zeroed(DOORS, sizeof(Mark))
    tables.door_numbers = <int64_t *>memory.take_zeroed(DOORS, sizeof(int64_t))
    tables.doors = <Door *>memory.take_zeroed(DOORS, sizeof(Door))
    tables.passes = <Pass *>memory.take_zeroed(PASSES, sizeof(Pass))
    tables.verdicts = <Verdict *>memory.take_zeroed(PERMITS, sizeof(Verdict))
    return (
        tables.door_marks != NULL and tables.door_numbers != NULL and tables.doors != NULL
        and tables.passes != NULL and tables.verdicts != NULL
    )


cdef inline void clear(Tables *tables) noexcept nogil:
    """Forget everything."""
    cdef int at
    memset(tables.door_numbers, 0, DOORS * sizeof(int64_t))
    for at in range(PASSES):
        tables.passes[at].until = 0
    for at in range(PERMITS):
        permits.let_go(tables.verdicts[at].permit)
        tables.verdicts[at].permit = NULL


cdef inline int find_door(Tables *tables, Mark *mark) noexcept nogil:
    """Say where a door is, or -1."""
    cdef uint32_t at
    cdef int step
    for step in range(DOOR_WINDOW):
        at = <uint32_t>((mark.low + step) % DOORS)
        if tables.door_numbers[at] and is_same(&tables.door_marks[at], mark):
            return <int>at
    return -1


cdef inline void add_door(Tables *tables, Mark *mark, Door *door) noexcept nogil:
    """Learn a door; in the place of another it takes that one's."""
    cdef int step
    cdef int at = find_door(tables, mark)
    for step in range(DOOR_WINDOW):
        if at < 0 and not tables.door_numbers[(mark.low + step) % DOORS]:
            at = <int>((mark.low + step) % DOORS)
    if at >= 0:
        tables.door_marks[at] = mark[0]
        tables.doors[at] = door[0]
        tables.door_numbers[at] = door.number


cdef inline void add_pass(Tables *tables, Pass *taught) noexcept nogil:
    """Learn a login; the one that is over soonest goes for it."""
    cdef Pass *place = NULL
    cdef Pass *other
    cdef int step
    for step in range(WINDOW):
        other = &tables.passes[(taught.mark.low + step) % PASSES]
        if other.until and is_same(&other.mark, &taught.mark):
            place = other
            break
        if place == NULL or other.until < place.until:
            place = other
    place.mark = taught.mark
    place.until = taught.until
    place.failures = taught.failures
    place.user.is_known = True
    place.user.size = taught.user.size
    memcpy(place.user.name, taught.user.name, taught.user.size)


cdef inline User *find_user(Tables *tables, Rows *rows, Mark *mark, int64_t now) noexcept nogil:
    """Say who this is, if it is known, and no login has failed since it was taught; else NULL."""
    cdef int step
    cdef Pass *one
    for step in range(WINDOW):
        one = &tables.passes[(mark.low + step) % PASSES]
        if one.until > now and is_same(&one.mark, mark):
            return &one.user if total(rows, one.failures.row) == one.failures.limit else NULL
    return NULL


cdef inline void add_permit(Tables *tables, Mark *mark, Permit *permit) noexcept nogil:
    """Learn what comes of a request; the one that is over soonest goes for it."""
    cdef Verdict *place = NULL
    cdef Verdict *other
    cdef int step
    for step in range(WINDOW):
        other = &tables.verdicts[(mark.low + step) % PERMITS]
        if other.permit == NULL or is_same(&other.mark, mark):
            if place == NULL or place.permit != NULL or other.permit != NULL:
                place = other
            if other.permit != NULL:
                break
        elif place == NULL or (place.permit != NULL and other.permit.until < place.permit.until):
            place = other
    permits.let_go(place.permit)
    place.mark = mark[0]
    place.permit = permits.hold(permit)


cdef inline Permit *find_permit(Tables *tables, Mark *mark, int64_t now) noexcept nogil:
    """Say what comes of a request, if that is known; else NULL."""
    cdef int step
    cdef Verdict *one
    for step in range(WINDOW):
        one = &tables.verdicts[(mark.low + step) % PERMITS]
        if one.permit != NULL and is_same(&one.mark, mark):
            return one.permit if one.permit.until > now else NULL
    return NULL
