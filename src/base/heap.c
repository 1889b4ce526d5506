#include "base/heap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int heap_init(struct heap *h, uint32_t cap)
{
    *h = (struct heap){.a = calloc(cap ? cap : 1, sizeof *h->a), .cap = cap};
    return h->a ? 0 : -ENOMEM;
}

void heap_fini(struct heap *h)
{
    free(h->a);
}

static void place(struct heap *h, uint32_t i, struct heap_node *n)
{
    h->a[i] = n;
    n->pos = (int32_t)i;
}

static void sift_up(struct heap *h, uint32_t i)
{
    struct heap_node *n = h->a[i];
    while (i && h->a[(i - 1) / 2]->key > n->key) {
        place(h, i, h->a[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(h, i, n);
}

static void sift_down(struct heap *h, uint32_t i)
{
    struct heap_node *n = h->a[i];
    for (;;) {
        uint32_t kid = 2 * i + 1;
        if (kid >= h->n)
            break;
        if (kid + 1 < h->n && h->a[kid + 1]->key < h->a[kid]->key)
            kid++;
        if (h->a[kid]->key >= n->key)
            break;
        place(h, i, h->a[kid]);
        i = kid;
    }
    place(h, i, n);
}

void heap_push(struct heap *h, struct heap_node *n, uint64_t key)
{
    assert(h->n < h->cap && n->pos < 0);
    n->key = key;
    place(h, h->n++, n);
    sift_up(h, h->n - 1);
}

void heap_remove(struct heap *h, struct heap_node *n)
{
    uint32_t i = (uint32_t)n->pos;
    assert(i < h->n && h->a[i] == n);
    struct heap_node *last = h->a[--h->n];
    n->pos = -1;
    if (last == n)
        return;
    place(h, i, last);
    sift_up(h, i);
    sift_down(h, (uint32_t)last->pos);
}
