/* Sending. 82574, 7.2 "Packet Transmission". */
#include "dev/e1000e_priv.h"
#include "dev/net_frame.h"
#include "dev/net_gso.h"

#define DESC_LEN 16u
#define BATCH    16u /* descriptors read at a time */
#define BUDGET   256u
#define ETH_MIN  60u
#define ETH_HEAD 14u

/* Second quadword of a descriptor. 7.2.4 "Legacy Transmit Descriptor Format", 7.2.8 "TCP/IP Data Descriptor". */
#define D_EOP      (UINT64_C(1) << 24)
#define D_IC       (UINT64_C(1) << 26) /* legacy: insert a checksum; extended: TSE */
#define D_RS       (UINT64_C(1) << 27)
#define D_DEXT     (UINT64_C(1) << 29)
#define D_VLE      (UINT64_C(1) << 30)
#define D_DD       1u
#define D_TYPE(d)  bits((d), 23, 20)
#define D_IXSM     (UINT64_C(1) << 40)
#define D_TXSM     (UINT64_C(1) << 41)
#define TUCMD_TCP  1u
#define TUCMD_IPV4 2u
#define TCP_CSUM   16u

static const unsigned queue_cause[E1K_TX_QUEUES] = {C_TXQ0, C_TXQ1};

/* ---- a frame's head, as the descriptors want it ---- */

struct head {
    uint8_t bytes[NET_HEAD_MAX + 4];
    size_t len;   /* bytes that replace as many ... */
    size_t taken; /* ... of the frame */
};

static void insert_vlan(struct head *h, uint16_t type, uint16_t tag)
{
    memmove(h->bytes + 16, h->bytes + 12, h->len - 12);
    put16be(h->bytes + 12, type);
    put16be(h->bytes + 14, tag);
    h->len += 4;
}

/* The IPv4 header's checksum, over what the context says it is. */
static void insert_ip_sum(struct head *h, const struct e1k_context *c)
{
    size_t end = c->ipcse ? c->ipcse + 1u : c->tucss > c->ipcss ? c->tucss : h->len;
    if (c->ipcso + 2u > h->len || c->ipcss >= end || end > h->len)
        return;
    st16(h->bytes + c->ipcso, 0);
    st16(h->bytes + c->ipcso, (uint16_t)~net_sum(h->bytes + c->ipcss, end - c->ipcss));
}

/* A large frame's headers come without lengths; give it those of the whole, as a struct net_hdr's frame has them. */
static void complete_large(struct head *h, const struct e1k_context *c, uint64_t len)
{
    bool v4 = c->tucmd & TUCMD_IPV4;
    uint8_t *ip = h->bytes + c->ipcss, tail[4] = {0, 6};
    uint64_t l4 = len - c->tucss;
    if (c->ipcss + (v4 ? 20u : 40u) > c->tucss || c->tucss + TCP_CSUM + 2u > h->len || len <= c->tucss || l4 > 0xffff)
        return;
    put16be(ip + (v4 ? 2 : 4), (uint16_t)(v4 ? len - c->ipcss : len - c->ipcss - 40));
    if (v4)
        insert_ip_sum(h, c);
    put16be(tail + 2, (uint16_t)l4);
    uint64_t sum = (uint64_t)net_sum(tail, 4) + (v4 ? net_sum(ip + 12, 8) : net_sum(ip + 8, 32));
    st16(h->bytes + c->tucss + TCP_CSUM, net_fold(sum));
}

/* ---- a whole frame ---- */

static bool wants_large(const struct e1k_frame *f, const struct e1k_context *c)
{
    return f->extended && f->first & D_IC && c->tucmd & TUCMD_TCP && c->mss;
}

/* The sum ends before the frame does: nobody else can be told of that. */
static bool sums_part(const struct e1k_frame *f, const struct e1k_context *c)
{
    return f->extended && f->first & D_TXSM && c->tucse && c->tucse + 1u < f->len && !wants_large(f, c);
}

/* What is left to whoever takes the frame. False: nothing is. A field that is not in the frame is not filled. */
static bool offload(const struct e1k_frame *f, const struct e1k_context *c, struct net_hdr *hdr)
{
    unsigned start = f->extended ? c->tucss : (unsigned)bits(f->first, 47, 40);
    unsigned at = f->extended ? c->tucso : (unsigned)bits(f->first, 23, 16);
    bool large = wants_large(f, c);
    *hdr = (struct net_hdr){0};
    if ((!(f->first & (f->extended ? D_TXSM : D_IC)) && !large) || sums_part(f, c))
        return false;
    if (at < start)
        return false;
    hdr->flags = NET_HDR_NEEDS_CSUM;
    hdr->csum_start = (uint16_t)start;
    hdr->csum_offset = (uint16_t)(at - start);
    if (large) {
        hdr->gso_type = c->tucmd & TUCMD_IPV4 ? NET_GSO_TCPV4 : NET_GSO_TCPV6;
        hdr->gso_size = c->mss;
        hdr->hdr_len = c->hdrlen;
    }
    return large || net_hdr_sane(hdr, f->len);
}

