/* Host time. Guest time is vm/'s business and reaches lower rooms as a number of guest nanoseconds. */
#ifndef HEC_BASE_CLOCK_H
#define HEC_BASE_CLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define NS_PER_SEC UINT64_C(1000000000)

/* Host CLOCK_MONOTONIC in nanoseconds. Any thread. */
uint64_t clock_host_ns(void);

/* Seconds since 1970, UTC, and its nanosecond part (may be NULL). Any thread. */
uint64_t clock_wall_seconds(uint32_t *ns);

/* Guest time as rooms below vm/ see it: nanoseconds since power-on. One a machine; vm/ owns it and moves it.
 *
 * Real time: the host's monotonic clock less `host_base`. Virtual time: `seen`, the latest instant any vCPU or time
 * jump has reached; it only grows, so nobody ever reads a time earlier than one that was read before.
 */
struct guest_clock {
    bool real;             /* (c) */
    uint64_t host_base;    /* (c) host ns at guest time 0 */
    _Atomic uint64_t seen; /* (a) */
};

/* Any thread. */
static inline uint64_t guest_clock_now(const struct guest_clock *c)
{
    return c->real ? clock_host_ns() - c->host_base : atomic_load_explicit(&c->seen, memory_order_relaxed);
}

/* Raise `seen` to `at` if it is behind, and return the later of both. Any thread. Virtual time only. */
static inline uint64_t guest_clock_reach(struct guest_clock *c, uint64_t at)
{
    uint64_t old = atomic_load_explicit(&c->seen, memory_order_relaxed);
    while (old < at)
        if (atomic_compare_exchange_weak_explicit(&c->seen, &old, at, memory_order_relaxed, memory_order_relaxed))
            return at;
    return old;
}

#endif
