/* A VT-d unit under threads: entries that change while messages name them, invalidations, posted interrupts, faults
 * that are recorded while the guest clears them, and remapping that goes on and off.
 *
 * The entry of a sender moves between two states, each with a vector, a destination and a source of its own, by single
 * 16-byte stores: whoever gets through must have got one state whole.
 */
#include "vtd_rig.h"

#include <sched.h>

#define SENDERS  3
#define POSTERS  3
#define ROUNDS   60000
#define PATIENCE 3000000 /* yields until something counts as lost */
#define INDEX    0x7fff

enum { VEC_A = 0x41, VEC_B = 0x9c, DEST_A = 0x12c, DEST_B = 0x4321, RID_A = 0x0108, RID_B = 0x2b40 };

struct storm {
    struct ram ram;
    struct vtd *v;
    struct remap remap;
    _Atomic uint32_t delivered[2], blocked, failures, events, stale;
    _Atomic uint32_t posted[POSTERS], taken[POSTERS];
    _Atomic bool notified;
    _Atomic unsigned running;
};

struct hand {
    struct storm *s;
    unsigned n;
};

static int deliver(void *opaque, struct irq irq)
{
    struct storm *s = opaque;
    if (irq.vector == VEC_A && irq.dest == DEST_A)
        atomic_fetch_add(&s->delivered[0], 1);
    else if (irq.vector == VEC_B && irq.dest == DEST_B)
        atomic_fetch_add(&s->delivered[1], 1);
    else if (irq.vector == 0xf2 && irq.dest == 0x777)
        atomic_store(&s->notified, true);
    else if (irq.vector == 0x33 && irq.dest == 0x200)
        atomic_fetch_add(&s->events, 1);
    else
        atomic_fetch_add(&s->failures, 1);
    return 1;
}

static void stale(void *opaque, uint32_t first, uint32_t last)
{
    atomic_fetch_add(&((struct storm *)opaque)->stale, 1);
}

static uint64_t *at(struct storm *s, gpa_t gpa)
{
    return (uint64_t *)ram_hva(&s->ram, gpa, 8);
}

/* As guests do it. Assembly: a sanitizer sees only the reader's atomics. */
static void store16(uint64_t *p, uint64_t lo, uint64_t hi)
{
    uint64_t was_lo = p[0], was_hi = p[1];
    bool done = false;
    while (!done)
        __asm__ volatile("lock cmpxchg16b %1"
                         : "=@ccz"(done), "+m"(*(unsigned __int128 *)p), "+a"(was_lo), "+d"(was_hi)
                         : "b"(lo), "c"(hi)
                         : "memory");
}

static void set_state(struct storm *s, bool b)
{
    uint64_t vector = b ? VEC_B : VEC_A, dest = b ? DEST_B : DEST_A;
    store16(at(s, RIG_IRT + INDEX * 16), 1 | vector << 16 | dest << 32, 1u << 18 | (b ? RID_B : RID_A));
}

/* ---- the guest: changes an entry, invalidates, waits, handles faults ---- */

static void wait_done(struct storm *s, uint32_t n)
{
    uint32_t *status = (uint32_t *)at(s, RIG_STATUS);
    if (__atomic_load_n(status, __ATOMIC_ACQUIRE) != n)
        atomic_fetch_add(&s->failures, 1); /* the queue runs before the tail's write returns */
}

static void serve_faults(struct storm *s)
{
    for (unsigned i = 0; i < VTD_FAULTS; i++) {
        uint64_t what = vtd_bus_ops.read(s->v, VTD_FRCD + i * 16 + 8, 8);
        unsigned reason = (unsigned)bits(what, 39, 32);
        if (!(what >> 63))
            continue;
        if (reason != REMAP_VTD_SOURCE && reason != REMAP_VTD_NOT_PRESENT && reason != REMAP_VTD_COMPAT_BLOCKED)
            atomic_fetch_add(&s->failures, 1);
        vtd_bus_ops.write(s->v, VTD_FRCD + i * 16 + 12, 4, 0x80000000);
    }
    vtd_bus_ops.write(s->v, VTD_FSTS, 4, VTD_FSTS_PFO);
}

static void *guest(void *opaque)
{
    struct storm *s = ((struct hand *)opaque)->s;
    uint32_t tail = 0;
    for (uint32_t k = 1; atomic_load(&s->running); k++) {
        set_state(s, k & 1);
        uint64_t *d = at(s, RIG_QUEUE + tail * 16);
        d[0] = 4 | BIT(4) | (uint64_t)INDEX << 32;
        d[1] = 0;
        d[2] = 5 | BIT(5) | (uint64_t)k << 32;
        d[3] = RIG_STATUS;
        tail = (tail + 2) % 256;
        vtd_bus_ops.write(s->v, VTD_IQT, 8, tail << 4);
        wait_done(s, k);
        if (k % 8 == 0)
            serve_faults(s);
        if (k % 64 == 0) { /* for a moment compatibility messages pass and handles mean nothing */
            vtd_bus_ops.write(s->v, VTD_GCMD, 4, VTD_G_QIE);
            vtd_bus_ops.write(s->v, VTD_GCMD, 4, VTD_G_QIE | VTD_G_IRE);
        }
        sched_yield();
    }
    return NULL;
}

