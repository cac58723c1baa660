/* A client's connection through the proxy, from its first packet to an open tunnel. */
#ifndef BENCH_TUNNEL_H
#define BENCH_TUNNEL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "socks.h"

enum stage { CLOSED, CONNECTING, METHOD, LOGIN, REQUEST, OPEN };
enum progress { PENDING, OPENED, BROKEN };

struct tunnel {
    int fd; /* -1 when CLOSED; owned by the tunnel */
    enum stage stage;
    enum command command;
    int port;          /* of the target, counted from its base port */
    unsigned turn;     /* whose addresses it has */
    uint32_t interest; /* what epoll was told to wait for */
    int got, need;     /* bytes of the reply that is being read */
    uint8_t reply[LONGEST_REPLY];
    /* For who uses it: */
    int index;
    int64_t began; /* when it was begun, or had to be */
    int64_t asked; /* when the last message was sent */
    int64_t bytes; /* received of the message under way */
};

/* One epoll instance for all of them. */
enum { MOST_EVENTS = 256 };
int tunnel_wait(struct epoll_event *events, int64_t until); /* `until`: moment; returns how many */

/* Begin to connect. False: this machine could not, and tunnel_trouble() says why. */
bool tunnel_begin(struct tunnel *tunnel, enum command command, int port);

/* Go on after an event, as far as it goes. After BROKEN tunnel_trouble() says why; the descriptor is still open. */
enum progress tunnel_advance(struct tunnel *tunnel);
const char *tunnel_trouble(void);

void tunnel_watch(struct tunnel *tunnel, uint32_t interest);

/* Send a whole small message. False: the tunnel is broken, or its buffer full. */
bool tunnel_send(struct tunnel *tunnel, const void *bytes, int length);

void tunnel_end(struct tunnel *tunnel);

/* Open `count` tunnels, 64 at a time; a failure ends the program. Nothing is watched then. */
struct tunnel *tunnels_open(int count, int port);
void tunnels_close(struct tunnel *tunnels, int count);

#endif
