/* Receiving. 82574, 7.1 "Packet Reception". */
#include "base/clock.h"
#include "dev/e1000e_priv.h"
#include "dev/net_frame.h"
#include "dev/net_gso.h"

#define DESC_LEN      16u
#define SPLIT_LEN     32u /* a packet-split descriptor */
#define SPLIT_BUFFERS 4u
#define CRC_LEN       4u
#define ETH_HEAD      14u
#define ETH_MIN       60u               /* the wire carries no shorter one: a sender pads */
#define SHORT_MAX     (1522u - CRC_LEN) /* the longest frame without RCTL.LPE, a VLAN tag included */
#define PATIENCE      (NS_PER_SEC / 2)  /* for a frame that finds some descriptors, but too few */
#define TYPE_IPV4     0x0800u
#define TYPE_IPV6     0x86ddu

/* 7.1.4 "Legacy Receive Descriptor Format", 7.1.5 "Extended Rx Descriptor": status and errors, in the extended
 * descriptor's places. A legacy one has the errors at 47:40 of its second half. */
enum rx_status {
    RX_DD = 1u << 0,
    RX_EOP = 1u << 1,
    RX_IXSM = 1u << 2,
    RX_VP = 1u << 3,
    RX_UDPCS = 1u << 4,
    RX_TCPCS = 1u << 5,
    RX_IPCS = 1u << 6,
    RX_TCPE = 1u << 29,
    RX_IPE = 1u << 30
};
#define RX_ERRORS_LEGACY(s) ((s) >> 24)

enum rx_format { RX_LEGACY, RX_EXTENDED, RX_SPLIT };
enum { RFCTL_EXTEN = 1u << 15, RFCTL_IPV6_OFF = 1u << 10, RFCTL_IPV6_XSUM_OFF = 1u << 11 };
enum { RXCSUM_IPOFL = 1u << 8, RXCSUM_TUOFL = 1u << 9 };

/* ---- filters. 7.1.1 "Packet Address Filtering" ---- */

static bool exact(struct e1000e *n, const uint8_t *dest)
{
    for (unsigned i = 0; i < 16; i++) {
        uint32_t low = e1k_get(n, R_RA + 8 * i), high = e1k_get(n, R_RA + 8 * i + 4);
        if (high >> 31 && low == ld32(dest) && (uint16_t)high == ld16(dest + 4))
            return true;
    }
    return false;
}

static bool hashed(struct e1000e *n, const uint8_t *dest, uint32_t rctl)
{
    static const uint8_t shift[] = {4, 3, 2, 0};
    unsigned hash = ld16(dest + 4) >> shift[rctl >> RCTL_MO_SHIFT & 3] & 0xfff;
    return e1k_get(n, R_MTA + hash / 32 * 4) >> hash % 32 & 1;
}

static bool is_broadcast(const uint8_t *dest)
{
    return ld32(dest) == UINT32_MAX && ld16(dest + 4) == UINT16_MAX;
}

static bool address_passes(struct e1000e *n, const uint8_t *dest, uint32_t rctl)
{
    if (is_broadcast(dest) && rctl & RCTL_BAM)
        return true;
    if (rctl & (dest[0] & 1 ? RCTL_MPE : RCTL_UPE))
        return true;
    return exact(n, dest) || (dest[0] & 1 && hashed(n, dest, rctl));
}

static bool is_tagged(struct e1000e *n, const uint8_t *head)
{
    return get16be(head + 12) == (uint16_t)e1k_get(n, R_VET);
}

static bool vlan_passes(struct e1000e *n, const uint8_t *head, uint32_t rctl)
{
    unsigned id = get16be(head + 14) & 0xfff;
    return !(rctl & RCTL_VFE) || !is_tagged(n, head) || e1k_get(n, R_VFTA + id / 32 * 4) >> id % 32 & 1;
}

/* A frame on its way into descriptors. The first piece is `head`. */
struct arriving {
    uint8_t head[NET_HEAD_MAX];
    size_t have, len; /* bytes of the head, and of the frame without its CRC as the wire had it */
    uint32_t crc;
    struct iovec iov[NET_IOVS + 3]; /* what is left to store: the head, up to NET_IOVS + 1 pieces, the CRC */
    unsigned at, iovs;
    size_t left; /* bytes */
    uint32_t status;
    uint16_t tag;
};

