/* Connections: handshake, one byte there and back, close. The latency is that from the first packet (or from the
 * moment at which it was due, where there is a rate) to the echo. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "clock.h"
#include "fail.h"
#include "json.h"
#include "modes.h"
#include "options.h"
#include "period.h"
#include "tunnel.h"

enum { DRAIN_SECONDS = 2, SETTLE_MS = 200, RETRY_MS = 1 };

static struct tunnel *tunnels;
static struct tunnel **resting; /* a stack of those that are closed */
static int rested;
static struct histogram *latencies;
static uint64_t succeeded, failed;
static char first_trouble[160];
static int64_t due; /* when the next one is to begin */

static void rest(struct tunnel *tunnel)
{
    tunnel_end(tunnel);
    resting[rested++] = tunnel;
}

static void fault(struct tunnel *tunnel, const char *trouble)
{
    if (!failed++)
        snprintf(first_trouble, sizeof first_trouble, "%s", trouble);
    rest(tunnel);
}

static void success(struct tunnel *tunnel)
{
    succeeded++;
    rest(tunnel);
}

/* Begin all that rest or, at a rate, those that are due. False: this machine could not, for now. */
static bool begin_due(void)
{
    while (rested) {
        int64_t moment = now();
        if (options.rate > 0 && moment < due)
            break;
        struct tunnel *tunnel = resting[--rested];
        if (!tunnel_begin(tunnel, CONNECT, ECHO_PORT)) {
            fault(tunnel, tunnel_trouble());
            return false;
        }
        if (options.rate > 0) {
            tunnel->began = due;
            due += in_ns(1 / options.rate);
        }
    }
    return true;
}

static void opened(struct tunnel *tunnel)
{
    if (!tunnel_send(tunnel, "x", 1)) {
        fault(tunnel, "the byte could not be sent");
        return;
    }
    tunnel_watch(tunnel, EPOLLIN);
}

static void echoed(struct tunnel *tunnel)
{
    histogram_add(latencies, now() - tunnel->began);
    if (!options.half_close) {
        success(tunnel);
        return;
    }
    tunnel->bytes = 1;
    shutdown(tunnel->fd, SHUT_WR);
}

static void readable(struct tunnel *tunnel)
{
    char bytes[8];
    ssize_t n = recv(tunnel->fd, bytes, sizeof bytes, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n == 1 && !tunnel->bytes && bytes[0] == 'x')
        echoed(tunnel);
    else if (n == 0 && tunnel->bytes)
        success(tunnel);
    else if (n < 0)
        fault(tunnel, strerror(errno));
    else
        fault(tunnel, n ? "more or other bytes than were sent" : "closed before the echo");
}

static void handle(struct tunnel *tunnel)
{
    if (tunnel->stage == OPEN) {
        readable(tunnel);
        return;
    }
    switch (tunnel_advance(tunnel)) {
    case OPENED: opened(tunnel); break;
    case BROKEN: fault(tunnel, tunnel_trouble()); break;
    case PENDING: break;
    }
}

static void handle_events(int64_t until)
{
    struct epoll_event events[MOST_EVENTS];
    int count = tunnel_wait(events, until);
    for (int i = 0; i < count; i++)
        handle(events[i].data.ptr);
}

static int64_t sleep_until(const struct period *period, bool could_begin)
{
    int64_t until = period_edge(period);
    if (!could_begin && now() + RETRY_MS * SECOND / 1000 < until)
        until = now() + RETRY_MS * SECOND / 1000;
    if (options.rate > 0 && rested && due < until)
        until = due;
    return until;
}

/* Connections that are under way at the end are seen through, so that the time spent on them is that of connections
 * which are counted; then the proxy is given a moment to close its side. */
static void see_through(void)
{
    int64_t deadline = now() + DRAIN_SECONDS * SECOND;
    while (rested < options.count && now() < deadline)
        handle_events(deadline);
    nanosleep(&(struct timespec){.tv_nsec = SETTLE_MS * 1000000L}, NULL);
}

static void print(const struct period *period, uint64_t within, int unfinished)
{
    struct cpu cpu = period_cpu(period);
    if (!succeeded)
        fail(PROXY, "not one connection succeeded: %s", failed ? first_trouble : "no answer");
    json_begin("connections");
    json_number("count", options.count);
    json_number("per_s", (double)within / period->seconds);
    period_json(period, cpu, "cpu_us_per_connection", (double)succeeded, 1e-6);
    json_latencies(latencies);
    json_number("succeeded", (double)succeeded);
    json_number("failed", (double)failed);
    json_number("unfinished", unfinished);
    if (failed)
        json_text("first_failure", first_trouble);
    json_end();
}

static void prepare(void)
{
    if (!options.count)
        fail(OURS, "--count: connections need at least 1");
    tunnels = calloc((size_t)options.count, sizeof *tunnels);
    resting = calloc((size_t)options.count, sizeof(struct tunnel *));
    latencies = histogram_new();
    if (!tunnels || !resting)
        fail(OURS, "no memory for %d connections", options.count);
    for (int i = 0; i < options.count; i++) {
        tunnels[i].fd = -1;
        resting[rested++] = &tunnels[i];
    }
    due = now();
}

void connections(void)
{
    prepare();
    struct period period = period_start();
    while (period.phase != OVER) {
        if (period_turn(&period)) {
            succeeded = failed = 0;
            histogram_clear(latencies);
        }
        bool could_begin = begin_due();
        handle_events(sleep_until(&period, could_begin));
    }
    uint64_t within = succeeded;
    see_through();
    int unfinished = options.count - rested;
    tunnels_close(tunnels, options.count);
    print(&period, within, unfinished);
    free(resting);
    histogram_free(latencies);
}
