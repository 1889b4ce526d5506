#include "dev/virtio_net_priv.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>

#define CLASS_CODE  0x020000u
#define TX_BUDGET   256u /* chains before others on the loop get their turn */
#define PATIENCE    (NS_PER_SEC / 2)
#define FLUSH_EVERY 64u /* chains that the driver may wait for together */
#define HEAD_BYTES  62u /* Ethernet, VLAN, IPv6, ports */

enum { ETH_TYPE = 12, TYPE_IPV4 = 0x0800, TYPE_IPV6 = 0x86dd, TYPE_VLAN = 0x8100, PROTO_TCP = 6, PROTO_UDP = 17 };

/* ---- which pair a flow belongs to ---- */

/* The same for both directions. */
static uint32_t flow_hash(const uint8_t *head, size_t len)
{
    unsigned at = ETH_TYPE + 2, type = get16be(head + ETH_TYPE);
    if (type == TYPE_VLAN && len >= 18) {
        type = get16be(head + 16);
        at = 18;
    }
    uint32_t h = 0;
    unsigned proto = 0, l4 = 0;
    if (type == TYPE_IPV4 && len >= at + 20) {
        h = ld32(head + at + 12) ^ ld32(head + at + 16);
        proto = ld16(head + at + 6) & 0xff3f ? 0 : head[at + 9]; /* fragments have no ports */
        l4 = at + (head[at] & 15u) * 4;
    } else if (type == TYPE_IPV6 && len >= at + 40) {
        for (unsigned i = 8; i < 40; i += 4)
            h ^= ld32(head + at + i);
        proto = head[at + 6];
        l4 = at + 40;
    }
    if ((proto == PROTO_TCP || proto == PROTO_UDP) && l4 + 4 <= len)
        h ^= (uint32_t)(ld16(head + l4) ^ ld16(head + l4 + 2)) * 0x10001u;
    return h * 0x9e3779b1u;
}

static uint16_t *flow_slot(struct virtio_net *n, const struct iovec *frame, unsigned iovs, uint32_t *hash)
{
    uint8_t head[HEAD_BYTES];
    size_t len = net_gather(frame, iovs, head, sizeof head);
    *hash = len >= 14 ? flow_hash(head, len) : 0;
    return &n->flow[*hash >> 20];
}

_Static_assert(VNET_FLOWS == 1u << 12, "the hash's upper 12 bits");

static void remember_flow(struct virtio_net *n, unsigned pair, const struct iovec *frame, unsigned iovs)
{
    uint32_t hash;
    *flow_slot(n, frame, iovs, &hash) = (uint16_t)(pair + 1);
}

static unsigned steer(struct virtio_net *n, const struct iovec *frame, unsigned iovs)
{
    uint32_t hash;
    if (n->active == 1)
        return 0;
    unsigned pair = *flow_slot(n, frame, iovs, &hash);
    return pair && pair <= n->active ? pair - 1 : (unsigned)((uint64_t)hash * n->active >> 32);
}

/* ---- from the guest ---- */

/* 5.1.6.2 "Packet Transmission". The header may share a buffer with the frame, or be in several. */
static void transmit(struct virtio_net *n, unsigned pair, const struct virtq_chain *c)
{
    struct net_hdr hdr;
    struct iovec *frame = n->iov;
    unsigned iovs = c->outs, skip = VNET_HDR;
    if (c->out_len <= VNET_HDR) {
        net_lost(n->net);
        return;
    }
    virtq_copy_from(frame, iovs, 0, &hdr, sizeof hdr);
    for (; frame->iov_len <= skip; frame++, iovs--)
        skip -= (unsigned)frame->iov_len;
    *frame = (struct iovec){(uint8_t *)frame->iov_base + skip, frame->iov_len - skip};
    if (n->active > 1)
        remember_flow(n, pair, frame, iovs);
    net_send(n->net, hdr.flags || hdr.gso_type ? &hdr : NULL, frame, iovs);
}

/* The frame was copied or is on its way when net_send() returns, so its chain goes back at once. */
static void serve_transmit(struct virtio_net *n, struct virtq *q)
{
    struct virtq_chain c;
    unsigned done = 0;
    do {
        virtq_disarm(q);
        while (done < TX_BUDGET && virtq_pop(q, &c, n->iov, VIRTQ_SIZE_MAX)) {
            transmit(n, q->index / 2, &c);
            virtq_push(q, &c, NULL, 0);
            if (++done % FLUSH_EVERY == 0)
                virtq_flush(q);
        }
        if (done == TX_BUDGET) {
            ioloop_ring(n->pci.v.loop, &q->bell);
            break;
        }
    } while (virtq_arm(q));
    net_flush(n->net);
    virtq_flush(q);
}

