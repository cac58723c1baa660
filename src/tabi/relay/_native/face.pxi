"""The face of the express lane, a part of `_engine.pyx`: rows, and what the control plane says and is told."""

import socket

from libc.errno cimport errno
from libc.stdint cimport uint8_t

from tabi.relay._native cimport arrival as arrivals
from tabi.relay._native cimport handshake
from tabi.relay._native cimport lane as lanes
from tabi.relay._native cimport permit as permits
from tabi.relay._native cimport report as reports
from tabi.relay._native cimport rows as counts
from tabi.relay._native cimport spin as spins
from tabi.relay._native cimport tables as learnt
from tabi.relay._native.arrival cimport ASK, HANDOVER, Arrival, Ask, Call, Exhausted, Listener
from tabi.relay._native.hall cimport Hall
from tabi.relay._native.lane cimport Errand
from tabi.relay._native.net cimport Address, is_unspecified, local_address, parse_address
from tabi.relay._native.node cimport ERRAND
from tabi.relay._native.permit cimport Permit
from tabi.relay._native.rows cimport Counter, Rows, tabi_unpin
from tabi.relay._native.siphash cimport Mark, mark_of
from tabi.relay._native.spin cimport Spin
from tabi.relay._native.sys cimport add_count, sem_destroy, sem_init, sem_t, sem_wait
from tabi.relay._native.tables cimport Door, User

from tabi.relay import options


def mark(bytes key, bytes data) -> bytes:
    """Give the SipHash of some bytes by a key of 16; for its test."""
    cdef Mark found = mark_of(<const uint64_t *>PyBytes_AS_STRING(key), data, len(data))
    return PyBytes_FromStringAndSize(<char *>&found, sizeof(found))


def spun_over(list waits, int64_t waking):
    """Say over which waits of so many nanoseconds the thread would spin, where a sleep is longer; for its test."""
    cdef Spin spin
    cdef int64_t wait
    cdef bint is_spun
    cdef list spun = []
    spins.prepare(&spin, True)
    for wait in waits:
        is_spun = spins.is_worth_it(&spin, -1)
        spun.append(is_spun)
        if is_spun:
            spins.note_spin(&spin, wait > spins.LENGTH)
        else:
            spins.note_wait(&spin, wait + waking)
    return spun


cdef class CompiledRows:
    """Rows (see `tabi.relay.rows`) that the engine's thread counts in as well: every change is one atomic operation.

    Args:
        words: signed 8 bytes each.
        columns: cells of a row, one per process.
        column: which of these is ours, counted from 0.
    """

    cdef Rows rows
    cdef int64_t[::1] view  # None: it is closed

    def __cinit__(self, words, int64_t columns, int64_t column):
        self.view = memoryview(words)  # another one, so that the caller may release its own
        self.rows.words = &self.view[0]
        self.rows.columns = columns
        self.rows.column = column

    cdef int64_t checked(self, int64_t row) except -1:
        if self.view is None:
            raise ValueError("rows that are closed")
        if not 0 <= row <= self.view.shape[0] - self.rows.columns:
            raise IndexError(f"row {row} of {self.view.shape[0]} words")
        return row

    def enter(self, row, limit):
        """Count one in, unless there would be more than `limit` then; below 0 it is no limit."""
        cdef Counter counter
        counter.row, counter.limit = self.checked(row), limit
        return counts.enter(&self.rows, &counter)

    def leave(self, row):
        """Take back an `enter` that was granted."""
        counts.change(&self.rows, self.checked(row), -1)

    def add(self, row, int64_t delta):
        """Add to our cell, and return what is counted in it now."""
        return counts.change(&self.rows, self.checked(row), delta)

    def number(self, row):
        """Take a number that nobody has got by this row, in no process."""
        return counts.number(&self.rows, self.checked(row))

    def own(self, row):
        """Say how many were counted in by this process."""
        return counts.own(&self.rows, self.checked(row))

    def total(self, row):
        """Say how many were counted in by all."""
        return counts.total(&self.rows, self.checked(row))

    def unpin(self, row):
        """Give the row up if nothing is counted in our cell; say whether it was."""
        return bool(tabi_unpin(self.rows.words + self.checked(row) + self.rows.column))

    def close(self):
        """Let go of the memory; no engine may count in it any more."""
        self.view = None


cdef int64_t nanoseconds(seconds) except? -1:
    """Give a time or a duration as the engine has it; what is beyond 30 years is that."""
    return <int64_t>(min(seconds, 1e9) * 1e9)


