#include "dev/net_gso.h"

#include "base/bits.h"
#include "dev/net_priv.h"

#include <emmintrin.h>

enum { ETH_BYTES = 14, ETH_TYPE = 12, TYPE_IPV4 = 0x0800, TYPE_IPV6 = 0x86dd, TYPE_VLAN = 0x8100, TYPE_QINQ = 0x88a8 };
enum { IPV4_MIN = 20, IPV6_BYTES = 40, TCP_MIN = 20, TCP_CSUM = 16, PROTO_TCP = 6 };
enum { TCP_FIN = 1, TCP_PSH = 8, TCP_CWR = 0x80 };

/* ---- sums ---- */

uint16_t net_sum(const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    const __m128i low = _mm_set_epi32(0, -1, 0, -1);
    __m128i a = _mm_setzero_si128(), b = a;
    for (; len >= 16; p += 16, len -= 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)p);
        a = _mm_add_epi64(a, _mm_and_si128(x, low));
        b = _mm_add_epi64(b, _mm_srli_epi64(x, 32));
    }
    uint64_t lane[2], sum = 0;
    _mm_storeu_si128((__m128i *)lane, _mm_add_epi64(a, b));
    for (; len >= 2; p += 2, len -= 2)
        sum += ld16(p);
    if (len)
        sum += *p;
    return net_fold((uint64_t)net_fold(lane[0]) + net_fold(lane[1]) + sum);
}

/* A piece that begins at an odd place has its bytes in the other halves of the words. */
uint16_t net_sum_iov(const struct iovec *iov, unsigned n, size_t off, size_t len)
{
    uint64_t sum = 0;
    size_t at = 0;
    for (unsigned i = 0; i < n && len; i++) {
        if (off >= iov[i].iov_len) {
            off -= iov[i].iov_len;
            continue;
        }
        size_t part = min_u64(len, iov[i].iov_len - off);
        uint16_t s = net_sum((const uint8_t *)iov[i].iov_base + off, part);
        sum += at & 1 ? __builtin_bswap16(s) : s;
        at += part;
        len -= part;
        off = 0;
    }
    return net_fold(sum);
}

/* ---- headers ---- */

/* A frame with an offload, its headers in a copy. */
struct large {
    uint8_t head[NET_HEAD_MAX];
    unsigned l3, l4, head_len; /* offsets; head_len: where the payload begins */
    bool v6;
};

static unsigned gso_of(const struct net_hdr *h)
{
    return h->gso_type & ~(unsigned)NET_GSO_ECN;
}

bool net_hdr_sane(const struct net_hdr *h, size_t len)
{
    unsigned type = gso_of(h);
    if (h->flags & NET_HDR_NEEDS_CSUM) {
        size_t end = (size_t)h->csum_start + h->csum_offset + 2;
        if (h->csum_start < ETH_BYTES || end > len || end > NET_HEAD_MAX)
            return false;
    }
    if (type == NET_GSO_NONE)
        return true;
    return (type == NET_GSO_TCPV4 || type == NET_GSO_TCPV6) && h->flags & NET_HDR_NEEDS_CSUM &&
           h->csum_offset == TCP_CSUM && h->gso_size >= NET_GSO_MIN;
}

/* Where the network header is, behind at most two VLAN tags; the type in *type. 0: not within the head. */
static unsigned find_l3(const uint8_t *head, size_t have, unsigned *type)
{
    unsigned at = ETH_TYPE;
    for (unsigned tags = 0; at + 2 <= have; tags++, at += 4) {
        *type = get16be(head + at);
        if ((*type != TYPE_VLAN && *type != TYPE_QINQ) || tags == 2)
            return at + 2;
    }
    return 0;
}

static bool ipv4_fits(const struct large *g, size_t have)
{
    const uint8_t *ip = g->head + g->l3;
    return g->l3 + IPV4_MIN <= have && ip[0] >> 4 == 4 && (ip[0] & 15u) * 4 >= IPV4_MIN &&
           g->l3 + (ip[0] & 15u) * 4 == g->l4 && ip[9] == PROTO_TCP;
}

static bool parse_large(struct large *g, const struct net_hdr *h, size_t have, size_t len)
{
    unsigned type = 0;
    g->v6 = gso_of(h) == NET_GSO_TCPV6;
    g->l4 = h->csum_start;
    g->l3 = find_l3(g->head, have, &type);
    if (!g->l3 || type != (g->v6 ? TYPE_IPV6 : TYPE_IPV4) || g->l4 + TCP_MIN > have)
        return false;
    if (g->v6 ? g->l3 + IPV6_BYTES > g->l4 || g->head[g->l3] >> 4 != 6 : !ipv4_fits(g, have))
        return false;
    unsigned tcp = (g->head[g->l4 + 12] >> 4) * 4u;
    g->head_len = g->l4 + tcp;
    return tcp >= TCP_MIN && g->head_len <= have && g->head_len <= len && len - g->l3 <= 0xffff + IPV6_BYTES;
}

static void ipv4_set_length(uint8_t *ip, size_t total)
{
    put16be(ip + 2, (uint16_t)total);
    st16(ip + 10, 0);
    st16(ip + 10, (uint16_t)~net_sum(ip, (ip[0] & 15u) * 4));
}

