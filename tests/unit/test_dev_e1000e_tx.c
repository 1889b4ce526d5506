/* Sending with the 82574: descriptors, write-back, checksums, large frames, VLAN tags. */
#include "e1000e_rig.h"

static int setup_tx(void **state)
{
    setup(state);
    tx_start(*state);
    return 0;
}

static uint8_t *data(struct e1000e_rig *r)
{
    return guest(r, RIG_DATA);
}

/* ---- descriptors ---- */

static void test_legacy(void **state)
{
    struct e1000e_rig *r = *state;
    rig_frame(data(r), 1000, 1);
    unsigned a = tx_put(r, 0, RIG_DATA, 100 | T_EOP | T_RS | T_IFCS), b = tx_put(r, 0, RIG_DATA, 300),
             c = tx_put(r, 0, RIG_DATA + 300, 0), d = tx_put(r, 0, RIG_DATA + 300, 700 | T_EOP);
    assert_int_equal(r->net.sent, 0);
    tx_kick(r, 0);
    assert_int_equal(r->net.sent, 2);
    assert_int_equal(sent(r, 0)->len, 100);
    assert_memory_equal(sent(r, 0)->bytes, data(r), 100);
    assert_int_equal(sent(r, 1)->len, 1000);
    assert_memory_equal(sent(r, 1)->bytes, data(r), 1000);
    assert_true(tx_done(r, 0, a));
    assert_false(tx_done(r, 0, b) || tx_done(r, 0, c) || tx_done(r, 0, d)); /* nobody asked */
    assert_int_equal(rd(r, R_TDH), 4);
    assert_int_equal(rd(r, R_ICR), C_TXDW | C_TXQ0 | C_TXQE);
}

/* The report changes the status and nothing else. */
static void test_write_back(void **state)
{
    struct e1000e_rig *r = *state;
    rig_frame(data(r), 60, 1);
    uint64_t high = 60 | T_EOP | T_RS | 0x5a5aull << 48 | 0x0eull << 32;
    unsigned i = tx_put(r, 1, RIG_DATA, high);
    tx_kick(r, 1);
    assert_int_equal(ld64(tx_desc(r, 1, i) + 8), high | 1ull << 32);
    assert_int_equal(ld64(tx_desc(r, 1, i)), RIG_DATA);
    assert_int_equal(rd(r, R_ICR) & (C_TXQ0 | C_TXQ1), C_TXQ1);
    i = tx_put(r, 1, 0, T_DEXT | T_RS); /* a context reports, too */
    tx_kick(r, 1);
    assert_true(tx_done(r, 1, i));
}

static void test_extended(void **state)
{
    struct e1000e_rig *r = *state;
    rig_frame(data(r), 9000, 1);
    tx_put(r, 0, RIG_DATA, 4000 | T_DATA);
    unsigned i = tx_put(r, 0, RIG_DATA + 4000, 5000 | T_DATA | T_EOP | T_RS);
    tx_kick(r, 0);
    assert_int_equal(sent(r, 0)->len, 9000);
    assert_memory_equal(sent(r, 0)->bytes, data(r), 9000);
    assert_true(tx_done(r, 0, i));
}

/* Many frames round the rings, in one and in two pieces; the queues share nothing. */
static void test_ring_wraps(void **state)
{
    struct e1000e_rig *r = *state;
    unsigned n = 0;
    for (unsigned i = 0; i < 300; i++) {
        unsigned q = i & 1, len = 60 + i * 3;
        rig_frame(data(r), len, i);
        if (i % 3)
            tx_put(r, q, RIG_DATA, (i % 3 * 7) | (i & 4 ? T_DATA : 0));
        unsigned off = i % 3 * 7,
                 last = tx_put(r, q, RIG_DATA + off, (len - off) | T_EOP | T_RS | (i & 4 ? T_DATA : 0));
        tx_kick(r, q);
        assert_int_equal(sent(r, n)->len, len);
        assert_memory_equal(sent(r, n)->bytes, data(r), len);
        assert_true(tx_done(r, q, last));
        assert_int_equal(rd(r, R_TDH + q * E1K_QUEUE), r->tdt[q]);
        n++;
    }
}

