/* Virtio over PCI, modern interface only. VIRTIO 1.2, 4.1 "Virtio Over PCI Bus".
 *
 * BAR 4 has the structures: common configuration, ISR status, device configuration, and a notification region with four
 * bytes for each queue. BAR 1 has the MSI-X table, by default with a vector for each queue and one for configuration
 * changes. Without MSI-X everything is INTA#.
 *
 * A device embeds a struct virtio_pci, fills a struct virtio_pci_setup, and calls virtio_pci_init().
 */
#ifndef HEC_DEV_VIRTIO_PCI_H
#define HEC_DEV_VIRTIO_PCI_H

#include "dev/virtio.h"
#include "pci/func.h"

enum virtio_iommu { VIRTIO_IOMMU_AUTO, VIRTIO_IOMMU_ON, VIRTIO_IOMMU_OFF };

/* What -device may say about any of them; zeros are the defaults. */
struct virtio_options {
    enum virtio_iommu iommu_platform; /* auto: on if the machine has a remapping unit */
    bool no_event_idx, no_indirect;   /* event_idx=off, indirect_desc=off */
    bool packed;                      /* packed=on: offer the packed ring */
    unsigned vectors;                 /* 0: one for each queue, one for the configuration; else 1 .. PCI_MSIX_MAX */
    bool no_msix;                     /* vectors=0: INTA# only */
};

struct virtio_pci_setup {
    struct pci_host *host;
    struct pci_bus *bus; /* NULL: the root */
    uint8_t devfn;
    struct ioloop *loop;
    const struct virtio_ops *ops;
    struct virtio_options options;
    const char *name; /* static: "virtio-blk-pci" */
    enum virtio_type type;
    uint32_t class_code;
    uint64_t features; /* the device's own */
    uint16_t queues, queue_size;
    const void *config; /* the configuration's first bytes, copied */
    unsigned config_len;
};

struct virtio_pci {
    struct virtio v;
    struct pci_func func;
    unsigned cfg_cap;          /* (c) of the configuration access capability */
    uint32_t feature_select;   /* (l: v.lock) of the device's features */
    uint32_t driver_select;    /* (l: v.lock) of the driver's */
    uint16_t queue_select;     /* (l: v.lock) */
    unsigned vectors;          /* (c) 0: INTx only */
    uint32_t bar_size;         /* (c) */
    _Atomic uint8_t isr;       /* (a) */
    pthread_mutex_t intx_lock; /* INTA#'s level is whether isr is 0 */
};

/* ---- lifecycle ---- */
/* Make it and add it to the bus. -errno. */
int virtio_pci_init(struct virtio_pci *p, const struct virtio_pci_setup *s, struct err *e);
/* No vCPU runs; waits for what is in flight. Before the device's backend goes. */
void virtio_pci_fini(struct virtio_pci *p);
void virtio_pci_reset(struct virtio_pci *p);

/* Whether VIRTIO_F_ACCESS_PLATFORM will be offered. */
bool virtio_pci_translated(const struct pci_host *host, const struct virtio_options *o);

/* ---- any thread (inside the epoch) ---- */
/* Interrupts: virtq.c's and virtio.c's. */
void virtio_pci_fire_queue(struct virtio *v, const struct virtq *q);
void virtio_pci_fire_config(struct virtio *v);
/* The registers of one virtio device were reset: so are the transport's. Under v->lock. */
void virtio_pci_registers_reset(struct virtio *v);

#endif
