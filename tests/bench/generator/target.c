/* The target: echo, sink and source over TCP and an echo over UDP, on 127.0.0.1 and so on and on ::1, and a port that
 * tells how many bytes sink and echo have received. It says on standard output that it listens, and ends when standard
 * input does, or after --seconds. */
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "echo.h"
#include "fail.h"
#include "modes.h"
#include "options.h"
#include "payload.h"
#include "place.h"

enum { BACKLOG = 4096, ACCEPTS = 64 /* in one turn */, EVENTS = 256 };
enum kind { ECHO, SINK, SOURCE, TALLY, UDP_ECHO, STANDARD_INPUT };

struct end {
    int fd; /* owned */
    enum kind kind;
    bool listens;
    struct echo echo; /* what could not be sent back yet */
    struct end *next, *previous; /* in the ring of all of them */
};

static int poller;
static uint64_t received;
static struct end ring = {.next = &ring, .previous = &ring};

static struct end *end_new(int fd, enum kind kind, bool listens)
{
    struct end *end = calloc(1, sizeof *end);
    if (!end)
        fail(OURS, "no memory for a connection");
    *end = (struct end){.fd = fd, .kind = kind, .listens = listens, .next = ring.next, .previous = &ring};
    ring.next = end->next->previous = end;
    return end;
}

static void end_free(struct end *end)
{
    end->previous->next = end->next;
    end->next->previous = end->previous;
    close(end->fd);
    echo_clear(&end->echo);
    free(end);
}

static void watch(int operation, struct end *end, uint32_t interest)
{
    struct epoll_event event = {.events = interest, .data.ptr = end};
    if (epoll_ctl(poller, operation, end->fd, &event))
        fail_errno(OURS, "epoll_ctl");
}

/* --- what each kind does: false when the connection is over --- */

static bool sink(struct end *end)
{
    for (int turn = 0; turn < TURNS; turn++) {
        ssize_t n = payload_receive(end->fd);
        if (n <= 0)
            return n < 0 && errno == EAGAIN;
        received += (uint64_t)n;
    }
    return true;
}

static bool source(struct end *end, uint32_t events)
{
    if (events & (EPOLLERR | EPOLLHUP))
        return false;
    for (int turn = 0; turn < TURNS; turn++)
        if (payload_send(end->fd) <= 0)
            return errno == EAGAIN;
    return true;
}

static bool echo(struct end *end)
{
    bool was_waiting = echo_waits(&end->echo);
    if (!echo_step(&end->echo, end->fd, &received))
        return false;
    bool waits = echo_waits(&end->echo);
    if (waits != was_waiting)
        watch(EPOLL_CTL_MOD, end, waits ? EPOLLOUT : EPOLLIN);
    return true;
}

static bool tell_tally(struct end *end)
{
    uint64_t count = htobe64(received);
    send(end->fd, &count, sizeof count, MSG_NOSIGNAL);
    return false;
}

static bool serve(struct end *end, uint32_t events)
{
    switch (end->kind) {
    case ECHO: return echo(end);
    case SINK: return sink(end);
    case SOURCE: return source(end, events);
    case TALLY: return tell_tally(end);
    default: return false;
    }
}

/* --- listeners --- */

static void accept_some(struct end *listener)
{
    for (int i = 0; i < ACCEPTS; i++) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EAGAIN || errno == ECONNABORTED))
            return;
        if (fd < 0)
            fail_errno(OURS, "the target cannot accept");
        bool writes = listener->kind == SOURCE || listener->kind == TALLY;
        watch(EPOLL_CTL_ADD, end_new(fd, listener->kind, false), writes ? EPOLLOUT : EPOLLIN);
    }
}

static int bound(int family, int type, int number, int port)
{
    const int yes = 1;
    struct sockaddr_storage address = place_of_target(family, number, port);
    int fd = socket(address.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail_errno(OURS, "no socket");
    if (type == SOCK_STREAM) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes); /* accepted ones inherit it */
    }
    if (bind(fd, (struct sockaddr *)&address, place_length(&address)))
        fail_errno(OURS, "the target cannot have %s, port %d", family == 6 ? "::1" : "127.0.0.x", options.port + port);
    return fd;
}

static void listen_on(int family, int number, int port, enum kind kind)
{
    int fd = bound(family, SOCK_STREAM, number, port);
    if (listen(fd, BACKLOG))
        fail_errno(OURS, "listen");
    watch(EPOLL_CTL_ADD, end_new(fd, kind, true), EPOLLIN);
}

static void listen_on_address(int family, int number)
{
    listen_on(family, number, ECHO_PORT, ECHO);
    listen_on(family, number, SINK_PORT, SINK);
    listen_on(family, number, SOURCE_PORT, SOURCE);
    for (int more = 0; more < options.echo_ports - 1; more++)
        listen_on(family, number, MORE_ECHOES + more, ECHO);
}

static void echo_datagrams_on(int family)
{
    const int size = 4 << 20;
    int fd = bound(family, SOCK_DGRAM, 0, ECHO_PORT);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size); /* as much of it as we may have */
    watch(EPOLL_CTL_ADD, end_new(fd, UDP_ECHO, true), EPOLLIN);
}

/* A host without IPv6 has a target without it. */
static bool has_six(void)
{
    struct sockaddr_storage address = place_of_target(6, 0, -options.port);
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool can = fd >= 0 && bind(fd, (struct sockaddr *)&address, place_length(&address)) == 0;
    if (fd >= 0)
        close(fd);
    return can;
}

static void listen_everywhere(void)
{
    for (int number = 0; number < options.targets; number++)
        listen_on_address(4, number);
    listen_on(4, 0, TALLY_PORT, TALLY);
    echo_datagrams_on(4);
    if (!has_six())
        return;
    listen_on_address(6, 0);
    echo_datagrams_on(6);
}

/* --- the loop --- */

/* False when standard input has ended. Where it cannot be waited for (a file, /dev/null) it is not asked. */
static bool input_goes_on(const struct end *end)
{
    char bytes[256];
    return read(end->fd, bytes, sizeof bytes) > 0;
}

static void watch_input(void)
{
    static struct end input = {.fd = STDIN_FILENO, .kind = STANDARD_INPUT};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &input};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event) && errno != EPERM)
        fail_errno(OURS, "epoll_ctl on standard input");
}

/* False when the program is to end. */
static bool handle(struct end *end, uint32_t events)
{
    if (end->kind == STANDARD_INPUT)
        return input_goes_on(end);
    if (end->kind == UDP_ECHO)
        echo_datagrams(end->fd);
    else if (end->listens)
        accept_some(end);
    else if (!serve(end, events))
        end_free(end);
    return true;
}

static void serve_until(int64_t deadline)
{
    struct epoll_event events[EVENTS];
    for (int64_t left; (left = deadline - now()) > 0;) {
        struct timespec timeout = {left / SECOND, left % SECOND};
        int count = epoll_pwait2(poller, events, EVENTS, &timeout, NULL);
        if (count < 0 && errno != EINTR)
            fail_errno(OURS, "epoll_pwait2");
        for (int i = 0; i < count; i++)
            if (!handle(events[i].data.ptr, events[i].events))
                return;
    }
}

void target(void)
{
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0)
        fail_errno(OURS, "epoll_create1");
    listen_everywhere();
    watch_input();
    printf("{\"target\": %d}\n", options.port);
    fflush(stdout);
    serve_until(now() + in_ns(options.seconds));
    while (ring.next != &ring)
        end_free(ring.next);
    close(poller);
}
