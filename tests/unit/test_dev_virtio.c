/* Transport and queues. */
#include "virtio_echo.h"

#include <errno.h>

/* ---- the transport ---- */

static void it_looks_like_a_modern_device(void **state)
{
    struct box b;
    box_init(&b);
    struct pci_rig *p = &b.r.pci;
    assert_int_equal(cfg_rd(p, 0, b.d.devfn, 0, 4), 0x10441af4);
    assert_true(cfg_rd(p, 0, b.d.devfn, PCI_REVISION, 1) >= 1);
    assert_true(cap_of(p, 0, b.d.devfn, 0x10) && cap_of(p, 0, b.d.devfn, 0x11));
    assert_int_equal(cfg_rd(p, 0, b.d.devfn, cap_of(p, 0, b.d.devfn, 0x11) + 2, 2) & 0x7ff, ECHO_QUEUES);
    assert_int_equal(vd_rd(&b.d, 18, 2), ECHO_QUEUES);
    for (unsigned i = 0; i < ECHO_QUEUES; i++) {
        vd_wr(&b.d, 22, 2, i);
        assert_int_equal(vd_rd(&b.d, 22, 2), i);
        assert_int_equal(vd_rd(&b.d, 24, 2), 16);
        assert_int_equal(vd_rd(&b.d, 26, 2), 0xffff);
        assert_int_equal(vd_rd(&b.d, 30, 2), i);
    }
    vd_wr(&b.d, 22, 2, ECHO_QUEUES);
    assert_int_equal(vd_rd(&b.d, 24, 2), 0); /* no such queue */
    vd_wr(&b.d, 28, 2, 1);
    vd_wr(&b.d, 22, 2, 0);
    vd_wr(&b.d, 26, 2, ECHO_QUEUES + 1);
    assert_int_equal(vd_rd(&b.d, 26, 2), 0xffff); /* no such vector */
    vd_wr(&b.d, 16, 2, 2);
    assert_int_equal(vd_rd(&b.d, 16, 2), 2);
    box_fini(&b);
}

static void features_are_agreed_on(void **state)
{
    struct box b;
    box_init(&b);
    struct vdev *d = &b.d;
    vd_agree(d, ~UINT64_C(0));
    uint64_t all = BIT(3) | VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_RING_PACKED;
    assert_true(d->offered == all);
    vd_wr(d, 8, 4, 0);
    vd_wr(d, 12, 4, 0); /* too late */
    assert_int_equal(vd_rd(d, 12, 4), (uint32_t)all);
    vd_wr(d, 0, 4, 2);
    assert_int_equal(vd_rd(d, 4, 4), 0);
    vd_reset(d);
    vd_wr(d, 8, 4, 1);
    vd_wr(d, 12, 4, 1 | 1 << 9); /* one that is not offered */
    vd_set_status(d, 11);
    assert_int_equal(vd_status(d), 3);
    vd_reset(d);
    vd_set_status(d, 11); /* without VERSION_1 */
    assert_int_equal(vd_status(d), 3);
    vd_set_status(d, 7);
    vr_settle(&b.r);
    assert_int_equal(b.e.starts, 0);
    box_fini(&b);
}

static void config_bytes_are_read_written_and_told(void **state)
{
    struct box b;
    box_init(&b);
    struct vdev *d = &b.d;
    assert_int_equal(vd_config(d, 0, 4), ld32("conf"));
    assert_int_equal(vd_config(d, 4, 4), ld16("ig"));
    assert_int_equal(vd_config(d, 6, 1), 0);
    mem_wr(&b.r.pci, d->config + 2, 2, 0x4142);
    assert_int_equal(vd_config(d, 0, 4), 0x41426f63);
    mem_wr(&b.r.pci, d->config + 4, 4, 0xffffffff); /* past the end */
    assert_int_equal(b.e.wrote, 0x4142);
    vd_agree(d, 0);
    uint64_t generation = vd_rd(d, 21, 1);
    virtio_config_set(&b.e.pci.v, 0, "new", 3);
    assert_int_equal(vr_irqs(&b.r, VR_VECTOR0), 0); /* nobody to tell */
    vd_go(d);
    virtio_config_set(&b.e.pci.v, 0, "NEW", 3);
    assert_int_equal(vr_irqs(&b.r, VR_VECTOR0), 1);
    assert_int_not_equal(vd_rd(d, 21, 1), generation);
    assert_int_equal(vd_config(d, 0, 2), ld16("NE"));
    box_fini(&b);
}

