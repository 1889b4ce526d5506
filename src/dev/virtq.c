#include "dev/virtq_priv.h"

#include "dev/virtio_pci.h"
#include "mem/ram.h"
#include "pci/dma.h"

#include <assert.h>

/* ---- guest memory ---- */

bool virtq_bad(struct virtq *q, const char *why, uint64_t what)
{
    virtio_broken(q->v, q, why, what);
    return false;
}

/* Whether addresses are guest-physical. */
static bool direct(const struct virtq *q)
{
    return q->hva[VIRTQ_DESC];
}

void *virtq_at(struct virtq *q, enum virtq_area area, uint64_t off, unsigned len)
{
    if (likely(q->hva[area]))
        return q->hva[area] + off;
    uint64_t got = len;
    bool write = area == VIRTQ_DEVICE || (area == VIRTQ_DESC && q->packed);
    void *p = pci_dma_map(q->v->func, q->addr[area] + off, &got, write);
    if (p && got >= len)
        return p;
    virtq_bad(q, "ring that does not translate", q->addr[area] + off);
    return NULL;
}

void virtq_stored(struct virtq *q, const void *hva, unsigned len)
{
    pci_dma_stored(q->v->func, hva, len);
}

/* Indirect tables may lie anywhere, so nothing is assumed about `p`. */
void virtq_desc_load(const struct virtq *q, const void *p, struct virtq_desc *d)
{
    typedef uint64_t __attribute__((aligned(1), may_alias)) any64;
    const volatile any64 *word = p;
    d->addr = word[0];
    uint64_t rest = word[1];
    d->len = (uint32_t)rest;
    d->flags = (uint16_t)(rest >> (q->packed ? 48 : 32));
    d->next = (uint16_t)(rest >> 48);
    d->id = (uint16_t)(rest >> 32);
}

/* ---- chains ---- */

static bool add_translated(struct virtq_walk *w, const struct virtq_desc *d)
{
    struct virtq_chain *c = w->c;
    unsigned n = c->outs + c->ins, before = n;
    bool write = d->flags & DESC_WRITE;
    if (!pci_dma_iov(w->q->v->func, d->addr, d->len, write, w->iov, &n, w->max))
        return virtq_bad(w->q, "buffer that does not translate, or in too many pieces", d->addr);
    *(write ? &c->ins : &c->outs) += n - before;
    return true;
}

/* Guest-physical: one piece, or the continuation of the last. */
static bool add_direct(struct virtq_walk *w, const struct virtq_desc *d)
{
    struct virtq_chain *c = w->c;
    bool write = d->flags & DESC_WRITE;
    unsigned n = c->outs + c->ins, *kind = write ? &c->ins : &c->outs;
    uint8_t *hva = ram_hva(w->q->v->ram, d->addr, d->len);
    if (!hva)
        return virtq_bad(w->q, "buffer that is not in memory", d->addr);
    if (*kind && (uint8_t *)w->iov[n - 1].iov_base + w->iov[n - 1].iov_len == hva) {
        w->iov[n - 1].iov_len += d->len;
        return true;
    }
    if (n == w->max)
        return virtq_bad(w->q, "chain in too many pieces", n);
    w->iov[n] = (struct iovec){hva, d->len};
    ++*kind;
    return true;
}

bool virtq_add(struct virtq_walk *w, const struct virtq_desc *d)
{
    struct virtq_chain *c = w->c;
    bool write = d->flags & DESC_WRITE;
    w->descs++;
    if (!d->len)
        return virtq_bad(w->q, "buffer of no bytes", d->addr);
    if (!write && c->ins)
        return virtq_bad(w->q, "readable buffer behind a writable one", d->addr);
    if (c->out_len + c->in_len + d->len > UINT32_MAX)
        return virtq_bad(w->q, "chain of 4 GiB and more", d->addr);
    *(write ? &c->in_len : &c->out_len) += d->len;
    return direct(w->q) ? add_direct(w, d) : add_translated(w, d);
}

