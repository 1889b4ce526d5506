/* MSI and MSI-X of a function. PCI Express Base 5.0, 7.7.1 "MSI Capability Structures", 7.7.2 "MSI-X Capability and
 * Table Structure"; 6.1.4 "Message Signaled Interrupt (MSI/MSI-X) Support".
 *
 * A device says which vector; here it becomes the message the guest wrote, and goes to the translator under the
 * function's requester id. A masked vector is noted as pending and sent when it is unmasked. Sending takes no lock.
 */
#ifndef HEC_PCI_MSI_H
#define HEC_PCI_MSI_H

#include "pci/func.h"

#define PCI_MSI_MAX  32u
#define PCI_MSIX_MAX 2048u

/* ---- before the function is added ---- */
/* 64-bit addresses, per-vector masking, `vectors` 1, 2, 4 .. 32. -ENOMEM. */
int pci_func_add_msi(struct pci_func *f, unsigned vectors, struct err *e);
/* Table and pending bits in BAR `bar`, which this gives the function if it has none there (memory, 32-bit, as big as
 * both need); a BAR that is there must be wide enough, and its ops must hand accesses in
 * [table, table + 16 * vectors) and [pba, ..) to pci_msix_bar_read()/write(). `vectors` 1 .. PCI_MSIX_MAX. */
int pci_func_add_msix(struct pci_func *f, unsigned vectors, unsigned bar, uint32_t table, uint32_t pba, struct err *e);

/* ---- any thread (inside the epoch) ---- */
/* Whether the guest has switched it on. */
bool pci_msi_on(const struct pci_func *f);
bool pci_msix_on(const struct pci_func *f);
unsigned pci_msi_vectors(const struct pci_func *f); /* how many the guest enabled: 1, 2, 4 .. */
/* Send vector `v`. Nothing happens if it is off, or v is past the last. */
void msi_fire(struct pci_func *f, unsigned v);
void msix_fire(struct pci_func *f, unsigned v);
/* Accesses to the table and pending bits, `off` from the BAR's start; true: it was one of theirs. */
bool pci_msix_bar_read(struct pci_func *f, uint64_t off, unsigned size, uint64_t *val);
bool pci_msix_bar_write(struct pci_func *f, uint64_t off, unsigned size, uint64_t val);

#endif
