/* Addresses on loopback, taken in turn: so many of them that no pair of ports is wanted again while it is in
 * TIME_WAIT. */
#ifndef BENCH_PLACE_H
#define BENCH_PLACE_H

#include <stdint.h>
#include <sys/socket.h>

/* Where the target listens: `port` counted from its base, on address `number` (0 is 127.0.0.1) or on ::1. */
struct sockaddr_storage place_of_target(int family, int number, int port);

/* A connection has one turn, by which it gets both its addresses: the same client asks for the same targets again and
 * again, as people do. Where the counts have no common divisor it takes the longest until a pair comes again. */
unsigned place_next_turn(void);

/* The target of a turn; for the echo port, one of --echo-ports as well. */
struct sockaddr_storage place_of_turn(unsigned turn, int port);

/* Bind to the address that the client of a turn comes from, leaving the choice of the port to connect(2), which may
 * then take any that is free towards this very peer (IP_BIND_ADDRESS_NO_PORT). Without it 28,232 connections in
 * TIME_WAIT are the end. Returns 0, or -1 with errno. */
int place_bind_source(int fd, unsigned turn);

socklen_t place_length(const struct sockaddr_storage *address);

#endif
