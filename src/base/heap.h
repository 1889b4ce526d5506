/* A binary min-heap of intrusive nodes: earliest key first, ties in no order. Never allocates after heap_init(); the
 * owner locks. */
#ifndef HEC_BASE_HEAP_H
#define HEC_BASE_HEAP_H

#include <stdbool.h>
#include <stdint.h>

struct heap_node {
    uint64_t key;
    int32_t pos; /* place in the heap, -1 when in none */
};

struct heap {
    struct heap_node **a;
    uint32_t n, cap;
};

int heap_init(struct heap *h, uint32_t cap); /* 0 or -ENOMEM */
void heap_fini(struct heap *h);
/* `n` must not be in a heap, and there must be room. */
void heap_push(struct heap *h, struct heap_node *n, uint64_t key);
void heap_remove(struct heap *h, struct heap_node *n);

static inline struct heap_node *heap_min(const struct heap *h)
{
    return h->n ? h->a[0] : (struct heap_node *)0;
}

/* Key of the first node, or UINT64_MAX. */
static inline uint64_t heap_min_key(const struct heap *h)
{
    return h->n ? h->a[0]->key : UINT64_MAX;
}

static inline bool heap_holds(const struct heap_node *n)
{
    return n->pos >= 0;
}

#endif
