"""What the engine asks of Linux and of the C compiler: declarations, and the few calls that need a struct built first.

Nothing here knows flows. Calls return what the kernel returns; `errno` says the rest.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    NS = 1_000_000_000  # nanoseconds in a second

cdef extern from * nogil:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <assert.h>
    #include <errno.h>
    #include <fcntl.h>
    #include <sched.h>
    #include <semaphore.h>
    #include <signal.h>
    #include <stdint.h>
    #include <string.h>
    #include <time.h>
    #include <unistd.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/ioctl.h>
    #include <sys/socket.h>
    #include <linux/sockios.h>
    #include <pthread.h>

    #ifndef TABI_DIGEST
    #define TABI_DIGEST ""
    #endif

    /* Of our own state only, never of what a peer sent; gone from a release build (NDEBUG). */
    #define check(condition) assert(condition)

    #define load(at) __atomic_load_n(at, __ATOMIC_ACQUIRE)
    #define store(at, value) __atomic_store_n(at, value, __ATOMIC_RELEASE)
    #define swap(at, value) __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST)
    #define add(at, value) __atomic_add_fetch(at, value, __ATOMIC_SEQ_CST)
    #define swap_if(at, expected, value) \\
        __atomic_compare_exchange_n(at, expected, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)
    #define fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)

    static inline int64_t monotonic(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    }
    static inline double wall_clock(void) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        return t.tv_sec + t.tv_nsec / 1e9;
    }
    static inline int set_option(int fd, int name, int value) {
        return setsockopt(fd, SOL_SOCKET, name, &value, sizeof value);
    }
    static inline int take_socket_error(int fd) {
        int error = 0;
        socklen_t size = sizeof error;
        return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 ? errno : error;
    }
    static inline int abort_on_close(int fd) {
        struct linger abort_ = {1, 0};
        return setsockopt(fd, SOL_SOCKET, SO_LINGER, &abort_, sizeof abort_);
    }
    static inline int unsent_bytes(int fd, int *count) {
        return ioctl(fd, SIOCOUTQ, count);
    }
    static inline int do_not_block(int fd) {
        int flags = fcntl(fd, F_GETFL);
        return flags < 0 || flags & O_NONBLOCK ? flags : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    }
    static inline int lock_byte(int fd, long offset, int kind) {
        struct flock lock = {.l_type = kind, .l_whence = SEEK_SET, .l_start = offset, .l_len = 1};
        return fcntl(fd, F_SETLK, &lock);
    }
    static inline void nap(long nanoseconds) {
        struct timespec t = {0, nanoseconds};
        nanosleep(&t, NULL);
    }
    /* splice() into a reset socket raises SIGPIPE and knows no MSG_NOSIGNAL. CPython ignores the signal, but a program
       around us may have restored it. It is sent to the thread that caused it, so it is blocked there. */
    static inline void block_sigpipe(void) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGPIPE);
        pthread_sigmask(SIG_BLOCK, &set, NULL);
    }
    """
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    const uint32_t EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP, EPOLLPRI, EPOLLET
    const int EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event *event)
    int epoll_wait(int epoll, epoll_event *events, int most, int milliseconds)

    const int EFD_NONBLOCK, EFD_CLOEXEC
    int eventfd(unsigned int value, int flags)
    int eventfd_read(int fd, uint64_t *value)
    int eventfd_write(int fd, uint64_t value)

    const int MSG_NOSIGNAL, MSG_DONTWAIT, SHUT_WR, SO_OOBINLINE
    ssize_t recv(int fd, void *data, size_t size, int flags)
    ssize_t send(int fd, const void *data, size_t size, int flags)
    int shutdown(int fd, int how)
    int close(int fd)

    ctypedef struct sem_t:
        pass
    int sem_init(sem_t *semaphore, int shared, unsigned int value)
    int sem_wait(sem_t *semaphore)
    int sem_post(sem_t *semaphore)
    int sem_destroy(sem_t *semaphore)

    const int O_NONBLOCK, O_CLOEXEC, F_SETPIPE_SZ
    const unsigned int SPLICE_F_NONBLOCK
    int pipe2(int *ends, int flags)
    int fcntl(int fd, int command, int argument)
    ssize_t splice(int source, void *source_offset, int sink, void *sink_offset, size_t size, unsigned int flags)

    const int F_WRLCK, F_UNLCK
    int lock_byte(int fd, long offset, int kind)  # F_SETLK on one byte
    int sched_yield()
    void nap(long nanoseconds)

    int64_t monotonic()  # nanoseconds
    double wall_clock()  # seconds since the epoch
    int set_option(int fd, int name, int value)  # of SOL_SOCKET
    int take_socket_error(int fd)  # SO_ERROR, which the kernel tells once and forgets
    int abort_on_close(int fd)  # SO_LINGER {on, 0}: close() sends RST and throws away what is queued
    int unsent_bytes(int fd, int *count)  # SIOCOUTQ: what the peer has not acknowledged (tcp(7))
    int do_not_block(int fd)
    void block_sigpipe()
    int __builtin_popcount(unsigned int bits)
    int __builtin_ctzll(unsigned long long bits)

    const char *TABI_DIGEST  # of our own source, defined by the build
    void check(bint condition)
    void fence()


# Of one thread's memory that another thread reads; C's generic builtins, by the types that are needed here.
cdef extern from * nogil:
    int64_t load_count "load"(const int64_t *at)
    void store_count "store"(int64_t *at, int64_t value)
    int64_t add_count "add"(int64_t *at, int64_t value)
    uint8_t load_byte "load"(const uint8_t *at)
    void store_byte "store"(uint8_t *at, uint8_t value)
    int load_int "load"(const int *at)
    void store_int "store"(int *at, int value)
    int swap_int "swap"(int *at, int value)
