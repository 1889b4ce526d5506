/* Inside of the fabric; fabric.c (wiring, delivery) and fabric_cpu.c (what a vCPU's own thread does) share it, and
 * tests look in. */
#ifndef HEC_IRQ_FABRIC_PRIV_H
#define HEC_IRQ_FABRIC_PRIV_H

#include "irq/dest_map.h"
#include "irq/fabric.h"
#include "irq/inhibit.h"
#include "irq/lapic.h"

#include <pthread.h>

struct fabric {
    struct fabric_config cfg;                  /* (c) `ids` is our own copy */
    struct lapic *lapic;                       /* (c) [cfg.vcpus] */
    _Atomic dest_word_t *words;                /* (a) [cfg.vcpus], each written by its owner */
    _Atomic(struct dest_map *) map;            /* (a) readers are inside the epoch; NULL: search the words */
    uint32_t *index;                           /* (c) [max_id + 1] vCPU index by ID, DEST_NOBODY for holes */
    uint32_t max_id;                           /* (c) */
    struct inhibit inhibit;                    /* (a) */
    void (*eoi)(void *opaque, uint8_t vector); /* (c) */
    void *eoi_opaque;                          /* (c) */

    _Atomic uint64_t *flows; /* (a) [4 * cfg.vcpus] vectors pending whose arrow is drawn; NULL: no JSON trace */

    pthread_mutex_t map_lock;        /* one rebuild at a time */
    _Atomic uint64_t map_wanted;     /* (a) changes of words so far */
    uint64_t map_built;              /* (l) changes the published map has seen */
    uint64_t map_builds;             /* (l) how often it was built */
    void *(*map_alloc)(size_t size); /* (c) malloc; tests make it fail */
};

/* Offer `irq` to one APIC and kick its vCPU if it is news. 1 if taken, else 0. Any thread. */
int fabric_offer(struct fabric *f, uint32_t idx, struct irq irq);
/* Mark a vector as having an arrow; false if it has one. Take the mark away; true if it was there. Any thread. */
static inline bool fabric_flow_mark(struct fabric *f, uint32_t idx, uint8_t vector)
{
    return !(atomic_fetch_or(&f->flows[idx * 4 + vector / 64], BIT(vector % 64)) >> vector % 64 & 1);
}

static inline bool fabric_flow_unmark(struct fabric *f, uint32_t idx, uint8_t vector)
{
    return atomic_fetch_and(&f->flows[idx * 4 + vector / 64], ~BIT(vector % 64)) >> vector % 64 & 1;
}

/* An IPI of `self` with any shorthand. */
int fabric_send(struct fabric *f, uint32_t self, struct irq irq);
/* Publish a new map if the APIC's word has changed. Owner of `idx`, inside the epoch. */
void fabric_word_changed(struct fabric *f, uint32_t idx);

#endif
