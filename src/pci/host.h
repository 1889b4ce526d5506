/* The root complex: configuration mechanism #1 (CF8h/CFCh), ECAM, the buses behind root ports, INTx routing, and where
 * BARs may lie. PCI Local Bus 3.0, 3.2.2.3.2 "Software Generation of Configuration Transactions"; PCI Express Base 5.0,
 * 7.2.2 "PCI Express Enhanced Configuration Access Mechanism (ECAM)".
 *
 * Bus 0 has the two functions every PC has, the host bridge 00:00.0 and the ISA bridge 00:1f.0; vm/ adds the others.
 */
#ifndef HEC_PCI_HOST_H
#define HEC_PCI_HOST_H

#include "irq/irq_msg.h"
#include "mem/ram.h"
#include "pci/func.h"

#define PCI_CONFIG_PORT  0xcf8u
#define PCI_ECAM_GPA     UINT64_C(0xb0000000)
#define PCI_ECAM_SIZE    UINT64_C(0x10000000) /* 256 buses */
#define PCI_MEM32_BASE   UINT64_C(0xc0000000)
#define PCI_MEM32_END    UINT64_C(0xfec00000) /* the I/O APIC */
#define PCI_INTX_GSI     16u                  /* PIRQA# .. PIRQH# are GSIs 16 .. 23 */
#define PCI_INTX_GSIS    8u
#define PCI_PIC_IRQ(gsi) (10u + ((gsi)&1u)) /* where a GSI of these goes for a guest without I/O APIC */
#define PCI_IO_BASE      0xc000u            /* ports for BARs, up to FFFFh */

/* Whoever owns CF9h, the reset register, which lies inside CF8h's dword but is not part of it. */
struct pci_reset_hook {
    uint8_t (*read)(void *opaque);
    void (*write)(void *opaque, uint8_t val);
    void *opaque;
};

struct pci_host_config { /* all borrowed for the host's life */
    struct bus *ports, *mmio;
    struct pci_reset_hook reset;
    struct ram *ram;
    const struct remap *remap; /* translator of messages; its remapping unit also translates DMA */
    struct irq_port port;
    struct irq_line intx;           /* `gsi` is given by the host: 16 .. 23 */
    struct irq_line pic;            /* the same wires at the PIC: `gsi` is the IRQ, PCI_PIC_IRQ() */
    uint64_t mem64_base, mem64_len; /* window for 64-bit BARs above RAM; len 0: none */
    const struct trace *trace;
};

/* A bus: the root bus, or what is behind a root port (port.h). */
struct pci_bus {
    struct pci_bus *parent;      /* (c) NULL: the root bus */
    struct pci_func *bridge;     /* (c) its upstream port; NULL: the root bus */
    const char *id;              /* (c) borrowed: "pcie.0", or the root port's id= */
    uint8_t number;              /* (l) the root's is 0; else as the guest programmed the bridge; 0: out of reach */
    struct pci_func *funcs[256]; /* (l) by devfn, borrowed; 0 .. 7 only behind a root port */
    struct pci_bus *next;        /* (c) all buses, the root first */
};

struct pci_host {
    struct pci_host_config cfg; /* (c) */
    pthread_mutex_t lock;
    uint32_t address; /* (l) CF8h */
    struct pci_bus root;
    struct pci_func *funcs; /* (c) all of them, by struct pci_func's `next` */
    struct pci_func host_bridge, isa_bridge;
    pthread_mutex_t intx_lock;          /* after `lock`, before the I/O APIC's */
    unsigned intx_count[PCI_INTX_GSIS]; /* (l: intx_lock) functions that drive it */
    unsigned pic_count[2];              /* (l: intx_lock) GSIs that do, by PCI_PIC_IRQ's last bit */
};

/* ---- lifecycle ---- */
int pci_host_init(struct pci_host *h, const struct pci_host_config *c, struct err *e);
void pci_host_fini(struct pci_host *h);
/* CF8h, the two bridges, and every function's configuration space: as after power-on, BARs unmapped, MSI state cleared,
 * INTx low. Devices reset themselves. The owner's thread, no vCPU runs. */
void pci_host_reset(struct pci_host *h);
/* What firmware does before a system starts: number the buses, give every BAR a place and every bridge its windows,
 * switch decoding on, write the interrupt line registers. After pci_host_reset(); no vCPU runs. -ENOSPC, with the
 * function and the window in `e`. */
int pci_host_assign(struct pci_host *h, struct err *e);
/* Put `f` (borrowed until pci_host_fini()) at its devfn of `bus` (NULL: the root). -EEXIST (device 14h of the root bus
 * is the I/O APIC's requester id), -ENOSPC (a device number other than 0 behind a root port), or -EINVAL for function
 * 1-7 of a device without function 0. Function 0 of a device with several gets its header's multifunction bit here. */
int pci_host_add(struct pci_host *h, struct pci_bus *bus, struct pci_func *f, struct err *e);
/* A bus by its id (-device ...,bus=ID), NULL: none. */
struct pci_bus *pci_host_bus(struct pci_host *h, const char *id);
/* A bus that pci_port_init() has made: known by its id from now on. */
void pci_host_add_bus(struct pci_host *h, struct pci_bus *bus);

/* ---- any thread; constant ---- */
/* GSI of INTx `pin` (1 .. 4) of device number `dev` of the root bus: what _PRT says. */
unsigned pci_intx_gsi(unsigned dev, unsigned pin);

#endif
