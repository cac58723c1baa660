#include "tunnel.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "fail.h"
#include "options.h"
#include "place.h"

enum { AT_ONCE = 64, SILENCE = 10 /* seconds without a tunnel that opens */, PATIENCE = 90 /* seconds to open all */ };

static char trouble[160];

const char *tunnel_trouble(void) { return trouble; }

static enum progress broken(const char *format, ...) __attribute__((format(printf, 1, 2)));
static enum progress broken(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(trouble, sizeof trouble, format, arguments);
    va_end(arguments);
    return BROKEN;
}

static int poller(void)
{
    static int fd = -1;
    if (fd < 0 && (fd = epoll_create1(EPOLL_CLOEXEC)) < 0)
        fail_errno(OURS, "epoll_create1");
    return fd;
}

int tunnel_wait(struct epoll_event *events, int64_t until)
{
    int64_t left = options.spin ? 0 : until - now();
    if (left < 0)
        left = 0;
    struct timespec timeout = {left / SECOND, left % SECOND};
    int count = epoll_pwait2(poller(), events, MOST_EVENTS, &timeout, NULL);
    if (count < 0 && errno != EINTR)
        fail_errno(OURS, "epoll_pwait2");
    return count < 0 ? 0 : count;
}

static void register_with(int operation, struct tunnel *tunnel, uint32_t interest)
{
    struct epoll_event event = {.events = interest, .data.ptr = tunnel};
    tunnel->interest = interest;
    if (epoll_ctl(poller(), operation, tunnel->fd, &event))
        fail_errno(OURS, "epoll_ctl");
}

void tunnel_watch(struct tunnel *tunnel, uint32_t interest)
{
    if (tunnel->interest != interest)
        register_with(EPOLL_CTL_MOD, tunnel, interest);
}

bool tunnel_send(struct tunnel *tunnel, const void *bytes, int length)
{
    return send(tunnel->fd, bytes, (size_t)length, MSG_NOSIGNAL) == length;
}

