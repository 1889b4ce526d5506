/* Numbers that are the same in every run. */
#ifndef HEC_TESTS_XORSHIFT_H
#define HEC_TESTS_XORSHIFT_H

#include <stdint.h>

static uint64_t seed = 88172645463325252u;

/* Below n. */
static inline unsigned rnd(unsigned n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed >> 11) % n;
}

#endif
