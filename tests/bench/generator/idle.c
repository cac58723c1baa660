/* Idle: tunnels that carried one byte each and are held. How much memory do they take, in the proxy and in the kernel,
 * and what does the proxy do meanwhile? The kernel's figure is the machine's: it holds the sockets of generator and
 * target too, which a run without proxy tells, and all that others do meanwhile. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "clock.h"
#include "fail.h"
#include "json.h"
#include "modes.h"
#include "options.h"
#include "account.h"
#include "tunnel.h"

enum { PATIENCE = 30 /* seconds, for the echoes */ };

static void rest_for(double seconds)
{
    int64_t ns = in_ns(seconds);
    nanosleep(&(struct timespec){.tv_sec = ns / SECOND, .tv_nsec = ns % SECOND}, NULL);
}

static int take_echo(struct tunnel *tunnel)
{
    char byte;
    ssize_t n = recv(tunnel->fd, &byte, 1, 0);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n != 1)
        fail(PROXY, "tunnel %d broke: %s", tunnel->index, n ? strerror(errno) : "closed");
    tunnel_watch(tunnel, 0);
    return 1;
}

static void exchange_a_byte(struct tunnel *tunnels)
{
    struct epoll_event events[MOST_EVENTS];
    for (int i = 0; i < options.count; i++) {
        if (!tunnel_send(&tunnels[i], "x", 1))
            fail_errno(PROXY, "tunnel %d took no byte", i);
        tunnel_watch(&tunnels[i], EPOLLIN);
    }
    int64_t deadline = now() + PATIENCE * SECOND;
    for (int echoes = 0; echoes < options.count;) {
        int count = tunnel_wait(events, deadline);
        for (int i = 0; i < count; i++)
            echoes += take_echo(events[i].data.ptr);
        if (now() > deadline)
            fail(PROXY, "%d of %d tunnels answered within %d s", echoes, options.count, PATIENCE);
    }
}

static void print_proxy(struct memory before, struct memory after)
{
    json_number("pss0_kib", before.pss);
    json_number("rss0_kib", before.rss);
    json_number("pss_kib", after.pss);
    json_number("rss_kib", after.rss);
    json_number("processes", after.processes);
    json_number("threads", after.threads);
    json_number("descriptors", after.descriptors);
    if (!options.count)
        return;
    json_number("pss_b_per_tunnel", (after.pss - before.pss) * 1024 / options.count);
    json_number("rss_b_per_tunnel", (after.rss - before.rss) * 1024 / options.count);
    json_number("descriptors_per_tunnel", (double)(after.descriptors - before.descriptors) / options.count);
}

static void print_proxy_cpu(struct cpu at_start, struct cpu when_open, struct cpu at_end)
{
    if (options.count)
        json_number("cpu_us_per_open", (when_open.seconds - at_start.seconds) / options.count * 1e6);
    json_number("idle_cpu_share", (at_end.seconds - when_open.seconds) / options.seconds);
}

void idle(void)
{
    struct memory before = tree_memory();
    double kernel_before = kernel_memory();
    struct cpu at_start = tree_cpu();
    struct tunnel *tunnels = tunnels_open(options.count, ECHO_PORT);
    exchange_a_byte(tunnels);
    rest_for(options.warmup);
    struct cpu when_open = tree_cpu();
    struct memory after = tree_memory();
    double kernel_kib = kernel_memory() - kernel_before;
    rest_for(options.seconds);
    struct cpu at_end = tree_cpu();
    json_begin("idle");
    json_number("count", options.count);
    if (options.count)
        json_number("kernel_b_per_tunnel", kernel_kib * 1024 / options.count);
    if (options.tree_count) {
        print_proxy(before, after);
        print_proxy_cpu(at_start, when_open, at_end);
    }
    json_end();
    tunnels_close(tunnels, options.count);
}
