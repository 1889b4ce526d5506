/* A cable whose other end is the test, in place of net.c, on a loop without a thread (fake_loop.h). Offloads are done
 * in software, as for a cable that knows none. For unit tests and fuzzers; include it in one file of a program. */
#ifndef HEC_TESTS_FAKE_NET_H
#define HEC_TESTS_FAKE_NET_H

#include "fake_loop.h"

#include "dev/net.h"
#include "dev/net_frame.h"
#include "dev/net_gso.h"

#define FAKE_SEEN 64u

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

static inline void fake_net_init(struct net *n, struct ioloop *l)
{
    *n = (struct net){.loop = l};
    n->seen = calloc(FAKE_SEEN, sizeof *n->seen);
    n->wait = calloc(1, sizeof *n->wait);
    ensure(n->seen && n->wait);
}

static inline void fake_net_fini(struct net *n)
{
    ensure(!n->plugged);
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
    ensure(iovs <= NET_IOVS + 1 && len <= NET_FRAME_MAX && len == net_iov_len(frame, iovs));
    f->len = net_gather(frame, iovs, f->bytes, sizeof f->bytes);
    return true;
}

void net_send(struct net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs)
{
    static uint8_t flat[NET_FRAME_MAX];
    size_t len = net_iov_len(frame, iovs);
    struct iovec one = {flat, len};
    ensure(len >= 14 && len <= NET_FRAME_MAX);
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
    ensure(n->plugged);
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
