/* What the interrupt fuzzers share: bytes as a script, and a fabric whose kicks go nowhere. A finding is a crash, a
 * sanitizer report, or an invariant that ensure() finds broken. */
#ifndef HEC_TESTS_IRQ_FUZZ_H
#define HEC_TESTS_IRQ_FUZZ_H

#include "../unit/ensure.h"

#include "irq/fabric_priv.h"
#include "x86/cpu.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct script {
    const uint8_t *at;
    size_t left;
};

/* The next n bytes, little-endian; zeros past the end. */
static inline uint64_t script_get(struct script *s, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n && s->left; i++, s->left--)
        v |= (uint64_t)*s->at++ << 8 * i;
    return v;
}

#define FUZZ_CPUS 6

struct fuzz_box {
    struct epoch epoch;
    int slot;
    struct fabric *f;
    uint64_t kicks[FUZZ_CPUS];
};

static inline void fuzz_kick(void *opaque, vcpu_idx_t cpu)
{
    ensure(cpu.i < FUZZ_CPUS);
    ((struct fuzz_box *)opaque)->kicks[cpu.i]++;
}

static inline uint8_t fuzz_inta(void *opaque)
{
    return 8;
}

static inline void fuzz_box_init(struct fuzz_box *b, bool firmware_x2apic)
{
    static const apic_id_t ids[FUZZ_CPUS] = {{5}, {0x23}, {0xff}, {0x123}, {0x12c}, {0x203}};
    struct err e = {""};
    *b = (struct fuzz_box){.slot = 0};
    epoch_init(&b->epoch);
    b->slot = epoch_slot(&b->epoch);
    struct fabric_config c = {.vcpus = FUZZ_CPUS,
                              .ids = ids,
                              .firmware_x2apic = firmware_x2apic,
                              .x2apic = true,
                              .ext_dest_id = true,
                              .kick = fuzz_kick,
                              .kick_opaque = b,
                              .extint_ack = fuzz_inta,
                              .epoch = &b->epoch};
    ensure(fabric_create(&c, &b->f, &e) == 0);
    epoch_enter(&b->epoch, b->slot);
}

static inline void fuzz_box_fini(struct fuzz_box *b)
{
    epoch_leave(&b->epoch, b->slot);
    fabric_destroy(b->f);
    epoch_fini(&b->epoch);
}

static inline struct irq fuzz_irq(struct script *s)
{
    uint64_t bits_ = script_get(s, 3);
    static const uint32_t dests[8] = {5, 0x23, 0xff, 0x123, 0x12c, 0x203, UINT32_MAX, 0x121000};
    struct irq irq = {.vector = (uint8_t)bits_,
                      .mode = bits_ >> 8 & 7,
                      .logical = bits_ >> 11 & 1,
                      .level = bits_ >> 12 & 1,
                      .assert_ = bits_ >> 13 & 1,
                      .dest8 = bits_ >> 14 & 1};
    irq.dest = bits_ >> 15 & 1 ? (uint32_t)script_get(s, 4) : dests[bits_ >> 16 & 7];
    return irq;
}

#endif
