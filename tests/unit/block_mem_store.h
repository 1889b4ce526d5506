/* A store in memory that does less than it is asked for, refuses and fails as it is told. */
#ifndef HEC_TESTS_BLOCK_MEM_STORE_H
#define HEC_TESTS_BLOCK_MEM_STORE_H

#include "block_rig.h"

#include <assert.h>

struct mem_store {
    struct store s;
    unsigned char *data;
    struct store_io *first, **end;
    uint64_t seed;
    bool shorten;                         /* reads and writes: some units only, and now and then -EINTR or -EAGAIN */
    bool no_fua, no_zero, no_punch;       /* -EOPNOTSUPP */
    int fail[6];                          /* by enum store_op: how many more operations fail */
    int error;                            /* with what */
    bool always_again;                    /* -EAGAIN for ever */
    unsigned ops[6], fua, most, in_queue; /* counts; most: that were in the queue at once */
};

static inline struct mem_store *mem_of(struct store *s)
{
    return container_of(s, struct mem_store, s);
}

static inline void mem_put(struct store *s, struct store_io *io)
{
    struct mem_store *m = mem_of(s);
    io->next = NULL;
    *m->end = io;
    m->end = &io->next;
    if (++m->in_queue > m->most)
        m->most = m->in_queue;
}

static inline void mem_copy(struct mem_store *m, const struct store_io *io, uint64_t len)
{
    uint64_t off = io->off;
    for (unsigned i = 0; i < io->iovs && len; i++) {
        uint64_t n = min_u64(io->iov[i].iov_len, len);
        assert(!(((uintptr_t)io->iov[i].iov_base | io->iov[i].iov_len) & (m->s.mem_align - 1)));
        if (io->op == STORE_READ)
            memcpy(io->iov[i].iov_base, m->data + off, n);
        else
            memcpy(m->data + off, io->iov[i].iov_base, n);
        off += n;
        len -= n;
    }
}

static inline int64_t mem_move(struct mem_store *m, const struct store_io *io)
{
    uint64_t sum = 0, unit = m->s.align, len = io->len;
    for (unsigned i = 0; i < io->iovs; i++)
        sum += io->iov[i].iov_len;
    assert(sum == io->len && io->len && io->len <= m->s.max_len);
    assert(!((io->off | io->len) & (unit - 1)) && (!m->s.contiguous || io->iovs == 1));
    if (io->op == STORE_WRITE && io->fua && m->no_fua)
        return -EOPNOTSUPP;
    m->fua += io->op == STORE_WRITE && io->fua;
    if (m->shorten) {
        if (brig_random(&m->seed) % 8 == 0)
            return brig_random(&m->seed) % 2 ? -EINTR : -EAGAIN;
        len = unit * (1 + brig_random(&m->seed) % (len / unit));
    }
    if (io->off >= m->s.size)
        return 0;
    len = min_u64(len, m->s.size - io->off);
    mem_copy(m, io, len);
    return (int64_t)len;
}

static inline int64_t mem_perform(struct mem_store *m, const struct store_io *io)
{
    m->ops[io->op]++;
    if (m->always_again)
        return -EAGAIN;
    if (m->fail[io->op] && m->fail[io->op]--)
        return -m->error;
    switch (io->op) {
    case STORE_READ:
    case STORE_WRITE:
        return mem_move(m, io);
    case STORE_SYNC:
        return 0;
    case STORE_DISCARD:
        memset(m->data + io->off, 0xdd, io->len);
        return 0;
    case STORE_PUNCH:
    case STORE_ZERO:
        if (io->op == STORE_ZERO ? m->no_zero : m->no_punch)
            return -EOPNOTSUPP;
        memset(m->data + io->off, 0, io->len);
        return 0;
    }
    return -EINVAL;
}

static inline void mem_kick(struct store *s)
{
    struct mem_store *m = mem_of(s);
    while (m->first) {
        struct store_io *io = m->first;
        m->first = io->next;
        if (!m->first)
            m->end = &m->first;
        m->in_queue--;
        io->done(io, mem_perform(m, io));
    }
}

static inline void mem_detach(struct store *s)
{
}

static inline void mem_close(struct store *s)
{
    struct mem_store *m = mem_of(s);
    free(m->data);
    free(m);
}

static inline struct mem_store *mem_store_new(uint64_t size, unsigned align)
{
    static const struct store_ops ops = {
        .put = mem_put, .kick = mem_kick, .wait = mem_kick, .detach = mem_detach, .close = mem_close};
    struct mem_store *m = calloc(1, sizeof *m);
    m->s = (struct store){.ops = &ops,
                          .size = size,
                          .max_len = 1 << 20,
                          .align = align,
                          .mem_align = 1,
                          .physical = 512,
                          .cached = true,
                          .can_fua = true,
                          .can_discard = true};
    m->data = calloc(1, size);
    m->end = &m->first;
    m->seed = 77;
    m->error = EIO;
    return m;
}

#endif
