/* Segments that were put together, cut again, are the segments. */
#include "xorshift.h"

#include "dev/net_gro.h"

#include "dev/net_frame.h"
#include "dev/net_gso.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { FIN = 1, SYN = 2, PSH = 8, ACK = 16 };

/* A frame with right checksums; `conn` is the source port. */
static size_t make(uint8_t *f, unsigned conn, uint32_t seq, unsigned flags, unsigned options, size_t n)
{
    size_t head = 54 + options, len = head + n;
    memset(f, 0, head);
    memcpy(f, "\x52\x54\x00\x12\x34\x56\x52\x55\x0a\x00\x02\x02\x08\x00\x45", 15);
    put16be(f + 16, (uint16_t)(len - 14));
    f[22] = 64;
    f[23] = 6;
    put32be(f + 26, 0x0a000202);
    put32be(f + 30, 0x0a00020f);
    st16(f + 24, (uint16_t)~net_sum(f + 14, 20));
    put16be(f + 34, (uint16_t)conn);
    put16be(f + 36, 22);
    put32be(f + 38, seq);
    put32be(f + 42, 777);
    f[46] = (uint8_t)((20 + options) / 4 << 4);
    f[47] = (uint8_t)flags;
    put16be(f + 48, 8760);
    memset(f + 54, 1, options);
    for (size_t i = 0; i < n; i++)
        f[head + i] = (uint8_t)(seq + i + conn * 3);
    uint8_t tail[4] = {0, 6, (uint8_t)((len - 34) >> 8), (uint8_t)(len - 34)};
    st16(f + 50, (uint16_t)~net_fold((uint64_t)net_sum(f + 34, len - 34) + net_sum(f + 26, 8) + net_sum(tail, 4)));
    return len;
}

/* What came out, cut again: for each connection its bytes, in order. */
struct sink {
    unsigned frames, large, others;
    uint32_t next[4]; /* by connection */
    unsigned last_flags[4];
    size_t longest;
};

static bool segment(void *opaque, const struct iovec *iov, unsigned n, size_t len)
{
    static uint8_t got[70000], want[70000];
    struct sink *s = opaque;
    net_gather(iov, n, got, len);
    unsigned conn = get16be(got + 34), options = (got[46] >> 4) * 4u - 20;
    assert_int_equal(get32be(got + 38), s->next[conn]);
    assert_int_equal(make(want, conn, s->next[conn], got[47], options, len - 54 - options), len);
    put16be(got + 18, 0); /* the identification counts within a large frame */
    st16(got + 24, ld16(want + 24));
    assert_memory_equal(got, want, len);
    s->next[conn] += (uint32_t)(len - 54 - options) + (got[47] & (SYN | FIN) ? 1 : 0);
    s->last_flags[conn] = got[47];
    return true;
}

static void out(void *opaque, const struct net_hdr *h, const uint8_t *frame, size_t len)
{
    struct sink *s = opaque;
    struct iovec iov = {(void *)frame, len};
    if (frame[12] != 8) {
        s->others++;
        return;
    }
    s->frames++;
    s->large += h->gso_type != NET_GSO_NONE;
    s->longest = max_u64(s->longest, len);
    assert_true(net_complete(h, &iov, 1, len, segment, s));
}

static void many_connections(void **state)
{
    static uint8_t f[70000];
    struct sink s = {0};
    struct net_gro *g = net_gro_create(out, &s);
    uint32_t seq[4] = {0};
    unsigned sent = 0;
    for (unsigned i = 0; i < 40000; i++) {
        unsigned conn = rnd(4), flags = ACK | (rnd(20) ? 0 : PSH) | (rnd(200) ? 0 : SYN) | (rnd(200) ? 0 : FIN);
        unsigned options = conn == 3 ? 12 : 0;
        size_t n = rnd(10) ? 1460 : rnd(30) ? rnd(1460) : 0;
        net_gro_add(g, f, make(f, conn, seq[conn], flags, options, n));
        seq[conn] += (uint32_t)n + (flags & (SYN | FIN) ? 1 : 0);
        sent++;
        if (!rnd(40))
            net_gro_flush(g);
    }
    net_gro_flush(g);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(s.next[i], seq[i]);
    assert_true(s.large > 1000 && s.frames < sent / 2);
    assert_true(s.longest <= 65549);
    net_gro_destroy(g);
}

static void full_frames(void **state)
{
    uint8_t f[1514];
    struct sink s = {0};
    struct net_gro *g = net_gro_create(out, &s);
    for (unsigned i = 0; i < 440; i++)
        net_gro_add(g, f, make(f, 1, 1460 * i, ACK, 0, 1460));
    assert_int_equal(s.frames, 9); /* 44 segments in each */
    net_gro_flush(g);
    assert_int_equal(s.frames, 10);
    assert_int_equal(s.next[1], 440 * 1460);
    net_gro_destroy(g);
}

static void count(void *opaque, const struct net_hdr *h, const uint8_t *frame, size_t len)
{
    ++*(unsigned *)opaque;
}

/* More connections than it keeps: none is lost. */
static void crowd(void **state)
{
    uint8_t f[1514];
    unsigned n = 0;
    struct net_gro *g = net_gro_create(count, &n);
    for (unsigned i = 0; i < 100; i++)
        net_gro_add(g, f, make(f, 100 + i, 0, ACK, 0, 1000));
    assert_true(n > 0 && n < 100);
    net_gro_flush(g);
    assert_int_equal(n, 100);
    net_gro_destroy(g);
}

static void others_pass(void **state)
{
    uint8_t f[60] = {0};
    struct sink s = {0};
    struct net_gro *g = net_gro_create(out, &s);
    f[12] = 0x86;
    for (size_t len = 14; len <= 60; len++)
        net_gro_add(g, f, len);
    assert_int_equal(s.others, 47);
    net_gro_destroy(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_connections),
        cmocka_unit_test(full_frames),
        cmocka_unit_test(crowd),
        cmocka_unit_test(others_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