cdef tuple socket_address(Address *address):
    """Write an address as the socket module does."""
    if not address.size:
        return ("", 0)
    family = socket.AF_INET if address.size == 4 else socket.AF_INET6
    return socket.inet_ntop(family, PyBytes_FromStringAndSize(<char *>address.bytes, address.size)), address.port


cdef user_of(User *user):
    return PyBytes_FromStringAndSize(<char *>user.name, user.size) if user.is_known else None


cdef ask_of(Ask *ask):
    message = PyBytes_FromStringAndSize(<char *>ask.message, ask.size)
    return lane.Ask(ask.arrival, ask.door, user_of(&ask.user), message)


cdef handover_of(Arrival *arrival):
    return lane.Handover(
        arrival.number,
        arrival.fd,
        arrival.listener,
        socket_address(&arrival.client),
        socket_address(&arrival.local),
        PyBytes_FromStringAndSize(<char *>arrivals.received(arrival), arrival.size),
        arrival.sent,
        user_of(&arrival.user),
        arrival.accepted / 1e9,
        arrival.requested / 1e9,
        arrival.door.number != 0,
        arrival.error,
        arrival.outbound,
        socket_address(&arrival.target),
    )


cdef call_of(Call *call):
    """Write a call for the control plane, and free it."""
    cdef Exhausted *exhausted = <Exhausted *>call
    if call.kind == HANDOVER:
        told = handover_of(<Arrival *>call)
        arrivals.dispose(<Arrival *>call)
        return told
    told = ask_of(<Ask *>call) if call.kind == ASK else lane.Exhausted(exhausted.listener, exhausted.error)
    memory.drop(call)
    return told