/* A whole ring at once, a frame begun on one queue while another sends. */
static void test_interleaved(void **state)
{
    struct e1000e_rig *r = *state;
    rig_frame(data(r), 2000, 1);
    tx_put(r, 0, RIG_DATA, 500);
    tx_kick(r, 0);
    for (unsigned i = 0; i < RIG_N - 1; i++)
        tx_put(r, 1, RIG_DATA + i, (60 + i) | T_EOP);
    tx_kick(r, 1);
    assert_int_equal(r->net.sent, RIG_N - 1);
    tx_put(r, 0, RIG_DATA + 500, 100 | T_EOP);
    tx_kick(r, 0);
    assert_int_equal(sent(r, RIG_N - 1)->len, 600);
    assert_memory_equal(sent(r, RIG_N - 1)->bytes, data(r), 600);
}

static void test_pads_short(void **state)
{
    struct e1000e_rig *r = *state;
    static const uint8_t zeros[60];
    rig_frame(data(r), 60, 1);
    tx_put(r, 0, RIG_DATA, 42 | T_EOP);
    tx_kick(r, 0);
    assert_int_equal(sent(r, 0)->len, 42);
    wr(r, R_TCTL, TCTL_EN | TCTL_PSP);
    tx_put(r, 0, RIG_DATA, 42 | T_EOP);
    tx_kick(r, 0);
    assert_int_equal(sent(r, 1)->len, 60);
    assert_memory_equal(sent(r, 1)->bytes, data(r), 42);
    assert_memory_equal(sent(r, 1)->bytes + 42, zeros, 18);
}

static void test_enable(void **state)
{
    struct e1000e_rig *r = *state;
    wr(r, R_TCTL, 0);
    rig_frame(data(r), 60, 1);
    tx_put(r, 0, RIG_DATA, 60 | T_EOP);
    tx_kick(r, 0);
    assert_int_equal(r->net.sent, 0);
    assert_int_equal(rd(r, R_TDH), 0);
    wr(r, R_TCTL, TCTL_EN);
    run(r);
    assert_int_equal(r->net.sent, 1);
}

/* What cannot be sent is lost, and what follows is not. */
static void test_bad_frames(void **state)
{
    struct e1000e_rig *r = *state;
    rig_frame(data(r), 2000, 1);
    tx_put(r, 0, RIG_DATA, 13 | T_EOP | T_RS);
    tx_put(r, 0, RIG_RAM - 10, 100 | T_EOP | T_RS);
    tx_put(r, 0, UINT64_MAX - 5, 100 | T_EOP | T_RS);
    tx_put(r, 0, 0xfee00000, 100 | T_EOP | T_RS);
    tx_put(r, 0, RIG_DATA, 0xfffff | T_DATA);
    tx_put(r, 0, RIG_DATA, 100 | T_DATA | T_EOP | T_RS);
    tx_put(r, 0, RIG_DATA, 100 | T_DEXT | 7 << 20 | T_RS); /* a type that is none */
    tx_put(r, 0, RIG_DATA, 0 | T_EOP | T_RS);
    unsigned good = tx_put(r, 0, RIG_DATA, 100 | T_EOP | T_RS);
    tx_kick(r, 0);
    assert_int_equal(r->net.sent, 1);
    assert_int_equal(r->net.lost, 6);
    assert_int_equal(sent(r, 0)->len, 100);
    assert_memory_equal(sent(r, 0)->bytes, data(r), 100);
    for (unsigned i = 0; i <= good; i++)
        assert_int_equal(tx_done(r, 0, i), i != 4);
}

