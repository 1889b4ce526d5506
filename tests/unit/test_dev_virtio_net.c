/* virtio-net as a driver sees it, on a cable whose other end is this test. */
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

static struct cable *cable_of(struct net *n)
{
    return container_of(n, struct cable, n);
}

static void cable_send(struct net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs, size_t len)
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

static void cable_flush(struct net *n)
{
    struct cable *c = cable_of(n);
    pthread_mutex_lock(&c->lock);
    c->flushes++;
    pthread_mutex_unlock(&c->lock);
}

static void cable_resume(struct net *n)
{
    struct cable *c = cable_of(n);
    pthread_mutex_lock(&c->lock);
    c->resumes++;
    pthread_cond_broadcast(&c->came);
    pthread_mutex_unlock(&c->lock);
}

static int cable_attach(struct net *n, struct err *e)
{
    return 0;
}

static void cable_close(struct net *n)
{
}

static const struct net_ops cable_ops = {
    .attach = cable_attach, .send = cable_send, .flush = cable_flush, .resume = cable_resume, .close = cable_close};

static unsigned cable_resumes(struct cable *c)
{
    pthread_mutex_lock(&c->lock);
    unsigned n = c->resumes;
    pthread_mutex_unlock(&c->lock);
    return n;
}

static void cable_wait_resume(struct cable *c, unsigned seen)
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

static void card_init(struct card *t, struct virtio_net_config c)
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

static void card_up(struct card *t, uint64_t features)
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

static void card_fini(struct card *t)
{
    virtio_net_destroy(t->net);
    free(t->cable->n.flat);
    free(t->cable);
    vr_fini(&t->r);
}

static uint64_t buf(struct card *t, unsigned queue, unsigned i)
{
    return t->buf[queue] + (uint64_t)i * BUFFER;
}

static uint8_t *hva(struct card *t, unsigned queue, unsigned i)
{
    return vr_hva(&t->r, buf(t, queue, i));
}

/* A frame of `len` bytes whose content tells its number. */
static void fill(uint8_t *p, size_t len, unsigned number)
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

static void give_here(void *opaque)
{
    struct giving *g = opaque;
    struct iovec iov[3] = {{(void *)g->bytes, 5}, {(uint8_t *)g->bytes + 5, 2}, {(uint8_t *)g->bytes + 7, g->len - 7}};
    g->taken = net_deliver(g->n, g->hdr, iov, 3, g->len);
}

/* A frame from the other end; whether the card took it. */
static bool give(struct card *t, const struct net_hdr *hdr, const void *bytes, size_t len)
{
    struct giving g = {&t->cable->n, hdr, bytes, len, false};
    ioloop_call(t->r.loop, give_here, &g);
    return g.taken;
}

static uint64_t dropped(struct card *t)
{
    struct net_stats st;
    net_stats(&t->cable->n, &st);
    return st.dropped;
}

static void post(struct card *t, unsigned pair, unsigned n, uint32_t len)
{
    struct vq *q = &t->q[2 * pair];
    for (unsigned i = 0; i < n; i++) {
        struct vbuf b = {buf(t, 2 * pair, i), len};
        assert_true(vq_add(q, &b, 0, 1, hva(t, 2 * pair, i), false));
    }
    vq_kick(q);
    vr_settle(&t->r);
}

static enum net_offload offloads_here(struct card *t)
{
    return t->cable->n.peer.offloads;
}

/* ---- transmit ---- */

static void expect_sent(struct card *t, unsigned i, const uint8_t *bytes, size_t len)
{
    struct seen *s = &t->cable->seen[i % KEPT];
    assert_int_equal(s->len, len);
    assert_memory_equal(s->bytes, bytes, len < sizeof s->bytes ? len : sizeof s->bytes);
}

