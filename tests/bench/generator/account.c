#include "account.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fail.h"
#include "options.h"

struct process {
    pid_t id, parent;
    double reaped; /* seconds of its children that have ended */
    bool ours;
};

struct list {
    struct process *rows;
    int count, room;
};

/* Read a small file of /proc; false when its process is gone. */
static bool read_proc(char *text, size_t room, const char *format, ...) __attribute__((format(printf, 3, 4)));
static bool read_proc(char *text, size_t room, const char *format, ...)
{
    char path[64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path, sizeof path, format, arguments);
    va_end(arguments);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t got = 0;
    ssize_t n = 0;
    while (got < room - 1 && (n = read(fd, text + got, room - 1 - got)) > 0)
        got += (size_t)n;
    close(fd);
    text[got] = 0;
    return n >= 0 && got > 0;
}

/* proc(5): after the command in brackets, which may hold anything, come state, parent and, as 16th and 17th of all
 * fields, the ticks of children that were waited for. */
static bool read_stat(pid_t id, struct process *process)
{
    char text[1024];
    if (!read_proc(text, sizeof text, "/proc/%d/stat", id))
        return false;
    const char *rest = strrchr(text, ')');
    int parent;
    long user, system;
    static const char format[] = " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %ld %ld";
    if (!rest || sscanf(rest + 1, format, &parent, &user, &system) != 3)
        return false;
    double reaped = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
    *process = (struct process){.id = id, .parent = parent, .reaped = reaped};
    return true;
}

static void add(struct list *list, struct process process)
{
    if (list->count == list->room) {
        list->room = list->room ? 2 * list->room : 256;
        list->rows = realloc(list->rows, (size_t)list->room * sizeof *list->rows);
        if (!list->rows)
            fail(OURS, "no memory for the list of processes");
    }
    list->rows[list->count++] = process;
}

static struct list all_processes(void)
{
    struct list list = {0};
    DIR *proc = opendir("/proc");
    if (!proc)
        fail_errno(OURS, "/proc");
    for (struct dirent *entry; (entry = readdir(proc));) {
        struct process process;
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && read_stat(atoi(entry->d_name), &process))
            add(&list, process);
    }
    closedir(proc);
    return list;
}

/* Mark those named, then children of marked ones until there are no more. */
static void mark_ours(struct list *list)
{
    for (int named = 0; named < options.tree_count; named++) {
        bool found = false;
        for (int i = 0; i < list->count; i++)
            if (list->rows[i].id == options.trees[named])
                list->rows[i].ours = found = true;
        if (!found)
            fail(PROXY, "process %d has ended", options.trees[named]);
    }
    for (bool more = true; more;) {
        more = false;
        for (int i = 0; i < list->count; i++)
            for (int j = 0; j < list->count && !list->rows[i].ours; j++)
                if (list->rows[j].ours && list->rows[i].parent == list->rows[j].id)
                    list->rows[i].ours = more = true;
    }
}

static struct list tree(void)
{
    struct list all = all_processes(), ours = {0};
    mark_ours(&all);
    for (int i = 0; i < all.count; i++)
        if (all.rows[i].ours)
            add(&ours, all.rows[i]);
    free(all.rows);
    return ours;
}

struct cpu tree_cpu(void)
{
    struct cpu sum = {0};
    if (!options.tree_count)
        return sum;
    struct list list = tree();
    for (int i = 0; i < list.count; i++) {
        clockid_t clock;
        struct timespec t;
        sum.reaped += list.rows[i].reaped;
        if (clock_getcpuclockid(list.rows[i].id, &clock) == 0 && clock_gettime(clock, &t) == 0)
            sum.seconds += (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
    }
    free(list.rows);
    sum.seconds += sum.reaped;
    return sum;
}

/* The number behind `key` in a text of lines such as "Pss:   1234 kB"; 0 where it is not. */
static double field(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    return at ? strtod(at + strlen(key), NULL) : 0;
}

static int count_descriptors(pid_t id)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", id);
    DIR *directory = opendir(path);
    if (!directory)
        return 0;
    int count = -2; /* "." and ".." */
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static void add_memory(struct memory *sum, pid_t id)
{
    char text[8192];
    errno = 0;
    if (!read_proc(text, sizeof text, "/proc/%d/smaps_rollup", id)) {
        if (errno == EACCES || errno == EPERM)
            fail_errno(OURS, "the memory of process %d cannot be read; run as its user or as root", id);
        return; /* it has ended meanwhile */
    }
    sum->processes++;
    sum->pss += field(text, "\nPss:");
    sum->rss += field(text, "\nRss:");
    sum->descriptors += count_descriptors(id);
    if (read_proc(text, sizeof text, "/proc/%d/status", id))
        sum->threads += (int)field(text, "\nThreads:");
}

struct memory tree_memory(void)
{
    struct memory sum = {0};
    if (!options.tree_count)
        return sum;
    struct list list = tree();
    for (int i = 0; i < list.count; i++)
        add_memory(&sum, list.rows[i].id);
    free(list.rows);
    return sum;
}

double kernel_memory(void)
{
    char text[8192];
    if (!read_proc(text, sizeof text, "/proc/meminfo"))
        fail_errno(OURS, "/proc/meminfo");
    return field(text, "\nSUnreclaim:") + field(text, "\nKernelStack:") + field(text, "\nPageTables:");
}

double own_cpu(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
