/* A loop without a thread and an image in memory, in place of ioloop.c and block*.c: whoever includes this runs the
 * loop's bells when it likes, and says when, in which order and with what result requests end. For unit tests and
 * fuzzers; include it in one file of a program. */
#ifndef HEC_TESTS_FAKE_BLOCK_H
#define HEC_TESTS_FAKE_BLOCK_H

#include "base/bits.h"
#include "dev/block.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define fake_ensure(what)                                                                                              \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                                                 \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

#define FAKE_LOG    512
#define FAKE_FLIGHT 256
#define FAKE_BLOCKS 8

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

struct ioloop {
    struct ioloop_bell *first, **last;
    struct block *blocks[FAKE_BLOCKS];
    unsigned n;
};

/* ---- the loop ---- */
void ioloop_bell_init(struct ioloop_bell *b, void (*fn)(void *), void *opaque)
{
    b->fn = fn;
    b->opaque = opaque;
    atomic_init(&b->next, NULL);
    atomic_init(&b->rung, false);
}

void ioloop_ring(struct ioloop *l, struct ioloop_bell *b)
{
    if (atomic_exchange(&b->rung, true))
        return;
    struct ioloop_bell *at = l->first;
    atomic_store(&b->next, NULL);
    if (!at) {
        l->first = b;
        return;
    }
    while (atomic_load(&at->next))
        at = atomic_load(&at->next);
    atomic_store(&at->next, b);
}

void ioloop_bell_remove(struct ioloop *l, struct ioloop_bell *b)
{
    struct ioloop_bell *at = l->first;
    if (at == b)
        l->first = atomic_load(&b->next);
    for (; at; at = atomic_load(&at->next))
        if (atomic_load(&at->next) == b)
            atomic_store(&at->next, atomic_load(&b->next));
    atomic_store(&b->rung, false);
}

/* Until nothing rings; false: it still does after `max` calls. */
static inline bool fake_loop_run(struct ioloop *l, unsigned max)
{
    for (struct ioloop_bell *b; (b = l->first); max--) {
        if (!max)
            return false;
        l->first = atomic_load(&b->next);
        atomic_store(&b->rung, false);
        b->fn(b->opaque);
    }
    return true;
}

/* ---- requests ---- */
/* Memory must be there from the first byte to the last. */
static inline void fake_touch(volatile uint8_t *p, uint64_t len, bool write)
{
    fake_ensure(len);
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
    fake_ensure(i < b->kicked);
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

static inline void fake_block_bell(void *opaque)
{
    fake_block_end_all(opaque);
}

static inline void fake_block_init(struct block *b, struct ioloop *l, uint8_t *data, uint64_t size)
{
    *b = (struct block){.loop = l, .data = data, .size = size, .physical = 512};
    ioloop_bell_init(&b->bell, fake_block_bell, b);
    fake_ensure(l->n < FAKE_BLOCKS);
    l->blocks[l->n++] = b;
}

/* The owner's thread calls: it may wait for what is in flight, so that ends. */
void ioloop_call(struct ioloop *l, void (*fn)(void *opaque), void *opaque)
{
    fn(opaque);
    for (unsigned i = 0; i < l->n; i++)
        fake_block_end_all(l->blocks[i]);
}

void block_submit(struct block *b, struct block_request *r)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < r->iovs; i++)
        sum += r->iov[i].iov_len;
    fake_ensure(r->offset % BLOCK_SECTOR == 0 && r->len % BLOCK_SECTOR == 0 && b->flights < FAKE_FLIGHT);
    fake_ensure((r->op != BLOCK_READ && r->op != BLOCK_WRITE) || (sum == r->len && r->len));
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
