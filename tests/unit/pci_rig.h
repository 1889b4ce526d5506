/* A PCI host with RAM and a translator, without CPUs: what is sent is counted, lines are remembered. */
#ifndef HEC_TESTS_PCI_RIG_H
#define HEC_TESTS_PCI_RIG_H

#include "dev_fixture.h"

#include "pci/dma.h"
#include "pci/msi.h"
#include "pci/port.h"

#define RIG_RAM   (UINT64_C(16) << 20)
#define RIG_MEM64 UINT64_C(0x800000000)
#define RIG_LOG   64

struct pci_rig {
    struct fixture f;
    struct ram ram;
    struct remap remap;
    struct pci_host host;
    unsigned pic_rises, pic_level;
    _Atomic unsigned sent;
    struct irq irq[RIG_LOG]; /* the first ones */
    _Atomic uint64_t told;   /* bytes that ram_written() named */
};

static inline int rig_deliver(void *opaque, struct irq irq)
{
    struct pci_rig *r = opaque;
    unsigned n = atomic_fetch_add(&r->sent, 1);
    if (n < RIG_LOG)
        r->irq[n] = irq;
    return 1;
}

static inline void rig_pic(void *opaque, unsigned irq, bool level)
{
    struct pci_rig *r = opaque;
    r->pic_rises += level;
    r->pic_level = level ? r->pic_level | 1u << irq : r->pic_level & ~(1u << irq);
}

static inline void rig_written(void *opaque, gpa_t gpa, uint64_t len)
{
    struct pci_rig *r = opaque;
    r->told += len;
}

static inline void rig_init(struct pci_rig *r)
{
    memset(r, 0, sizeof *r);
    fixture_init(&r->f);
    assert_int_equal(ram_init(&r->ram, RIG_RAM, &r->f.err), 0);
    r->ram.watch = (struct ram_watch){rig_written, r};
    remap_init(&r->remap, true);
    const struct pci_host_config c = {.ports = &r->f.ports,
                                      .mmio = &r->f.mmio,
                                      .ram = &r->ram,
                                      .remap = &r->remap,
                                      .port = {.deliver = rig_deliver, .opaque = r},
                                      .intx = {fixture_set, &r->f, 0},
                                      .pic = {rig_pic, r, 0},
                                      .mem64_base = RIG_MEM64,
                                      .mem64_len = RIG_MEM64};
    assert_int_equal(pci_host_init(&r->host, &c, &r->f.err), 0);
}

static inline void rig_fini(struct pci_rig *r)
{
    pci_host_fini(&r->host);
    ram_fini(&r->ram);
    fixture_fini(&r->f);
}

/* ---- configuration space, as a guest reaches it ---- */

static inline uint64_t ecam(unsigned bus, unsigned devfn, unsigned off)
{
    return PCI_ECAM_GPA + (uint64_t)bus * 0x100000 + devfn * 0x1000u + off;
}

static inline uint64_t cfg_rd(struct pci_rig *r, unsigned bus, unsigned devfn, unsigned off, unsigned size)
{
    return bus_read(&r->f.mmio, ecam(bus, devfn, off), size);
}

static inline void cfg_wr(struct pci_rig *r, unsigned bus, unsigned devfn, unsigned off, unsigned size, uint64_t val)
{
    bus_write(&r->f.mmio, ecam(bus, devfn, off), size, val);
}

static inline void cf8(struct pci_rig *r, unsigned bus, unsigned devfn, unsigned reg)
{
    outl(&r->f, 0xcf8, 0x80000000u | bus << 16 | devfn << 8 | reg);
}

/* Offset of a capability, 0: none. */
static inline unsigned cap_of(struct pci_rig *r, unsigned bus, unsigned devfn, unsigned id)
{
    unsigned at = (unsigned)cfg_rd(r, bus, devfn, PCI_CAPABILITIES, 1);
    for (unsigned n = 0; at && n < 48; n++, at = (unsigned)cfg_rd(r, bus, devfn, at + 1, 1))
        if (cfg_rd(r, bus, devfn, at, 1) == id)
            return at;
    return 0;
}

static inline uint64_t mem_rd(struct pci_rig *r, uint64_t gpa, unsigned size)
{
    return bus_read(&r->f.mmio, gpa, size);
}

static inline void mem_wr(struct pci_rig *r, uint64_t gpa, unsigned size, uint64_t val)
{
    bus_write(&r->f.mmio, gpa, size, val);
}

#endif
