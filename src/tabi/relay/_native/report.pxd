"""How the control plane is told that something waits to be taken: an eventfd.

Calls are told at once, for somebody waits, and so are ends, unless they may be told together: then an end is told at
once after a quiet time, and those that follow `PAUSE` after that. To be woken up costs the control plane many times
what an end does.
"""

from libc.stdint cimport int64_t

from tabi.relay._native.sys cimport EFD_CLOEXEC, EFD_NONBLOCK, eventfd, eventfd_write, load_count, monotonic

cdef enum:
    PAUSE = 5_000_000  # nanoseconds

cdef struct Report:
    int fd  # readable while something waits, but for ends that are still to be told
    bint owes  # there are such ends
    int64_t pause  # between tellings of ends; the control plane sets it
    int64_t told  # when that was last


cdef inline bint prepare(Report *report) noexcept nogil:
    """Open the eventfd, and say whether that could be done."""
    report.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    return report.fd >= 0


cdef inline void tell(Report *report) noexcept nogil:
    """Tell at once."""
    report.told = monotonic()
    report.owes = False
    eventfd_write(report.fd, 1)


cdef inline void note_ends(Report *report) noexcept nogil:
    """Tell of ends, now or when the pause is over."""
    if monotonic() - report.told >= load_count(&report.pause):
        tell(report)
    else:
        report.owes = True


cdef inline void pay(Report *report) noexcept nogil:
    """Tell what is owed, if the pause is over."""
    if report.owes:
        note_ends(report)


cdef inline int64_t wait(Report *report, int64_t timeout) noexcept nogil:
    """Shorten a timeout in nanoseconds, -1: none, so that what is owed is told in time."""
    cdef int64_t left
    if not report.owes:
        return timeout
    left = max(<int64_t>0, report.told + load_count(&report.pause) - monotonic())
    return left if timeout < 0 else min(timeout, left)