/* More pieces than one frame may have. */
static void test_too_many_pieces(void **state)
{
    struct e1000e_rig *r = *state;
    rig_frame(data(r), 2000, 1);
    for (unsigned i = 0; i < E1K_IOVS + 4; i++) {
        tx_put(r, 0, RIG_DATA + 2 * i, 1);
        tx_kick(r, 0);
    }
    tx_put(r, 0, RIG_DATA, 60 | T_EOP);
    tx_put(r, 0, RIG_DATA, 60 | T_EOP);
    tx_kick(r, 0);
    assert_int_equal(r->net.lost, 1);
    assert_int_equal(r->net.sent, 1);
    for (unsigned i = 0; i < E1K_IOVS - 1; i++) {
        tx_put(r, 0, RIG_DATA + 2 * i, 1);
        tx_kick(r, 0);
    }
    wr(r, R_CTRL, rd(r, R_CTRL) | CTRL_VME);
    tx_put(r, 0, RIG_DATA + 2 * (E1K_IOVS - 1), 1 | T_EOP | T_VLE); /* as many as may be, and a head that is edited */
    tx_kick(r, 0);
    assert_int_equal(sent(r, 1)->len, E1K_IOVS + 4);
    for (unsigned i = 12; i < E1K_IOVS; i++)
        assert_int_equal(sent(r, 1)->bytes[i + 4], data(r)[2 * i]);
}

static void test_bad_rings(void **state)
{
    struct e1000e_rig *r = *state;
    static const uint32_t bad[][3] = {{0, 0, 0}, {0, 0, 3}, {256, 16, 3}, {256, 3, 16}, {256, 0xffff, 0}};
    rig_frame(data(r), 60, 1);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        tx_start(r);
        tx_put(r, 0, RIG_DATA, 60 | T_EOP);
        wr(r, R_TDLEN, bad[i][0]);
        wr(r, R_TDH, bad[i][1]);
        wr(r, R_TDT, bad[i][2]);
        run(r);
        assert_int_equal(r->net.sent, 0);
    }
    tx_start(r);
    wr(r, R_TDBAH, 0x7fffffff); /* nothing is there */
    wr(r, R_TDT, 5);
    run(r);
    assert_int_equal(rd(r, R_TDH), 0);
    assert_int_equal(r->net.sent, 0);
}

/* ---- checksums ---- */

/* The field holds the pseudo header's sum, as drivers put it. */
static size_t half_done(struct e1000e_rig *r, size_t l2, bool v6, unsigned proto, size_t payload)
{
    uint8_t *p = data(r);
    rig_frame(p, l2, 1);
    size_t len = rig_packet(p, l2, v6, proto, payload, 3), ip_len = v6 ? 40 : 20, l4 = l2 + ip_len;
    put16be(p + l4 + (proto == 6 ? 16 : 6), ref_pseudo(p + l2, proto, len - l4));
    return len;
}

static void expect_good(struct e1000e_rig *r, unsigned k, size_t l2, bool v6, unsigned proto, size_t len)
{
    const uint8_t *p = sent(r, k)->bytes;
    size_t l4 = l2 + (v6 ? 40 : 20);
    assert_int_equal(sent(r, k)->len, len);
    assert_true(ref_l4_good(p + l2, p + l4, proto, len - l4));
    assert_memory_equal(p, data(r), l4 + 6);
    size_t after = l4 + (proto == 6 ? 18 : 8);
    assert_memory_equal(p + after, data(r) + after, len - after);
}

static void test_checksum_legacy(void **state)
{
    struct e1000e_rig *r = *state;
    for (unsigned kind = 0; kind < 4; kind++) {
        bool v6 = kind & 1;
        unsigned proto = kind & 2 ? 17 : 6, l4 = v6 ? 54 : 34;
        size_t len = half_done(r, 14, v6, proto, 333);
        tx_put(r, 0, RIG_DATA, len | T_EOP | T_IC | (l4 + (proto == 6 ? 16 : 6)) << 16 | (uint64_t)l4 << 40);
        tx_kick(r, 0);
        expect_good(r, kind, 14, v6, proto, len);
    }
}