/* Header and frame in one buffer, in two, in many; plain and by indirect tables. */
static void transmit_shapes(struct card *t)
{
    struct vq *q = &t->q[1];
    uint8_t *p = hva(t, 1, 0);
    for (unsigned i = 0; i < 120; i++) {
        unsigned len = 60 + i, cut[4] = {HDR, HDR + i % 50, HDR + len, 5};
        memset(p, 0, HDR);
        fill(p + HDR, len, i);
        struct vbuf b[4];
        uint64_t at = buf(t, 1, 0);
        unsigned n = 0, from = 0, all = HDR + len;
        for (unsigned k = 0; k < 1 + i % 4 && from < all; k++) {
            unsigned to = i % 4 == 3 ? from + cut[3] : cut[k] > from ? cut[k] : all;
            to = k == i % 4 || to > all ? all : to;
            b[n++] = (struct vbuf){at + from, to - from};
            from = to;
        }
        assert_true(vq_add(q, b, n, 0, p, i & 1));
        vq_kick(q);
        uint32_t got;
        assert_ptr_equal(vq_wait(q, &got), p);
        assert_int_equal(got, 0);
        assert_int_equal(t->cable->sent, i + 1);
        expect_sent(t, i, p + HDR, len);
        assert_false(t->cable->seen[i % KEPT].has_hdr);
    }
    assert_true(t->cable->flushes > 0);
}

static void transmits(void **state)
{
    static struct card t;
    card_init(&t, (struct virtio_net_config){.options.packed = true});
    card_up(&t, ALL);
    transmit_shapes(&t);
    t.cable->sent = 0;
    card_up(&t, ~UINT64_C(0));
    transmit_shapes(&t);
    t.cable->sent = 0;
    card_up(&t, 0);
    transmit_shapes(&t);
    card_fini(&t);
}

static void many_at_once(void **state)
{
    static struct card t;
    card_init(&t, (struct virtio_net_config){0});
    card_up(&t, ALL);
    struct vq *q = &t.q[1];
    for (unsigned i = 0; i < SIZE; i++) {
        memset(hva(&t, 1, i), 0, HDR);
        fill(hva(&t, 1, i) + HDR, 100, i);
        struct vbuf b = {buf(&t, 1, i), HDR + 100};
        assert_true(vq_add(q, &b, 1, 0, hva(&t, 1, i), false));
    }
    vq_kick(q);
    assert_int_equal(q->kicks, 1);
    for (unsigned i = 0; i < SIZE; i++) {
        assert_ptr_equal(vq_wait(q, NULL), hva(&t, 1, i));
        expect_sent(&t, i, hva(&t, 1, i) + HDR, 100);
    }
    card_fini(&t);
}

/* What the header asks for goes to the network, and nonsense ends at the card. */
static void transmit_offloads(void **state)
{
    static struct card t;
    card_init(&t, (struct virtio_net_config){0});
    card_up(&t, ALL);
    struct vq *q = &t.q[1];
    uint8_t *p = hva(&t, 1, 0);
    const struct net_hdr good = {.flags = 1, .csum_start = 34, .csum_offset = 16};
    const struct net_hdr tso = {.flags = 1, .gso_type = 1, .gso_size = 500, .csum_start = 34, .csum_offset = 16};
    const struct net_hdr bad[] = {{.flags = 1, .csum_start = 2000, .csum_offset = 16},
                                  {.flags = 1, .csum_start = 34, .csum_offset = 0xffff},
                                  {.flags = 0, .gso_type = 1, .gso_size = 500},
                                  {.flags = 1, .gso_type = 3, .gso_size = 500, .csum_start = 34, .csum_offset = 16},
                                  {.flags = 1, .gso_type = 1, .gso_size = 0, .csum_start = 34, .csum_offset = 16}};
    for (unsigned i = 0; i < 2 + sizeof bad / sizeof *bad; i++) {
        const struct net_hdr *h = i == 0 ? &good : i == 1 ? &tso : &bad[i - 2];
        memset(p, 0, HDR);
        memcpy(p, h, sizeof *h);
        fill(p + HDR, 1000, i);
        struct vbuf b = {buf(&t, 1, 0), HDR + 1000};
        assert_true(vq_add(q, &b, 1, 0, p, false));
        vq_kick(q);
        assert_ptr_equal(vq_wait(q, NULL), p);
        if (i < 2)
            assert_memory_equal(&t.cable->seen[i].hdr, h, sizeof *h);
    }
    assert_int_equal(t.cable->sent, 2);
    assert_int_equal(dropped(&t), 5);
    struct vbuf runt = {buf(&t, 1, 0), HDR};
    assert_true(vq_add(q, &runt, 1, 0, p, false));
    vq_kick(q);
    assert_ptr_equal(vq_wait(q, NULL), p);
    assert_int_equal(dropped(&t), 6);
    assert_false(vd_status(&t.d) & VIRTIO_NEEDS_RESET);
    card_fini(&t);
}

