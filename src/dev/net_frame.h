/* Small work on frames: pieces, and numbers in network byte order. No state, any thread. */
#ifndef HEC_DEV_NET_FRAME_H
#define HEC_DEV_NET_FRAME_H

#include "base/bits.h"

#include <sys/uio.h>

static inline size_t net_iov_len(const struct iovec *iov, unsigned n)
{
    size_t len = 0;
    for (unsigned i = 0; i < n; i++)
        len += iov[i].iov_len;
    return len;
}
/* Copy up to `len` of the first bytes; returns how many. */
static inline size_t net_gather(const struct iovec *iov, unsigned n, uint8_t *to, size_t len)
{
    size_t got = 0;
    for (unsigned i = 0; i < n && got < len; i++) {
        size_t part = min_u64(iov[i].iov_len, len - got);
        memcpy(to + got, iov[i].iov_base, part);
        got += part;
    }
    return got;
}
/* The pieces behind the first `skip` bytes, at most `n` of them; returns how many. */
static inline unsigned net_iov_skip(const struct iovec *iov, unsigned n, size_t skip, struct iovec *out)
{
    unsigned m = 0;
    for (unsigned i = 0; i < n; i++) {
        size_t cut = min_u64(skip, iov[i].iov_len);
        skip -= cut;
        if (iov[i].iov_len > cut)
            out[m++] = (struct iovec){(uint8_t *)iov[i].iov_base + cut, iov[i].iov_len - cut};
    }
    return m;
}

/* Network byte order. */
static inline uint16_t get16be(const void *p)
{
    return __builtin_bswap16(ld16(p));
}
static inline uint32_t get32be(const void *p)
{
    return __builtin_bswap32(ld32(p));
}
static inline void put16be(void *p, uint16_t v)
{
    st16(p, __builtin_bswap16(v));
}
static inline void put32be(void *p, uint32_t v)
{
    st32(p, __builtin_bswap32(v));
}

#endif
