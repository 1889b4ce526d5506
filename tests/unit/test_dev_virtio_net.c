/* virtio-net as a driver sees it: frames both ways, resets, chains that make no sense. */
#include "virtio_net_rig.h"

/* ---- transmit ---- */

static void expect_sent(struct card *t, unsigned i, const uint8_t *bytes, size_t len)
{
    struct seen *s = &t->cable->seen[i % KEPT];
    assert_int_equal(s->len, len);
    assert_memory_equal(s->bytes, bytes, len < sizeof s->bytes ? len : sizeof s->bytes);
}

/* Header and frame in one buffer, in two, in many; plain and by indirect tables. */
static void transmit_shapes(struct card *t)
{
    struct vq *q = &t->q[1];
    uint8_t *p = hva(t, 1, 0);
    for (unsigned i = 0; i < 120; i++) {
        unsigned len = 60 + i, cut[4] = {HDR, HDR + i % 50, HDR + len, 5};
        memset(p, 0, HDR);
        fill(p + HDR, len, i);
        struct vbuf b[4];
        uint64_t at = buf(t, 1, 0);
        unsigned n = 0, from = 0, all = HDR + len;
        for (unsigned k = 0; k < 1 + i % 4 && from < all; k++) {
            unsigned to = i % 4 == 3 ? from + cut[3] : cut[k] > from ? cut[k] : all;
            to = k == i % 4 || to > all ? all : to;
            b[n++] = (struct vbuf){at + from, to - from};
            from = to;
        }
        assert_true(vq_add(q, b, n, 0, p, i & 1));
        vq_kick(q);
        uint32_t got;
        assert_ptr_equal(vq_wait(q, &got), p);
        assert_int_equal(got, 0);
        assert_int_equal(t->cable->sent, i + 1);
        expect_sent(t, i, p + HDR, len);
        assert_false(t->cable->seen[i % KEPT].has_hdr);
    }
    assert_true(t->cable->flushes > 0);
}

static void transmits(void **state)
{
    static struct card t;
    card_init(&t, (struct virtio_net_config){.options.packed = true});
    card_up(&t, ALL);
    transmit_shapes(&t);
    t.cable->sent = 0;
    card_up(&t, ~UINT64_C(0));
    transmit_shapes(&t);
    t.cable->sent = 0;
    card_up(&t, 0);
    transmit_shapes(&t);
    card_fini(&t);
}

static void many_at_once(void **state)
{
    static struct card t;
    card_init(&t, (struct virtio_net_config){0});
    card_up(&t, ALL);
    struct vq *q = &t.q[1];
    for (unsigned i = 0; i < SIZE; i++) {
        memset(hva(&t, 1, i), 0, HDR);
        fill(hva(&t, 1, i) + HDR, 100, i);
        struct vbuf b = {buf(&t, 1, i), HDR + 100};
        assert_true(vq_add(q, &b, 1, 0, hva(&t, 1, i), false));
    }
    vq_kick(q);
    assert_int_equal(q->kicks, 1);
    for (unsigned i = 0; i < SIZE; i++) {
        assert_ptr_equal(vq_wait(q, NULL), hva(&t, 1, i));
        expect_sent(&t, i, hva(&t, 1, i) + HDR, 100);
    }
    card_fini(&t);
}

/* What the header asks for goes to the network, and nonsense ends at the card. */
static void transmit_offloads(void **state)
{
    static struct card t;
    card_init(&t, (struct virtio_net_config){0});
    card_up(&t, ALL);
    struct vq *q = &t.q[1];
    uint8_t *p = hva(&t, 1, 0);
    const struct net_hdr good = {.flags = 1, .csum_start = 34, .csum_offset = 16};
    const struct net_hdr tso = {.flags = 1, .gso_type = 1, .gso_size = 500, .csum_start = 34, .csum_offset = 16};
    const struct net_hdr bad[] = {{.flags = 1, .csum_start = 2000, .csum_offset = 16},
                                  {.flags = 1, .csum_start = 34, .csum_offset = 0xffff},
                                  {.flags = 0, .gso_type = 1, .gso_size = 500},
                                  {.flags = 1, .gso_type = 3, .gso_size = 500, .csum_start = 34, .csum_offset = 16},
                                  {.flags = 1, .gso_type = 1, .gso_size = 0, .csum_start = 34, .csum_offset = 16}};
    for (unsigned i = 0; i < 2 + sizeof bad / sizeof *bad; i++) {
        const struct net_hdr *h = i == 0 ? &good : i == 1 ? &tso : &bad[i - 2];
        memset(p, 0, HDR);
        memcpy(p, h, sizeof *h);
        fill(p + HDR, 1000, i);
        struct vbuf b = {buf(&t, 1, 0), HDR + 1000};
        assert_true(vq_add(q, &b, 1, 0, p, false));
        vq_kick(q);
        assert_ptr_equal(vq_wait(q, NULL), p);
        if (i < 2)
            assert_memory_equal(&t.cable->seen[i].hdr, h, sizeof *h);
    }
    assert_int_equal(t.cable->sent, 2);
    assert_int_equal(dropped(&t), 5);
    struct vbuf runt = {buf(&t, 1, 0), HDR};
    assert_true(vq_add(q, &runt, 1, 0, p, false));
    vq_kick(q);
    assert_ptr_equal(vq_wait(q, NULL), p);
    assert_int_equal(dropped(&t), 6);
    assert_false(vd_status(&t.d) & VIRTIO_NEEDS_RESET);
    card_fini(&t);
}

