/* A network card: VIRTIO 1.2, 5.1 "Network Device". Queue pairs up to the number of CPUs, checksum and TCP segmentation
 * offloads both ways, mergeable receive buffers, receive filters, addresses and queues by the control queue.
 *
 * All queues are served by the network's ioloop. Frames go from guest memory to the other end in one copy at most, and
 * the other way in one. With several pairs, a flow's frames come in at the pair that it was last sent from.
 */
#ifndef HEC_DEV_VIRTIO_NET_H
#define HEC_DEV_VIRTIO_NET_H

#include "dev/net.h"
#include "dev/virtio_pci.h"

#define VIRTIO_NET_QUEUE_SIZE 256u  /* by default */
#define VIRTIO_NET_PAIRS_MAX  1023u /* with the control queue all that virtio-pci has vectors for */

struct virtio_net;

struct virtio_net_config {
    struct pci_host *host;
    struct pci_bus *bus; /* NULL: the root */
    uint8_t devfn;
    struct net *net; /* borrowed; the device lives on its loop, and is its peer */
    uint8_t mac[6];
    uint16_t queue_pairs; /* 0: 1 */
    uint16_t queue_size;  /* 0: VIRTIO_NET_QUEUE_SIZE */
    struct virtio_options options;
};

/* ---- lifecycle ---- */
int virtio_net_create(const struct virtio_net_config *c, struct virtio_net **out, struct err *e);
void virtio_net_reset(struct virtio_net *n);
void virtio_net_destroy(struct virtio_net *n);

/* ---- any thread (inside the epoch) ---- */
/* Ask the guest to make its addresses known on the wire, as the device does when the cable leads to somebody else.
 * 5.1.6.5.4 "Gratuitous Packet Sending". */
void virtio_net_announce(struct virtio_net *n);

#endif
