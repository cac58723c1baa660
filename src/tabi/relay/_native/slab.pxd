"""Where flows lie: slots in chunks that stay where they are as long as the engine.

A slab has one taker: the control plane, under the GIL, of the one for flows that it adopts; the engine's thread of the
one for the express lane. The control plane gives a slot back when it has taken the flow's end, by a stack, and then the
taker may have it again. As no chunk ever moves or goes away, anybody may look at any slot at any time: at its state
first.
"""

from libc.stdint cimport int64_t
from libc.string cimport memset

from tabi.relay._native cimport flow as flows
from tabi.relay._native cimport memory
from tabi.relay._native.flow cimport FREE, LIVE, OUTBOUND, Flow, State
from tabi.relay._native.node cimport FLOW, Node, push, take_all
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
    int base  # the number of the first slot, less one
    Flow *free  # those that are not used; the taker's
    Node *given  # and those that were given back since it looked


cdef inline bint prepare(Slab *slab, int order) noexcept nogil:
    """Make an empty one, the first or the second of an engine; False if there is no memory."""
    slab.base = order * CHUNK * CHUNKS
    slab.chunks = <Flow **>memory.take_zeroed(CHUNKS, sizeof(Flow *))
    return slab.chunks != NULL


cdef inline Flow *at(Slab *slab, int index) noexcept nogil:
    """Give a slot that exists, counted from 0."""
    return &slab.chunks[index // CHUNK][index % CHUNK]


cdef inline Flow *find(Slab *slab, int64_t number) noexcept nogil:
    """Give the flow of this number if it is alive; for the engine's thread."""
    cdef int64_t slot = (number & SLOT_MASK) - slab.base
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
        slab.chunks[chunk][index].number = slab.base + slab.slots + index + 1 - USED_ONCE_MORE
        slab.chunks[chunk][index].node.next = <Node *>slab.free
        slab.free = &slab.chunks[chunk][index]
    store_int(&slab.slots, slab.slots + CHUNK)
    return True


cdef inline Flow *take(Slab *slab, State state) noexcept nogil:
    """Take a slot for a flow of a new number, with this state at first; NULL if there is no memory."""
    cdef Flow *flow
    cdef int64_t number
    cdef Node *after
    if slab.free == NULL:
        slab.free = <Flow *>take_all(&slab.given)
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
    store_byte(&flow.node.state, state)
    return flow


cdef inline void give(Slab *slab, Flow *flow) noexcept nogil:
    """Give a slot back."""
    flows.let_go_of(flow.record)
    flow.record = NULL
    store_byte(&flow.node.state, FREE)
    push(&slab.given, &flow.node, &flow.node)


cdef inline bint is_of(Slab *slab, Flow *flow) noexcept nogil:
    """Say whether a flow has its slot here."""
    return 0 < (flow.number & SLOT_MASK) - slab.base <= CHUNK * CHUNKS


cdef inline void close(Slab *slab) noexcept nogil:
    """Free all slots, and the records that nobody asked for any more."""
    cdef int index
    for index in range(slab.slots):
        flows.let_go_of(at(slab, index).record)
    for index in range(slab.slots // CHUNK):
        memory.drop(slab.chunks[index])
    memory.drop(slab.chunks)
