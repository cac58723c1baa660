/* Many processes of many threads connect at once, each to a target of its own; whoever is connected to another is counted.
 *
 *   crowd PROCESSES THREADS CONNECTIONS
 *
 * Every target answers with "ADDRESS PORT\n" of itself. Each second connection is non-blocking. One line: how many were
 * right, how many failed, how many had another peer than they asked for, how many heard another one.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE = 60, MOST_THREADS = 64 };

static struct totals {
    atomic_int right, failed, other_peer, other_voice;
} *totals; /* shared by all processes */
static int connections;

static int dial(int sock, const struct sockaddr_in *to) {
    struct timeval limit = {PATIENCE, 0};
    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(sock, (const struct sockaddr *)to, sizeof *to) == 0) return 0;
    if (errno != EINPROGRESS) return errno;
    struct pollfd one = {sock, POLLOUT, 0};
    int error = ETIMEDOUT;
    socklen_t size = sizeof error;
    if (poll(&one, 1, PATIENCE * 1000) == 1) getsockopt(sock, SOL_SOCKET, SO_ERROR, &error, &size);
    fcntl(sock, F_SETFL, 0);
    return error;
}

static void hear(int sock, char *text, size_t size) {
    size_t have = 0;
    while (have < size - 1 && read(sock, text + have, 1) == 1 && text[have] != '\n') have++;
    text[have] = 0;
}

static void one(int process, int thread, int number) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(10000 + process * 100 + thread)}, peer = {0};
    char address[40], expected[64], heard[64];
    socklen_t size = sizeof peer;
    snprintf(address, sizeof address, "203.0.%d.%d", number / 250, 1 + number % 250);
    inet_pton(AF_INET, address, &to.sin_addr);
    snprintf(expected, sizeof expected, "%s %d", address, ntohs(to.sin_port));
    int sock = socket(AF_INET, SOCK_STREAM | (number % 2 ? SOCK_NONBLOCK : 0), 0);
    if (sock < 0 || dial(sock, &to)) {
        totals->failed++;
    } else if (getpeername(sock, (struct sockaddr *)&peer, &size) || peer.sin_addr.s_addr != to.sin_addr.s_addr ||
               peer.sin_port != to.sin_port) {
        totals->other_peer++;
    } else {
        hear(sock, heard, sizeof heard);
        if (strcmp(heard, expected)) totals->other_voice++;
        else totals->right++;
    }
    close(sock);
}

struct place {
    int process, thread;
};

static void *work(void *given) {
    struct place *place = given;
    for (int i = 0; i < connections; i++) one(place->process, place->thread, i);
    return NULL;
}

static void run_process(int process, int threads) {
    pthread_t ids[MOST_THREADS];
    struct place places[MOST_THREADS];
    for (int i = 0; i < threads; i++) {
        places[i] = (struct place){process, i};
        if (pthread_create(ids + i, NULL, work, places + i)) _exit(1);
    }
    for (int i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    _exit(0);
}

int main(int count, char **words) {
    if (count != 4 || atoi(words[2]) > MOST_THREADS) return 2;
    int processes = atoi(words[1]), threads = atoi(words[2]), status, failed = 0;
    connections = atoi(words[3]);
    totals = mmap(NULL, sizeof *totals, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < processes; i++)
        if (fork() == 0) run_process(i, threads);
    while (wait(&status) > 0) failed |= status;
    printf("%d right, %d failed, %d other peers, %d other voices\n", totals->right, totals->failed,
           totals->other_peer, totals->other_voice);
    return failed != 0;
}
