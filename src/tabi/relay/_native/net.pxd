"""Addresses, and the calls of Linux that take them."""

from libc.stdint cimport uint8_t, uint16_t

from tabi.relay._native cimport sys  # whose C is used below

cdef extern from * nogil:
    """
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <sys/socket.h>

    typedef struct {
        uint8_t bytes[16];
        uint16_t port;    /* of the host's byte order */
        uint8_t size;     /* 4 or 16; 0: none */
        uint8_t is_scoped; /* sin6_scope_id says which link; it is not kept */
    } Address;

    typedef union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } TabiSockaddr;

    static inline void read_sockaddr(const TabiSockaddr *from, Address *to) {
        memset(to, 0, sizeof *to);
        if (from->any.sa_family == AF_INET) {
            memcpy(to->bytes, &from->v4.sin_addr, 4);
            to->port = ntohs(from->v4.sin_port);
            to->size = 4;
        } else if (from->any.sa_family == AF_INET6) {
            memcpy(to->bytes, &from->v6.sin6_addr, 16);
            to->port = ntohs(from->v6.sin6_port);
            to->size = 16;
            to->is_scoped = from->v6.sin6_scope_id != 0;
        }
    }
    static inline socklen_t write_sockaddr(const Address *from, TabiSockaddr *to) {
        memset(to, 0, sizeof *to);
        if (from->size == 4) {
            to->v4.sin_family = AF_INET;
            to->v4.sin_port = htons(from->port);
            memcpy(&to->v4.sin_addr, from->bytes, 4);
            return sizeof to->v4;
        }
        to->v6.sin6_family = AF_INET6;
        to->v6.sin6_port = htons(from->port);
        memcpy(&to->v6.sin6_addr, from->bytes, 16);
        return sizeof to->v6;
    }
    static inline int parse_address(const char *text, Address *to) {
        memset(to, 0, sizeof *to);
        to->size = strchr(text, ':') ? 16 : 4;
        return inet_pton(to->size == 4 ? AF_INET : AF_INET6, text, to->bytes) == 1;
    }
    static inline int accept_client(int listener, Address *client) {
        TabiSockaddr from;
        socklen_t size = sizeof from;
        int fd = accept4(listener, &from.any, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
            read_sockaddr(&from, client);
        return fd;
    }
    static inline int local_address(int fd, Address *local) {
        TabiSockaddr ours;
        socklen_t size = sizeof ours;
        if (getsockname(fd, &ours.any, &size) < 0)
            return -1;
        read_sockaddr(&ours, local);
        return 0;
    }
    static inline int set_tcp(int fd, int name, int value) {
        return setsockopt(fd, IPPROTO_TCP, name, &value, sizeof value);
    }
    /* The options of tabi.relay.options, whose reasons stand there. */
    static inline int prepared_socket(int size, const int *keepalive) {
        int fd = socket(size == 4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0)
            return -1;
        if (set_tcp(fd, TCP_NODELAY, 1) < 0 || set_option(fd, SO_KEEPALIVE, 1) < 0 ||
            set_tcp(fd, TCP_KEEPIDLE, keepalive[0]) < 0 || set_tcp(fd, TCP_KEEPINTVL, keepalive[1]) < 0 ||
            set_tcp(fd, TCP_KEEPCNT, keepalive[2]) < 0 || set_option(fd, SO_OOBINLINE, 1) < 0) {
            close(fd);
            return -1;
        }
        return fd;
    }
    static inline int dial(int fd, const Address *target) { /* 0 or an errno */
        TabiSockaddr to;
        socklen_t size = write_sockaddr(target, &to);
        return connect(fd, &to.any, size) < 0 ? errno : 0;
    }
    static inline int is_loopback(const Address *address) {
        static const uint8_t one[16] = {[15] = 1};
        return address->size == 4 ? address->bytes[0] == 127 : !memcmp(address->bytes, one, 16);
    }
    static inline int is_unspecified(const Address *address) {
        static const uint8_t none[16];
        return !memcmp(address->bytes, none, 16);
    }
    static inline int is_same_place(const Address *one, const Address *other) {
        return one->port == other->port && one->size == other->size && !memcmp(one->bytes, other->bytes, 16);
    }
    """
    ctypedef struct Address:
        uint8_t bytes[16]
        uint16_t port
        uint8_t size
        uint8_t is_scoped
    bint parse_address(const char *text, Address *to)
    int accept_client(int listener, Address *client)
    int local_address(int fd, Address *local)
    int prepared_socket(int size, const int *keepalive)
    int dial(int fd, const Address *target)
    bint is_loopback(const Address *address)
    bint is_unspecified(const Address *address)
    bint is_same_place(const Address *one, const Address *other)
