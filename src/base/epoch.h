/* Epoch reclaim: readers of published snapshots take no lock; a writer frees an old snapshot once every reader that
 * could have seen it has passed through a quiescent state.
 *
 * Invariant: a thread reads published pointers only between epoch_enter() and epoch_leave() on its own slot.
 */
#ifndef HEC_BASE_EPOCH_H
#define HEC_BASE_EPOCH_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#define EPOCH_MAX_SLOTS 4352 /* 4096 threads that are a vCPU each, and a few that serve devices */
#define EPOCH_STRIDE    8    /* words from one slot to the next: each has a cache line of its own */

/* Part of every object that may be retired, so that retiring needs no memory and cannot fail. Nothing in it means
 * anything before epoch_retire(). */
struct epoch_node {
    struct epoch_node *next;
    uint64_t at; /* freed once every slot is 0 or later than this */
    void *p;
    void (*fn)(void *);
};

struct epoch {
    pthread_mutex_t lock;       /* writers only */
    _Atomic uint64_t now;       /* (a) starts at 1 */
    _Atomic uint32_t slots;     /* (a) slots handed out; collecting looks at these only */
    struct epoch_node *retired; /* (l) */
    /* (a) every EPOCH_STRIDE-th word: 0 outside, else the epoch it entered in */
    _Atomic uint64_t slot[EPOCH_MAX_SLOTS * EPOCH_STRIDE];
};

/* ---- lifecycle ---- */
void epoch_init(struct epoch *e);
void epoch_fini(struct epoch *e); /* frees what is still retired; no reader may be inside */
/* A slot for a reading thread, or -1 when all are taken. Slots are never given back. */
int epoch_slot(struct epoch *e);

/* ---- any thread ---- */
/* Free `p` with `fn` once no reader can hold it; `node` is p's own. The caller has unpublished `p`. Neither allocates
 * nor waits, so a reader may call it from inside the epoch. `fn` is called under the lock: it may not retire. */
void epoch_retire(struct epoch *e, struct epoch_node *node, void *p, void (*fn)(void *));

/* ---- the slot's thread only ---- */
static inline void epoch_enter(struct epoch *e, int slot)
{
    atomic_store_explicit(&e->slot[slot * EPOCH_STRIDE], atomic_load_explicit(&e->now, memory_order_relaxed),
                          memory_order_seq_cst);
}

static inline void epoch_leave(struct epoch *e, int slot)
{
    atomic_store_explicit(&e->slot[slot * EPOCH_STRIDE], 0, memory_order_release);
}

#endif
