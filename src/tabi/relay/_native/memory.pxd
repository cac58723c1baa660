"""Memory of the engine: counted, so that a test can say that nothing is left.

Whoever allocates says in its own module who frees.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free, malloc

from tabi.relay._native.sys cimport add_count

cdef extern from * nogil:
    """
    static int64_t tabi_blocks;
    """
    int64_t tabi_blocks  # that are allocated now, by any thread


cdef inline void *take(size_t size) noexcept nogil:
    """Allocate; NULL if there is no memory."""
    cdef void *block = malloc(size)
    if block != NULL:
        add_count(&tabi_blocks, 1)
    return block


cdef inline void *take_zeroed(size_t count, size_t size) noexcept nogil:
    """Allocate `count` things of `size` bytes, all zero; pages that nobody touches cost nothing."""
    cdef void *block = calloc(count, size)
    if block != NULL:
        add_count(&tabi_blocks, 1)
    return block


cdef inline void drop(void *block) noexcept nogil:
    """Free; NULL is nothing."""
    if block != NULL:
        add_count(&tabi_blocks, -1)
        free(block)
