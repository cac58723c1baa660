/* Bytes to send in bulk, and two ways to send them. */
#ifndef BENCH_PAYLOAD_H
#define BENCH_PAYLOAD_H

#include <sys/types.h>

enum { CHUNK = 256 * 1024, TURNS = 4 /* chunks for one stream before the next has its turn */ };

/* Send up to a chunk (with --sendfile: up to 4 MiB) as send(2) does. */
ssize_t payload_send(int fd);

/* Receive up to a chunk as recv(2) does; without --copy the kernel throws the bytes away (MSG_TRUNC, tcp(7)), so that
 * the receiver is not the limit. */
ssize_t payload_receive(int fd);

#endif
