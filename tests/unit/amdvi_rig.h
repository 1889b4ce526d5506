/* An AMD-Vi unit with memory, and a port that remembers what it was given. */
#ifndef HEC_TESTS_AMDVI_RIG_H
#define HEC_TESTS_AMDVI_RIG_H

#include "irq/amdvi_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define ARIG_RAM    (UINT64_C(4) << 20)
#define ARIG_DEVTAB UINT64_C(0x100000) /* 2048 devices */
#define ARIG_CMD    UINT64_C(0x120000) /* 256 entries */
#define ARIG_EVT    UINT64_C(0x122000) /* 256 entries */
#define ARIG_IRT    UINT64_C(0x130000)
#define ARIG_DEV    0x0a5 /* no function's usual id */

struct arig {
    struct ram ram;
    struct remap remap;
    struct amdvi *a;
    struct irq irq; /* the last one */
    unsigned irqs;
    uint32_t stale_first, stale_last;
    unsigned stales;
    uint64_t seen; /* events read so far */
};

static inline int arig_deliver(void *opaque, struct irq irq)
{
    struct arig *r = opaque;
    r->irq = irq;
    r->irqs++;
    return 1;
}

static inline void arig_stale(void *opaque, uint32_t first, uint32_t last)
{
    struct arig *r = opaque;
    r->stale_first = first;
    r->stale_last = last;
    r->stales++;
}

static inline uint64_t arig_rd(struct arig *r, unsigned reg)
{
    return amdvi_bus_ops.read(r->a, reg, 8);
}

static inline void arig_wr(struct arig *r, unsigned reg, uint64_t val)
{
    amdvi_bus_ops.write(r->a, reg, 8, val);
}

static inline void arig_st(struct arig *r, gpa_t gpa, uint64_t val)
{
    st64(r->ram.low + gpa, val);
}

static inline uint64_t arig_ld(struct arig *r, gpa_t gpa)
{
    return ld64(r->ram.low + gpa);
}

static inline void arig_dte(struct arig *r, uint16_t dev, uint64_t q0, uint64_t q1, uint64_t q2)
{
    gpa_t at = ARIG_DEVTAB + dev * UINT64_C(32);
    arig_st(r, at, q0);
    arig_st(r, at + 8, q1);
    arig_st(r, at + 16, q2);
}

#define ARIG_ON (CTL_IOMMU_EN | CTL_EVT_LOG_EN | CTL_CMD_BUF_EN)

/* The unit as a guest has it running: tables at the places above, `more` in the control register. */
static inline void arig_start(struct arig *r, uint64_t more)
{
    arig_wr(r, AMDVI_CONTROL, 0);
    arig_wr(r, AMDVI_DEVTAB, ARIG_DEVTAB | 15);
    arig_wr(r, AMDVI_CMD_BASE, ARIG_CMD | UINT64_C(8) << 56);
    arig_wr(r, AMDVI_EVT_BASE, ARIG_EVT | UINT64_C(8) << 56);
    arig_wr(r, AMDVI_STATUS, ST_RW1C);
    arig_wr(r, AMDVI_CONTROL, ARIG_ON | more);
    r->seen = 0;
    r->irqs = 0;
}

static inline void arig_init_as(struct arig *r, bool intremap, bool xt, bool dma)
{
    struct err e = {""};
    *r = (struct arig){.irqs = 0};
    assert_int_equal(ram_init(&r->ram, ARIG_RAM, &e), 0);
    remap_init(&r->remap, true);
    struct amdvi_config c = {.intremap = intremap,
                             .xt = xt,
                             .dma_translation = dma,
                             .requester = REQUESTER_ID(AMDVI_RID),
                             .ram = &r->ram,
                             .remap = &r->remap,
                             .port = {arig_deliver, r},
                             .stale = {arig_stale, r}};
    assert_int_equal(amdvi_create(&c, &r->a, &e), 0);
    r->remap.amdvi = r->a;
}

static inline void arig_init(struct arig *r)
{
    arig_init_as(r, true, true, true);
}

static inline void arig_fini(struct arig *r)
{
    amdvi_destroy(r->a);
    ram_fini(&r->ram);
}

static inline void arig_command(struct arig *r, uint64_t q0, uint64_t q1)
{
    uint64_t tail = arig_rd(r, AMDVI_CMD_TAIL);
    arig_st(r, ARIG_CMD + tail, q0);
    arig_st(r, ARIG_CMD + tail + 8, q1);
    amdvi_bus_ops.write(r->a, AMDVI_CMD_TAIL, 4, (tail + 16) & 0xfff);
}

static inline uint64_t arig_op(unsigned op, uint64_t low60)
{
    return (uint64_t)op << 60 | low60;
}

/* The next event, or false. */
static inline bool arig_event(struct arig *r, uint64_t q[2])
{
    if (r->seen == arig_rd(r, AMDVI_EVT_TAIL))
        return false;
    q[0] = arig_ld(r, ARIG_EVT + r->seen);
    q[1] = arig_ld(r, ARIG_EVT + r->seen + 8);
    r->seen = (r->seen + 16) & 0xfff;
    arig_wr(r, AMDVI_EVT_HEAD, r->seen);
    return true;
}

/* Exactly this one event. `flags` at their place in the second doubleword. */
static inline void arig_expect(struct arig *r, unsigned code, uint16_t dev, uint16_t domain, uint32_t flags,
                               uint64_t addr)
{
    uint64_t q[2] = {0, 0};
    assert_true(arig_event(r, q));
    assert_int_equal(q[0] & 0xffff, dev);
    assert_int_equal(q[0] >> 60, code);
    assert_int_equal(q[0] >> 32 & 0xfffffff, flags | domain);
    assert_int_equal(q[1], addr);
    assert_false(arig_event(r, q));
}

static inline void arig_quiet(struct arig *r)
{
    uint64_t q[2];
    assert_false(arig_event(r, q));
}

static inline struct msi_msg arig_msg(uint32_t data)
{
    return (struct msi_msg){0xfee01000, data};
}

static inline struct remap_result arig_remap(struct arig *r, uint16_t dev, uint32_t data)
{
    return remap_msi(&r->remap, arig_msg(data), REQUESTER_ID(dev), REMAP_DELIVER);
}

/* A device entry that remaps through ARIG_IRT with 1 << len entries. */
static inline uint64_t arig_int(unsigned len)
{
    return DTE2_IV | (uint64_t)len << 1 | ARIG_IRT | (uint64_t)INT_CTL_REMAP << 60;
}

#endif