/* ---- receive ---- */

static void expect_received(struct card *t, unsigned pair, unsigned len, unsigned number, unsigned buffers)
{
    uint8_t frame[8192], all[8192 + HDR];
    uint32_t got, have = 0;
    fill(frame, len, number);
    for (unsigned i = 0; i < buffers; i++) {
        uint8_t *p = vq_wait(&t->q[2 * pair], &got);
        memcpy(all + have, p, got);
        have += got;
    }
    assert_int_equal(have, len + HDR);
    assert_int_equal(ld16(all + 10), buffers);
    assert_memory_equal(all + HDR, frame, len);
}

static void receives(void **state)
{
    static const uint64_t features[] = {ALL, ~UINT64_C(0), 0, F_MRG_RXBUF};
    static struct card t;
    uint8_t frame[8192];
    card_init(&t, (struct virtio_net_config){.options.packed = true});
    for (unsigned f = 0; f < 4; f++) {
        card_up(&t, features[f]);
        post(&t, 0, SIZE, BUFFER);
        for (unsigned i = 0; i < 20; i++) {
            fill(frame, 60 + 70 * i, i);
            assert_true(give(&t, NULL, frame, 60 + 70 * i));
            expect_received(&t, 0, 60 + 70 * i, i, 1);
        }
        bool merges = t.d.features & F_MRG_RXBUF;
        fill(frame, 6000, 99);
        uint64_t before = dropped(&t);
        assert_true(give(&t, NULL, frame, 6000));
        assert_int_equal(dropped(&t) - before, merges ? 0 : 1);
        if (merges)
            expect_received(&t, 0, 6000, 99, 3);
    }
    card_fini(&t);
}

/* One interrupt for what came together. */
struct burst {
    struct card *t;
    unsigned n;
};

static void burst_here(void *opaque)
{
    struct burst *b = opaque;
    uint8_t frame[100];
    struct iovec iov = {frame, sizeof frame};
    for (unsigned i = 0; i < b->n; i++) {
        fill(frame, sizeof frame, i);
        assert_true(net_deliver(&b->t->cable->n, NULL, &iov, 1, sizeof frame));
    }
}

static void burst(void **state)
{
    static struct card t;
    card_init(&t, (struct virtio_net_config){0});
    card_up(&t, ALL & ~VIRTIO_F_EVENT_IDX);
    post(&t, 0, SIZE, BUFFER);
    unsigned before = vr_irqs(&t.r, vq_vector(&t.q[0]));
    struct burst b = {&t, 30};
    ioloop_call(t.r.loop, burst_here, &b);
    for (unsigned i = 0; i < 30; i++)
        expect_received(&t, 0, 100, i, 1);
    vr_settle(&t.r);
    assert_int_equal(vr_irqs(&t.r, vq_vector(&t.q[0])), before + 1);
    card_fini(&t);
}

