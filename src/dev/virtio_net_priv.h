/* Private to virtio_net*.c. */
#ifndef HEC_DEV_VIRTIO_NET_PRIV_H
#define HEC_DEV_VIRTIO_NET_PRIV_H

#include "dev/net_frame.h"
#include "dev/virtio_net.h"

#define VNET_MACS   64u /* of each kind in the filter; more: all of the kind pass */
#define VNET_FLOWS  4096u
#define VNET_CHAINS 128u /* for one frame */
#define VNET_HDR    12u  /* struct net_hdr and num_buffers */

/* 5.1.3 "Feature bits". */
enum vnet_feature {
    VNET_F_CSUM = 0,
    VNET_F_GUEST_CSUM = 1,
    VNET_F_CTRL_GUEST_OFFLOADS = 2,
    VNET_F_MAC = 5,
    VNET_F_GUEST_TSO4 = 7,
    VNET_F_GUEST_TSO6 = 8,
    VNET_F_GUEST_ECN = 9,
    VNET_F_HOST_TSO4 = 11,
    VNET_F_HOST_TSO6 = 12,
    VNET_F_HOST_ECN = 13,
    VNET_F_MRG_RXBUF = 15,
    VNET_F_STATUS = 16,
    VNET_F_CTRL_VQ = 17,
    VNET_F_CTRL_RX = 18,
    VNET_F_CTRL_VLAN = 19,
    VNET_F_CTRL_RX_EXTRA = 20,
    VNET_F_GUEST_ANNOUNCE = 21,
    VNET_F_MQ = 22,
    VNET_F_CTRL_MAC_ADDR = 23
};

/* 5.1.4 "Device configuration layout". */
enum vnet_config { VNET_C_MAC = 0, VNET_C_STATUS = 6, VNET_C_PAIRS = 8, VNET_C_LEN = 10 };
enum vnet_status { VNET_S_LINK_UP = 1, VNET_S_ANNOUNCE = 2 };

struct vnet_mac_table {
    unsigned n;
    bool overflow;
    uint8_t mac[VNET_MACS][6];
};

/* What the guest wants to hear. 5.1.6.5.1 "Packet Receive Filtering", 5.1.6.5.2 "Setting MAC Address Filtering". */
struct vnet_filter {
    bool promisc, allmulti, alluni, nomulti, nouni, nobcast;
    uint8_t mac[6];
    struct vnet_mac_table uni, multi;
    uint64_t vlan[4096 / 64];
};

/* Queue pair `i` is queues 2i (receive) and 2i + 1 (transmit). */
struct virtio_net {
    struct virtio_pci pci;
    struct net *net; /* (c) */
    uint16_t pairs;  /* (c) that there are */
    uint8_t mac[6];  /* (c) after power-on */
    /* the loop's thread */
    uint16_t active;   /* pairs the guest uses */
    bool merge;        /* VNET_F_MRG_RXBUF */
    bool starved;      /* the network was told that there is no room */
    bool impatient;    /* the frame that waits is lost if it does not fit now */
    unsigned offloads; /* enum net_offload of received frames */
    struct vnet_filter filter;
    uint16_t flow[VNET_FLOWS]; /* pair a flow was last sent from, plus 1; 0: none was */
    struct ioloop_bell finish; /* flush queues that were received into */
    uint16_t *dirty;           /* (c) owned: room for each pair */
    bool *is_dirty;            /* (c) owned */
    unsigned dirties;
    struct ioloop_timer patience;
    struct iovec iov[VIRTQ_SIZE_MAX];    /* what the guest sends */
    struct iovec in[2 * VIRTQ_SIZE_MAX]; /* where it receives, maybe while it sends */
};

static inline struct virtio_net *vnet_of(struct virtio *v)
{
    return container_of(v, struct virtio_net, pci.v);
}

/* ---- virtio_net_ctrl.c; the loop's thread ---- */
/* As the driver finds it. */
void vnet_filter_reset(struct virtio_net *n);
bool vnet_filter_passes(const struct virtio_net *n, const uint8_t *head, size_t len);
void vnet_serve_control(struct virtio_net *n, struct virtq *q);

/* ---- virtio_net.c's, for the control queue ---- */
/* n->offloads or n->active has changed. */
void vnet_plug(struct virtio_net *n);

#endif
