#include "payload.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fail.h"
#include "options.h"

enum { FILE_SIZE = 4 * 1024 * 1024 };

static char chunk[CHUNK];

static int file(void)
{
    static int fd = -1;
    if (fd >= 0)
        return fd;
    fd = memfd_create("payload", MFD_CLOEXEC);
    if (fd < 0)
        fail_errno(OURS, "memfd_create");
    memset(chunk, 'x', sizeof chunk);
    for (int written = 0; written < FILE_SIZE; written += CHUNK)
        if (write(fd, chunk, CHUNK) != CHUNK)
            fail_errno(OURS, "writing the payload's file");
    return fd;
}

ssize_t payload_send(int fd)
{
    if (!options.sendfile)
        return send(fd, chunk, sizeof chunk, MSG_NOSIGNAL);
    off_t start = 0;
    return sendfile(fd, file(), &start, FILE_SIZE);
}

ssize_t payload_receive(int fd)
{
    static char received[CHUNK];
    return recv(fd, received, sizeof received, options.copy ? 0 : MSG_TRUNC);
}
