/* virtio-net's control queue: filters, addresses, offloads; and what several queue pairs do. */
#include "virtio_net_rig.h"

/* ---- the control queue ---- */

static unsigned command_on(struct card *t, struct vq *q, unsigned class, unsigned cmd, const void *data, uint32_t len)
{
    uint64_t at = t->buf[q->index];
    uint8_t *p = vr_hva(&t->r, at);
    p[0] = (uint8_t) class;
    p[1] = (uint8_t)cmd;
    p[2] = 0xaa;
    if (len)
        memcpy(p + 16, data, len);
    struct vbuf b[3] = {{at, 2}, {at + 16, len}, {at + 2, 1}};
    if (!len)
        b[1] = b[2];
    assert_true(vq_add(q, b, len ? 2 : 1, 1, p, false));
    vq_kick(q);
    uint32_t got;
    assert_ptr_equal(vq_wait(q, &got), p);
    assert_int_equal(got, 1);
    return p[2];
}

static unsigned command(struct card *t, unsigned class, unsigned cmd, const void *data, uint32_t len)
{
    return command_on(t, &t->q[t->d.features & F_MQ ? CONTROL : 2], class, cmd, data, len);
}

/* Whether a frame to `mac` comes in; buffers are there. */
static bool hears(struct card *t, const char *mac, unsigned vlan)
{
    uint8_t frame[64] = {0};
    struct vq *q = &t->q[0];
    memcpy(frame, mac, 6);
    frame[12] = vlan ? 0x81 : 8;
    frame[14] = (uint8_t)(vlan >> 8);
    frame[15] = (uint8_t)vlan;
    assert_true(give(t, NULL, frame, sizeof frame));
    vr_settle(&t->r);
    uint8_t *p = vq_get(q, NULL);
    if (!p)
        return false;
    struct vbuf b = {(uint64_t)(p - vr_hva(&t->r, 0)), BUFFER};
    assert_true(vq_add(q, &b, 0, 1, p, false));
    vq_kick(q);
    return true;
}

#define OURS  "\x52\x54\x00\x01\x02\x03"
#define OTHER "\x52\x54\x00\x09\x09\x09"
#define MULTI "\x33\x33\x00\x00\x00\x01"
#define BROAD "\xff\xff\xff\xff\xff\xff"

static void filters(void **state)
{
    static struct card t;
    const uint8_t off = 0, on = 1;
    card_init(&t, (struct virtio_net_config){0});
    card_up(&t, ALL);
    post(&t, 0, 32, BUFFER);
    assert_true(hears(&t, OTHER, 0)); /* nothing was said yet */
    assert_int_equal(command(&t, 0, 0, &off, 1), 0);
    assert_true(hears(&t, OURS, 0));
    assert_true(hears(&t, BROAD, 0));
    assert_false(hears(&t, OTHER, 0));
    assert_false(hears(&t, MULTI, 0));
    assert_int_equal(command(&t, 0, 1, &on, 1), 0); /* ALLMULTI */
    assert_true(hears(&t, MULTI, 0));
    assert_int_equal(command(&t, 0, 1, &off, 1), 0);
    uint8_t tables[4 + 6 + 4 + 6] = {1, 0, 0, 0};
    memcpy(tables + 4, OTHER, 6);
    tables[10] = 1;
    memcpy(tables + 14, MULTI, 6);
    assert_int_equal(command(&t, 1, 0, tables, sizeof tables), 0);
    assert_true(hears(&t, OTHER, 0));
    assert_true(hears(&t, MULTI, 0));
    assert_false(hears(&t, "\x52\x54\x00\x09\x09\x08", 0));
    assert_int_equal(command(&t, 0, 5, &on, 1), 0); /* NOBCAST */
    assert_false(hears(&t, BROAD, 0));
    assert_int_equal(command(&t, 0, 4, &on, 1), 0); /* NOUNI */
    assert_false(hears(&t, OURS, 0));
    assert_int_equal(command(&t, 0, 4, &off, 1), 0);
    assert_int_equal(command(&t, 0, 3, &on, 1), 0); /* NOMULTI */
    assert_false(hears(&t, MULTI, 0));
    assert_int_equal(command(&t, 0, 2, &on, 1), 0); /* ALLUNI */
    assert_true(hears(&t, "\x52\x54\x00\x09\x09\x08", 0));
    assert_false(hears(&t, OURS, 5));
    assert_int_equal(command(&t, 2, 0, "\x05\x00", 2), 0);
    assert_true(hears(&t, OURS, 5));
    assert_int_equal(command(&t, 2, 1, "\x05\x00", 2), 0);
    assert_false(hears(&t, OURS, 5));
    card_fini(&t);
}

