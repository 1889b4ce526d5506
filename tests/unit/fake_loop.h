/* A loop without a thread, in place of base/ioloop.c, so that a test or a script has one outcome: bells and timers run
 * when whoever includes this says so. All zeros is a loop with nothing to do. Include it in one file of a program. */
#ifndef HEC_TESTS_FAKE_LOOP_H
#define HEC_TESTS_FAKE_LOOP_H

#include "ensure.h"

#include "base/ioloop.h"

#define FAKE_TIMERS 8u
#define FAKE_SETTLE 8u

struct ioloop {
    struct ioloop_bell *first, *last;
    struct ioloop_timer *timer[FAKE_TIMERS];
    struct fake_settle {
        void (*fn)(void *opaque);
        void *opaque;
    } settle[FAKE_SETTLE]; /* called behind each ioloop_call() */
    unsigned settles;
};

/* ---- bells ---- */
void ioloop_bell_init(struct ioloop_bell *b, void (*fn)(void *), void *opaque)
{
    *b = (struct ioloop_bell){.fn = fn, .opaque = opaque};
}

void ioloop_ring(struct ioloop *l, struct ioloop_bell *b)
{
    if (b->rung)
        return;
    b->rung = true;
    b->next = NULL;
    if (l->last)
        l->last->next = b;
    else
        l->first = b;
    l->last = b;
}

void ioloop_bell_remove(struct ioloop *l, struct ioloop_bell *b)
{
    struct ioloop_bell *before = NULL, *at = l->first;
    for (; at && at != b; at = at->next)
        before = at;
    if (!at)
        return;
    if (before)
        before->next = b->next;
    else
        l->first = b->next;
    if (l->last == b)
        l->last = before;
    b->rung = false;
}

/* Until nothing rings; false: it still does after `max` calls. */
static inline bool fake_loop_run(struct ioloop *l, unsigned max)
{
    for (struct ioloop_bell *b; (b = l->first); max--) {
        if (!max)
            return false;
        ioloop_bell_remove(l, b);
        b->fn(b->opaque);
    }
    return true;
}

/* ---- timers, whatever their time is ---- */
void ioloop_timer_init(struct ioloop_timer *t, void (*fn)(void *), void *opaque)
{
    *t = (struct ioloop_timer){.fn = fn, .opaque = opaque, .node.pos = -1};
}

void ioloop_timer_cancel(struct ioloop *l, struct ioloop_timer *t)
{
    for (unsigned i = 0; i < FAKE_TIMERS; i++)
        if (l->timer[i] == t)
            l->timer[i] = NULL;
}

void ioloop_timer_arm(struct ioloop *l, struct ioloop_timer *t, uint64_t at)
{
    unsigned i = 0;
    ioloop_timer_cancel(l, t);
    while (i < FAKE_TIMERS && l->timer[i])
        i++;
    ensure(i < FAKE_TIMERS);
    l->timer[i] = t;
}

/* Whether there was such a timer. */
static inline bool fake_loop_timer(struct ioloop *l, unsigned i)
{
    struct ioloop_timer *t = l->timer[i % FAKE_TIMERS];
    if (!t)
        return false;
    l->timer[i % FAKE_TIMERS] = NULL;
    t->fn(t->opaque);
    return true;
}

/* Those that are armed now, each once; how many there were. */
static inline unsigned fake_loop_timers(struct ioloop *l)
{
    struct ioloop_timer *due[FAKE_TIMERS];
    unsigned n = 0;
    for (unsigned i = 0; i < FAKE_TIMERS; i++)
        if (l->timer[i]) {
            due[n++] = l->timer[i];
            l->timer[i] = NULL;
        }
    for (unsigned i = 0; i < n; i++)
        due[i]->fn(due[i]->opaque);
    return n;
}

/* ---- the rest ---- */
static inline bool fake_loop_idle(const struct ioloop *l)
{
    bool idle = !l->first;
    for (unsigned i = 0; i < FAKE_TIMERS; i++)
        idle &= !l->timer[i];
    return idle;
}

static inline void fake_loop_settle(struct ioloop *l, void (*fn)(void *), void *opaque)
{
    ensure(l->settles < FAKE_SETTLE);
    l->settle[l->settles++] = (struct fake_settle){fn, opaque};
}

void ioloop_call(struct ioloop *l, void (*fn)(void *), void *opaque)
{
    fn(opaque);
    for (unsigned i = 0; i < l->settles; i++)
        l->settle[i].fn(l->settle[i].opaque);
}

bool ioloop_here(const struct ioloop *l)
{
    return true;
}

int ioloop_fd_add(struct ioloop *l, struct ioloop_fd *f, uint32_t events, struct err *e)
{
    return 0;
}

void ioloop_fd_events(struct ioloop *l, struct ioloop_fd *f, uint32_t events)
{
}

void ioloop_fd_remove(struct ioloop *l, struct ioloop_fd *f)
{
}

#endif