/* Without buffers a frame is not taken, and the network is told once there are some; nobody asks in between. */
static void no_buffers(void **state)
{
    static struct card t;
    uint8_t frame[4000];
    card_init(&t, (struct virtio_net_config){.options.packed = true});
    for (unsigned packed = 0; packed < 2; packed++) {
        card_up(&t, packed ? ~UINT64_C(0) : ALL);
        unsigned resumes = cable_resumes(t.cable);
        fill(frame, 100, 1);
        assert_false(give(&t, NULL, frame, 100));
        assert_false(give(&t, NULL, frame, 100));
        vr_settle(&t.r);
        assert_int_equal(cable_resumes(t.cable), resumes);
        post(&t, 0, 1, BUFFER);
        cable_wait_resume(t.cable, resumes);
        assert_true(give(&t, NULL, frame, 100));
        expect_received(&t, 0, 100, 1, 1);
        /* One buffer is not enough for this one: the next must be told of, too. */
        resumes = cable_resumes(t.cable);
        post(&t, 0, 1, BUFFER);
        fill(frame, 4000, 2);
        assert_false(give(&t, NULL, frame, 4000));
        assert_int_equal(cable_resumes(t.cable), resumes);
        struct vbuf b = {buf(&t, 0, 1), BUFFER};
        assert_true(vq_add(&t.q[0], &b, 0, 1, hva(&t, 0, 1), false));
        vq_kick(&t.q[0]);
        cable_wait_resume(t.cable, resumes);
        assert_true(give(&t, NULL, frame, 4000));
        expect_received(&t, 0, 4000, 2, 2);
        assert_int_equal(dropped(&t), 0);
    }
    card_fini(&t);
}

/* A full ring that is too small for a frame holds the network up for half a second, not for ever. */
static void ring_too_small(void **state)
{
    static struct card t;
    uint8_t frame[8000];
    card_init(&t, (struct virtio_net_config){0});
    card_up(&t, ALL);
    post(&t, 0, SIZE, 64);
    unsigned resumes = cable_resumes(t.cable);
    fill(frame, sizeof frame, 1);
    assert_false(give(&t, NULL, frame, sizeof frame));
    cable_wait_resume(t.cable, resumes);
    fill(frame, 60, 2);
    assert_true(give(&t, NULL, frame, 60));
    expect_received(&t, 0, 60, 2, 2);
    card_fini(&t);
}

static void receive_offloads(void **state)
{
    static struct card t;
    uint8_t frame[1514];
    const struct net_hdr valid = {.flags = NET_HDR_DATA_VALID};
    card_init(&t, (struct virtio_net_config){0});
    card_up(&t, ALL & ~F_GUEST_CSUM & ~F_GUEST_TSO4);
    assert_int_equal(offloads_here(&t) & (NET_CSUM | NET_TSO4), 0);
    post(&t, 0, 4, BUFFER);
    fill(frame, sizeof frame, 0);
    assert_true(give(&t, &valid, frame, sizeof frame));
    uint8_t *p = vq_wait(&t.q[0], NULL);
    assert_int_equal(p[0], 0);
    card_up(&t, ALL);
    assert_int_equal(offloads_here(&t), NET_CSUM | NET_TSO4 | NET_TSO6 | NET_ECN);
    post(&t, 0, 4, BUFFER);
    assert_true(give(&t, &valid, frame, sizeof frame));
    p = vq_wait(&t.q[0], NULL);
    assert_int_equal(p[0], NET_HDR_DATA_VALID);
    card_fini(&t);
}

/* ---- the control queue ---- */

static unsigned command_on(struct card *t, struct vq *q, unsigned class, unsigned cmd, const void *data, uint32_t len)
{
    uint64_t at = t->buf[q->index];
    uint8_t *p = vr_hva(&t->r, at);
    p[0] = (uint8_t) class;
    p[1] = (uint8_t)cmd;
    p[2] = 0xaa;
    if (len)
        memcpy(p + 16, data, len);
    struct vbuf b[3] = {{at, 2}, {at + 16, len}, {at + 2, 1}};
    if (!len)
        b[1] = b[2];
    assert_true(vq_add(q, b, len ? 2 : 1, 1, p, false));
    vq_kick(q);
    uint32_t got;
    assert_ptr_equal(vq_wait(q, &got), p);
    assert_int_equal(got, 1);
    return p[2];
}

static unsigned command(struct card *t, unsigned class, unsigned cmd, const void *data, uint32_t len)
{
    return command_on(t, &t->q[t->d.features & F_MQ ? CONTROL : 2], class, cmd, data, len);
}

