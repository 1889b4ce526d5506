/* A PCI Express root port: a bridge with one slot behind it. PCI Express Base 5.0, 7.5.1.3 "Type 1 Configuration Space
 * Header"; 7.5.3.6 "Link Capabilities Register". No hot-plug.
 */
#ifndef HEC_PCI_PORT_H
#define HEC_PCI_PORT_H

#include "pci/host.h"

struct pci_port {
    struct pci_func func;
    struct pci_bus bus;
    bool in_reset; /* (l) secondary bus reset is asserted */
};

/* ---- lifecycle ---- */
/* Add a root port at `devfn` of the root bus; `id` (borrowed) names the bus behind it, `slot` is its number for the
 * guest. Errors as pci_host_add(). */
int pci_port_init(struct pci_port *p, struct pci_host *h, uint8_t devfn, const char *id, uint8_t slot, struct err *e);
/* No vCPU runs any more. */
void pci_port_fini(struct pci_port *p);

#endif