/* ---- checksums. 7.1.10 "Receive Packet Checksum Offloading" ---- */

struct l4 {
    size_t at, len; /* TCP or UDP, in the frame */
    uint8_t proto;
    uint64_t pseudo; /* sum of the addresses */
};

/* False: nothing this card looks into. Only headers within `have` bytes are read. */
static bool find_ipv4(const uint8_t *ip, size_t have, size_t room, struct l4 *l, uint32_t *status, uint32_t rxcsum)
{
    size_t head = (ip[0] & 15u) * 4, total = get16be(ip + 2);
    if (have < 20 || ip[0] >> 4 != 4 || head < 20 || head > have || total < head || total > room)
        return false;
    if (rxcsum & RXCSUM_IPOFL) {
        *status |= RX_IPCS;
        *status |= net_sum(ip, head) == 0xffff ? 0 : RX_IPE;
    }
    *l = (struct l4){.at = head, .len = total - head, .proto = ip[9], .pseudo = net_sum(ip + 12, 8)};
    return !(get16be(ip + 6) & 0x3fff); /* no fragment */
}

static bool find_ipv6(const uint8_t *ip, size_t have, size_t room, struct l4 *l)
{
    if (have < 40 || ip[0] >> 4 != 6 || 40u + get16be(ip + 4) > room)
        return false;
    *l = (struct l4){.at = 40, .len = get16be(ip + 4), .proto = ip[6], .pseudo = net_sum(ip + 8, 32)};
    return true;
}

static void check_l4(const struct arriving *a, size_t at, const struct l4 *l, uint32_t *status)
{
    uint8_t tail[4] = {0, l->proto, (uint8_t)(l->len >> 8), (uint8_t)l->len};
    bool udp = l->proto == 17;
    if ((!udp && l->proto != 6) || l->len < (udp ? 8u : 20u))
        return;
    if (udp && at + 8 <= a->have && !ld16(a->head + at + 6))
        return; /* the sender made none */
    uint64_t sum = l->pseudo + net_sum(tail, 4) + net_sum_iov(a->iov, a->iovs, at, l->len);
    *status |= RX_TCPCS | (udp ? RX_UDPCS : 0) | (net_fold(sum) == 0xffff ? 0 : RX_TCPE);
}

static uint32_t checksum_status(struct e1000e *n, const struct arriving *a)
{
    uint32_t rxcsum = e1k_get(n, R_RXCSUM), status = 0;
    unsigned l3 = is_tagged(n, a->head) ? ETH_HEAD + 4 : ETH_HEAD, type = get16be(a->head + l3 - 2);
    bool v6 = type == TYPE_IPV6 && !(e1k_get(n, R_RFCTL) & (RFCTL_IPV6_OFF | RFCTL_IPV6_XSUM_OFF));
    const uint8_t *ip = a->head + l3;
    size_t have = a->have - l3, room = a->len - l3;
    struct l4 l;
    if (!(rxcsum & (RXCSUM_IPOFL | RXCSUM_TUOFL)))
        return RX_IXSM;
    bool found =
        type == TYPE_IPV4 ? find_ipv4(ip, have, room, &l, &status, rxcsum) : v6 && find_ipv6(ip, have, room, &l);
    if (found && rxcsum & RXCSUM_TUOFL)
        check_l4(a, l3 + l.at, &l, &status);
    return status ? status : RX_IXSM;
}

/* ---- the ring ---- */

struct ring {
    uint64_t base;
    uint32_t n, head, tail, desc_len;
    enum rx_format format;
    uint32_t room[SPLIT_BUFFERS]; /* bytes of a descriptor's buffers; one but for RX_SPLIT */
    uint64_t total;               /* of all of them */
};

static uint32_t plain_buffer(uint32_t rctl)
{
    uint32_t flex = rctl >> RCTL_FLXBUF_SHIFT & 0xf, size = 2048u >> (rctl >> RCTL_BSIZE_SHIFT & 3);
    if (flex)
        return flex * 1024;
    return rctl & RCTL_BSEX ? size * 16 : size;
}

