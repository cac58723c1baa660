/* Bulk: streams at full speed. Bytes are counted where they arrive: downwards here, upwards at the target, which tells
 * its count on a port of its own (--tally); without that port those that were sent count, buffers and all. */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "fail.h"
#include "json.h"
#include "modes.h"
#include "options.h"
#include "payload.h"
#include "period.h"
#include "tunnel.h"

static uint64_t sent, received;

static uint64_t ask_tally(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.tally)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    uint64_t count;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
        fail_errno(OURS, "the target's tally on port %d", options.tally);
    if (recv(fd, &count, sizeof count, MSG_WAITALL) != sizeof count)
        fail(OURS, "the target's tally on port %d gave no number", options.tally);
    close(fd);
    return be64toh(count);
}

static uint64_t arrived(void)
{
    if (options.direction != UP)
        return received;
    return options.tally ? ask_tally() : sent;
}

static void stop_at(const struct tunnel *tunnel, ssize_t n)
{
    if (n == 0)
        fail(PROXY, "stream %d was closed", tunnel->index);
    if (errno != EAGAIN)
        fail_errno(PROXY, "stream %d broke", tunnel->index);
}

static void receive(struct tunnel *tunnel)
{
    for (int turn = 0; turn < TURNS; turn++) {
        ssize_t n = payload_receive(tunnel->fd);
        if (n <= 0) {
            stop_at(tunnel, n);
            return;
        }
        received += (uint64_t)n;
    }
}

static void push(struct tunnel *tunnel)
{
    for (int turn = 0; turn < TURNS; turn++) {
        ssize_t n = payload_send(tunnel->fd);
        if (n <= 0) {
            stop_at(tunnel, n);
            return;
        }
        sent += (uint64_t)n;
    }
}

static uint64_t move(struct period *period)
{
    struct epoll_event events[MOST_EVENTS];
    uint64_t before = 0;
    while (period->phase != OVER) {
        if (period_turn(period))
            before = arrived();
        int count = tunnel_wait(events, period_edge(period));
        for (int i = 0; i < count; i++) {
            if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
                receive(events[i].data.ptr);
            if (events[i].events & EPOLLOUT)
                push(events[i].data.ptr);
        }
    }
    return arrived() - before;
}

static void print(const struct period *period, struct cpu cpu, uint64_t bytes)
{
    static const char *const names[] = {[UP] = "up", [DOWN] = "down", [BOTH] = "both"};
    if (!bytes)
        fail(PROXY, "not one byte arrived");
    json_begin("bulk");
    json_text("direction", names[options.direction]);
    json_number("count", options.count);
    json_number("gb_per_s", (double)bytes / period->seconds / 1e9);
    period_json(period, cpu, "cpu_s_per_gb", (double)bytes / 1e9, 1);
    json_number("bytes", (double)bytes);
    json_end();
}

void bulk(void)
{
    static const int ports[] = {[UP] = SINK_PORT, [DOWN] = SOURCE_PORT, [BOTH] = ECHO_PORT};
    if (!options.count)
        fail(OURS, "--count: bulk needs at least 1");
    struct tunnel *streams = tunnels_open(options.count, ports[options.direction]);
    uint32_t interest = (options.direction & UP ? EPOLLOUT : 0u) | (options.direction & DOWN ? EPOLLIN : 0u);
    for (int i = 0; i < options.count; i++)
        tunnel_watch(&streams[i], interest);
    struct period period = period_start();
    uint64_t bytes = move(&period);
    print(&period, period_cpu(&period), bytes);
    tunnels_close(streams, options.count);
}
