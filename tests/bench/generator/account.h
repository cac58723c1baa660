/* What the proxy's whole tree of processes costs: processor time and memory.
 *
 * The time of a live process, ended threads included, is exact to the nanosecond. Children that have ended
 * and were waited for are known to the kernel's 10 ms only, as part of their parent; that part is told apart. Loopback
 * runs the receiver's half of the protocol in the sender's context, so it is in here. Work in kernel threads (eBPF's
 * sockmap, io_uring's workers) is not. */
#ifndef BENCH_ACCOUNT_H
#define BENCH_ACCOUNT_H

struct cpu {
    double seconds;
    double reaped; /* of these: of children that have ended */
};

struct memory {
    double pss, rss; /* KiB */
    int processes, threads, descriptors;
};

/* Of the processes named by --tree and all their descendants. One of those named that is gone ends the program. */
struct cpu tree_cpu(void);
struct memory tree_memory(void);

/* Memory of the whole machine that the kernel holds and cannot give back (sockets, stacks, page tables): KiB. */
double kernel_memory(void);

/* Processor seconds of this process. */
double own_cpu(void);

#endif
