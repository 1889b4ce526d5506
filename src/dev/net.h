/* What is at the other end of a network card's cable: user mode (libslirp), a tap interface, or a socket to another
 * machine. Frames are Ethernet without FCS, at most NET_FRAME_MAX bytes. All on one ioloop's thread.
 *
 * Offloads: a frame may come with a struct net_hdr (virtio's virtio_net_hdr without num_buffers) if both ends said they
 * know it (a tap does); else checksums are complete and no frame is longer than the MTU allows.
 */
#ifndef HEC_DEV_NET_H
#define HEC_DEV_NET_H

#include "base/err.h"
#include "base/ioloop.h"

#include <stdio.h>
#include <sys/uio.h>

#define NET_FRAME_MAX (65536u + 64u)
#define NET_FORWARDS  64

/* VIRTIO 1.2, 5.1.6 "Device Operation", struct virtio_net_hdr up to num_buffers. */
struct net_hdr {
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset;
};

/* 5.1.6, the values of `flags` and `gso_type`. */
enum net_hdr_flags { NET_HDR_NEEDS_CSUM = 1, NET_HDR_DATA_VALID = 2 };
enum net_gso { NET_GSO_NONE = 0, NET_GSO_TCPV4 = 1, NET_GSO_TCPV6 = 4, NET_GSO_ECN = 0x80 };

enum net_offload { NET_CSUM = 1, NET_TSO4 = 2, NET_TSO6 = 4, NET_ECN = 8 };

/* The card's side. Called on the loop's thread. */
struct net_peer {
    /* A frame for the guest; `hdr` NULL: nothing is offloaded. False: there is no room now, the frame is not taken;
     * net_resume() asks for it again. */
    bool (*receive)(void *opaque, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs);
    /* Who is at the other end is another now, and knows none of the guest's addresses. NULL: the card has no way to say
     * so. */
    void (*moved)(void *opaque);
    void *opaque;
    unsigned offloads; /* enum net_offload the guest takes in received frames */
};

enum net_kind { NET_NONE, NET_USER, NET_TAP, NET_SOCKET };

/* hostfwd=[tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport, kept as text until it is opened. */
struct net_config { /* plain data; strings are borrowed */
    const char *id; /* for messages */
    enum net_kind kind;
    /* user */
    const char *hostfwd[NET_FORWARDS];
    unsigned hostfwds;
    const char *net, *host, *dns, *dhcpstart, *hostname, *domain, *tftp, *bootfile; /* NULL: 10.0.2.0/24 and friends */
    bool restricted, ipv6_off, ipv4_off;
    /* tap */
    const char *ifname; /* NULL: the kernel chooses */
    int fd;             /* -1: open /dev/net/tun; else an open tap, owned from net_open() on */
    bool vnet_hdr_off;
    /* socket: "listen=[host]:port", "connect=host:port"; a 4-byte big-endian length before each frame, as QEMU's */
    const char *listen, *connect;
    const char *pcap; /* write every frame there (pcap format); NULL: no */
    FILE *notes;      /* borrowed; a line when the other end comes, goes or talks nonsense; NULL: silent */
};

struct net;

struct net_stats {
    uint64_t tx_frames, tx_bytes, rx_frames, rx_bytes, dropped;
};

/* ---- pure ---- */
/* -EINVAL with one line if the options of this network contradict the form they have, as hostfwd=; nothing of the host
 * is looked at. */
int net_config_check(const struct net_config *c, struct err *e);

/* ---- lifecycle ---- */
/* -errno with one line naming what, where and the remedy (a port in use, no permission for the tap, ...). */
int net_open(const struct net_config *c, struct ioloop *loop, struct net **out, struct err *e);
void net_close(struct net *n); /* NULL is allowed; no peer is set */

/* ---- any thread ---- */
/* enum net_offload it takes from the guest: what its kind can't do itself is done in software (net_gso.h). It gives to
 * the guest what the peer's `offloads` allow. */
unsigned net_offloads(const struct net *n);
struct ioloop *net_loop(const struct net *n);
void net_stats(struct net *n, struct net_stats *out);

/* ---- the loop's thread only ---- */
void net_set_peer(struct net *n, const struct net_peer *peer); /* copied; NULL: unplugged, frames are dropped */
/* A frame from the guest. Never blocks: what the other end cannot take is dropped, as on a wire. */
void net_send(struct net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs);
/* No more frames for now: send what was gathered (one system call for many where the kind can). */
void net_flush(struct net *n);
void net_resume(struct net *n); /* the peer has room again */
void net_lost(struct net *n);   /* the peer lost a frame, of either direction: it is counted */

#endif