/* The pseudo header's sum for `tcp_len` bytes of TCP. */
static uint64_t pseudo_sum(const struct large *g, const uint8_t *l3, size_t tcp_len)
{
    uint8_t tail[4] = {0, PROTO_TCP, (uint8_t)(tcp_len >> 8), (uint8_t)tcp_len};
    return (uint64_t)net_sum(tail, 4) + (g->v6 ? net_sum(l3 + 8, 32) : net_sum(l3 + 12, 8));
}

/* ---- one checksum ---- */

/* 0 and FFFFh are the same sum, but in UDP 0 says that there is none. */
static uint16_t finish_sum(uint64_t sum)
{
    uint16_t s = (uint16_t)~net_fold(sum);
    return s ? s : 0xffff;
}

static bool complete_sum(const struct net_hdr *h, const struct iovec *frame, unsigned iovs, size_t len, net_emit *emit,
                         void *opaque)
{
    uint8_t head[NET_HEAD_MAX];
    struct iovec out[NET_IOVS + 1];
    size_t end = (size_t)h->csum_start + h->csum_offset + 2;
    net_gather(frame, iovs, head, end);
    out[0] = (struct iovec){head, end};
    unsigned n = 1 + net_iov_skip(frame, iovs, end, out + 1);
    st16(head + end - 2, finish_sum(net_sum_iov(out, n, h->csum_start, len - h->csum_start)));
    emit(opaque, out, n, len);
    return true;
}

/* ---- segments ---- */

static void segment_head(const struct large *g, uint8_t *head, unsigned i, size_t off, size_t n, bool last)
{
    memcpy(head, g->head, g->head_len);
    uint8_t *ip = head + g->l3, *tcp = head + g->l4;
    if (g->v6) {
        put16be(ip + 4, (uint16_t)(g->head_len - g->l3 - IPV6_BYTES + n));
    } else {
        put16be(ip + 4, (uint16_t)(get16be(ip + 4) + i));
        ipv4_set_length(ip, g->head_len - g->l3 + n);
    }
    put32be(tcp + 4, get32be(tcp + 4) + (uint32_t)off);
    if (!last)
        tcp[13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
    if (i)
        tcp[13] &= (uint8_t)~TCP_CWR;
    st16(tcp + TCP_CSUM, 0);
}

/* A position in the frame's pieces. */
struct cursor {
    const struct iovec *iov;
    unsigned left;
    size_t off;
};

static unsigned take(struct cursor *c, size_t len, struct iovec *out)
{
    unsigned m = 0;
    while (len && c->left) {
        size_t part = min_u64(len, c->iov->iov_len - c->off);
        if (part)
            out[m++] = (struct iovec){(uint8_t *)c->iov->iov_base + c->off, part};
        len -= part;
        c->off += part;
        if (c->off == c->iov->iov_len) {
            c->iov++;
            c->left--;
            c->off = 0;
        }
    }
    return m;
}

static void cut(const struct large *g, const struct net_hdr *h, const struct iovec *frame, unsigned iovs, size_t len,
                net_emit *emit, void *opaque)
{
    uint8_t head[NET_HEAD_MAX];
    struct iovec out[NET_IOVS + 1], skipped[NET_IOVS + 1];
    struct cursor c = {frame, iovs, 0};
    size_t payload = len - g->head_len, off = 0;
    take(&c, g->head_len, skipped);
    for (unsigned i = 0; i == 0 || off < payload; i++) {
        size_t n = min_u64(h->gso_size, payload - off);
        segment_head(g, head, i, off, n, off + n == payload);
        out[0] = (struct iovec){head, g->head_len};
        unsigned pieces = 1 + take(&c, n, out + 1);
        size_t tcp_len = g->head_len - g->l4 + n;
        uint64_t sum = pseudo_sum(g, head + g->l3, tcp_len) + net_sum_iov(out, pieces, g->l4, tcp_len);
        st16(head + g->l4 + TCP_CSUM, (uint16_t)~net_fold(sum));
        if (!emit(opaque, out, pieces, g->head_len + n))
            return;
        off += n;
    }
}

bool net_complete(const struct net_hdr *h, const struct iovec *frame, unsigned iovs, size_t len, net_emit *emit,
                  void *opaque)
{
    if (!net_hdr_sane(h, len))
        return false;
    if (!(h->flags & NET_HDR_NEEDS_CSUM)) {
        emit(opaque, frame, iovs, len);
        return true;
    }
    if (gso_of(h) == NET_GSO_NONE)
        return complete_sum(h, frame, iovs, len, emit, opaque);
    struct large g;
    size_t have = net_gather(frame, iovs, g.head, NET_HEAD_MAX);
    if (!parse_large(&g, h, have, len))
        return false;
    cut(&g, h, frame, iovs, len, emit, opaque);
    return true;
}

bool net_complete_whole(const struct net_hdr *h, uint8_t *frame, size_t len)
{
    if (!net_hdr_sane(h, len))
        return false;
    if (!(h->flags & NET_HDR_NEEDS_CSUM))
        return true;
    uint8_t *field = frame + h->csum_start + h->csum_offset;
    if (gso_of(h) != NET_GSO_NONE) {
        struct large g;
        size_t have = min_u64(len, NET_HEAD_MAX);
        memcpy(g.head, frame, have);
        if (!parse_large(&g, h, have, len) || g.v6 || len - g.l3 > 0xffff)
            return false;
        ipv4_set_length(frame + g.l3, len - g.l3);
        st16(field, net_fold(pseudo_sum(&g, frame + g.l3, len - g.l4)));
    }
    st16(field, finish_sum(net_sum(frame + h->csum_start, len - h->csum_start)));
    return true;
}
