/* The control queue, and the receive filter it sets. VIRTIO 1.2, 5.1.6.5 "Control Virtqueue". */
#include "dev/virtio_net_priv.h"

enum ctrl_class { C_RX = 0, C_MAC = 1, C_VLAN = 2, C_ANNOUNCE = 3, C_MQ = 4, C_GUEST_OFFLOADS = 5 };
enum ctrl_ack { OK = 0, ERR = 1 };
enum { HEAD = 2, MAC = 6, TYPE_VLAN = 0x8100 };

#define COMMANDS 64u /* commands before others on the loop get their turn */

/* ---- the filter ---- */

void vnet_filter_reset(struct virtio_net *n)
{
    struct vnet_filter *f = &n->filter;
    memset(f, 0, sizeof *f);
    memcpy(f->mac, n->mac, sizeof f->mac);
    f->promisc = true; /* until the driver says otherwise, or for ever if it can't */
    if (!virtio_has(&n->pci.v, BIT(VNET_F_CTRL_VLAN)))
        memset(f->vlan, 0xff, sizeof f->vlan);
}

static bool in_table(const struct vnet_mac_table *t, const uint8_t *mac)
{
    if (t->overflow)
        return true;
    for (unsigned i = 0; i < t->n; i++)
        if (!memcmp(t->mac[i], mac, MAC))
            return true;
    return false;
}

static bool vlan_passes(const struct vnet_filter *f, const uint8_t *head, size_t len)
{
    if (len < 16 || get16be(head + 12) != TYPE_VLAN)
        return true;
    unsigned id = get16be(head + 14) & 0xfff;
    return f->vlan[id / 64] & BIT(id % 64);
}

static bool mac_passes(const struct vnet_filter *f, const uint8_t *mac)
{
    static const uint8_t broadcast[MAC] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    if (!(mac[0] & 1))
        return !f->nouni && (f->alluni || !memcmp(mac, f->mac, MAC) || in_table(&f->uni, mac));
    if (!memcmp(mac, broadcast, MAC))
        return !f->nobcast;
    return !f->nomulti && (f->allmulti || in_table(&f->multi, mac));
}

bool vnet_filter_passes(const struct virtio_net *n, const uint8_t *head, size_t len)
{
    const struct vnet_filter *f = &n->filter;
    return f->promisc || (vlan_passes(f, head, len) && mac_passes(f, head));
}

/* ---- commands ---- */

/* A command's data, as far as it has been read. */
struct reader {
    const struct iovec *iov;
    unsigned n;
    size_t at, len;
};

static bool get(struct reader *r, void *to, size_t len)
{
    if (len > r->len - r->at || virtq_copy_from(r->iov, r->n, r->at, to, len) < len)
        return false;
    r->at += len;
    return true;
}

static enum ctrl_ack set_rx_mode(struct virtio_net *n, unsigned cmd, struct reader *r)
{
    struct vnet_filter *f = &n->filter;
    bool *const mode[] = {&f->promisc, &f->allmulti, &f->alluni, &f->nomulti, &f->nouni, &f->nobcast};
    uint64_t needs = BIT(cmd < 2 ? VNET_F_CTRL_RX : VNET_F_CTRL_RX_EXTRA);
    uint8_t on;
    if (cmd >= ARRAY_SIZE(mode) || !virtio_has(&n->pci.v, needs) || !get(r, &on, 1))
        return ERR;
    *mode[cmd] = on;
    return OK;
}

static bool read_table(struct reader *r, struct vnet_mac_table *t)
{
    uint8_t count[4];
    if (!get(r, count, 4))
        return false;
    uint32_t n = ld32(count);
    if (n > (r->len - r->at) / MAC)
        return false;
    t->overflow = n > VNET_MACS;
    t->n = t->overflow ? 0 : n;
    if (t->overflow)
        r->at += (size_t)n * MAC;
    return t->overflow || !n || get(r, t->mac, (size_t)n * MAC);
}

static enum ctrl_ack set_mac_tables(struct virtio_net *n, struct reader *r)
{
    struct vnet_mac_table uni, multi;
    if (!virtio_has(&n->pci.v, BIT(VNET_F_CTRL_RX)) || !read_table(r, &uni) || !read_table(r, &multi))
        return ERR;
    n->filter.uni = uni;
    n->filter.multi = multi;
    return OK;
}

static enum ctrl_ack set_mac(struct virtio_net *n, struct reader *r)
{
    struct virtio *v = &n->pci.v;
    uint8_t mac[MAC];
    if (!virtio_has(v, BIT(VNET_F_CTRL_MAC_ADDR)) || r->len - r->at != MAC || !get(r, mac, MAC))
        return ERR;
    memcpy(n->filter.mac, mac, MAC);
    pthread_mutex_lock(&v->lock);
    memcpy(v->config + VNET_C_MAC, mac, MAC);
    pthread_mutex_unlock(&v->lock);
    return OK;
}

