/* A PCI host without CPUs for fuzzers of one function or several. */
#ifndef HEC_TESTS_PCI_BOX_H
#define HEC_TESTS_PCI_BOX_H

#include "irq_fuzz.h"

#include "pci/host.h"
#include "pci/msi.h"

struct pci_box {
    struct epoch epoch;
    struct bus ports, mmio;
    struct ram ram; /* the caller's to set up, before the rest, and to take down */
    struct remap remap;
    struct pci_host host;
};

static inline int pci_box_deliver(void *opaque, struct irq irq)
{
    return 1;
}

/* `c` has where interrupts go and the windows; the box has the rest. */
static inline void pci_box_init(struct pci_box *b, struct pci_host_config c)
{
    struct err e = {""};
    epoch_init(&b->epoch);
    bus_init(&b->ports, "port", &b->epoch, NULL);
    bus_init(&b->mmio, "mmio", &b->epoch, NULL);
    remap_init(&b->remap, true);
    c.ports = &b->ports;
    c.mmio = &b->mmio;
    c.ram = &b->ram;
    c.remap = &b->remap;
    ensure(pci_host_init(&b->host, &c, &e) == 0);
}

/* Its functions are gone. */
static inline void pci_box_fini(struct pci_box *b)
{
    pci_host_fini(&b->host);
    bus_fini(&b->ports);
    bus_fini(&b->mmio);
    epoch_fini(&b->epoch);
}

/* A configuration register of a function on bus 0. */
static inline uint64_t pci_box_config(unsigned devfn, unsigned off)
{
    return PCI_ECAM_GPA + devfn * 0x1000u + off;
}

#endif
