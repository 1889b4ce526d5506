/* A storm of IPIs, MSIs, level pins, masks, EOIs, priority changes and mode changes from several threads.
 *
 * A request that is pending already absorbs a second one, so to count exactly every sender waits until its last request
 * of a (vector, target) has been taken before it makes the next: then as many must arrive as were sent. A vCPU is
 * looked at only when it has been kicked: a lost wakeup is a request that never arrives, and the end fails instead of
 * waiting.
 */
#include "irq/fabric_priv.h"
#include "irq/ioapic.h"
#include "x86/cpu.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define CPUS     24 /* that keep their mode and must lose nothing */
#define FLIPPERS 8  /* that change mode, ID and logical ID all the time */
#define THREADS  4
#define ROUNDS   60000
#define PATIENCE 3000000 /* yields until a missing request counts as lost */

enum { VEC_FIRST = 0x30, VEC_PIN = 0xd0, VEC_NOISE = 0x21 };

struct storm {
    struct epoch epoch;
    struct fabric *f;
    struct ioapic *io;
    struct remap remap;
    pthread_mutex_t selector;
    apic_id_t ids[CPUS + FLIPPERS];
    _Atomic bool attn[CPUS + FLIPPERS];
    _Atomic uint32_t sent[THREADS][CPUS], got[THREADS][CPUS];
    _Atomic uint32_t pin_raised[THREADS], pin_got[THREADS];
    _Atomic uint32_t nmi_sent[CPUS], nmi_got[CPUS];
    _Atomic unsigned finished;
    _Atomic unsigned failures;
};

struct hand {
    struct storm *s;
    unsigned n;
    int slot;
    uint64_t seed;
};

static uint32_t below(struct hand *h, uint32_t n)
{
    h->seed ^= h->seed >> 12;
    h->seed ^= h->seed << 25;
    h->seed ^= h->seed >> 27;
    return (uint32_t)((h->seed * UINT64_C(2685821657736338717)) >> 33) % n;
}

static void kick(void *opaque, vcpu_idx_t cpu)
{
    atomic_store(&((struct storm *)opaque)->attn[cpu.i], true);
}

static void wr(struct storm *s, uint32_t cpu, unsigned reg, uint64_t val)
{
    fabric_msr_write(s->f, VCPU_IDX(cpu), 0, MSR_X2APIC_FIRST + reg, val);
}

/* Index i belongs to thread i mod THREADS, flippers too. */
static void take_vector(struct hand *h, uint32_t cpu)
{
    struct storm *s = h->s;
    unsigned v = (unsigned)fabric_irq_take(s->f, VCPU_IDX(cpu));
    if (v >= VEC_FIRST && v < VEC_FIRST + THREADS) {
        atomic_fetch_add(&s->got[v - VEC_FIRST][cpu], 1);
    } else if (v >= VEC_PIN && v < VEC_PIN + THREADS) {
        ioapic_set_pin(s->io, 16 + v - VEC_PIN, false);
        wr(s, cpu, APIC_EOI, 0);
        atomic_fetch_add(&s->pin_got[v - VEC_PIN], 1);
        return;
    } else if (v != VEC_NOISE && v != 0xff) {
        atomic_fetch_add(&s->failures, 1);
    }
    wr(s, cpu, APIC_EOI, 0);
}

static void serve(struct hand *h, uint32_t cpu)
{
    struct storm *s = h->s;
    uint8_t page;
    if (!atomic_exchange(&s->attn[cpu], false))
        return;
    unsigned ev = fabric_events_take(s->f, VCPU_IDX(cpu), &page);
    if (cpu >= CPUS)
        return;
    if (ev & FABRIC_EV_NMI)
        atomic_fetch_add(&s->nmi_got[cpu], 1);
    while (fabric_irq_pending(s->f, VCPU_IDX(cpu)) >= 0)
        take_vector(h, cpu);
}

static void serve_mine(struct hand *h)
{
    for (uint32_t i = h->n; i < CPUS + FLIPPERS; i += THREADS)
        serve(h, i);
}

static bool ready(struct storm *s, unsigned sender, uint32_t cpu)
{
    return atomic_load(&s->sent[sender][cpu]) == atomic_load(&s->got[sender][cpu]);
}

