/* irq-test-pci: a PCI function whose interrupts fire on command, and that moves memory on command. For payloads and
 * drivers that prove where interrupts and DMA go. No driver binds to it by itself.
 *
 * BAR 0, 4 KiB of memory, registers of 4 bytes:
 *   000h  identity, IRQTEST_PCI_ID (read only)
 *   004h  MSI-X vectors 15:0, MSI vectors 31:16 (read only)
 *   008h  kind: 0 MSI-X, 1 MSI, 2 INTx
 *   00Ch  count: how many are fired at a command, 1 .. 2048 (1 at reset; what is out of range is 1)
 *   010h  stride: added to the vector after each (0 at reset)
 *   014h  command: a vector; writing it fires `count` vectors. INTx: even lowers the wire, odd raises it
 *   018h  how many have been fired since reset (read only)
 *   020h  DMA address, low half; 024h high half
 *   028h  length, 0 .. 2048
 *   02Ch  writing 1 reads memory into the buffer, 2 writes it from there; reads: 1 it went well, 0 it was blocked
 *   800h  the buffer, 2048 bytes, accesses of any size
 *
 * BAR 1 holds the MSI-X table and its pending bits.
 *
 * Vectors fire on the vCPU's thread that gave the command. The registers are one set: who uses them from several CPUs
 * takes turns.
 */
#ifndef HEC_DEV_IRQTEST_PCI_H
#define HEC_DEV_IRQTEST_PCI_H

#include "pci/host.h"

#define IRQTEST_PCI_ID     0x31515248u
#define IRQTEST_PCI_VENDOR 0x1234
#define IRQTEST_PCI_DEVICE 0x4845

enum irqtest_pci_reg {
    IRQTEST_PCI_IDENTITY = 0x00,
    IRQTEST_PCI_VECTORS = 0x04,
    IRQTEST_PCI_KIND = 0x08,
    IRQTEST_PCI_COUNT = 0x0c,
    IRQTEST_PCI_STRIDE = 0x10,
    IRQTEST_PCI_COMMAND = 0x14,
    IRQTEST_PCI_FIRED = 0x18,
    IRQTEST_PCI_DMA_LOW = 0x20,
    IRQTEST_PCI_DMA_HIGH = 0x24,
    IRQTEST_PCI_DMA_LEN = 0x28,
    IRQTEST_PCI_DMA_GO = 0x2c,
    IRQTEST_PCI_BUFFER = 0x800
};
enum irqtest_pci_kind { IRQTEST_PCI_MSIX, IRQTEST_PCI_MSI, IRQTEST_PCI_INTX };
#define IRQTEST_PCI_BUFFER_LEN 2048u

struct irqtest_pci;

struct irqtest_pci_config {
    struct pci_host *host; /* borrowed */
    struct pci_bus *bus;   /* borrowed; NULL: the root bus */
    uint8_t devfn;
    unsigned msix; /* vectors, 0 .. 2048 */
    unsigned msi;  /* vectors, 0, 1, 2, 4 .. 32 */
};

/* ---- lifecycle ---- */
/* -EINVAL: numbers of vectors there are none of; -ENOMEM; as pci_host_add(). */
int irqtest_pci_create(const struct irqtest_pci_config *c, struct irqtest_pci **out, struct err *e);
/* No vCPU runs. */
void irqtest_pci_reset(struct irqtest_pci *t);
/* No vCPU runs any more. NULL is allowed. */
void irqtest_pci_destroy(struct irqtest_pci *t);
/* Its PCI function. */
struct pci_func *irqtest_pci_func(struct irqtest_pci *t);

#endif
