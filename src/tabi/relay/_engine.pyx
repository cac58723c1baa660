"""The relay engine in compiled code: the face that Python sees. The engine itself is in `_native`, from `loop` down.

The methods here run in the control plane's threads, under the GIL, which is their lock. The engine's thread runs one
stretch without it from `start` to `stop`. A flow's slot goes from here to that thread and comes back with its end; the
record, the groups and all slots are made and freed here.
"""

import os
import threading

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from tabi.relay._native cimport bucket as buckets, flow as flows, groups as sharing
from tabi.relay._native cimport loop as loops, memory, slab as slabs
from tabi.relay._native.congestion cimport is_near_v4, is_near_v6
from tabi.relay._native.flow cimport GIVEN, LIVE, OVER, Flow, Record, Side, Tail
from tabi.relay._native.groups cimport Group, Share
from tabi.relay._native.loop cimport Loop, Order
from tabi.relay._native.memory cimport tabi_blocks
from tabi.relay._native.node cimport BUCKET, CUT, GROUP, LIMIT, Node, take_all
from tabi.relay._native.relay cimport BUG, SHUTDOWN
from tabi.relay._native.slab cimport Slab
from tabi.relay._native.sys cimport TABI_DIGEST, close, eventfd_read, eventfd_write
from tabi.relay._native.sys cimport load_byte, load_count, load_int, monotonic, store_count, store_int

from tabi.relay import lane
from tabi.relay._congestion import AUTO, choose
from tabi.relay._pipes import pipes_of_worker
from tabi.relay._pump import SPLICE_AFTER
from tabi.relay.bucket import Cell, burst_of
from tabi.relay.interface import Cause, Closer, End, Live

__all__ = ["DIGEST", "CompiledEngine", "CompiledRows", "allocated"]

DIGEST = TABI_DIGEST.decode()
"""Of the sources that this was built from, as `tabi.relay._choice` reckons it."""

cdef tuple CAUSES = tuple(Cause)
cdef tuple CLOSERS = tuple(Closer)


def allocated() -> int:
    """Count the blocks of memory that all engines of this process hold."""
    return load_count(&tabi_blocks)


def is_near(bytes address) -> bool:
    """Say of 4 or 16 bytes what `tabi.relay._congestion.is_near` says of an address; for its test."""
    return is_near_v4(address) if len(address) == 4 else is_near_v6(address)


cdef bytes record_of(Flow *flow):
    cdef Tail *tail = &flow.tail
    facts = PyBytes_FromStringAndSize(flow.record.bytes, flow.record.size)
    if not tail.session:
        return facts
    return facts + lane.pack_tail(tail.session, tail.accepted, tail.port, tail.handshake, tail.resolve, tail.connect)


cdef Record *make_record(bytes facts) except NULL:
    """Make a record that one holds."""
    cdef uint32_t size = PyBytes_GET_SIZE(facts)
    cdef Record *record = <Record *>memory.take(sizeof(Record) + size)
    if record == NULL:
        raise MemoryError
    record.holders = 1
    record.size = size
    memcpy(record.bytes, PyBytes_AS_STRING(facts), size)
    return record


include "_native/group.pxi"
include "_native/tuning.pxi"


