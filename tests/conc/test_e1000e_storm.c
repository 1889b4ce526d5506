/* vCPU threads at an 82574, its loop, and a cable that never rests: no interrupt and no frame is lost while all behave;
 * and whatever they do to its registers, resets of every kind among it, the card works after the next reset. What is
 * lost is waited for, until ctest's patience ends. */
#include "ensure.h"
#include "virtio_rig.h"

#include "dev/e1000e_priv.h"
#include "dev/net_priv.h"

#define DEVFN   PCI_DEVFN(9, 0)
#define N       16u
#define FRAMES  20000u
#define WRITES  20000u
#define THREADS 3u
#define V_RX    0x40u
#define V_TX    0x41u
#define T_LAST  (1u << 24 | 1u << 27) /* EOP, RS */

struct storm {
    struct vrig r;
    struct net net; /* the cable */
    struct e1000e *card;
    uint64_t bar, table, rx, tx, buffers, data; /* gpas */
    unsigned cap;
    /* the loop's thread */
    struct ioloop_bell feed;
    unsigned fed, feed_max, came;
    bool ordered;
};

static uint32_t dice(uint64_t *s)
{
    *s ^= *s >> 12;
    *s ^= *s << 25;
    *s ^= *s >> 27;
    return (uint32_t)(*s * UINT64_C(2685821657736338717) >> 32);
}

static uint32_t length_of(unsigned number)
{
    return 60 + number * 7 % 1400;
}

/* ---- the cable ---- */

static void cable_send(struct net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs, size_t len)
{
    struct storm *s = container_of(n, struct storm, net);
    if (s->ordered)
        ensure(len == length_of(s->came));
    s->came++;
}

static void cable_resume(struct net *n)
{
    struct storm *s = container_of(n, struct storm, net);
    ioloop_ring(s->r.loop, &s->feed);
}

static void cable_event(struct net *n)
{
}

static const struct net_ops cable_ops = {.send = cable_send, .flush = cable_event, .resume = cable_resume};

/* Frames until there is no room, a few at a time. */
static void feed(void *opaque)
{
    static uint8_t frame[1500] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct storm *s = opaque;
    for (unsigned i = 0; i < 8; i++, s->fed++) {
        struct iovec v = {frame, length_of(s->fed)};
        if (s->fed == s->feed_max || !net_deliver(&s->net, NULL, &v, 1, v.iov_len))
            return;
    }
    ioloop_ring(s->r.loop, &s->feed);
}

struct feeding {
    struct storm *s;
    unsigned max;
};

static void begin_feed(void *opaque)
{
    struct feeding *f = opaque;
    f->s->fed = f->s->came = 0;
    f->s->feed_max = f->max;
    ioloop_ring(f->s->r.loop, &f->s->feed);
}

/* ---- registers ---- */

static uint32_t rd(struct storm *s, unsigned reg)
{
    return (uint32_t)mem_rd(&s->r.pci, s->bar + reg, 4);
}

static void wr(struct storm *s, unsigned reg, uint32_t val)
{
    mem_wr(&s->r.pci, s->bar + reg, 4, val);
}

static void card_place(struct storm *s)
{
    cfg_wr(&s->r.pci, 0, DEVFN, PCI_BAR0, 4, s->bar);
    cfg_wr(&s->r.pci, 0, DEVFN, PCI_BAR0 + 12, 4, s->table);
    cfg_wr(&s->r.pci, 0, DEVFN, PCI_COMMAND, 2, PCI_CMD_MEMORY | PCI_CMD_MASTER);
}

static void card_reset(struct storm *s)
{
    wr(s, R_CTRL, CTRL_RST);
    while (!(rd(s, R_EECD) & EECD_AUTO_RD))
        sched_yield();
}

static void card_rings(struct storm *s)
{
    wr(s, R_RDBAL, (uint32_t)s->rx);
    wr(s, R_RDLEN, N * 16);
    wr(s, R_TDBAL, (uint32_t)s->tx);
    wr(s, R_TDLEN, N * 16);
}

