#include "dev/net_user_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PCAP_MAGIC    0xa1b23c4du /* times in nanoseconds */
#define PCAP_ETHERNET 1u

/* ---- what every kind does ---- */

void net_note(struct net *n, const char *fmt, ...)
{
    char line[256];
    if (!n->notes)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    fprintf(n->notes, "hecaton: network %s: %s\n", n->id, line);
}

static bool write_all(int fd, const struct iovec *iov, unsigned n)
{
    size_t len = net_iov_len(iov, n);
    ssize_t w = writev(fd, iov, (int)n);
    return w >= 0 && (size_t)w == len;
}

/* A record is one write, so that a file is whole up to the last frame whatever happens to the process. */
static void pcap_frame(struct net *n, const struct iovec *frame, unsigned iovs, size_t len)
{
    struct timespec t;
    struct iovec iov[NET_IOVS + 2];
    clock_gettime(CLOCK_REALTIME, &t);
    uint32_t head[4] = {(uint32_t)t.tv_sec, (uint32_t)t.tv_nsec, (uint32_t)len, (uint32_t)len};
    iov[0] = (struct iovec){head, sizeof head};
    memcpy(iov + 1, frame, iovs * sizeof *frame);
    if (write_all(n->pcap, iov, iovs + 1))
        return;
    net_note(n, "the pcap file ends here: %s", strerror(errno));
    close(n->pcap);
    n->pcap = -1;
}

static int pcap_open(struct net *n, const char *path, struct err *e)
{
    n->pcap = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (n->pcap < 0)
        return err_set(e, -errno, "network %s: cannot write the pcap file %s: %s", n->id, path, strerror(errno));
    uint32_t head[6] = {PCAP_MAGIC, 4u << 16 | 2u, 0, 0, NET_FRAME_MAX, PCAP_ETHERNET};
    struct iovec iov = {head, sizeof head};
    if (write_all(n->pcap, &iov, 1))
        return 0;
    return err_set(e, -EIO, "network %s: cannot write the pcap file %s: %s", n->id, path, strerror(errno));
}

/* ---- to the guest ---- */

static bool offloads_fit(const struct net_hdr *hdr, unsigned offloads)
{
    static const unsigned of_gso[] = {[NET_GSO_TCPV4] = NET_TSO4, [NET_GSO_TCPV6] = NET_TSO6};
    unsigned gso = hdr->gso_type & ~(unsigned)NET_GSO_ECN, need = 0;
    if (hdr->flags & NET_HDR_NEEDS_CSUM)
        need |= NET_CSUM;
    if (gso != NET_GSO_NONE)
        need |= gso < ARRAY_SIZE(of_gso) ? of_gso[gso] : 0;
    if (hdr->gso_type & NET_GSO_ECN)
        need |= NET_ECN;
    return (need & ~offloads) == 0;
}

static void count_rx(struct net *n, const struct iovec *frame, unsigned iovs, size_t len)
{
    net_count(&n->rx_frames, 1);
    net_count(&n->rx_bytes, len);
    if (unlikely(n->pcap >= 0))
        pcap_frame(n, frame, iovs, len);
}

static bool give(struct net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs, size_t len)
{
    if (hdr && !(n->peer.offloads & NET_CSUM))
        hdr = NULL; /* it may only say that the checksum is known to be right */
    if (!n->peer.receive(n->peer.opaque, hdr, frame, iovs))
        return false;
    count_rx(n, frame, iovs, len);
    return true;
}

struct pieces {
    struct net *n;
    bool refused; /* the first */
    unsigned given;
};

/* A large frame's first segment may wait; if a later one finds no room, the rest is lost, as on a wire. */
static bool give_piece(void *opaque, const struct iovec *frame, unsigned iovs, size_t len)
{
    struct pieces *p = opaque;
    if (give(p->n, NULL, frame, iovs, len)) {
        p->given++;
        return true;
    }
    p->refused = p->given == 0;
    if (!p->refused)
        net_drop(p->n);
    return false;
}

bool net_deliver(struct net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs, size_t len)
{
    if (!n->plugged) {
        net_drop(n);
        return true;
    }
    if (!hdr || (net_hdr_sane(hdr, len) && offloads_fit(hdr, n->peer.offloads)))
        return give(n, hdr, frame, iovs, len);
    struct pieces p = {.n = n};
    if (!net_complete(hdr, frame, iovs, len, give_piece, &p))
        net_drop(n);
    return !p.refused;
}

/* ---- from the guest ---- */

static bool send_piece(void *opaque, const struct iovec *frame, unsigned iovs, size_t len)
{
    struct net *n = opaque;
    n->ops->send(n, NULL, frame, iovs, len);
    return true;
}

