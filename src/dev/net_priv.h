/* Private to net*.c: what a kind of network gives to net.c, and takes from it. Everything on the loop's thread, but
 * net_*_open() (set-up) and the numbers (any thread). */
#ifndef HEC_DEV_NET_PRIV_H
#define HEC_DEV_NET_PRIV_H

#include "dev/net_frame.h"
#include "dev/net_gso.h"

#include <stdatomic.h>

struct net_ops {
    /* Enter the loop: watch descriptors, arm timers. -errno with a line; close() follows then, too. */
    int (*attach)(struct net *n, struct err *e);
    /* A frame of at most NET_FRAME_MAX bytes in at most NET_IOVS + 1 pieces. `hdr` is sane, and asks for nothing that
     * is not in n->native; NULL if it asks for nothing at all. */
    void (*send)(struct net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs, size_t len);
    void (*flush)(struct net *n);
    void (*resume)(struct net *n);
    void (*peer_changed)(struct net *n); /* NULL: it does not mind */
    /* Leave the loop, and free all but `n` itself. Also after a failed attach(). */
    void (*close)(struct net *n);
};

/* The beginning of every kind's own struct. */
struct net {
    const struct net_ops *ops; /* (c) */
    struct ioloop *loop;       /* (c) */
    FILE *notes;               /* (c) borrowed, or NULL */
    char *id;                  /* (c) for messages */
    unsigned native;           /* (c) enum net_offload its send() takes */
    int pcap;                  /* the loop's thread; -1: none */
    bool plugged;              /* the loop's thread */
    struct net_peer peer;      /* the loop's thread */
    uint8_t *flat;             /* the loop's thread: a frame that came in too many pieces */
    _Atomic uint64_t tx_frames, tx_bytes, rx_frames, rx_bytes, dropped; /* (a) written by the loop's thread */
};

/* Allocate and open one, not on the loop yet. *out has ops, native and its own fields set; net.c fills the rest. */
int net_user_open(const struct net_config *c, struct net **out, struct err *e);
int net_tap_open(const struct net_config *c, struct net **out, struct err *e);
int net_socket_open(const struct net_config *c, struct net **out, struct err *e);

/* A frame for the guest. `hdr` NULL: complete; else what the peer can't take of it is done here. False: no room, it is
 * not taken, and resume() will be called. Without a peer, and if it is malformed, it is taken and lost. */
bool net_deliver(struct net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs, size_t len);
/* The cable leads to somebody else from now on. */
void net_moved(struct net *n);
/* One line to the notes. */
void net_note(struct net *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static inline void net_count(_Atomic uint64_t *what, uint64_t add)
{
    atomic_store_explicit(what, atomic_load_explicit(what, memory_order_relaxed) + add, memory_order_relaxed);
}
static inline void net_drop(struct net *n)
{
    net_count(&n->dropped, 1);
}

#endif
