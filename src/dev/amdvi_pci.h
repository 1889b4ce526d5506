/* The AMD I/O virtualization unit's PCI function: where its registers are, and the MSI that tells of events. 48882,
 * "IOMMU PCI Resources". The base address is enabled and locked as firmware leaves it. */
#ifndef HEC_DEV_AMDVI_PCI_H
#define HEC_DEV_AMDVI_PCI_H

#include "irq/amdvi.h"
#include "pci/host.h"

#define AMDVI_PCI_CAPABILITY 0x40u /* offset of the IOMMU capability block */

struct amdvi_pci {
    struct pci_func func;
    struct amdvi *unit; /* (c) borrowed */
};

/* ---- lifecycle ---- */
/* Adds the function at AMDVI_RID. Errors as pci_host_add(). */
int amdvi_pci_init(struct amdvi_pci *p, struct pci_host *host, struct amdvi *unit, struct err *e);
/* No vCPU runs; configuration space is reset already. */
void amdvi_pci_reset(struct amdvi_pci *p);

#endif
