/* Receiving with the 82574: descriptor formats, rings, filters, VLAN tags, checksums. */
#include "e1000e_rig.h"

enum { DD = 1, EOP = 2, IXSM = 4, VP = 8, UDPCS = 0x10, TCPCS = 0x20, IPCS = 0x40 };
enum { RFCTL_EXTENDED = 1 << 15 };

/* ---- formats ---- */

struct got {
    uint32_t status, errors, len;
    uint16_t tag;
};

static struct got legacy(struct e1000e_rig *r, unsigned i)
{
    uint64_t w = rx_word(r, 16, i, 1);
    return (struct got){(uint8_t)(w >> 32), (uint8_t)(w >> 40), (uint16_t)w, (uint16_t)(w >> 48)};
}

static struct got extended(struct e1000e_rig *r, unsigned i)
{
    uint64_t w = rx_word(r, 16, i, 1);
    return (struct got){w & 0xfffff, (uint32_t)w >> 24, (uint16_t)(w >> 32), (uint16_t)(w >> 48)};
}

static void test_legacy(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t frame[1000];
    rx_start(r, 0, 0);
    for (unsigned i = 0; i < 5; i++) {
        rig_frame(frame, 100 + 180 * i, i);
        assert_true(give(r, frame, 100 + 180 * i));
        struct got g = legacy(r, i);
        assert_int_equal(g.status, DD | EOP | IXSM);
        assert_int_equal(g.errors, 0);
        assert_int_equal(g.len, 100 + 180 * i);
        assert_memory_equal(rx_buffer(r, i), frame, g.len);
        assert_int_equal(rx_buffer(r, i)[g.len], RIG_FILL);
        assert_int_equal(rx_word(r, 16, i, 0), RIG_BUFFERS + i * RIG_BUFFER); /* only the second half is written */
    }
    assert_int_equal(rd(r, R_RDH), 5);
    assert_int_equal(rd(r, R_ICR) & (C_RXT0 | C_RXQ0), C_RXT0 | C_RXQ0);
}

static void test_extended(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t frame[1000];
    rx_start(r, 0, RFCTL_EXTENDED);
    rig_frame(frame, sizeof frame, 1);
    give(r, frame, sizeof frame);
    struct got g = extended(r, 0);
    assert_int_equal(g.status, DD | EOP | IXSM);
    assert_int_equal(g.len, sizeof frame);
    assert_int_equal(rx_word(r, 16, 0, 0), 0);
    assert_memory_equal(rx_buffer(r, 0), frame, sizeof frame);
}

/* Buffers of 512 bytes: a frame over three descriptors. */
static void test_many_descriptors(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t frame[1300];
    rx_start(r, 2u << RCTL_BSIZE_SHIFT, RFCTL_EXTENDED);
    rig_frame(frame, sizeof frame, 3);
    give(r, frame, sizeof frame);
    for (unsigned i = 0; i < 3; i++) {
        struct got g = extended(r, i);
        assert_int_equal(g.status, i < 2 ? DD : DD | EOP | IXSM);
        assert_int_equal(g.len, i < 2 ? 512 : 1300 - 1024);
        assert_memory_equal(rx_buffer(r, i), frame + 512 * i, g.len);
        assert_int_equal(rx_buffer(r, i)[g.len], RIG_FILL);
    }
    assert_int_equal(rd(r, R_RDH), 3);
    assert_int_equal(rd(r, R_GPRC), 1);
}

static void test_buffer_sizes(void **state)
{
    static const struct {
        uint32_t rctl, size;
    } kinds[] = {{0, 2048},
                 {1u << 16, 1024},
                 {2u << 16, 512},
                 {3u << 16, 256},
                 {RCTL_BSEX | 1u << 16, 16384},
                 {RCTL_BSEX | 2u << 16, 8192},
                 {RCTL_BSEX | 3u << 16, 4096},
                 {3u << RCTL_FLXBUF_SHIFT, 3072}};
    struct e1000e_rig *r = *state;
    static uint8_t frame[16384 + 100];
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        rx_start(r, RCTL_LPE | kinds[i].rctl, RFCTL_EXTENDED);
        rig_frame(frame, kinds[i].size + 100, i);
        assert_true(give(r, frame, kinds[i].size + 100));
        assert_int_equal(extended(r, 0).len, kinds[i].size);
        assert_int_equal(extended(r, 1).len, 100);
        assert_memory_equal(rx_buffer(r, 0), frame, kinds[i].size);
        assert_memory_equal(rx_buffer(r, 1), frame + kinds[i].size, 100);
    }
}

