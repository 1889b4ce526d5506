/* Shared by the files of pci/: func.c (describing and resetting a function), config.c (accesses), bar.c (decoding),
 * intx.c, msi.c, msix.c, port.c, assign.c (what firmware does), dma.c.
 *
 * Lock order: the host's, its INTx lock or a bus's, whatever delivery takes.
 */
#ifndef HEC_PCI_PRIV_H
#define HEC_PCI_PRIV_H

#include "base/bits.h"
#include "pci/host.h"
#include "pci/msi.h"

/* Type 1 header. PCI Express Base 5.0, 7.5.1.3 "Type 1 Configuration Space Header". */
enum pci_bridge_offset {
    BRIDGE_PRIMARY = 0x18,
    BRIDGE_SECONDARY = 0x19,
    BRIDGE_SUBORDINATE = 0x1a,
    BRIDGE_IO_BASE = 0x1c,
    BRIDGE_IO_LIMIT = 0x1d,
    BRIDGE_MEM_BASE = 0x20,
    BRIDGE_MEM_LIMIT = 0x22,
    BRIDGE_PREF_BASE = 0x24,
    BRIDGE_PREF_LIMIT = 0x26,
    BRIDGE_PREF_BASE_HIGH = 0x28,
    BRIDGE_PREF_LIMIT_HIGH = 0x2c,
    BRIDGE_CONTROL = 0x3e
};

#define HEADER_BRIDGE        1
#define HEADER_MULTIFUNCTION 0x80

/* Whether [off, off + size) touches [at, at + len). */
static inline bool touches(unsigned off, unsigned size, unsigned at, unsigned len)
{
    return off < at + len && at < off + size;
}

static inline bool is_bridge(const struct pci_func *f)
{
    return f->config[PCI_HEADER] & HEADER_BRIDGE;
}

/* ---- config.c: CF8h-CFFh and ECAM; `dev` is the host ---- */
extern const struct bus_ops pci_port_ops, pci_ecam_ops;
/* Lock held. */
uint32_t pci_func_read(struct pci_func *f, unsigned off, unsigned size);
/* As the guest writes. True: pci_func_flush() is to follow, without the lock. */
bool pci_func_write(struct pci_func *f, unsigned off, unsigned size, uint32_t val);
/* Not under the lock: send what a write has unmasked. */
void pci_func_flush(struct pci_func *f);

/* ---- func.c; lock held ---- */
/* Bring what others read of the configuration up to date: command, masters, requester id, INTx. */
void pci_func_publish(struct pci_func *f);
/* Without looking at what BARs now want: pci_bars_refresh() follows. */
void pci_func_reset_config(struct pci_func *f);
/* FLR and hot reset: configuration and the device. */
void pci_func_reset_all(struct pci_func *f);

/* ---- bar.c; lock held ---- */
/* Map and unmap until each BAR is where configuration space says. First come, first served: one whose place is taken
 * stays away until that is free. */
void pci_bars_refresh(struct pci_host *h);
uint64_t pci_bar_value(const struct pci_func *f, unsigned index);

/* ---- intx.c; takes the INTx lock ---- */
void pci_intx_update(struct pci_func *f);

/* ---- msi.c, msix.c ---- */
/* Lock held: configuration was written. True: it is to be followed by pci_msi_flush(), without the lock. */
bool pci_msi_written(struct pci_func *f, unsigned off, unsigned size);
bool pci_msix_written(struct pci_func *f, unsigned off, unsigned size);
void pci_msi_read(struct pci_func *f);   /* lock held: bring the pending bits in config[] up to date */
void pci_msi_reset(struct pci_func *f);  /* lock held, config[] is reset */
void pci_msix_reset(struct pci_func *f); /* the same */
void pci_msi_flush(struct pci_func *f);  /* send what is pending and no longer masked */
void pci_msix_flush(struct pci_func *f);
/* A message of the function's: an interrupt, or a plain write if that is what the guest has it for. */
void pci_send(struct pci_func *f, struct msi_msg msg);

/* ---- port.c; lock held ---- */
/* What the bus behind it has of a bridge's configuration. pci_bars_refresh() follows. */
void pci_port_publish(struct pci_func *bridge);

#endif
