/* Echoes: what one end of a connection has received and not sent back yet. */
#ifndef BENCH_ECHO_H
#define BENCH_ECHO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct echo {
    char *bytes; /* owned; NULL when nothing waits */
    size_t length, sent;
};

static inline bool echo_waits(const struct echo *echo) { return echo->bytes != NULL; }

/* Receive and send back once, or go on sending what waits. False when the connection is over. */
bool echo_step(struct echo *echo, int fd, uint64_t *received);

void echo_clear(struct echo *echo);

/* Send back a batch of datagrams. */
void echo_datagrams(int fd);

#endif