static void send_one(struct hand *h, uint32_t cpu)
{
    struct storm *s = h->s;
    uint32_t id = s->ids[cpu].id, me = h->n;
    struct irq q = {.dest = id, .vector = (uint8_t)(VEC_FIRST + h->n), .assert_ = 1};
    if (!ready(s, h->n, cpu))
        return;
    atomic_fetch_add(&s->sent[h->n][cpu], 1);
    switch (below(h, 4)) {
    case 0:
        wr(s, me, APIC_ICR, (uint64_t)id << 32 | q.vector);
        break;
    case 1:
        wr(s, me, APIC_ICR, (uint64_t)(id >> 4 << 16 | 1u << (id & 15)) << 32 | 0x800 | q.vector);
        break;
    case 2:
        if (fabric_deliver(s->f, q) != 1)
            atomic_fetch_add(&s->failures, 1);
        break;
    default:
        remap_deliver_msi(&s->remap, fabric_port(s->f),
                          (struct msi_msg){0xfee00000u | (id & 0xff) << 12 | (id >> 8) << 5, q.vector},
                          REQUESTER_ID(8));
    }
}

/* To all but self, when every one of them has taken the last. */
static void broadcast(struct hand *h)
{
    struct storm *s = h->s;
    for (uint32_t i = 0; i < CPUS; i++)
        if (!ready(s, h->n, i))
            return;
    for (uint32_t i = 0; i < CPUS; i++)
        if (i != h->n)
            atomic_fetch_add(&s->sent[h->n][i], 1);
    wr(s, h->n, APIC_ICR, 0xc0000u | (VEC_FIRST + h->n));
}

/* The guest's own lock: the I/O APIC has one register selector for all. */
static void mask_pin(struct hand *h, bool masked)
{
    struct storm *s = h->s;
    pthread_mutex_lock(&s->selector);
    ioapic_bus_ops.write(s->io, IOAPIC_REGSEL, 4, 0x10 + 2 * (16 + h->n));
    ioapic_bus_ops.write(s->io, IOAPIC_WINDOW, 4, (VEC_PIN + h->n) | 0x8000 | (masked ? 0x10000 : 0));
    pthread_mutex_unlock(&s->selector);
}

/* Now and then behind a mask, which holds a level interrupt back and loses none. */
static void raise_pin(struct hand *h)
{
    struct storm *s = h->s;
    if (atomic_load(&s->pin_raised[h->n]) != atomic_load(&s->pin_got[h->n]))
        return;
    bool behind_mask = below(h, 2);
    if (behind_mask)
        mask_pin(h, true);
    atomic_fetch_add(&s->pin_raised[h->n], 1);
    ioapic_set_pin(s->io, 16 + h->n, true);
    if (behind_mask)
        mask_pin(h, false);
}

static void send_nmi(struct hand *h, uint32_t cpu)
{
    struct storm *s = h->s;
    if (cpu % THREADS != h->n || atomic_load(&s->nmi_sent[cpu]) != atomic_load(&s->nmi_got[cpu]))
        return;
    atomic_fetch_add(&s->nmi_sent[cpu], 1);
    wr(s, h->n, APIC_ICR, (uint64_t)s->ids[cpu].id << 32 | 0x400);
}

/* Any legal walk through the modes, with IDs and logical IDs changed on the way. */
static void flip(struct hand *h, uint32_t cpu)
{
    struct fabric *f = h->s->f;
    vcpu_idx_t c = VCPU_IDX(cpu);
    switch (below(h, 6)) {
    case 0:
        fabric_msr_write(f, c, 0, MSR_APIC_BASE, APIC_BASE_DEFAULT);
        break;
    case 1:
        fabric_msr_write(f, c, 0, MSR_APIC_BASE, APIC_BASE_DEFAULT | APIC_BASE_EN);
        break;
    case 2:
        fabric_msr_write(f, c, 0, MSR_APIC_BASE, APIC_BASE_DEFAULT | APIC_BASE_EN | APIC_BASE_EXTD);
        break;
    case 3:
        fabric_mmio_write(f, c, 0, APIC_LDR << 4, below(h, 256) << 24);
        break;
    case 4:
        fabric_mmio_write(f, c, 0, APIC_SVR << 4, 0x1ff);
        wr(h->s, cpu, APIC_SVR, 0x1ff);
        break;
    default:
        fabric_deliver(f, (struct irq){.dest = h->s->ids[cpu].id, .vector = VEC_NOISE, .assert_ = 1});
        fabric_deliver(f, (struct irq){.dest = h->s->ids[cpu].id, .mode = IRQ_INIT, .assert_ = 1});
    }
}

