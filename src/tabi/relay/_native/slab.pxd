"""Where flows lie: slots in chunks that stay where they are as long as the engine.

The control plane takes a slot for each flow that it adopts and takes it back when it has taken the flow's end; all that
under the GIL, which is its lock. In between the slot is the engine's thread's. As no chunk ever moves or goes away,
anybody may look at any slot at any time: at its state first.
"""

from libc.stdint cimport int64_t
from libc.string cimport memset

from tabi.relay._native cimport memory
from tabi.relay._native.flow cimport FREE, GIVEN, LIVE, OUTBOUND, Flow
from tabi.relay._native.node cimport FLOW, Node
from tabi.relay._native.sys cimport check, load_byte, load_int, store_byte, store_int

cdef enum:
    CHUNK = 256  # flows
    CHUNKS = 65_536  # 16 million flows; the table costs what of it is used

cdef extern from * nogil:
    """
    #define SLOT_MASK ((int64_t)0xffffffff)
    #define USED_ONCE_MORE ((int64_t)1 << 32)
    """
    const int64_t SLOT_MASK, USED_ONCE_MORE

cdef struct Slab:
    Flow **chunks
    int slots  # that exist
    Flow *free  # those that are not used, the last one first


cdef inline bint prepare(Slab *slab) noexcept nogil:
    """Make an empty one; False if there is no memory."""
    slab.chunks = <Flow **>memory.take_zeroed(CHUNKS, sizeof(Flow *))
    return slab.chunks != NULL


cdef inline Flow *at(Slab *slab, int index) noexcept nogil:
    """Give a slot that exists, counted from 0."""
    return &slab.chunks[index // CHUNK][index % CHUNK]


cdef inline Flow *find(Slab *slab, int64_t number) noexcept nogil:
    """Give the flow of this number if it is alive; for the engine's thread."""
    cdef int64_t slot = number & SLOT_MASK
    cdef Flow *flow
    if not 1 <= slot <= load_int(&slab.slots):
        return NULL
    flow = at(slab, <int>slot - 1)
    return flow if load_byte(&flow.node.state) == LIVE and flow.number == number else NULL


cdef inline bint grow(Slab *slab) noexcept nogil:
    """Add a chunk; False if there is no memory, or no number any more."""
    cdef int index, chunk = slab.slots // CHUNK
    if chunk == CHUNKS:
        return False
    slab.chunks[chunk] = <Flow *>memory.take_zeroed(CHUNK, sizeof(Flow))
    if slab.chunks[chunk] == NULL:
        return False
    for index in range(CHUNK - 1, -1, -1):
        slab.chunks[chunk][index].number = slab.slots + index + 1 - USED_ONCE_MORE
        slab.chunks[chunk][index].node.next = <Node *>slab.free
        slab.free = &slab.chunks[chunk][index]
    store_int(&slab.slots, slab.slots + CHUNK)
    return True


cdef inline Flow *take(Slab *slab) noexcept nogil:
    """Take a slot for a flow of a new number; NULL if there is no memory."""
    cdef Flow *flow
    cdef int64_t number
    cdef Node *after
    if slab.free == NULL and not grow(slab):
        return NULL
    flow = slab.free
    check(flow.node.state == FREE)
    after = flow.node.next
    number = flow.number + USED_ONCE_MORE
    memset(flow, 0, sizeof(Flow))
    slab.free = <Flow *>after
    flow.number = number
    flow.node.kind = FLOW
    flow.outbound.marks = OUTBOUND
    store_byte(&flow.node.state, GIVEN)
    return flow


cdef inline void give(Slab *slab, Flow *flow) noexcept nogil:
    """Take a slot back."""
    memory.drop(flow.record)
    flow.record = NULL
    store_byte(&flow.node.state, FREE)
    flow.node.next = <Node *>slab.free
    slab.free = flow


cdef inline void close(Slab *slab) noexcept nogil:
    """Free all slots, and the records that nobody asked for any more."""
    cdef int index
    for index in range(slab.slots):
        memory.drop(at(slab, index).record)
    for index in range(slab.slots // CHUNK):
        memory.drop(slab.chunks[index])
    memory.drop(slab.chunks)