/* Whether a frame to `mac` comes in; buffers are there. */
static bool hears(struct card *t, const char *mac, unsigned vlan)
{
    uint8_t frame[64] = {0};
    struct vq *q = &t->q[0];
    memcpy(frame, mac, 6);
    frame[12] = vlan ? 0x81 : 8;
    frame[14] = (uint8_t)(vlan >> 8);
    frame[15] = (uint8_t)vlan;
    assert_true(give(t, NULL, frame, sizeof frame));
    vr_settle(&t->r);
    uint8_t *p = vq_get(q, NULL);
    if (!p)
        return false;
    struct vbuf b = {(uint64_t)(p - vr_hva(&t->r, 0)), BUFFER};
    assert_true(vq_add(q, &b, 0, 1, p, false));
    vq_kick(q);
    return true;
}

#define OURS  "\x52\x54\x00\x01\x02\x03"
#define OTHER "\x52\x54\x00\x09\x09\x09"
#define MULTI "\x33\x33\x00\x00\x00\x01"
#define BROAD "\xff\xff\xff\xff\xff\xff"

static void filters(void **state)
{
    static struct card t;
    const uint8_t off = 0, on = 1;
    card_init(&t, (struct virtio_net_config){0});
    card_up(&t, ALL);
    post(&t, 0, 32, BUFFER);
    assert_true(hears(&t, OTHER, 0)); /* nothing was said yet */
    assert_int_equal(command(&t, 0, 0, &off, 1), 0);
    assert_true(hears(&t, OURS, 0));
    assert_true(hears(&t, BROAD, 0));
    assert_false(hears(&t, OTHER, 0));
    assert_false(hears(&t, MULTI, 0));
    assert_int_equal(command(&t, 0, 1, &on, 1), 0); /* ALLMULTI */
    assert_true(hears(&t, MULTI, 0));
    assert_int_equal(command(&t, 0, 1, &off, 1), 0);
    uint8_t tables[4 + 6 + 4 + 6] = {1, 0, 0, 0};
    memcpy(tables + 4, OTHER, 6);
    tables[10] = 1;
    memcpy(tables + 14, MULTI, 6);
    assert_int_equal(command(&t, 1, 0, tables, sizeof tables), 0);
    assert_true(hears(&t, OTHER, 0));
    assert_true(hears(&t, MULTI, 0));
    assert_false(hears(&t, "\x52\x54\x00\x09\x09\x08", 0));
    assert_int_equal(command(&t, 0, 5, &on, 1), 0); /* NOBCAST */
    assert_false(hears(&t, BROAD, 0));
    assert_int_equal(command(&t, 0, 4, &on, 1), 0); /* NOUNI */
    assert_false(hears(&t, OURS, 0));
    assert_int_equal(command(&t, 0, 4, &off, 1), 0);
    assert_int_equal(command(&t, 0, 3, &on, 1), 0); /* NOMULTI */
    assert_false(hears(&t, MULTI, 0));
    assert_int_equal(command(&t, 0, 2, &on, 1), 0); /* ALLUNI */
    assert_true(hears(&t, "\x52\x54\x00\x09\x09\x08", 0));
    assert_false(hears(&t, OURS, 5));
    assert_int_equal(command(&t, 2, 0, "\x05\x00", 2), 0);
    assert_true(hears(&t, OURS, 5));
    assert_int_equal(command(&t, 2, 1, "\x05\x00", 2), 0);
    assert_false(hears(&t, OURS, 5));
    card_fini(&t);
}

/* More addresses than the card keeps: it hears all of the kind. */
static void big_table(void **state)
{
    static struct card t;
    static uint8_t tables[4 + 6 * 100 + 4];
    const uint8_t off = 0;
    card_init(&t, (struct virtio_net_config){0});
    card_up(&t, ALL);
    post(&t, 0, 32, BUFFER);
    assert_int_equal(command(&t, 0, 0, &off, 1), 0);
    tables[0] = 100;
    assert_int_equal(command(&t, 1, 0, tables, sizeof tables), 0);
    assert_true(hears(&t, OTHER, 0));
    assert_false(hears(&t, MULTI, 0));
    card_fini(&t);
}

