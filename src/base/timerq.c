#include "base/timerq.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int timerq_init(struct timerq *q, uint32_t cap)
{
    *q = (struct timerq){.cap = cap};
    q->heap = calloc(cap, sizeof *q->heap);
    pthread_mutex_init(&q->lock, NULL);
    atomic_init(&q->next, HEC_NS_NEVER);
    return q->heap ? 0 : -ENOMEM;
}

void timerq_fini(struct timerq *q)
{
    free(q->heap);
    pthread_mutex_destroy(&q->lock);
}

void timer_init(struct timer *t, void (*fn)(void *, uint64_t), void *opaque)
{
    *t = (struct timer){.fn = fn, .opaque = opaque, .pos = -1};
}

static void place(struct timerq *q, uint32_t i, struct timer *t)
{
    q->heap[i] = t;
    t->pos = (int32_t)i;
}

static void sift_up(struct timerq *q, uint32_t i)
{
    struct timer *t = q->heap[i];
    while (i && q->heap[(i - 1) / 2]->at > t->at) {
        place(q, i, q->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(q, i, t);
}

static void sift_down(struct timerq *q, uint32_t i)
{
    struct timer *t = q->heap[i];
    for (;;) {
        uint32_t kid = 2 * i + 1;
        if (kid >= q->n)
            break;
        if (kid + 1 < q->n && q->heap[kid + 1]->at < q->heap[kid]->at)
            kid++;
        if (q->heap[kid]->at >= t->at)
            break;
        place(q, i, q->heap[kid]);
        i = kid;
    }
    place(q, i, t);
}

static void publish_next(struct timerq *q)
{
    atomic_store_explicit(&q->next, q->n ? q->heap[0]->at : HEC_NS_NEVER, memory_order_release);
}

static void heap_remove(struct timerq *q, struct timer *t)
{
    uint32_t i = (uint32_t)t->pos;
    struct timer *last = q->heap[--q->n];
    t->pos = -1;
    if (last == t)
        return;
    place(q, i, last);
    sift_up(q, i);
    sift_down(q, (uint32_t)last->pos);
}

void timer_arm(struct timerq *q, struct timer *t, uint64_t at)
{
    pthread_mutex_lock(&q->lock);
    uint64_t before = timerq_next(q);
    if (t->pos >= 0)
        heap_remove(q, t);
    assert(q->n < q->cap);
    t->at = at;
    place(q, q->n++, t);
    sift_up(q, q->n - 1);
    publish_next(q);
    bool earlier = timerq_next(q) < before;
    pthread_mutex_unlock(&q->lock);
    if (earlier && q->earlier)
        q->earlier(q->earlier_opaque);
}

void timer_cancel(struct timerq *q, struct timer *t)
{
    pthread_mutex_lock(&q->lock);
    if (t->pos >= 0)
        heap_remove(q, t);
    publish_next(q);
    pthread_mutex_unlock(&q->lock);
}

static struct timer *take_due(struct timerq *q, uint64_t now)
{
    struct timer *t = NULL;
    pthread_mutex_lock(&q->lock);
    if (q->n && q->heap[0]->at <= now) {
        t = q->heap[0];
        heap_remove(q, t);
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
