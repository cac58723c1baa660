"""Groups of flows as the control plane keeps them, a part of `_engine.pyx`."""


cdef class _Group:
    """Keeps a group, and the memory that its bucket lies in."""

    cdef Group *group
    cdef list held  # whatever backs the words; once used, the engine's thread may look at them

    def __cinit__(self):
        self.held = []
        self.group = <Group *>memory.take_zeroed(1, sizeof(Group))
        if self.group == NULL:
            raise MemoryError
        self.group.node.kind = GROUP
        self.lie_in(Cell.private())

    def __dealloc__(self):
        if self.group != NULL:
            sharing.check_is_empty(self.group)
            memory.drop(self.group)

    cdef lie_in(self, cell):
        """Take another place for the bucket; it has no rate now."""
        cdef int64_t[::1] words = cell.words
        cdef buckets.Bucket *bucket = &self.group.bucket
        if words.shape[0] < 2 + cell.column:
            raise ValueError(f"a cell of {words.shape[0]} words has no column {cell.column}")
        self.held.append(cell)
        bucket.words = &words[0]
        bucket.columns = words.shape[0] - 1
        bucket.column = cell.column
        bucket.lock = cell.lock
        bucket.offset = cell.offset
        bucket.base = words[1 + cell.column] & ~buckets.WAITING
