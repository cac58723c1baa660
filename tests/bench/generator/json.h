/* One JSON object on standard output, key by key. */
#ifndef BENCH_JSON_H
#define BENCH_JSON_H

#include "histogram.h"

void json_begin(const char *mode); /* with the label, where there is one */
void json_text(const char *key, const char *text);
void json_number(const char *key, double number); /* null where it is not finite */
void json_latencies(const struct histogram *histogram); /* p50_us, p99_us, p999_us, max_us; nothing when it is empty */
void json_end(void);

#endif
