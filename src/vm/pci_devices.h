/* The functions on a machine's PCI buses, with what is behind them: threads that serve them, disk images, networks,
 * character devices. Private to vm/; machine.c makes, resets and takes them down by these three functions.
 *
 * Threads: one for each -object iothread, one for each disk without, one for each AHCI controller, one for all networks
 * and one for the rest. What is behind a device outlives it, and its thread outlives both.
 */
#ifndef HEC_VM_PCI_DEVICES_H
#define HEC_VM_PCI_DEVICES_H

#include "dev/control.h"
#include "pci/host.h"
#include "vm/config.h"

struct pci_devices;

struct pci_devices_config { /* all borrowed for the devices' life */
    const struct vm_config *cfg;
    struct pci_host *host;
    struct epoch *epoch;
    const struct vm_control *control;
    const struct trace *trace;
};

/* ---- lifecycle (the owner's thread, no vCPU runs) ---- */
/* Open every image and network and make every device, at the addresses config_devices_resolve() has chosen. After a
 * failure nothing is left. -errno. */
int pci_devices_create(const struct pci_devices_config *c, struct pci_devices **out, struct err *e);
/* As after power-on: waits for what is in flight, which until then may write to RAM. Inside the epoch. Configuration
 * spaces are pci_host_reset()'s. */
void pci_devices_reset(struct pci_devices *d);
/* Flush and close everything. Before pci_host_fini(). NULL is allowed. */
void pci_devices_destroy(struct pci_devices *d);

#endif
