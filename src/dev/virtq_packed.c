/* Packed virtqueues: one ring of descriptors, which the device overwrites. VIRTIO 1.2, 2.8 "Packed Virtqueues". The
 * other two areas say when to notify: {offset and wrap counter, flags}. */
#include "dev/virtq_priv.h"

enum { EVENT_OFFSET = 0, EVENT_FLAGS = 2 };
enum { EVENT_ENABLE = 0, EVENT_DISABLE = 1, EVENT_DESC = 2 };
enum { DESC_LEN = 8, DESC_ID = 12, DESC_FLAGS = 14 };

static void advance(uint16_t *at, bool *wrap, unsigned n, unsigned size)
{
    unsigned to = *at + n;
    if (to >= size) {
        to -= size;
        *wrap = !*wrap;
    }
    *at = (uint16_t)to;
}

static uint8_t *desc_at(struct virtq *q, unsigned i)
{
    return virtq_at(q, VIRTQ_DESC, 16u * i, 16);
}

bool virtq_packed_empty(struct virtq *q)
{
    const uint8_t *p = desc_at(q, q->next_avail);
    if (!p)
        return true;
    uint16_t flags = ring_load16(p + DESC_FLAGS);
    return !!(flags & DESC_AVAIL) != q->avail_wrap || !!(flags & DESC_USED) == q->avail_wrap;
}

/* The first descriptor's flags were made available last, so the others are there. */
static bool walk(struct virtq *q, struct virtq_walk *w, unsigned *slots)
{
    unsigned at = q->next_avail;
    for (struct virtq_desc d = {.flags = DESC_NEXT}; d.flags & DESC_NEXT; at = at + 1 == q->size ? 0 : at + 1) {
        if (*slots == q->size)
            return virtq_bad(q, "chain longer than the queue", at);
        const void *p = desc_at(q, at);
        if (!p)
            return false;
        virtq_desc_load(q, p, &d);
        if (d.flags & DESC_INDIRECT && (d.flags & DESC_NEXT || *slots))
            return virtq_bad(q, "indirect descriptor in a chain", at);
        if (!(d.flags & DESC_INDIRECT ? virtq_add_indirect(w, &d) : virtq_add(w, &d)))
            return false;
        w->c->id = d.id;
        ++*slots;
    }
    return true;
}

bool virtq_packed_pop(struct virtq *q, struct virtq_walk *w)
{
    unsigned slots = 0;
    if (virtq_packed_empty(q))
        return false;
    if (q->in_flight >= q->size)
        return virtq_bad(q, "more chains than the queue has entries", q->in_flight);
    if (!walk(q, w, &slots))
        return false;
    w->c->slots = (uint16_t)slots;
    advance(&q->next_avail, &q->avail_wrap, slots, q->size);
    return true;
}

void virtq_packed_unpop(struct virtq *q, const struct virtq_chain *c)
{
    if (q->next_avail < c->slots) {
        q->next_avail += q->size;
        q->avail_wrap = !q->avail_wrap;
    }
    q->next_avail -= c->slots;
}

/* The driver takes entries in order, so all wait behind the first one's flags. */
void virtq_packed_push(struct virtq *q, const struct virtq_chain *c, uint32_t len)
{
    uint8_t *p = desc_at(q, q->next_used);
    if (!p)
        return;
    uint16_t flags = (uint16_t)((q->used_wrap ? DESC_AVAIL | DESC_USED : 0) | (len ? DESC_WRITE : 0));
    ring_store32(p + DESC_LEN, len);
    __atomic_store_n((uint16_t *)(p + DESC_ID), c->id, __ATOMIC_RELAXED);
    if (q->unflushed++) {
        ring_store16(p + DESC_FLAGS, flags);
    } else {
        q->first_used = q->next_used;
        q->first_flags = flags;
    }
    virtq_stored(q, p, 16);
    advance(&q->next_used, &q->used_wrap, c->slots, q->size);
}

/* Both indices as they were without wrapping, that is seen from the present round. */
static bool wished(struct virtq *q, uint16_t offset)
{
    int event = offset & 0x7fff, then = q->told;
    if ((offset >> 15) != q->used_wrap)
        event -= q->size;
    if (q->told_wrap != q->used_wrap)
        then -= q->size;
    return ring_crossed((uint16_t)event, q->next_used, (uint16_t)then);
}

bool virtq_packed_flush(struct virtq *q)
{
    uint8_t *p = desc_at(q, q->first_used);
    if (!p)
        return false;
    ring_store16(p + DESC_FLAGS, q->first_flags);
    virtq_stored(q, p + DESC_FLAGS, 2);
    atomic_thread_fence(memory_order_seq_cst);
    const uint8_t *event = virtq_at(q, VIRTQ_DRIVER, 0, 4);
    if (!event)
        return false;
    uint16_t flags = ring_load16(event + EVENT_FLAGS);
    bool fire = flags != EVENT_DISABLE;
    if (q->event_idx && flags == EVENT_DESC)
        fire = wished(q, ring_load16(event + EVENT_OFFSET));
    q->told = q->next_used;
    q->told_wrap = q->used_wrap;
    return fire;
}

void virtq_packed_arm(struct virtq *q, bool on)
{
    uint8_t *p = virtq_at(q, VIRTQ_DEVICE, 0, 4);
    if (!p)
        return;
    if (on && q->event_idx)
        ring_store16(p + EVENT_OFFSET, (uint16_t)(q->next_avail | q->avail_wrap << 15));
    ring_store16(p + EVENT_FLAGS, !on ? EVENT_DISABLE : q->event_idx ? EVENT_DESC : EVENT_ENABLE);
    virtq_stored(q, p, 4);
}
