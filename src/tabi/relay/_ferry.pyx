"""Datagrams of a UDP association in compiled code: `tabi.relay.ferry` says what a ferry is."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from tabi.relay._native.sys cimport TABI_DIGEST
from tabi.relay._native.datagram cimport Batch, batch_datagram, batch_flush, batch_prepare, batch_queue, batch_receive
from tabi.relay._native.datagram cimport hash_of, header_size, put_header, show_address, tabi_batch
from tabi.relay._native.net cimport Address, is_same_place, parse_address

__all__ = ["DIGEST", "CompiledFerry"]

DIGEST = TABI_DIGEST.decode()
"""Of the sources that this was built from, as `tabi.relay._choice` reckons it."""

cdef enum:
    PLACES = 64  # routes and answers of an association; a power of two
    WINDOW = 4  # places in which one may lie
    LONGEST = 64  # bytes of a header that is known; what has a longer name is for the control plane

# A header as the client writes it, and where its datagrams go.
cdef struct Route:
    double until  # 0: there is none
    uint8_t header[LONGEST]
    uint8_t size
    int fd
    uint64_t used  # when something was last carried, in batches; 0: not since the control plane asked
    Address target

# An address that may answer.
cdef struct Answer:
    double until
    Address source


cdef inline bint is_route(const Route *route, const uint8_t *header, size_t size) noexcept nogil:
    return route.until != 0 and route.size == size and not memcmp(route.header, header, size)


cdef Route *route_of(Route *routes, const uint8_t *header, size_t size) noexcept nogil:
    cdef uint32_t first = hash_of(header, size)
    cdef int step
    for step in range(WINDOW):
        if is_route(&routes[(first + step) % PLACES], header, size):
            return &routes[(first + step) % PLACES]
    return NULL


cdef Route *place_of_route(Route *routes, const uint8_t *header, size_t size) noexcept nogil:
    """Find the route, or the place that it should take: the one that is over first."""
    cdef uint32_t first = hash_of(header, size)
    cdef int step
    cdef Route *found = route_of(routes, header, size)
    if found != NULL:
        return found
    found = &routes[first % PLACES]
    for step in range(1, WINDOW):
        if routes[(first + step) % PLACES].until < found.until:
            found = &routes[(first + step) % PLACES]
    return found


cdef inline uint32_t hash_of_place(const Address *source) noexcept nogil:
    return hash_of(source.bytes, source.size) ^ source.port * <uint32_t>40_503


cdef Answer *answer_of(Answer *answers, const Address *source) noexcept nogil:
    cdef uint32_t first = hash_of_place(source)
    cdef int step
    cdef Answer *answer
    for step in range(WINDOW):
        answer = &answers[(first + step) % PLACES]
        if answer.until != 0 and is_same_place(&answer.source, source):
            return answer
    return NULL


cdef Answer *place_of_answer(Answer *answers, const Address *source) noexcept nogil:
    cdef uint32_t first = hash_of_place(source)
    cdef int step
    cdef Answer *found = answer_of(answers, source)
    if found != NULL:
        return found
    found = &answers[first % PLACES]
    for step in range(1, WINDOW):
        if answers[(first + step) % PLACES].until < found.until:
            found = &answers[(first + step) % PLACES]
    return found


cdef int carry_up(Batch *batch, Route *routes, const Address *client, double now) noexcept nogil:
    """Send what is known, up to a datagram that is not; gives its number, or -1."""
    cdef Address source
    cdef size_t size, head
    cdef uint8_t *data
    cdef Route *route
    cdef int number
    while batch.at < batch.count:
        number = batch.at
        batch.at += 1
        data = batch_datagram(batch, number, &size, &source)
        head = header_size(data, size)
        route = route_of(routes, data, head) if head and is_same_place(&source, client) else NULL
        if route == NULL or route.until <= now:
            batch_flush(batch)
            return number
        route.used = batch.number
        batch_queue(batch, route.fd, &route.target, data + head, size - head, 0)
    batch_flush(batch)
    return -1


cdef int carry_down(Batch *batch, Answer *answers, int leg, double now) noexcept nogil:
    """The same the other way."""
    cdef Address source
    cdef size_t size
    cdef uint8_t *data
    cdef uint8_t *head
    cdef Answer *answer
    cdef int number
    while batch.at < batch.count:
        number = batch.at
        batch.at += 1
        data = batch_datagram(batch, number, &size, &source)
        answer = answer_of(answers, &source)
        if answer == NULL or answer.until <= now:
            batch_flush(batch)
            return number
        head = put_header(&source, data)
        batch_queue(batch, leg, NULL, head, size + (data - head), data - head)
    batch_flush(batch)
    return -1


cdef class CompiledFerry:
    """A `Ferry` (see `tabi.relay.ferry`).

    Args:
        leg: descriptor of the client's side, connected to the client; stays the caller's.
        host: address of the client.
        port: its port.
    """

    cdef int leg
    cdef Address client
    cdef Route *routes
    cdef Answer *answers

    def __cinit__(self, int leg, str host, int port):
        self.leg = leg
        self.routes = <Route *>calloc(PLACES, sizeof(Route))
        self.answers = <Answer *>calloc(PLACES, sizeof(Answer))
        if self.routes == NULL or self.answers == NULL or not batch_prepare(&tabi_batch):
            raise MemoryError
        read_place(host, port, &self.client)

    def __dealloc__(self):
        free(self.routes)
        free(self.answers)

    def allow(self, bytes header, int fd, str host, int port, double until):
        """Send what comes with this header to a target from now on."""
        cdef Address target
        cdef Route *route
        cdef size_t size = len(header)
        read_place(host, port, &target)
        if not size or size > LONGEST:
            return
        route = place_of_route(self.routes, header, size)
        memset(route, 0, sizeof(Route))
        memcpy(route.header, <const uint8_t *>header, size)
        route.size, route.fd, route.until, route.target = size, fd, until, target

    def welcome(self, str host, int port, double until):
        """Let what comes from there pass to the client from now on."""
        cdef Address source
        cdef Answer *answer
        read_place(host, port, &source)
        answer = place_of_answer(self.answers, &source)
        answer.source, answer.until = source, until

    def forget(self):
        """Carry nothing any more."""
        memset(self.routes, 0, PLACES * sizeof(Route))
        memset(self.answers, 0, PLACES * sizeof(Answer))

    def receive(self, int fd) -> int:
        """Receive a batch in place of the one before; give how many there are."""
        cdef int count
        with nogil:
            count = batch_receive(&tabi_batch, fd)
        return count

    def carry_up(self, double now):
        """Send what is known of the batch, up to a datagram that is not, which is given."""
        cdef int number
        with nogil:
            number = carry_up(&tabi_batch, self.routes, &self.client, now)
        return stray(number)

    def carry_down(self, double now):
        """The same towards the client."""
        cdef int number
        with nogil:
            number = carry_down(&tabi_batch, self.answers, self.leg, now)
        return stray(number)

    def take_used(self):
        """Give the targets that something was carried to since the last call, in the order of their last use."""
        cdef int number
        used = []
        for number in range(PLACES):
            if self.routes[number].used:
                used.append((self.routes[number].used, place_of(&self.routes[number].target)))
                self.routes[number].used = 0
        return [place for _, place in sorted(used)]

    def counts(self):
        """Give how many bytes of the batch were sent, and how many datagrams were too large or could not be sent."""
        return tabi_batch.sent, tabi_batch.too_large, tabi_batch.unsendable


cdef int read_place(str host, int port, Address *place) except -1:
    text = host.encode()
    if not parse_address(text, place):
        raise ValueError(f"{host} is no address")
    place.port = port
    return 0


cdef tuple stray(int number):
    """Give a datagram of the batch, with its source."""
    cdef Address source
    cdef size_t size
    cdef uint8_t *data
    if number < 0:
        return None
    data = batch_datagram(&tabi_batch, number, &size, &source)
    return PyBytes_FromStringAndSize(<char *>data, size), *place_of(&source)


cdef tuple place_of(const Address *address):
    cdef char host[64]
    show_address(address, host, sizeof(host))
    return host.decode(), address.port