static void card_up(struct storm *s, unsigned eitr)
{
    static const unsigned vector[] = {V_RX, V_TX, 0x42, 0x42, 0x42};
    card_place(s);
    card_reset(s);
    for (unsigned v = 0; v < E1K_VECTORS; v++) {
        uint64_t entry = s->table + 16 * v;
        mem_wr(&s->r.pci, entry, 4, 0xfee00000 | VR_DEST << 12);
        mem_wr(&s->r.pci, entry + 8, 4, vector[v]);
        mem_wr(&s->r.pci, entry + 12, 4, 0);
        wr(s, R_EITR + 4 * v, eitr);
    }
    cfg_wr(&s->r.pci, 0, DEVFN, s->cap + 2, 2, 0x8000);
    wr(s, R_IVAR, 0x8 | 0x9 << 8 | 0xa << 16);
    wr(s, R_EIAC, C_RXQ0 | C_TXQ0);
    for (unsigned i = 0; i < N; i++) {
        st64(vr_hva(&s->r, s->rx + 16 * i), s->buffers + 2048 * i);
        st64(vr_hva(&s->r, s->rx + 16 * i + 8), 0);
    }
    card_rings(s);
    wr(s, R_RDT, N - 1);
    wr(s, R_RCTL, RCTL_EN | RCTL_BAM | RCTL_SECRC);
    wr(s, R_TCTL, TCTL_EN);
}

/* ---- all behave ---- */

/* As NAPI: after an interrupt, which has masked itself, look until there is nothing, then unmask. */
static void *receiver(void *opaque)
{
    struct storm *s = opaque;
    int slot = epoch_slot(&s->r.pci.f.epoch);
    epoch_enter(&s->r.pci.f.epoch, slot);
    for (unsigned got = 0, at = 0, seen = vr_irqs(&s->r, V_RX); got < FRAMES;) {
        wr(s, R_IMS, C_RXQ0);
        vr_wait_irq(&s->r, V_RX, seen++);
        unsigned first = at;
        for (unsigned head = rd(s, R_RDH); at != head; at = (at + 1) % N, got++) {
            uint8_t *d = vr_hva(&s->r, s->rx + 16 * at);
            ensure((ld64(d + 8) & 0xffff) == length_of(got));
            ensure((d[12] & 3) == 3);
            st64(d + 8, 0);
        }
        if (at != first)
            wr(s, R_RDT, (at + N - 1) % N);
    }
    epoch_leave(&s->r.pci.f.epoch, slot);
    return NULL;
}

static void *sender(void *opaque)
{
    struct storm *s = opaque;
    uint64_t seed = 17;
    int slot = epoch_slot(&s->r.pci.f.epoch);
    epoch_enter(&s->r.pci.f.epoch, slot);
    unsigned at = 0, head = 0, seen = vr_irqs(&s->r, V_TX);
    for (unsigned put = 0; put < FRAMES || at != head;) {
        for (unsigned batch = dice(&seed) % N; batch && put < FRAMES && (at + 1) % N != head; batch--, put++) {
            uint8_t *d = vr_hva(&s->r, s->tx + 16 * at);
            st64(d, s->data);
            st64(d + 8, length_of(put) | T_LAST);
            at = (at + 1) % N;
        }
        wr(s, R_TDT, at);
        head = rd(s, R_TDH);
        while ((at + 1) % N == head || (put == FRAMES && at != head)) {
            wr(s, R_IMS, C_TXQ0);
            vr_wait_irq(&s->r, V_TX, seen++);
            head = rd(s, R_TDH);
        }
    }
    epoch_leave(&s->r.pci.f.epoch, slot);
    return NULL;
}

static void traffic(struct storm *s, unsigned eitr)
{
    pthread_t rx, tx;
    struct feeding f = {s, FRAMES};
    card_up(s, eitr);
    s->ordered = true;
    ioloop_call(s->r.loop, begin_feed, &f);
    assert_int_equal(pthread_create(&rx, NULL, receiver, s), 0);
    assert_int_equal(pthread_create(&tx, NULL, sender, s), 0);
    pthread_join(rx, NULL);
    pthread_join(tx, NULL);
    vr_settle(&s->r);
    assert_int_equal(s->came, FRAMES);
    s->ordered = false;
}

/* ---- nobody does ---- */

