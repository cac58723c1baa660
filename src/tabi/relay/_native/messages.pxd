"""How long a client's messages are; `tabi.relay._messages` says the same in Python.

Each `end_of_` gives the offset behind the message that begins at `at`, or 0 where it is not there whole or not plain.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcpy, memset

from tabi.relay._native.net cimport Address

cdef enum:
    MOST_NAME = 255  # bytes of a USERID and of a SOCKS4a domain
    LONGEST_ANSWER = 22


cdef inline size_t end_of_greeting(const uint8_t *data, size_t size) noexcept nogil:
    """``VER NMETHODS METHODS`` (RFC 1928 section 3)."""
    if size < 2 or data[0] != 5:
        return 0
    return <size_t>2 + data[1] if size >= <size_t>2 + data[1] else 0


cdef inline size_t end_of_login(const uint8_t *data, size_t size, size_t at) noexcept nogil:
    """``VER ULEN UNAME PLEN PASSWD`` (RFC 1929 section 2)."""
    cdef size_t length, end
    if size < at + 2 or data[at] != 1:
        return 0
    length = at + 2 + data[at + 1]
    if size <= length:
        return 0
    end = length + 1 + data[length]
    return end if size >= end else 0


cdef inline size_t end_of_request5(const uint8_t *data, size_t size, size_t at) noexcept nogil:
    """``VER CMD RSV ATYP DST.ADDR DST.PORT``, of a CONNECT (RFC 1928 section 4)."""
    cdef size_t end
    if size < at + 5 or data[at] != 5 or data[at + 1] != 1:
        return 0
    if data[at + 3] == 1:
        end = at + 10
    elif data[at + 3] == 3:
        end = at + 7 + data[at + 4]
    elif data[at + 3] == 4:
        end = at + 22
    else:
        return 0
    return end if size >= end else 0


cdef inline size_t end_of_text(const uint8_t *data, size_t size, size_t at) noexcept nogil:
    """Text of at most MOST_NAME bytes, and a NUL."""
    cdef const void *found
    if at >= size:
        return 0
    found = memchr(data + at, 0, min(size - at, <size_t>MOST_NAME + 1))
    return <const uint8_t *>found - data + 1 if found != NULL else 0


cdef inline size_t end_of_request4(const uint8_t *data, size_t size) noexcept nogil:
    """``VN CD DSTPORT DSTIP USERID NUL [DOMAIN NUL]``, of a CONNECT (SOCKS4.protocol, SOCKS4a.protocol)."""
    cdef size_t end
    if size < 9 or data[1] != 1:
        return 0
    end = end_of_text(data, size, 8)
    if end and data[7] and not (data[4] or data[5] or data[6]):
        end = end_of_text(data, size, end)
    return end


cdef inline size_t granted(uint8_t version, Address *shown, uint8_t *answer) noexcept nogil:
    """Write the reply that grants a request (RFC 1928 section 6, SOCKS4.protocol). Return its size."""
    if version == 4:
        answer[0] = 0
        answer[1] = 0x5A
        answer[2] = shown.port >> 8
        answer[3] = shown.port & 255
        memset(answer + 4, 0, 4)
        if shown.size == 4:  # there are four bytes for an address, so IPv6 shows as 0.0.0.0
            memcpy(answer + 4, shown.bytes, 4)
        return 8
    answer[0] = 5
    answer[1] = answer[2] = 0
    answer[3] = 1 if shown.size == 4 else 4
    memcpy(answer + 4, shown.bytes, shown.size)
    answer[4 + shown.size] = shown.port >> 8
    answer[5 + shown.size] = shown.port & 255
    return <size_t>6 + shown.size
