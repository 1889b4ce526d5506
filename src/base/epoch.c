#include "base/epoch.h"

#include <sched.h>
#include <stdlib.h>

struct epoch_retired {
    struct epoch_retired *next;
    uint64_t at; /* freed once every slot is 0 or later than this */
    void *p;
    void (*fn)(void *);
};

void epoch_init(struct epoch *e)
{
    pthread_mutex_init(&e->lock, NULL);
    atomic_init(&e->now, 1);
    for (int i = 0; i < EPOCH_MAX_SLOTS; i++)
        atomic_init(&e->slot[i], 0);
    atomic_init(&e->slots, 0);
    e->retired = NULL;
}

int epoch_slot(struct epoch *e)
{
    uint32_t n = atomic_fetch_add(&e->slots, 1);
    if (n >= EPOCH_MAX_SLOTS) {
        atomic_fetch_sub(&e->slots, 1);
        return -1;
    }
    return (int)n;
}

/* The oldest epoch a reader may still be in. */
static uint64_t epoch_oldest(struct epoch *e)
{
    uint64_t oldest = UINT64_MAX;
    for (int i = 0; i < EPOCH_MAX_SLOTS; i++) {
        uint64_t at = atomic_load_explicit(&e->slot[i], memory_order_seq_cst);
        if (at && at < oldest)
            oldest = at;
    }
    return oldest;
}

static void epoch_collect(struct epoch *e)
{
    uint64_t oldest = epoch_oldest(e);
    for (struct epoch_retired **pp = &e->retired; *pp;) {
        struct epoch_retired *r = *pp;
        if (r->at >= oldest) {
            pp = &r->next;
            continue;
        }
        *pp = r->next;
        r->fn(r->p);
        free(r);
    }
}

void epoch_retire(struct epoch *e, void *p, void (*fn)(void *))
{
    struct epoch_retired *r = malloc(sizeof *r);
    pthread_mutex_lock(&e->lock);
    uint64_t at = atomic_fetch_add(&e->now, 1);
    if (r) {
        *r = (struct epoch_retired){.next = e->retired, .at = at, .p = p, .fn = fn};
        e->retired = r;
    } else {
        while (epoch_oldest(e) <= at)
            sched_yield();
        fn(p);
    }
    epoch_collect(e);
    pthread_mutex_unlock(&e->lock);
}

void epoch_fini(struct epoch *e)
{
    while (e->retired) {
        struct epoch_retired *r = e->retired;
        e->retired = r->next;
        r->fn(r->p);
        free(r);
    }
    pthread_mutex_destroy(&e->lock);
}
