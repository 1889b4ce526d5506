/* A growing run of bytes in a buffer of fixed size; writing past the end is remembered, not done. Private to acpi/. */
#ifndef HEC_ACPI_BYTES_H
#define HEC_ACPI_BYTES_H

#include "base/bits.h"

struct bytes {
    uint8_t *buf;
    uint64_t cap, len;
    bool overflow;
};

static inline void put(struct bytes *b, uint64_t val, unsigned size)
{
    if (b->len + size > b->cap) {
        b->overflow = true;
        return;
    }
    for (unsigned i = 0; i < size; i++)
        b->buf[b->len++] = (uint8_t)(val >> (8 * i));
}

static inline void put_mem(struct bytes *b, const void *p, uint64_t size)
{
    if (b->len + size > b->cap) {
        b->overflow = true;
        return;
    }
    memcpy(b->buf + b->len, p, size);
    b->len += size;
}

static inline void put_zero(struct bytes *b, unsigned n)
{
    while (n--)
        put(b, 0, 1);
}

static inline void put_align(struct bytes *b, uint64_t align)
{
    while (b->len % align && !b->overflow)
        put(b, 0, 1);
}

/* What must be added so that the bytes sum to 0. */
static inline uint8_t sum_fix(const uint8_t *p, uint64_t n)
{
    uint8_t sum = 0;
    while (n--)
        sum = (uint8_t)(sum + *p++);
    return (uint8_t)-sum;
}

#endif
