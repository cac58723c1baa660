/* Addresses on loopback, taken in turn: so many of them that no pair of ports is wanted again while it is in
 * TIME_WAIT. */
#ifndef BENCH_PLACE_H
#define BENCH_PLACE_H

#include <stdint.h>
#include <sys/socket.h>

/* Where the target listens: `port` counted from its base, on address `number` (0 is 127.0.0.1) or on ::1. */
struct sockaddr_storage place_of_target(int family, int number, int port);

/* The next target to connect to; for the echo port, the next of --echo-ports as well. */
struct sockaddr_storage place_next_target(int port);

/* Bind to the next address that clients come from, leaving the choice of the port to connect(2), which may then take
 * any that is free towards this very peer (IP_BIND_ADDRESS_NO_PORT). Without it 28,232 connections in TIME_WAIT are
 * the end. Returns 0, or -1 with errno. */
int place_bind_next_source(int fd);

socklen_t place_length(const struct sockaddr_storage *address);

#endif