static void configuration_space_reaches_the_registers(void **state)
{
    struct box b;
    box_init(&b);
    struct pci_rig *p = &b.r.pci;
    unsigned cap = b.d.cfg_cap, fn = b.d.devfn;
    uint64_t bar = vd_bar(&b.d, 4);
    cfg_wr(p, 0, fn, cap + 4, 1, 4);
    cfg_wr(p, 0, fn, cap + 8, 4, b.d.common - bar + 18);
    cfg_wr(p, 0, fn, cap + 12, 4, 2);
    assert_int_equal(cfg_rd(p, 0, fn, cap + 16, 4) & 0xffff, ECHO_QUEUES);
    cfg_wr(p, 0, fn, cap + 8, 4, b.d.common - bar + 22);
    cfg_wr(p, 0, fn, cap + 16, 4, 2);
    assert_int_equal(vd_rd(&b.d, 22, 2), 2);
    static const uint32_t bad[][3] = {{1, 0, 4}, {4, 1, 4}, {4, 0x10000000, 4}, {4, 0, 3}, {4, 0, 0}, {9, 0, 1}};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        cfg_wr(p, 0, fn, cap + 4, 1, bad[i][0]);
        cfg_wr(p, 0, fn, cap + 8, 4, bad[i][1]);
        cfg_wr(p, 0, fn, cap + 12, 4, bad[i][2]);
        cfg_rd(p, 0, fn, cap + 16, 4);
        cfg_wr(p, 0, fn, cap + 16, 4, 0xffffffff);
    }
    assert_int_equal(vd_rd(&b.d, 22, 2), 2);
    box_fini(&b);
}

static void without_msix_the_isr_tells(void **state)
{
    struct box b;
    struct vq q;
    box_init_with(&b, (struct virtio_options){.vectors = 2}, false);
    box_up(&b, &q, 0);
    uint64_t in = vr_alloc(&b.r, 4096);
    unsigned gsi = pci_intx_gsi(5, 1);
    assert_true(vq_add(&q, (struct vbuf[]){{in, 4}, {in + 64, 4}}, 1, 1, &q, false));
    vq_kick(&q);
    vr_wait_intx(&b.r, gsi);
    assert_int_equal(mem_rd(&b.r.pci, b.d.isr, 1), 1);
    assert_false(b.r.intx_level[gsi]);
    assert_int_equal(mem_rd(&b.r.pci, b.d.isr, 1), 0);
    assert_ptr_equal(vq_get(&q, NULL), &q);
    virtio_config_set(&b.e.pci.v, 0, "x", 1);
    assert_true(b.r.intx_level[gsi]);
    assert_int_equal(mem_rd(&b.r.pci, b.d.isr, 1), 2);
    virtio_config_set(&b.e.pci.v, 0, "y", 1);
    vd_reset(&b.d);
    assert_false(b.r.intx_level[gsi]);
    assert_int_equal(mem_rd(&b.r.pci, b.d.isr, 1), 0);
    assert_int_equal(b.r.irqs[VR_VECTOR0], 0);
    box_fini(&b);
}

static void a_reset_waits_for_what_is_in_flight(void **state)
{
    struct box b;
    struct vq q;
    box_init(&b);
    b.e.hold = true;
    box_up(&b, &q, 0);
    uint64_t in = vr_alloc(&b.r, 4096);
    assert_true(vq_add(&q, (struct vbuf[]){{in, 4}}, 0, 1, &q, false));
    vq_kick(&q);
    vr_settle(&b.r);
    assert_int_equal(b.e.held, 1);
    vd_set_status(&b.d, VIRTIO_NEEDS_RESET); /* not the driver's to set, and nothing is cleared */
    assert_int_equal(vd_status(&b.d), 15);
    vd_set_status(&b.d, 0);
    vr_settle(&b.r);
    assert_int_not_equal(vd_status(&b.d), 0);
    vd_set_status(&b.d, 0);
    vd_set_status(&b.d, 1); /* not now */
    vr_settle(&b.r);
    assert_int_equal(b.e.stops, 1);
    b.e.held = 0;
    virtio_idle(&b.e.pci.v); /* the loop sleeps, so this thread may */
    assert_int_equal(vd_status(&b.d), 0);
    assert_int_equal(vd_rd(&b.d, 28, 2), 0);
    b.e.hold = false;
    vd_agree(&b.d, 0);
    vq_clear(&q);
    vq_enable(&q);
    assert_true(vq_add(&q, (struct vbuf[]){{in, 4}, {in + 8, 4}}, 1, 1, &q, false));
    vq_publish(&q);
    vd_go(&b.d); /* it looks without a notification */
    assert_ptr_equal(vq_wait(&q, NULL), &q);
    assert_int_equal(b.e.starts, 2);
    box_fini(&b);
}

