#include "base/epoch.h"

void epoch_init(struct epoch *e)
{
    pthread_mutex_init(&e->lock, NULL);
    atomic_init(&e->now, 1);
    for (unsigned i = 0; i < EPOCH_MAX_SLOTS; i++)
        atomic_init(&e->slot[i * EPOCH_STRIDE], 0);
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

/* The oldest epoch a reader may still be in. A slot that was handed out after the count was read is entered after that
 * too, and its reader finds what replaced the retired. */
static uint64_t epoch_oldest(struct epoch *e)
{
    uint64_t oldest = UINT64_MAX;
    uint32_t n = atomic_load_explicit(&e->slots, memory_order_seq_cst);
    for (uint32_t i = 0; i < n && i < EPOCH_MAX_SLOTS; i++) {
        uint64_t at = atomic_load_explicit(&e->slot[i * EPOCH_STRIDE], memory_order_seq_cst);
        if (at && at < oldest)
            oldest = at;
    }
    return oldest;
}

/* Under `lock`. The node lies in what `fn` frees. */
static void epoch_collect(struct epoch *e)
{
    uint64_t oldest = epoch_oldest(e);
    for (struct epoch_node **at = &e->retired, *n; (n = *at);) {
        if (n->at >= oldest) {
            at = &n->next;
            continue;
        }
        *at = n->next;
        n->fn(n->p);
    }
}

void epoch_retire(struct epoch *e, struct epoch_node *node, void *p, void (*fn)(void *))
{
    pthread_mutex_lock(&e->lock);
    *node = (struct epoch_node){.next = e->retired, .at = atomic_fetch_add(&e->now, 1), .p = p, .fn = fn};
    e->retired = node;
    epoch_collect(e);
    pthread_mutex_unlock(&e->lock);
}

void epoch_fini(struct epoch *e)
{
    for (struct epoch_node *n; (n = e->retired);) {
        e->retired = n->next;
        n->fn(n->p);
    }
    pthread_mutex_destroy(&e->lock);
}
