"""What stands in a list: orders, flows, groups. And the stack by which lists travel from one thread to another.

A stack has many that push and one that takes all. Nobody waits: a push repeats one compare-and-swap, a take is one
exchange. So neither the engine's thread nor anybody else ever holds a lock that the other needs.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

cdef enum Kind:
    FLOW = 1  # as an order: adopt it
    GROUP
    CUT
    LIMIT
    BUCKET
    ARRIVAL  # for the wheel: a slot that is no flow yet
    ERRAND  # an order for the express lane

cdef struct Node:
    # the list that it is in: orders, the wheel, ended flows, free ones; one at a time
    Node *next
    Node *prev
    # the wheel's
    uint32_t tick  # where it will be looked at; 0 is nowhere
    # whoever made it
    uint8_t kind
    # the flow's, here because there is room
    uint8_t state
    uint8_t marks
    uint8_t cause

cdef extern from * nogil:
    Node *load_node "load"(Node **at)
    Node *swap_node "swap"(Node **at, Node *value)
    bint swap_node_if "swap_if"(Node **at, Node **expected, Node *value)


cdef inline bint push(Node **stack, Node *newest, Node *oldest) noexcept nogil:
    """Put a chain on a stack, the newest first. Say whether the stack was empty."""
    cdef Node *top = load_node(stack)
    while True:
        oldest.next = top
        if swap_node_if(stack, &top, newest):
            return top == NULL


cdef inline Node *take_all(Node **stack) noexcept nogil:
    """Take what is on a stack, the oldest first."""
    cdef Node *node = swap_node(stack, NULL)
    cdef Node *oldest = NULL
    cdef Node *after
    while node != NULL:
        after = node.next
        node.next = oldest
        oldest = node
        node = after
    return oldest