static void function_reset_and_bus_mastering(void **state)
{
    struct box b;
    struct vq q;
    box_init(&b);
    struct pci_rig *p = &b.r.pci;
    box_up(&b, &q, 0);
    vr_settle(&b.r);
    cfg_wr(p, 0, b.d.devfn, PCI_COMMAND, 2, PCI_CMD_MEMORY);
    uint64_t in = vr_alloc(&b.r, 4096);
    assert_true(vq_add(&q, (struct vbuf[]){{in, 4}, {in + 8, 4}}, 1, 1, &q, false));
    vq_notify(&q);
    vr_settle(&b.r);
    assert_null(vq_get(&q, NULL)); /* it may not look */
    cfg_wr(p, 0, b.d.devfn, PCI_COMMAND, 2, PCI_CMD_MEMORY | PCI_CMD_MASTER);
    vq_kick(&q);
    assert_ptr_equal(vq_wait(&q, NULL), &q);
    unsigned express = cap_of(p, 0, b.d.devfn, 0x10);
    cfg_wr(p, 0, b.d.devfn, express + 8, 2, 0x8000);
    vr_settle(&b.r);
    vr_power_on(&b.r);
    vd_find(&b.d, &b.r, PCI_DEVFN(5, 0), true);
    assert_int_equal(vd_status(&b.d), 0);
    assert_int_equal(b.e.stops, 1);
    box_fini(&b);
}

static void a_power_cycle_forgets_everything(void **state)
{
    struct box b;
    struct vq q;
    box_init(&b);
    box_up(&b, &q, 0);
    virtio_pci_reset(&b.e.pci);
    assert_int_equal(vd_status(&b.d), 0);
    vd_wr(&b.d, 22, 2, 1);
    assert_int_equal(vd_rd(&b.d, 28, 2), 0);
    assert_int_equal(vd_rd(&b.d, 32, 4), 0);
    virtio_pci_reset(&b.e.pci);
    box_fini(&b);
}

static void setups_are_checked(void **state)
{
    struct vrig r;
    struct virtio_pci p;
    vr_init(&r);
    struct virtio_pci_setup good = {.host = &r.pci.host,
                                    .devfn = PCI_DEVFN(4, 0),
                                    .loop = r.loop,
                                    .ops = &echo_ops,
                                    .name = "echo",
                                    .queues = VIRTIO_QUEUES_MAX,
                                    .queue_size = 2};
    struct virtio_pci_setup s = good;
    s.queue_size = 48;
    assert_int_equal(virtio_pci_init(&p, &s, NULL), -EINVAL);
    s.queue_size = 2048;
    assert_int_equal(virtio_pci_init(&p, &s, NULL), -EINVAL);
    s = good;
    s.queues++;
    assert_int_equal(virtio_pci_init(&p, &s, NULL), -EINVAL);
    s = good;
    s.options.vectors = 2049;
    assert_int_equal(virtio_pci_init(&p, &s, NULL), -EINVAL);
    s = good;
    s.devfn = PCI_DEVFN(0, 0);
    assert_int_equal(virtio_pci_init(&p, &s, &r.pci.f.err), -EEXIST);
    assert_int_equal(virtio_pci_init(&p, &good, NULL), 0);
    virtio_pci_fini(&p);
    vr_fini(&r);
}

/* ---- queues ---- */

static const uint64_t flavours[] = {
    0,
    VIRTIO_F_INDIRECT_DESC,
    VIRTIO_F_EVENT_IDX,
    VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC,
    VIRTIO_F_RING_PACKED,
    VIRTIO_F_RING_PACKED | VIRTIO_F_INDIRECT_DESC,
    VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX,
    VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC,
};

