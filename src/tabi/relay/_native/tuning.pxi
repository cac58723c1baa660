"""Tunings as the control plane keeps them, a part of `_engine.pyx`."""

from tabi.relay._native.flow cimport COPIED, SETTLED
from tabi.relay._native.tuning cimport Tuning

from tabi.relay.tuning import SYSTEM


cdef class _Tuned:
    """Keeps a tuning; flows and permits point into it."""

    cdef Tuning tuning

    def __cinit__(self, wanted):
        cdef Tuning *tuning = &self.tuning
        congestion = wanted.congestion.encode()
        if len(congestion) >= sizeof(tuning.congestion):
            raise ValueError(f"no congestion control has a name of {len(congestion)} bytes")
        if wanted.congestion != AUTO:
            tuning.marks |= SETTLED
            if wanted.congestion != SYSTEM:
                memcpy(tuning.congestion, PyBytes_AS_STRING(congestion), len(congestion))
        if not wanted.splice:
            tuning.marks |= COPIED
        tuning.keepalive = -1 if wanted.keepalive is None else wanted.keepalive
        tuning.send_buffer, tuning.receive_buffer = wanted.send_buffer, wanted.receive_buffer


cdef Tuning *tuning_of(dict known, wanted) except? NULL:
    """Give what a tuning is to the engine; there are as many as configurations have had. NULL: it is none."""
    if wanted is None:
        return NULL
    kept = known.get(wanted)
    if kept is None:
        kept = known[wanted] = _Tuned(wanted)
    return &(<_Tuned>kept).tuning
