/* What the generator can do. Each mode prints one JSON object and returns, within a time that is known beforehand. */
#ifndef BENCH_MODES_H
#define BENCH_MODES_H

void connections(void);  /* whole connections, one byte each, as fast as they go or at a rate */
void pingpong(void);     /* messages to and fro through open tunnels, the next when the answer is there */
void messages(void);     /* messages on a schedule that does not wait for answers */
void bulk(void);         /* bytes up, down or both ways */
void idle(void);         /* tunnels that are only held: memory */
void datagrams(void);    /* echoes through UDP associations */
void target(void);       /* the other end of all of these */
void look(void);         /* what processes have cost so far */
void quantiles(void);    /* the histogram's arithmetic, on numbers from standard input */

#endif