/* Chains of 1 to 5 buffers, several at once, often enough for indices to wrap. */
static void echo_rounds(struct box *b, struct vq *q, uint64_t seed, unsigned rounds)
{
    uint64_t mem = vr_alloc(&b->r, 16 * 256);
    uint8_t *hva = vr_hva(&b->r, mem);
    unsigned waiting = 0;
    for (unsigned i = 0; i < rounds; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
        unsigned out = 1 + (seed >> 33) % 3, in = (seed >> 40) % 3, at = q->packed ? q->free_head : q->free_head;
        struct vbuf v[5];
        for (unsigned k = 0; k < out + in; k++)
            v[k] = (struct vbuf){mem + 256 * at + 40 * k, (uint32_t)(1 + (seed >> (8 + 5 * k)) % 37)};
        if (q->free >= out + in) {
            for (unsigned k = 0; k < 40 * out; k++)
                hva[256 * at + k] = (uint8_t)(seed >> k % 50);
            assert_true(vq_add(q, v, out, in, hva + 256 * at, seed >> 60 & 1));
            waiting++;
        }
        if (seed >> 61 & 1)
            vq_kick(q);
        if (q->free < 5 || seed >> 62 & 1) {
            vq_kick(q);
            for (uint32_t len; waiting; waiting--) {
                uint8_t *p = vq_wait(q, &len);
                assert_true(p && len <= 111);
            }
        }
    }
    vq_kick(q);
    for (; waiting; waiting--)
        assert_non_null(vq_wait(q, NULL));
}

static void chains_come_back(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(flavours); i++) {
        struct box b;
        struct vq q;
        box_init(&b);
        box_up(&b, &q, flavours[i]);
        echo_rounds(&b, &q, i + 1, 3000);
        assert_int_equal(vd_status(&b.d) & VIRTIO_NEEDS_RESET, 0);
        box_fini(&b);
    }
}

static void bytes_arrive(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(flavours); i++) {
        struct box b;
        struct vq q;
        uint32_t len;
        box_init(&b);
        box_up(&b, &q, flavours[i]);
        uint64_t mem = vr_alloc(&b.r, 4096);
        uint8_t *p = vr_hva(&b.r, mem);
        memcpy(p, "the quick brown fox", 19);
        struct vbuf v[] = {{mem, 4}, {mem + 4, 15}, {mem + 100, 7}, {mem + 107, 3}, {mem + 200, 100}};
        uint64_t told = b.r.pci.told;
        assert_true(vq_add(&q, v, 2, 3, p, true));
        vq_kick(&q);
        assert_ptr_equal(vq_wait(&q, &len), p);
        assert_int_equal(len, 19);
        assert_memory_equal(p + 100, "the quick ", 10);
        assert_memory_equal(p + 200, "brown fox\0", 10);
        assert_true(b.r.pci.told >= told + 19);
        box_fini(&b);
    }
}

/* All of a batch, one interrupt; none that is not wanted. */
static void interrupts_are_few(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(flavours); i++) {
        struct box b;
        struct vq q;
        box_init(&b);
        box_up(&b, &q, flavours[i]);
        uint64_t mem = vr_alloc(&b.r, 4096);
        vr_settle(&b.r);
        for (unsigned k = 0; k < 8; k++)
            assert_true(vq_add(&q, (struct vbuf[]){{mem, 4}, {mem + 64, 4}}, 1, 1, &q, false));
        assert_true(vq_arm(&q));
        vq_kick(&q);
        for (unsigned k = 0; k < 8; k++)
            assert_ptr_equal(vq_wait(&q, NULL), &q);
        vr_settle(&b.r);
        assert_int_equal(vr_irqs(&b.r, vq_vector(&q)), 1);
        assert_int_equal(q.kicks, 1);
        vq_disarm(&q);
        assert_true(vq_add(&q, (struct vbuf[]){{mem, 4}, {mem + 64, 4}}, 1, 1, &q, false));
        vq_kick(&q);
        vr_settle(&b.r);
        assert_true(vq_has_used(&q));
        if (q.packed || !q.event)
            assert_int_equal(vr_irqs(&b.r, vq_vector(&q)), 1);
        box_fini(&b);
    }
}

/* With event indices a driver may ask for the interrupt of a later completion. */
static void event_index_delays_the_interrupt(void **state)
{
    struct box b;
    struct vq q;
    box_init(&b);
    box_up(&b, &q, VIRTIO_F_EVENT_IDX);
    uint64_t mem = vr_alloc(&b.r, 4096);
    vq_st16(q.driver + 4 + 2 * q.size, 2);
    for (unsigned i = 0; i < 3; i++) {
        vr_settle(&b.r);
        assert_int_equal(vr_irqs(&b.r, vq_vector(&q)), 0);
        assert_true(vq_add(&q, (struct vbuf[]){{mem, 4}, {mem + 64, 4}}, 1, 1, &q, false));
        vq_kick(&q);
    }
    vr_wait_irq(&b.r, vq_vector(&q), 0);
    box_fini(&b);
}