static bool edits_head(struct e1000e *n, const struct e1k_frame *f, const struct e1k_context *c)
{
    return (f->first & D_VLE && e1k_get(n, R_CTRL) & CTRL_VME) || (f->extended && f->first & D_IXSM) ||
           wants_large(f, c) || sums_part(f, c);
}

/* The frame's pieces with `h` instead of its first bytes. */
static unsigned with_head(const struct e1k_frame *f, struct head *h, struct iovec *out)
{
    out[0] = (struct iovec){h->bytes, h->len};
    return 1 + net_iov_skip(f->iov, f->iovs, h->taken, out + 1);
}

/* `h` as long as what it replaces. */
static void insert_part_sum(const struct e1k_frame *f, const struct e1k_context *c, struct head *h)
{
    struct iovec all[E1K_IOVS + 1];
    size_t end = c->tucse + 1u;
    if (c->tucso + 2u > h->len || c->tucss >= end)
        return;
    unsigned iovs = with_head(f, h, all);
    uint16_t sum = (uint16_t)~net_sum_iov(all, iovs, c->tucss, end - c->tucss);
    st16(h->bytes + c->tucso, sum ? sum : 0xffff);
}

static void edit_head(struct e1000e *n, const struct e1k_frame *f, const struct e1k_context *c, struct head *h,
                      struct net_hdr *hdr)
{
    h->len = h->taken = net_gather(f->iov, f->iovs, h->bytes, NET_HEAD_MAX);
    if (wants_large(f, c))
        complete_large(h, c, f->len);
    else if (f->extended && f->first & D_IXSM)
        insert_ip_sum(h, c);
    if (sums_part(f, c))
        insert_part_sum(f, c, h);
    if (f->first & D_VLE && e1k_get(n, R_CTRL) & CTRL_VME && h->len >= ETH_HEAD) {
        insert_vlan(h, (uint16_t)e1k_get(n, R_VET), (uint16_t)(f->first >> 48));
        if (hdr->flags & NET_HDR_NEEDS_CSUM)
            hdr->csum_start = (uint16_t)(hdr->csum_start + 4);
    }
}

static void count_sent(struct e1000e *n, uint32_t len)
{
    e1k_count(n, R_GPTC, 1);
    e1k_count(n, R_TPT, 1);
    e1k_count64(n, R_GOTCL, len + 4);
    e1k_count64(n, R_TOTL, len + 4);
}

static void send_frame(struct e1000e *n, struct e1k_frame *f, const struct e1k_context *c)
{
    static uint8_t const zeros[ETH_MIN];
    struct iovec out[E1K_IOVS + 2];
    struct head h = {.len = 0};
    struct net_hdr hdr;
    bool offloaded = offload(f, c, &hdr);
    unsigned iovs = f->iovs;
    if (edits_head(n, f, c)) {
        edit_head(n, f, c, &h, &hdr);
        iovs = with_head(f, &h, out);
    } else {
        memcpy(out, f->iov, iovs * sizeof *out);
    }
    if (f->len < ETH_MIN && e1k_get(n, R_TCTL) & TCTL_PSP)
        out[iovs++] = (struct iovec){(void *)zeros, ETH_MIN - f->len};
    count_sent(n, (uint32_t)f->len);
    net_send(n->net, offloaded ? &hdr : NULL, out, iovs);
}

/* ---- descriptors ---- */

static void set_context(struct e1k_context *c, uint64_t low, uint64_t high)
{
    *c = (struct e1k_context){.ipcss = (uint8_t)low,
                              .ipcso = (uint8_t)(low >> 8),
                              .ipcse = (uint16_t)(low >> 16),
                              .tucss = (uint8_t)(low >> 32),
                              .tucso = (uint8_t)(low >> 40),
                              .tucse = (uint16_t)(low >> 48),
                              .tucmd = (uint8_t)(high >> 24),
                              .hdrlen = (uint8_t)(high >> 40),
                              .mss = (uint16_t)(high >> 48)};
}

