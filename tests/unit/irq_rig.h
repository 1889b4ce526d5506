/* A fabric with nothing around it: kicks are counted, guest time is what the test says. */
#ifndef HEC_TESTS_IRQ_RIG_H
#define HEC_TESTS_IRQ_RIG_H

#include "irq/fabric_priv.h"
#include "x86/cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

struct rig {
    struct epoch epoch;
    int slot;
    struct fabric *f;
    uint32_t n;
    apic_id_t *ids;
    unsigned *kicks;
    uint64_t now;
    uint8_t pic_vector;
    unsigned inta;
};

static inline void rig_kick(void *opaque, vcpu_idx_t cpu)
{
    ((struct rig *)opaque)->kicks[cpu.i]++;
}

static inline uint8_t rig_inta(void *opaque)
{
    struct rig *r = opaque;
    r->inta++;
    return r->pic_vector;
}

static inline void rig_init(struct rig *r, const uint32_t *ids, uint32_t n, bool firmware_x2apic)
{
    struct err e = {""};
    *r = (struct rig){.n = n, .now = 1000};
    r->ids = calloc(n, sizeof *r->ids);
    r->kicks = calloc(n, sizeof *r->kicks);
    for (uint32_t i = 0; i < n; i++)
        r->ids[i] = APIC_ID(ids[i]);
    epoch_init(&r->epoch);
    r->slot = epoch_slot(&r->epoch);
    struct fabric_config c = {.vcpus = n,
                              .ids = r->ids,
                              .firmware_x2apic = firmware_x2apic,
                              .x2apic = true,
                              .ext_dest_id = true,
                              .kick = rig_kick,
                              .kick_opaque = r,
                              .extint_ack = rig_inta,
                              .extint_opaque = r,
                              .epoch = &r->epoch};
    assert_int_equal(fabric_create(&c, &r->f, &e), 0);
    epoch_enter(&r->epoch, r->slot);
}

static inline void rig_fini(struct rig *r)
{
    epoch_leave(&r->epoch, r->slot);
    fabric_destroy(r->f);
    epoch_fini(&r->epoch);
    free(r->ids);
    free(r->kicks);
}

static inline void rig_wr(struct rig *r, uint32_t cpu, unsigned reg, uint64_t val)
{
    if (r->f->lapic[cpu].mode == LAPIC_X2APIC)
        assert_true(fabric_msr_write(r->f, VCPU_IDX(cpu), r->now, MSR_X2APIC_FIRST + reg, val));
    else
        fabric_mmio_write(r->f, VCPU_IDX(cpu), r->now, reg << 4, (uint32_t)val);
}

static inline uint64_t rig_rd(struct rig *r, uint32_t cpu, unsigned reg)
{
    uint64_t val = 0;
    if (r->f->lapic[cpu].mode == LAPIC_X2APIC)
        assert_true(fabric_msr_read(r->f, VCPU_IDX(cpu), r->now, MSR_X2APIC_FIRST + reg, &val));
    else
        val = fabric_mmio_read(r->f, VCPU_IDX(cpu), r->now, reg << 4);
    return val;
}

static inline bool rig_base(struct rig *r, uint32_t cpu, uint64_t bits_on)
{
    uint64_t bsp = cpu == 0 ? APIC_BASE_BSP : 0;
    return fabric_msr_write(r->f, VCPU_IDX(cpu), r->now, MSR_APIC_BASE, APIC_BASE_DEFAULT | bsp | bits_on);
}

/* Software-enable everybody. */
static inline void rig_enable(struct rig *r)
{
    for (uint32_t i = 0; i < r->n; i++)
        rig_wr(r, i, APIC_SVR, APIC_SVR_ENABLE | 0xff);
}

/* Whether `vector` is requested at `cpu`; forgets it. */
static inline bool rig_got(struct rig *r, uint32_t cpu, uint8_t vector)
{
    uint64_t bit = BIT(vector & 63);
    return (atomic_fetch_and(&r->f->lapic[cpu].irr[vector >> 6], ~bit) & bit) != 0;
}

static inline struct irq rig_fixed(uint32_t dest, uint8_t vector)
{
    return (struct irq){.dest = dest, .vector = vector, .assert_ = 1, .dest8 = dest <= 0xff};
}

/* xorshift64*: the same scripts every time. */
static inline uint64_t rig_random(uint64_t *s)
{
    *s ^= *s >> 12;
    *s ^= *s << 25;
    *s ^= *s >> 27;
    return *s * UINT64_C(2685821657736338717);
}

static inline uint32_t rig_below(uint64_t *s, uint32_t n)
{
    return (uint32_t)((rig_random(s) >> 33) % n);
}

#endif