/* Packet split: 128 bytes, then pages. */
static void test_split(void **state)
{
    struct e1000e_rig *r = *state;
    static uint8_t frame[9000];
    wr(r, R_PSRCTL, 1 | 1 << 8 | 2 << 16 | 1 << 24); /* 128, 1024, 2048, 1024: 4224 bytes */
    rx_start(r, RCTL_DTYP_SPLIT | RCTL_LPE, RFCTL_EXTENDED);
    rig_frame(frame, sizeof frame, 7);
    give(r, frame, 128);
    give(r, frame, 9000);
    assert_int_equal((uint32_t)rx_word(r, 32, 0, 1), DD | EOP | IXSM);
    assert_int_equal(rx_word(r, 32, 0, 1) >> 32, 128);
    assert_int_equal(rx_word(r, 32, 0, 2), 0);
    static const unsigned room[4] = {128, 1024, 2048, 1024};
    size_t at = 0;
    for (unsigned i = 1; i < 4; i++) {
        assert_int_equal((uint32_t)rx_word(r, 32, i, 1), i < 3 ? DD : DD | EOP | IXSM);
        for (unsigned k = 0; k < 4; k++) {
            size_t len = k ? rx_word(r, 32, i, 2) >> 16 * k & 0xffff : rx_word(r, 32, i, 1) >> 32 & 0xffff;
            assert_int_equal(len, min_u64(room[k], sizeof frame - at));
            assert_memory_equal(rx_buffer(r, i) + k * 0x1000, frame + at, len);
            assert_int_equal(rx_buffer(r, i)[k * 0x1000 + len], RIG_FILL);
            at += len;
        }
        assert_int_equal(rx_word(r, 32, i, 2) & 0xffff, 0); /* no header was split */
    }
    assert_int_equal(at, sizeof frame);
    assert_int_equal(rd(r, R_RDH), 4);
}

static uint32_t ref_crc(const uint8_t *p, size_t len)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < len * 8; i++) {
        bool in = p[i / 8] >> i % 8 & 1, out = crc & 1;
        crc = crc >> 1 ^ (in != out ? 0xedb88320u : 0);
    }
    return ~crc;
}

/* Short frames are as long as a wire makes them; who wants the CRC gets the wire's, even if the tag is taken out. */
static void test_short_and_crc(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t frame[300] = {0};
    rx_start(r, 0, 0);
    wr(r, R_RCTL, RCTL_EN);
    rig_frame(frame, 42, 1);
    give(r, frame, 42);
    assert_int_equal(legacy(r, 0).len, 64);
    assert_memory_equal(rx_buffer(r, 0), frame, 60);
    assert_int_equal(ld32(rx_buffer(r, 0) + 60), ref_crc(frame, 60));
    wr(r, R_CTRL, rd(r, R_CTRL) | CTRL_VME);
    rig_frame(frame, 300, 1);
    put16be(frame + 12, 0x8100);
    give(r, frame, 300);
    assert_int_equal(legacy(r, 1).len, 300);
    assert_memory_equal(rx_buffer(r, 1) + 12, frame + 16, 284);
    assert_int_equal(ld32(rx_buffer(r, 1) + 296), ref_crc(frame, 300));
    give(r, frame, 14); /* a header alone is a frame; less is none */
    give(r, frame, 13);
    assert_int_equal(rd(r, R_GPRC), 3);
    assert_int_equal(r->net.lost, 1);
}

static void test_length_limits(void **state)
{
    struct e1000e_rig *r = *state;
    static uint8_t frame[65536];
    rx_start(r, 0, 0);
    rig_frame(frame, sizeof frame, 1);
    give(r, frame, 1518);
    give(r, frame, 1519);
    assert_int_equal(rd(r, R_RDH), 1);
    assert_int_equal(rd(r, R_ROC), 1);
    rx_start(r, RCTL_LPE | 1u << RCTL_BSIZE_SHIFT, 0);
    give(r, frame, 9000);
    assert_int_equal(rd(r, R_RDH), 9);
    rx_post(r, 9);
    unsigned lost = r->net.lost;
    assert_true(give(r, frame, 65536)); /* more than this ring can ever hold */
    assert_int_equal(r->net.lost, lost + 1);
    assert_int_equal(rd(r, R_RDH), 9);
}

