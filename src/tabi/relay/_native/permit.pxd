"""The verdict on a request (`tabi.relay.lane.Permit`), as the engine keeps it.

The control plane makes it and gives it away with an answer; from there on the engine's thread alone counts who holds
it: the table, and arrivals. The facts outlive it, as every flow that began by them holds them as well.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from tabi.relay._native cimport flow as flows
from tabi.relay._native cimport memory
from tabi.relay._native.flow cimport Record
from tabi.relay._native.groups cimport Share
from tabi.relay._native.net cimport Address
from tabi.relay._native.rows cimport Counter
from tabi.relay._native.tuning cimport Tuning

cdef enum:
    MOST_COUNTERS = 4

cdef struct Permit:
    uint32_t holders
    uint8_t counts  # of `counters`
    bint shows_target
    int64_t until  # nanoseconds of the engine's clock
    int64_t patience
    Address target
    float idle
    float half_open
    double lifetime
    Counter counters[MOST_COUNTERS]
    Share *share  # what each flow gets a copy of; NULL: none
    Record *facts
    const Tuning *tuning  # NULL: none


cdef inline Permit *hold(Permit *permit) noexcept nogil:
    """Be one more that knows it."""
    permit.holders += 1
    return permit


cdef inline void let_go(Permit *permit) noexcept nogil:
    """Be one less; the last one frees it. NULL is nothing."""
    if permit == NULL:
        return
    permit.holders -= 1
    if not permit.holders:
        flows.let_go_of(permit.facts)
        memory.drop(permit.share)
        memory.drop(permit)
