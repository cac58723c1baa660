/* The time that is measured: a warm-up, then a period between two looks at the clocks. */
#ifndef BENCH_PERIOD_H
#define BENCH_PERIOD_H

#include <stdbool.h>
#include <stdint.h>

#include "account.h"

enum phase { WARMING_UP, MEASURING, OVER };

struct period {
    enum phase phase;
    int64_t edge;  /* when the phase ends */
    int64_t began; /* to be measured */
    double seconds; /* measured; set at the end */
    struct cpu before;
    double own_before;
    double own_share; /* of one core, by the generator itself: near 1 it is the limit */
};

struct period period_start(void);

/* Look at the clock. True once, when measuring begins: what was counted so far is to be forgotten. */
bool period_turn(struct period *period);

/* Moments to which a loop may sleep. */
int64_t period_edge(const struct period *period);

/* The tree's processor time since measuring began. */
struct cpu period_cpu(const struct period *period);

/* Print seconds, generator_share, cpu_s, reaped_s and the cost of one unit under the name `key`, in `unit_s` seconds:
 * 1e-6 for microseconds. Nothing about the proxy where there is no tree. */
void period_json(const struct period *period, struct cpu cpu, const char *key, double units, double unit_s);

#endif