/* 10.2.5.2 "Packet Split Receive Control Register". */
static void split_buffers(struct e1000e *n, struct ring *r)
{
    uint32_t v = e1k_get(n, R_PSRCTL);
    r->room[0] = (v & 0x7f) * 128;
    r->room[1] = (v >> 8 & 0x3f) * 1024;
    r->room[2] = (v >> 16 & 0x3f) * 1024;
    r->room[3] = (v >> 24 & 0x3f) * 1024;
}

static bool ring_sane(const struct ring *r)
{
    return r->head < r->n && r->tail < r->n && r->total;
}

static bool open_ring(struct e1000e *n, struct ring *r)
{
    uint32_t rctl = e1k_get(n, R_RCTL);
    *r = (struct ring){.base = e1k_get64(n, R_RDBAL), .head = e1k_get(n, R_RDH), .tail = e1k_get(n, R_RDT)};
    r->format = rctl & RCTL_DTYP_SPLIT ? RX_SPLIT : e1k_get(n, R_RFCTL) & RFCTL_EXTEN ? RX_EXTENDED : RX_LEGACY;
    r->desc_len = r->format == RX_SPLIT ? SPLIT_LEN : DESC_LEN;
    r->n = e1k_get(n, R_RDLEN) / r->desc_len;
    if (r->format == RX_SPLIT)
        split_buffers(n, r);
    else
        r->room[0] = plain_buffer(rctl);
    for (unsigned i = 0; i < SPLIT_BUFFERS; i++)
        r->total += r->room[i];
    return ring_sane(r);
}

static uint32_t free_descriptors(const struct ring *r)
{
    return r->tail >= r->head ? r->tail - r->head : r->n - r->head + r->tail;
}

/* ---- one frame ---- */

static uint32_t descriptors(const struct ring *r, const struct arriving *a)
{
    return (uint32_t)((a->left + r->total - 1) / r->total);
}

/* The next bytes of the frame to guest memory; a blocked buffer, or one whose descriptor could not be read (`known`
 * is false), loses them, as the bus would. */
static void store(struct e1000e *n, struct arriving *a, bool known, uint64_t addr, size_t len)
{
    while (len && a->at < a->iovs) {
        struct iovec *v = &a->iov[a->at];
        size_t part = min_u64(len, v->iov_len);
        if (known)
            pci_dma_write(&n->func, addr, v->iov_base, part);
        v->iov_base = (uint8_t *)v->iov_base + part;
        v->iov_len -= part;
        a->at += !v->iov_len;
        addr += part;
        len -= part;
        a->left -= part;
    }
}

/* DD is in the last quadword that is written. */
static void write_plain(struct e1000e *n, const struct ring *r, uint64_t at, const struct arriving *a, uint64_t part,
                        uint32_t status)
{
    uint64_t zero = 0, last;
    if (r->format == RX_EXTENDED) {
        last = status | part << 32 | (uint64_t)a->tag << 48;
        pci_dma_write(&n->func, at, &zero, 8);
    } else {
        last = part | (uint64_t)(status & 0xff) << 32 | (uint64_t)(RX_ERRORS_LEGACY(status) & 0xff) << 40 |
               (uint64_t)a->tag << 48;
    }
    pci_dma_write(&n->func, at + 8, &last, 8);
}

static void plain_descriptor(struct e1000e *n, const struct ring *r, uint64_t at, struct arriving *a)
{
    uint64_t addr = 0, part = min_u64(a->left, r->room[0]);
    bool known = pci_dma_read(&n->func, at, &addr, 8);
    store(n, a, known, addr, part);
    write_plain(n, r, at, a, part, RX_DD | (a->left ? 0 : RX_EOP | a->status));
}

