"""Counters in memory that several processes share; `tabi.relay.rows` says what they mean.

A cell is added to by both planes of its process, each by one atomic operation. All of them are sequentially consistent:
of two who race for the last place, in whatever processes, at least one sees the other.
"""

from libc.stdint cimport int64_t

from tabi.relay._native.sys cimport add_count, load_count

cdef extern from * nogil:
    """
    #define TABI_PIN ((int64_t)1 << 40)
    #define load_sure(at) __atomic_load_n(at, __ATOMIC_SEQ_CST)
    static inline int tabi_unpin(int64_t *at) {
        int64_t pin = TABI_PIN;
        return __atomic_compare_exchange_n(at, &pin, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    """
    const int64_t TABI_PIN
    int64_t load_sure(const int64_t *at)
    bint tabi_unpin(int64_t *at)

cdef struct Rows:
    int64_t *words  # of the control plane, which keeps them as long as the engine's thread runs
    int64_t columns
    int64_t column

cdef struct Counter:
    int64_t row
    int64_t limit  # below 0 there is none


cdef inline int64_t total(Rows *rows, int64_t row) noexcept nogil:
    """Say how many were counted in by all."""
    cdef int64_t column, count = 0
    for column in range(rows.columns):
        count += load_sure(rows.words + row + column)
    return count & (TABI_PIN - 1)


cdef inline int64_t own(Rows *rows, int64_t row) noexcept nogil:
    """Say how many were counted in by this process."""
    return load_count(rows.words + row + rows.column) & (TABI_PIN - 1)


cdef inline int64_t change(Rows *rows, int64_t row, int64_t delta) noexcept nogil:
    """Add to our cell, and return what is counted in it now."""
    return add_count(rows.words + row + rows.column, delta) & (TABI_PIN - 1)


cdef inline bint enter(Rows *rows, Counter *counter) noexcept nogil:
    """Count one in, unless there would be too many then."""
    change(rows, counter.row, 1)
    if counter.limit < 0 or total(rows, counter.row) <= counter.limit:
        return True
    change(rows, counter.row, -1)
    return False


cdef inline void leave_all(Rows *rows, Counter *counters, int count) noexcept nogil:
    """Count one out with all of these."""
    cdef int number
    for number in range(count):
        change(rows, counters[number].row, -1)


cdef inline bint enter_all(Rows *rows, Counter *counters, int count) noexcept nogil:
    """Count one in with all of these, or with none."""
    cdef int number
    for number in range(count):
        if not enter(rows, &counters[number]):
            leave_all(rows, counters, number)
            return False
    return True


cdef inline int64_t number(Rows *rows, int64_t row) noexcept nogil:
    """Take a number that nobody has got by this row, in no process."""
    return (change(rows, row, 1) - 1) * rows.columns + rows.column + 1
