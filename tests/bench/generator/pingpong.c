/* Ping-pong: each tunnel sends its next message when the answer to the last is there. It measures a round trip and its
 * cost; it is blind to stalls, for which messages.c is made. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "clock.h"
#include "fail.h"
#include "json.h"
#include "modes.h"
#include "options.h"
#include "period.h"
#include "tunnel.h"

static uint8_t message[65536], answer[65536];
static struct histogram *latencies;

static void send_message(struct tunnel *tunnel)
{
    if (!tunnel_send(tunnel, message, options.size))
        fail_errno(PROXY, "tunnel %d took no message", tunnel->index);
}

static void receive(struct tunnel *tunnel)
{
    ssize_t n = recv(tunnel->fd, answer, sizeof answer, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        fail(PROXY, "tunnel %d broke: %s", tunnel->index, n ? strerror(errno) : "closed");
    tunnel->bytes += n;
    if (tunnel->bytes < options.size)
        return;
    if (tunnel->bytes > options.size)
        fail(PROXY, "tunnel %d gave more bytes than were sent", tunnel->index);
    int64_t moment = now();
    histogram_add(latencies, moment - tunnel->asked);
    tunnel->bytes = 0;
    tunnel->asked = moment;
    send_message(tunnel);
}

static void start(struct tunnel *tunnels)
{
    for (int i = 0; i < options.count; i++) {
        tunnel_watch(&tunnels[i], EPOLLIN);
        tunnels[i].asked = now();
        send_message(&tunnels[i]);
    }
}

static void exchange(struct period *period)
{
    struct epoll_event events[MOST_EVENTS];
    while (period->phase != OVER) {
        if (period_turn(period))
            histogram_clear(latencies);
        int count = tunnel_wait(events, period_edge(period));
        for (int i = 0; i < count; i++)
            receive(events[i].data.ptr);
    }
}

void pingpong(void)
{
    if (!options.count)
        fail(OURS, "--count: ping-pong needs at least 1");
    latencies = histogram_new();
    struct tunnel *tunnels = tunnels_open(options.count, ECHO_PORT);
    start(tunnels);
    struct period period = period_start();
    exchange(&period);
    double done = (double)histogram_count(latencies);
    struct cpu cpu = period_cpu(&period);
    if (!done)
        fail(PROXY, "not one message came back");
    json_begin("pingpong");
    json_number("count", options.count);
    json_number("size", options.size);
    json_number("per_s", done / period.seconds);
    period_json(&period, cpu, "cpu_us_per_round_trip", done, 1e-6);
    json_latencies(latencies);
    json_end();
    tunnels_close(tunnels, options.count);
    histogram_free(latencies);
}
