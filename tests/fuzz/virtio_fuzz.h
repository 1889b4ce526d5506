/* What the virtio fuzzers share: one device in a pci_box, with its BARs where firmware leaves them, and the driver's
 * registers. Queue q has the page of RAM at (q + 1) * 1000h. */
#ifndef HEC_TESTS_VIRTIO_FUZZ_H
#define HEC_TESTS_VIRTIO_FUZZ_H

#include "pci_box.h"

#include "dev/virtio.h"

#define VIO_DEVFN PCI_DEVFN(3, 0)
#define VIO_MSIX  0xc0000000u
#define VIO_REGS  0xc0100000u

static inline void vio_wr(struct pci_box *b, unsigned off, unsigned size, uint64_t val)
{
    bus_write(&b->mmio, VIO_REGS + off, size, val);
}

/* As firmware leaves it. */
static inline void vio_power_on(struct pci_box *b)
{
    pci_host_reset(&b->host);
    bus_write(&b->mmio, pci_box_config(VIO_DEVFN, PCI_BAR0 + 4), 4, VIO_MSIX);
    bus_write(&b->mmio, pci_box_config(VIO_DEVFN, PCI_BAR0 + 16), 4, VIO_REGS);
    bus_write(&b->mmio, pci_box_config(VIO_DEVFN, PCI_COMMAND), 2, PCI_CMD_MEMORY | PCI_CMD_MASTER);
}

static inline uint8_t vio_status(struct pci_box *b)
{
    return (uint8_t)bus_read(&b->mmio, VIO_REGS + 20, 1);
}

static inline unsigned vio_area(unsigned queue, enum virtq_area a)
{
    return 0x1000 * (1 + queue) + 0x400 * a;
}

/* What a driver does first: of `features`, those that are offered are agreed on, and returned. */
static inline uint64_t vio_agree(struct pci_box *b, uint64_t features)
{
    uint64_t offered;
    vio_wr(b, 0, 4, 1);
    offered = bus_read(&b->mmio, VIO_REGS + 4, 4) << 32;
    vio_wr(b, 0, 4, 0);
    offered |= bus_read(&b->mmio, VIO_REGS + 4, 4);
    vio_wr(b, 20, 1, 3);
    for (unsigned i = 0; i < 2; i++) {
        vio_wr(b, 8, 4, i);
        vio_wr(b, 12, 4, (features & offered) >> 32 * i);
    }
    vio_wr(b, 20, 1, 11);
    return features & offered;
}

static inline void vio_enable(struct pci_box *b, unsigned q, unsigned size)
{
    memset(b->ram.low + vio_area(q, VIRTQ_DESC), 0, 0xc00);
    vio_wr(b, 22, 2, q);
    vio_wr(b, 24, 2, size);
    vio_wr(b, 26, 2, q + 1);
    for (unsigned a = 0; a < VIRTQ_AREAS; a++)
        vio_wr(b, 32 + 8 * a, 8, vio_area(q, a));
    vio_wr(b, 28, 2, 1);
}

static inline void vio_notify(struct pci_box *b, unsigned q, unsigned what)
{
    vio_wr(b, 0x3000 + 4 * q, 2, what);
}

/* Any register, of the device or of its function. */
static inline void vio_anywhere(struct pci_box *b, struct script *s)
{
    uint8_t op = (uint8_t)script_get(s, 1);
    unsigned off = (unsigned)script_get(s, 2), size = 1u << (op & 3);
    uint64_t val = op & 4 ? script_get(s, size) : 0;
    uint64_t at = op & 8    ? pci_box_config(VIO_DEVFN, off % 0x200)
                  : op & 16 ? VIO_MSIX + off % 0x1000
                            : VIO_REGS + off % 0x4000;
    if (op & 32)
        at = VIO_REGS + off % 64;
    if (op & 4)
        bus_write(&b->mmio, at & ~(uint64_t)(size - 1), size, val);
    else
        bus_read(&b->mmio, at & ~(uint64_t)(size - 1), size);
}

#endif