/* ---- rings ---- */

static void test_ring_wraps(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t frame[1400];
    rx_start(r, 3u << RCTL_BSIZE_SHIFT, RFCTL_EXTENDED); /* 256 bytes each */
    unsigned at = 0;
    for (unsigned i = 0; i < 200; i++) {
        size_t len = 60 + i * 7 % 1300;
        rig_frame(frame, len, i);
        assert_true(give(r, frame, len));
        for (size_t off = 0; off < len; off += 256) {
            struct got g = extended(r, at);
            bool last = off + 256 >= len;
            assert_int_equal(g.status, last ? DD | EOP | IXSM : DD);
            assert_int_equal(g.len, last ? len - off : 256);
            assert_memory_equal(rx_buffer(r, at), frame + off, g.len);
            st64(guest(r, RIG_RX + at * 16), RIG_BUFFERS + at * RIG_BUFFER);
            st64(guest(r, RIG_RX + at * 16 + 8), 0);
            at = (at + 1) % RIG_N;
            rx_post(r, 1);
        }
        assert_int_equal(rd(r, R_RDH), at);
    }
}

static void test_no_room_and_resume(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t frame[100];
    rx_start(r, 0, 0);
    for (unsigned i = 0; i < RIG_N - 1; i++) {
        rig_frame(frame, sizeof frame, i);
        assert_true(give(r, frame, sizeof frame));
    }
    rd(r, R_ICR);
    rig_frame(frame, sizeof frame, 99);
    assert_false(give(r, frame, sizeof frame));
    assert_int_equal(rd(r, R_ICR) & (C_RXDMT0 | C_RXQ0), C_RXDMT0 | C_RXQ0);
    assert_int_equal(rd(r, R_RNBC), 1);
    assert_true(r->net.held);
    assert_null(r->loop.timer[0]); /* nobody waits for a ring that is empty */
    rx_post(r, 1);
    assert_false(r->net.held);
    assert_memory_equal(rx_buffer(r, RIG_N - 1), frame, sizeof frame);
    assert_int_equal(rd(r, R_RDH), 0);
    unsigned resumes = r->net.resumes;
    rx_post(r, 1); /* nobody waits */
    assert_int_equal(r->net.resumes, resumes);
    assert_int_equal(r->net.lost, 0);
}

/* The guest switches receiving off, or resets, while a frame waits: it is not kept for ever. */
static void test_waiting_ends(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t frame[100];
    rig_frame(frame, sizeof frame, 1);
    for (unsigned how = 0; how < 3; how++) {
        rx_start(r, 0, 0);
        wr(r, R_RDT, 0);
        assert_false(give(r, frame, sizeof frame));
        if (how == 0)
            wr(r, R_RCTL, 0);
        else if (how == 1)
            wr(r, R_CTRL, CTRL_RST);
        else
            e1000e_reset(r->card);
        run(r);
        assert_false(r->net.held);
        assert_int_equal(rx_buffer(r, 0)[0], RIG_FILL);
    }
}

/* A frame that needs more than the guest will give before it sees some used. */
static void test_too_few_for_ever(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t frame[1400];
    rx_start(r, 3u << RCTL_BSIZE_SHIFT, 0);
    wr(r, R_RDT, 3);
    rig_frame(frame, sizeof frame, 1);
    assert_false(give(r, frame, sizeof frame)); /* 6 buffers */
    assert_true(r->net.held);
    assert_int_equal(fake_loop_timers(&r->loop), 1);
    assert_false(r->net.held);
    assert_int_equal(r->net.lost, 1);
    assert_int_equal(rd(r, R_RDH), 0);
    assert_true(give(r, frame, 700)); /* the next fits */
    assert_int_equal(rd(r, R_RDH), 3);
    wr(r, R_RDT, 5);
    assert_false(give(r, frame, sizeof frame));
    wr(r, R_RDT, 12); /* this time there is room soon enough */
    run(r);
    assert_false(r->net.held);
    assert_int_equal(rd(r, R_RDH), 9);
    assert_int_equal(fake_loop_timers(&r->loop), 1);
    assert_int_equal(r->net.lost, 1);
}