/* ---- devices ---- */

/* Whether there has been some of everything: how much of it is up to the scheduler. */
static bool seen_all(struct storm *s)
{
    return atomic_load(&s->delivered[0]) && atomic_load(&s->delivered[1]) && atomic_load(&s->blocked);
}

static void *sender(void *opaque)
{
    struct storm *s = ((struct hand *)opaque)->s;
    struct irq_port port = {.deliver = deliver, .opaque = s};
    for (unsigned k = 0; k < ROUNDS || (!seen_all(s) && k < PATIENCE); k++) {
        if (k % 64 == 0)
            sched_yield();
        bool b = k & 1;
        struct remap_result r = remap_msi(&s->remap, handle(INDEX), REQUESTER_ID(b ? RID_B : RID_A), REMAP_DELIVER);
        if (r.fault == REMAP_VTD_SOURCE) {
            atomic_fetch_add(&s->blocked, 1);
        } else if (r.fault == REMAP_OK && r.form == REMAP_FORM_VTD) {
            if (r.irq.vector != (b ? VEC_B : VEC_A))
                atomic_fetch_add(&s->failures, 1);
            port.deliver(port.opaque, r.irq);
        } else if (r.form != REMAP_FORM_COMPAT) {
            atomic_fetch_add(&s->failures, 1);
        }
    }
    atomic_fetch_sub(&s->running, 1);
    return NULL;
}

/* Posts its vector again as soon as the last one has been taken: each must be seen exactly once. */
static void *poster(void *opaque)
{
    struct hand *h = opaque;
    struct storm *s = h->s;
    struct irq_port port = {.deliver = deliver, .opaque = s};
    unsigned patience = PATIENCE;
    for (unsigned k = 0; k < ROUNDS / 4 && patience; k++) {
        struct remap_result r;
        atomic_fetch_add(&s->posted[h->n], 1);
        do { /* until remapping is on */
            r = remap_msi(&s->remap, handle(h->n), REQUESTER_ID(8), REMAP_DELIVER);
        } while (r.form == REMAP_FORM_COMPAT);
        if (r.fault == REMAP_OK)
            port.deliver(port.opaque, r.irq);
        else if (r.fault != REMAP_POSTED)
            atomic_fetch_add(&s->failures, 1);
        while (atomic_load(&s->taken[h->n]) != atomic_load(&s->posted[h->n]) && --patience)
            sched_yield();
    }
    if (!patience)
        atomic_fetch_add(&s->failures, 1);
    atomic_fetch_sub(&s->running, 1);
    return NULL;
}

/* The CPU behind the descriptor: looks only when it has been notified. SDM 3C, "Posted-Interrupt Processing". */
static void *receiver(void *opaque)
{
    struct storm *s = ((struct hand *)opaque)->s;
    uint64_t *pd = at(s, RIG_PD);
    while (atomic_load(&s->running)) {
        if (!atomic_exchange(&s->notified, false)) {
            sched_yield();
            continue;
        }
        __atomic_fetch_and(&pd[4], ~UINT64_C(1), __ATOMIC_SEQ_CST);
        uint64_t got = __atomic_exchange_n(&pd[1], 0, __ATOMIC_SEQ_CST);
        for (unsigned i = 0; i < POSTERS; i++)
            if (got >> i & 1)
                atomic_fetch_add(&s->taken[i], 1);
    }
    return NULL;
}

/* ---- */

static void storm_open(struct storm *s)
{
    struct err e = {""};
    struct vtd_config c = vtd_rig_config(true);
    assert_int_equal(ram_init(&s->ram, RIG_RAM, &e), 0);
    c.ram = &s->ram;
    c.port = (struct irq_port){.deliver = deliver, .opaque = s};
    c.stale = (struct remap_stale){stale, s};
    assert_int_equal(vtd_create(&c, &s->v, &e), 0);
    remap_init(&s->remap, false);
    s->remap.vtd = s->v;
    at(s, RIG_PD)[4] = UINT64_C(0x777) << 32 | 0xf2 << 16;
    for (unsigned i = 0; i < POSTERS; i++)
        *at(s, RIG_IRT + i * 16) = 1 | BIT(15) | (uint64_t)(0x40 + i) << 16 | (uint64_t)RIG_PD >> 6 << 38;
    set_state(s, false);
    vtd_bus_ops.write(s->v, VTD_FEDATA, 4, 0x33);
    vtd_bus_ops.write(s->v, VTD_FEADDR, 8, UINT64_C(0x200) << 32 | 0xfee00000);
    vtd_bus_ops.write(s->v, VTD_FECTL, 4, 0);
    vtd_bus_ops.write(s->v, VTD_IQA, 8, RIG_QUEUE);
    vtd_bus_ops.write(s->v, VTD_IRTA, 8, RIG_IRT | 0x80f);
    vtd_bus_ops.write(s->v, VTD_GCMD, 4, VTD_G_SIRTP);
    vtd_bus_ops.write(s->v, VTD_GCMD, 4, VTD_G_QIE | VTD_G_IRE);
}

