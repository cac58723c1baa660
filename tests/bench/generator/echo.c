#include "echo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "fail.h"

enum { BUFFER = 256 * 1024, BATCH = 64, LONGEST_DATAGRAM = 65536 };

static bool go_on_sending(struct echo *echo, int fd)
{
    ssize_t n = send(fd, echo->bytes + echo->sent, echo->length - echo->sent, MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN;
    echo->sent += (size_t)n;
    if (echo->sent == echo->length)
        echo_clear(echo);
    return true;
}

static bool keep(struct echo *echo, const char *bytes, size_t length)
{
    *echo = (struct echo){.bytes = malloc(length), .length = length};
    if (!echo->bytes)
        fail(OURS, "no memory for an echo");
    memcpy(echo->bytes, bytes, length);
    return true;
}

bool echo_step(struct echo *echo, int fd, uint64_t *received)
{
    static char buffer[BUFFER];
    if (echo_waits(echo))
        return go_on_sending(echo, fd);
    ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    *received += (uint64_t)got;
    ssize_t put = send(fd, buffer, (size_t)got, MSG_NOSIGNAL);
    if (put < 0 && errno != EAGAIN)
        return false;
    if (put < 0)
        put = 0;
    return put == got || keep(echo, buffer + put, (size_t)(got - put));
}

void echo_clear(struct echo *echo)
{
    free(echo->bytes);
    *echo = (struct echo){0};
}

void echo_datagrams(int fd)
{
    static char bytes[BATCH][LONGEST_DATAGRAM];
    static struct sockaddr_storage peers[BATCH];
    struct mmsghdr headers[BATCH];
    struct iovec parts[BATCH];
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){bytes[i], LONGEST_DATAGRAM};
        headers[i].msg_hdr = (struct msghdr){
            .msg_name = &peers[i], .msg_namelen = sizeof peers[i], .msg_iov = &parts[i], .msg_iovlen = 1};
    }
    int count = recvmmsg(fd, headers, BATCH, 0, NULL);
    for (int i = 0; i < count; i++)
        parts[i].iov_len = headers[i].msg_len;
    if (count > 0)
        sendmmsg(fd, headers, (unsigned)count, 0); /* what finds no room is lost, as datagrams are */
}