static void own_address(void **state)
{
    static struct card t;
    const uint8_t off = 0;
    card_init(&t, (struct virtio_net_config){0});
    card_up(&t, ALL);
    post(&t, 0, 32, BUFFER);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(vd_config(&t.d, i, 1), our_mac[i]);
    assert_int_equal(vd_config(&t.d, 6, 2), 1);
    assert_int_equal(vd_config(&t.d, 8, 2), 1);
    assert_int_equal(command(&t, 0, 0, &off, 1), 0);
    assert_int_equal(command(&t, 1, 1, OTHER, 6), 0);
    assert_int_equal(vd_config(&t.d, 5, 1), 9);
    assert_true(hears(&t, OTHER, 0));
    assert_false(hears(&t, OURS, 0));
    vd_reset(&t.d);
    assert_int_equal(vd_config(&t.d, 5, 1), 3);
    card_fini(&t);
}

static void announcement(void **state)
{
    static struct card t;
    card_init(&t, (struct virtio_net_config){0});
    virtio_net_announce(t.net);
    assert_int_equal(vd_config(&t.d, 6, 2), 1); /* there is nobody to ask */
    card_up(&t, ALL);
    virtio_net_announce(t.net);
    vr_wait_irq(&t.r, VR_VECTOR0, 0);
    assert_int_equal(vd_config(&t.d, 6, 2), 3);
    assert_int_equal(command(&t, 3, 0, NULL, 0), 0);
    assert_int_equal(vd_config(&t.d, 6, 2), 1);
    card_fini(&t);
}

static void bad_commands(void **state)
{
    static struct card t;
    static const uint8_t zeros[16];
    uint8_t huge[8] = {0xff, 0xff, 0xff, 0xff};
    card_init(&t, (struct virtio_net_config){0});
    card_up(&t, ALL);
    assert_int_equal(command(&t, 9, 0, zeros, 1), 1);
    assert_int_equal(command(&t, 0, 6, zeros, 1), 1);
    assert_int_equal(command(&t, 0, 0, NULL, 0), 1);
    assert_int_equal(command(&t, 1, 0, huge, 8), 1);
    assert_int_equal(command(&t, 1, 0, zeros, 4), 1);
    assert_int_equal(command(&t, 1, 1, zeros, 5), 1);
    assert_int_equal(command(&t, 1, 1, zeros, 7), 1);
    assert_int_equal(command(&t, 1, 2, zeros, 6), 1);
    assert_int_equal(command(&t, 2, 0, "\x00\x10", 2), 1);
    assert_int_equal(command(&t, 2, 2, zeros, 2), 1);
    assert_int_equal(command(&t, 3, 1, NULL, 0), 1);
    assert_int_equal(command(&t, 4, 0, "\x01\x00", 2), 1); /* one pair: no VIRTIO_NET_F_MQ */
    assert_int_equal(command(&t, 5, 0, "\x00\x00\x00\x00\x01\x00\x00\x00", 8), 1);
    assert_int_equal(command(&t, 5, 0, zeros, 8), 0);
    assert_int_equal(offloads_here(&t), 0);
    assert_int_equal(command(&t, 5, 0, "\x82\x00\x00\x00\x00\x00\x00\x00", 8), 0);
    assert_int_equal(offloads_here(&t), NET_CSUM | NET_TSO4);
    struct vq *q = &t.q[2];
    struct vbuf no_answer = {t.buf[2], 2};
    assert_true(vq_add(q, &no_answer, 1, 0, q, false));
    vq_kick(q);
    vd_wait_broken(&t.d);
    uint8_t frame[60] = {0};
    assert_true(give(&t, NULL, frame, sizeof frame)); /* and lost */
    card_up(&t, ALL);
    assert_int_equal(command(&t, 5, 0, zeros, 8), 0);
    card_fini(&t);
}

/* ---- several pairs ---- */

