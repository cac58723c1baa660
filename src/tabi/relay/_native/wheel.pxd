"""The timer wheel: when to look at which flow or group again.

Lazy: a byte that moves touches nothing here. The engine looks at a flow when its tick comes, finds by the flow's own
stamps that it lives, and puts it in again. A slot is a list; whoever leaves unlinks itself. A bitmap of the slots that
are not empty makes the next one to be found in a few loads.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from tabi.relay._native.node cimport Node
from tabi.relay._native.sys cimport NS, __builtin_ctzll, check

cdef enum:
    TICK = 20_000_000  # nanoseconds. Limits are met this exactly
    HORIZON = 3000  # ticks, a minute: everything is looked at once in this time at least
    SLOTS = 4096  # a power of two above HORIZON
    WORDS = SLOTS // 64

cdef struct Wheel:
    Node *slots[SLOTS]
    uint64_t filled[WORDS]
    uint32_t turned  # the last tick that was served
    uint32_t nodes


cdef inline uint32_t tick_of(int64_t when) noexcept nogil:
    return <uint32_t>(when // TICK)


cdef inline void disarm(Wheel *wheel, Node *node) noexcept nogil:
    """See to it that nobody looks at it."""
    cdef uint32_t slot = node.tick % SLOTS
    if not node.tick:
        return
    if node.prev != NULL:
        node.prev.next = node.next
    else:
        check(wheel.slots[slot] == node)
        wheel.slots[slot] = node.next
        if node.next == NULL:
            wheel.filled[slot // 64] &= ~(<uint64_t>1 << slot % 64)
    if node.next != NULL:
        node.next.prev = node.prev
    node.tick = 0
    wheel.nodes -= 1


cdef inline void arm(Wheel *wheel, Node *node, int64_t when, int64_t now) noexcept nogil:
    """See to it that it is looked at when its time comes, or earlier."""
    cdef int64_t farthest = now // TICK + HORIZON
    cdef uint32_t tick = <uint32_t>(min(when // TICK, farthest) + 1)
    cdef uint32_t slot
    if <int>(tick - wheel.turned) <= 0:
        tick = wheel.turned + 1
    if not tick:  # in two years and a half; 0 says "nowhere"
        tick = 1
    if node.tick:
        if <int>(tick - node.tick) >= 0:
            return
        disarm(wheel, node)
    slot = tick % SLOTS
    node.tick = tick
    node.prev = NULL
    node.next = wheel.slots[slot]
    if node.next != NULL:
        node.next.prev = node
    wheel.slots[slot] = node
    wheel.filled[slot // 64] |= <uint64_t>1 << slot % 64
    wheel.nodes += 1


cdef inline uint32_t next_filled(Wheel *wheel, uint32_t slot) noexcept nogil:
    """Find the first slot that is not empty, from this one on, around the wheel. There must be one."""
    cdef uint32_t word = slot // 64
    cdef uint64_t bits = wheel.filled[word] >> slot % 64 << slot % 64
    while not bits:
        word = (word + 1) % WORDS
        bits = wheel.filled[word]
    return word * 64 + __builtin_ctzll(bits)


cdef inline int64_t wait(Wheel *wheel, int64_t now) noexcept nogil:
    """Return the nanoseconds until something is due: 0 if it is, -1 if nothing will be."""
    cdef uint32_t begin = (wheel.turned + 1) % SLOTS
    cdef int64_t ticks
    if not wheel.nodes:
        return -1
    ticks = 1 + (next_filled(wheel, begin) - begin) % SLOTS
    ticks -= <int>(tick_of(now) - wheel.turned)  # the wheel may lag behind the clock
    return max(<int64_t>0, ticks * TICK - now % TICK)


cdef inline Node *due(Wheel *wheel, int64_t now) noexcept nogil:
    """Take all whose tick has come, as a list; arm them again if they are to be looked at once more."""
    cdef uint32_t target = tick_of(now)
    cdef uint32_t steps = target - wheel.turned
    cdef uint32_t slot = (wheel.turned + 1) % SLOTS
    cdef uint32_t ahead
    cdef Node *come = NULL
    cdef Node *node
    if <int>steps <= 0:
        return NULL
    steps = min(steps, <uint32_t>SLOTS)
    wheel.turned = target
    while wheel.nodes:
        ahead = (next_filled(wheel, slot) - slot) % SLOTS
        if ahead >= steps:
            break
        steps -= ahead
        slot = (slot + ahead) % SLOTS
        node = wheel.slots[slot]
        disarm(wheel, node)
        node.next = come
        come = node
    return come