/* ---- to the guest ---- */

static void finish(void *opaque)
{
    struct virtio_net *n = opaque;
    for (unsigned i = 0; i < n->dirties; i++) {
        n->is_dirty[n->dirty[i]] = false;
        virtq_flush(&n->pci.v.q[2 * n->dirty[i]]);
    }
    n->dirties = 0;
}

/* Frames that come together share an interrupt. */
static void mark_dirty(struct virtio_net *n, unsigned pair)
{
    if (n->is_dirty[pair])
        return;
    n->is_dirty[pair] = true;
    n->dirty[n->dirties++] = (uint16_t)pair;
    ioloop_ring(n->pci.v.loop, &n->finish);
}

/* Chains that were taken for one frame; their writable iovecs follow one another in n->in. */
struct taken {
    unsigned chains, iovs;
    uint64_t room;
    struct virtq_chain chain[VNET_CHAINS];
};

static bool take_one(struct virtio_net *n, struct virtq *q, struct taken *t)
{
    struct virtq_chain *c = &t->chain[t->chains];
    struct iovec *iov = n->in + t->iovs;
    if (!virtq_pop(q, c, iov, VIRTQ_SIZE_MAX))
        return false;
    if (c->outs)
        memmove(iov, iov + c->outs, c->ins * sizeof *iov);
    t->iovs += c->ins;
    t->room += c->in_len;
    t->chains++;
    return true;
}

enum room { ROOM, NO_ROOM, NEVER };

/* Some buffers, but too few: if the ring can hold no more, the driver will never tell of more. */
static void wait_a_while(struct virtio_net *n)
{
    if (!n->starved)
        ioloop_timer_arm(n->pci.v.loop, &n->patience, clock_host_ns() + PATIENCE);
}

static void patience_ends(void *opaque)
{
    struct virtio_net *n = opaque;
    if (!n->starved)
        return;
    n->impatient = true;
    n->starved = false;
    net_resume(n->net);
    n->impatient = false;
}

static void put_back(struct virtq *q, struct taken *t)
{
    while (t->chains)
        virtq_unpop(q, &t->chain[--t->chains]);
}

/* Room for `need` bytes. If there is too little, the driver is asked to tell of more before what is there is put back:
 * what it told of already it will not tell of again. */
static enum room take_room(struct virtio_net *n, struct virtq *q, size_t need, struct taken *t)
{
    unsigned most = n->merge ? VNET_CHAINS : 1;
    t->chains = t->iovs = 0;
    t->room = 0;
    do {
        while (t->room < need && t->chains < most && t->iovs <= VIRTQ_SIZE_MAX && take_one(n, q, t))
            ;
        if (t->room >= need)
            return ROOM;
        if (t->chains == most || t->iovs > VIRTQ_SIZE_MAX) {
            put_back(q, t);
            return NEVER; /* buffers so small were not made for frames */
        }
    } while (virtq_arm(q));
    bool some = t->chains;
    put_back(q, t);
    bool lost = some && n->impatient;
    n->impatient &= !lost;
    if (!q->live || lost)
        return NEVER;
    if (some)
        wait_a_while(n);
    return NO_ROOM;
}

/* Where the next byte goes. */
struct place {
    struct iovec *iov;
    size_t at;
};

static void put(struct place *to, const void *bytes, size_t len)
{
    for (size_t done = 0; done < len;) {
        size_t part = min_u64(len - done, to->iov->iov_len - to->at);
        memcpy((uint8_t *)to->iov->iov_base + to->at, (const uint8_t *)bytes + done, part);
        done += part;
        to->at += part;
        if (to->at == to->iov->iov_len) {
            to->iov++;
            to->at = 0;
        }
    }
}

static void push_all(struct virtio_net *n, struct virtq *q, const struct taken *t, size_t len)
{
    const struct iovec *iov = n->in;
    for (unsigned i = 0; i < t->chains; i++) {
        uint32_t part = (uint32_t)min_u64(len, t->chain[i].in_len);
        virtq_push(q, &t->chain[i], iov, part);
        iov += t->chain[i].ins;
        len -= part;
    }
    mark_dirty(n, q->index / 2);
    if (q->unflushed >= FLUSH_EVERY)
        virtq_flush(q);
}

/* 5.1.6.4 "Processing of Incoming Packets": the header once, then the frame through all buffers. */
static void store(struct virtio_net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs,
                  const struct taken *t)
{
    uint8_t head[VNET_HDR] = {0};
    struct place to = {n->in, 0};
    if (hdr)
        memcpy(head, hdr, sizeof *hdr);
    st16(head + sizeof *hdr, (uint16_t)t->chains);
    put(&to, head, sizeof head);
    for (unsigned i = 0; i < iovs; i++)
        put(&to, frame[i].iov_base, frame[i].iov_len);
}

