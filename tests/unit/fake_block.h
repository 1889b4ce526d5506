/* An image in memory, in place of block*.c, on a loop without a thread (fake_loop.h): whoever includes this says when,
 * in which order and with what result requests end. For unit tests and fuzzers; include it in one file of a program. */
#ifndef HEC_TESTS_FAKE_BLOCK_H
#define HEC_TESTS_FAKE_BLOCK_H

#include "fake_loop.h"

#include "base/bits.h"
#include "dev/block.h"

#include <errno.h>

#define FAKE_LOG    512
#define FAKE_FLIGHT 256

struct fake_entry {
    enum block_op op;
    unsigned flags;
    uint64_t offset, len;
};

struct block {
    struct ioloop *loop;
    uint8_t *data; /* NULL: memory is touched, but no data is kept */
    uint64_t size;
    bool readonly, discard;
    unsigned physical;
    bool manual;              /* requests end by fake_block_end(), not by themselves */
    uint64_t bad_at, bad_len; /* bytes that cannot be read or written */
    int bad_result;           /* -errno */
    struct block_request *flight[FAKE_FLIGHT];
    unsigned flights, kicked, kicks; /* flight[0 .. kicked) were sent */
    struct fake_entry log[FAKE_LOG]; /* as they ended */
    unsigned logged;
    struct ioloop_bell bell;
};

/* ---- requests ---- */
/* Memory must be there from the first byte to the last. */
static inline void fake_touch(volatile uint8_t *p, uint64_t len, bool write)
{
    ensure(len);
    uint8_t first = p[0], last = p[len - 1];
    if (!write)
        return;
    p[0] = (uint8_t)(first + 1);
    p[len - 1] = (uint8_t)(last + 1);
}

static inline void fake_move(struct block *b, struct block_request *r)
{
    uint64_t at = r->offset;
    for (unsigned i = 0; i < r->iovs; at += r->iov[i].iov_len, i++) {
        uint8_t *p = r->iov[i].iov_base;
        if (b->data && r->op == BLOCK_READ)
            memcpy(p, b->data + at, r->iov[i].iov_len);
        else if (b->data)
            memcpy(b->data + at, p, r->iov[i].iov_len);
        else
            fake_touch(p, r->iov[i].iov_len, r->op == BLOCK_READ);
    }
}

static inline int fake_perform(struct block *b, struct block_request *r)
{
    bool io = r->op == BLOCK_READ || r->op == BLOCK_WRITE;
    if (r->op != BLOCK_FLUSH && (r->offset > b->size || r->len > b->size - r->offset))
        return -EINVAL;
    if (r->op != BLOCK_READ && r->op != BLOCK_FLUSH && b->readonly)
        return -EROFS;
    if (r->op != BLOCK_FLUSH && r->offset < b->bad_at + b->bad_len && b->bad_at < r->offset + r->len)
        return b->bad_result;
    if (io)
        fake_move(b, r);
    else if (b->data && r->op != BLOCK_FLUSH)
        memset(b->data + r->offset, 0, r->len);
    return 0;
}

/* End the i-th of the requests that were sent; `result` 0: as it turns out. */
static inline void fake_block_end(struct block *b, unsigned i, int result)
{
    ensure(i < b->kicked);
    struct block_request *r = b->flight[i];
    struct fake_entry entry = {r->op, r->flags, r->offset, r->len};
    b->flights--;
    b->kicked--;
    memmove(&b->flight[i], &b->flight[i + 1], (b->flights - i) * sizeof b->flight[0]);
    if (!result)
        result = fake_perform(b, r);
    if (b->logged < FAKE_LOG)
        b->log[b->logged++] = entry;
    r->done(r, result);
}

static inline void fake_block_end_all(struct block *b)
{
    while (b->kicked)
        fake_block_end(b, 0, 0);
}

static inline void fake_block_settle(void *opaque)
{
    fake_block_end_all(opaque);
}

/* Whoever calls on the loop may wait for what is in flight, so that ends too. */
static inline void fake_block_init(struct block *b, struct ioloop *l, uint8_t *data, uint64_t size)
{
    *b = (struct block){.loop = l, .data = data, .size = size, .physical = 512};
    ioloop_bell_init(&b->bell, fake_block_settle, b);
    fake_loop_settle(l, fake_block_settle, b);
}

void block_submit(struct block *b, struct block_request *r)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < r->iovs; i++)
        sum += r->iov[i].iov_len;
    ensure(r->offset % BLOCK_SECTOR == 0 && r->len % BLOCK_SECTOR == 0 && b->flights < FAKE_FLIGHT);
    ensure((r->op != BLOCK_READ && r->op != BLOCK_WRITE) || (sum == r->len && r->len));
    b->flight[b->flights++] = r;
}

void block_kick(struct block *b)
{
    b->kicks++;
    b->kicked = b->flights;
    if (!b->manual && b->kicked)
        ioloop_ring(b->loop, &b->bell);
}

uint64_t block_size(const struct block *b)
{
    return b->size;
}

bool block_readonly(const struct block *b)
{
    return b->readonly;
}

unsigned block_physical_sector(const struct block *b)
{
    return b->physical;
}

bool block_can_discard(const struct block *b)
{
    return b->discard;
}

struct ioloop *block_loop(const struct block *b)
{
    return b->loop;
}

unsigned block_in_flight(const struct block *b)
{
    return b->flights;
}

#endif