@cython.no_gc_clear
cdef class CompiledEngine(RelayEngine):
    """A `LaneEngine` (see `tabi.relay.lane`) whose thread never waits for Python's lock."""

    make_rows = CompiledRows

    cdef CompiledRows rows  # the engine's thread counts in them

    def open_lane(self, CompiledRows rows, *, numbers, patience):
        """Open the lane; once, after `start`."""
        cdef Hall *hall
        cdef bytes key = os.urandom(16)
        if self.loop.hall != NULL:
            raise RuntimeError("the lane is opened once")
        hall = <Hall *>memory.take_zeroed(1, sizeof(Hall))
        if hall == NULL:
            raise MemoryError
        if not learnt.prepare(&hall.tables):
            learnt.close(&hall.tables)
            memory.drop(hall)
            raise MemoryError
        memcpy(hall.tables.key, PyBytes_AS_STRING(key), 16)
        self.rows = rows
        hall.relay = &self.loop.relay
        hall.slab = &self.loop.arrivals
        hall.hand = &self.loop.hand
        hall.rows = rows.rows
        hall.numbers = rows.checked(numbers)
        hall.patience = nanoseconds(patience)
        hall.keepalive = [options.KEEPALIVE_IDLE, options.KEEPALIVE_INTERVAL, options.KEEPALIVE_COUNT]
        self.loop.hall = hall

    cdef Errand *make_errand(self, lanes.What what) except NULL:
        cdef Errand *errand
        if self.loop.hall == NULL:
            raise RuntimeError("the lane is not open")
        errand = <Errand *>memory.take_zeroed(1, sizeof(Errand))
        if errand == NULL:
            raise MemoryError
        errand.node.kind = ERRAND
        errand.what = what
        return errand

    cdef send(self, Errand *errand, bint ring=True):
        """Have it done, if somebody is there to do it."""
        self.read_clock()
        if self.loop.is_over:
            permits.let_go(errand.permit)
            memory.drop(errand.listener)
            memory.drop(errand)
        else:
            loops.give_order(self.loop, &errand.node, ring)

    cdef await_done(self, Errand *errand):
        """Have it done, and wait until it is."""
        cdef sem_t done
        if self.loop.is_over:
            memory.drop(errand)
            return
        sem_init(&done, 0, 0)
        errand.done = &done
        self.send(errand)
        with nogil:
            while sem_wait(&done) < 0:  # EINTR
                pass
        sem_destroy(&done)

    def tell_together(self, bint is_on):
        """Tell of ends together from now on, or of each at once."""
        self.loop.report.pause = reports.PAUSE if is_on else 0

    def accept_from(self, int listener):
        """Accept from this listening socket, which stays the caller's."""
        cdef Errand *errand = self.make_errand(lanes.LISTEN)
        cdef Listener *made = <Listener *>memory.take_zeroed(1, sizeof(Listener))
        if made == NULL:
            memory.drop(errand)
            raise MemoryError
        if local_address(listener, &made.local) < 0:
            error = errno
            memory.drop(made)
            memory.drop(errand)
            raise OSError(error, os.strerror(error))
        made.fd = listener
        made.is_wildcard = is_unspecified(&made.local)
        errand.listener = made
        self.send(errand)

    def stop_accepting(self, int listener):
        """Leave a listener alone; done when it returns."""
        cdef Errand *errand = self.make_errand(lanes.LEAVE)
        errand.fd = listener
        self.await_done(errand)

    def teach_door(self, door):
        """Serve a client, from the next order on that rings. An address with a scope is nobody's door."""
        cdef Address local, client
        cdef Errand *errand
        cdef int at, listener = door.listener
        cdef Door made
        made.number, made.methods, made.socks4 = door.number, door.methods, door.socks4
        for at in range(3):
            made.counters[at].row = self.rows.checked(door.counters[at][0])
            made.counters[at].limit = door.counters[at][1]
        if not parse_address(door.local.encode(), &local) or not parse_address(door.client.encode(), &client):
            return
        errand = self.make_errand(lanes.DOOR)
        errand.door = made
        errand.mark = lanes.mark_of_door(self.loop.hall, listener, &local, &client)
        self.send(errand, ring=False)

    def teach_pass(self, int64_t door, bytes message, bytes user, until, failures):
        """Take this login at a door until then, or until there are more failures."""
        cdef int64_t end = nanoseconds(until)
        cdef int64_t row = self.rows.checked(failures[0]), count = failures[1]
        cdef Errand *errand
        if len(message) > 513 or len(user) > 255:
            raise ValueError(f"a login of {len(message)} bytes, of a user of {len(user)}")
        errand = self.make_errand(lanes.PASS)
        errand.login.mark = handshake.mark_below(
            self.loop.hall, door, NULL, <uint8_t *>PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message)
        )
        errand.login.until = max(<int64_t>1, end)
        errand.login.failures.row, errand.login.failures.limit = row, count
        errand.login.user.size = <uint8_t>PyBytes_GET_SIZE(user)
        memcpy(errand.login.user.name, PyBytes_AS_STRING(user), PyBytes_GET_SIZE(user))
        self.send(errand)

    cdef fill_permit(self, Permit *made, permit):
        """Write all of a permit but its target."""
        idle, half_open, lifetime, named = permit.limits
        made.holders = 1
        made.target.port = permit.port
        made.shows_target = permit.shows_target
        made.until, made.patience = nanoseconds(permit.until), nanoseconds(permit.patience)
        made.idle, made.half_open, made.lifetime = idle, half_open, lifetime
        for row, limit in permit.counters:
            made.counters[made.counts].row, made.counters[made.counts].limit = self.rows.checked(row), limit
            made.counts += 1
        made.facts = make_record(permit.facts)
        made.share = self.make_share(named)
        made.tuning = tuning_of(self.tunings, permit.tuning)

    cdef Permit *make_permit(self, permit) except? NULL:
        """Write a permit; NULL: it is not for the lane."""
        cdef Permit *made
        cdef Address target
        if len(permit.counters) > permits.MOST_COUNTERS or not parse_address(permit.address.encode(), &target):
            return NULL
        made = <Permit *>memory.take_zeroed(1, sizeof(Permit))
        if made == NULL:
            raise MemoryError
        made.target = target
        try:
            self.fill_permit(made, permit)
        except BaseException:
            made.holders = 1
            permits.let_go(made)
            raise
        return made

    def answer(self, arrival, permit):
        """Answer an `Ask`."""
        cdef Errand *errand = self.make_errand(lanes.ANSWER)
        try:
            errand.arrival = arrival
            if permit is not None:
                errand.permit = self.make_permit(permit)
        except BaseException:
            memory.drop(errand)
            raise
        self.send(errand)

    def calls(self):
        """Take all calls that wait, the oldest first."""
        cdef Hall *hall = self.loop.hall
        cdef Node *node
        cdef Node *after
        cdef int64_t count
        if hall == NULL:
            raise RuntimeError("the lane is not open")
        calls = []
        node = take_all(&hall.called)
        while node != NULL:
            after = node.next
            calls.append(call_of(<Call *>node))
            node = after
        count = len(calls)
        if add_count(&hall.waiting, -count) + count >= lanes.MOST_CALLS:
            self.send(self.make_errand(lanes.RESUME))
        return calls

    def call_in(self):
        """Hand over all arrivals; done when it returns."""
        self.await_done(self.make_errand(lanes.CALL_IN))

    def forget(self):
        """Forget all that was taught, and hand over all arrivals; done when it returns."""
        self.await_done(self.make_errand(lanes.FORGET))
