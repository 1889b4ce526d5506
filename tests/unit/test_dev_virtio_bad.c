/* Drivers that do to a queue what the specification forbids: the device needs a reset, and works after it. */
#include "virtio_echo.h"

static void post(struct vq *q, uint16_t head)
{
    vq_st16(q->driver + 4 + 2 * (q->avail % q->size), head);
    q->avail++;
    vq_kick(q);
}

typedef void misdeed(struct box *b, struct vq *q, uint64_t mem);

static void head_past_the_end(struct box *b, struct vq *q, uint64_t mem)
{
    post(q, 16);
}

static void index_too_far(struct box *b, struct vq *q, uint64_t mem)
{
    vq_st16(q->driver + 2, 17);
    vq_notify(q);
}

static void chain_in_a_circle(struct box *b, struct vq *q, uint64_t mem)
{
    vq_desc(q->desc, false, (struct vbuf){mem, 4}, 1, 1);
    vq_desc(q->desc + 16, false, (struct vbuf){mem, 4}, 1, 0);
    post(q, 0);
}

static void next_past_the_end(struct box *b, struct vq *q, uint64_t mem)
{
    vq_desc(q->desc, false, (struct vbuf){mem, 4}, 1, 0xffff);
    post(q, 0);
}

static void no_bytes(struct box *b, struct vq *q, uint64_t mem)
{
    vq_desc(q->desc, false, (struct vbuf){mem, 0}, 0, 0);
    post(q, 0);
}

static void not_memory(struct box *b, struct vq *q, uint64_t mem)
{
    vq_desc(q->desc, false, (struct vbuf){RIG_RAM - 4, 8}, 2, 0);
    post(q, 0);
}

static void huge(struct box *b, struct vq *q, uint64_t mem)
{
    vq_desc(q->desc, false, (struct vbuf){mem, 0xffffffff}, 0, 0);
    post(q, 0);
}

static void address_wraps(struct box *b, struct vq *q, uint64_t mem)
{
    vq_desc(q->desc, false, (struct vbuf){~UINT64_C(0) - 2, 8}, 0, 0);
    post(q, 0);
}

static void readable_last(struct box *b, struct vq *q, uint64_t mem)
{
    vq_desc(q->desc, false, (struct vbuf){mem, 4}, 3, 1);
    vq_desc(q->desc + 16, false, (struct vbuf){mem, 4}, 0, 0);
    post(q, 0);
}

static void table(struct box *b, struct vq *q, uint64_t at, uint32_t len, uint16_t flags)
{
    vq_desc(q->desc, false, (struct vbuf){at, len}, flags, 1);
    post(q, 0);
}

static void table_not_memory(struct box *b, struct vq *q, uint64_t mem)
{
    table(b, q, RIG_RAM, 16, 4);
}

static void table_of_no_entries(struct box *b, struct vq *q, uint64_t mem)
{
    table(b, q, mem, 0, 4);
}

static void table_of_odd_length(struct box *b, struct vq *q, uint64_t mem)
{
    table(b, q, mem, 24, 4);
}

static void table_and_next(struct box *b, struct vq *q, uint64_t mem)
{
    vq_desc(vr_hva(&b->r, mem), false, (struct vbuf){mem, 4}, 0, 0);
    table(b, q, mem, 16, 5);
}

static void table_in_a_table(struct box *b, struct vq *q, uint64_t mem)
{
    vq_desc(vr_hva(&b->r, mem), false, (struct vbuf){mem + 64, 16}, 4, 0);
    table(b, q, mem, 16, 4);
}

static void table_in_a_circle(struct box *b, struct vq *q, uint64_t mem)
{
    vq_desc(vr_hva(&b->r, mem), false, (struct vbuf){mem + 64, 1}, 1, 0);
    table(b, q, mem, 16, 4);
}

static void table_next_past_the_end(struct box *b, struct vq *q, uint64_t mem)
{
    vq_desc(vr_hva(&b->r, mem), false, (struct vbuf){mem + 64, 1}, 1, 1);
    table(b, q, mem, 16, 4);
}

static void break_it(misdeed *m, uint64_t features)
{
    struct box b;
    struct vq q;
    box_init(&b);
    box_up(&b, &q, features);
    vr_settle(&b.r);
    uint64_t mem = vr_alloc(&b.r, 4096);
    m(&b, &q, mem);
    vd_wait_broken(&b.d);
    vq_notify(&q);
    vr_settle(&b.r);
    assert_int_equal(vr_irqs(&b.r, VR_VECTOR0), 1);
    assert_false(vq_has_used(&q));
    vd_agree(&b.d, features); /* and it works again */
    vq_clear(&q);
    vq_enable(&q);
    vd_go(&b.d);
    assert_true(vq_add(&q, (struct vbuf[]){{mem, 4}, {mem + 64, 4}}, 1, 1, &q, false));
    vq_kick(&q);
    assert_ptr_equal(vq_wait(&q, NULL), &q);
    assert_int_equal(vd_status(&b.d), 15);
    box_fini(&b);
}