static int connect_to_peer(struct tunnel *tunnel)
{
    tunnel->turn = place_next_turn();
    struct sockaddr_storage peer = options.direct ? place_of_turn(tunnel->turn, tunnel->port) : options.proxy;
    tunnel->fd = socket(peer.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (tunnel->fd < 0)
        fail_errno(OURS, "no socket"); /* too few descriptors: `ulimit -n`, and it will not get better */
    const int yes = 1;
    if (setsockopt(tunnel->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes))
        return -1;
    /* The address that a UDP client sends from is the one that it asked from. */
    if (tunnel->command != ASSOCIATE && place_bind_source(tunnel->fd, tunnel->turn))
        return -1;
    tunnel->began = now();
    if (connect(tunnel->fd, (const struct sockaddr *)&peer, place_length(&peer)) && errno != EINPROGRESS)
        return -1;
    return 0;
}

bool tunnel_begin(struct tunnel *tunnel, enum command command, int port)
{
    tunnel->command = command;
    tunnel->port = port;
    tunnel->stage = CONNECTING;
    tunnel->got = 0;
    tunnel->bytes = 0;
    if (connect_to_peer(tunnel)) {
        broken("connect: %s", strerror(errno));
        close(tunnel->fd);
        tunnel->fd = -1;
        tunnel->stage = CLOSED;
        return false;
    }
    register_with(EPOLL_CTL_ADD, tunnel, EPOLLOUT);
    return true;
}

static int put_request(const struct tunnel *tunnel, uint8_t *out)
{
    struct sockaddr_storage target;
    if (tunnel->command == CONNECT)
        target = place_of_turn(tunnel->turn, tunnel->port);
    else
        target = (struct sockaddr_storage){.ss_family = AF_INET}; /* "from anywhere": RFC 1928, section 7 */
    const char *name = tunnel->command == CONNECT ? options.name : NULL;
    return socks_request(out, tunnel->command, name, &target);
}

/* Send what the stage that now begins asks for, unless all was sent with the greeting. */
static enum progress enter(struct tunnel *tunnel, enum stage stage, int need)
{
    uint8_t out[LONGEST_LOGIN];
    tunnel->stage = stage;
    tunnel->got = 0;
    tunnel->need = need;
    if (options.optimistic)
        return PENDING;
    int length = stage == LOGIN ? socks_login(out, options.user, options.password) : put_request(tunnel, out);
    return tunnel_send(tunnel, out, length) ? PENDING : broken("sending the handshake: %s", strerror(errno));
}

static enum progress greet(struct tunnel *tunnel)
{
    uint8_t out[LONGEST_GREETING + LONGEST_LOGIN + LONGEST_REQUEST];
    int length = socks_greeting(out, options.user);
    if (options.optimistic) {
        if (options.user)
            length += socks_login(out + length, options.user, options.password);
        length += put_request(tunnel, out + length);
    }
    if (!tunnel_send(tunnel, out, length))
        return broken("sending the greeting: %s", strerror(errno));
    tunnel->stage = METHOD;
    tunnel->got = 0;
    tunnel->need = METHOD_REPLY;
    tunnel_watch(tunnel, EPOLLIN);
    return PENDING;
}

static enum progress connected(struct tunnel *tunnel)
{
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(tunnel->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error)
        return broken("connect: %s", strerror(error));
    if (!options.direct)
        return greet(tunnel);
    tunnel->stage = OPEN;
    return OPENED;
}

/* What a whole reply means. */
static enum progress take(struct tunnel *tunnel)
{
    const uint8_t *reply = tunnel->reply;
    if (tunnel->stage == METHOD) {
        if (reply[0] != 5 || reply[1] != (options.user ? 2 : 0))
            return broken("answer %02x %02x to the greeting", reply[0], reply[1]);
        return options.user ? enter(tunnel, LOGIN, LOGIN_REPLY) : enter(tunnel, REQUEST, SHORTEST_REPLY);
    }
    if (tunnel->stage == LOGIN)
        return reply[1] ? broken("the login was refused (%02x)", reply[1]) : enter(tunnel, REQUEST, SHORTEST_REPLY);
    if (reply[0] != 5 || reply[1])
        return broken("reply %d to the request (%s)", reply[1], socks_reply_text(reply[1]));
    int length = socks_reply_length(reply);
    if (!length)
        return broken("address type %d in the reply", reply[3]);
    if (tunnel->got < length) {
        tunnel->need = length;
        return PENDING;
    }
    tunnel->stage = OPEN;
    return OPENED;
}

/* Never reads beyond the reply that is due: what follows belongs to the tunnel. */
static enum progress read_replies(struct tunnel *tunnel)
{
    static const char *const awaited[] = {[METHOD] = "greeting", [LOGIN] = "login", [REQUEST] = "request"};
    for (;;) {
        ssize_t n = recv(tunnel->fd, tunnel->reply + tunnel->got, (size_t)(tunnel->need - tunnel->got), 0);
        if (n < 0 && errno == EAGAIN)
            return PENDING;
        if (n <= 0)
            return broken("%s, not answering the %s", n ? strerror(errno) : "closed", awaited[tunnel->stage]);
        tunnel->got += (int)n;
        if (tunnel->got < tunnel->need)
            continue;
        enum stage before = tunnel->stage;
        enum progress progress = take(tunnel);
        bool answer_is_far = tunnel->stage != before && !options.optimistic;
        if (progress != PENDING || answer_is_far)
            return progress;
    }
}

enum progress tunnel_advance(struct tunnel *tunnel)
{
    return tunnel->stage == CONNECTING ? connected(tunnel) : read_replies(tunnel);
}

void tunnel_end(struct tunnel *tunnel)
{
    if (tunnel->fd < 0)
        return;
    if (options.reset) {
        const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
        setsockopt(tunnel->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
    close(tunnel->fd);
    tunnel->fd = -1;
    tunnel->stage = CLOSED;
}

static int advance_some(int64_t deadline)
{
    struct epoll_event events[MOST_EVENTS];
    int opened = 0, count = tunnel_wait(events, deadline);
    for (int i = 0; i < count; i++) {
        struct tunnel *tunnel = events[i].data.ptr;
        if (tunnel->stage == OPEN)
            continue;
        enum progress progress = tunnel_advance(tunnel);
        if (progress == BROKEN)
            fail(PROXY, "tunnel %d could not be opened: %s", tunnel->index, trouble);
        if (progress == OPENED) {
            tunnel_watch(tunnel, 0);
            opened++;
        }
    }
    return opened;
}

struct tunnel *tunnels_open(int count, int port)
{
    struct tunnel *tunnels = calloc(count ? (size_t)count : 1, sizeof *tunnels);
    if (!tunnels)
        fail(OURS, "no memory for %d tunnels", count);
    int64_t deadline = now() + PATIENCE * SECOND, patient_until = now() + SILENCE * SECOND;
    for (int begun = 0, opened = 0; opened < count;) {
        for (; begun < count && begun - opened < AT_ONCE; begun++) {
            tunnels[begun].index = begun;
            if (!tunnel_begin(&tunnels[begun], CONNECT, port))
                fail(OURS, "tunnel %d could not be begun: %s", begun, trouble);
        }
        int more = advance_some(patient_until);
        opened += more;
        if (more)
            patient_until = now() + SILENCE * SECOND;
        if (now() > deadline || now() > patient_until)
            fail(PROXY, "%d of %d tunnels are open, and the next takes too long", opened, count);
    }
    return tunnels;
}

void tunnels_close(struct tunnel *tunnels, int count)
{
    for (int i = 0; i < count; i++)
        tunnel_end(&tunnels[i]);
    free(tunnels);
}
