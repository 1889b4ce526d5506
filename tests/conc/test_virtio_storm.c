/* Guests' threads, each on a queue of its own, against the device's loop: no notification and no interrupt is lost,
 * whatever the ring's format. What is lost is waited for, until ctest's patience ends. */
#include "virtio_rig.h"

#define QUEUES 3u
#define SIZE   32u
#define ROUNDS 20000u
#define LATER  64u

struct storm {
    struct vrig r;
    struct virtio_pci pci;
    struct vdev d;
    struct vq q[QUEUES];
    uint64_t mem[QUEUES];
    uint64_t seed; /* the loop's */
    struct ioloop_bell bell;
    struct {
        struct virtq *q;
        struct virtq_chain c;
        struct iovec in;
    } later[LATER * QUEUES];
    unsigned laters;
    _Atomic bool over;
};

static uint64_t dice(uint64_t *s)
{
    *s ^= *s >> 12;
    *s ^= *s << 25;
    *s ^= *s >> 27;
    return *s * UINT64_C(2685821657736338717) >> 20;
}

/* ---- the device ---- */

static void storm_push(struct virtq *q, const struct virtq_chain *c, struct iovec *in)
{
    memset(in->iov_base, 0x5a, in->iov_len);
    virtq_push(q, c, in, (uint32_t)in->iov_len);
}

/* Now, or after the bell, some of them out of order. */
static void storm_serve(struct virtio *v, struct virtq *q)
{
    struct storm *s = container_of(v, struct storm, pci.v);
    struct virtq_chain c;
    struct iovec iov[4];
    do {
        virtq_disarm(q);
        while (virtq_pop(q, &c, iov, 4)) {
            if (dice(&s->seed) % 8 == 0) {
                virtq_unpop(q, &c);
                virtq_flush(q);
                ioloop_ring(v->loop, &q->bell);
                return;
            }
            if (dice(&s->seed) % 2 && s->laters < LATER * QUEUES) {
                s->later[s->laters].q = q;
                s->later[s->laters].c = c;
                s->later[s->laters++].in = iov[c.outs];
                ioloop_ring(v->loop, &s->bell);
            } else {
                storm_push(q, &c, &iov[c.outs]);
            }
        }
        virtq_flush(q);
    } while (virtq_arm(q));
}

static void storm_bell(void *opaque)
{
    struct storm *s = opaque;
    while (s->laters) {
        unsigned i = (unsigned)(dice(&s->seed) % s->laters);
        storm_push(s->later[i].q, &s->later[i].c, &s->later[i].in);
        if (dice(&s->seed) % 4 == 0)
            virtq_flush(s->later[i].q);
        s->later[i] = s->later[--s->laters];
    }
    for (unsigned i = 0; i < QUEUES; i++)
        virtq_flush(&s->pci.v.q[i]);
}

static const struct virtio_ops storm_ops = {.serve = storm_serve};

/* ---- the guest ---- */

struct guest {
    struct storm *s;
    unsigned i;
};

static void take(struct vq *q, uint8_t *p, unsigned *waiting)
{
    assert_int_equal(p[100], 0x5a);
    p[100] = 0;
    --*waiting;
}

static void *guest_thread(void *opaque)
{
    struct guest *g = opaque;
    struct vq *q = &g->s->q[g->i];
    struct epoch *e = &g->s->r.pci.f.epoch;
    uint64_t seed = g->i + 99, mem = g->s->mem[g->i];
    unsigned waiting = 0;
    int slot = epoch_slot(e);
    epoch_enter(e, slot);
    for (unsigned n = 0; n < ROUNDS;) {
        for (unsigned batch = 1 + dice(&seed) % 6; batch && q->free >= 2; batch--, n++, waiting++) {
            uint64_t at = mem + 128 * q->free_head;
            struct vbuf b[] = {{at, 8}, {at + 100, 1}};
            vq_add(q, b, 1, 1, vr_hva(&g->s->r, at), dice(&seed) % 2);
        }
        vq_kick(q);
        vq_disarm(q);
        for (void *p; dice(&seed) % 4 && (p = vq_get(q, NULL));)
            take(q, p, &waiting);
        while (waiting && (q->free < 2 || dice(&seed) % 3 == 0))
            take(q, vq_wait(q, NULL), &waiting);
    }
    while (waiting)
        take(q, vq_wait(q, NULL), &waiting);
    epoch_leave(e, slot);
    return NULL;
}

/* Mask and unmask the queues' vectors meanwhile. */
static void *mask_thread(void *opaque)
{
    struct storm *s = opaque;
    struct epoch *e = &s->r.pci.f.epoch;
    uint64_t seed = 5;
    int slot = epoch_slot(e);
    epoch_enter(e, slot);
    while (!s->over) {
        uint64_t control = s->d.msix + 16 * (1 + dice(&seed) % QUEUES) + 12;
        mem_wr(&s->r.pci, control, 4, 1);
        sched_yield();
        mem_wr(&s->r.pci, control, 4, 0);
        sched_yield();
    }
    epoch_leave(e, slot);
    return NULL;
}

static void run(struct storm *s, uint64_t features, bool masks)
{
    pthread_t guest[QUEUES], mask;
    struct guest g[QUEUES];
    s->over = false;
    vd_agree(&s->d, features);
    for (unsigned i = 0; i < QUEUES; i++) {
        vq_init(&s->q[i], &s->d, i, SIZE);
        g[i] = (struct guest){s, i};
    }
    vd_go(&s->d);
    for (unsigned i = 0; i < QUEUES; i++)
        assert_int_equal(pthread_create(&guest[i], NULL, guest_thread, &g[i]), 0);
    if (masks)
        assert_int_equal(pthread_create(&mask, NULL, mask_thread, s), 0);
    for (unsigned i = 0; i < QUEUES; i++)
        pthread_join(guest[i], NULL);
    s->over = true;
    if (masks)
        pthread_join(mask, NULL);
    assert_int_equal(vd_status(&s->d), 15);
    vd_reset(&s->d);
}

static void storm_init(struct storm *s)
{
    memset(s, 0, sizeof *s);
    vr_init(&s->r);
    s->r.pci.ram.watch.written = NULL; /* the rig's would be a barrier after each store */
    s->seed = 1;
    ioloop_bell_init(&s->bell, storm_bell, s);
    struct virtio_pci_setup setup = {.host = &s->r.pci.host,
                                     .devfn = PCI_DEVFN(9, 0),
                                     .loop = s->r.loop,
                                     .ops = &storm_ops,
                                     .options = {.packed = true},
                                     .name = "storm",
                                     .queues = QUEUES,
                                     .queue_size = SIZE};
    assert_int_equal(virtio_pci_init(&s->pci, &setup, &s->r.pci.f.err), 0);
    vr_power_on(&s->r);
    vd_find(&s->d, &s->r, PCI_DEVFN(9, 0), true);
    for (unsigned i = 0; i < QUEUES; i++)
        s->mem[i] = vr_alloc(&s->r, 128 * SIZE);
}

static void nothing_is_lost(void **state)
{
    struct storm *s = calloc(1, sizeof *s);
    storm_init(s);
    for (unsigned i = 0; i < 16; i++) {
        uint64_t f = (i & 1 ? VIRTIO_F_EVENT_IDX : 0) | (i & 2 ? VIRTIO_F_RING_PACKED : 0);
        run(s, f | (i & 4 ? VIRTIO_F_INDIRECT_DESC : 0), i & 8);
    }
    virtio_pci_fini(&s->pci);
    vr_fini(&s->r);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_is_lost)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
