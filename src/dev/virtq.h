/* Virtqueues: how a driver hands buffers to a device and gets them back. VIRTIO 1.2, 2.7 "Split Virtqueues", 2.8
 * "Packed Virtqueues".
 *
 * All of this belongs to the thread of the device's ioloop, but the bell, which anybody rings, and the registers, which
 * are virtio.c's. A device's way through a queue:
 *
 *     virtq_disarm(q);
 *     do {
 *         while (virtq_pop(q, &chain, iov, max))
 *             ... work; virtq_push(q, &chain, ...) now or later, in any order ...
 *         virtq_flush(q);
 *     } while (virtq_arm(q));
 *
 * What is pushed is seen by the driver at virtq_flush(), which also decides whether it is told, once for all of them.
 *
 * Nothing in guest memory is believed: each field is read once, and a chain that the specification forbids breaks the
 * device (virtio_broken()): DEVICE_NEEDS_RESET, and no queue moves before the driver has reset it.
 *
 * Addresses: without VIRTIO_F_ACCESS_PLATFORM they are guest-physical, and the rings' hvas are found once. With it they
 * are the bus', and each access is translated anew, so that an invalidation holds for the next.
 */
#ifndef HEC_DEV_VIRTQ_H
#define HEC_DEV_VIRTQ_H

#include "base/ioloop.h"

#include <sys/uio.h>

#define VIRTQ_SIZE_MAX 1024u /* entries, and descriptors in a chain */

struct virtio;

/* A chain of buffers that was taken from a queue. */
struct virtq_chain {
    uint16_t id;              /* how the driver knows it */
    uint16_t slots;           /* entries of the ring it takes */
    unsigned outs, ins;       /* iovecs: first those the device reads, then those it writes */
    uint64_t out_len, in_len; /* bytes of them; together below 4 GiB */
};

/* The three areas of a queue: descriptors, what the driver writes ("available", "driver event suppression"), and what
 * the device writes ("used", "device event suppression"). */
enum virtq_area { VIRTQ_DESC, VIRTQ_DRIVER, VIRTQ_DEVICE, VIRTQ_AREAS };

struct virtq {
    struct virtio *v;        /* (c) */
    uint16_t index;          /* (c) */
    uint16_t max_size;       /* (c) entries it may have */
    struct ioloop_bell bell; /* rung by the driver's notifications */
    _Atomic uint16_t vector; /* (a) MSI-X; FFFFh: none */
    /* registers, under the device's lock */
    uint16_t reg_size;
    bool reg_enable;
    uint64_t reg_addr[VIRTQ_AREAS];
    /* the loop's thread */
    bool live;                  /* started, not stopped or broken */
    bool packed, event_idx;     /* as negotiated */
    uint16_t size;              /* entries */
    uint64_t addr[VIRTQ_AREAS]; /* for translated access */
    uint8_t *hva[VIRTQ_AREAS];  /* NULL: translated access */
    uint16_t avail;             /* split: the driver's index when it was last read */
    uint16_t next_avail;        /* the next entry to take */
    uint16_t next_used;         /* the next entry to fill */
    uint16_t unflushed;         /* entries filled and not seen by the driver */
    uint16_t told;              /* next_used when it was last decided whether to interrupt */
    bool avail_wrap, used_wrap; /* packed: the wrap counters of these two */
    bool told_wrap;             /* packed */
    uint16_t first_used;        /* packed: the first unflushed entry, whose flags make them all visible */
    uint16_t first_flags;       /* packed: those flags */
    unsigned in_flight;         /* chains taken and not pushed */
};

/* ---- the loop's thread only ---- */
/* Take the next chain; its iovecs (hvas in guest memory, good until it is pushed) go to iov[0 .. outs + ins). False:
 * there is none now, or the device is broken. A chain of more than `max` pieces breaks it: `max` is at least what the
 * device has told the driver, or VIRTQ_SIZE_MAX. */
bool virtq_pop(struct virtq *q, struct virtq_chain *c, struct iovec *iov, unsigned max);
/* Put back the chain that was popped last; the next pop gives it again. May be repeated, in reverse order. */
void virtq_unpop(struct virtq *q, const struct virtq_chain *c);
/* Give a chain back. The device has stored `len` bytes, from the first byte of `in` on (the chain's writable iovecs;
 * NULL if len is 0), which others that look at RAM are told here. Does nothing but forget it on a queue that was
 * stopped meanwhile. */
void virtq_push(struct virtq *q, const struct virtq_chain *c, const struct iovec *in, uint32_t len);
/* Show the driver what was pushed, and interrupt it if it wants that. */
void virtq_flush(struct virtq *q);
/* The driver need not notify for now (a hint). */
void virtq_disarm(struct virtq *q);
/* The driver is to notify of the next chain. True: there is one already, look again. */
bool virtq_arm(struct virtq *q);
/* Whether nothing is there to be popped, as of now. */
bool virtq_empty(struct virtq *q);

/* ---- any thread: bytes of iovecs ---- */
/* Copy up to `len` bytes that begin `off` bytes into the iovecs; returns how many there were. */
size_t virtq_copy_from(const struct iovec *iov, unsigned n, size_t off, void *buf, size_t len);
size_t virtq_copy_to(const struct iovec *iov, unsigned n, size_t off, const void *buf, size_t len);

/* ---- virtio.c's ---- */
void virtq_init(struct virtq *q, struct virtio *v, uint16_t index, uint16_t max_size);
/* Take the registers over as they are and make it live; breaks the device if they are no good. */
void virtq_start(struct virtq *q, uint64_t features);
void virtq_stop(struct virtq *q);

#endif
