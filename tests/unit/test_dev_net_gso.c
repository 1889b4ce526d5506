/* Segmentation and checksums against a reference that does it byte by byte. */
#include "xorshift.h"

#include "dev/net_gso.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void be16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static unsigned get16(const uint8_t *p)
{
    return p[0] * 256u + p[1];
}

static uint32_t get32(const uint8_t *p)
{
    return get16(p) << 16 | get16(p + 2);
}

/* RFC 1071, word by word, in network order. */
static unsigned ref_sum(const uint8_t *p, size_t len, uint32_t sum)
{
    for (size_t i = 0; i < len; i += 2)
        sum += p[i] * 256u + (i + 1 < len ? p[i + 1] : 0);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

struct frame {
    uint8_t b[70000];
    size_t len;
    unsigned l3, l4, head;
    bool v6;
    struct net_hdr hdr;
};

static unsigned ref_pseudo(const uint8_t *b, unsigned l3, bool v6, unsigned proto, size_t l4_len)
{
    unsigned sum = v6 ? ref_sum(b + l3 + 8, 32, 0) : ref_sum(b + l3 + 12, 8, 0);
    return ref_sum(NULL, 0, sum + proto + (unsigned)l4_len);
}

/* A TCP frame as Linux hands it over: lengths of the whole, the pseudo header's sum in the checksum field. */
static void build(struct frame *f, bool v6, unsigned vlans, unsigned ip_extra, unsigned tcp_extra, size_t payload,
                  unsigned mss)
{
    memset(f, 0, sizeof *f);
    f->v6 = v6;
    f->l3 = 14 + 4 * vlans;
    f->l4 = f->l3 + (v6 ? 40 : 20) + ip_extra;
    f->head = f->l4 + 20 + tcp_extra;
    f->len = f->head + payload;
    for (size_t i = 0; i < f->len; i++)
        f->b[i] = (uint8_t)rnd(256);
    for (unsigned i = 0; i < vlans; i++)
        be16(f->b + 12 + 4 * i, i ? 0x8100 : vlans == 2 ? 0x88a8 : 0x8100);
    be16(f->b + f->l3 - 2, v6 ? 0x86dd : 0x0800);
    uint8_t *ip = f->b + f->l3, *tcp = f->b + f->l4;
    if (v6) {
        ip[0] = 0x60;
        be16(ip + 4, (unsigned)(f->len - f->l3 - 40) & 0xffff);
        ip[6] = ip_extra ? 0 : 6;
    } else {
        ip[0] = (uint8_t)(0x40 | (20 + ip_extra) / 4);
        be16(ip + 2, (unsigned)(f->len - f->l3));
        ip[9] = 6;
    }
    tcp[12] = (uint8_t)((20 + tcp_extra) / 4 << 4);
    tcp[13] = 0x80 | 0x10 | 8 | 1; /* CWR ACK PSH FIN */
    be16(tcp + 16, ref_pseudo(f->b, f->l3, v6, 6, f->len - f->l4));
    f->hdr = (struct net_hdr){.flags = NET_HDR_NEEDS_CSUM,
                              .gso_type = v6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4,
                              .gso_size = (uint16_t)mss,
                              .csum_start = (uint16_t)f->l4,
                              .csum_offset = 16,
                              .hdr_len = (uint16_t)f->head};
}

struct check {
    const struct frame *f;
    size_t off;
    unsigned segments, left;
};

static void check_ip(const struct frame *f, const uint8_t *b, size_t len, unsigned i)
{
    const uint8_t *ip = b + f->l3, *was = f->b + f->l3;
    if (f->v6) {
        assert_int_equal(get16(ip + 4), len - f->l3 - 40);
        return;
    }
    assert_int_equal(get16(ip + 2), len - f->l3);
    assert_int_equal(get16(ip + 4), (get16(was + 4) + i) & 0xffff);
    assert_int_equal(ref_sum(ip, f->l4 - f->l3, 0), 0xffff);
}

static void check_tcp(const struct check *c, const uint8_t *b, size_t len, size_t n)
{
    const struct frame *f = c->f;
    const uint8_t *tcp = b + f->l4, *was = f->b + f->l4;
    bool last = c->off + n == f->len - f->head;
    assert_int_equal(get32(tcp + 4), get32(was + 4) + (uint32_t)c->off);
    assert_int_equal(tcp[13], 0x10 | (c->segments ? 0 : 0x80) | (last ? 9 : 0));
    unsigned sum = ref_pseudo(b, f->l3, f->v6, 6, len - f->l4);
    assert_int_equal(ref_sum(tcp, len - f->l4, sum), 0xffff);
}

static bool check_segment(void *opaque, const struct iovec *iov, unsigned n, size_t len)
{
    static uint8_t b[70000];
    struct check *c = opaque;
    size_t got = 0;
    assert_true(n <= NET_IOVS + 1);
    for (unsigned i = 0; i < n; i++) {
        memcpy(b + got, iov[i].iov_base, iov[i].iov_len);
        got += iov[i].iov_len;
    }
    assert_int_equal(got, len);
    size_t part = len - c->f->head;
    check_ip(c->f, b, len, c->segments);
    check_tcp(c, b, len, part);
    assert_memory_equal(b, c->f->b, c->f->l3);
    assert_memory_equal(b + c->f->head, c->f->b + c->f->head + c->off, part);
    assert_true(part <= c->f->hdr.gso_size);
    c->off += part;
    c->segments++;
    return --c->left > 0;
}

/* The frame in pieces of random sizes. */
static unsigned cut(const struct frame *f, struct iovec *iov)
{
    size_t at = 0;
    unsigned n = 0, pieces = 1 + rnd(NET_IOVS - 1);
    while (at < f->len) {
        size_t part = n + 1 == pieces ? f->len - at : rnd((unsigned)(f->len - at) / 2 + 2);
        if (rnd(3) == 0 && n + 1 < pieces)
            part = rnd(40) % (f->len - at + 1);
        iov[n++] = (struct iovec){(void *)(f->b + at), part};
        at += part;
    }
    return n;
}

static void segments_match(void **state)
{
    static struct frame f;
    struct iovec iov[NET_IOVS];
    for (unsigned i = 0; i < 3000; i++) {
        bool v6 = rnd(2);
        unsigned mss = 16 + rnd(3000);
        size_t payload = rnd(4) ? rnd(20000) : rnd(200);
        build(&f, v6, rnd(3), v6 ? 8 * rnd(3) : 4 * rnd(11), 4 * rnd(11), payload, mss);
        struct check c = {.f = &f, .left = UINT32_MAX};
        assert_true(net_complete(&f.hdr, iov, cut(&f, iov), f.len, check_segment, &c));
        assert_int_equal(c.off, payload);
        assert_int_equal(c.segments, payload ? (payload + mss - 1) / mss : 1);
    }
}

static void stops_when_told(void **state)
{
    static struct frame f;
    build(&f, false, 0, 0, 0, 10000, 1000);
    struct iovec iov = {f.b, f.len};
    struct check c = {.f = &f, .left = 3};
    assert_true(net_complete(&f.hdr, &iov, 1, f.len, check_segment, &c));
    assert_int_equal(c.segments, 3);
}

/* UDP, one checksum, any pieces. */
static bool check_udp(void *opaque, const struct iovec *iov, unsigned n, size_t len)
{
    static uint8_t b[70000];
    const struct frame *f = opaque;
    size_t got = 0;
    for (unsigned i = 0; i < n; i++) {
        memcpy(b + got, iov[i].iov_base, iov[i].iov_len);
        got += iov[i].iov_len;
    }
    assert_int_equal(got, f->len);
    unsigned sum = ref_pseudo(b, f->l3, f->v6, 17, len - f->l4);
    assert_int_equal(ref_sum(b + f->l4, len - f->l4, sum), 0xffff);
    assert_int_not_equal(get16(b + f->l4 + 6), 0);
    assert_memory_equal(b, f->b, f->l4 + 6);
    assert_memory_equal(b + f->l4 + 8, f->b + f->l4 + 8, f->len - f->l4 - 8);
    return true;
}

static void one_checksum(void **state)
{
    static struct frame f;
    struct iovec iov[NET_IOVS];
    for (unsigned i = 0; i < 3000; i++) {
        build(&f, rnd(2), rnd(3), 0, 0, rnd(3000), 0);
        be16(f.b + f.l4 + 6, ref_pseudo(f.b, f.l3, f.v6, 17, f.len - f.l4));
        f.hdr = (struct net_hdr){.flags = NET_HDR_NEEDS_CSUM, .csum_start = (uint16_t)f.l4, .csum_offset = 6};
        assert_true(net_complete(&f.hdr, iov, cut(&f, iov), f.len, check_udp, &f));
        static struct frame g;
        g = f;
        struct iovec whole = {g.b, g.len};
        assert_true(net_complete_whole(&f.hdr, g.b, g.len));
        check_udp(&f, &whole, 1, g.len);
    }
}

static void large_stays_whole(void **state)
{
    static struct frame f, g;
    for (unsigned i = 0; i < 300; i++) {
        build(&f, false, rnd(3), 4 * rnd(11), 4 * rnd(11), rnd(65000), 1460);
        g = f;
        be16(g.b + g.l3 + 2, 0);  /* as cards for which drivers leave it out have it */
        be16(g.b + g.l4 + 16, 0); /* the pseudo header's sum is not believed */
        assert_true(net_complete_whole(&g.hdr, g.b, g.len));
        assert_int_equal(get16(g.b + g.l3 + 2), g.len - g.l3);
        assert_int_equal(ref_sum(g.b + g.l3, g.l4 - g.l3, 0), 0xffff);
        unsigned sum = ref_pseudo(g.b, g.l3, false, 6, g.len - g.l4);
        assert_int_equal(ref_sum(g.b + g.l4, g.len - g.l4, sum), 0xffff);
    }
}

static bool never(void *opaque, const struct iovec *iov, unsigned n, size_t len)
{
    fail();
    return false;
}

static void refused(struct frame *f)
{
    struct iovec iov = {f->b, f->len};
    assert_false(net_complete(&f->hdr, &iov, 1, f->len, never, NULL));
    assert_false(net_complete_whole(&f->hdr, f->b, f->len));
}

static void nonsense_is_refused(void **state)
{
    static struct frame good, f;
    build(&good, false, 0, 0, 0, 5000, 1000);
#define REFUSED(change)                                                                                                \
    do {                                                                                                               \
        f = good;                                                                                                      \
        change;                                                                                                        \
        refused(&f);                                                                                                   \
    } while (0)
    REFUSED(f.hdr.csum_start = 5100);
    REFUSED(f.hdr.csum_start = 65535; f.hdr.csum_offset = 65535);
    REFUSED(f.hdr.csum_start = 13);
    REFUSED(f.hdr.csum_start = 300);
    REFUSED(f.hdr.csum_offset = 14);
    REFUSED(f.hdr.csum_offset = 5000);
    REFUSED(f.hdr.csum_start++);
    REFUSED(f.hdr.flags = 0);
    REFUSED(f.hdr.gso_size = 0);
    REFUSED(f.hdr.gso_size = NET_GSO_MIN - 1);
    REFUSED(f.hdr.gso_type = NET_GSO_TCPV6);
    REFUSED(f.hdr.gso_type = 3);
    REFUSED(f.hdr.gso_type = 0x7f);
    REFUSED(f.b[12] = 0x86);
    REFUSED(f.b[14] = 0x55);
    REFUSED(f.b[14] = 0x44);
    REFUSED(f.b[14] = 0x46);
    REFUSED(f.b[14 + 9] = 17);
    REFUSED(f.b[34 + 12] = 0x40);
    REFUSED(f.len = 53);
    REFUSED(f.b[34 + 12] = 0xf0; f.len = 34 + 59);
    REFUSED(f.len = 14);
#undef REFUSED
}

/* Random headers over random frames: nothing but a yes or a no. */
static bool swallow(void *opaque, const struct iovec *iov, unsigned n, size_t len)
{
    size_t *sum = opaque;
    for (unsigned i = 0; i < n; i++)
        for (size_t k = 0; k < iov[i].iov_len; k += 97)
            *sum += ((uint8_t *)iov[i].iov_base)[k];
    return true;
}

static void random_headers(void **state)
{
    static struct frame f;
    size_t sum = 0;
    struct iovec iov[NET_IOVS];
    for (unsigned i = 0; i < 20000; i++) {
        build(&f, rnd(2), rnd(3), 0, 4 * rnd(11), rnd(3000), 16 + rnd(2000));
        for (unsigned k = rnd(4); k; k--)
            ((uint8_t *)&f.hdr)[rnd(sizeof f.hdr)] = (uint8_t)rnd(256);
        for (unsigned k = rnd(4); k; k--)
            f.b[rnd(f.head)] = (uint8_t)rnd(256);
        f.len -= rnd((unsigned)f.len - 14);
        net_complete(&f.hdr, iov, cut(&f, iov), f.len, swallow, &sum);
        net_complete_whole(&f.hdr, f.b, f.len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segments_match),    cmocka_unit_test(stops_when_told),     cmocka_unit_test(one_checksum),
        cmocka_unit_test(large_stays_whole), cmocka_unit_test(nonsense_is_refused), cmocka_unit_test(random_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
