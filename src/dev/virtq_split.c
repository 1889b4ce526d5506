/* Split virtqueues. VIRTIO 1.2, 2.7 "Split Virtqueues". The driver's area: flags, idx, ring[size], used_event; the
 * device's: flags, idx, ring[size] of {id, len}, avail_event. */
#include "dev/virtq_priv.h"

enum { OFF_FLAGS = 0, OFF_IDX = 2, OFF_RING = 4 };
enum { AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };

/* Read the driver's index; false if there is nothing new, or it is impossible. */
static bool refresh(struct virtq *q)
{
    const void *p = virtq_at(q, VIRTQ_DRIVER, OFF_IDX, 2);
    if (!p)
        return false;
    uint16_t avail = ring_load16(p);
    if ((uint16_t)(avail - q->next_avail) > q->size)
        return virtq_bad(q, "available index too far ahead", avail);
    q->avail = avail;
    return avail != q->next_avail;
}

static bool walk(struct virtq *q, struct virtq_walk *w, uint16_t head)
{
    struct virtq_desc d = {.next = head, .flags = DESC_NEXT};
    while (d.flags & DESC_NEXT) {
        if (d.next >= q->size)
            return virtq_bad(q, "descriptor past the table's end", d.next);
        if (w->descs == q->size)
            return virtq_bad(q, "chain longer than the queue", head);
        const void *p = virtq_at(q, VIRTQ_DESC, 16u * d.next, 16);
        if (!p)
            return false;
        virtq_desc_load(q, p, &d);
        if (d.flags & DESC_INDIRECT)
            return virtq_add_indirect(w, &d);
        if (!virtq_add(w, &d))
            return false;
    }
    return true;
}

bool virtq_split_pop(struct virtq *q, struct virtq_walk *w)
{
    if (q->avail == q->next_avail && !refresh(q))
        return false;
    if (q->in_flight >= q->size)
        return virtq_bad(q, "more chains than the queue has entries", q->in_flight);
    const void *p = virtq_at(q, VIRTQ_DRIVER, OFF_RING + 2u * (q->next_avail % q->size), 2);
    if (!p)
        return false;
    w->c->id = ring_load16(p);
    if (!walk(q, w, w->c->id))
        return false;
    q->next_avail++;
    return true;
}

void virtq_split_push(struct virtq *q, const struct virtq_chain *c, uint32_t len)
{
    uint8_t *p = virtq_at(q, VIRTQ_DEVICE, OFF_RING + 8u * (q->next_used % q->size), 8);
    if (!p)
        return;
    ring_store32(p, c->id);
    ring_store32(p + 4, len);
    virtq_stored(q, p, 8);
    q->next_used++;
    q->unflushed++;
}

/* Our index is stored before we read the driver's wish; the driver stores its wish before it reads our index. */
bool virtq_split_flush(struct virtq *q)
{
    uint8_t *p = virtq_at(q, VIRTQ_DEVICE, OFF_IDX, 2);
    if (!p)
        return false;
    ring_store16(p, q->next_used);
    virtq_stored(q, p, 2);
    atomic_thread_fence(memory_order_seq_cst);
    uint16_t then = q->told;
    q->told = q->next_used;
    const void *wish = virtq_at(q, VIRTQ_DRIVER, q->event_idx ? OFF_RING + 2u * q->size : OFF_FLAGS, 2);
    if (!wish)
        return false;
    uint16_t v = ring_load16(wish);
    return q->event_idx ? ring_crossed(v, q->next_used, then) : !(v & AVAIL_NO_INTERRUPT);
}

/* With VIRTIO_F_EVENT_IDX the flags are 0, and an event index that is not moved on is what disarms. */
void virtq_split_arm(struct virtq *q, bool on)
{
    if (q->event_idx && !on)
        return;
    uint8_t *p = virtq_at(q, VIRTQ_DEVICE, q->event_idx ? OFF_RING + 8u * q->size : OFF_FLAGS, 2);
    if (!p)
        return;
    ring_store16(p, q->event_idx ? q->next_avail : on ? 0 : USED_NO_NOTIFY);
    virtq_stored(q, p, 2);
}

bool virtq_split_empty(struct virtq *q)
{
    return q->avail == q->next_avail && !refresh(q);
}
