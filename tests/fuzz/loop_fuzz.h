/* An ioloop that is this thread's, so that a script has one outcome: bells and timers run when it says so. Included by
 * one file of a fuzzer; it takes base/ioloop.c's place. */
#ifndef HEC_TESTS_LOOP_FUZZ_H
#define HEC_TESTS_LOOP_FUZZ_H

#include "base/ioloop.h"

#define LOOP_TIMERS 8

struct ioloop {
    struct ioloop_bell *first, *last;
    struct ioloop_timer *timer[LOOP_TIMERS];
};

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

void ioloop_call(struct ioloop *l, void (*fn)(void *), void *opaque)
{
    fn(opaque);
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

void ioloop_timer_init(struct ioloop_timer *t, void (*fn)(void *), void *opaque)
{
    *t = (struct ioloop_timer){.fn = fn, .opaque = opaque, .node.pos = -1};
}

void ioloop_timer_cancel(struct ioloop *l, struct ioloop_timer *t)
{
    for (unsigned i = 0; i < LOOP_TIMERS; i++)
        if (l->timer[i] == t)
            l->timer[i] = NULL;
}

void ioloop_timer_arm(struct ioloop *l, struct ioloop_timer *t, uint64_t at)
{
    unsigned i = 0;
    ioloop_timer_cancel(l, t);
    while (l->timer[i])
        i++;
    ensure(i < LOOP_TIMERS);
    l->timer[i] = t;
}

static void loop_run_bells(struct ioloop *l, unsigned most)
{
    for (struct ioloop_bell *b; most-- && (b = l->first);) {
        ioloop_bell_remove(l, b);
        b->fn(b->opaque);
    }
}

/* Whatever their time is. */
static void loop_run_timer(struct ioloop *l, unsigned i)
{
    struct ioloop_timer *t = l->timer[i % LOOP_TIMERS];
    if (!t)
        return;
    l->timer[i % LOOP_TIMERS] = NULL;
    t->fn(t->opaque);
}

static bool loop_idle(const struct ioloop *l)
{
    bool idle = !l->first;
    for (unsigned i = 0; i < LOOP_TIMERS; i++)
        idle &= !l->timer[i];
    return idle;
}

#endif
