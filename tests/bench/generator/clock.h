/* Time: monotonic nanoseconds since some moment, which is enough for all that is measured here. */
#ifndef BENCH_CLOCK_H
#define BENCH_CLOCK_H

#include <stdint.h>
#include <time.h>

#define SECOND INT64_C(1000000000)

static inline int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static inline int64_t in_ns(double seconds) { return (int64_t)(seconds * 1e9); }
static inline double in_seconds(int64_t ns) { return (double)ns / 1e9; }
static inline double in_us(int64_t ns) { return (double)ns / 1e3; }

#endif
