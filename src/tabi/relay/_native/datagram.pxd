"""Datagrams in batches: the memory that one batch lies in, and the calls that receive and send it.

One batch serves the whole process, for whoever received it is done with it before the next is received; a page that no
datagram has reached costs nothing. Each datagram has room before it for the longest header that goes before an answer.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tabi.relay._native.net cimport Address

cdef enum:
    BATCH = 64  # datagrams at once, so that others get their turn (`tabi.server.legs`)
    HEADROOM = 22  # an answer from an IPv6 address (RFC 1928 section 7)
    LARGEST = 65_536  # bytes; more than any datagram has: none is ever cut

cdef extern from * nogil:
    """
    #include <stdlib.h>

    typedef struct {
        uint64_t number;               /* of batches so far */
        int count, at;                 /* received, and looked at so far */
        int queued, fd;                /* to be sent, and where */
        unsigned sent;                 /* bytes of payload */
        unsigned char head[64];        /* bytes of what is sent that are none */
        unsigned too_large, unsendable;
        struct mmsghdr in[64], out[64];
        struct iovec room[64], piece[64];
        TabiSockaddr from[64], to[64];
        uint8_t (*bytes)[22 + 65536];
    } Batch;

    static Batch tabi_batch;

    static int batch_prepare(Batch *batch) { /* false: there is no memory */
        if (!batch->bytes)
            batch->bytes = malloc(sizeof *batch->bytes * 64);
        return batch->bytes != NULL;
    }
    static int batch_receive(Batch *batch, int fd) {
        for (int number = 0; number < 64; number++) {
            batch->room[number] = (struct iovec){batch->bytes[number] + 22, 65536};
            batch->in[number].msg_hdr = (struct msghdr){
                .msg_name = &batch->from[number], .msg_namelen = sizeof batch->from[number],
                .msg_iov = &batch->room[number], .msg_iovlen = 1};
        }
        batch->at = batch->count = batch->queued = 0;
        batch->sent = batch->too_large = batch->unsendable = 0;
        batch->number++;
        /* An ICMP error that came back stands before the datagrams; it concerns one that was sent. */
        for (int tries = 0; tries < 64; tries++) {
            int count = recvmmsg(fd, batch->in, 64, MSG_DONTWAIT, NULL);
            if (count >= 0 || errno == EAGAIN || errno == EWOULDBLOCK)
                return batch->count = count < 0 ? 0 : count;
        }
        return 0;
    }
    static void batch_flush(Batch *batch) {
        int refused = -1; /* the datagram that met the ICMP error of an earlier one; it goes again, once */
        for (int at = 0; at < batch->queued;) {
            int count = sendmmsg(batch->fd, batch->out + at, batch->queued - at, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (count > 0) {
                for (int number = at; number < at + count; number++)
                    batch->sent += batch->out[number].msg_len - batch->head[number];
                at += count;
            } else if (errno == ECONNREFUSED && refused != at) {
                refused = at;
            } else if (errno != EINTR) {
                *(errno == EMSGSIZE ? &batch->too_large : &batch->unsendable) += 1;
                at++;
            }
        }
        batch->queued = 0;
    }
    /* To an address, or to the peer of a connected socket; the first `head` bytes are our header. */
    static void batch_queue(Batch *batch, int fd, const Address *target, uint8_t *data, size_t size, size_t head) {
        if (batch->queued && batch->fd != fd)
            batch_flush(batch);
        int number = batch->queued++;
        batch->fd = fd;
        batch->head[number] = head;
        batch->piece[number] = (struct iovec){data, size};
        batch->out[number].msg_hdr = (struct msghdr){.msg_iov = &batch->piece[number], .msg_iovlen = 1};
        if (target) {
            batch->out[number].msg_hdr.msg_name = &batch->to[number];
            batch->out[number].msg_hdr.msg_namelen = write_sockaddr(target, &batch->to[number]);
        }
    }
    static inline uint8_t *batch_datagram(Batch *batch, int number, size_t *size, Address *source) {
        *size = batch->in[number].msg_len;
        read_sockaddr(&batch->from[number], source);
        return batch->bytes[number] + 22;
    }
    /* How long the header is (RFC 1928 section 7); 0: it is not whole. */
    static inline size_t header_size(const uint8_t *data, size_t size) {
        if (size < 5)
            return 0;
        size_t length = data[3] == 1 ? 10 : data[3] == 4 ? 22 : data[3] == 3 ? 7 + (size_t)data[4] : 0;
        return length <= size ? length : 0;
    }
    /* Write the header of an answer so that it ends at `end`; gives its beginning. */
    static inline uint8_t *put_header(const Address *source, uint8_t *end) {
        uint8_t *at = end - 6 - source->size;
        memset(at, 0, 3);
        at[3] = source->size == 4 ? 1 : 4;
        memcpy(at + 4, source->bytes, source->size);
        end[-2] = source->port >> 8;
        end[-1] = source->port & 255;
        return at;
    }
    static inline int show_address(const Address *address, char *text, size_t size) {
        return inet_ntop(address->size == 4 ? AF_INET : AF_INET6, address->bytes, text, size) != NULL;
    }
    """
    ctypedef struct Batch:
        uint64_t number
        int count
        int at
        unsigned int sent
        unsigned int too_large
        unsigned int unsendable
    Batch tabi_batch
    bint batch_prepare(Batch *batch)
    int batch_receive(Batch *batch, int fd)
    void batch_flush(Batch *batch)
    void batch_queue(Batch *batch, int fd, const Address *target, uint8_t *data, size_t size, size_t head)
    uint8_t *batch_datagram(Batch *batch, int number, size_t *size, Address *source)
    size_t header_size(const uint8_t *data, size_t size)
    uint8_t *put_header(const Address *source, uint8_t *end)
    bint show_address(const Address *address, char *text, size_t size)


cdef inline uint32_t hash_of(const uint8_t *data, size_t size) noexcept nogil:
    """FNV-1a: whoever chooses targets that meet in one place slows down nobody but itself."""
    cdef uint32_t value = 2_166_136_261
    cdef size_t at
    for at in range(size):
        value = (value ^ data[at]) * <uint32_t>16_777_619
    return value
