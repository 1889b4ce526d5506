#include "dev/net_gro.h"

#include "dev/net_frame.h"
#include "dev/net_gso.h"

#include <stdlib.h>

enum { L3 = 14, L4 = 34, DATA_MIN = 54, TCP_CSUM = 16, TYPE_IPV4 = 0x0800, PROTO_TCP = 6 };
enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACK = 0x10, TCP_URG = 0x20 };

#define FLOWS     8u
#define LARGE_MAX 65535u /* of an IP packet */

/* A connection's frames so far. */
struct flow {
    unsigned segments; /* 0: free */
    size_t len;
    unsigned data, mss; /* where the payload begins; bytes of it in each segment but the last */
    uint32_t next;      /* sequence number */
    uint8_t frame[L3 + LARGE_MAX];
};

struct net_gro {
    net_gro_emit *emit;
    void *opaque;
    unsigned used, victim;
    struct flow flow[FLOWS];
};

struct net_gro *net_gro_create(net_gro_emit *emit, void *opaque)
{
    struct net_gro *g = calloc(1, sizeof *g);
    if (g) {
        g->emit = emit;
        g->opaque = opaque;
    }
    return g;
}

void net_gro_destroy(struct net_gro *g)
{
    free(g);
}

/* ---- out ---- */

/* What net_complete() needs to know to cut it again. */
static void make_large(struct flow *f, struct net_hdr *h)
{
    uint8_t *ip = f->frame + L3, *tcp = f->frame + L4;
    size_t tcp_len = f->len - L4;
    uint8_t tail[4] = {0, PROTO_TCP, (uint8_t)(tcp_len >> 8), (uint8_t)tcp_len};
    put16be(ip + 2, (uint16_t)(f->len - L3));
    st16(ip + 10, 0);
    st16(ip + 10, (uint16_t)~net_sum(ip, L4 - L3));
    st16(tcp + TCP_CSUM, net_fold((uint64_t)net_sum(tail, 4) + net_sum(ip + 12, 8)));
    *h = (struct net_hdr){.flags = NET_HDR_NEEDS_CSUM,
                          .gso_type = NET_GSO_TCPV4,
                          .hdr_len = (uint16_t)f->data,
                          .gso_size = (uint16_t)f->mss,
                          .csum_start = L4,
                          .csum_offset = TCP_CSUM};
}

static void flush(struct net_gro *g, struct flow *f)
{
    struct net_hdr h = {.flags = NET_HDR_DATA_VALID};
    if (f->segments > 1)
        make_large(f, &h);
    f->segments = 0;
    g->used--;
    g->emit(g->opaque, &h, f->frame, f->len);
}

void net_gro_flush(struct net_gro *g)
{
    for (unsigned i = 0; i < FLOWS && g->used; i++)
        if (g->flow[i].segments)
            flush(g, &g->flow[i]);
}

/* ---- in ---- */

static bool is_tcp(const uint8_t *p, size_t len)
{
    return len >= DATA_MIN && get16be(p + 12) == TYPE_IPV4 && p[L3] == 0x45 && p[L3 + 9] == PROTO_TCP &&
           !(get16be(p + L3 + 6) & 0x3fff) && get16be(p + L3 + 2) == len - L3;
}

static struct flow *find(struct net_gro *g, const uint8_t *p)
{
    for (unsigned i = 0; i < FLOWS && g->used; i++) {
        struct flow *f = &g->flow[i];
        if (f->segments && !memcmp(f->frame + L3 + 12, p + L3 + 12, 12))
            return f;
    }
    return NULL;
}

/* Whether the headers are equal in all that the large frame has once: addresses, type of service, time to live,
 * acknowledgment, window, options. */
static bool same_head(const struct flow *f, const uint8_t *p, unsigned data)
{
    const uint8_t *q = f->frame;
    return data == f->data && !memcmp(q, p, 14) && q[L3 + 1] == p[L3 + 1] && !memcmp(q + L3 + 6, p + L3 + 6, 3) &&
           !memcmp(q + L4 + 8, p + L4 + 8, 5) && !memcmp(q + L4 + 14, p + L4 + 14, 2) &&
           !memcmp(q + DATA_MIN, p + DATA_MIN, data - DATA_MIN);
}

static bool continues(const struct flow *f, const uint8_t *p, unsigned data, size_t n)
{
    return get32be(p + L4 + 4) == f->next && n <= f->mss && f->len + n <= L3 + LARGE_MAX && same_head(f, p, data);
}

static void append(struct net_gro *g, struct flow *f, const uint8_t *p, unsigned data, size_t n)
{
    memcpy(f->frame + f->len, p + data, n);
    f->frame[L4 + 13] |= p[L4 + 13];
    f->len += n;
    f->next += (uint32_t)n;
    f->segments++;
    if (n < f->mss || p[L4 + 13] & TCP_PSH)
        flush(g, f);
}

static struct flow *place(struct net_gro *g)
{
    for (unsigned i = 0; i < FLOWS; i++)
        if (!g->flow[i].segments)
            return &g->flow[i];
    struct flow *f = &g->flow[g->victim++ % FLOWS];
    flush(g, f);
    return f;
}

static void begin(struct net_gro *g, const uint8_t *p, size_t len, unsigned data, size_t n)
{
    struct flow *f = place(g);
    memcpy(f->frame, p, len);
    f->len = len;
    f->data = data;
    f->mss = (unsigned)n;
    f->next = get32be(p + L4 + 4) + (uint32_t)n;
    f->segments = 1;
    g->used++;
}

static void emit_alone(struct net_gro *g, const uint8_t *p, size_t len)
{
    struct net_hdr h = {.flags = NET_HDR_DATA_VALID};
    g->emit(g->opaque, &h, p, len);
}

void net_gro_add(struct net_gro *g, const uint8_t *p, size_t len)
{
    if (!is_tcp(p, len)) {
        emit_alone(g, p, len);
        return;
    }
    unsigned flags = p[L4 + 13], data = L4 + (p[L4 + 12] >> 4) * 4u;
    struct flow *f = find(g, p);
    bool plain = data >= DATA_MIN && data < len && (flags & ~(unsigned)TCP_PSH) == TCP_ACK;
    if (f && plain && continues(f, p, data, len - data)) {
        append(g, f, p, data, len - data);
        return;
    }
    if (f)
        flush(g, f);
    if (plain && !(flags & TCP_PSH) && len - data >= NET_GSO_MIN)
        begin(g, p, len, data, len - data);
    else
        emit_alone(g, p, len);
}