/* ---- receive ---- */

static void expect_received(struct card *t, unsigned pair, unsigned len, unsigned number, unsigned buffers)
{
    uint8_t frame[8192], all[8192 + HDR];
    uint32_t got, have = 0;
    fill(frame, len, number);
    for (unsigned i = 0; i < buffers; i++) {
        uint8_t *p = vq_wait(&t->q[2 * pair], &got);
        memcpy(all + have, p, got);
        have += got;
    }
    assert_int_equal(have, len + HDR);
    assert_int_equal(ld16(all + 10), buffers);
    assert_memory_equal(all + HDR, frame, len);
}

static void receives(void **state)
{
    static const uint64_t features[] = {ALL, ~UINT64_C(0), 0, F_MRG_RXBUF};
    static struct card t;
    uint8_t frame[8192];
    card_init(&t, (struct virtio_net_config){.options.packed = true});
    for (unsigned f = 0; f < 4; f++) {
        card_up(&t, features[f]);
        post(&t, 0, SIZE, BUFFER);
        for (unsigned i = 0; i < 20; i++) {
            fill(frame, 60 + 70 * i, i);
            assert_true(give(&t, NULL, frame, 60 + 70 * i));
            expect_received(&t, 0, 60 + 70 * i, i, 1);
        }
        bool merges = t.d.features & F_MRG_RXBUF;
        fill(frame, 6000, 99);
        uint64_t before = dropped(&t);
        assert_true(give(&t, NULL, frame, 6000));
        assert_int_equal(dropped(&t) - before, merges ? 0 : 1);
        if (merges)
            expect_received(&t, 0, 6000, 99, 3);
    }
    card_fini(&t);
}

/* One interrupt for what came together. */
struct burst {
    struct card *t;
    unsigned n;
};

static void burst_here(void *opaque)
{
    struct burst *b = opaque;
    uint8_t frame[100];
    struct iovec iov = {frame, sizeof frame};
    for (unsigned i = 0; i < b->n; i++) {
        fill(frame, sizeof frame, i);
        assert_true(net_deliver(&b->t->cable->n, NULL, &iov, 1, sizeof frame));
    }
}

static void burst(void **state)
{
    static struct card t;
    card_init(&t, (struct virtio_net_config){0});
    card_up(&t, ALL & ~VIRTIO_F_EVENT_IDX);
    post(&t, 0, SIZE, BUFFER);
    unsigned before = vr_irqs(&t.r, vq_vector(&t.q[0]));
    struct burst b = {&t, 30};
    ioloop_call(t.r.loop, burst_here, &b);
    for (unsigned i = 0; i < 30; i++)
        expect_received(&t, 0, 100, i, 1);
    vr_settle(&t.r);
    assert_int_equal(vr_irqs(&t.r, vq_vector(&t.q[0])), before + 1);
    card_fini(&t);
}

/* Without buffers a frame is not taken, and the network is told once there are some; nobody asks in between. */
static void no_buffers(void **state)
{
    static struct card t;
    uint8_t frame[4000];
    card_init(&t, (struct virtio_net_config){.options.packed = true});
    for (unsigned packed = 0; packed < 2; packed++) {
        card_up(&t, packed ? ~UINT64_C(0) : ALL);
        unsigned resumes = cable_resumes(t.cable);
        fill(frame, 100, 1);
        assert_false(give(&t, NULL, frame, 100));
        assert_false(give(&t, NULL, frame, 100));
        vr_settle(&t.r);
        assert_int_equal(cable_resumes(t.cable), resumes);
        post(&t, 0, 1, BUFFER);
        cable_wait_resume(t.cable, resumes);
        assert_true(give(&t, NULL, frame, 100));
        expect_received(&t, 0, 100, 1, 1);
        /* One buffer is not enough for this one: the next must be told of, too. */
        resumes = cable_resumes(t.cable);
        post(&t, 0, 1, BUFFER);
        fill(frame, 4000, 2);
        assert_false(give(&t, NULL, frame, 4000));
        assert_int_equal(cable_resumes(t.cable), resumes);
        struct vbuf b = {buf(&t, 0, 1), BUFFER};
        assert_true(vq_add(&t.q[0], &b, 0, 1, hva(&t, 0, 1), false));
        vq_kick(&t.q[0]);
        cable_wait_resume(t.cable, resumes);
        assert_true(give(&t, NULL, frame, 4000));
        expect_received(&t, 0, 4000, 2, 2);
        assert_int_equal(dropped(&t), 0);
    }
    card_fini(&t);
}

