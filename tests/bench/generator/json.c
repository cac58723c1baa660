#include "json.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#include "clock.h"
#include "options.h"

static bool is_first;

static void put_text(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void put_key(const char *key)
{
    printf("%s\"%s\": ", is_first ? "" : ", ", key);
    is_first = false;
}

void json_begin(const char *mode)
{
    putchar('{');
    is_first = true;
    json_text("mode", mode);
    if (*options.label)
        json_text("label", options.label);
}

void json_text(const char *key, const char *text)
{
    put_key(key);
    put_text(text);
}

void json_number(const char *key, double number)
{
    put_key(key);
    if (isfinite(number))
        printf("%.15g", number);
    else
        fputs("null", stdout);
}

void json_latencies(const struct histogram *histogram)
{
    if (!histogram_count(histogram))
        return;
    json_number("p50_us", in_us(histogram_quantile(histogram, 0.5)));
    json_number("p99_us", in_us(histogram_quantile(histogram, 0.99)));
    json_number("p999_us", in_us(histogram_quantile(histogram, 0.999)));
    json_number("max_us", in_us(histogram_max(histogram)));
}

void json_end(void) { puts("}"); }
