/* A disk: VIRTIO 1.2, 5.2 "Block Device". Any number of queues; requests go from guest memory to the image without a
 * copy, and their completions are told by one interrupt for what completed together.
 *
 * Guest errors end in VIRTIO_BLK_S_IOERR or S_UNSUPP where a request has a place for its status, else they break the
 * device (virtq.h).
 */
#ifndef HEC_DEV_VIRTIO_BLK_H
#define HEC_DEV_VIRTIO_BLK_H

#include "dev/block.h"
#include "dev/virtio_pci.h"

#define VIRTIO_BLK_QUEUE_SIZE 256u /* by default */
#define VIRTIO_BLK_SERIAL     20u  /* bytes of it that the guest sees */

struct virtio_blk;

struct virtio_blk_config {
    struct pci_host *host;
    struct pci_bus *bus; /* NULL: the root */
    uint8_t devfn;
    struct block *block;  /* borrowed; the device lives on its loop */
    const char *serial;   /* serial=; copied; NULL: none */
    uint16_t queues;      /* num-queues=; 0: 1 */
    uint16_t queue_size;  /* queue-size=; 0: VIRTIO_BLK_QUEUE_SIZE */
    bool writethrough;    /* write-cache=off, and drives that are: the guest sees no cache until it asks for one */
    bool no_config_wce;   /* config-wce=off */
    bool no_discard;      /* discard=off */
    bool no_write_zeroes; /* write-zeroes=off */
    struct virtio_options options;
};

/* ---- lifecycle ---- */
int virtio_blk_create(const struct virtio_blk_config *c, struct virtio_blk **out, struct err *e);
void virtio_blk_reset(struct virtio_blk *b);
void virtio_blk_destroy(struct virtio_blk *b);

#endif
