#include "dev/virtio_blk.h"

#include "pci/dma.h"

#include <errno.h>
#include <stdlib.h>

#define CLASS_CODE 0x010000u
#define FEW        8u /* iovecs a request has room for without an array of its own */

/* 5.2.3 "Feature bits". */
enum blk_feature {
    F_SIZE_MAX = 1,
    F_SEG_MAX = 2,
    F_RO = 5,
    F_BLK_SIZE = 6,
    F_FLUSH = 9,
    F_TOPOLOGY = 10,
    F_CONFIG_WCE = 11,
    F_MQ = 12,
    F_DISCARD = 13,
    F_WRITE_ZEROES = 14
};

/* 5.2.4 "Device configuration layout". */
enum blk_config {
    C_CAPACITY = 0,
    C_SIZE_MAX = 8,
    C_SEG_MAX = 12,
    C_BLK_SIZE = 20,
    C_PHYSICAL_EXP = 24,
    C_MIN_IO = 26,
    C_WRITEBACK = 32,
    C_QUEUES = 34,
    C_DISCARD_SECTORS = 36,
    C_DISCARD_SEGS = 40,
    C_DISCARD_ALIGN = 44,
    C_ZEROES_SECTORS = 48,
    C_ZEROES_SEGS = 52,
    C_ZEROES_UNMAP = 56,
    C_LEN = 60
};