/* RDMTS: half of 16, reached or passed. */
static void test_threshold(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t frame[1400];
    rig_frame(frame, sizeof frame, 1);
    rx_start(r, 3u << RCTL_BSIZE_SHIFT, 0);
    give(r, frame, 1400); /* 6 of 15: 9 are left */
    assert_int_equal(rd(r, R_ICR) & C_RXDMT0, 0);
    give(r, frame, 700); /* 6 are left: past 8 */
    assert_int_equal(rd(r, R_ICR) & C_RXDMT0, C_RXDMT0);
    give(r, frame, 700);
    assert_int_equal(rd(r, R_ICR) & C_RXDMT0, 0);
    rx_start(r, 1u << RCTL_RDMTS_SHIFT, 0);
    for (unsigned i = 0; i < 12; i++) {
        give(r, frame, 100);
        assert_int_equal(rd(r, R_ICR) & C_RXDMT0, i == 10 ? C_RXDMT0 : 0);
    }
}

/* Heads, tails and lengths that contradict another: nothing happens. */
static void test_bad_rings(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t frame[100];
    rig_frame(frame, sizeof frame, 1);
    static const uint32_t bad[][3] = {{0, 0, 0}, {256, 16, 3}, {256, 3, 16}, {256, 0xffff, 0xffff}, {128, 0, 9}};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        rx_start(r, 0, 0);
        wr(r, R_RDLEN, bad[i][0]);
        wr(r, R_RDH, bad[i][1]);
        wr(r, R_RDT, bad[i][2]);
        unsigned lost = r->net.lost;
        assert_true(give(r, frame, sizeof frame));
        assert_int_equal(r->net.lost, lost + 1);
        assert_int_equal(rd(r, R_RDH), bad[i][1]);
    }
    wr(r, R_PSRCTL, 0); /* buffers of no bytes */
    rx_start(r, RCTL_DTYP_SPLIT, 0);
    assert_true(give(r, frame, sizeof frame));
    assert_int_equal(rd(r, R_RDH), 0);
}

/* The ring becomes another between a frame's first look and its second. */
static void test_ring_vanishes(void **state)
{
    struct e1000e_rig *r = *state;
    static const unsigned head[] = {0, 0x100, 1, 6};
    uint8_t frame[1400];
    rig_frame(frame, sizeof frame, 1);
    for (unsigned how = 0; how < 4; how++) {
        rx_start(r, 3u << RCTL_BSIZE_SHIFT, 0);
        wr(r, R_RDT, 3);
        assert_false(give(r, frame, sizeof frame));
        if (how == 0)
            wr(r, R_RDLEN, 0);
        else if (how == 1)
            wr(r, R_RDH, 0x100);
        else if (how == 2)
            wr(r, R_RCTL, rd(r, R_RCTL) & ~(3u << RCTL_BSIZE_SHIFT)); /* one buffer is enough now */
        else
            wr(r, R_RDLEN, 128); /* it can hold 7 */
        wr(r, R_RDT, how == 2 ? 3 : 7);
        run(r);
        fake_loop_timers(&r->loop);
        assert_false(r->net.held);
        assert_int_equal(rd(r, R_RDH), head[how]);
    }
}

/* Memory that is not there takes nothing, and nothing lands elsewhere. */
static void test_bad_memory(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t frame[100];
    rig_frame(frame, sizeof frame, 1);
    memset(guest(r, 0), RIG_FILL, 4096);
    rx_start(r, 0, 0);
    wr(r, R_RDBAH, 0x100);
    assert_true(give(r, frame, sizeof frame));
    assert_int_equal(rd(r, R_RDH), 1);
    for (unsigned i = 0; i < 4096; i++)
        assert_int_equal(guest(r, 0)[i], RIG_FILL);
    rx_start(r, 0, 0);
    st64(guest(r, RIG_RX), UINT64_C(0x7fffffffffff));
    assert_true(give(r, frame, sizeof frame));
    assert_int_equal(legacy(r, 0).status & DD, DD);
    rx_start(r, 0, 0);
    st64(guest(r, RIG_RX), RIG_RAM - 50); /* half of it */
    assert_true(give(r, frame, sizeof frame));
    assert_memory_equal(guest(r, RIG_RAM - 50), frame, 50);
    assert_int_equal(r->pci.sent, 0);
}

