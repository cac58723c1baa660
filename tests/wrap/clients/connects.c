/* Connect to one target in several styles at once, a process for each, and tell what each has seen.
 *
 *   connects ADDRESS PORT STYLE...
 *
 * One line of JSON for each style: its errno (0: connected), when it was asked for and when the program knew (nanoseconds
 * of CLOCK_MONOTONIC, which all processes of a host share), who getpeername says that it is connected to, and the first
 * line that came from there. "missing" instead of an errno says that this kernel does not have the style, and why.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE = 60, PROTOCOL_MPTCP = 262, FASTOPEN_NO_COOKIE = 34, MISSING = -1 };

struct target {
    struct sockaddr_storage address;
    socklen_t size;
};

static const char *missing = ""; /* why a style is MISSING */

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int lacks(const char *what) {
    missing = what;
    return MISSING;
}

static int pending_error(int sock) {
    int error = 0;
    socklen_t size = sizeof error;
    return getsockopt(sock, SOL_SOCKET, SO_ERROR, &error, &size) ? errno : error;
}

static int dial(int sock, const struct target *to) {
    return connect(sock, (const struct sockaddr *)&to->address, to->size) ? errno : 0;
}

/* Each style connects a fresh socket and returns an errno; `sock` is non-blocking where its row says so. */

static int blocking(int sock, const struct target *to) { return dial(sock, to); }

static int with_timeout(int sock, const struct target *to) {
    struct timeval limit = {PATIENCE, 0};
    setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    return dial(sock, to);
}

static int by_select(int sock, const struct target *to) {
    int error = dial(sock, to);
    if (error != EINPROGRESS) return error;
    fd_set writable;
    FD_ZERO(&writable);
    FD_SET(sock, &writable);
    return select(sock + 1, NULL, &writable, NULL, NULL) < 0 ? errno : pending_error(sock);
}

static int by_poll(int sock, const struct target *to) {
    int error = dial(sock, to);
    if (error != EINPROGRESS) return error;
    struct pollfd one = {sock, POLLOUT, 0};
    return poll(&one, 1, -1) < 0 ? errno : pending_error(sock);
}

static int by_epoll(int sock, const struct target *to) {
    int error = dial(sock, to), set = epoll_create1(0);
    if (error != EINPROGRESS) return error;
    struct epoll_event event = {.events = EPOLLOUT};
    epoll_ctl(set, EPOLL_CTL_ADD, sock, &event);
    return epoll_wait(set, &event, 1, -1) < 0 ? errno : pending_error(sock);
}

/* Registered before connect(), as libuv and Go do: only what happens to that very socket wakes it. */
static int by_edge(int sock, const struct target *to) {
    int set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLOUT | EPOLLIN | EPOLLET};
    epoll_ctl(set, EPOLL_CTL_ADD, sock, &event);
    while (epoll_wait(set, &event, 1, 0) > 0) /* a socket that is not connected hangs up at once */
        ;
    int error = dial(sock, to);
    if (error != EINPROGRESS) return error;
    return epoll_wait(set, &event, 1, -1) < 0 ? errno : pending_error(sock);
}

static int by_signal(int sock, const struct target *to) {
    sigset_t io;
    sigemptyset(&io);
    sigaddset(&io, SIGIO);
    sigprocmask(SIG_BLOCK, &io, NULL);
    fcntl(sock, F_SETOWN, getpid());
    fcntl(sock, F_SETFL, O_NONBLOCK | O_ASYNC);
    int error = dial(sock, to);
    if (error != EINPROGRESS) return error;
    struct pollfd one = {sock, POLLOUT, 0};
    struct timespec limit = {PATIENCE, 0};
    do {
        if (sigtimedwait(&io, NULL, &limit) < 0) return errno;
    } while (poll(&one, 1, 0) == 0); /* the signal is about anything; success or failure is what poll says */
    return pending_error(sock);
}

static int by_uring(int sock, const struct target *to) {
    struct io_uring_params p = {0};
    int ring = syscall(SYS_io_uring_setup, 4, &p);
    if (ring < 0) return lacks(strerrorname_np(errno));
    int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
    char *submit = mmap(0, p.sq_off.array + p.sq_entries * sizeof(unsigned), prot, flags, ring, IORING_OFF_SQ_RING);
    char *complete =
        mmap(0, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), prot, flags, ring, IORING_OFF_CQ_RING);
    struct io_uring_sqe *entry = mmap(0, p.sq_entries * sizeof *entry, prot, flags, ring, IORING_OFF_SQES);
    if (submit == MAP_FAILED || complete == MAP_FAILED || entry == MAP_FAILED) return errno;
    *entry = (struct io_uring_sqe){
        .opcode = IORING_OP_CONNECT, .fd = sock, .addr = (uintptr_t)&to->address, .off = to->size};
    *(unsigned *)(submit + p.sq_off.array) = 0;
    __atomic_store_n((unsigned *)(submit + p.sq_off.tail), 1, __ATOMIC_RELEASE);
    const unsigned *done = (unsigned *)(complete + p.cq_off.tail);
    for (int submitted = 0; __atomic_load_n(done, __ATOMIC_ACQUIRE) == 0; submitted = 1) /* it may come back early */
        if (syscall(SYS_io_uring_enter, ring, !submitted, 1, IORING_ENTER_GETEVENTS, 0, 0) < 0) return errno;
    return -((struct io_uring_cqe *)(complete + p.cq_off.cqes))->res;
}