static void test_checksum_extended(void **state)
{
    struct e1000e_rig *r = *state;
    unsigned n = 0;
    for (unsigned kind = 0; kind < 16; kind++) {
        bool v6 = kind & 1;
        unsigned proto = kind & 2 ? 17 : 6, l2 = kind & 4 ? 18 : 14, l4 = l2 + (v6 ? 40 : 20);
        size_t len = half_done(r, l2, v6, proto, 100 + kind), cut = kind & 8 ? 33 : len;
        uint8_t sum[2];
        memcpy(sum, data(r) + l2 + 10, 2);
        if (!v6)
            st16(data(r) + l2 + 10, 0xdead); /* what was there does not count */
        tx_put(r, 0, tx_context(l2, l2 + 10, l4 - 1, l4, l4 + (proto == 6 ? 16 : 6), 0), T_DEXT);
        uint64_t popts = T_TXSM | (v6 ? 0 : T_IXSM);
        if (cut < len)
            tx_put(r, 0, RIG_DATA, cut | T_DATA | popts);
        tx_put(r, 0, RIG_DATA + (cut < len ? cut : 0), (cut < len ? len - cut : len) | T_DATA | T_EOP | popts);
        tx_kick(r, 0);
        if (!v6) {
            assert_memory_equal(sent(r, n)->bytes + l2 + 10, sum, 2);
            memcpy(data(r) + l2 + 10, sum, 2);
        }
        expect_good(r, n++, l2, v6, proto, len);
    }
}

/* Sums that end before the frame does. */
static void test_checksum_part(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t want[600];
    for (unsigned end = 60; end < 599; end += 89) {
        rig_frame(data(r), 600, end);
        memcpy(want, data(r), 600);
        put16be(want + 50, (uint16_t)~ref_sum(want + 34, end + 1 - 34, 0));
        tx_put(r, 0, tx_context(0, 0, 0, 34, 50, end), T_DEXT);
        tx_put(r, 0, RIG_DATA, 280 | T_DATA | T_TXSM);
        tx_put(r, 0, RIG_DATA + 280, 320 | T_DATA | T_EOP | T_TXSM);
        tx_kick(r, 0);
        assert_int_equal(sent(r, r->net.sent - 1)->len, 600);
        assert_memory_equal(sent(r, r->net.sent - 1)->bytes, want, 600);
    }
}

/* Contexts that lie: the frame leaves as it was. */
static void test_checksum_lies(void **state)
{
    struct e1000e_rig *r = *state;
    static const uint8_t lies[][6] = {
        /* ipcss ipcso ipcse tucss tucso tucse */
        {14, 99, 33, 34, 99, 0},   {99, 24, 100, 99, 24, 0},   {14, 24, 200, 34, 20, 0}, {34, 24, 33, 0, 16, 0},
        {14, 255, 33, 34, 255, 0}, {255, 255, 0, 255, 255, 0}, {14, 59, 33, 34, 59, 0},  {50, 24, 20, 50, 52, 40},
    };
    rig_frame(data(r), 60, 1);
    for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
        const uint8_t *l = lies[i];
        tx_put(r, 0, tx_context(l[0], l[1], l[2], l[3], l[4], l[5]), T_DEXT);
        tx_put(r, 0, RIG_DATA, 60 | T_DATA | T_EOP | T_IXSM | T_TXSM);
        tx_kick(r, 0);
        assert_int_equal(r->net.sent, i + 1);
        assert_int_equal(sent(r, i)->len, 60);
        assert_memory_equal(sent(r, i)->bytes, data(r), 60);
    }
    assert_int_equal(r->net.refused, 0);
}

/* ---- VLAN ---- */