/* Entry `i` of an indirect table, which `base` points to if it is mapped. */
static bool indirect_entry(struct virtq *q, const struct virtq_desc *table, const uint8_t *base, unsigned i,
                           struct virtq_desc *d)
{
    uint8_t copy[16];
    if (!base && !pci_dma_read(q->v->func, table->addr + 16 * i, copy, sizeof copy))
        return virtq_bad(q, "indirect table that does not translate", table->addr + 16 * i);
    virtq_desc_load(q, base ? base + 16 * i : copy, d);
    return true;
}

/* 2.7.5.3 "Indirect Descriptors" and 2.8.7 "Indirect Flag: Scatter-Gather Support": split tables are chained by `next`,
 * packed ones are taken from first to last. */
bool virtq_add_indirect(struct virtq_walk *w, const struct virtq_desc *table)
{
    struct virtq *q = w->q;
    const uint8_t *base = direct(q) ? ram_hva(q->v->ram, table->addr, table->len) : NULL;
    unsigned entries = table->len / 16, i = 0;
    if (!virtio_has(q->v, VIRTIO_F_INDIRECT_DESC))
        return virtq_bad(q, "indirect table without VIRTIO_F_INDIRECT_DESC", table->addr);
    if (!table->len || table->len % 16 || (!q->packed && table->flags & DESC_NEXT))
        return virtq_bad(q, "malformed indirect descriptor", table->addr);
    if (direct(q) && !base)
        return virtq_bad(q, "indirect table that is not in memory", table->addr);
    for (struct virtq_desc d;;) {
        if (w->descs == VIRTQ_SIZE_MAX)
            return virtq_bad(q, "endless indirect table", table->addr);
        if (!indirect_entry(q, table, base, i, &d))
            return false;
        if (d.flags & DESC_INDIRECT)
            return virtq_bad(q, "indirect table in an indirect table", d.addr);
        if (!virtq_add(w, &d))
            return false;
        if (q->packed ? i + 1 == entries : !(d.flags & DESC_NEXT))
            return true;
        i = q->packed ? i + 1 : d.next;
        if (i >= entries)
            return virtq_bad(q, "next past the end of an indirect table", i);
    }
}

/* ---- what devices call ---- */

bool virtq_pop(struct virtq *q, struct virtq_chain *c, struct iovec *iov, unsigned max)
{
    struct virtq_walk w = {.q = q, .c = c, .iov = iov, .max = max};
    if (!q->live)
        return false;
    *c = (struct virtq_chain){.slots = 1};
    if (!(q->packed ? virtq_packed_pop(q, &w) : virtq_split_pop(q, &w)))
        return false;
    q->in_flight++;
    return true;
}

void virtq_unpop(struct virtq *q, const struct virtq_chain *c)
{
    q->in_flight--;
    if (!q->live)
        return;
    if (q->packed)
        virtq_packed_unpop(q, c);
    else
        q->next_avail--;
}

static void tell_stored(struct virtq *q, const struct iovec *in, uint64_t len)
{
    for (; len; in++) {
        uint64_t n = min_u64(in->iov_len, len);
        pci_dma_stored(q->v->func, in->iov_base, n);
        len -= n;
    }
}

void virtq_push(struct virtq *q, const struct virtq_chain *c, const struct iovec *in, uint32_t len)
{
    assert(q->in_flight && len <= c->in_len);
    q->in_flight--;
    tell_stored(q, in, len);
    if (!q->live)
        return;
    if (q->packed)
        virtq_packed_push(q, c, len);
    else
        virtq_split_push(q, c, len);
}

void virtq_flush(struct virtq *q)
{
    if (!q->live || !q->unflushed)
        return;
    bool fire = q->packed ? virtq_packed_flush(q) : virtq_split_flush(q);
    q->unflushed = 0;
    if (fire && q->live)
        virtio_pci_fire_queue(q->v, q);
}

static void set_armed(struct virtq *q, bool on)
{
    if (q->packed)
        virtq_packed_arm(q, on);
    else
        virtq_split_arm(q, on);
}

void virtq_disarm(struct virtq *q)
{
    if (q->live)
        set_armed(q, false);
}