/* 7.1.6 "Packet Split Receive Descriptor": this card splits no headers, it fills one buffer after the other. */
static void split_descriptor(struct e1000e *n, const struct ring *r, uint64_t at, struct arriving *a)
{
    uint64_t addr[SPLIT_BUFFERS] = {0}, part[SPLIT_BUFFERS], word[4];
    bool known = pci_dma_read(&n->func, at, addr, sizeof addr);
    for (unsigned i = 0; i < SPLIT_BUFFERS; i++) {
        part[i] = min_u64(a->left, r->room[i]);
        store(n, a, known, addr[i], part[i]);
    }
    word[0] = 0;
    word[1] = (RX_DD | (a->left ? 0 : RX_EOP | a->status)) | part[0] << 32 | (uint64_t)a->tag << 48;
    word[2] = part[1] << 16 | part[2] << 32 | part[3] << 48;
    word[3] = 0;
    pci_dma_write(&n->func, at + 16, &word[2], 16);
    pci_dma_write(&n->func, at, &word[0], 8);
    pci_dma_write(&n->func, at + 8, &word[1], 8);
}

static void fill(struct e1000e *n, struct ring *r, struct arriving *a)
{
    do {
        uint64_t at = r->base + (uint64_t)r->head * r->desc_len;
        if (r->format == RX_SPLIT)
            split_descriptor(n, r, at, a);
        else
            plain_descriptor(n, r, at, a);
        r->head = (r->head + 1) % r->n;
    } while (a->left && r->head != r->tail);
    e1k_set(n, R_RDH, r->head);
}

/* Ethernet's CRC, for guests that want to see it. IEEE 802.3, 3.2.9 "Frame Check Sequence (FCS) field". */
static uint32_t crc_of(const struct iovec *iov, unsigned iovs)
{
    uint32_t crc = UINT32_MAX;
    for (unsigned i = 0; i < iovs; i++)
        for (size_t b = 0; b < iov[i].iov_len; b++) {
            crc ^= ((const uint8_t *)iov[i].iov_base)[b];
            for (unsigned k = 0; k < 8; k++)
                crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        }
    return ~crc;
}

/* The tag goes to the descriptor if the guest wants that. 7.5.3 "802.1q VLAN Packet Stripping". */
static void strip_tag(struct arriving *a)
{
    a->tag = get16be(a->head + 14);
    a->status |= RX_VP;
    memmove(a->head + 12, a->head + 16, a->have - 16);
    a->iov[0].iov_len -= 4;
}

/* The head in a copy that may be edited, padded to what a wire carries; then the rest. */
static void begin(struct arriving *a, const struct iovec *frame, unsigned iovs)
{
    *a = (struct arriving){.len = max_u64(net_iov_len(frame, iovs), ETH_MIN)};
    a->have = max_u64(net_gather(frame, iovs, a->head, NET_HEAD_MAX), ETH_MIN);
    a->iov[0] = (struct iovec){a->head, a->have};
    a->iovs = 1 + net_iov_skip(frame, iovs, NET_HEAD_MAX, a->iov + 1);
}

/* What the guest is to see of the frame: its CRC if it wants that, the tag in it or beside it. */
static void dress(struct e1000e *n, struct arriving *a)
{
    a->status = checksum_status(n, a);
    if (!(e1k_get(n, R_RCTL) & RCTL_SECRC)) {
        a->crc = crc_of(a->iov, a->iovs);
        a->iov[a->iovs++] = (struct iovec){&a->crc, CRC_LEN};
    }
    if (is_tagged(n, a->head) && e1k_get(n, R_CTRL) & CTRL_VME)
        strip_tag(a);
    a->left = net_iov_len(a->iov, a->iovs);
}

static void count_received(struct e1000e *n, const struct arriving *a)
{
    e1k_count(n, R_TPR, 1);
    e1k_count(n, R_GPRC, 1);
    e1k_count64(n, R_TORL, (uint32_t)a->len + CRC_LEN);
    e1k_count64(n, R_GORCL, (uint32_t)a->len + CRC_LEN);
    if (a->head[0] & 1)
        e1k_count(n, is_broadcast(a->head) ? R_BPRC : R_MPRC, 1);
}