static enum room deliver(struct virtio_net *n, unsigned pair, const struct net_hdr *hdr, const struct iovec *frame,
                         unsigned iovs, size_t len)
{
    struct taken t;
    struct virtq *q = &n->pci.v.q[2 * pair];
    enum room r = q->live ? take_room(n, q, VNET_HDR + len, &t) : NEVER;
    if (r == ROOM) {
        store(n, hdr, frame, iovs, &t);
        push_all(n, q, &t, VNET_HDR + len);
    }
    return r;
}

/* A flow whose pair has no buffers goes by the first pair, so that one CPU that does not run holds up nobody else. */
static bool receive(void *opaque, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs)
{
    struct virtio_net *n = opaque;
    uint8_t head[18];
    size_t len = net_iov_len(frame, iovs);
    if (n->pci.v.broken || !pci_func_masters(&n->pci.func) || len < 14) {
        net_lost(n->net);
        return true;
    }
    if (!vnet_filter_passes(n, head, net_gather(frame, iovs, head, sizeof head)))
        return true;
    unsigned pair = steer(n, frame, iovs);
    enum room r = deliver(n, pair, hdr, frame, iovs, len);
    if (r == NO_ROOM && pair)
        r = deliver(n, 0, hdr, frame, iovs, len);
    if (r == NEVER)
        net_lost(n->net);
    n->starved |= r == NO_ROOM;
    return r != NO_ROOM;
}

/* The driver has put buffers in, and was asked to tell only if that mattered. */
static void serve_receive(struct virtio_net *n, struct virtq *q)
{
    virtq_disarm(q);
    if (!n->starved)
        return;
    n->starved = false;
    net_resume(n->net);
}

/* ---- state ---- */

/* 5.1.2 "Virtqueues": without VNET_F_MQ the control queue is the third, whatever the device has. */
static unsigned control_index(const struct virtio_net *n)
{
    return virtio_has(&n->pci.v, BIT(VNET_F_MQ)) ? 2u * n->pairs : 2;
}

static void serve(struct virtio *v, struct virtq *q)
{
    struct virtio_net *n = vnet_of(v);
    if (virtio_has(v, BIT(VNET_F_CTRL_VQ)) && q->index == control_index(n))
        vnet_serve_control(n, q);
    else if (q->index & 1)
        serve_transmit(n, q);
    else
        serve_receive(n, q);
}

static void moved(void *opaque)
{
    virtio_net_announce(opaque);
}

void vnet_plug(struct virtio_net *n)
{
    struct net_peer p = {.receive = receive, .moved = moved, .opaque = n, .offloads = n->offloads};
    net_set_peer(n->net, &p);
}

static void start(struct virtio *v)
{
    struct virtio_net *n = vnet_of(v);
    static const struct {
        unsigned feature, offload;
    } map[] = {{VNET_F_GUEST_CSUM, NET_CSUM},
               {VNET_F_GUEST_TSO4, NET_TSO4},
               {VNET_F_GUEST_TSO6, NET_TSO6},
               {VNET_F_GUEST_ECN, NET_ECN}};
    n->active = 1;
    n->merge = virtio_has(v, BIT(VNET_F_MRG_RXBUF));
    n->starved = n->impatient = false;
    n->offloads = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(map); i++)
        n->offloads |= virtio_has(v, BIT(map[i].feature)) ? map[i].offload : 0;
    memset(n->flow, 0, sizeof n->flow);
    vnet_filter_reset(n);
    vnet_plug(n);
}

/* The address that a driver has set is gone with it. */
static bool stop(struct virtio *v)
{
    struct virtio_net *n = vnet_of(v);
    net_set_peer(n->net, NULL);
    ioloop_timer_cancel(v->loop, &n->patience);
    pthread_mutex_lock(&v->lock);
    memcpy(v->config + VNET_C_MAC, n->mac, sizeof n->mac);
    st16(v->config + VNET_C_STATUS, VNET_S_LINK_UP);
    pthread_mutex_unlock(&v->lock);
    return true;
}

static const struct virtio_ops ops = {.serve = serve, .start = start, .stop = stop};

void virtio_net_announce(struct virtio_net *n)
{
    struct virtio *v = &n->pci.v;
    uint8_t status[2];
    st16(status, VNET_S_LINK_UP | VNET_S_ANNOUNCE);
    pthread_mutex_lock(&v->lock);
    bool may = v->started && v->accepted & BIT(VNET_F_GUEST_ANNOUNCE);
    pthread_mutex_unlock(&v->lock);
    if (may)
        virtio_config_set(v, VNET_C_STATUS, status, sizeof status);
}