static void test_vlan_insert(void **state)
{
    struct e1000e_rig *r = *state;
    rig_frame(data(r), 700, 1);
    tx_put(r, 0, RIG_DATA, 700 | T_EOP | T_VLE | 0xa123ull << 48);
    tx_kick(r, 0);
    assert_int_equal(sent(r, 0)->len, 700); /* VME is off */
    wr(r, R_CTRL, rd(r, R_CTRL) | CTRL_VME);
    tx_put(r, 0, RIG_DATA, 300 | T_DATA);
    tx_put(r, 0, RIG_DATA + 300, 400 | T_DATA | T_EOP | T_VLE | 0xa123ull << 48);
    tx_put(r, 0, RIG_DATA, 14 | T_EOP | T_VLE | 0xa123ull << 48);
    tx_kick(r, 0);
    assert_int_equal(sent(r, 1)->len, 704);
    assert_memory_equal(sent(r, 1)->bytes, data(r), 12);
    assert_int_equal(get32be(sent(r, 1)->bytes + 12), 0x8100a123);
    assert_memory_equal(sent(r, 1)->bytes + 16, data(r) + 12, 688);
    assert_int_equal(sent(r, 2)->len, 18);
    size_t len = half_done(r, 14, false, 6, 500);
    tx_put(r, 0, tx_context(14, 24, 33, 34, 50, 0), T_DEXT);
    tx_put(r, 0, RIG_DATA, len | T_DATA | T_EOP | T_VLE | T_IXSM | T_TXSM | 5ull << 48);
    tx_kick(r, 0);
    const uint8_t *p = sent(r, 3)->bytes;
    assert_int_equal(get32be(p + 12), 0x81000005);
    assert_true(ref_l4_good(p + 18, p + 38, 6, len - 34));
    assert_int_equal(ref_sum(p + 18, 20, 0), 0xffff);
}

/* ---- large frames ---- */

/* As Linux leaves it: no lengths, the sum that of the addresses and the protocol. */
static size_t large(struct e1000e_rig *r, size_t l2, bool v6, size_t payload)
{
    uint8_t *p = data(r);
    rig_frame(p, l2, 1);
    if (l2 == 18)
        put16be(p + 12, 0x8100);
    size_t len = rig_packet(p, l2, v6, 6, payload, 9), l4 = l2 + (v6 ? 40 : 20);
    put16be(p + l2 + (v6 ? 4 : 2), 0);
    if (!v6)
        put16be(p + l2 + 10, 0);
    put16be(p + l4 + 16, ref_pseudo(p + l2, 6, 0));
    return len;
}

static void send_large(struct e1000e_rig *r, size_t l2, bool v6, size_t len, unsigned mss, uint64_t last)
{
    size_t l4 = l2 + (v6 ? 40 : 20), at = 0;
    tx_put(r, 0,
           tx_context((unsigned)l2, (unsigned)l2 + 10, v6 ? 0 : (unsigned)l4 - 1, (unsigned)l4, (unsigned)l4 + 16, 0),
           (len - l4 - 20) | T_DEXT | T_TSE | 1 << 24 | (v6 ? 0 : 1 << 25) | (uint64_t)(l4 + 20) << 40 |
               (uint64_t)mss << 48);
    for (size_t part; at < len; at += part) {
        part = min_u64(at ? 16000 : l4 + 20, len - at);
        tx_put(r, 0, RIG_DATA + at,
               part | T_DATA | T_TSE | T_TXSM | (v6 ? 0 : T_IXSM) | (at + part == len ? last | T_EOP | T_RS : 0));
    }
    tx_kick(r, 0);
}

static void expect_segments(struct e1000e_rig *r, unsigned k, size_t l2, bool v6, size_t payload, unsigned mss)
{
    size_t l4 = l2 + (v6 ? 40 : 20), data_at = l4 + 20;
    const uint8_t *all = data(r) + data_at;
    for (size_t off = 0, i = 0; off < payload; off += mss, i++, k++) {
        const uint8_t *p = sent(r, k)->bytes;
        size_t n = min_u64(mss, payload - off);
        bool last = off + n == payload;
        assert_int_equal(sent(r, k)->len, data_at + n);
        assert_memory_equal(p + data_at, all + off, n);
        assert_true(ref_l4_good(p + l2, p + l4, 6, 20 + n));
        assert_int_equal(get32be(p + l4 + 4), (uint32_t)(0xfffff000u + off));
        assert_int_equal(p[l4 + 13], last ? 0x19 : 0x10);
        assert_int_equal(get16be(p + l2 + (v6 ? 4 : 2)), v6 ? 20 + n : 40 + n);
        if (!v6) {
            assert_int_equal(ref_sum(p + l2, 20, 0), 0xffff);
            assert_int_equal(get16be(p + l2 + 4), (uint16_t)(0xfffe + i));
        }
    }
    assert_int_equal(r->net.sent, k);
}

