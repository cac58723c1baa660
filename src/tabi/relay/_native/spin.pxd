"""Whether to look again for a moment before going to sleep.

An event that comes within microseconds finds the thread awake: no wake-up, which on an idle processor is most of a
round trip. Each spin that finds nothing costs its whole length, so the rule is: spin while no more than a fifth of the
last spins were in vain. Once that is over, waits that ended soon earn a trial, and those that did not cost one, so
there is none but where most waits end soon. A trial that succeeds is followed by the next at once: a stream of quick
answers is back to spinning within tens of waits.
"""

from libc.stdint cimport int64_t, uint32_t

from tabi.relay._native.sys cimport __builtin_popcount

cdef enum:
    LENGTH = 50_000  # nanoseconds; it replaces a sleep and a wake-up, which cost about as much
    VAIN = 6  # of the last 32 at most
    SOON = 4 * LENGTH  # a wait that ended within this may have been a spin's: being woken up takes its time
    TRIAL = 32  # so many more waits that ended soon than others earn one

cdef struct Spin:
    int64_t length  # nanoseconds; 0 never spins
    uint32_t vain  # a bit for each of the last spins
    uint32_t soon  # waits towards a trial


cdef inline void prepare(Spin *spin, bint is_on) noexcept nogil:
    """Begin without a record of success."""
    spin.length = LENGTH if is_on else 0
    spin.vain = 0xFFFFFFFF
    spin.soon = 0


cdef inline bint is_worth_it(Spin *spin, int64_t timeout) noexcept nogil:
    """Say whether to spin, with something else to do after `timeout` nanoseconds (-1: never)."""
    if 0 <= timeout <= spin.length:
        return False
    return spin.soon >= TRIAL or __builtin_popcount(spin.vain) <= VAIN


cdef inline void note_spin(Spin *spin, bint was_vain) noexcept nogil:
    """Remember how a spin went."""
    spin.vain = spin.vain << 1 | was_vain
    spin.soon = 0 if was_vain else TRIAL


cdef inline void note_wait(Spin *spin, int64_t lasted) noexcept nogil:
    """Remember how long a sleep took."""
    if lasted <= SOON:
        spin.soon += 1
    elif spin.soon:
        spin.soon -= 1
