/* Device timers in guest time: a heap under one lock, served by vm/'s runner. (A vCPU's own APIC timer is not here: it
 * belongs to the vCPU and costs no lock.) */
#ifndef HEC_BASE_TIMERQ_H
#define HEC_BASE_TIMERQ_H

#include "base/heap.h"
#include "base/types.h"

#include <pthread.h>
#include <stdatomic.h>

struct timer {
    void (*fn)(void *opaque, uint64_t now); /* (c) runs on a worker thread, no queue lock held; may re-arm */
    void *opaque;                           /* (c) */
    struct heap_node node;                  /* (l) key: guest ns */
};

struct timerq {
    pthread_mutex_t lock;
    struct heap heap;        /* (l) of timer.node */
    _Atomic uint64_t next;   /* (a) earliest deadline, HEC_NS_NEVER if none */
    void (*earlier)(void *); /* (c) told after `next` has become earlier; may be NULL */
    void *earlier_opaque;    /* (c) */
};

/* ---- lifecycle ---- */
/* Room for `cap` timers, so that arming never allocates. 0 or -ENOMEM. */
int timerq_init(struct timerq *q, uint32_t cap);
void timerq_fini(struct timerq *q);
void timer_init(struct timer *t, void (*fn)(void *, uint64_t), void *opaque);

/* ---- any thread ---- */
void timer_arm(struct timerq *q, struct timer *t, uint64_t at); /* replaces an earlier deadline */
void timer_cancel(struct timerq *q, struct timer *t);           /* `fn` may be running; not waited for */
/* Guest ns of the earliest deadline, or HEC_NS_NEVER. */
static inline uint64_t timerq_next(struct timerq *q)
{
    return atomic_load_explicit(&q->next, memory_order_acquire);
}
/* Run every timer due at `now`, earliest first. Returns how many ran. */
unsigned timerq_run(struct timerq *q, uint64_t now);

#endif
