"""Which congestion control a bulk stream has on a leg that stays near; `tabi.relay._congestion` says why."""

from libc.stdint cimport uint8_t

cdef enum:
    NAME_MOST = 16  # bytes, with the zero at the end: TCP_CA_NAME_MAX

cdef extern from * nogil:
    """
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <sys/socket.h>

    static int is_near_v4(const uint8_t *a) {
        return a[0] == 127 || a[0] == 10 || (a[0] == 172 && a[1] >> 4 == 1) || (a[0] == 192 && a[1] == 168)
            || (a[0] == 169 && a[1] == 254);
    }
    static int is_near_v6(const uint8_t *a) {
        static const uint8_t loopback[16] = {[15] = 1}, mapped[12] = {[10] = 0xff, [11] = 0xff};
        if (!memcmp(a, mapped, 12))
            return is_near_v4(a + 12);
        return !memcmp(a, loopback, 16) || (a[0] & 0xfe) == 0xfc || (a[0] == 0xfe && a[1] >> 6 == 2);
    }
    static int has_near_peer(int fd) {
        struct sockaddr_storage peer = {0};
        socklen_t size = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &size) < 0)
            return 0;
        if (peer.ss_family == AF_INET)
            return is_near_v4((const uint8_t *)&((struct sockaddr_in *)&peer)->sin_addr);
        return peer.ss_family == AF_INET6 && is_near_v6((const uint8_t *)&((struct sockaddr_in6 *)&peer)->sin6_addr);
    }
    static void set_congestion_control(int fd, const char *name) {
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, strlen(name));  /* else the system's stays */
    }
    """
    bint is_near_v4(const uint8_t *address)
    bint is_near_v6(const uint8_t *address)
    bint has_near_peer(int fd)
    void set_congestion_control(int fd, const char *name)
