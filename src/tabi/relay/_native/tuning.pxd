"""Tuning the sides of a flow as it begins; `tabi.relay.tuning` says what there is.

The control plane makes a tuning and keeps it for as long as there is the engine; nobody else writes to it.
"""

from libc.stdint cimport uint8_t

from tabi.relay._native cimport sys  # whose C is used below
from tabi.relay._native.congestion cimport NAME_MOST, set_congestion_control
from tabi.relay._native.flow cimport COPIED, SETTLED, Flow, Side
from tabi.relay._native.sys cimport set_option

cdef extern from * nogil:
    """
    #include <netinet/in.h>
    #include <netinet/tcp.h>

    static inline void set_keepalive_idle(int fd, int seconds) {
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds);
    }
    """
    const int SO_KEEPALIVE, SO_SNDBUF, SO_RCVBUF
    void set_keepalive_idle(int fd, int seconds)

cdef struct Tuning:
    uint8_t marks  # that both sides get: SETTLED, COPIED
    char congestion[NAME_MOST]  # empty: none is set
    int keepalive  # seconds of silence before the first probe; 0: none are sent, -1: as it is
    int send_buffer  # bytes; 0: as it is
    int receive_buffer


cdef inline void tune_side(Side *side, const Tuning *tuning) noexcept nogil:
    """Have a side used like this. What the kernel does not grant stays as it is."""
    side.marks |= tuning.marks
    if tuning.congestion[0]:
        set_congestion_control(side.fd, tuning.congestion)
    if tuning.keepalive >= 0:
        set_option(side.fd, SO_KEEPALIVE, tuning.keepalive > 0)
    if tuning.keepalive > 0:
        set_keepalive_idle(side.fd, tuning.keepalive)
    if tuning.send_buffer:
        set_option(side.fd, SO_SNDBUF, tuning.send_buffer)
    if tuning.receive_buffer:
        set_option(side.fd, SO_RCVBUF, tuning.receive_buffer)


cdef inline void tune(Flow *flow, const Tuning *tuning) noexcept nogil:
    """Have both sides used like this; NULL is as they are."""
    if tuning != NULL:
        tune_side(&flow.inbound, tuning)
        tune_side(&flow.outbound, tuning)