/* A full ring that is too small for a frame holds the network up for half a second, not for ever. */
static void ring_too_small(void **state)
{
    static struct card t;
    uint8_t frame[8000];
    card_init(&t, (struct virtio_net_config){0});
    card_up(&t, ALL);
    post(&t, 0, SIZE, 64);
    unsigned resumes = cable_resumes(t.cable);
    fill(frame, sizeof frame, 1);
    assert_false(give(&t, NULL, frame, sizeof frame));
    cable_wait_resume(t.cable, resumes);
    fill(frame, 60, 2);
    assert_true(give(&t, NULL, frame, 60));
    expect_received(&t, 0, 60, 2, 2);
    card_fini(&t);
}

static void receive_offloads(void **state)
{
    static struct card t;
    uint8_t frame[1514];
    const struct net_hdr valid = {.flags = NET_HDR_DATA_VALID};
    card_init(&t, (struct virtio_net_config){0});
    card_up(&t, ALL & ~F_GUEST_CSUM & ~F_GUEST_TSO4);
    assert_int_equal(offloads_here(&t) & (NET_CSUM | NET_TSO4), 0);
    post(&t, 0, 4, BUFFER);
    fill(frame, sizeof frame, 0);
    assert_true(give(&t, &valid, frame, sizeof frame));
    uint8_t *p = vq_wait(&t.q[0], NULL);
    assert_int_equal(p[0], 0);
    card_up(&t, ALL);
    assert_int_equal(offloads_here(&t), NET_CSUM | NET_TSO4 | NET_TSO6 | NET_ECN);
    post(&t, 0, 4, BUFFER);
    assert_true(give(&t, &valid, frame, sizeof frame));
    p = vq_wait(&t.q[0], NULL);
    assert_int_equal(p[0], NET_HDR_DATA_VALID);
    card_fini(&t);
}

/* ---- resets ---- */

static void reset_while_waiting(void **state)
{
    static struct card t;
    uint8_t frame[100];
    card_init(&t, (struct virtio_net_config){0});
    for (unsigned i = 0; i < 50; i++) {
        card_up(&t, ALL);
        fill(frame, sizeof frame, i);
        assert_false(give(&t, NULL, frame, sizeof frame));
        if (i & 1)
            virtio_net_reset(t.net);
        else
            vd_reset(&t.d);
        assert_true(give(&t, NULL, frame, sizeof frame)); /* nobody there: lost */
        if (i & 1) {
            vr_power_on(&t.r);
            vd_find(&t.d, &t.r, DEVFN, true);
        }
        t.r.bump = 0x400000; /* rings of the last round are free */
        memset(t.buf, 0, sizeof t.buf);
    }
    card_fini(&t);
}

/* Random chains on all queues: the device may break, and then works again after a reset. */
static void random_chains(void **state)
{
    static struct card t;
    uint64_t seed = 7;
    uint8_t frame[200];
    card_init(&t, (struct virtio_net_config){.queue_pairs = PAIRS});
    for (unsigned round = 0; round < 60; round++) {
        t.r.bump = 0x100000;
        memset(t.buf, 0, sizeof t.buf);
        card_up(&t, round & 1 ? ALL : ALL & ~F_MRG_RXBUF);
        for (unsigned i = 0; i < 200; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            unsigned r = (unsigned)(seed >> 33), k = r % (2 * PAIRS + 1);
            struct vq *q = &t.q[k];
            struct vbuf b[4];
            for (unsigned j = 0; j < 4; j++) {
                uint8_t *p = hva(&t, k, j);
                for (unsigned m = 0; m < 40; m++)
                    p[m] = (uint8_t)((seed >> (m & 31)) & (m < 12 ? 0x0f : 0xff));
                b[j] = (struct vbuf){buf(&t, k, j), 1 + (r >> (4 + j)) % 300};
            }
            unsigned out = r >> 8 & 3, in = (r >> 10 & 3) % (4 - out) + (out == 0);
            if (vq_add(q, b, out, in, q, r & 4096))
                vq_kick(q);
            while (vq_get(q, NULL))
                ;
            fill(frame, sizeof frame, i);
            give(&t, NULL, frame, 14 + r % 180);
        }
        vd_reset(&t.d);
    }
    card_up(&t, ALL);
    post(&t, 0, 2, BUFFER);
    fill(frame, 100, 1);
    assert_true(give(&t, NULL, frame, 100));
    expect_received(&t, 0, 100, 1, 1);
    card_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transmits),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(transmit_offloads),
        cmocka_unit_test(receives),
        cmocka_unit_test(burst),
        cmocka_unit_test(no_buffers),
        cmocka_unit_test(ring_too_small),
        cmocka_unit_test(receive_offloads),
        cmocka_unit_test(reset_while_waiting),
        cmocka_unit_test(random_chains),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