/* ---- filters ---- */

static bool passes(struct e1000e_rig *r, const uint8_t *dest, int vlan)
{
    uint8_t frame[100];
    rig_frame(frame, sizeof frame, 1);
    memcpy(frame, dest, 6);
    if (vlan >= 0) {
        put16be(frame + 12, 0x8100);
        put16be(frame + 14, (uint16_t)(vlan | 0xe000));
    }
    unsigned before = rd(r, R_RDH);
    assert_true(give(r, frame, sizeof frame));
    bool took = rd(r, R_RDH) != before;
    rx_post(r, took);
    return took;
}

static void test_exact(void **state)
{
    struct e1000e_rig *r = *state;
    static const uint8_t other[6] = {0x52, 0x54, 0, 0xab, 0xcd, 0xee}, third[6] = {2, 1, 1, 1, 1, 1};
    rx_start(r, 0, 0);
    assert_true(passes(r, rig_mac, -1));
    assert_false(passes(r, other, -1));
    wr(r, R_RA + 8 * 15, ld32(third));
    wr(r, R_RA + 8 * 15 + 4, ld16(third + 4));
    assert_false(passes(r, third, -1)); /* not valid */
    wr(r, R_RA + 8 * 15 + 4, ld16(third + 4) | 1u << 31);
    assert_true(passes(r, third, -1));
    wr(r, R_RA + 4, 0);
    assert_false(passes(r, rig_mac, -1));
    wr(r, R_RCTL, rd(r, R_RCTL) | RCTL_UPE);
    assert_true(passes(r, other, -1));
    assert_false(passes(r, (const uint8_t[6]){0x33, 0x33, 0, 0, 0, 1}, -1));
}

static void test_multicast(void **state)
{
    struct e1000e_rig *r = *state;
    static const uint8_t group[6] = {1, 0, 0x5e, 0x12, 0x34, 0x56}, all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    static const unsigned shift[4] = {4, 3, 2, 0};
    rx_start(r, 0, 0);
    assert_true(passes(r, all, -1));
    wr(r, R_RCTL, rd(r, R_RCTL) & ~(uint32_t)RCTL_BAM);
    assert_false(passes(r, all, -1));
    for (unsigned mo = 0; mo < 4; mo++) {
        unsigned hash = 0x5634u >> shift[mo] & 0xfff;
        rx_start(r, mo << RCTL_MO_SHIFT, 0);
        assert_false(passes(r, group, -1));
        wr(r, R_MTA + hash / 32 * 4, 1u << hash % 32);
        assert_true(passes(r, group, -1));
        wr(r, R_MTA + hash / 32 * 4, ~(1u << hash % 32));
        assert_false(passes(r, group, -1));
        wr(r, R_MTA + hash / 32 * 4, 0);
    }
    wr(r, R_RCTL, rd(r, R_RCTL) | RCTL_MPE);
    assert_true(passes(r, group, -1));
    assert_false(passes(r, (const uint8_t[6]){0x52, 0, 0, 0, 0, 1}, -1));
}

static void test_vlan_filter(void **state)
{
    struct e1000e_rig *r = *state;
    rx_start(r, RCTL_VFE, 0);
    wr(r, R_VFTA + 4 * (1234 / 32), 1u << 1234 % 32);
    wr(r, R_VFTA + 4 * 127, 1u << 31);
    assert_true(passes(r, rig_mac, -1));
    assert_true(passes(r, rig_mac, 1234));
    assert_true(passes(r, rig_mac, 4095));
    assert_false(passes(r, rig_mac, 1235));
    assert_false(passes(r, rig_mac, 0));
    wr(r, R_RCTL, rd(r, R_RCTL) & ~(uint32_t)RCTL_VFE);
    assert_true(passes(r, rig_mac, 1235));
}

