/* A tap interface of the host. Each frame has a struct net_hdr before it (IFF_VNET_HDR), so that checksums and
 * segmentation are the host kernel's work, or are not done at all. Linux, Documentation/networking/tuntap.rst. */
#include "dev/net_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define READS 64u /* for one event: others want the loop, too */

struct net_tap {
    struct net n;
    struct ioloop_fd io;
    char name[IFNAMSIZ]; /* (c) */
    bool vnet_hdr;       /* (c) */
    bool held;           /* `frame` waits for room */
    struct net_hdr hdr;  /* of `frame` */
    size_t frame_len;
    uint8_t *frame; /* NET_FRAME_MAX bytes */
};

_Static_assert(sizeof(struct net_hdr) == 10, "what the kernel expects before a frame");

static struct net_tap *of(struct net *n)
{
    return container_of(n, struct net_tap, n);
}

/* ---- from the guest ---- */

static void tap_send(struct net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs, size_t len)
{
    struct net_tap *t = of(n);
    struct net_hdr none = {0}, mine = hdr ? *hdr : none;
    struct iovec iov[NET_IOVS + 2];
    unsigned head = t->vnet_hdr;
    mine.flags &= NET_HDR_NEEDS_CSUM;
    iov[0] = (struct iovec){&mine, sizeof mine};
    memcpy(iov + head, frame, iovs * sizeof *frame);
    ssize_t w;
    do
        w = writev(t->io.fd, iov, (int)(iovs + head));
    while (w < 0 && errno == EINTR);
    if (w < 0)
        net_drop(n);
}

static void tap_flush(struct net *n)
{
}

/* ---- to the guest ---- */

static bool read_frame(struct net_tap *t)
{
    struct iovec iov[2] = {{&t->hdr, sizeof t->hdr}, {t->frame, NET_FRAME_MAX}};
    unsigned head = t->vnet_hdr ? 0 : 1;
    size_t before = t->vnet_hdr ? sizeof t->hdr : 0;
    ssize_t n = readv(t->io.fd, iov + head, (int)(2 - head));
    if (n < (ssize_t)before)
        return false;
    t->frame_len = (size_t)n - before;
    return true;
}

static bool deliver(struct net_tap *t)
{
    struct iovec frame = {t->frame, t->frame_len};
    const struct net_hdr *hdr = t->vnet_hdr && (t->hdr.flags || t->hdr.gso_type) ? &t->hdr : NULL;
    return net_deliver(&t->n, hdr, &frame, 1, t->frame_len);
}

static void tap_event(void *opaque, uint32_t events)
{
    struct net_tap *t = opaque;
    for (unsigned i = 0; i < READS && read_frame(t); i++) {
        if (deliver(t))
            continue;
        t->held = true;
        ioloop_fd_events(t->n.loop, &t->io, 0);
        return;
    }
    if (events & EPOLLERR && !(events & EPOLLIN)) {
        net_note(&t->n, "the tap interface %s is gone", t->name);
        ioloop_fd_events(t->n.loop, &t->io, 0);
    }
}

static void tap_resume(struct net *n)
{
    struct net_tap *t = of(n);
    if (!t->held || !deliver(t))
        return;
    t->held = false;
    ioloop_fd_events(n->loop, &t->io, EPOLLIN);
}

/* The kernel may leave undone in received frames what the guest says it can take. */
static void tap_peer_changed(struct net *n)
{
    struct net_tap *t = of(n);
    unsigned long flags = 0;
    if (!t->vnet_hdr)
        return;
    if (n->peer.offloads & NET_CSUM) {
        flags = TUN_F_CSUM;
        flags |= n->peer.offloads & NET_TSO4 ? TUN_F_TSO4 : 0;
        flags |= n->peer.offloads & NET_TSO6 ? TUN_F_TSO6 : 0;
        flags |= n->peer.offloads & NET_ECN && flags != TUN_F_CSUM ? TUN_F_TSO_ECN : 0;
    }
    ioctl(t->io.fd, TUNSETOFFLOAD, flags); /* if it can't, net_deliver() does it */
}

/* ---- lifecycle ---- */

static int tap_attach(struct net *n, struct err *e)
{
    struct net_tap *t = of(n);
    t->io.fn = tap_event;
    t->io.opaque = t;
    return ioloop_fd_add(n->loop, &t->io, EPOLLIN, e);
}

