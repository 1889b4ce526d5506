/* The PCI host bridge: configuration mechanism #1 (CF8h/CFCh) over bus 0, with the two functions every PC has, the host
 * bridge 00:00.0 and the ISA bridge 00:1f.0. PCI Local Bus 3.0, 3.2.2.3.2 "Software Generation of Configuration
 * Transactions".
 */
#ifndef HEC_PCI_HOST_H
#define HEC_PCI_HOST_H

#include "base/err.h"
#include "mem/bus.h"

#define PCI_CONFIG_PORT 0xcf8u
#define PCI_CONFIG_SIZE 256u
#define PCI_DEVFN(d, f) ((uint8_t)((d) << 3 | (f)))

struct pci_func;

struct pci_func_ops {
    /* Bytes `off` .. `off` + size - 1 of the function's configuration space; size 1, 2 or 4, naturally aligned within
     * one dword. Called under the host's lock. */
    uint32_t (*config_read)(struct pci_func *f, unsigned off, unsigned size);
    void (*config_write)(struct pci_func *f, unsigned off, unsigned size, uint32_t val);
};

struct pci_func {
    const struct pci_func_ops *ops;  /* (c) NULL: pci_config_read() and pci_config_write() */
    uint8_t devfn;                   /* (c) */
    uint8_t config[PCI_CONFIG_SIZE]; /* (l) the host's lock */
    uint8_t wmask[PCI_CONFIG_SIZE];  /* (c) bits the guest may change */
    void *dev;                       /* (c) for ops */
};

/* Whoever owns CF9h, the reset register, which lies inside CF8h's dword but is not part of it. */
struct pci_reset_hook {
    uint8_t (*read)(void *opaque);
    void (*write)(void *opaque, uint8_t val);
    void *opaque;
};

struct pci_host {
    struct bus *ports;           /* (c) borrowed */
    struct pci_reset_hook reset; /* (c) */
    pthread_mutex_t lock;
    uint32_t address;            /* (l) CF8h */
    struct pci_func *funcs[256]; /* (l) by devfn, borrowed */
    struct pci_func host_bridge, isa_bridge;
};

/* ---- lifecycle ---- */
int pci_host_init(struct pci_host *h, struct bus *ports, const struct pci_reset_hook *reset, struct err *e);
void pci_host_fini(struct pci_host *h);
/* CF8h and the two bridges; a function that was added is reset by its owner. */
void pci_host_reset(struct pci_host *h);
/* Put `f` (borrowed) at its devfn. -EEXIST, or -EINVAL for function 1-7 of a device without function 0. Function 0 of a
 * device with several gets its header's multifunction bit here. */
int pci_host_add(struct pci_host *h, struct pci_func *f, struct err *e);

/* ---- under the host's lock (ops) ---- */
/* Plain configuration space: config[] as it is, writes through wmask[]. */
uint32_t pci_config_read(struct pci_func *f, unsigned off, unsigned size);
void pci_config_write(struct pci_func *f, unsigned off, unsigned size, uint32_t val);

/* ---- before the function is added ---- */
/* Vendor, device, class (24 bits: class, subclass, interface), revision; all else zero, wmask for the command register
 * and interrupt line. */
void pci_func_setup(struct pci_func *f, uint8_t devfn, uint16_t vendor, uint16_t device, uint32_t class_code,
                    uint8_t revision);

#endif