static void ip_frame(uint8_t *f, uint32_t src, uint32_t dst, unsigned sport, unsigned dport)
{
    memset(f, 0, 64);
    memcpy(f, our_mac, 6);
    f[12] = 8;
    f[14] = 0x45;
    f[23] = 6;
    put32be(f + 26, src);
    put32be(f + 30, dst);
    put16be(f + 34, (uint16_t)sport);
    put16be(f + 36, (uint16_t)dport);
}

static void send_from(struct card *t, unsigned pair, const uint8_t *frame)
{
    struct vq *q = &t->q[2 * pair + 1];
    uint8_t *p = hva(t, q->index, 0);
    memset(p, 0, HDR);
    memcpy(p + HDR, frame, 64);
    struct vbuf b = {buf(t, q->index, 0), HDR + 64};
    assert_true(vq_add(q, &b, 1, 0, p, false));
    vq_kick(q);
    assert_ptr_equal(vq_wait(q, NULL), p);
}

/* The pair a frame came in at. */
static unsigned came_at(struct card *t)
{
    vr_settle(&t->r);
    for (unsigned i = 0; i < PAIRS; i++) {
        uint8_t *p = vq_get(&t->q[2 * i], NULL);
        if (!p)
            continue;
        struct vbuf b = {(uint64_t)(p - vr_hva(&t->r, 0)), BUFFER};
        assert_true(vq_add(&t->q[2 * i], &b, 0, 1, p, false));
        vq_kick(&t->q[2 * i]);
        return i;
    }
    return PAIRS;
}

static void steering(void **state)
{
    static struct card t;
    uint8_t f[64];
    card_init(&t, (struct virtio_net_config){.queue_pairs = PAIRS});
    card_up(&t, ALL);
    assert_int_equal(vd_config(&t.d, 8, 2), PAIRS);
    for (unsigned i = 0; i < PAIRS; i++)
        post(&t, i, 8, BUFFER);
    ip_frame(f, 1, 2, 80, 5000);
    assert_true(give(&t, NULL, f, 64));
    assert_int_equal(came_at(&t), 0); /* one pair until the driver says more */
    assert_int_equal(command(&t, 4, 0, "\x05\x00", 2), 1);
    assert_int_equal(command(&t, 4, 0, "\x00\x00", 2), 1);
    assert_int_equal(command(&t, 4, 0, "\x04\x00", 2), 0);
    unsigned hit[PAIRS] = {0};
    for (unsigned i = 0; i < 200; i++) {
        ip_frame(f, 0x0a000202, 0x0a00020f, 80, 5000 + i);
        assert_true(give(&t, NULL, f, 64));
        hit[came_at(&t)]++;
    }
    for (unsigned i = 0; i < PAIRS; i++)
        assert_true(hit[i] > 20); /* unknown flows are spread */
    for (unsigned i = 0; i < 40; i++) {
        ip_frame(f, 0x0a00020f, 0x0a000202, 5000 + i, 80);
        send_from(&t, i % PAIRS, f);
        ip_frame(f, 0x0a000202, 0x0a00020f, 80, 5000 + i);
        assert_true(give(&t, NULL, f, 64));
        assert_int_equal(came_at(&t), i % PAIRS);
    }
    card_fini(&t);
}

/* A pair without buffers holds up nobody: its frames go by the first. */
static void starved_pair(void **state)
{
    static struct card t;
    uint8_t f[64];
    card_init(&t, (struct virtio_net_config){.queue_pairs = PAIRS});
    card_up(&t, ALL);
    assert_int_equal(command(&t, 4, 0, "\x04\x00", 2), 0);
    ip_frame(f, 1, 2, 3, 4);
    send_from(&t, 3, f);
    ip_frame(f, 2, 1, 4, 3);
    assert_false(give(&t, NULL, f, 64));
    unsigned resumes = cable_resumes(t.cable);
    post(&t, 0, 1, BUFFER);
    cable_wait_resume(t.cable, resumes);
    assert_true(give(&t, NULL, f, 64));
    assert_int_equal(came_at(&t), 0);
    resumes = cable_resumes(t.cable);
    post(&t, 3, 1, BUFFER);
    assert_true(give(&t, NULL, f, 64));
    assert_int_equal(came_at(&t), 3);
    card_fini(&t);
}

