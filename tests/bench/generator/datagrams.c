/* Datagrams: echoes through UDP associations (RFC 1928, section 7), `--window` of them under way in each. An answer
 * counts when it has the length and the number of a datagram that was sent. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "fail.h"
#include "json.h"
#include "modes.h"
#include "options.h"
#include "period.h"
#include "place.h"
#include "tunnel.h"

enum { BATCH = 64, HEADER_ROOM = 3 + 1 + 16 + 2, SILENCE_MS = 50, PATIENCE = 10, LONGEST = 65536, BUFFER = 4 << 20 };

struct association {
    struct tunnel control;
    int fd;
    uint32_t next; /* number of the next datagram */
    int under_way;
    int64_t heard; /* when the last answer came */
};

static struct association *associations;
static uint64_t sent, answered, lost, strange;
static int header_length;
static uint8_t out[BATCH][LONGEST], in[BATCH][LONGEST];
static struct mmsghdr out_headers[BATCH], in_headers[BATCH];
static struct iovec out_parts[BATCH], in_parts[BATCH];

static bool is_anywhere(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET)
        return ((const struct sockaddr_in *)address)->sin_addr.s_addr == INADDR_ANY;
    return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

/* Where the association's datagrams go: the proxy's address in its reply (all zeros: the one that we know), or, without
 * proxy, the target itself. */
static struct sockaddr_storage relay_of(const struct association *association)
{
    struct sockaddr_storage relay;
    if (options.direct)
        return place_of_target(options.family, 0, ECHO_PORT);
    if (!socks_reply_address(association->control.reply, &relay))
        fail(PROXY, "the association is at a name, not an address");
    if (!is_anywhere(&relay))
        return relay;
    struct sockaddr_storage proxy = options.proxy;
    in_port_t port = htons(socks_port(&relay));
    if (proxy.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&proxy)->sin6_port = port;
    else
        ((struct sockaddr_in *)&proxy)->sin_port = port;
    return proxy;
}

static void associate(struct association *association)
{
    struct epoll_event events[MOST_EVENTS];
    enum progress progress = PENDING;
    int64_t deadline = now() + PATIENCE * SECOND;
    if (!tunnel_begin(&association->control, ASSOCIATE, ECHO_PORT))
        fail(OURS, "an association could not be begun: %s", tunnel_trouble());
    while (progress == PENDING) {
        if (now() > deadline)
            fail(PROXY, "UDP ASSOCIATE was not answered within %d s", PATIENCE);
        int count = tunnel_wait(events, deadline);
        for (int i = 0; i < count && progress == PENDING; i++)
            if (events[i].data.ptr == &association->control)
                progress = tunnel_advance(&association->control);
    }
    if (progress == BROKEN)
        fail(PROXY, "UDP ASSOCIATE: %s", tunnel_trouble());
    tunnel_watch(&association->control, 0);
}