/* Our wish is stored before we look; the driver stores the chain before it looks at our wish. */
bool virtq_arm(struct virtq *q)
{
    if (!q->live)
        return false;
    set_armed(q, true);
    atomic_thread_fence(memory_order_seq_cst);
    return !virtq_empty(q);
}

bool virtq_empty(struct virtq *q)
{
    if (!q->live)
        return true;
    return q->packed ? virtq_packed_empty(q) : virtq_split_empty(q);
}

/* ---- bytes of iovecs ---- */

static size_t copy(const struct iovec *iov, unsigned n, size_t off, uint8_t *buf, size_t len, bool to)
{
    size_t done = 0;
    for (unsigned i = 0; i < n && done < len; i++) {
        if (off >= iov[i].iov_len) {
            off -= iov[i].iov_len;
            continue;
        }
        uint8_t *at = (uint8_t *)iov[i].iov_base + off;
        size_t part = min_u64(iov[i].iov_len - off, len - done);
        memcpy(to ? at : buf + done, to ? buf + done : at, part);
        done += part;
        off = 0;
    }
    return done;
}

size_t virtq_copy_from(const struct iovec *iov, unsigned n, size_t off, void *buf, size_t len)
{
    return copy(iov, n, off, buf, len, false);
}

size_t virtq_copy_to(const struct iovec *iov, unsigned n, size_t off, const void *buf, size_t len)
{
    return copy(iov, n, off, (uint8_t *)(uintptr_t)buf, len, true);
}

/* ---- start and stop ---- */

static void take_registers(struct virtq *q)
{
    pthread_mutex_lock(&q->v->lock);
    q->size = q->reg_enable ? q->reg_size : 0;
    memcpy(q->addr, q->reg_addr, sizeof q->addr);
    pthread_mutex_unlock(&q->v->lock);
}

static bool map_areas(struct virtq *q)
{
    unsigned n = q->size;
    const unsigned len[2][VIRTQ_AREAS] = {{16 * n, 6 + 2 * n, 6 + 8 * n}, {16 * n, 4, 4}};
    static const unsigned align[2][VIRTQ_AREAS] = {{16, 2, 4}, {16, 4, 4}};
    for (unsigned a = 0; a < VIRTQ_AREAS; a++) {
        q->hva[a] = NULL;
        if (q->addr[a] % align[q->packed][a])
            return virtq_bad(q, "misaligned ring", q->addr[a]);
        if (virtio_has(q->v, VIRTIO_F_ACCESS_PLATFORM))
            continue;
        q->hva[a] = ram_hva(q->v->ram, q->addr[a], len[q->packed][a]);
        if (!q->hva[a])
            return virtq_bad(q, "ring that is not in memory", q->addr[a]);
    }
    return true;
}

void virtq_start(struct virtq *q, uint64_t features)
{
    take_registers(q);
    q->packed = features & VIRTIO_F_RING_PACKED;
    q->event_idx = features & VIRTIO_F_EVENT_IDX;
    q->avail = q->next_avail = q->next_used = q->told = q->unflushed = 0;
    q->avail_wrap = q->used_wrap = q->told_wrap = true;
    q->in_flight = 0;
    if (!q->size)
        return;
    bool power = !(q->size & (q->size - 1));
    if (q->size > q->max_size || (!q->packed && !power))
        virtq_bad(q, "queue size", q->size);
    else
        q->live = map_areas(q);
}

void virtq_stop(struct virtq *q)
{
    q->live = false;
}

static void served(void *opaque)
{
    struct virtq *q = opaque;
    if (q->live && pci_func_masters(q->v->func))
        q->v->ops->serve(q->v, q);
}

void virtq_init(struct virtq *q, struct virtio *v, uint16_t index, uint16_t max_size)
{
    *q = (struct virtq){.v = v, .index = index, .max_size = max_size, .reg_size = max_size};
    atomic_init(&q->vector, VIRTIO_NO_VECTOR);
    ioloop_bell_init(&q->bell, served, q);
}
