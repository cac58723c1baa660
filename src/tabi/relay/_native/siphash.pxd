"""SipHash-2-4 with 128 bits (Aumasson and Bernstein, 2012): the marks by which the lane knows what it was taught.

Keyed, so that nobody can choose logins or requests that meet in one place, and nothing can be read from a mark.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

cdef struct Mark:
    uint64_t low
    uint64_t high

cdef struct State:
    uint64_t a
    uint64_t b
    uint64_t c
    uint64_t d


cdef inline uint64_t turned(uint64_t word, int bits) noexcept nogil:
    return word << bits | word >> (64 - bits)


cdef inline void mix(State *state, int rounds) noexcept nogil:
    cdef int number
    for number in range(rounds):
        state.a += state.b
        state.b = turned(state.b, 13) ^ state.a
        state.a = turned(state.a, 32)
        state.c += state.d
        state.d = turned(state.d, 16) ^ state.c
        state.a += state.d
        state.d = turned(state.d, 21) ^ state.a
        state.c += state.b
        state.b = turned(state.b, 17) ^ state.c
        state.c = turned(state.c, 32)


cdef inline void absorb(State *state, uint64_t word) noexcept nogil:
    state.d ^= word
    mix(state, 2)
    state.a ^= word


cdef inline Mark mark_of(const uint64_t *key, const uint8_t *data, size_t size) noexcept nogil:
    """Give the mark of some bytes; `key` is two words. Within one process, so the order of bytes is the machine's."""
    cdef State state
    cdef Mark mark
    cdef size_t at
    cdef uint64_t word
    state.a = key[0] ^ <uint64_t>0x736F6D6570736575
    state.b = key[1] ^ <uint64_t>0x646F72616E646F6D ^ 0xEE
    state.c = key[0] ^ <uint64_t>0x6C7967656E657261
    state.d = key[1] ^ <uint64_t>0x7465646279746573
    for at in range(0, size - size % 8, 8):
        memcpy(&word, data + at, 8)
        absorb(&state, word)
    word = 0
    memcpy(&word, data + size - size % 8, size % 8)
    absorb(&state, word | <uint64_t>size << 56)
    state.c ^= 0xEE
    mix(&state, 4)
    mark.low = state.a ^ state.b ^ state.c ^ state.d
    state.b ^= 0xDD
    mix(&state, 4)
    mark.high = state.a ^ state.b ^ state.c ^ state.d
    return mark


cdef inline bint is_same(Mark *one, Mark *other) noexcept nogil:
    return one.low == other.low and one.high == other.high