static void test_vlan_strip(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t frame[1400];
    rx_start(r, 2u << RCTL_BSIZE_SHIFT, RFCTL_EXTENDED);
    rig_frame(frame, sizeof frame, 1);
    put16be(frame + 12, 0x8100);
    put16be(frame + 14, 0xa123);
    give(r, frame, 500); /* it stays in the frame */
    assert_int_equal(extended(r, 0).status & VP, 0);
    assert_int_equal(extended(r, 0).len, 500);
    wr(r, R_CTRL, rd(r, R_CTRL) | CTRL_VME);
    give(r, frame, 500);
    give(r, frame, 1400);
    assert_int_equal(extended(r, 1).status, DD | EOP | VP | IXSM);
    assert_int_equal(extended(r, 1).len, 496);
    assert_int_equal(extended(r, 1).tag, 0xa123);
    assert_memory_equal(rx_buffer(r, 1), frame, 12);
    assert_memory_equal(rx_buffer(r, 1) + 12, frame + 16, 484);
    assert_int_equal(rx_buffer(r, 1)[496], RIG_FILL);
    assert_int_equal(extended(r, 2).len, 512);
    assert_int_equal(extended(r, 4).len, 1396 - 1024);
    assert_int_equal(extended(r, 4).status, DD | EOP | VP | IXSM);
    assert_memory_equal(rx_buffer(r, 2) + 12, frame + 16, 500);
    assert_memory_equal(rx_buffer(r, 3), frame + 516, 512);
    assert_memory_equal(rx_buffer(r, 4), frame + 1028, 372);
    wr(r, R_VET, 0x9100); /* another type is a tag now */
    give(r, frame, 500);
    assert_int_equal(extended(r, 5).status & VP, 0);
}

/* ---- checksums ---- */

struct sums {
    uint32_t status, errors;
};

static struct sums judge(struct e1000e_rig *r, const uint8_t *frame, size_t len)
{
    unsigned at = rd(r, R_RDH);
    assert_true(give(r, frame, len));
    struct got g = extended(r, at);
    assert_int_equal(g.status & (DD | EOP), DD | EOP);
    rx_post(r, 1);
    return (struct sums){g.status & (IXSM | UDPCS | TCPCS | IPCS), g.errors};
}

static void expect_sums(struct e1000e_rig *r, const uint8_t *frame, size_t len, uint32_t status, uint32_t errors)
{
    struct sums s = judge(r, frame, len);
    assert_int_equal(s.status, status);
    assert_int_equal(s.errors, errors);
}

enum { TCPE = 0x20, IPE = 0x40 };

/* Good ones, then one bit wrong in every byte that is covered. */
static void check_kind(struct e1000e_rig *r, size_t l2, bool v6, unsigned proto, size_t payload)
{
    uint8_t frame[700];
    rig_frame(frame, l2, 1);
    if (l2 == 18)
        put16be(frame + 12, 0x8100);
    size_t len = rig_packet(frame, l2, v6, proto, payload, 5), l4 = l2 + (v6 ? 40 : 20);
    uint32_t ip = v6 ? 0 : IPCS, want = ip | TCPCS | (proto == 17 ? UDPCS : 0);
    expect_sums(r, frame, len, want, 0);
    frame[l4 + 3] ^= 0x10;
    expect_sums(r, frame, len, want, TCPE);
    frame[l4 + 3] ^= 0x10;
    if (payload) {
        frame[len - 1] ^= 1;
        expect_sums(r, frame, len, want, TCPE);
        frame[len - 1] ^= 1;
    }
    frame[l2 + (v6 ? 8 : 12)] ^= 0x80; /* an address */
    expect_sums(r, frame, len, want, v6 ? TCPE : TCPE | IPE);
    frame[l2 + (v6 ? 8 : 12)] ^= 0x80;
    memset(frame + len, 0x77, 9); /* what follows the packet is not summed */
    expect_sums(r, frame, len + 9, want, 0);
    wr(r, R_RXCSUM, 0x100);
    expect_sums(r, frame, len, v6 ? IXSM : IPCS, 0);
    wr(r, R_RXCSUM, 0x200);
    expect_sums(r, frame, len, want & ~(uint32_t)IPCS, 0);
    wr(r, R_RXCSUM, 0);
    expect_sums(r, frame, len, IXSM, 0);
    wr(r, R_RXCSUM, 0x300);
}

static void test_checksums(void **state)
{
    struct e1000e_rig *r = *state;
    rx_start(r, 0, RFCTL_EXTENDED);
    for (size_t payload = 0; payload < 600; payload = payload * 2 + 1)
        for (unsigned kind = 0; kind < 8; kind++)
            check_kind(r, kind & 1 ? 18 : 14, kind & 2, kind & 4 ? 17 : 6, payload);
}