/* Without VIRTIO_NET_F_MQ the third queue is the control queue, whatever the card has. */
static void control_without_mq(void **state)
{
    static struct card t;
    const uint8_t on = 1;
    card_init(&t, (struct virtio_net_config){.queue_pairs = PAIRS});
    card_up(&t, ALL & ~F_MQ);
    assert_int_equal(command_on(&t, &t.q[2], 0, 0, &on, 1), 0);
    card_fini(&t);
}

/* ---- resets ---- */

static void reset_while_waiting(void **state)
{
    static struct card t;
    uint8_t frame[100];
    card_init(&t, (struct virtio_net_config){0});
    for (unsigned i = 0; i < 50; i++) {
        card_up(&t, ALL);
        fill(frame, sizeof frame, i);
        assert_false(give(&t, NULL, frame, sizeof frame));
        if (i & 1)
            virtio_net_reset(t.net);
        else
            vd_reset(&t.d);
        assert_true(give(&t, NULL, frame, sizeof frame)); /* nobody there: lost */
        if (i & 1) {
            vr_power_on(&t.r);
            vd_find(&t.d, &t.r, DEVFN, true);
        }
        t.r.bump = 0x400000; /* rings of the last round are free */
        memset(t.buf, 0, sizeof t.buf);
    }
    card_fini(&t);
}

/* Random chains on all queues: the device may break, and then works again after a reset. */
static void random_chains(void **state)
{
    static struct card t;
    uint64_t seed = 7;
    uint8_t frame[200];
    card_init(&t, (struct virtio_net_config){.queue_pairs = PAIRS});
    for (unsigned round = 0; round < 60; round++) {
        t.r.bump = 0x100000;
        memset(t.buf, 0, sizeof t.buf);
        card_up(&t, round & 1 ? ALL : ALL & ~F_MRG_RXBUF);
        for (unsigned i = 0; i < 200; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            unsigned r = (unsigned)(seed >> 33), k = r % (2 * PAIRS + 1);
            struct vq *q = &t.q[k];
            struct vbuf b[4];
            for (unsigned j = 0; j < 4; j++) {
                uint8_t *p = hva(&t, k, j);
                for (unsigned m = 0; m < 40; m++)
                    p[m] = (uint8_t)((seed >> (m & 31)) & (m < 12 ? 0x0f : 0xff));
                b[j] = (struct vbuf){buf(&t, k, j), 1 + (r >> (4 + j)) % 300};
            }
            unsigned out = r >> 8 & 3, in = (r >> 10 & 3) % (4 - out) + (out == 0);
            if (vq_add(q, b, out, in, q, r & 4096))
                vq_kick(q);
            while (vq_get(q, NULL))
                ;
            fill(frame, sizeof frame, i);
            give(&t, NULL, frame, 14 + r % 180);
        }
        vd_reset(&t.d);
    }
    card_up(&t, ALL);
    post(&t, 0, 2, BUFFER);
    fill(frame, 100, 1);
    assert_true(give(&t, NULL, frame, 100));
    expect_received(&t, 0, 100, 1, 1);
    card_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transmits),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(transmit_offloads),
        cmocka_unit_test(receives),
        cmocka_unit_test(burst),
        cmocka_unit_test(no_buffers),
        cmocka_unit_test(ring_too_small),
        cmocka_unit_test(receive_offloads),
        cmocka_unit_test(filters),
        cmocka_unit_test(big_table),
        cmocka_unit_test(own_address),
        cmocka_unit_test(announcement),
        cmocka_unit_test(bad_commands),
        cmocka_unit_test(steering),
        cmocka_unit_test(starved_pair),
        cmocka_unit_test(control_without_mq),
        cmocka_unit_test(reset_while_waiting),
        cmocka_unit_test(random_chains),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