static void one_round(struct hand *h)
{
    struct storm *s = h->s;
    uint32_t mine = h->n + THREADS * below(h, CPUS / THREADS);
    switch (below(h, 8)) {
    case 0:
        broadcast(h);
        break;
    case 1:
        raise_pin(h);
        break;
    case 2:
        send_nmi(h, below(h, CPUS));
        break;
    case 3:
        fabric_cr8_set(s->f, VCPU_IDX(mine), 15);
        serve_mine(h);
        fabric_cr8_set(s->f, VCPU_IDX(mine), 0);
        break;
    case 4:
        flip(h, CPUS + h->n + THREADS * below(h, FLIPPERS / THREADS));
        break;
    default:
        send_one(h, below(h, CPUS));
    }
}

static bool all_arrived(struct storm *s)
{
    for (unsigned t = 0; t < THREADS; t++) {
        if (atomic_load(&s->pin_raised[t]) != atomic_load(&s->pin_got[t]))
            return false;
        for (uint32_t i = 0; i < CPUS; i++)
            if (!ready(s, t, i))
                return false;
    }
    return true;
}

static void *run(void *opaque)
{
    struct hand *h = opaque;
    struct storm *s = h->s;
    for (unsigned k = 0; k < ROUNDS; k++) {
        epoch_enter(&s->epoch, h->slot);
        serve_mine(h);
        one_round(h);
        epoch_leave(&s->epoch, h->slot);
    }
    atomic_fetch_add(&s->finished, 1);
    for (unsigned k = 0; k < PATIENCE; k++) {
        bool last = atomic_load(&s->finished) == THREADS && all_arrived(s);
        epoch_enter(&s->epoch, h->slot);
        serve_mine(h);
        epoch_leave(&s->epoch, h->slot);
        if (last)
            break;
        sched_yield();
    }
    return NULL;
}

static void storm_init(struct storm *s)
{
    struct err e = {""};
    for (uint32_t i = 0; i < CPUS + FLIPPERS; i++)
        s->ids[i] = APIC_ID(3 + i * 37 + (i > 12 ? 20000 : 0));
    epoch_init(&s->epoch);
    struct fabric_config c = {.vcpus = CPUS + FLIPPERS,
                              .ids = s->ids,
                              .firmware_x2apic = true,
                              .x2apic = true,
                              .ext_dest_id = true,
                              .kick = kick,
                              .kick_opaque = s,
                              .epoch = &s->epoch};
    assert_int_equal(fabric_create(&c, &s->f, &e), 0);
    remap_init(&s->remap, true);
    pthread_mutex_init(&s->selector, NULL);
    struct ioapic_config ic = {.ext_dest_id = true, .remap = &s->remap, .port = fabric_port(s->f)};
    assert_int_equal(ioapic_create(&ic, &s->io, &e), 0);
    fabric_set_eoi(s->f, ioapic_eoi, s->io);
    for (uint32_t i = 0; i < CPUS + FLIPPERS; i++)
        wr(s, i, APIC_SVR, 0x1ff);
    for (unsigned t = 0; t < THREADS; t++) {
        uint32_t dest = s->ids[(t * 7 + 1) % CPUS].id, pin = 16 + t;
        ioapic_bus_ops.write(s->io, IOAPIC_REGSEL, 4, 0x11 + 2 * pin);
        ioapic_bus_ops.write(s->io, IOAPIC_WINDOW, 4, (dest & 0xff) << 24 | (dest >> 8) << 17);
        ioapic_bus_ops.write(s->io, IOAPIC_REGSEL, 4, 0x10 + 2 * pin);
        ioapic_bus_ops.write(s->io, IOAPIC_WINDOW, 4, 0x8000 | (VEC_PIN + t));
    }
}

static void check(struct storm *s)
{
    uint64_t total = 0;
    assert_int_equal(atomic_load(&s->failures), 0);
    for (unsigned t = 0; t < THREADS; t++) {
        assert_int_equal(atomic_load(&s->pin_got[t]), atomic_load(&s->pin_raised[t]));
        for (uint32_t i = 0; i < CPUS; i++) {
            assert_int_equal(atomic_load(&s->got[t][i]), atomic_load(&s->sent[t][i]));
            total += atomic_load(&s->sent[t][i]);
        }
    }
    for (uint32_t i = 0; i < CPUS; i++)
        assert_int_equal(atomic_load(&s->nmi_got[i]), atomic_load(&s->nmi_sent[i]));
    assert_true(total > THREADS * ROUNDS / 20); /* it was a storm */
}