/* ---- lifecycle ---- */

static uint64_t features(const struct virtio_net *n)
{
    uint64_t f = BIT(VNET_F_CTRL_GUEST_OFFLOADS) | BIT(VNET_F_MAC) | BIT(VNET_F_MRG_RXBUF) | BIT(VNET_F_STATUS) |
                 BIT(VNET_F_CTRL_VQ) | BIT(VNET_F_CTRL_RX) | BIT(VNET_F_CTRL_VLAN) | BIT(VNET_F_CTRL_RX_EXTRA) |
                 BIT(VNET_F_GUEST_ANNOUNCE) | BIT(VNET_F_CTRL_MAC_ADDR);
    unsigned o = net_offloads(n->net);
    f |= o & NET_CSUM ? BIT(VNET_F_CSUM) | BIT(VNET_F_GUEST_CSUM) : 0;
    f |= o & NET_TSO4 ? BIT(VNET_F_HOST_TSO4) | BIT(VNET_F_GUEST_TSO4) : 0;
    f |= o & NET_TSO6 ? BIT(VNET_F_HOST_TSO6) | BIT(VNET_F_GUEST_TSO6) : 0;
    f |= o & NET_ECN ? BIT(VNET_F_HOST_ECN) | BIT(VNET_F_GUEST_ECN) : 0;
    return f | (n->pairs > 1 ? BIT(VNET_F_MQ) : 0);
}

static int init_pci(struct virtio_net *n, const struct virtio_net_config *c, struct err *e)
{
    uint8_t config[VNET_C_LEN];
    memcpy(config + VNET_C_MAC, c->mac, sizeof c->mac);
    st16(config + VNET_C_STATUS, VNET_S_LINK_UP);
    st16(config + VNET_C_PAIRS, n->pairs);
    const struct virtio_pci_setup s = {.host = c->host,
                                       .bus = c->bus,
                                       .devfn = c->devfn,
                                       .loop = net_loop(n->net),
                                       .ops = &ops,
                                       .options = c->options,
                                       .name = "virtio-net-pci",
                                       .type = VIRTIO_NET,
                                       .class_code = CLASS_CODE,
                                       .features = features(n),
                                       .queues = (uint16_t)(2 * n->pairs + 1),
                                       .queue_size = c->queue_size ? c->queue_size : VIRTIO_NET_QUEUE_SIZE,
                                       .config = config,
                                       .config_len = VNET_C_LEN};
    return virtio_pci_init(&n->pci, &s, e);
}

static void free_memory(struct virtio_net *n)
{
    free(n->dirty);
    free(n->is_dirty);
    free(n);
}

int virtio_net_create(const struct virtio_net_config *c, struct virtio_net **out, struct err *e)
{
    if (c->queue_pairs > VIRTIO_NET_PAIRS_MAX)
        return err_set(e, -EINVAL, "virtio-net-pci: %u queue pairs: there can be %u", c->queue_pairs,
                       VIRTIO_NET_PAIRS_MAX);
    struct virtio_net *n = calloc(1, sizeof *n);
    if (!n)
        return err_set(e, -ENOMEM, "virtio-net-pci: no memory");
    n->net = c->net;
    n->pairs = c->queue_pairs ? c->queue_pairs : 1;
    n->active = 1;
    memcpy(n->mac, c->mac, sizeof n->mac);
    n->dirty = calloc(n->pairs, sizeof *n->dirty);
    n->is_dirty = calloc(n->pairs, sizeof *n->is_dirty);
    ioloop_bell_init(&n->finish, finish, n);
    ioloop_timer_init(&n->patience, patience_ends, n);
    int rc = n->dirty && n->is_dirty ? init_pci(n, c, e)
                                     : err_set(e, -ENOMEM, "virtio-net-pci: no memory for %u queue pairs", n->pairs);
    if (rc) {
        free_memory(n);
        return rc;
    }
    *out = n;
    return 0;
}

void virtio_net_reset(struct virtio_net *n)
{
    virtio_pci_reset(&n->pci);
}

static void leave_loop(void *opaque)
{
    struct virtio_net *n = opaque;
    net_set_peer(n->net, NULL);
    ioloop_bell_remove(n->pci.v.loop, &n->finish);
}

void virtio_net_destroy(struct virtio_net *n)
{
    if (!n)
        return;
    virtio_pci_reset(&n->pci);
    ioloop_call(n->pci.v.loop, leave_loop, n);
    virtio_pci_fini(&n->pci);
    free_memory(n);
}