static void one_write(struct storm *s, uint64_t *seed)
{
    static const unsigned regs[] = {R_RDT,  R_TDT, R_RDT,   R_TDT,  R_RDH,    R_TDH,      R_RDLEN, R_TDLEN, R_IMS,
                                    R_ICS,  R_IMC, R_ICR,   R_EIAC, R_IAM,    R_CTRL_EXT, R_IVAR,  R_RCTL,  R_PSRCTL,
                                    R_EITR, R_VET, R_RFCTL, R_TCTL, R_RXCSUM, R_MDIC,     R_EERD,  R_ITR};
    uint32_t what = dice(seed) % 64;
    if (what == 0)
        wr(s, R_CTRL, CTRL_RST | (dice(seed) & CTRL_MASTER_OFF));
    else if (what == 1)
        cfg_wr(&s->r.pci, 0, DEVFN, s->card->func.express + 8u, 2, 0x8000);
    else if (what == 2)
        cfg_wr(&s->r.pci, 0, DEVFN, PCI_COMMAND, 2, PCI_CMD_MEMORY | (dice(seed) & PCI_CMD_MASTER));
    else if (what == 3)
        wr(s, R_CTRL, dice(seed) & (CTRL_MASTER_OFF | CTRL_VME));
    else if (what == 4)
        cfg_wr(&s->r.pci, 0, DEVFN, s->cap + 2, 2, dice(seed) & 0xc000);
    else if (what < 12)
        card_place(s);
    else if (what < 16)
        rd(s, (unsigned[]){R_ICR, R_ICS, R_STATUS, R_GPRC}[dice(seed) % 4]);
    else if (what < 18)
        card_rings(s);
    else if (what < 40)
        wr(s, what & 1 ? R_RDT : R_TDT, dice(seed) % N);
    else
        wr(s, regs[dice(seed) % ARRAY_SIZE(regs)], dice(seed) & (what & 1 ? 0xff : UINT32_MAX));
}

struct vandal {
    struct storm *s;
    uint64_t seed;
};

static void *vandal(void *opaque)
{
    struct vandal *v = opaque;
    int slot = epoch_slot(&v->s->r.pci.f.epoch);
    epoch_enter(&v->s->r.pci.f.epoch, slot);
    for (unsigned i = 0; i < WRITES; i++)
        one_write(v->s, &v->seed);
    epoch_leave(&v->s->r.pci.f.epoch, slot);
    return NULL;
}

static void vandals(struct storm *s)
{
    pthread_t t[THREADS];
    struct vandal v[THREADS];
    struct feeding f = {s, UINT32_MAX};
    ioloop_call(s->r.loop, begin_feed, &f);
    for (unsigned i = 0; i < THREADS; i++) {
        v[i] = (struct vandal){s, i + 1};
        assert_int_equal(pthread_create(&t[i], NULL, vandal, &v[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    f.max = 0;
    ioloop_call(s->r.loop, begin_feed, &f);
    vr_settle(&s->r);
}

/* ---- the machine ---- */

static void storm_init(struct storm *s)
{
    vr_init(&s->r);
    s->r.pci.ram.watch.written = NULL; /* the rig's would be a barrier after each store */
    s->net = (struct net){.ops = &cable_ops, .loop = s->r.loop, .pcap = -1, .flat = malloc(NET_FRAME_MAX)};
    ioloop_bell_init(&s->feed, feed, s);
    const struct e1000e_config c = {.host = &s->r.pci.host, .devfn = DEVFN, .net = &s->net, .mac = {2, 0, 0, 0, 0, 1}};
    assert_int_equal(e1000e_create(&c, &s->card, &s->r.pci.f.err), 0);
    vr_power_on(&s->r);
    s->bar = cfg_rd(&s->r.pci, 0, DEVFN, PCI_BAR0, 4) & ~0xfull;
    s->table = cfg_rd(&s->r.pci, 0, DEVFN, PCI_BAR0 + 12, 4) & ~0xfull;
    s->cap = cap_of(&s->r.pci, 0, DEVFN, PCI_CAP_MSIX);
    s->rx = vr_alloc(&s->r, N * 32);
    s->tx = vr_alloc(&s->r, N * 16);
    s->buffers = vr_alloc(&s->r, N * 2048);
    s->data = vr_alloc(&s->r, 2048);
}

static void leave(void *opaque)
{
    struct storm *s = opaque;
    ioloop_bell_remove(s->r.loop, &s->feed);
}

static void storm(void **state)
{
    struct storm *s = calloc(1, sizeof *s);
    storm_init(s);
    for (unsigned i = 0; i < 3; i++) {
        traffic(s, i * 40);
        vandals(s);
    }
    traffic(s, 0);
    e1000e_destroy(s->card);
    ioloop_call(s->r.loop, leave, s);
    free(s->net.flat);
    vr_fini(&s->r);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(storm)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