/* More addresses than the card keeps: it hears all of the kind. */
static void big_table(void **state)
{
    static struct card t;
    static uint8_t tables[4 + 6 * 100 + 4];
    const uint8_t off = 0;
    card_init(&t, (struct virtio_net_config){0});
    card_up(&t, ALL);
    post(&t, 0, 32, BUFFER);
    assert_int_equal(command(&t, 0, 0, &off, 1), 0);
    tables[0] = 100;
    assert_int_equal(command(&t, 1, 0, tables, sizeof tables), 0);
    assert_true(hears(&t, OTHER, 0));
    assert_false(hears(&t, MULTI, 0));
    card_fini(&t);
}

static void own_address(void **state)
{
    static struct card t;
    const uint8_t off = 0;
    card_init(&t, (struct virtio_net_config){0});
    card_up(&t, ALL);
    post(&t, 0, 32, BUFFER);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(vd_config(&t.d, i, 1), our_mac[i]);
    assert_int_equal(vd_config(&t.d, 6, 2), 1);
    assert_int_equal(vd_config(&t.d, 8, 2), 1);
    assert_int_equal(command(&t, 0, 0, &off, 1), 0);
    assert_int_equal(command(&t, 1, 1, OTHER, 6), 0);
    assert_int_equal(vd_config(&t.d, 5, 1), 9);
    assert_true(hears(&t, OTHER, 0));
    assert_false(hears(&t, OURS, 0));
    vd_reset(&t.d);
    assert_int_equal(vd_config(&t.d, 5, 1), 3);
    card_fini(&t);
}

static void move_here(void *opaque)
{
    net_moved(opaque);
}

static void announcement(void **state)
{
    static struct card t;
    card_init(&t, (struct virtio_net_config){0});
    virtio_net_announce(t.net);
    assert_int_equal(vd_config(&t.d, 6, 2), 1); /* there is nobody to ask */
    card_up(&t, ALL);
    virtio_net_announce(t.net);
    vr_wait_irq(&t.r, VR_VECTOR0, 0);
    assert_int_equal(vd_config(&t.d, 6, 2), 3);
    assert_int_equal(command(&t, 3, 0, NULL, 0), 0);
    assert_int_equal(vd_config(&t.d, 6, 2), 1);
    ioloop_call(t.r.loop, move_here, &t.cable->n);
    assert_int_equal(vd_config(&t.d, 6, 2), 3);
    card_fini(&t);
}

static void bad_commands(void **state)
{
    static struct card t;
    static const uint8_t zeros[16];
    uint8_t huge[8] = {0xff, 0xff, 0xff, 0xff};
    card_init(&t, (struct virtio_net_config){0});
    card_up(&t, ALL);
    assert_int_equal(command(&t, 9, 0, zeros, 1), 1);
    assert_int_equal(command(&t, 0, 6, zeros, 1), 1);
    assert_int_equal(command(&t, 0, 0, NULL, 0), 1);
    assert_int_equal(command(&t, 1, 0, huge, 8), 1);
    assert_int_equal(command(&t, 1, 0, zeros, 4), 1);
    assert_int_equal(command(&t, 1, 1, zeros, 5), 1);
    assert_int_equal(command(&t, 1, 1, zeros, 7), 1);
    assert_int_equal(command(&t, 1, 2, zeros, 6), 1);
    assert_int_equal(command(&t, 2, 0, "\x00\x10", 2), 1);
    assert_int_equal(command(&t, 2, 2, zeros, 2), 1);
    assert_int_equal(command(&t, 3, 1, NULL, 0), 1);
    assert_int_equal(command(&t, 4, 0, "\x01\x00", 2), 1); /* one pair: no VIRTIO_NET_F_MQ */
    assert_int_equal(command(&t, 5, 0, "\x00\x00\x00\x00\x01\x00\x00\x00", 8), 1);
    assert_int_equal(command(&t, 5, 0, zeros, 8), 0);
    assert_int_equal(offloads_here(&t), 0);
    assert_int_equal(command(&t, 5, 0, "\x82\x00\x00\x00\x00\x00\x00\x00", 8), 0);
    assert_int_equal(offloads_here(&t), NET_CSUM | NET_TSO4);
    struct vq *q = &t.q[2];
    struct vbuf no_answer = {t.buf[2], 2};
    assert_true(vq_add(q, &no_answer, 1, 0, q, false));
    vq_kick(q);
    vd_wait_broken(&t.d);
    uint8_t frame[60] = {0};
    assert_true(give(&t, NULL, frame, sizeof frame)); /* and lost */
    card_up(&t, ALL);
    assert_int_equal(command(&t, 5, 0, zeros, 8), 0);
    card_fini(&t);
}

/* ---- several pairs ---- */