static void misdeeds_need_a_reset(void **state)
{
    static misdeed *const plain[] = {head_past_the_end, index_too_far, chain_in_a_circle, next_past_the_end, no_bytes,
                                     not_memory,        huge,          address_wraps,     readable_last};
    static misdeed *const tables[] = {table_not_memory, table_of_no_entries, table_of_odd_length,    table_and_next,
                                      table_in_a_table, table_in_a_circle,   table_next_past_the_end};
    for (unsigned i = 0; i < ARRAY_SIZE(plain); i++)
        break_it(plain[i], i & 1 ? VIRTIO_F_EVENT_IDX : 0);
    for (unsigned i = 0; i < ARRAY_SIZE(tables); i++)
        break_it(tables[i], VIRTIO_F_INDIRECT_DESC);
    break_it(table_and_next, 0); /* not agreed on */
}

static void packed_desc(struct vq *q, unsigned i, struct vbuf v, uint16_t flags)
{
    vq_desc(q->desc + 16 * i, true, v, (uint16_t)(flags | 1u << 7), (uint16_t)i);
}

static void packed_circle(struct box *b, struct vq *q, uint64_t mem)
{
    for (unsigned i = 16; i-- > 0;)
        packed_desc(q, i, (struct vbuf){mem, 4}, 1);
    vq_notify(q);
}

static void packed_table_in_a_chain(struct box *b, struct vq *q, uint64_t mem)
{
    packed_desc(q, 1, (struct vbuf){mem, 16}, 4);
    packed_desc(q, 0, (struct vbuf){mem, 4}, 1);
    vq_notify(q);
}

static void packed_table_then_more(struct box *b, struct vq *q, uint64_t mem)
{
    vq_desc(vr_hva(&b->r, mem), true, (struct vbuf){mem, 4}, 0, 0);
    packed_desc(q, 0, (struct vbuf){mem, 16}, 5);
    vq_notify(q);
}

static void packed_table_in_a_table(struct box *b, struct vq *q, uint64_t mem)
{
    vq_desc(vr_hva(&b->r, mem), true, (struct vbuf){mem, 4}, 0, 0);
    vq_desc(vr_hva(&b->r, mem) + 16, true, (struct vbuf){mem, 4}, 4, 0);
    packed_desc(q, 0, (struct vbuf){mem, 32}, 4);
    vq_notify(q);
}

static void packed_not_memory(struct box *b, struct vq *q, uint64_t mem)
{
    packed_desc(q, 0, (struct vbuf){RIG_RAM + 1, 16}, 0);
    vq_notify(q);
}

static void packed_misdeeds_need_a_reset(void **state)
{
    static misdeed *const deeds[] = {packed_circle, packed_table_in_a_chain, packed_table_then_more,
                                     packed_table_in_a_table, packed_not_memory};
    for (unsigned i = 0; i < ARRAY_SIZE(deeds); i++)
        break_it(deeds[i], VIRTIO_F_RING_PACKED | VIRTIO_F_INDIRECT_DESC);
}

/* More chains than entries: the driver moves its index on although nothing came back. */
static void chains_in_flight_are_bounded(void **state)
{
    struct box b;
    struct vq q;
    box_init(&b);
    b.e.hold = true;
    box_up(&b, &q, 0);
    uint64_t mem = vr_alloc(&b.r, 4096);
    vq_desc(q.desc, false, (struct vbuf){mem, 4}, 2, 0);
    for (unsigned i = 0; i < 16; i++)
        post(&q, 0);
    vr_settle(&b.r);
    assert_int_equal(b.e.held, 16);
    post(&q, 0);
    vq_notify(&q);
    vd_wait_broken(&b.d);
    b.e.held = 0;
    box_fini(&b);
}

static void rings_are_checked(void **state)
{
    static const struct {
        uint64_t desc, driver, device;
        unsigned size;
    } bad[] = {{0x100008, 0x200000, 0x300000, 16}, {0x100000, 0x200001, 0x300000, 16},
               {0x100000, 0x200000, 0x300002, 16}, {RIG_RAM - 128, 0x200000, 0x300000, 16},
               {0x100000, RIG_RAM, 0x300000, 16},  {0x100000, 0x200000, ~UINT64_C(15), 16},
               {0x100000, 0x200000, 0x300000, 12}, {0x100000, 0x200000, 0x300000, 32}};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct box b;
        box_init(&b);
        vd_agree(&b.d, 0);
        struct vq q = {.d = &b.d, .size = bad[i].size, .area = {bad[i].desc, bad[i].driver, bad[i].device}};
        vq_enable(&q);
        vd_go(&b.d);
        vd_wait_broken(&b.d);
        vr_settle(&b.r);
        assert_int_equal(b.e.starts, 1);
        vd_reset(&b.d);
        assert_int_equal(b.e.stops, 1);
        box_fini(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(misdeeds_need_a_reset),
        cmocka_unit_test(packed_misdeeds_need_a_reset),
        cmocka_unit_test(chains_in_flight_are_bounded),
        cmocka_unit_test(rings_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
