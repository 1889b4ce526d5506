/* A VT-d unit with RAM and a port that notes what comes out. */
#ifndef HEC_TESTS_VTD_RIG_H
#define HEC_TESTS_VTD_RIG_H

#include "irq/vtd_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* Where things are in the rig's RAM. */
enum {
    RIG_RAM = 0x400000,
    RIG_IRT = 0x100000, /* 64K entries */
    RIG_QUEUE = 0x200000,
    RIG_STATUS = 0x210000,
    RIG_PD = 0x211040,
    RIG_ROOT = 0x220000,
    RIG_CONTEXT = 0x221000,
    RIG_PAGES = 0x222000
};

#define NOWHERE UINT64_C(0x40000000) /* no RAM there */

struct vtd_rig {
    struct ram ram;
    struct vtd *v;
    struct remap remap;
    struct irq last;
    unsigned delivered;
    unsigned stale;
    uint32_t stale_first, stale_last;
    uint32_t tail;
};

static inline int vtd_rig_deliver(void *opaque, struct irq irq)
{
    struct vtd_rig *r = opaque;
    r->last = irq;
    r->delivered++;
    return 1;
}

static inline void vtd_rig_stale(void *opaque, uint32_t first, uint32_t last)
{
    struct vtd_rig *r = opaque;
    r->stale++;
    r->stale_first = first;
    r->stale_last = last;
}

static inline struct vtd_config vtd_rig_config(bool eim)
{
    return (struct vtd_config){.intremap = true, .eim = eim, .dma_translation = true, .aw_bits = 48, .phys_bits = 46};
}

static inline void vtd_rig_open(struct vtd_rig *r, struct vtd_config c)
{
    struct err e = {""};
    *r = (struct vtd_rig){.tail = 0};
    assert_int_equal(ram_init(&r->ram, RIG_RAM, &e), 0);
    c.ram = &r->ram;
    c.port = (struct irq_port){.deliver = vtd_rig_deliver, .opaque = r};
    c.stale = (struct remap_stale){vtd_rig_stale, r};
    assert_int_equal(vtd_create(&c, &r->v, &e), 0);
    remap_init(&r->remap, false);
    r->remap.vtd = r->v;
}

static inline void vtd_rig_close(struct vtd_rig *r)
{
    vtd_destroy(r->v);
    ram_fini(&r->ram);
}

static inline uint32_t rd(struct vtd_rig *r, unsigned off)
{
    return (uint32_t)vtd_bus_ops.read(r->v, off, 4);
}

static inline uint64_t rq(struct vtd_rig *r, unsigned off)
{
    return vtd_bus_ops.read(r->v, off, 8);
}

static inline void wr(struct vtd_rig *r, unsigned off, uint32_t val)
{
    vtd_bus_ops.write(r->v, off, 4, val);
}

static inline void wq(struct vtd_rig *r, unsigned off, uint64_t val)
{
    vtd_bus_ops.write(r->v, off, 8, val);
}

/* A command as guests give it: one-shot bits of the status stripped, one bit set or cleared. */
static inline void gcmd(struct vtd_rig *r, uint32_t set, uint32_t clear)
{
    wr(r, VTD_GCMD, ((rd(r, VTD_GSTS) & 0x96ffffffu) & ~clear) | set);
}

static inline uint64_t *quad(struct vtd_rig *r, gpa_t at)
{
    return (uint64_t *)ram_hva(&r->ram, at, 8);
}

/* A table of 2^(size+1) entries, in force, and remapping on. */
static inline void ir_on(struct vtd_rig *r, unsigned size, bool eime)
{
    wq(r, VTD_IRTA, RIG_IRT | size | (eime ? VTD_IRTA_EIME : 0));
    gcmd(r, VTD_G_SIRTP, 0);
    gcmd(r, VTD_G_IRE, 0);
}

static inline void irte(struct vtd_rig *r, uint32_t index, uint64_t lo, uint64_t hi)
{
    *quad(r, RIG_IRT + index * 16u) = lo;
    *quad(r, RIG_IRT + index * 16u + 8) = hi;
}

/* Remappable message for an index, without a subhandle. */
static inline struct msi_msg handle(uint32_t index)
{
    return (struct msi_msg){0xfee00010u | (index & 0x7fff) << 5 | (index >> 15 & 1) << 2, 0};
}

static inline struct remap_result send_as(struct vtd_rig *r, struct msi_msg m, unsigned rid)
{
    return remap_msi(&r->remap, m, REQUESTER_ID(rid), REMAP_DELIVER);
}

static inline void queue_on(struct vtd_rig *r)
{
    wq(r, VTD_IQT, 0);
    wq(r, VTD_IQA, RIG_QUEUE);
    gcmd(r, VTD_G_QIE, 0);
    r->tail = 0;
}

static inline void submit(struct vtd_rig *r, uint64_t lo, uint64_t hi)
{
    *quad(r, RIG_QUEUE + r->tail * 16) = lo;
    *quad(r, RIG_QUEUE + r->tail * 16 + 8) = hi;
    r->tail = (r->tail + 1) % 256;
    wq(r, VTD_IQT, r->tail << 4);
}

#endif