@cython.no_gc_clear  # `__dealloc__` needs the groups
cdef class RelayEngine:
    """An `Engine` (see `tabi.relay.interface`) whose thread never waits for Python's lock.

    Args:
        workers: processes of this user that run an engine.
        clock: seconds, monotonic; None is CLOCK_MONOTONIC. Another one is read whenever a method is called, since the
            engine's thread cannot do that.
        splice_after: large reads in a row before a stream is spliced; 0 splices always.
        pipes: how many pipes it may hold; None is this worker's fair share.
        spin: look again for a moment before going to sleep, where that has paid.
        congestion: control of bulk streams on near legs (`tabi.relay._congestion`); empty is the system's.

    An OSError says that the kernel has no descriptor or no memory for it.
    """

    cdef Loop *loop
    cdef object clock
    cdef object thread
    cdef dict groups, tunings  # _Group by number; _Tuned by what is wanted
    cdef int64_t adopted
    cdef bint is_stopping
    cdef readonly object failure
    """The bug that has ended the thread, if one has (see `Engine.failure`)."""

    name = "compiled"

    def __cinit__(
        self, *, int workers=1, clock=None, int splice_after=SPLICE_AFTER, pipes=None, bint spin=True, congestion=AUTO
    ):
        cdef int budget = pipes_of_worker(workers) if pipes is None else pipes
        cdef bytes steady = choose(congestion)
        cdef int error
        self.groups, self.tunings, self.clock = {}, {}, clock
        self.loop = <Loop *>memory.take_zeroed(1, sizeof(Loop))
        if self.loop == NULL:
            raise MemoryError
        error = loops.prepare(self.loop, budget, splice_after, steady, spin)
        if error:
            raise OSError(error, os.strerror(error))
        self.read_clock()

    def __dealloc__(self):
        if self.loop != NULL:
            loops.dispose(self.loop)

    cdef int64_t read_clock(self) except? -1:
        """Say what time it is, and have the engine's thread know if the clock is not its own."""
        cdef int64_t now
        if self.clock is None:
            return monotonic()
        now = max(<int64_t>1, <int64_t>round(self.clock() * 1e9))  # 0 says that there is no such clock
        store_count(&self.loop.hand, now)
        return now

    def start(self):
        """Start the thread.

        Raises:
            RuntimeError: it has been started or stopped before.
        """
        if self.thread is not None or self.is_stopping:
            raise RuntimeError("an engine is started once")
        self.thread = threading.Thread(target=self.serve, name="tabi-engine", daemon=True)
        self.thread.start()

    def serve(self):
        """Run the engine's thread."""
        cdef int error
        with nogil:
            error = loops.run(self.loop)
        if error:
            self.failure = OSError(error, f"the engine's epoll failed: {os.strerror(error)}")
            loops.shut_down(self.loop, BUG)
            eventfd_write(self.loop.report.fd, 1)

    def adopt(
        self, int inbound, int outbound, bytes early, bytes pending, limits, bytes record,
        *, int error=0, bint ring=True, tuning=None
    ):
        """Take over two established stream sockets and return the number of the flow (see `Engine.adopt`)."""
        cdef Flow *flow = slabs.take(&self.loop.slab, GIVEN)
        try:
            if flow == NULL:
                raise MemoryError
            flow.inbound.fd = inbound
            flow.outbound.fd = outbound
            self.fill(flow, limits, record)
            flow.before = tuning_of(self.tunings, tuning)
            self.owe(&flow.outbound, early)
            self.owe(&flow.inbound, pending)
            if error:
                flows.fail(&flow.inbound, error)
        except BaseException:
            self.give_up(flow, inbound, outbound)
            raise
        self.adopted += 1
        number = flow.number  # before the order: it may be over when the order is given
        loops.give_order(self.loop, &flow.node, ring)
        if self.loop.is_over:
            loops.turn_away(self.loop)
        return number

    def ring(self):
        """Wake the engine for what was adopted without ringing."""
        loops.wake(self.loop)

    cdef fill(self, Flow *flow, limits, bytes record):
        """Say in a slot what a flow is to be, but for what is owed to the sides."""
        idle, half_open, lifetime, named = limits
        flow.idle = idle
        flow.half_open = half_open
        flow.lifetime = lifetime
        flow.started = flow.last = self.read_clock()
        flow.record = make_record(record)
        flow.share = self.make_share(named)
        if flow.share != NULL:
            flow.share.flow = &flow.node

    cdef owe(self, Side *side, bytes data):
        """Let a side be owed these bytes."""
        cdef size_t size = PyBytes_GET_SIZE(data)
        if size and not flows.owe(side, PyBytes_AS_STRING(data), size):
            raise MemoryError

    cdef give_up(self, Flow *flow, int inbound, int outbound):
        """Undo an adoption that failed half way."""
        close(inbound)
        close(outbound)
        if flow != NULL:
            flows.forget_owed(&flow.inbound)
            flows.forget_owed(&flow.outbound)
            memory.drop(flow.share)
            slabs.give(&self.loop.slab, flow)

    cdef _Group group(self, number):
        """Give the group of a number; it is made when it is first named, and stays."""
        group = self.groups.get(number)
        if group is None:
            group = self.groups[number] = _Group()
        return group

    cdef Share *make_share(self, named) except? NULL:
        """Make a share in the groups that are named; NULL if none is."""
        cdef list chosen = [self.group(number) for number in dict.fromkeys(named)]
        cdef Share *share
        cdef uint32_t part
        if not chosen:
            return NULL
        share = sharing.make_share(len(chosen))
        if share == NULL:
            raise MemoryError
        for part in range(share.count):
            share.parts[part].group = (<_Group>chosen[part]).group
        return share

    def fileno(self):
        """Return the eventfd that is readable while ends wait."""
        return self.loop.report.fd

    def ends(self):
        """Take all ends that wait, the oldest first."""
        cdef uint64_t count = 0
        cdef Node *node
        cdef Node *after
        ends = []
        eventfd_read(self.loop.report.fd, &count)  # first: an end that comes in between rings once too often, not never
        node = take_all(&self.loop.ended)
        while node != NULL:
            after = node.next
            ends.append(self.end_of(<Flow *>node))
            slabs.give(self.slab_of(<Flow *>node), <Flow *>node)
            node = after
        return ends

    cdef Slab *slab_of(self, Flow *flow):
        return &self.loop.slab if slabs.is_of(&self.loop.slab, flow) else &self.loop.arrivals

    cdef end_of(self, Flow *flow):
        closer, cause = CLOSERS[flow.node.state - OVER], CAUSES[flow.node.cause]
        counts = flow.outbound.taken, flow.inbound.taken
        times = flow.started / 1e9, flow.last / 1e9
        return End(flow.number, record_of(flow), closer, cause, flow.inbound.err, *counts, *times)

    def snapshot(self):
        """List the flows that are not over, without stopping the engine.

        A chunk of slots at a time: in between other threads may have their turn, and a slot stays where it is.
        """
        found = []
        self.look_at_slab(&self.loop.slab, found)
        self.look_at_slab(&self.loop.arrivals, found)
        return found

    cdef look_at_slab(self, Slab *slab, list found):
        cdef int index = 0
        while index < load_int(&slab.slots):
            self.look_at_chunk(slab, index, found)
            index += slabs.CHUNK
            with nogil:
                pass

    cdef look_at_chunk(self, Slab *slab, int begin, list found):
        cdef int index
        cdef Flow *flow
        for index in range(begin, begin + slabs.CHUNK):
            flow = slabs.at(slab, index)
            if load_byte(&flow.node.state) in (GIVEN, LIVE):
                found.append(self.live_of(flow))

    cdef live_of(self, Flow *flow):
        """Describe a flow that lives. It may end meanwhile, but its slot is ours to free, and that is not now."""
        counts = load_count(&flow.outbound.taken), load_count(&flow.inbound.taken)
        times = flow.started / 1e9, load_count(&flow.last) / 1e9
        return Live(flow.number, record_of(flow), *counts, *times)

    cdef Order *make_order(self, int kind, list numbers) except NULL:
        """Make an order about these flows."""
        cdef Order *order = <Order *>memory.take_zeroed(1, sizeof(Order) + sizeof(int64_t) * len(numbers))
        if order == NULL:
            raise MemoryError
        try:
            for number in numbers:
                order.numbers[order.count] = number
                order.count += 1
        except BaseException:
            memory.drop(order)
            raise
        order.node.kind = kind
        return order

    cdef give(self, Order *order):
        """Hand an order over, if somebody is there to take it."""
        self.read_clock()
        if self.loop.is_over:
            memory.drop(order.share)
            memory.drop(order)
        else:
            loops.give_order(self.loop, &order.node, True)

    def kill(self, flows, cause):
        """Reset both sides of these flows."""
        cdef Order *order = self.make_order(CUT, list(flows))
        order.node.cause = cause
        self.give(order)

    def limit(self, flows, limits):
        """Set the limits of these flows anew."""
        cdef Order *order
        idle, half_open, lifetime, named = limits
        order = self.make_order(LIMIT, list(flows))
        try:
            order.idle = idle
            order.half_open = half_open
            order.lifetime = lifetime
            order.share = self.make_share(named)
        except BaseException:
            memory.drop(order)
            raise
        self.give(order)

    def set_bucket(self, number, rate, cell=None):
        """Set how many bytes a second may be taken from a bucket; None is no limit."""
        cdef _Group group = self.group(number)
        cdef buckets.Bucket *bucket = &group.group.bucket
        cdef int64_t now = self.read_clock()
        cdef Order *order = self.make_order(BUCKET, [])
        order.group = group.group
        if rate is None:
            buckets.set_rate(bucket, 0, 0, now)
            buckets.tell(bucket, 0)
        else:
            if bucket.rate <= 0:
                group.lie_in(Cell.private() if cell is None else cell)
            buckets.set_rate(bucket, rate, burst_of(rate), now)
        self.give(order)

    def spend(self, buckets_, int64_t count):
        """Take tokens for bytes that are moved elsewhere; False if one of the buckets has too few."""
        cdef int64_t now = self.read_clock()
        cdef list spent = []
        cdef _Group group
        for number in buckets_:
            group = self.groups.get(number)
            if group is None:
                continue
            if not buckets.spend(&group.group.bucket, count, now):
                for group in spent:
                    buckets.give_back(&group.group.bucket, count, True)
                return False
            spent.append(group)
        return True

    def __len__(self):
        """Count the flows that are not over, with those not yet taken up."""
        cdef int64_t over = load_count(&self.loop.over)  # first: what begins in between is one more, and not one less
        return self.adopted + (load_count(&self.loop.hall.begun) if self.loop.hall != NULL else 0) - over

    def step(self):
        """Do in this thread what is to be done now; for tests, in place of `start`."""
        self.read_clock()
        loops.turn(self.loop, loops.look_for_events(self.loop))

    def stop(self):
        """Reset what is left, end the thread, close all but `fileno`."""
        if self.is_stopping:
            return
        self.is_stopping = True
        store_int(&self.loop.stopping, 1)
        loops.wake(self.loop)
        if self.thread is not None:
            self.thread.join()
        self.read_clock()
        loops.shut_down(self.loop, SHUTDOWN)

    def close(self):
        """Close `fileno`."""
        close(self.loop.report.fd)
        self.loop.report.fd = -1  # the number may be somebody else's by now


include "_native/face.pxi"
