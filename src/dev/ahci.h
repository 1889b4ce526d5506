/* A SATA host bus adapter with six ports and a disk behind each that has an image: q35's ich9-ahci, and ide-hd. AHCI
 * 1.3.1; Serial ATA 3.x; the disks' commands are in ata.h.
 *
 * A vCPU that writes a register changes an atomic word and at most rings a bell; ports, commands and transfers are the
 * loop's. What takes time (a port that stops, a COMRESET, an HBA reset) ends when no request is in flight any more, and
 * until then the bits that the guest polls say so. Data goes from the image to guest memory and back without a copy.
 */
#ifndef HEC_DEV_AHCI_H
#define HEC_DEV_AHCI_H

#include "base/ioloop.h"
#include "base/trace.h"
#include "dev/block.h"
#include "pci/func.h"

#define AHCI_PORTS 6u
#define AHCI_DEVFN PCI_DEVFN(0x1f, 2) /* where q35 has it */

struct ahci;

struct ahci_disk {
    struct block *block; /* borrowed, on the same loop; NULL: no device at this port */
    const char *serial;  /* at most 20 bytes of ASCII; NULL: by the port's number. Copied */
    const char *model;   /* at most 40; NULL: "Hecaton disk". Copied */
};

struct ahci_config { /* all borrowed for the device's life */
    struct pci_host *host;
    struct pci_bus *bus; /* NULL: the root */
    uint8_t devfn;
    struct ioloop *loop;
    struct ahci_disk disk[AHCI_PORTS];
    const struct trace *trace;
};

/* ---- lifecycle ---- */
/* Make the controller and add its function. -ENOMEM, -EINVAL (a disk of another loop), or what pci_host_add() says. */
int ahci_create(const struct ahci_config *c, struct ahci **out, struct err *e);
/* As after power-on, with the disks' links up. Waits for what is in flight. The owner's thread, no vCPU runs. */
void ahci_reset(struct ahci *a);
/* Waits for what is in flight. No vCPU runs; before the disks' images are closed. NULL is allowed. */
void ahci_destroy(struct ahci *a);

#endif