static void ip_frame(uint8_t *f, uint32_t src, uint32_t dst, unsigned sport, unsigned dport)
{
    memset(f, 0, 64);
    memcpy(f, our_mac, 6);
    f[12] = 8;
    f[14] = 0x45;
    f[23] = 6;
    put32be(f + 26, src);
    put32be(f + 30, dst);
    put16be(f + 34, (uint16_t)sport);
    put16be(f + 36, (uint16_t)dport);
}

static void send_from(struct card *t, unsigned pair, const uint8_t *frame)
{
    struct vq *q = &t->q[2 * pair + 1];
    uint8_t *p = hva(t, q->index, 0);
    memset(p, 0, HDR);
    memcpy(p + HDR, frame, 64);
    struct vbuf b = {buf(t, q->index, 0), HDR + 64};
    assert_true(vq_add(q, &b, 1, 0, p, false));
    vq_kick(q);
    assert_ptr_equal(vq_wait(q, NULL), p);
}

/* The pair a frame came in at. */
static unsigned came_at(struct card *t)
{
    vr_settle(&t->r);
    for (unsigned i = 0; i < PAIRS; i++) {
        uint8_t *p = vq_get(&t->q[2 * i], NULL);
        if (!p)
            continue;
        struct vbuf b = {(uint64_t)(p - vr_hva(&t->r, 0)), BUFFER};
        assert_true(vq_add(&t->q[2 * i], &b, 0, 1, p, false));
        vq_kick(&t->q[2 * i]);
        return i;
    }
    return PAIRS;
}

static void steering(void **state)
{
    static struct card t;
    uint8_t f[64];
    card_init(&t, (struct virtio_net_config){.queue_pairs = PAIRS});
    card_up(&t, ALL);
    assert_int_equal(vd_config(&t.d, 8, 2), PAIRS);
    for (unsigned i = 0; i < PAIRS; i++)
        post(&t, i, 8, BUFFER);
    ip_frame(f, 1, 2, 80, 5000);
    assert_true(give(&t, NULL, f, 64));
    assert_int_equal(came_at(&t), 0); /* one pair until the driver says more */
    assert_int_equal(command(&t, 4, 0, "\x05\x00", 2), 1);
    assert_int_equal(command(&t, 4, 0, "\x00\x00", 2), 1);
    assert_int_equal(command(&t, 4, 0, "\x04\x00", 2), 0);
    unsigned hit[PAIRS] = {0};
    for (unsigned i = 0; i < 200; i++) {
        ip_frame(f, 0x0a000202, 0x0a00020f, 80, 5000 + i);
        assert_true(give(&t, NULL, f, 64));
        hit[came_at(&t)]++;
    }
    for (unsigned i = 0; i < PAIRS; i++)
        assert_true(hit[i] > 20); /* unknown flows are spread */
    for (unsigned i = 0; i < 40; i++) {
        ip_frame(f, 0x0a00020f, 0x0a000202, 5000 + i, 80);
        send_from(&t, i % PAIRS, f);
        ip_frame(f, 0x0a000202, 0x0a00020f, 80, 5000 + i);
        assert_true(give(&t, NULL, f, 64));
        assert_int_equal(came_at(&t), i % PAIRS);
    }
    card_fini(&t);
}

/* A pair without buffers holds up nobody: its frames go by the first. */
static void starved_pair(void **state)
{
    static struct card t;
    uint8_t f[64];
    card_init(&t, (struct virtio_net_config){.queue_pairs = PAIRS});
    card_up(&t, ALL);
    assert_int_equal(command(&t, 4, 0, "\x04\x00", 2), 0);
    ip_frame(f, 1, 2, 3, 4);
    send_from(&t, 3, f);
    ip_frame(f, 2, 1, 4, 3);
    assert_false(give(&t, NULL, f, 64));
    unsigned resumes = cable_resumes(t.cable);
    post(&t, 0, 1, BUFFER);
    cable_wait_resume(t.cable, resumes);
    assert_true(give(&t, NULL, f, 64));
    assert_int_equal(came_at(&t), 0);
    resumes = cable_resumes(t.cable);
    post(&t, 3, 1, BUFFER);
    assert_true(give(&t, NULL, f, 64));
    assert_int_equal(came_at(&t), 3);
    card_fini(&t);
}

/* Without VIRTIO_NET_F_MQ the third queue is the control queue, whatever the card has. */
static void control_without_mq(void **state)
{
    static struct card t;
    const uint8_t on = 1;
    card_init(&t, (struct virtio_net_config){.queue_pairs = PAIRS});
    card_up(&t, ALL & ~F_MQ);
    assert_int_equal(command_on(&t, &t.q[2], 0, 0, &on, 1), 0);
    card_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filters),      cmocka_unit_test(big_table),          cmocka_unit_test(own_address),
        cmocka_unit_test(announcement), cmocka_unit_test(bad_commands),       cmocka_unit_test(steering),
        cmocka_unit_test(starved_pair), cmocka_unit_test(control_without_mq),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