static void open_socket(struct association *association)
{
    struct sockaddr_storage relay = relay_of(association);
    const int size = BUFFER;
    association->fd = socket(relay.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (association->fd < 0 || connect(association->fd, (struct sockaddr *)&relay, place_length(&relay)))
        fail_errno(OURS, "a UDP socket towards the proxy");
    setsockopt(association->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size); /* as much of it as we may have */
}

static void open_all(void)
{
    associations = calloc((size_t)options.count, sizeof *associations);
    if (!associations)
        fail(OURS, "no memory for %d associations", options.count);
    for (int i = 0; i < options.count; i++) {
        associations[i].control.fd = -1;
        associations[i].control.index = i;
        if (!options.direct)
            associate(&associations[i]);
        open_socket(&associations[i]);
        associations[i].heard = now();
    }
}

static void prepare_batches(void)
{
    struct sockaddr_storage target = place_of_target(options.family, 0, ECHO_PORT);
    header_length = options.direct ? 0 : 3 + socks_put_address(out[0] + 3, &target); /* RSV, FRAG, DST */
    for (int i = 0; i < BATCH; i++) {
        if (i > 0)
            memcpy(out[i], out[0], HEADER_ROOM);
        out_parts[i] = (struct iovec){out[i], (size_t)(header_length + options.size)};
        in_parts[i] = (struct iovec){in[i], LONGEST};
        out_headers[i].msg_hdr = (struct msghdr){.msg_iov = &out_parts[i], .msg_iovlen = 1};
        in_headers[i].msg_hdr = (struct msghdr){.msg_iov = &in_parts[i], .msg_iovlen = 1};
    }
}

static void fill_window(struct association *association)
{
    while (association->under_way < options.window) {
        int free_places = options.window - association->under_way, count = free_places < BATCH ? free_places : BATCH;
        for (int i = 0; i < count; i++) {
            uint32_t number = association->next + (uint32_t)i;
            memcpy(out[i] + header_length, &number, sizeof number);
        }
        int n = sendmmsg(association->fd, out_headers, (unsigned)count, 0);
        if (n < 0 && errno != EAGAIN && errno != ECONNREFUSED)
            fail_errno(PROXY, "sending datagrams");
        if (n <= 0)
            return;
        association->next += (uint32_t)n;
        association->under_way += n;
        sent += (uint64_t)n;
    }
}

static bool is_answer(const struct association *association, int i)
{
    uint32_t number;
    if ((int)in_headers[i].msg_len != header_length + options.size)
        return false;
    memcpy(&number, in[i] + header_length, sizeof number);
    return number < association->next;
}

static void receive(struct association *association)
{
    int n;
    while ((n = recvmmsg(association->fd, in_headers, BATCH, 0, NULL)) > 0) {
        for (int i = 0; i < n; i++)
            *(is_answer(association, i) ? &answered : &strange) += 1;
        association->under_way = n < association->under_way ? association->under_way - n : 0;
        association->heard = now();
        if (n < BATCH)
            return;
    }
}

/* A window that nothing came back of for so long is lost, and the next is sent. */
static void give_up_silent(struct association *association, int64_t moment)
{
    if (!association->under_way || moment - association->heard < SILENCE_MS * SECOND / 1000)
        return;
    lost += (uint64_t)association->under_way;
    association->under_way = 0;
    association->heard = moment;
}

static void exchange(struct period *period, int poller)
{
    struct epoll_event events[MOST_EVENTS];
    while (period->phase != OVER) {
        if (period_turn(period))
            sent = answered = lost = strange = 0;
        int64_t moment = now();
        for (int i = 0; i < options.count; i++) {
            give_up_silent(&associations[i], moment);
            fill_window(&associations[i]);
        }
        int count = epoll_wait(poller, events, MOST_EVENTS, options.spin ? 0 : 10);
        for (int i = 0; i < count; i++)
            receive(events[i].data.ptr);
    }
}

static int watch_sockets(void)
{
    int poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0)
        fail_errno(OURS, "epoll_create1");
    for (int i = 0; i < options.count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &associations[i]};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, associations[i].fd, &event))
            fail_errno(OURS, "epoll_ctl");
    }
    return poller;
}

static void print(const struct period *period, struct cpu cpu)
{
    if (!answered)
        fail(PROXY, "not one datagram came back as it was sent");
    json_begin("datagrams");
    json_number("count", options.count);
    json_number("size", options.size);
    json_number("window", options.window);
    json_number("per_s", (double)answered / period->seconds);
    period_json(period, cpu, "cpu_us_per_echo", (double)answered, 1e-6);
    json_number("sent", (double)sent);
    json_number("answered", (double)answered);
    json_number("lost_percent", sent ? 100.0 * (double)lost / (double)sent : 0);
    json_number("strange", (double)strange);
    json_end();
}

static void close_all(void)
{
    for (int i = 0; i < options.count; i++) {
        close(associations[i].fd);
        tunnel_end(&associations[i].control);
    }
    free(associations);
}

void datagrams(void)
{
    if (!options.count || options.size < 4)
        fail(OURS, "datagrams need --count of at least 1 and --size of at least 4");
    open_all();
    prepare_batches();
    int poller = watch_sockets();
    struct period period = period_start();
    exchange(&period, poller);
    print(&period, period_cpu(&period));
    close(poller);
    close_all();
}