static void add_data(struct e1000e *n, struct e1k_frame *f, uint64_t addr, uint64_t high)
{
    uint64_t len = high & (high & D_DEXT ? 0xfffff : 0xffff);
    if (!f->begun) {
        f->begun = true;
        f->first = high;
        f->extended = high & D_DEXT;
    }
    f->len += len;
    if (!len || f->bad)
        return;
    f->bad = f->len > NET_FRAME_MAX || !pci_dma_iov(&n->func, addr, len, false, f->iov, &f->iovs, E1K_IOVS);
}

/* VLE of a frame is in its last descriptor, all else in its first. */
static void end_frame(struct e1000e *n, struct e1k_tx *t, uint64_t high)
{
    struct e1k_frame *f = &t->frame;
    f->first = (f->first & ~(D_VLE | UINT64_C(0xffff) << 48)) | (high & (D_VLE | UINT64_C(0xffff) << 48));
    if (f->bad || f->len < ETH_HEAD) {
        trace(n->trace, TRACE_DEV, "e1000e: a frame of %llu bytes that cannot be sent", (unsigned long long)f->len);
        net_lost(n->net);
    } else {
        send_frame(n, f, &t->context);
    }
    f->iovs = 0;
    f->len = 0;
    f->bad = f->begun = false;
}

static void serve(struct e1000e *n, struct e1k_tx *t, uint64_t low, uint64_t high)
{
    if (high & D_DEXT && D_TYPE(high) == 0) {
        set_context(&t->context, low, high);
        return;
    }
    if (high & D_DEXT && D_TYPE(high) != 1)
        return;
    add_data(n, &t->frame, low, high);
    if (high & D_EOP)
        end_frame(n, t, high);
}

/* ---- queues ---- */

struct ring {
    uint64_t base;
    uint32_t n, head, tail;
};

static bool open_ring(struct e1000e *n, unsigned q, struct ring *r)
{
    unsigned at = q * E1K_QUEUE;
    *r = (struct ring){.base = e1k_get64(n, R_TDBAL + at),
                       .n = e1k_get(n, R_TDLEN + at) / DESC_LEN,
                       .head = e1k_get(n, R_TDH + at),
                       .tail = e1k_get(n, R_TDT + at)};
    return e1k_may_dma(n) && e1k_get(n, R_TCTL) & TCTL_EN && r->head < r->n && r->tail < r->n;
}

/* The status byte alone: the rest is the guest's. */
static void write_back(struct e1000e *n, const struct ring *r, uint32_t at, uint64_t high)
{
    uint8_t status = (uint8_t)(bits(high, 35, 32) | D_DD);
    pci_dma_write(&n->func, r->base + at * DESC_LEN + 12, &status, 1);
}

/* Up to BATCH descriptors from the head on; how many were served. */
static unsigned serve_some(struct e1000e *n, unsigned q, struct ring *r, bool *report)
{
    uint64_t desc[BATCH][2];
    uint32_t until = r->tail > r->head ? r->tail : r->n, had = (uint32_t)min_u64(until - r->head, BATCH);
    if (!pci_dma_read(&n->func, r->base + r->head * DESC_LEN, desc, had * DESC_LEN))
        return 0;
    for (uint32_t i = 0; i < had; i++) {
        serve(n, &n->tx[q], desc[i][0], desc[i][1]);
        if (desc[i][1] & D_RS) {
            write_back(n, r, r->head + i, desc[i][1]);
            *report = true;
        }
    }
    r->head = (r->head + had) % r->n;
    e1k_set(n, R_TDH + q * E1K_QUEUE, r->head);
    return had;
}

/* True: there is more to do. */
static bool serve_queue(struct e1000e *n, unsigned q, uint32_t *causes)
{
    struct ring r;
    unsigned done = 0, had = 1;
    bool report = false;
    while (done < BUDGET && had && open_ring(n, q, &r) && r.head != r.tail) {
        had = serve_some(n, q, &r, &report);
        done += had;
    }
    if (report)
        *causes |= C_TXDW | queue_cause[q];
    bool empty = open_ring(n, q, &r) && r.head == r.tail;
    if (done && empty)
        *causes |= C_TXQE;
    return had && done >= BUDGET;
}

void e1k_transmit(void *opaque)
{
    struct e1000e *n = opaque;
    uint32_t causes = 0;
    bool more = false;
    e1k_enter(n);
    for (unsigned q = 0; q < E1K_TX_QUEUES; q++)
        more |= serve_queue(n, q, &causes);
    net_flush(n->net);
    if (causes)
        e1k_raise_queue(n, causes);
    if (more)
        ioloop_ring(n->loop, &n->tx_bell);
    e1k_leave(n);
}