/* The guest may have added descriptors, or made another ring, while it was not asked to tell: look again once it is. */
static bool wait_for_room(struct e1000e *n, struct ring *r, const struct arriving *a)
{
    if (!atomic_exchange(&n->starved, true)) {
        e1k_count(n, R_RNBC, 1);
        e1k_raise_queue(n, C_RXDMT0 | C_RXQ0);
    }
    atomic_thread_fence(memory_order_seq_cst); /* `starved` before the tail */
    if (!open_ring(n, r) || free_descriptors(r) < descriptors(r, a))
        return false;
    atomic_store(&n->starved, false);
    return true;
}

/* Some descriptors, but too few: a guest that adds more only when these were used will never tell of more. */
static bool loses_patience(struct e1000e *n, const struct ring *r)
{
    if (!ring_sane(r) || !free_descriptors(r))
        return false;
    if (!n->impatient) {
        ioloop_timer_arm(n->loop, &n->patience, clock_host_ns() + PATIENCE);
        return false;
    }
    n->impatient = false;
    atomic_store(&n->starved, false);
    net_lost(n->net);
    return true;
}

void e1k_patience_ends(void *opaque)
{
    struct e1000e *n = opaque;
    e1k_enter(n);
    n->impatient = atomic_exchange(&n->starved, false);
    if (n->impatient)
        net_resume(n->net);
    n->impatient = false;
    e1k_leave(n);
}

/* Frames that come together share an interrupt. */
static void gather_causes(struct e1000e *n, uint32_t causes)
{
    n->gathered |= causes;
    ioloop_ring(n->loop, &n->finish);
}

void e1k_finish(void *opaque)
{
    struct e1000e *n = opaque;
    e1k_enter(n);
    uint32_t causes = n->gathered;
    n->gathered = 0;
    if (causes)
        e1k_raise_queue(n, causes);
    e1k_leave(n);
}

/* 10.2.5.1 "Receive Control Register", RDMTS: a half, a quarter or an eighth of the ring is left. */
static bool runs_low(struct e1000e *n, const struct ring *r, uint32_t before)
{
    uint32_t least = r->n >> (1 + (e1k_get(n, R_RCTL) >> RCTL_RDMTS_SHIFT & 3));
    return before > least && free_descriptors(r) <= least;
}

/* Into as many descriptors as it takes. False: there are too few. */
static bool deliver(struct e1000e *n, struct ring *r, struct arriving *a)
{
    while (descriptors(r, a) < r->n && free_descriptors(r) < descriptors(r, a))
        if (!wait_for_room(n, r, a))
            return loses_patience(n, r);
    if (descriptors(r, a) >= r->n) { /* never */
        net_lost(n->net);
        return true;
    }
    uint32_t before = free_descriptors(r);
    fill(n, r, a);
    count_received(n, a);
    gather_causes(n, C_RXT0 | C_RXQ0 | (runs_low(n, r, before) ? C_RXDMT0 : 0));
    return true;
}

static bool passes(struct e1000e *n, const struct arriving *a)
{
    uint32_t rctl = e1k_get(n, R_RCTL);
    if (!address_passes(n, a->head, rctl) || !vlan_passes(n, a->head, rctl))
        return false;
    if (a->len <= SHORT_MAX || rctl & RCTL_LPE)
        return true;
    e1k_count(n, R_ROC, 1);
    return false;
}

static bool receive(struct e1000e *n, const struct iovec *frame, unsigned iovs)
{
    struct arriving a;
    struct ring r;
    if (!e1k_may_dma(n) || !(e1k_get(n, R_RCTL) & RCTL_EN) || iovs > NET_IOVS + 1 ||
        net_iov_len(frame, iovs) < ETH_HEAD || !open_ring(n, &r)) {
        net_lost(n->net);
        return true;
    }
    begin(&a, frame, iovs);
    if (!passes(n, &a))
        return true;
    dress(n, &a);
    return deliver(n, &r, &a);
}

bool e1k_receive(void *opaque, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs)
{
    struct e1000e *n = opaque;
    e1k_enter(n);
    bool taken = receive(n, frame, iovs);
    e1k_leave(n);
    return taken;
}

void e1k_refill(void *opaque)
{
    struct e1000e *n = opaque;
    e1k_enter(n);
    if (atomic_exchange(&n->starved, false))
        net_resume(n->net);
    e1k_leave(n);
}