static void test_checksums_not_made(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t frame[300];
    rig_frame(frame, 14, 1);
    rx_start(r, 0, RFCTL_EXTENDED);
    size_t len = rig_packet(frame, 14, false, 17, 100, 1);
    put16be(frame + 40, 0); /* UDP without one */
    expect_sums(r, frame, len, IPCS, 0);
    len = rig_packet(frame, 14, false, 6, 100, 1);
    put16be(frame + 20, 0x2000); /* a fragment */
    put16be(frame + 24, 0);
    put16be(frame + 24, (uint16_t)~ref_sum(frame + 14, 20, 0));
    expect_sums(r, frame, len, IPCS, 0);
    len = rig_packet(frame, 14, false, 6, 100, 1);
    put16be(frame + 16, 400); /* longer than the frame */
    expect_sums(r, frame, len, IXSM, 0);
    len = rig_packet(frame, 14, false, 6, 100, 1);
    frame[14] = 0x44; /* a header of 16 bytes */
    expect_sums(r, frame, len, IXSM, 0);
    frame[14] = 0x4f; /* and of 60, in a short frame */
    expect_sums(r, frame, 60, IXSM, 0);
    len = rig_packet(frame, 14, false, 50, 100, 1); /* another protocol */
    assert_int_equal(judge(r, frame, len).status, IPCS);
    len = rig_packet(frame, 14, true, 6, 100, 1);
    expect_sums(r, frame, len, TCPCS, 0);
    wr(r, R_RFCTL, RFCTL_EXTENDED | 1 << 11); /* IPv6 is not summed */
    expect_sums(r, frame, len, IXSM, 0);
    wr(r, R_RFCTL, RFCTL_EXTENDED);
    put16be(frame + 18, 5); /* less than a TCP header */
    expect_sums(r, frame, len, IXSM, 0);
}

/* In a legacy descriptor the errors have their own byte. */
static void test_checksums_legacy(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t frame[300];
    rig_frame(frame, 14, 1);
    rx_start(r, 0, 0);
    size_t len = rig_packet(frame, 14, false, 6, 100, 1);
    give(r, frame, len);
    assert_int_equal(legacy(r, 0).status, DD | EOP | TCPCS | IPCS);
    assert_int_equal(legacy(r, 0).errors, 0);
    frame[24] ^= 1;
    give(r, frame, len);
    assert_int_equal(legacy(r, 1).errors, IPE);
}

/* A frame in more pieces than anybody gives is lost; the most that may come is not. */
static void test_pieces(void **state)
{
    struct e1000e_rig *r = *state;
    static uint8_t frame[1400];
    struct iovec iov[NET_IOVS + 2];
    rig_frame(frame, sizeof frame, 1);
    rx_start(r, 0, 0);
    wr(r, R_RCTL, RCTL_EN);
    for (unsigned i = 0; i < NET_IOVS + 2; i++)
        iov[i] = (struct iovec){frame + 20 * i, 20};
    assert_true(r->net.peer.receive(r->net.peer.opaque, NULL, iov, NET_IOVS + 1));
    run(r);
    assert_int_equal(legacy(r, 0).len, 20 * (NET_IOVS + 1) + 4);
    assert_memory_equal(rx_buffer(r, 0), frame, 20 * (NET_IOVS + 1));
    assert_true(r->net.peer.receive(r->net.peer.opaque, NULL, iov, NET_IOVS + 2));
    assert_int_equal(r->net.lost, 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {T(test_legacy),
                                       T(test_extended),
                                       T(test_many_descriptors),
                                       T(test_buffer_sizes),
                                       T(test_split),
                                       T(test_short_and_crc),
                                       T(test_length_limits),
                                       T(test_ring_wraps),
                                       T(test_no_room_and_resume),
                                       T(test_waiting_ends),
                                       T(test_too_few_for_ever),
                                       T(test_threshold),
                                       T(test_bad_rings),
                                       T(test_ring_vanishes),
                                       T(test_bad_memory),
                                       T(test_exact),
                                       T(test_multicast),
                                       T(test_vlan_filter),
                                       T(test_vlan_strip),
                                       T(test_checksums),
                                       T(test_checksums_not_made),
                                       T(test_checksums_legacy),
                                       T(test_pieces)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
