#include "histogram.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"

/* Values below 128 ns have a range of their own. Above, each power of two is cut into 128 ranges. */
enum { FINE_BITS = 7, FINE = 1 << FINE_BITS, GREATEST_BIT = 41 /* 36 minutes; more is counted as that */ };
enum { RANGES = (GREATEST_BIT - FINE_BITS + 2) * FINE };

struct histogram {
    uint64_t count;
    int64_t max;
    uint64_t ranges[RANGES];
};

struct histogram *histogram_new(void)
{
    struct histogram *made = calloc(1, sizeof *made);
    if (!made)
        fail(OURS, "no memory for a histogram");
    return made;
}

void histogram_clear(struct histogram *histogram) { memset(histogram, 0, sizeof *histogram); }

void histogram_free(struct histogram *histogram) { free(histogram); }

static int range_of(uint64_t ns)
{
    if (ns < FINE)
        return (int)ns;
    int shift = 63 - __builtin_clzll(ns) - FINE_BITS;
    int range = (shift << FINE_BITS) + (int)(ns >> shift); /* the leading bit of ns >> shift counts as one more shift */
    return range < RANGES ? range : RANGES - 1;
}

static int64_t middle_of(int range)
{
    if (range < 2 * FINE)
        return range;
    int shift = (range >> FINE_BITS) - 1;
    int64_t least = (int64_t)(range - (shift << FINE_BITS)) << shift;
    return least + ((INT64_C(1) << shift) >> 1);
}

void histogram_add(struct histogram *histogram, int64_t ns)
{
    if (ns < 0)
        ns = 0;
    histogram->count++;
    histogram->ranges[range_of((uint64_t)ns)]++;
    if (ns > histogram->max)
        histogram->max = ns;
}

uint64_t histogram_count(const struct histogram *histogram) { return histogram->count; }

int64_t histogram_max(const struct histogram *histogram) { return histogram->max; }

int64_t histogram_quantile(const struct histogram *histogram, double quantile)
{
    uint64_t wanted = (uint64_t)ceil(quantile * (double)histogram->count), seen = 0;
    if (wanted == 0)
        wanted = 1;
    for (int range = 0; range < RANGES; range++) {
        seen += histogram->ranges[range];
        if (seen >= wanted) {
            int64_t middle = middle_of(range);
            return middle < histogram->max ? middle : histogram->max;
        }
    }
    return 0;
}