static enum ctrl_ack set_vlan(struct virtio_net *n, unsigned cmd, struct reader *r)
{
    uint8_t word[2];
    if (cmd > 1 || !virtio_has(&n->pci.v, BIT(VNET_F_CTRL_VLAN)) || !get(r, word, 2) || ld16(word) >= 4096)
        return ERR;
    uint64_t *at = &n->filter.vlan[ld16(word) / 64], bit = BIT(ld16(word) % 64);
    *at = cmd ? *at & ~bit : *at | bit;
    return OK;
}

static enum ctrl_ack announced(struct virtio_net *n, unsigned cmd)
{
    struct virtio *v = &n->pci.v;
    if (cmd || !virtio_has(v, BIT(VNET_F_GUEST_ANNOUNCE)))
        return ERR;
    pthread_mutex_lock(&v->lock);
    st16(v->config + VNET_C_STATUS, VNET_S_LINK_UP);
    pthread_mutex_unlock(&v->lock);
    return OK;
}

/* 5.1.6.5.5 "Device operation in multiqueue mode". */
static enum ctrl_ack set_pairs(struct virtio_net *n, unsigned cmd, struct reader *r)
{
    uint8_t word[2];
    if (cmd || !virtio_has(&n->pci.v, BIT(VNET_F_MQ)) || !get(r, word, 2) || !ld16(word) || ld16(word) > n->pairs)
        return ERR;
    n->active = ld16(word);
    return OK;
}

/* 5.1.6.5.7 "Offloads State Configuration": only what was negotiated can be switched. */
static enum ctrl_ack set_offloads(struct virtio_net *n, unsigned cmd, struct reader *r)
{
    const uint64_t known =
        BIT(VNET_F_GUEST_CSUM) | BIT(VNET_F_GUEST_TSO4) | BIT(VNET_F_GUEST_TSO6) | BIT(VNET_F_GUEST_ECN);
    uint8_t word[8];
    if (cmd || !virtio_has(&n->pci.v, BIT(VNET_F_CTRL_GUEST_OFFLOADS)) || !get(r, word, 8))
        return ERR;
    uint64_t want = ld64(word);
    if (want & ~(n->pci.v.features & known))
        return ERR;
    n->offloads = (want & BIT(VNET_F_GUEST_CSUM) ? NET_CSUM : 0u) | (want & BIT(VNET_F_GUEST_TSO4) ? NET_TSO4 : 0u) |
                  (want & BIT(VNET_F_GUEST_TSO6) ? NET_TSO6 : 0u) | (want & BIT(VNET_F_GUEST_ECN) ? NET_ECN : 0u);
    vnet_plug(n);
    return OK;
}

static enum ctrl_ack command(struct virtio_net *n, unsigned class, unsigned cmd, struct reader *r)
{
    switch (class) {
    case C_RX:
        return set_rx_mode(n, cmd, r);
    case C_MAC:
        return cmd == 0 ? set_mac_tables(n, r) : cmd == 1 ? set_mac(n, r) : ERR;
    case C_VLAN:
        return set_vlan(n, cmd, r);
    case C_ANNOUNCE:
        return announced(n, cmd);
    case C_MQ:
        return set_pairs(n, cmd, r);
    case C_GUEST_OFFLOADS:
        return set_offloads(n, cmd, r);
    default:
        return ERR;
    }
}

/* 5.1.6.5: class and command, data; and one byte for the answer. False: there is no place for it. */
static bool execute(struct virtio_net *n, struct virtq *q, const struct virtq_chain *c)
{
    struct reader r = {.iov = n->iov, .n = c->outs, .len = c->out_len};
    uint8_t head[HEAD] = {0}, ack = ERR;
    if (!c->in_len) {
        virtq_push(q, c, NULL, 0);
        virtio_broken(&n->pci.v, q, "control command without room for the answer", c->out_len);
        return false;
    }
    if (get(&r, head, HEAD))
        ack = command(n, head[0], head[1], &r);
    trace(n->pci.v.trace, TRACE_DEV, "virtio-net-pci: control class %u command %u, %llu bytes: %s", head[0], head[1],
          (unsigned long long)c->out_len, ack == OK ? "done" : "refused");
    virtq_copy_to(n->iov + c->outs, c->ins, 0, &ack, 1);
    virtq_push(q, c, n->iov + c->outs, 1);
    return true;
}

void vnet_serve_control(struct virtio_net *n, struct virtq *q)
{
    struct virtq_chain c;
    unsigned done = 0;
    do {
        virtq_disarm(q);
        while (done < COMMANDS && virtq_pop(q, &c, n->iov, VIRTQ_SIZE_MAX) && execute(n, q, &c))
            done++;
        if (done == COMMANDS) {
            ioloop_ring(n->pci.v.loop, &q->bell);
            break;
        }
    } while (virtq_arm(q));
    virtq_flush(q);
}
