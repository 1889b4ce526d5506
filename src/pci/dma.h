/* What a function reads and writes of guest memory: by its own addresses, through the remapping unit if it is behind
 * one. VT-d, "DMA Remapping"; 48882, "I/O Page Tables for Host Translations".
 *
 * Blocked accesses (no bus mastering, no RAM there, no translation) fail; the unit has recorded its fault. Other
 * functions' BARs are no memory. A write of an aligned doubleword to an interrupt address is a message, and goes to the
 * translator, not to memory. What was written is told to whoever watches RAM (ram_written()). Order: each call's bytes
 * are written before a later call's, and before an interrupt the same thread sends.
 */
#ifndef HEC_PCI_DMA_H
#define HEC_PCI_DMA_H

#include "pci/func.h"

#include <sys/uio.h>

/* ---- any thread (inside the epoch) ---- */
bool pci_dma_read(struct pci_func *f, uint64_t addr, void *buf, uint64_t len);
bool pci_dma_write(struct pci_func *f, uint64_t addr, const void *buf, uint64_t len);
/* RAM behind [addr, addr + *len): its hva, and in *len how many of these bytes are contiguous there (>= 1). NULL:
 * blocked. Good until the guest takes the mapping away; RAM itself stays for the machine's life. Bytes that are stored
 * through it are told by pci_dma_stored(). */
void *pci_dma_map(struct pci_func *f, uint64_t addr, uint64_t *len, bool write);
void pci_dma_stored(struct pci_func *f, const void *hva, uint64_t len);
/* The same for a whole range, as iovecs appended to iov[*n .. max). False: blocked, or more than `max` pieces. */
bool pci_dma_iov(struct pci_func *f, uint64_t addr, uint64_t len, bool write, struct iovec *iov, unsigned *n,
                 unsigned max);

#endif