static void entries_are_whole_and_nothing_posted_is_lost(void **state)
{
    enum { THREADS = SENDERS + POSTERS + 2 };
    struct storm *s = calloc(1, sizeof *s);
    struct hand hands[THREADS];
    pthread_t t[THREADS];
    storm_open(s);
    atomic_store(&s->running, SENDERS + POSTERS);
    for (unsigned i = 0; i < THREADS; i++) {
        bool sends = i < SENDERS, posts = !sends && i < SENDERS + POSTERS;
        hands[i] = (struct hand){.s = s, .n = posts ? i - SENDERS : i};
        assert_int_equal(pthread_create(&t[i], NULL,
                                        sends              ? sender
                                        : posts            ? poster
                                        : i == THREADS - 1 ? guest
                                                           : receiver,
                                        &hands[i]),
                         0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(atomic_load(&s->failures), 0);
    for (unsigned i = 0; i < POSTERS; i++)
        assert_int_equal(atomic_load(&s->taken[i]), ROUNDS / 4);
    assert_true(seen_all(s));
    assert_true(atomic_load(&s->events) && atomic_load(&s->stale));
    vtd_destroy(s->v);
    ram_fini(&s->ram);
    free(s);
}

/* ---- DMA: a page moves, and after the invalidation nobody gets the old place ---- */

struct mover {
    struct storm s;
    _Atomic uint32_t floor; /* the oldest page that may still be handed out */
    _Atomic bool stop;
    _Atomic uint32_t wrong;
};

enum { DMA_PTE = RIG_PAGES + 3 * 0x1000, DMA_ROUNDS = 20000 };

/* Pages are numbers that only grow, so an old one is seen to be old. */
static void *device(void *opaque)
{
    struct mover *m = opaque;
    struct vtd_page p;
    while (!atomic_load(&m->stop)) {
        uint32_t oldest = atomic_load(&m->floor);
        if (!vtd_translate(m->s.v, REQUESTER_ID(0), 0, true, &p) || p.gpa >> 12 < oldest)
            atomic_fetch_add(&m->wrong, 1);
    }
    return NULL;
}

static void an_invalidated_page_stays_away(void **state)
{
    struct mover *m = calloc(1, sizeof *m);
    pthread_t t[2];
    storm_open(&m->s);
    *at(&m->s, RIG_ROOT) = RIG_CONTEXT | 1;
    at(&m->s, RIG_CONTEXT)[0] = RIG_PAGES | 1;
    at(&m->s, RIG_CONTEXT)[1] = 2 | 5 << 8;
    for (unsigned i = 0; i < 3; i++)
        *at(&m->s, RIG_PAGES + i * 0x1000) = (RIG_PAGES + (i + 1) * 0x1000) | 3;
    *at(&m->s, DMA_PTE) = 1u << 12 | 3;
    vtd_bus_ops.write(m->s.v, VTD_RTADDR, 8, RIG_ROOT);
    vtd_bus_ops.write(m->s.v, VTD_GCMD, 4, VTD_G_SRTP | VTD_G_QIE);
    vtd_bus_ops.write(m->s.v, VTD_GCMD, 4, VTD_G_TE | VTD_G_QIE);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&t[i], NULL, device, m), 0);
    for (uint32_t page = 2; page < DMA_ROUNDS; page++) {
        uint64_t *d = at(&m->s, RIG_QUEUE + (page % 256) * 16);
        __atomic_store_n(at(&m->s, DMA_PTE), (uint64_t)page << 12 | 3, __ATOMIC_RELEASE);
        d[0] = 2 | (1 + page % 3) << 4 | 5 << 16;
        d[1] = 0;
        if (page == 2)
            memcpy(at(&m->s, RIG_QUEUE), d, 16), memcpy(at(&m->s, RIG_QUEUE + 16), d, 16);
        vtd_bus_ops.write(m->s.v, VTD_IQT, 8, ((page + 1) % 256) << 4);
        atomic_store(&m->floor, page);
        if (page % 16 == 0)
            sched_yield();
    }
    atomic_store(&m->stop, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(atomic_load(&m->wrong), 0);
    assert_int_equal(vtd_bus_ops.read(m->s.v, VTD_FSTS, 4), 0);
    vtd_destroy(m->s.v);
    ram_fini(&m->s.ram);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(entries_are_whole_and_nothing_posted_is_lost),
                                       cmocka_unit_test(an_invalidated_page_stays_away)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
