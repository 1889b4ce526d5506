/* A network card: Intel 82574L Gigabit Ethernet Controller ("e1000e"), MSI-X with five vectors, MSI, INTx. Intel 82574
 * GbE Controller Family Datasheet (82574).
 *
 * Two transmit queues, receiving on queue 0; legacy, extended and packet-split descriptors, VLAN tags, checksum and TCP
 * segmentation offload, interrupt throttling in host time. No flash, no management, no wake-up.
 *
 * Registers are served on the vCPUs' threads, queues on the network's ioloop. A reset is over when EECD says "auto read
 * done" again, mastering has ended when STATUS says so, as on the real card: the loop does either, or a vCPU that looks
 * while the loop is not at work on the card.
 */
#ifndef HEC_DEV_E1000E_H
#define HEC_DEV_E1000E_H

#include "dev/net.h"
#include "pci/host.h"

struct e1000e;

struct e1000e_config {
    struct pci_host *host; /* borrowed */
    struct pci_bus *bus;   /* borrowed; NULL: the root */
    uint8_t devfn;
    struct net *net; /* borrowed; the card lives on its loop, and is its peer */
    uint8_t mac[6];
};

/* ---- lifecycle ---- */
int e1000e_create(const struct e1000e_config *c, struct e1000e **out, struct err *e);
/* Power-on; waits for the loop. The owner's thread, no vCPU runs. */
void e1000e_reset(struct e1000e *n);
/* No vCPU runs any more. NULL is allowed. */
void e1000e_destroy(struct e1000e *n);

#endif
