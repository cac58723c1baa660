"""Token buckets, on the same memory and by the same protocol as `tabi.relay.bucket`, which explains it.

A bucket is drawn from by the engine's thread; the control plane spends from it and sets its rate. Inside the process a
flag parts them, towards other processes a lock on one byte of the file. The engine waits for neither: what it cannot
have within some attempts it does not take this time.
"""

from libc.math cimport ceil
from libc.stdint cimport int64_t

from tabi.relay._native.sys cimport (
    F_UNLCK,
    F_WRLCK,
    load_count,
    load_int,
    lock_byte,
    nap,
    sched_yield,
    store_count,
    store_int,
    swap_int,
)

cdef enum:
    QUANTUM = 512  # tokens; fewer are not handed out
    YIELDS = 4  # how often the engine tries to get a lock
    NAPS = 20  # and how often more, asleep in between, whoever has time
    NAP = 100_000  # nanoseconds

cdef extern from * nogil:
    """
    #define PLENTY ((int64_t)1 << 32)
    #define WAITING ((int64_t)0xffffffff)
    #define FARTHEST 1e18
    #define NS_A_SECOND 1e9
    """
    const int64_t PLENTY  # tokens of a bucket without a rate
    const int64_t WAITING  # the bits of a column that say how many wait
    const double NS_A_SECOND
    const double FARTHEST  # nanoseconds that a single expense may put a bucket into debt: 30 years

cdef struct Bucket:
    # the control plane's; the memory stays mapped as long as the engine
    int64_t *words  # when it is full again (nanoseconds of CLOCK_MONOTONIC), then a column per process
    int columns
    int column  # ours
    int lock  # descriptor, -1: no other process knows it
    long offset  # of the byte that is locked
    int64_t base  # what whoever made the cell put above the waiting bits of our column
    # whoever holds the flag
    int flag
    double rate  # tokens a second; 0 is no limit
    double burst
    double cost  # nanoseconds for which a token is gone
    double part  # of what comes in, this process'
    int64_t drawn  # when some were drawn here last


cdef inline bint enter(Bucket *bucket, bint patient) noexcept nogil:
    """Keep the others out; False if that is not to be had."""
    cdef int attempt
    for attempt in range(YIELDS + NAPS):
        if not load_int(&bucket.flag) and not swap_int(&bucket.flag, 1):
            if bucket.lock < 0 or lock_byte(bucket.lock, bucket.offset, F_WRLCK) == 0:
                return True
            store_int(&bucket.flag, 0)
        if attempt < YIELDS:
            sched_yield()
        elif patient:
            nap(NAP)
        else:
            return False
    return False


cdef inline void leave(Bucket *bucket) noexcept nogil:
    """Let the others in."""
    if bucket.lock >= 0:
        lock_byte(bucket.lock, bucket.offset, F_UNLCK)
    store_int(&bucket.flag, 0)


cdef inline int64_t nanoseconds(double count, double cost) noexcept nogil:
    """Say for how long so many tokens are gone, rounded up."""
    return <int64_t>min(ceil(count * cost), FARTHEST)


cdef inline void reckon(Bucket *bucket, double rate, double burst) noexcept nogil:
    """Take over another rate; 0 is no limit."""
    bucket.rate = rate
    bucket.burst = max(burst, <double>QUANTUM)
    bucket.cost = NS_A_SECOND / rate if rate > 0 else 0.0


cdef inline void set_rate(Bucket *bucket, double rate, double burst, int64_t now) noexcept nogil:
    """Go on with another rate, for the control plane. What was taken before costs at most to find the bucket empty."""
    while swap_int(&bucket.flag, 1):
        sched_yield()
    reckon(bucket, rate, burst)
    store_int(&bucket.flag, 0)
    if rate > 0 and enter(bucket, True):
        store_count(bucket.words, min(bucket.words[0], now + <int64_t>(bucket.burst * bucket.cost)))
        leave(bucket)


cdef inline void tell(Bucket *bucket, int64_t waiting) noexcept nogil:
    """Tell the other processes how many of ours wait now."""
    store_count(&bucket.words[1 + bucket.column], bucket.base + waiting)


cdef inline void divide(Bucket *bucket, int64_t waiting) noexcept nogil:
    """Reckon our part by who waits here and elsewhere; tell how many wait here."""
    cdef int64_t everybody = 0
    cdef int column
    tell(bucket, waiting)
    for column in range(bucket.columns):
        everybody += load_count(&bucket.words[1 + column]) & WAITING
    bucket.part = <double>waiting / <double>everybody if waiting and everybody else 1.0


cdef inline double there_is(Bucket *bucket, int64_t full, int64_t now) noexcept nogil:
    """Count the tokens. The time that each costs is rounded up: three of a burst of three are three all the same."""
    return bucket.burst - <double>(full - now) / bucket.cost + 1e-6


cdef inline int64_t draw(Bucket *bucket, int64_t now, int64_t waiting, int64_t held) noexcept nogil:
    """Take what there is, or our part where others wait in other processes: 0, or a quantum at least.

    `waiting` of ours want some; `held` tokens were drawn earlier and are not used yet: so many fewer there are.
    """
    cdef int64_t full, count = 0
    cdef double tokens
    if bucket.rate <= 0:
        return PLENTY
    if not enter(bucket, False):
        return 0
    if bucket.rate <= 0:  # since the look above
        leave(bucket)
        return PLENTY
    full = max(load_count(bucket.words), now + nanoseconds(<double>held, bucket.cost))
    tokens = there_is(bucket, full, now)
    divide(bucket, waiting)
    if bucket.part < 1.0:
        tokens = min(tokens, bucket.part * bucket.rate * <double>(now - bucket.drawn) / NS_A_SECOND)
    if tokens >= QUANTUM:
        count = <int64_t>tokens
        bucket.drawn = now
        store_count(bucket.words, full + nanoseconds(<double>count, bucket.cost))
    leave(bucket)
    return count


cdef inline void give_back(Bucket *bucket, int64_t count, bint patient) noexcept nogil:
    """Return tokens that were taken and are not needed. Without the lock they are lost, and the rate is kept."""
    if count > 0 and bucket.rate > 0 and enter(bucket, patient):
        store_count(bucket.words, bucket.words[0] - <int64_t>(min(<double>count, bucket.burst) * bucket.cost))
        leave(bucket)


cdef inline bint spend(Bucket *bucket, int64_t count, int64_t now) noexcept nogil:
    """Take `count` tokens or none. More than the burst at once is a debt that the time after it pays."""
    cdef int64_t full
    cdef bint there
    if bucket.rate <= 0:
        return True
    if not enter(bucket, True):
        return False
    full = max(load_count(bucket.words), now)
    there = bucket.rate <= 0 or there_is(bucket, full, now) >= min(<double>count, bucket.burst)
    if there:
        store_count(bucket.words, full + nanoseconds(<double>count, bucket.cost))
    leave(bucket)
    return there


cdef inline int64_t wait(Bucket *bucket, int64_t now) noexcept nogil:
    """Say in how many nanoseconds there will be a quantum for us, as things stand."""
    cdef double pause
    if bucket.rate <= 0:
        return 0
    pause = <double>(load_count(bucket.words) - now) - (bucket.burst - QUANTUM) * bucket.cost
    if bucket.part < 1.0:
        pause = max(pause, <double>(bucket.drawn - now) + QUANTUM * bucket.cost / bucket.part)
    return <int64_t>max(0.0, min(pause, FARTHEST))
