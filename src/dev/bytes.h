/* For devices whose registers are bytes: a wider access is that many byte accesses, lowest address first, as the chips
 * behind an 8-bit bus see it. */
#ifndef HEC_DEV_BYTES_H
#define HEC_DEV_BYTES_H

#include <stdint.h>

static inline uint64_t dev_read_bytes(uint8_t (*read)(void *dev, unsigned off), void *dev, uint64_t off, unsigned size)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)read(dev, (unsigned)off + i) << (8 * i);
    return v;
}

static inline void dev_write_bytes(void (*write)(void *dev, unsigned off, uint8_t val), void *dev, uint64_t off,
                                   unsigned size, uint64_t val)
{
    for (unsigned i = 0; i < size; i++)
        write(dev, (unsigned)off + i, (uint8_t)(val >> (8 * i)));
}

#endif
