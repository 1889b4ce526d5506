#include "base/timerq.h"

#include "base/bits.h"

int timerq_init(struct timerq *q, uint32_t cap)
{
    *q = (struct timerq){.earlier = NULL};
    pthread_mutex_init(&q->lock, NULL);
    atomic_init(&q->next, HEC_NS_NEVER);
    return heap_init(&q->heap, cap);
}

void timerq_fini(struct timerq *q)
{
    heap_fini(&q->heap);
    pthread_mutex_destroy(&q->lock);
}

void timer_init(struct timer *t, void (*fn)(void *, uint64_t), void *opaque)
{
    *t = (struct timer){.fn = fn, .opaque = opaque, .node.pos = -1};
}

static void publish_next(struct timerq *q)
{
    atomic_store_explicit(&q->next, heap_min_key(&q->heap), memory_order_release);
}

static void remove_if_armed(struct timerq *q, struct timer *t)
{
    if (heap_holds(&t->node))
        heap_remove(&q->heap, &t->node);
}

void timer_arm(struct timerq *q, struct timer *t, uint64_t at)
{
    pthread_mutex_lock(&q->lock);
    uint64_t before = timerq_next(q);
    remove_if_armed(q, t);
    heap_push(&q->heap, &t->node, at);
    publish_next(q);
    bool earlier = timerq_next(q) < before;
    pthread_mutex_unlock(&q->lock);
    if (earlier && q->earlier)
        q->earlier(q->earlier_opaque);
}

void timer_cancel(struct timerq *q, struct timer *t)
{
    pthread_mutex_lock(&q->lock);
    remove_if_armed(q, t);
    publish_next(q);
    pthread_mutex_unlock(&q->lock);
}

static struct timer *take_due(struct timerq *q, uint64_t now)
{
    struct timer *t = NULL;
    pthread_mutex_lock(&q->lock);
    if (heap_min_key(&q->heap) <= now && q->heap.n) {
        t = container_of(heap_min(&q->heap), struct timer, node);
        heap_remove(&q->heap, &t->node);
        publish_next(q);
    }
    pthread_mutex_unlock(&q->lock);
    return t;
}

unsigned timerq_run(struct timerq *q, uint64_t now)
{
    unsigned ran = 0;
    for (struct timer *t; timerq_next(q) <= now && (t = take_due(q, now)); ran++)
        t->fn(t->opaque, now);
    return ran;
}