/* 5.2.6 "Device Operation". */
enum blk_type { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum blk_status { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };
enum { HEADER = 16, RANGE = 16, RANGE_UNMAP = 1, RANGE_SECTORS = 0x3fffff };

/* With translated addresses a segment may come in as many pieces as it touches pages, and a request goes to the host in
 * at most VIRTQ_SIZE_MAX: 126 segments of up to 7 pages, unaligned, leave room for header and status. */
enum { SEG_MAX = 254, SEG_MAX_TRANSLATED = 126, SIZE_MAX_TRANSLATED = 7 * 4096 };

/* One that is under way. */
struct request {
    struct block_request io;
    struct virtio_blk *b;
    struct virtq *q;
    struct virtq_chain chain;
    struct request *free;
    uint8_t *status;    /* the chain's last byte */
    struct iovec *iov;  /* the chain's, `few` or `many` */
    struct iovec *many; /* owned; NULL until needed */
    unsigned room;      /* of `many` */
    struct iovec few[FEW];
};

/* What is to be done for a queue: chains that were pushed are not flushed. */
struct lane {
    struct lane *dirty_next;
    bool dirty;
};

struct virtio_blk {
    struct virtio_pci pci;
    struct block *block;            /* (c) */
    char serial[VIRTIO_BLK_SERIAL]; /* (c) */
    uint64_t size;                  /* (c) bytes */
    bool writethrough;              /* (c) */
    _Atomic bool writeback;         /* (a) writes may stay in a cache: the configuration's byte */
    /* the loop's thread */
    bool flushes;              /* the driver knows of the cache */
    bool stopping;             /* nothing in flight: virtio_idle() */
    unsigned in_flight;        /* block requests */
    struct request *requests;  /* (c) owned, as many as all queues can hold */
    unsigned fresh;            /* requests[] from here on were never used */
    struct request *free;      /* used before */
    struct lane *lanes;        /* (c) owned, one for each queue */
    struct lane *dirty;        /* a list */
    struct ioloop_bell finish; /* flush the dirty ones */
    struct iovec scratch[VIRTQ_SIZE_MAX];
};

static struct virtio_blk *blk_of(struct virtio *v)
{
    return container_of(v, struct virtio_blk, pci.v);
}

/* ---- requests and their memory ---- */

/* There are enough: a queue has at most as many chains in flight as entries. */
static struct request *request_get(struct virtio_blk *b)
{
    struct request *r = b->free;
    if (r) {
        b->free = r->free;
        return r;
    }
    r = &b->requests[b->fresh++];
    r->b = b;
    return r;
}

static void request_put(struct virtio_blk *b, struct request *r)
{
    r->free = b->free;
    b->free = r;
}

/* Keep the iovecs; long lists get an array that stays with the request. */
static bool request_keep(struct request *r, const struct iovec *iov, unsigned n)
{
    r->iov = r->few;
    if (n > FEW) {
        if (n > r->room) {
            free(r->many);
            r->room = 0;
            r->many = malloc(n * sizeof *r->many);
            if (!r->many)
                return false;
            r->room = n;
        }
        r->iov = r->many;
    }
    memcpy(r->iov, iov, n * sizeof *iov);
    return true;
}

/* ---- completions ---- */

static void mark_dirty(struct virtio_blk *b, struct virtq *q)
{
    struct lane *l = &b->lanes[q->index];
    if (l->dirty)
        return;
    l->dirty = true;
    l->dirty_next = b->dirty;
    b->dirty = l;
    ioloop_ring(b->pci.v.loop, &b->finish);
}

/* Runs after the completions of one round, so that they share an interrupt. */
static void finish(void *opaque)
{
    struct virtio_blk *b = opaque;
    for (struct lane *l; (l = b->dirty);) {
        b->dirty = l->dirty_next;
        l->dirty = false;
        virtq_flush(&b->pci.v.q[l - b->lanes]);
    }
}

/* What a read that failed may have stored nonetheless. */
static void tell_data(struct request *r)
{
    for (unsigned i = r->chain.outs; i < r->chain.outs + r->chain.ins; i++)
        pci_dma_stored(&r->b->pci.func, r->iov[i].iov_base, r->iov[i].iov_len);
}

/* The length counts bytes from the first on, so a read that failed has none, though its status was written. */
static void complete(struct request *r, enum blk_status status)
{
    struct virtio_blk *b = r->b;
    struct virtq *q = r->q;
    *r->status = (uint8_t)status;
    bool whole = status == S_OK || r->chain.in_len == 1;
    if (!whole)
        tell_data(r);
    virtq_push(q, &r->chain, r->iov + r->chain.outs, whole ? (uint32_t)r->chain.in_len : 0);
    request_put(b, r);
    mark_dirty(b, q);
}

static void io_done(struct block_request *io, int result)
{
    struct request *r = container_of(io, struct request, io);
    struct virtio_blk *b = r->b;
    if (io->op == BLOCK_READ)
        r->iov[r->chain.outs + r->chain.ins - 1].iov_len++; /* the status byte, which was cut off */
    if (result < 0)
        trace(b->pci.v.trace, TRACE_DEV, "virtio-blk-pci: request %d of %llu bytes at %llu: %s", (int)io->op,
              (unsigned long long)io->len, (unsigned long long)io->offset, strerror(-result));
    complete(r, result >= 0 ? S_OK : result == -EOPNOTSUPP ? S_UNSUPP : S_IOERR);
    b->in_flight--;
    if (b->stopping && !b->in_flight) {
        b->stopping = false;
        virtio_idle(&b->pci.v);
    }
}

/* ---- requests ---- */

static void submit(struct request *r, enum block_op op, uint64_t sector, uint64_t len, unsigned flags)
{
    struct virtio_blk *b = r->b;
    if (sector > b->size / BLOCK_SECTOR || len > b->size - sector * BLOCK_SECTOR || len % BLOCK_SECTOR) {
        complete(r, S_IOERR);
        return;
    }
    r->io.op = op;
    r->io.flags = flags;
    r->io.offset = sector * BLOCK_SECTOR;
    r->io.len = len;
    r->io.done = io_done;
    if (op == BLOCK_READ)
        r->iov[r->chain.outs + r->chain.ins - 1].iov_len--;
    b->in_flight++;
    block_submit(b->block, &r->io);
}

static unsigned write_flags(const struct virtio_blk *b)
{
    return b->flushes && atomic_load_explicit(&b->writeback, memory_order_relaxed) ? 0 : BLOCK_FUA;
}

static void do_read(struct request *r, uint64_t sector)
{
    uint64_t len = r->chain.in_len - 1;
    if (!len) {
        complete(r, S_OK);
        return;
    }
    r->io.iov = r->iov + r->chain.outs;
    r->io.iovs = r->chain.ins - (r->iov[r->chain.outs + r->chain.ins - 1].iov_len == 1);
    submit(r, BLOCK_READ, sector, len, 0);
}

static void do_write(struct request *r, uint64_t sector)
{
    uint64_t len = r->chain.out_len - HEADER;
    struct iovec *data = r->iov;
    unsigned left = HEADER, n = r->chain.outs;
    if (block_readonly(r->b->block) || !len) {
        complete(r, len ? S_IOERR : S_OK);
        return;
    }
    for (; data->iov_len <= left; data++, n--)
        left -= (unsigned)data->iov_len;
    *data = (struct iovec){(uint8_t *)data->iov_base + left, data->iov_len - left};
    r->io.iov = data;
    r->io.iovs = n;
    submit(r, BLOCK_WRITE, sector, len, write_flags(r->b));
}

/* 5.2.6: one range, as max_discard_seg and max_write_zeroes_seg say. */
static void do_range(struct request *r, enum blk_type type)
{
    uint8_t range[RANGE];
    bool zeroes = type == T_WRITE_ZEROES;
    uint64_t feature = BIT(zeroes ? F_WRITE_ZEROES : F_DISCARD);
    if (!virtio_has(&r->b->pci.v, feature) || r->chain.out_len != HEADER + RANGE) {
        complete(r, S_UNSUPP);
        return;
    }
    virtq_copy_from(r->iov, r->chain.outs, HEADER, range, RANGE);
    uint64_t sector = ld64(range);
    uint32_t sectors = ld32(range + 8), flags = ld32(range + 12);
    if (flags & ~(zeroes ? RANGE_UNMAP : 0u))
        complete(r, S_UNSUPP);
    else if (sectors > RANGE_SECTORS)
        complete(r, S_IOERR);
    else if (!sectors)
        complete(r, S_OK);
    else
        submit(r, zeroes ? BLOCK_WRITE_ZEROES : BLOCK_DISCARD, sector, (uint64_t)sectors * BLOCK_SECTOR,
               (flags & RANGE_UNMAP ? BLOCK_UNMAP : 0) | (zeroes ? write_flags(r->b) : 0));
}

/* The status byte is not part of the data. */
static void do_get_id(struct request *r)
{
    size_t len = min_u64(r->chain.in_len - 1, VIRTIO_BLK_SERIAL);
    virtq_copy_to(r->iov + r->chain.outs, r->chain.ins, 0, r->b->serial, len);
    complete(r, S_OK);
}

static void execute(struct request *r, uint32_t type, uint64_t sector)
{
    switch (type) {
    case T_IN:
        do_read(r, sector);
        break;
    case T_OUT:
        do_write(r, sector);
        break;
    case T_FLUSH:
        submit(r, BLOCK_FLUSH, 0, 0, 0);
        break;
    case T_GET_ID:
        do_get_id(r);
        break;
    case T_DISCARD:
    case T_WRITE_ZEROES:
        do_range(r, type);
        break;
    default:
        complete(r, S_UNSUPP);
    }
}

/* False: the chain has no place for a header or a status, and the device is broken. */
static bool take(struct virtio_blk *b, struct virtq *q, const struct virtq_chain *c)
{
    uint8_t header[HEADER];
    const struct iovec *last = &b->scratch[c->outs + c->ins - 1];
    if (!c->in_len || virtq_copy_from(b->scratch, c->outs, 0, header, HEADER) < HEADER) {
        virtq_push(q, c, NULL, 0);
        virtio_broken(&b->pci.v, q, "request without header or status", c->out_len);
        return false;
    }
    struct request *r = request_get(b);
    r->q = q;
    r->chain = *c;
    r->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    if (request_keep(r, b->scratch, c->outs + c->ins)) {
        execute(r, ld32(header), ld64(header + 8));
        return true;
    }
    r->iov = r->few; /* no memory for the list: only the status is written */
    r->few[0] = (struct iovec){r->status, 1};
    r->chain.outs = 0;
    r->chain.ins = 1;
    r->chain.in_len = 1;
    complete(r, S_IOERR);
    return true;
}

/* A driver that fills the queue as fast as it is emptied does not keep the loop from its other work. */
static void serve(struct virtio *v, struct virtq *q)
{
    struct virtio_blk *b = blk_of(v);
    struct virtq_chain c;
    unsigned budget = 2u * q->size;
    do {
        virtq_disarm(q);
        while (budget && virtq_pop(q, &c, b->scratch, VIRTQ_SIZE_MAX) && take(b, q, &c))
            budget--;
        if (!budget) {
            ioloop_ring(v->loop, &q->bell);
            break;
        }
    } while (virtq_arm(q));
    block_kick(b->block);
}

/* ---- state ---- */

/* 5.2.5 "Device Initialization": a driver that knows neither flush nor the cache's switch gets no cache. */
static void start(struct virtio *v)
{
    struct virtio_blk *b = blk_of(v);
    b->flushes = virtio_has(v, BIT(F_FLUSH) | BIT(F_CONFIG_WCE));
}

static bool stop(struct virtio *v)
{
    struct virtio_blk *b = blk_of(v);
    b->stopping = b->in_flight;
    return !b->stopping;
}

static void set_writeback(struct virtio_blk *b, bool on)
{
    b->pci.v.config[C_WRITEBACK] = on;
    atomic_store_explicit(&b->writeback, on, memory_order_relaxed);
}

static void config_write(struct virtio *v, unsigned off, unsigned size, uint32_t val)
{
    if (off == C_WRITEBACK && size == 1 && v->accepted & BIT(F_CONFIG_WCE))
        set_writeback(blk_of(v), val & 1);
}

static const struct virtio_ops ops = {.serve = serve, .start = start, .stop = stop, .config_write = config_write};

/* ---- lifecycle ---- */

static uint64_t features(const struct virtio_blk_config *c)
{
    bool writable = !block_readonly(c->block);
    uint64_t f = BIT(F_SEG_MAX) | BIT(F_BLK_SIZE) | BIT(F_FLUSH) | BIT(F_TOPOLOGY) | BIT(F_SIZE_MAX);
    if (!writable)
        f |= BIT(F_RO);
    if (!c->no_config_wce)
        f |= BIT(F_CONFIG_WCE);
    if (c->queues > 1)
        f |= BIT(F_MQ);
    if (writable && !c->no_discard && block_can_discard(c->block))
        f |= BIT(F_DISCARD);
    if (writable && !c->no_write_zeroes)
        f |= BIT(F_WRITE_ZEROES);
    return f;
}

static unsigned exponent(unsigned n)
{
    unsigned e = 0;
    while (e < 15 && BLOCK_SECTOR << e < n)
        e++;
    return e;
}

static void fill_config(const struct virtio_blk_config *c, bool translated, uint8_t *m)
{
    unsigned e = exponent(block_physical_sector(c->block));
    unsigned most = translated ? SEG_MAX_TRANSLATED : SEG_MAX;
    st64(m + C_CAPACITY, block_size(c->block) / BLOCK_SECTOR);
    st32(m + C_SIZE_MAX, SIZE_MAX_TRANSLATED);
    st32(m + C_SEG_MAX, (uint32_t)min_u64(most, c->queue_size > 3 ? c->queue_size - 2u : 1));
    st32(m + C_BLK_SIZE, BLOCK_SECTOR);
    m[C_PHYSICAL_EXP] = (uint8_t)e;
    st16(m + C_MIN_IO, (uint16_t)(1u << e));
    m[C_WRITEBACK] = !c->writethrough;
    st16(m + C_QUEUES, c->queues);
    st32(m + C_DISCARD_SECTORS, RANGE_SECTORS);
    st32(m + C_DISCARD_SEGS, 1);
    st32(m + C_DISCARD_ALIGN, 1u << e);
    st32(m + C_ZEROES_SECTORS, RANGE_SECTORS);
    st32(m + C_ZEROES_SEGS, 1);
    m[C_ZEROES_UNMAP] = 1;
}

static int init_pci(struct virtio_blk *b, const struct virtio_blk_config *c, struct err *e)
{
    uint8_t config[C_LEN] = {0};
    bool translated = virtio_pci_translated(c->host, &c->options);
    fill_config(c, translated, config);
    struct virtio_pci_setup s = {.host = c->host,
                                 .bus = c->bus,
                                 .devfn = c->devfn,
                                 .loop = block_loop(c->block),
                                 .ops = &ops,
                                 .options = c->options,
                                 .name = "virtio-blk-pci",
                                 .type = VIRTIO_BLK,
                                 .class_code = CLASS_CODE,
                                 .features = features(c) & ~(translated ? 0 : BIT(F_SIZE_MAX)),
                                 .queues = c->queues,
                                 .queue_size = c->queue_size,
                                 .config = config,
                                 .config_len = C_LEN};
    return virtio_pci_init(&b->pci, &s, e);
}

static void free_memory(struct virtio_blk *b)
{
    for (unsigned i = 0; i < b->fresh; i++)
        free(b->requests[i].many);
    free(b->requests);
    free(b->lanes);
    free(b);
}

int virtio_blk_create(const struct virtio_blk_config *config, struct virtio_blk **out, struct err *e)
{
    struct virtio_blk_config c = *config;
    c.queues = c.queues ? c.queues : 1;
    c.queue_size = c.queue_size ? c.queue_size : VIRTIO_BLK_QUEUE_SIZE;
    struct virtio_blk *b = calloc(1, sizeof *b);
    if (!b)
        return err_set(e, -ENOMEM, "virtio-blk-pci: no memory");
    b->requests = calloc((size_t)c.queues * c.queue_size, sizeof *b->requests);
    b->lanes = calloc(c.queues, sizeof *b->lanes);
    b->block = c.block;
    b->size = block_size(c.block);
    b->writethrough = c.writethrough;
    atomic_init(&b->writeback, !c.writethrough);
    strncpy(b->serial, c.serial ? c.serial : "", sizeof b->serial);
    ioloop_bell_init(&b->finish, finish, b);
    int rc = b->requests && b->lanes ? init_pci(b, &c, e)
                                     : err_set(e, -ENOMEM, "virtio-blk-pci: no memory for %u queues of %u requests",
                                               c.queues, c.queue_size);
    if (rc) {
        free_memory(b);
        return rc;
    }
    *out = b;
    return 0;
}

/* The cache's switch is where the machine's owner wants it, after a power cycle; a driver's own reset leaves it. */
void virtio_blk_reset(struct virtio_blk *b)
{
    virtio_pci_reset(&b->pci);
    pthread_mutex_lock(&b->pci.v.lock);
    set_writeback(b, !b->writethrough);
    pthread_mutex_unlock(&b->pci.v.lock);
}

static void remove_finish(void *opaque)
{
    struct virtio_blk *b = opaque;
    ioloop_bell_remove(b->pci.v.loop, &b->finish);
}

void virtio_blk_destroy(struct virtio_blk *b)
{
    if (!b)
        return;
    virtio_pci_reset(&b->pci);
    ioloop_call(b->pci.v.loop, remove_finish, b);
    virtio_pci_fini(&b->pci);
    free_memory(b);
}
