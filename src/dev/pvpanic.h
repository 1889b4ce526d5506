/* pvpanic: one byte a guest's kernel writes when it cannot go on. The device QEMU has under the same name
 * (docs/specs/pvpanic): PCI 1B36h:0011h, the register at BAR 0.
 *
 * Read: the events that are understood. Write: bit 0, the kernel has panicked; bit 1, it has, and a crash kernel is
 * going to run, so the machine goes on; bit 2, it is shutting down.
 */
#ifndef HEC_DEV_PVPANIC_H
#define HEC_DEV_PVPANIC_H

#include "base/trace.h"
#include "dev/control.h"
#include "pci/func.h"

enum pvpanic_event { PVPANIC_PANICKED = 1, PVPANIC_CRASHLOADED = 2, PVPANIC_SHUTDOWN = 4 };

struct pvpanic;

struct pvpanic_config {
    struct pci_host *host;
    struct pci_bus *bus; /* NULL: the root */
    uint8_t devfn;
    const struct vm_control *control; /* borrowed */
    uint8_t events;                   /* events=: those that are understood; 0: all */
};

/* ---- lifecycle ---- */
int pvpanic_create(const struct pvpanic_config *c, struct pvpanic **out, struct err *e);
void pvpanic_destroy(struct pvpanic *p);

#endif