static void test_large(void **state)
{
    struct e1000e_rig *r = *state;
    static const size_t sizes[] = {1, 1448, 1449, 5000, 64000};
    for (unsigned kind = 0; kind < 4; kind++)
        for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
            size_t l2 = kind & 1 ? 18 : 14;
            bool v6 = kind & 2;
            unsigned before = r->net.sent;
            size_t len = large(r, l2, v6, sizes[i]);
            send_large(r, l2, v6, len, 1448, 0);
            expect_segments(r, before, l2, v6, sizes[i], 1448);
        }
    assert_int_equal(r->net.refused, 0);
}

static void test_large_vlan(void **state)
{
    struct e1000e_rig *r = *state;
    wr(r, R_CTRL, rd(r, R_CTRL) | CTRL_VME);
    size_t len = large(r, 14, false, 4000);
    send_large(r, 14, false, len, 1000, T_VLE | 77ull << 48);
    assert_int_equal(r->net.sent, 4);
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *p = sent(r, i)->bytes;
        assert_int_equal(sent(r, i)->len, 58 + 1000);
        assert_int_equal(get32be(p + 12), 0x81000000 | 77);
        assert_int_equal(ref_sum(p + 18, 20, 0), 0xffff);
        assert_true(ref_l4_good(p + 18, p + 38, 6, 1020));
        assert_memory_equal(p + 58, data(r) + 54 + 1000 * i, 1000);
    }
}

/* Contexts that contradict the headers: such a frame is lost, whatever else. */
static void test_large_lies(void **state)
{
    struct e1000e_rig *r = *state;
    static const struct {
        uint8_t ipcss, tucss, tucso;
        bool v4;
        uint16_t mss;
    } lies[] = {{14, 30, 46, true, 1000},   {14, 34, 50, true, 1},    {14, 34, 51, true, 1000},
                {14, 34, 50, false, 1000},  {34, 14, 30, true, 1000}, {200, 250, 255, true, 16},
                {255, 255, 255, false, 999}};
    large(r, 14, false, 4000);
    for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
        tx_put(r, 0, tx_context(lies[i].ipcss, 24, 33, lies[i].tucss, lies[i].tucso, 0),
               T_DEXT | T_TSE | 1 << 24 | lies[i].v4 << 25 | (uint64_t)lies[i].mss << 48);
        tx_put(r, 0, RIG_DATA, 4054 | T_DATA | T_TSE | T_TXSM | T_EOP);
        tx_kick(r, 0);
    }
    assert_int_equal(r->net.sent, 0);
    tx_put(r, 0, tx_context(14, 24, 33, 34, 50, 0), T_DEXT | T_TSE | 3 << 24 | 1000ull << 48);
    tx_put(r, 0, RIG_DATA, 40 | T_DATA | T_TSE | T_TXSM | T_EOP); /* no whole header */
    tx_put(r, 0, RIG_DATA, 54 | T_DATA | T_TSE | T_TXSM | T_EOP); /* no payload */
    tx_kick(r, 0);
    assert_in_range(r->net.sent, 0, 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup_tx, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {T(test_legacy),        T(test_write_back),      T(test_extended),
                                       T(test_ring_wraps),    T(test_interleaved),     T(test_pads_short),
                                       T(test_enable),        T(test_bad_frames),      T(test_too_many_pieces),
                                       T(test_bad_rings),     T(test_checksum_legacy), T(test_checksum_extended),
                                       T(test_checksum_part), T(test_checksum_lies),   T(test_vlan_insert),
                                       T(test_large),         T(test_large_vlan),      T(test_large_lies)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
