#include "period.h"

#include "clock.h"
#include "json.h"
#include "options.h"

struct period period_start(void)
{
    return (struct period){.phase = WARMING_UP, .edge = now() + in_ns(options.warmup)};
}

static void begin(struct period *period)
{
    period->phase = MEASURING;
    period->before = tree_cpu();
    period->own_before = own_cpu();
    period->began = now();
    period->edge = period->began + in_ns(options.seconds);
}

static void finish(struct period *period)
{
    period->phase = OVER;
    period->seconds = in_seconds(now() - period->began);
    period->own_share = (own_cpu() - period->own_before) / period->seconds;
}

bool period_turn(struct period *period)
{
    if (period->phase == OVER || now() < period->edge)
        return false;
    if (period->phase == MEASURING) {
        finish(period);
        return false;
    }
    begin(period);
    return true;
}

int64_t period_edge(const struct period *period) { return period->edge; }

struct cpu period_cpu(const struct period *period)
{
    struct cpu after = tree_cpu();
    return (struct cpu){after.seconds - period->before.seconds, after.reaped - period->before.reaped};
}

void period_json(const struct period *period, struct cpu cpu, const char *key, double units, double unit_s)
{
    json_number("seconds", period->seconds);
    json_number("generator_share", period->own_share);
    if (!options.tree_count)
        return;
    json_number("cpu_s", cpu.seconds);
    json_number("reaped_s", cpu.reaped);
    json_number(key, cpu.seconds / units / unit_s);
}
