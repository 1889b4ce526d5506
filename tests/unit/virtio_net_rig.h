/* virtio-net on a cable whose other end is the test. */
#ifndef HEC_TESTS_VIRTIO_NET_RIG_H
#define HEC_TESTS_VIRTIO_NET_RIG_H

#include "virtio_rig.h"

#include "dev/net_priv.h"
#include "dev/virtio_net.h"

#define DEVFN   PCI_DEVFN(5, 0)
#define PAIRS   4u
#define SIZE    64u
#define BUFFER  2048u
#define HDR     12u
#define KEPT    256u
#define ALL     (~UINT64_C(0) & ~VIRTIO_F_RING_PACKED)
#define CONTROL (2 * PAIRS)

#define F_GUEST_CSUM BIT(1)
#define F_GUEST_TSO4 BIT(7)
#define F_HOST_TSO4  BIT(11)
#define F_MRG_RXBUF  BIT(15)
#define F_CTRL_RX    BIT(18)
#define F_MQ         BIT(22)

static const uint8_t our_mac[6] = {0x52, 0x54, 0, 1, 2, 3};

/* ---- the cable ---- */

struct seen {
    bool has_hdr;
    struct net_hdr hdr;
    size_t len;
    uint8_t bytes[4096];
};

struct cable {
    struct net n;
    pthread_mutex_t lock;
    pthread_cond_t came;
    unsigned sent, flushes, resumes; /* (l) */
    struct seen seen[KEPT];          /* (l) */
};

static inline struct cable *cable_of(struct net *n)
{
    return container_of(n, struct cable, n);
}

static inline void cable_send(struct net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs,
                              size_t len)
{
    struct cable *c = cable_of(n);
    pthread_mutex_lock(&c->lock);
    struct seen *s = &c->seen[c->sent++ % KEPT];
    s->has_hdr = hdr != NULL;
    s->hdr = hdr ? *hdr : (struct net_hdr){0};
    s->len = len;
    net_gather(frame, iovs, s->bytes, sizeof s->bytes);
    pthread_cond_broadcast(&c->came);
    pthread_mutex_unlock(&c->lock);
}

static inline void cable_flush(struct net *n)
{
    struct cable *c = cable_of(n);
    pthread_mutex_lock(&c->lock);
    c->flushes++;
    pthread_mutex_unlock(&c->lock);
}

static inline void cable_resume(struct net *n)
{
    struct cable *c = cable_of(n);
    pthread_mutex_lock(&c->lock);
    c->resumes++;
    pthread_cond_broadcast(&c->came);
    pthread_mutex_unlock(&c->lock);
}

static inline int cable_attach(struct net *n, struct err *e)
{
    return 0;
}

static inline void cable_close(struct net *n)
{
}

static const struct net_ops cable_ops = {
    .attach = cable_attach, .send = cable_send, .flush = cable_flush, .resume = cable_resume, .close = cable_close};

static inline unsigned cable_resumes(struct cable *c)
{
    pthread_mutex_lock(&c->lock);
    unsigned n = c->resumes;
    pthread_mutex_unlock(&c->lock);
    return n;
}

static inline void cable_wait_resume(struct cable *c, unsigned seen)
{
    pthread_mutex_lock(&c->lock);
    while (c->resumes <= seen)
        pthread_cond_wait(&c->came, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

/* ---- the card and its driver ---- */

struct card {
    struct vrig r;
    struct cable *cable;
    struct virtio_net *net;
    struct vdev d;
    struct vq q[2 * PAIRS + 1];
    uint64_t buf[2 * PAIRS + 1]; /* gpa: SIZE buffers of BUFFER bytes for each queue */
};

static inline void card_init(struct card *t, struct virtio_net_config c)
{
    memset(t, 0, sizeof *t);
    vr_init(&t->r);
    t->cable = calloc(1, sizeof *t->cable);
    t->cable->n = (struct net){.ops = &cable_ops,
                               .loop = t->r.loop,
                               .native = NET_CSUM | NET_TSO4 | NET_TSO6 | NET_ECN,
                               .pcap = -1,
                               .flat = malloc(NET_FRAME_MAX)};
    pthread_mutex_init(&t->cable->lock, NULL);
    pthread_cond_init(&t->cable->came, NULL);
    c.host = &t->r.pci.host;
    c.devfn = DEVFN;
    c.net = &t->cable->n;
    memcpy(c.mac, our_mac, 6);
    c.queue_size = SIZE;
    assert_int_equal(virtio_net_create(&c, &t->net, &t->r.pci.f.err), 0);
    vr_power_on(&t->r);
    vd_find(&t->d, &t->r, DEVFN, true);
}

static inline void card_up(struct card *t, uint64_t features)
{
    vd_agree(&t->d, features);
    unsigned queues = t->d.features & F_MQ ? 2 * PAIRS + 1 : 3;
    for (unsigned i = 0; i < queues; i++) {
        if (!t->buf[i])
            t->buf[i] = vr_alloc(&t->r, SIZE * BUFFER);
        vq_init(&t->q[i], &t->d, i, SIZE);
    }
    vd_go(&t->d);
    vr_settle(&t->r);
}

static inline void card_fini(struct card *t)
{
    virtio_net_destroy(t->net);
    free(t->cable->n.flat);
    free(t->cable);
    vr_fini(&t->r);
}

static inline uint64_t buf(struct card *t, unsigned queue, unsigned i)
{
    return t->buf[queue] + (uint64_t)i * BUFFER;
}

static inline uint8_t *hva(struct card *t, unsigned queue, unsigned i)
{
    return vr_hva(&t->r, buf(t, queue, i));
}

/* A frame of `len` bytes whose content tells its number. */
static inline void fill(uint8_t *p, size_t len, unsigned number)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(number * 31 + i);
    memcpy(p, our_mac, 6);
    p[12] = 0x88;
    p[13] = 0xb5;
}

struct giving {
    struct net *n;
    const struct net_hdr *hdr;
    const void *bytes;
    size_t len;
    bool taken;
};

static inline void give_here(void *opaque)
{
    struct giving *g = opaque;
    struct iovec iov[3] = {{(void *)g->bytes, 5}, {(uint8_t *)g->bytes + 5, 2}, {(uint8_t *)g->bytes + 7, g->len - 7}};
    g->taken = net_deliver(g->n, g->hdr, iov, 3, g->len);
}

/* A frame from the other end; whether the card took it. */
static inline bool give(struct card *t, const struct net_hdr *hdr, const void *bytes, size_t len)
{
    struct giving g = {&t->cable->n, hdr, bytes, len, false};
    ioloop_call(t->r.loop, give_here, &g);
    return g.taken;
}

static inline uint64_t dropped(struct card *t)
{
    struct net_stats st;
    net_stats(&t->cable->n, &st);
    return st.dropped;
}

static inline void post(struct card *t, unsigned pair, unsigned n, uint32_t len)
{
    struct vq *q = &t->q[2 * pair];
    for (unsigned i = 0; i < n; i++) {
        struct vbuf b = {buf(t, 2 * pair, i), len};
        assert_true(vq_add(q, &b, 0, 1, hva(t, 2 * pair, i), false));
    }
    vq_kick(q);
    vr_settle(&t->r);
}

static inline enum net_offload offloads_here(struct card *t)
{
    return t->cable->n.peer.offloads;
}

#endif
