/* A loop with networks on it, and a card that collects what they deliver. */
#ifndef HEC_TESTS_NET_RIG_H
#define HEC_TESTS_NET_RIG_H

#include "dev/net.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct rig {
    struct epoch epoch;
    struct ioloop *loop;
    struct err err;
};

static inline void rig_init(struct rig *r)
{
    struct ioloop_config c = {.name = "net", .epoch = &r->epoch};
    memset(r, 0, sizeof *r);
    epoch_init(&r->epoch);
    assert_int_equal(ioloop_create(&c, &r->loop, &r->err), 0);
}

static inline void rig_fini(struct rig *r)
{
    ioloop_destroy(r->loop);
    epoch_fini(&r->epoch);
}

struct rig_frame {
    struct rig_frame *next;
    bool has_hdr;
    struct net_hdr hdr;
    size_t len;
    uint8_t bytes[];
};

/* A card. Any thread may wait for its frames. */
struct card {
    struct net *net;
    unsigned offloads;
    pthread_mutex_t lock;
    pthread_cond_t came;
    struct rig_frame *first, **last;
    unsigned count, refusals, moves;
    unsigned room; /* frames it takes before it refuses */
};

static inline bool card_receive(void *opaque, const struct net_hdr *hdr, const struct iovec *iov, unsigned n)
{
    struct card *c = opaque;
    pthread_mutex_lock(&c->lock);
    bool taken = c->room > 0;
    if (taken) {
        size_t len = 0;
        for (unsigned i = 0; i < n; i++)
            len += iov[i].iov_len;
        struct rig_frame *f = malloc(sizeof *f + len);
        f->next = NULL;
        f->has_hdr = hdr != NULL;
        f->hdr = hdr ? *hdr : (struct net_hdr){0};
        f->len = 0;
        for (unsigned i = 0; i < n; i++) {
            memcpy(f->bytes + f->len, iov[i].iov_base, iov[i].iov_len);
            f->len += iov[i].iov_len;
        }
        *c->last = f;
        c->last = &f->next;
        c->count++;
        c->room--;
    } else {
        c->refusals++;
    }
    pthread_cond_broadcast(&c->came);
    pthread_mutex_unlock(&c->lock);
    return taken;
}

static inline void card_moved(void *opaque)
{
    struct card *c = opaque;
    pthread_mutex_lock(&c->lock);
    c->moves++;
    pthread_mutex_unlock(&c->lock);
}

static inline unsigned card_moves(struct card *c)
{
    pthread_mutex_lock(&c->lock);
    unsigned n = c->moves;
    pthread_mutex_unlock(&c->lock);
    return n;
}

static inline void card_plug_here(void *opaque)
{
    struct card *c = opaque;
    struct net_peer p = {.receive = card_receive, .moved = card_moved, .opaque = c, .offloads = c->offloads};
    net_set_peer(c->net, &p);
}

static inline void card_unplug_here(void *opaque)
{
    struct card *c = opaque;
    net_set_peer(c->net, NULL);
}

static inline void card_init(struct card *c, struct net *net, unsigned offloads)
{
    memset(c, 0, sizeof *c);
    c->net = net;
    c->offloads = offloads;
    c->room = 1u << 30;
    c->last = &c->first;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->came, NULL);
    ioloop_call(net_loop(net), card_plug_here, c);
}

/* The oldest frame, waiting for one; the caller frees it. */
static inline struct rig_frame *card_take(struct card *c)
{
    pthread_mutex_lock(&c->lock);
    while (!c->first)
        pthread_cond_wait(&c->came, &c->lock);
    struct rig_frame *f = c->first;
    c->first = f->next;
    if (!c->first)
        c->last = &c->first;
    c->count--;
    pthread_mutex_unlock(&c->lock);
    return f;
}

static inline bool card_has(struct card *c)
{
    pthread_mutex_lock(&c->lock);
    bool has = c->first;
    pthread_mutex_unlock(&c->lock);
    return has;
}

static inline void card_wait_refusal(struct card *c)
{
    pthread_mutex_lock(&c->lock);
    while (!c->refusals)
        pthread_cond_wait(&c->came, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

static inline void card_resume_here(void *opaque)
{
    struct card *c = opaque;
    net_resume(c->net);
}

static inline void card_make_room(struct card *c, unsigned frames)
{
    pthread_mutex_lock(&c->lock);
    c->room = frames;
    c->refusals = 0;
    pthread_mutex_unlock(&c->lock);
    if (frames)
        ioloop_call(net_loop(c->net), card_resume_here, c);
}

struct card_sending {
    struct net *net;
    const struct net_hdr *hdr;
    const struct iovec *iov;
    unsigned iovs;
};

static inline void card_send_here(void *opaque)
{
    struct card_sending *s = opaque;
    net_send(s->net, s->hdr, s->iov, s->iovs);
    net_flush(s->net);
}

static inline void card_send_iov(struct card *c, const struct net_hdr *hdr, const struct iovec *iov, unsigned iovs)
{
    struct card_sending s = {c->net, hdr, iov, iovs};
    ioloop_call(net_loop(c->net), card_send_here, &s);
}

static inline void card_send(struct card *c, const void *frame, size_t len)
{
    struct iovec iov = {(void *)frame, len};
    card_send_iov(c, NULL, &iov, 1);
}

/* Unplug it, and forget what came. */
static inline void card_fini(struct card *c)
{
    ioloop_call(net_loop(c->net), card_unplug_here, c);
    while (c->first) {
        struct rig_frame *f = c->first;
        c->first = f->next;
        free(f);
    }
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->came);
}

#endif
