/* The histogram's arithmetic on whole numbers of nanoseconds from standard input: for the tests. */
#include <inttypes.h>
#include <stdio.h>

#include "fail.h"
#include "histogram.h"
#include "json.h"
#include "modes.h"

void quantiles(void)
{
    struct histogram *histogram = histogram_new();
    int64_t ns;
    int got;
    while ((got = scanf("%" SCNd64, &ns)) == 1)
        histogram_add(histogram, ns);
    if (got != EOF)
        fail(OURS, "standard input: whole numbers are wanted");
    json_begin("quantiles");
    json_number("values", (double)histogram_count(histogram));
    json_latencies(histogram);
    json_end();
    histogram_free(histogram);
}
