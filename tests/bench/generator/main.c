/* The generator of `make bench`: load, the other end of it, and what the proxy between them costs. README.md tells
 * modes and options; one run prints one JSON object. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "fail.h"
#include "modes.h"
#include "options.h"

static const struct {
    const char *name;
    void (*run)(void);
} modes[] = {
    {"connections", connections}, {"pingpong", pingpong},   {"messages", messages}, {"bulk", bulk},
    {"idle", idle},               {"datagrams", datagrams}, {"target", target},
    {"look", look},               {"quantiles", quantiles},
};

static void (*mode_named(const char *name))(void)
{
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (strcmp(modes[i].name, name) == 0)
            return modes[i].run;
    fail(OURS, "%s: no such mode; README.md tells them", name);
}

/* As many descriptors as we may have, and timers that are on time. */
static void take_what_is_allowed(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    prctl(PR_SET_TIMERSLACK, 1);
    signal(SIGPIPE, SIG_IGN); /* sendfile(2) has no MSG_NOSIGNAL */
}

enum { TARGET_LIFE = 3600 /* seconds, where --seconds does not say */ };

int main(int argc, char **argv)
{
    if (argc < 2)
        fail(OURS, "a mode is wanted; README.md tells them");
    void (*run)(void) = mode_named(argv[1]);
    if (run == target)
        options.seconds = TARGET_LIFE;
    options_read(argc - 1, argv + 1);
    take_what_is_allowed();
    run();
    return 0;
}
