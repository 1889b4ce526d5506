/* An entropy source: the host's getrandom(2) in the guest's buffers. VIRTIO 1.2, 5.4 "Entropy Device". */
#ifndef HEC_DEV_VIRTIO_RNG_H
#define HEC_DEV_VIRTIO_RNG_H

#include "dev/virtio_pci.h"

struct virtio_rng;

struct virtio_rng_config {
    struct pci_host *host;
    struct pci_bus *bus; /* NULL: the root */
    uint8_t devfn;
    struct ioloop *loop; /* borrowed */
    struct virtio_options options;
};

/* ---- lifecycle ---- */
int virtio_rng_create(const struct virtio_rng_config *c, struct virtio_rng **out, struct err *e);
void virtio_rng_reset(struct virtio_rng *r);
void virtio_rng_destroy(struct virtio_rng *r);

#endif
