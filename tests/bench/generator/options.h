/* The command line: what to do, through whom, towards whom, for how long. */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum direction { UP = 1, DOWN = 2, BOTH = 3 };

/* Ports of the target, counted from its base port. Echo is on the base port and on those from MORE_ECHOES on. */
enum { ECHO_PORT = 0, SINK_PORT = 1, SOURCE_PORT = 2, TALLY_PORT = 3, MORE_ECHOES = 4 };

enum { MOST_TREES = 16 };

struct options {
    bool direct;                   /* no proxy: connect to the target itself */
    struct sockaddr_storage proxy;
    const char *user, *password;   /* NULL: the method "no authentication" */
    const char *name;              /* NULL: the target is asked for by address */
    int family;                    /* of the target's address: 4 or 6 */
    int port;                      /* the target's base port */
    int targets;                   /* its IPv4 addresses: 127.0.0.1 and so on */
    int echo_ports;                /* its echo ports; connections go round them */
    int tally;                     /* port at which a target tells what it received; 0: not asked */
    int sources;                   /* IPv4 addresses that clients connect from, 127.1.0.1 and so on; 0: not bound */
    int count;                     /* connections, tunnels, streams or associations at once */
    double seconds, warmup;
    double rate;                   /* a second; 0: as fast as answers come */
    int size;                      /* of a message or datagram, in bytes */
    int window;                    /* datagrams under way in each association */
    enum direction direction;
    bool copy;                     /* receivers copy what they get; otherwise the kernel throws it away */
    bool sendfile;                 /* senders use sendfile(2) */
    bool optimistic;               /* greeting, login and request in one segment */
    bool half_close;               /* after the echo: shut down, wait for the end of the other side */
    bool reset;                    /* end by a reset */
    bool spin;                     /* never sleep in epoll_wait */
    pid_t trees[MOST_TREES];       /* processes that are accounted, with all their descendants */
    int tree_count;
    const char *label;
};

extern struct options options;

/* Read what follows the mode; a fault ends the program and is told. */
void options_read(int argc, char **argv);

#endif
