/* What the two ring formats share: access to guest memory, and chains as iovecs. Loop's thread only. */
#ifndef HEC_DEV_VIRTQ_PRIV_H
#define HEC_DEV_VIRTQ_PRIV_H

#include "dev/virtio.h"

/* VIRTIO 1.2, 2.7.5 "The Virtqueue Descriptor Table", 2.8.1 "Driver and Device Ring Wrap Counters". */
enum virtq_desc_flag {
    DESC_NEXT = 1,
    DESC_WRITE = 2,
    DESC_INDIRECT = 4,
    DESC_AVAIL = 1u << 7, /* packed only, as is the next */
    DESC_USED = 1u << 15
};

/* A descriptor as read once. The last two fields are `flags, next` in split rings and `id, flags` in packed ones. */
struct virtq_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next; /* split: the next descriptor */
    uint16_t id;   /* packed: the buffer's */
};

/* A chain that is being gathered. */
struct virtq_walk {
    struct virtq *q;
    struct virtq_chain *c;
    struct iovec *iov;
    unsigned max;   /* iovecs that iov[] has room for */
    unsigned descs; /* seen so far */
};

/* `len` bytes at `off` of an area, naturally aligned and at most 16. NULL: the device is broken. */
void *virtq_at(struct virtq *q, enum virtq_area area, uint64_t off, unsigned len);
/* Tell what was stored there. */
void virtq_stored(struct virtq *q, const void *hva, unsigned len);
/* Append a descriptor's buffer. False: the device is broken. */
bool virtq_add(struct virtq_walk *w, const struct virtq_desc *d);
/* Append the buffers of the table that `d` names. False: the device is broken. */
bool virtq_add_indirect(struct virtq_walk *w, const struct virtq_desc *d);
/* Break the device; always false. */
bool virtq_bad(struct virtq *q, const char *why, uint64_t what);

/* Decode the 16 bytes at `p`, each read once. */
void virtq_desc_load(const struct virtq *q, const void *p, struct virtq_desc *d);

bool virtq_split_pop(struct virtq *q, struct virtq_walk *w);
void virtq_split_push(struct virtq *q, const struct virtq_chain *c, uint32_t len);
bool virtq_split_flush(struct virtq *q); /* whether the driver wants an interrupt */
void virtq_split_arm(struct virtq *q, bool on);
bool virtq_split_empty(struct virtq *q);

bool virtq_packed_pop(struct virtq *q, struct virtq_walk *w);
void virtq_packed_unpop(struct virtq *q, const struct virtq_chain *c);
void virtq_packed_push(struct virtq *q, const struct virtq_chain *c, uint32_t len);
bool virtq_packed_flush(struct virtq *q);
void virtq_packed_arm(struct virtq *q, bool on);
bool virtq_packed_empty(struct virtq *q);

/* Fields of the rings, which the driver reads and writes at the same time. */
static inline uint16_t ring_load16(const void *p)
{
    return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE);
}

static inline void ring_store16(void *p, uint16_t v)
{
    __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE);
}

static inline void ring_store32(void *p, uint32_t v)
{
    __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELAXED);
}

/* 2.7.10 "Available Buffer Notification Suppression": whether `event` lies among what was done from `then` to `now`. */
static inline bool ring_crossed(uint16_t event, uint16_t now, uint16_t then)
{
    return (uint16_t)(now - event - 1) < (uint16_t)(now - then);
}

#endif
