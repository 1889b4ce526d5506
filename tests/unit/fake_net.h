/* A loop without a thread and a cable whose other end is the test, in place of ioloop.c and net.c: whoever includes
 * this runs the loop's bells and timers when it likes. Offloads are done in software, as for a cable that knows none.
 * For unit tests and fuzzers; include it in one file of a program. */
#ifndef HEC_TESTS_FAKE_NET_H
#define HEC_TESTS_FAKE_NET_H

#include "dev/net.h"
#include "dev/net_frame.h"
#include "dev/net_gso.h"

#include <stdio.h>
#include <stdlib.h>

#define fake_ensure(what)                                                                                              \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                                                 \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

#define FAKE_SEEN   64u
#define FAKE_TIMERS 4u

struct ioloop {
    struct ioloop_bell *first;
    struct ioloop_timer *timer[FAKE_TIMERS];
    uint64_t at[FAKE_TIMERS];
};

struct fake_frame {
    size_t len;
    uint8_t bytes[NET_FRAME_MAX];
};

struct net {
    struct ioloop *loop;
    struct net_peer peer;
    bool plugged;
    unsigned sent, refused, lost, resumes;
    struct fake_frame *seen; /* the last FAKE_SEEN that were sent */
    bool held;               /* a frame the card had no room for; it is given again when the card resumes */
    struct fake_frame *wait;
};

/* ---- the loop ---- */
void ioloop_bell_init(struct ioloop_bell *b, void (*fn)(void *), void *opaque)
{
    b->fn = fn;
    b->opaque = opaque;
    atomic_init(&b->next, NULL);
    atomic_init(&b->rung, false);
}

void ioloop_ring(struct ioloop *l, struct ioloop_bell *b)
{
    if (atomic_exchange(&b->rung, true))
        return;
    struct ioloop_bell *at = l->first;
    atomic_store(&b->next, NULL);
    if (!at) {
        l->first = b;
        return;
    }
    while (atomic_load(&at->next))
        at = atomic_load(&at->next);
    atomic_store(&at->next, b);
}

void ioloop_bell_remove(struct ioloop *l, struct ioloop_bell *b)
{
    struct ioloop_bell *at = l->first;
    if (at == b)
        l->first = atomic_load(&b->next);
    for (; at; at = atomic_load(&at->next))
        if (atomic_load(&at->next) == b)
            atomic_store(&at->next, atomic_load(&b->next));
    atomic_store(&b->rung, false);
}

/* Until nothing rings; false: it still does after `max` calls. */
static inline bool fake_loop_run(struct ioloop *l, unsigned max)
{
    for (struct ioloop_bell *b; (b = l->first); max--) {
        if (!max)
            return false;
        l->first = atomic_load(&b->next);
        atomic_store(&b->rung, false);
        b->fn(b->opaque);
    }
    return true;
}

void ioloop_call(struct ioloop *l, void (*fn)(void *opaque), void *opaque)
{
    fn(opaque);
}

void ioloop_timer_init(struct ioloop_timer *t, void (*fn)(void *), void *opaque)
{
    *t = (struct ioloop_timer){.fn = fn, .opaque = opaque};
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
    fake_ensure(i < FAKE_TIMERS);
    l->timer[i] = t;
    l->at[i] = at;
}

/* The armed timers end now, whatever the clock says; how many there were. */
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

/* ---- the cable ---- */
static inline void fake_net_init(struct net *n, struct ioloop *l)
{
    *n = (struct net){.loop = l};
    n->seen = calloc(FAKE_SEEN, sizeof *n->seen);
    n->wait = calloc(1, sizeof *n->wait);
    fake_ensure(n->seen && n->wait);
}

static inline void fake_net_fini(struct net *n)
{
    fake_ensure(!n->plugged);
    free(n->seen);
    free(n->wait);
}

struct ioloop *net_loop(const struct net *n)
{
    return n->loop;
}

void net_set_peer(struct net *n, const struct net_peer *peer)
{
    n->plugged = peer != NULL;
    n->peer = peer ? *peer : (struct net_peer){0};
}

static inline bool fake_net_emit(void *opaque, const struct iovec *frame, unsigned iovs, size_t len)
{
    struct net *n = opaque;
    struct fake_frame *f = &n->seen[n->sent++ % FAKE_SEEN];
    fake_ensure(iovs <= NET_IOVS + 1 && len <= NET_FRAME_MAX && len == net_iov_len(frame, iovs));
    f->len = net_gather(frame, iovs, f->bytes, sizeof f->bytes);
    return true;
}

void net_send(struct net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs)
{
    static uint8_t flat[NET_FRAME_MAX];
    size_t len = net_iov_len(frame, iovs);
    struct iovec one = {flat, len};
    fake_ensure(len >= 14 && len <= NET_FRAME_MAX);
    net_gather(frame, iovs, flat, len);
    if (!hdr)
        fake_net_emit(n, &one, 1, len);
    else if (!net_complete(hdr, &one, 1, len, fake_net_emit, n))
        n->refused++;
}

void net_flush(struct net *n)
{
}

void net_lost(struct net *n)
{
    n->lost++;
}

/* A frame from the other end, in three pieces; whether the card took it. */
static inline bool fake_net_give(struct net *n, const void *bytes, size_t len)
{
    uint8_t *p = (uint8_t *)bytes;
    size_t a = min_u64(len, 5), b = min_u64(len - a, 290);
    struct iovec iov[3] = {{p, a}, {p + a, b}, {p + a + b, len - a - b}};
    fake_ensure(n->plugged);
    if (n->peer.receive(n->peer.opaque, NULL, iov, 3))
        return true;
    n->held = true;
    n->wait->len = len;
    memmove(n->wait->bytes, bytes, len);
    return false;
}

void net_resume(struct net *n)
{
    n->resumes++;
    if (!n->held || !n->plugged)
        return;
    n->held = false;
    fake_net_give(n, n->wait->bytes, n->wait->len);
}

#endif
