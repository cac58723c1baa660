/* Latencies: how many fell into each of some thousand ranges, none wider than 1/128 of its values. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

struct histogram;

struct histogram *histogram_new(void);
void histogram_clear(struct histogram *histogram);
void histogram_free(struct histogram *histogram);

void histogram_add(struct histogram *histogram, int64_t ns);
uint64_t histogram_count(const struct histogram *histogram);

/* The greatest value, exactly; 0 when there is none. */
int64_t histogram_max(const struct histogram *histogram);

/* The value that the share `quantile` (0 to 1) of all values does not exceed, to within 1/256; 0 when there is none. */
int64_t histogram_quantile(const struct histogram *histogram, double quantile);

#endif