static void nothing_is_lost_and_nothing_comes_twice(void **state)
{
    struct storm *s = calloc(1, sizeof *s);
    struct hand hands[THREADS];
    pthread_t t[THREADS];
    storm_init(s);
    for (unsigned i = 0; i < THREADS; i++) {
        hands[i] = (struct hand){.s = s, .n = i, .slot = epoch_slot(&s->epoch), .seed = 0x1234567 + i};
        assert_int_equal(pthread_create(&t[i], NULL, run, &hands[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    check(s);
    ioapic_destroy(s->io);
    fabric_destroy(s->f);
    epoch_fini(&s->epoch);
    free(s);
}

/* Two senders set bits of one word as fast as its owner takes them: a take that is not one atomic step loses some. */
#define HAMMER_VECTORS 28 /* a sender: 40h-5Bh, 60h-7Bh, all in word 1 */
#define HAMMER_SENDS   400000

struct hammer {
    struct epoch epoch;
    struct fabric *f;
    _Atomic bool attn;
    _Atomic uint32_t sent[2][32], got[2][32];
    _Atomic unsigned done;
};

struct hammer_sender {
    struct hammer *h;
    unsigned n;
    int slot;
};

static void hammer_kick(void *opaque, vcpu_idx_t cpu)
{
    atomic_store(&((struct hammer *)opaque)->attn, true);
}

static void *hammer_send(void *opaque)
{
    struct hammer_sender *me = opaque;
    struct hammer *h = me->h;
    uint32_t sends = 0;
    epoch_enter(&h->epoch, me->slot);
    for (uint32_t k = 0; k < HAMMER_SENDS * 20 && sends < HAMMER_SENDS; k++) {
        unsigned v = k % HAMMER_VECTORS;
        if (atomic_load(&h->sent[me->n][v]) != atomic_load(&h->got[me->n][v]))
            continue;
        atomic_fetch_add(&h->sent[me->n][v], 1);
        fabric_deliver(h->f, (struct irq){.dest = 0x12c, .vector = (uint8_t)(0x40 + 0x20 * me->n + v), .assert_ = 1});
        sends++;
    }
    epoch_leave(&h->epoch, me->slot);
    atomic_fetch_add(&h->done, 1);
    return NULL;
}

static void hammer_take(struct hammer *h)
{
    if (!atomic_exchange(&h->attn, false))
        return;
    while (fabric_irq_pending(h->f, VCPU_IDX(1)) >= 0) {
        unsigned v = (unsigned)fabric_irq_take(h->f, VCPU_IDX(1)) - 0x40;
        fabric_msr_write(h->f, VCPU_IDX(1), 0, MSR_X2APIC_FIRST + APIC_EOI, 0);
        atomic_fetch_add(&h->got[v >> 5 & 1][v & 31], 1);
    }
}

static void one_word_under_the_hammer(void **state)
{
    static const apic_id_t ids[] = {{9}, {0x12c}};
    struct hammer *h = calloc(1, sizeof *h);
    struct hammer_sender s[2];
    pthread_t t[2];
    epoch_init(&h->epoch);
    struct fabric_config c = {.vcpus = 2,
                              .ids = ids,
                              .firmware_x2apic = true,
                              .x2apic = true,
                              .kick = hammer_kick,
                              .kick_opaque = h,
                              .epoch = &h->epoch};
    assert_int_equal(fabric_create(&c, &h->f, NULL), 0);
    fabric_msr_write(h->f, VCPU_IDX(1), 0, MSR_X2APIC_FIRST + APIC_SVR, 0x1ff);
    atomic_store(&h->attn, false);
    for (unsigned i = 0; i < 2; i++) {
        s[i] = (struct hammer_sender){h, i, epoch_slot(&h->epoch)};
        assert_int_equal(pthread_create(&t[i], NULL, hammer_send, &s[i]), 0);
    }
    while (atomic_load(&h->done) < 2)
        hammer_take(h);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    hammer_take(h);
    for (unsigned i = 0; i < 2; i++)
        for (unsigned v = 0; v < HAMMER_VECTORS; v++)
            assert_int_equal(atomic_load(&h->got[i][v]), atomic_load(&h->sent[i][v]));
    fabric_destroy(h->f);
    epoch_fini(&h->epoch);
    free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_is_lost_and_nothing_comes_twice),
                                       cmocka_unit_test(one_word_under_the_hammer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
