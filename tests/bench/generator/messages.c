/* Messages on a schedule: message k is due at k / rate, through the tunnels in turn, whether or not the answers before
 * it have come. Its latency counts from the moment at which it was due, so that a stall is felt by all messages that
 * fell into it (a closed loop would send none of them, and show one slow answer). The generator's own lateness is part
 * of it and is told beside it. */
#include <errno.h>
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

enum { UNDER_WAY = 4096 /* in one tunnel; it is no longer a schedule if more would be */, DRAIN_SECONDS = 2 };

/* When the messages under way in one tunnel were due, the oldest first. */
struct queue {
    int64_t due[UNDER_WAY];
    unsigned head, tail;
};

static uint8_t message[65536], answers[65536];
static struct queue *queues;
static struct histogram *latencies, *lags;
static uint64_t sent, unsent;

static unsigned length_of(const struct queue *queue) { return queue->tail - queue->head; }

static void send_due(struct tunnel *tunnel, int64_t due)
{
    struct queue *queue = &queues[tunnel->index];
    if (length_of(queue) == UNDER_WAY || !tunnel_send(tunnel, message, options.size)) {
        unsent++;
        return;
    }
    queue->due[queue->tail++ % UNDER_WAY] = due;
    histogram_add(lags, now() - due);
    sent++;
}

static void receive(struct tunnel *tunnel)
{
    struct queue *queue = &queues[tunnel->index];
    ssize_t n = recv(tunnel->fd, answers, sizeof answers, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        fail(PROXY, "tunnel %d broke: %s", tunnel->index, n ? strerror(errno) : "closed");
    int64_t moment = now();
    for (tunnel->bytes += n; tunnel->bytes >= options.size; tunnel->bytes -= options.size) {
        if (!length_of(queue))
            fail(PROXY, "tunnel %d gave more bytes than were sent", tunnel->index);
        histogram_add(latencies, moment - queue->due[queue->head++ % UNDER_WAY]);
    }
}

static void receive_until(int64_t moment)
{
    struct epoll_event events[MOST_EVENTS];
    int count = tunnel_wait(events, moment);
    for (int i = 0; i < count; i++)
        receive(events[i].data.ptr);
}

static uint64_t under_way(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < options.count; i++)
        sum += length_of(&queues[i]);
    return sum;
}

static void forget(void)
{
    sent = unsent = 0;
    histogram_clear(latencies);
    histogram_clear(lags);
}

/* Send what was due within the period, late as it may be, and wait for what has not come back. */
static void follow_schedule(struct tunnel *tunnels, struct period *period)
{
    const double step = 1e9 / options.rate;
    const int64_t start = now();
    for (uint64_t k = 0;;) {
        int64_t due = start + (int64_t)((double)k * step);
        if (period_turn(period))
            forget();
        if (period->phase == OVER && due >= period_edge(period))
            break;
        if (now() >= due) {
            send_due(&tunnels[k++ % (uint64_t)options.count], due);
            receive_until(now()); /* a late sender must not keep answers waiting */
        } else {
            receive_until(due < period_edge(period) ? due : period_edge(period));
        }
    }
    for (int64_t deadline = now() + DRAIN_SECONDS * SECOND; under_way() && now() < deadline;)
        receive_until(deadline);
}

static void print(const struct period *period, struct cpu cpu)
{
    double answered = (double)histogram_count(latencies);
    if (!answered)
        fail(PROXY, "not one message came back");
    json_begin("messages");
    json_number("count", options.count);
    json_number("size", options.size);
    json_number("rate", options.rate);
    json_number("per_s", (double)sent / period->seconds);
    period_json(period, cpu, "cpu_us_per_message", answered, 1e-6);
    json_latencies(latencies);
    json_number("lag_p50_us", in_us(histogram_quantile(lags, 0.5)));
    json_number("lag_p99_us", in_us(histogram_quantile(lags, 0.99)));
    json_number("sent", (double)sent);
    json_number("unsent", (double)unsent);
    json_number("answered", answered);
    json_number("unanswered", (double)under_way());
    json_end();
}

void messages(void)
{
    if (!options.count || options.rate <= 0)
        fail(OURS, "messages need --count and --rate above 0");
    latencies = histogram_new();
    lags = histogram_new();
    queues = calloc((size_t)options.count, sizeof *queues);
    if (!queues)
        fail(OURS, "no memory for %d tunnels", options.count);
    struct tunnel *tunnels = tunnels_open(options.count, ECHO_PORT);
    for (int i = 0; i < options.count; i++)
        tunnel_watch(&tunnels[i], EPOLLIN);
    struct period period = period_start();
    follow_schedule(tunnels, &period);
    print(&period, period_cpu(&period));
    tunnels_close(tunnels, options.count);
    free(queues);
    histogram_free(latencies);
    histogram_free(lags);
}