static void tap_close(struct net *n)
{
    struct net_tap *t = of(n);
    if (t->io.fn)
        ioloop_fd_remove(n->loop, &t->io);
    close(t->io.fd);
    free(t->frame);
}

static const struct net_ops tap_ops = {.attach = tap_attach,
                                       .send = tap_send,
                                       .flush = tap_flush,
                                       .resume = tap_resume,
                                       .peer_changed = tap_peer_changed,
                                       .close = tap_close};

static int open_device(struct net_tap *t, struct err *e)
{
    t->io.fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (t->io.fd >= 0)
        return 0;
    const char *remedy = errno == ENOENT ? "load the module: modprobe tun"
                                         : "run as root, or hand an open tap over with fd=, or use -netdev user";
    return err_set(e, -errno, "network tap: cannot open /dev/net/tun: %s; %s", strerror(errno), remedy);
}

static int create(struct net_tap *t, const struct net_config *c, struct err *e)
{
    struct ifreq r = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (t->vnet_hdr ? IFF_VNET_HDR : 0))};
    int rc = open_device(t, e);
    if (rc)
        return rc;
    if (c->ifname && strlen(c->ifname) >= IFNAMSIZ)
        return err_set(e, -EINVAL, "network tap: ifname=%s is longer than %d characters", c->ifname, IFNAMSIZ - 1);
    if (c->ifname)
        strcpy(r.ifr_name, c->ifname);
    if (ioctl(t->io.fd, TUNSETIFF, &r)) {
        rc = -errno;
        const char *name = c->ifname ? c->ifname : "tap";
        if (rc == -EPERM)
            return err_set(
                e, rc,
                "network tap: no permission for the interface %s; as root: ip tuntap add dev %s mode tap user "
                "$USER, or use -netdev user",
                name, c->ifname ? name : "tap0");
        return err_set(e, rc, "network tap: cannot attach to the interface %s: %s%s", name, strerror(-rc),
                       rc == -EBUSY ? "; another program has it" : "");
    }
    memcpy(t->name, r.ifr_name, sizeof t->name);
    return 0;
}

static int take_over(struct net_tap *t, const struct net_config *c, struct err *e)
{
    struct ifreq r = {0};
    t->io.fd = c->fd;
    if (ioctl(t->io.fd, TUNGETIFF, &r) || !(r.ifr_flags & IFF_TAP))
        return err_set(e, -EINVAL, "network tap: fd=%d is not an open tap interface", c->fd);
    t->vnet_hdr = r.ifr_flags & IFF_VNET_HDR;
    memcpy(t->name, r.ifr_name, sizeof t->name);
    int flags = fcntl(t->io.fd, F_GETFL);
    if (flags < 0 || fcntl(t->io.fd, F_SETFL, flags | O_NONBLOCK))
        return err_set(e, -errno, "network tap: fd=%d: %s", c->fd, strerror(errno));
    return 0;
}

/* The header's size and byte order as struct net_hdr has them. */
static int set_header(struct net_tap *t, struct err *e)
{
    int size = sizeof(struct net_hdr), little = 1;
    if (!t->vnet_hdr || !ioctl(t->io.fd, TUNSETVNETHDRSZ, &size)) {
        if (t->vnet_hdr)
            ioctl(t->io.fd, TUNSETVNETLE, &little); /* it is what x86 does anyway */
        t->n.native = t->vnet_hdr ? NET_CSUM | NET_TSO4 | NET_TSO6 | NET_ECN : 0;
        return 0;
    }
    return err_set(e, -errno, "network tap: %s: cannot set the header's size: %s; try vnet_hdr=off", t->name,
                   strerror(errno));
}

int net_tap_open(const struct net_config *c, struct net **out, struct err *e)
{
    struct net_tap *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(e, -ENOMEM, "network tap: no memory");
    t->n.ops = &tap_ops;
    t->vnet_hdr = !c->vnet_hdr_off;
    t->io.fd = -1;
    t->frame = malloc(NET_FRAME_MAX);
    int rc = !t->frame    ? err_set(e, -ENOMEM, "network tap: no memory")
             : c->fd >= 0 ? take_over(t, c, e)
                          : create(t, c, e);
    if (!rc)
        rc = set_header(t, e);
    if (rc) {
        if (t->io.fd >= 0)
            close(t->io.fd);
        free(t->frame);
        free(t);
        return rc;
    }
    *out = &t->n;
    return 0;
}