static void a_small_packed_queue_of_odd_size(void **state)
{
    struct box b;
    struct vq q;
    box_init(&b);
    vd_agree(&b.d, VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX);
    vq_init(&q, &b.d, 1, 7);
    vd_go(&b.d);
    echo_rounds(&b, &q, 77, 2000);
    box_fini(&b);
}

static void unpop_gives_the_chain_again(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(flavours); i++) {
        struct box b;
        struct vq q;
        struct iovec iov[8];
        struct virtq_chain a, c, again;
        box_init(&b);
        vd_agree(&b.d, flavours[i]);
        vq_init(&q, &b.d, 1, 4);
        uint64_t mem = vr_alloc(&b.r, 4096);
        struct virtq *dq = &b.e.pci.v.q[1];
        vr_settle(&b.r); /* the loop sleeps from here on */
        b.e.pci.v.features = b.d.features;
        virtq_start(dq, b.d.features); /* here, not on the loop: nothing was started there */
        for (unsigned round = 0; round < 9; round++) {
            assert_true(vq_add(&q, (struct vbuf[]){{mem, 1}, {mem + 8, 2}}, 2, 0, &a, false));
            assert_true(vq_add(&q, (struct vbuf[]){{mem + 16, 3}}, 0, 1, &c, false));
            vq_publish(&q);
            assert_true(virtq_pop(dq, &a, iov, 8));
            assert_true(virtq_pop(dq, &c, iov, 8));
            assert_true(virtq_empty(dq));
            virtq_unpop(dq, &c);
            virtq_unpop(dq, &a);
            assert_true(virtq_pop(dq, &again, iov, 8));
            assert_int_equal(again.id, a.id);
            assert_int_equal(again.out_len, 3);
            virtq_push(dq, &again, NULL, 0);
            assert_true(virtq_pop(dq, &again, iov, 8));
            assert_int_equal(again.in_len, 3);
            virtq_push(dq, &again, iov, 3);
            virtq_flush(dq);
            assert_ptr_equal(vq_get(&q, NULL), &a);
            assert_ptr_equal(vq_get(&q, NULL), &c);
        }
        virtq_stop(dq);
        box_fini(&b);
    }
}

static void notifications_of_nothing(void **state)
{
    struct box b;
    struct vq q;
    box_init(&b);
    for (unsigned off = 0; off < 0x1000; off += 2)
        mem_wr(&b.r.pci, b.d.notify + off, 2, off);
    box_up(&b, &q, 0);
    for (unsigned off = 0; off < 0x1000; off += 2)
        mem_wr(&b.r.pci, b.d.notify + off, 2, off);
    for (unsigned off = 0; off < 0x3000; off++)
        for (unsigned size = 1; size <= 8; size *= 2)
            mem_rd(&b.r.pci, b.d.common + off, size);
    vr_settle(&b.r);
    assert_int_equal(vd_status(&b.d), 15);
    box_fini(&b);
}

static void iovecs_are_copied(void **state)
{
    char a[] = "abcd", b[] = "efgh", out[16] = "";
    struct iovec iov[] = {{a, 4}, {b, 0}, {b, 4}};
    assert_int_equal(virtq_copy_from(iov, 3, 2, out, 4), 4);
    assert_string_equal(out, "cdef");
    assert_int_equal(virtq_copy_from(iov, 3, 6, out, 9), 2);
    assert_int_equal(virtq_copy_from(iov, 3, 8, out, 9), 0);
    assert_int_equal(virtq_copy_to(iov, 3, 3, "XY", 2), 2);
    assert_memory_equal(a, "abcX", 4);
    assert_memory_equal(b, "Yfgh", 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_looks_like_a_modern_device),
        cmocka_unit_test(features_are_agreed_on),
        cmocka_unit_test(config_bytes_are_read_written_and_told),
        cmocka_unit_test(configuration_space_reaches_the_registers),
        cmocka_unit_test(without_msix_the_isr_tells),
        cmocka_unit_test(a_reset_waits_for_what_is_in_flight),
        cmocka_unit_test(function_reset_and_bus_mastering),
        cmocka_unit_test(a_power_cycle_forgets_everything),
        cmocka_unit_test(setups_are_checked),
        cmocka_unit_test(chains_come_back),
        cmocka_unit_test(bytes_arrive),
        cmocka_unit_test(interrupts_are_few),
        cmocka_unit_test(event_index_delays_the_interrupt),
        cmocka_unit_test(a_small_packed_queue_of_odd_size),
        cmocka_unit_test(unpop_gives_the_chain_again),
        cmocka_unit_test(notifications_of_nothing),
        cmocka_unit_test(iovecs_are_copied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
