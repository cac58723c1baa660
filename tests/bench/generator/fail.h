/* Ending early: one line on standard error that says what was wrong, and an exit code that says whose fault it was. */
#ifndef BENCH_FAIL_H
#define BENCH_FAIL_H

enum blame {
    OURS = 2,  /* the command line, or this machine: no descriptors, no ports */
    PROXY = 3, /* the proxy refused, closed or did not answer */
};

_Noreturn void fail(enum blame blame, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same with the text of errno behind it. */
_Noreturn void fail_errno(enum blame blame, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
