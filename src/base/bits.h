/* Small arithmetic on words; no state, any thread. */
#ifndef HEC_BASE_BITS_H
#define HEC_BASE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BIT(n)                        (UINT64_C(1) << (n))
#define ARRAY_SIZE(a)                 (sizeof(a) / sizeof((a)[0]))
#define likely(x)                     __builtin_expect(!!(x), 1)
#define unlikely(x)                   __builtin_expect(!!(x), 0)
#define container_of(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

/* Bits hi..lo of v, shifted down. 0 <= lo <= hi <= 63. */
static inline uint64_t bits(uint64_t v, unsigned hi, unsigned lo)
{
    return (v >> lo) & (~UINT64_C(0) >> (63 - (hi - lo)));
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static inline uint64_t align_up(uint64_t v, uint64_t a)
{
    return (v + a - 1) & ~(a - 1);
}

static inline uint64_t align_down(uint64_t v, uint64_t a)
{
    return v & ~(a - 1);
}

/* Value mask of an access of 1, 2, 4 or 8 bytes. */
static inline uint64_t size_mask(unsigned size)
{
    return size >= 8 ? ~UINT64_C(0) : (UINT64_C(1) << (size * 8)) - 1;
}

/* Unaligned little-endian loads and stores (the host is x86-64). */
static inline uint16_t ld16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t ld32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t ld64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void st16(void *p, uint16_t v)
{
    memcpy(p, &v, sizeof v);
}

static inline void st32(void *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

static inline void st64(void *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

#endif