/* The first bytes travel in the SYN (RFC 7413), without a cookie. */
static int fast_open(int sock, const struct target *to) {
    int one = 1;
    if (setsockopt(sock, IPPROTO_TCP, FASTOPEN_NO_COOKIE, &one, sizeof one)) return lacks(strerrorname_np(errno));
    ssize_t sent = sendto(sock, "early", 5, MSG_FASTOPEN, (const struct sockaddr *)&to->address, to->size);
    return sent < 0 ? errno : 0;
}

static const struct style {
    const char *name;
    int (*run)(int sock, const struct target *to);
    int flags;
    int protocol;
} STYLES[] = {
    {"blocking", blocking, 0, 0},
    {"timeout", with_timeout, 0, 0},
    {"select", by_select, SOCK_NONBLOCK, 0},
    {"poll", by_poll, SOCK_NONBLOCK, 0},
    {"epoll", by_epoll, SOCK_NONBLOCK, 0},
    {"edge", by_edge, SOCK_NONBLOCK, 0},
    {"signal", by_signal, SOCK_NONBLOCK, 0},
    {"io_uring", by_uring, 0, 0},
    {"mptcp", blocking, 0, PROTOCOL_MPTCP},
    {"mptcp-poll", by_poll, SOCK_NONBLOCK, PROTOCOL_MPTCP},
    {"fast-open", fast_open, 0, 0},
};

static void show_peer(int sock, char *text, size_t size, int *port) {
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    if (getpeername(sock, (struct sockaddr *)&peer, &length)) return;
    struct sockaddr_in *four = (void *)&peer;
    struct sockaddr_in6 *six = (void *)&peer;
    int is_four = peer.ss_family == AF_INET;
    inet_ntop(peer.ss_family, is_four ? (void *)&four->sin_addr : (void *)&six->sin6_addr, text, size);
    *port = ntohs(is_four ? four->sin_port : six->sin6_port);
}

/* Read a line, or as much as comes. */
static void hear(int sock, char *text, size_t size) {
    struct timeval limit = {PATIENCE, 0};
    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    fcntl(sock, F_SETFL, 0);
    for (size_t have = 0; have < size - 1; have++) {
        if (read(sock, text + have, 1) != 1 || text[have] == '\n') {
            text[have] = 0;
            return;
        }
    }
}

static void tell(const struct style *style, const struct target *to) {
    char peer[INET6_ADDRSTRLEN] = "", heard[200] = "", result[60], line[500];
    int port = 0, error, sock = socket(to->address.ss_family, SOCK_STREAM | style->flags, style->protocol);
    int64_t begun = now();
    error = sock < 0 ? lacks(strerrorname_np(errno)) : style->run(sock, to);
    int64_t known = now();
    if (error == 0) {
        show_peer(sock, peer, sizeof peer, &port);
        hear(sock, heard, sizeof heard);
    }
    if (error == MISSING) snprintf(result, sizeof result, "\"missing\": \"%s\"", missing);
    else snprintf(result, sizeof result, "\"errno\": %d", error);
    int length = snprintf(line, sizeof line,
        "{\"style\": \"%s\", %s, \"begun\": %lld, \"known\": %lld, \"peer\": \"%s\", \"port\": %d, \"heard\": \"%s\"}\n",
        style->name, result, (long long)begun, (long long)known, peer, port, heard);
    if (write(1, line, length) != length) _exit(1); /* whole: shorter than PIPE_BUF */
    _exit(0);
}

static const struct style *find(const char *name) {
    for (size_t i = 0; i < sizeof STYLES / sizeof *STYLES; i++)
        if (!strcmp(STYLES[i].name, name)) return STYLES + i;
    fprintf(stderr, "no style %s\n", name);
    exit(2);
}

int main(int count, char **words) {
    struct target to = {0};
    struct sockaddr_in *four = (void *)&to.address;
    struct sockaddr_in6 *six = (void *)&to.address;
    if (count < 4) return 2;
    int port = atoi(words[2]);
    if (inet_pton(AF_INET, words[1], &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(port);
        to.size = sizeof *four;
    } else if (inet_pton(AF_INET6, words[1], &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons(port);
        to.size = sizeof *six;
    } else {
        return 2;
    }
    for (int i = 3; i < count; i++) {
        const struct style *style = find(words[i]);
        if (fork() == 0) tell(style, &to);
    }
    int status, failed = 0;
    while (wait(&status) > 0) failed |= status;
    return failed != 0;
}