static void send_frame(struct net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs, size_t len)
{
    net_count(&n->tx_frames, 1);
    net_count(&n->tx_bytes, len);
    if (unlikely(n->pcap >= 0))
        pcap_frame(n, frame, iovs, len);
    if (!hdr || (!(hdr->flags & NET_HDR_NEEDS_CSUM) && hdr->gso_type == NET_GSO_NONE))
        n->ops->send(n, NULL, frame, iovs, len);
    else if (!net_hdr_sane(hdr, len))
        net_drop(n);
    else if (offloads_fit(hdr, n->native))
        n->ops->send(n, hdr, frame, iovs, len);
    else if (!net_complete(hdr, frame, iovs, len, send_piece, n))
        net_drop(n);
}

void net_send(struct net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs)
{
    size_t len = net_iov_len(frame, iovs);
    if (len < 14 || len > NET_FRAME_MAX) {
        net_drop(n);
        return;
    }
    struct iovec one = {n->flat, len};
    if (iovs > NET_IOVS) {
        net_gather(frame, iovs, n->flat, len);
        frame = &one;
        iovs = 1;
    }
    send_frame(n, hdr, frame, iovs, len);
}

void net_flush(struct net *n)
{
    n->ops->flush(n);
}

void net_resume(struct net *n)
{
    n->ops->resume(n);
}

void net_lost(struct net *n)
{
    net_drop(n);
}

void net_moved(struct net *n)
{
    if (n->plugged && n->peer.moved)
        n->peer.moved(n->peer.opaque);
}

void net_set_peer(struct net *n, const struct net_peer *peer)
{
    n->plugged = peer != NULL;
    n->peer = peer ? *peer : (struct net_peer){0};
    if (n->ops->peer_changed)
        n->ops->peer_changed(n);
    n->ops->resume(n);
}

/* ---- numbers ---- */

unsigned net_offloads(const struct net *n)
{
    return NET_CSUM | NET_TSO4 | NET_TSO6 | NET_ECN;
}

struct ioloop *net_loop(const struct net *n)
{
    return n->loop;
}

void net_stats(struct net *n, struct net_stats *out)
{
    *out = (struct net_stats){
        .tx_frames = atomic_load_explicit(&n->tx_frames, memory_order_relaxed),
        .tx_bytes = atomic_load_explicit(&n->tx_bytes, memory_order_relaxed),
        .rx_frames = atomic_load_explicit(&n->rx_frames, memory_order_relaxed),
        .rx_bytes = atomic_load_explicit(&n->rx_bytes, memory_order_relaxed),
        .dropped = atomic_load_explicit(&n->dropped, memory_order_relaxed),
    };
}

/* ---- a cable that ends nowhere ---- */

static int none_attach(struct net *n, struct err *e)
{
    return 0;
}

static void none_send(struct net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs, size_t len)
{
}

static void none_event(struct net *n)
{
}

static const struct net_ops none_ops = {
    .attach = none_attach, .send = none_send, .flush = none_event, .resume = none_event, .close = none_event};

static int none_open(struct net **out, struct err *e)
{
    struct net *n = calloc(1, sizeof *n);
    if (!n)
        return err_set(e, -ENOMEM, "no memory for a network");
    n->ops = &none_ops;
    n->native = NET_CSUM | NET_TSO4 | NET_TSO6 | NET_ECN;
    *out = n;
    return 0;
}

/* ---- lifecycle ---- */

int net_config_check(const struct net_config *c, struct err *e)
{
    struct user_setup s;
    return c->kind == NET_USER ? net_user_setup(c, &s, e) : 0;
}

static int open_kind(const struct net_config *c, struct net **out, struct err *e)
{
    switch (c->kind) {
    case NET_USER:
        return net_user_open(c, out, e);
    case NET_TAP:
        return net_tap_open(c, out, e);
    case NET_SOCKET:
        return net_socket_open(c, out, e);
    case NET_NONE:
        break;
    }
    return none_open(out, e);
}

struct attach {
    struct net *n;
    struct err *e;
    int rc;
};

static void attach(void *opaque)
{
    struct attach *a = opaque;
    a->rc = a->n->ops->attach(a->n, a->e);
}

static void detach(void *opaque)
{
    struct net *n = opaque;
    n->ops->close(n);
}

int net_open(const struct net_config *c, struct ioloop *loop, struct net **out, struct err *e)
{
    struct net *n;
    int rc = open_kind(c, &n, e);
    if (rc)
        return rc;
    n->loop = loop;
    n->notes = c->notes;
    n->pcap = -1;
    n->id = strdup(c->id ? c->id : "?");
    n->flat = malloc(NET_FRAME_MAX);
    if (!n->id || !n->flat)
        rc = err_set(e, -ENOMEM, "network %s: no memory", c->id ? c->id : "?");
    if (!rc && c->pcap)
        rc = pcap_open(n, c->pcap, e);
    struct attach a = {.n = n, .e = e};
    if (!rc) {
        ioloop_call(loop, attach, &a);
        rc = a.rc;
    }
    if (rc) {
        net_close(n);
        return rc;
    }
    *out = n;
    return 0;
}

void net_close(struct net *n)
{
    if (!n)
        return;
    ioloop_call(n->loop, detach, n);
    if (n->pcap >= 0)
        close(n->pcap);
    free(n->flat);
    free(n->id);
    free(n);
}
