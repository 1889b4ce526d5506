/* Deliveries through the whole fabric: who receives, counted exactly, with and without a map. */
#include "irq_rig.h"

#include <errno.h>

/* The topology Linux' KVM was asked about, in ascending order; KVM's answers are in the tables below. */
static const uint32_t observed_ids[] = {0, 1, 0x23, 0xff, 0x100, 0x123, 0x12c, 0x1ff, 0x3ff, 0xfff};
#define OBSERVED ARRAY_SIZE(observed_ids)

static void *no_memory(size_t size)
{
    return NULL;
}

/* Drop the map, as when none could be allocated. */
static void without_map(struct rig *r)
{
    r->f->map_alloc = no_memory;
    fabric_reset(r->f);
    assert_null(atomic_load(&r->f->map));
}

struct expect {
    struct irq irq;
    const uint32_t *to; /* IDs; NULL: all */
    unsigned n;
};

#define TO(...)   (const uint32_t[]){__VA_ARGS__}, ARRAY_SIZE(((const uint32_t[]){__VA_ARGS__}))
#define TO_NOBODY (const uint32_t[]){0}, 0
#define TO_ALL    NULL, OBSERVED
#define PHYS(d)                                                                                                        \
    {                                                                                                                  \
        .dest = (d), .vector = 0x41, .assert_ = 1, .dest8 = (d) <= 0xff                                                \
    }
#define LOGIC(d)                                                                                                       \
    {                                                                                                                  \
        .dest = (d), .vector = 0x41, .assert_ = 1, .dest8 = (d) <= 0xff, .logical = 1                                  \
    }

static bool expected(const struct expect *x, uint32_t id)
{
    for (unsigned i = 0; x->to && i < x->n; i++)
        if (x->to[i] == id)
            return true;
    return !x->to;
}

static void check_table(struct rig *r, const struct expect *x, unsigned n)
{
    for (unsigned k = 0; k < n; k++, x++) {
        int taken = fabric_deliver(r->f, x->irq);
        if (taken != (int)x->n)
            fail_msg("row %u dest %x: %d took it, not %u", k, x->irq.dest, taken, x->n);
        for (uint32_t i = 0; i < r->n; i++)
            if (rig_got(r, i, x->irq.vector) != expected(x, r->ids[i].id))
                fail_msg("row %u dest %x: wrong at id %x", k, x->irq.dest, r->ids[i].id);
    }
}

static const struct expect in_x2apic[] = {
    {PHYS(0), TO(0)},           {PHYS(0x23), TO(0x23)},       {PHYS(0xff), TO(0xff)},
    {PHYS(0x123), TO(0x123)},   {PHYS(0x12c), TO(0x12c)},     {PHYS(0xfff), TO(0xfff)},
    {PHYS(0xffffffff), TO_ALL}, {PHYS(0x124), TO_NOBODY},     {PHYS(0x7fff), TO_NOBODY},
    {PHYS(0x10023), TO_NOBODY}, {LOGIC(0x121000), TO(0x12c)}, {LOGIC(0x12ffff), TO(0x123, 0x12c)},
    {LOGIC(0x3), TO(0, 1)},     {LOGIC(0xffffffff), TO_ALL},
};

static void x2apic_answers_as_kvm_does(void **state)
{
    struct rig r;
    rig_init(&r, observed_ids, OBSERVED, true);
    rig_enable(&r);
    check_table(&r, in_x2apic, ARRAY_SIZE(in_x2apic));
    without_map(&r);
    rig_enable(&r);
    check_table(&r, in_x2apic, ARRAY_SIZE(in_x2apic));
    rig_fini(&r);
}

static const struct expect in_xapic[] = {
    {PHYS(0), TO(0)},         {PHYS(0x23), TO(0x23)},       {PHYS(0xff), TO_ALL},
    {PHYS(0x123), TO(0x123)}, /* woken at its full ID */
    {PHYS(0x2c), TO(0x12c)},  /* its xAPIC ID */
    {PHYS(0x12c), TO(0x12c)}, {PHYS(0xfff), TO(0xfff)},     {PHYS(0xffffffff), TO_NOBODY},
    {PHYS(0x45), TO_NOBODY},  {LOGIC(0x121000), TO_NOBODY},
};

static void xapic_answers_as_kvm_does(void **state)
{
    struct rig r;
    rig_init(&r, observed_ids, OBSERVED, false);
    rig_enable(&r);
    check_table(&r, in_xapic, ARRAY_SIZE(in_xapic));
    without_map(&r);
    rig_enable(&r);
    check_table(&r, in_xapic, ARRAY_SIZE(in_xapic));
    rig_fini(&r);
}

static void mixed_modes(void **state)
{
    static const uint32_t but_123[] = {0, 1, 0x23, 0xff, 0x100, 0x12c, 0x1ff, 0x3ff, 0xfff};
    struct rig r;
    rig_init(&r, observed_ids, OBSERVED, false);
    rig_enable(&r);
    for (uint32_t i = 0; i < OBSERVED; i++)
        if (observed_ids[i] != 0x123)
            rig_base(&r, i, APIC_BASE_EN | APIC_BASE_EXTD);
    const struct expect rows[] = {
        {PHYS(0xffffffff), but_123, 9},
        {PHYS(0x123), TO(0x123)},
        {PHYS(0x23), TO(0x23)},
        {PHYS(0xff), TO(0xff, 0x123)},
    };
    check_table(&r, rows, ARRAY_SIZE(rows));
    struct expect from_x2apic = {PHYS(0xff), TO(0xff)}; /* 32 bits wide: FFh is a plain ID */
    from_x2apic.irq.dest8 = 0;
    check_table(&r, &from_x2apic, 1);
    rig_fini(&r);
}

/* What KVM answered without its 32-bit IDs: IDs 0 and 100h, 23h and 123h are one in xAPIC mode, and both receive. */
static void with_8_bit_ids_aliases_all_receive(void **state)
{
    const struct expect xapic[] = {
        {PHYS(0), TO(0, 0x100)},  {PHYS(0x23), TO(0x23, 0x123)}, {PHYS(0x2c), TO(0x12c)},       {PHYS(0xff), TO_ALL},
        {PHYS(0x12c), TO_NOBODY}, {PHYS(0x123), TO_NOBODY},      {PHYS(0xffffffff), TO_NOBODY},
    };
    const struct expect mixed[] = {
        {PHYS(0x23), TO(0x23, 0x123)}, {PHYS(0x12c), TO(0x12c)}, {PHYS(0x2c), TO_NOBODY},
        {PHYS(0x123), TO_NOBODY},      {LOGIC(0x23), TO_NOBODY},
    };
    for (int map = 0; map < 2; map++) {
        struct rig r;
        rig_init(&r, observed_ids, OBSERVED, false);
        for (uint32_t i = 0; i < OBSERVED; i++)
            r.f->lapic[i].id8 = true;
        if (map)
            fabric_reset(r.f);
        else
            without_map(&r);
        rig_enable(&r);
        assert_int_equal(fabric_inhibits(r.f) >> INHIBIT_PHYSICAL_ID_ALIASED & 1, 1);
        check_table(&r, xapic, ARRAY_SIZE(xapic));
        rig_base(&r, 2, APIC_BASE_EN | APIC_BASE_EXTD); /* 23h */
        rig_base(&r, 6, APIC_BASE_EN | APIC_BASE_EXTD); /* 12Ch */
        check_table(&r, mixed, ARRAY_SIZE(mixed));
        for (uint32_t i = 0; i < OBSERVED; i++)
            rig_base(&r, i, APIC_BASE_EN | APIC_BASE_EXTD);
        assert_int_equal(fabric_inhibits(r.f) >> INHIBIT_PHYSICAL_ID_ALIASED & 1, !map);
        check_table(&r, in_x2apic, ARRAY_SIZE(in_x2apic));
        rig_fini(&r);
    }
}

/* KVM without KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK. */
static void the_broadcast_quirk_makes_ff_everyone(void **state)
{
    struct rig r;
    for (int mode = 0; mode < 2; mode++) {
        rig_init(&r, observed_ids, OBSERVED, mode);
        rig_enable(&r);
        struct expect rows[] = {{PHYS(0xff), TO_ALL}, {PHYS(0x23), TO(0x23)}, {LOGIC(0xff), TO_ALL}};
        for (unsigned i = 0; i < 3; i++)
            rows[i].irq.dest8 = IRQ_DEST8_ALL;
        check_table(&r, rows, 3);
        without_map(&r);
        rig_enable(&r);
        check_table(&r, rows, 3);
        rig_fini(&r);
    }
}

static void only_high_ids_work(void **state)
{
    static const uint32_t high[] = {256, 258, 300, 511, 20000, 32767};
    struct rig r;
    vcpu_idx_t at;
    for (int mode = 0; mode < 2; mode++) {
        rig_init(&r, high, ARRAY_SIZE(high), mode);
        rig_enable(&r);
        for (uint32_t i = 0; i < r.n; i++) {
            assert_int_equal(fabric_deliver(r.f, rig_fixed(high[i], 0x80)), 1);
            for (uint32_t k = 0; k < r.n; k++)
                assert_int_equal(rig_got(&r, k, 0x80), k == i);
            assert_true(fabric_find(r.f, APIC_ID(high[i]), &at));
            assert_int_equal(at.i, i);
            assert_int_equal(fabric_id(r.f, VCPU_IDX(i)).id, high[i]);
        }
        assert_false(fabric_find(r.f, APIC_ID(257), &at));
        assert_false(fabric_find(r.f, APIC_ID(UINT32_MAX), &at));
        rig_fini(&r);
    }
}

static void bad_configurations_are_refused(void **state)
{
    static const apic_id_t twice[] = {{5}, {300}, {5}}, wide[] = {{32768}};
    struct rig r;
    struct err e = {""};
    struct fabric *f;
    rig_init(&r, observed_ids, OBSERVED, true);
    struct fabric_config c = r.f->cfg;
    c.vcpus = 3;
    c.ids = twice;
    assert_int_equal(fabric_create(&c, &f, &e), -EEXIST);
    assert_non_null(strstr(e.msg, "0 and 2"));
    c.vcpus = 1;
    c.ids = wide;
    assert_int_equal(fabric_create(&c, &f, NULL), -EINVAL);
    c.vcpus = 0;
    assert_int_equal(fabric_create(&c, &f, NULL), -EINVAL);
    c.vcpus = 1;
    c.ids = twice;
    c.x2apic = false;
    assert_int_equal(fabric_create(&c, &f, NULL), -EINVAL);
    rig_fini(&r);
}

static void send(struct rig *r, uint32_t from, uint32_t low, uint32_t dest)
{
    if (r->f->lapic[from].mode == LAPIC_X2APIC) {
        rig_wr(r, from, APIC_ICR, (uint64_t)dest << 32 | low);
    } else {
        rig_wr(r, from, APIC_ICR2, dest << 24);
        rig_wr(r, from, APIC_ICR, low);
    }
}

static unsigned got_by(struct rig *r, uint8_t vector, uint32_t *last)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < r->n; i++)
        if (rig_got(r, i, vector)) {
            n++;
            *last = i;
        }
    return n;
}

static void shorthands(void **state)
{
    uint32_t last = 0;
    for (int mode = 0; mode < 2; mode++) {
        struct rig r;
        rig_init(&r, observed_ids, OBSERVED, mode);
        rig_enable(&r);
        send(&r, 4, 0x40051, 0x77);
        assert_int_equal(got_by(&r, 0x51, &last), 1);
        assert_int_equal(last, 4);
        send(&r, 4, 0x80052, 0x77);
        assert_int_equal(got_by(&r, 0x52, &last), OBSERVED);
        send(&r, OBSERVED - 1, 0xc0053, 0);
        assert_int_equal(got_by(&r, 0x53, &last), OBSERVED - 1);
        assert_int_equal(last, OBSERVED - 2);
        rig_base(&r, 2, 0);
        send(&r, 4, 0x80054, 0);
        assert_int_equal(got_by(&r, 0x54, &last), OBSERVED - 1);
        rig_fini(&r);
    }
}

static void self_ipi_register(void **state)
{
    struct rig r;
    uint32_t last = 0;
    rig_init(&r, observed_ids, OBSERVED, true);
    rig_enable(&r);
    rig_wr(&r, 6, APIC_SELF_IPI, 0x99);
    assert_int_equal(r.kicks[6] > 0, 1);
    assert_int_equal(got_by(&r, 0x99, &last), 1);
    assert_int_equal(last, 6);
    rig_fini(&r);
}

static void aps_are_started_from_x2apic_while_in_xapic_mode(void **state)
{
    struct rig r;
    uint8_t page;
    rig_init(&r, observed_ids, OBSERVED, false);
    rig_base(&r, 0, APIC_BASE_EN | APIC_BASE_EXTD);
    for (uint32_t i = 1; i < r.n; i++) {
        send(&r, 0, 0xc500, observed_ids[i]); /* INIT assert */
        send(&r, 0, 0x8500, observed_ids[i]); /* and de-assert */
        send(&r, 0, 0x4600 | (0x10 + i), observed_ids[i]);
        for (uint32_t k = 0; k < r.n; k++) {
            page = 0;
            unsigned ev = fabric_events_take(r.f, VCPU_IDX(k), &page);
            assert_int_equal(ev, k == i ? FABRIC_EV_INIT | FABRIC_EV_SIPI : 0);
            assert_int_equal(page, k == i ? 0x10 + i : 0);
        }
    }
    send(&r, 0, 0xc4500, 0);
    send(&r, 0, 0xc4608, 0);
    for (uint32_t k = 0; k < r.n; k++)
        assert_int_equal(fabric_events_take(r.f, VCPU_IDX(k), &page), k ? FABRIC_EV_INIT | FABRIC_EV_SIPI : 0);
    rig_fini(&r);
}

static void nmi_goes_to_32_bit_ids(void **state)
{
    struct rig r;
    uint8_t page;
    rig_init(&r, observed_ids, OBSERVED, true);
    send(&r, 0, 0x4400, 0x12c);
    for (uint32_t k = 0; k < r.n; k++)
        assert_int_equal(fabric_events_take(r.f, VCPU_IDX(k), &page), observed_ids[k] == 0x12c ? FABRIC_EV_NMI : 0);
    rig_fini(&r);
}

static void lowest_priority_hashes_the_vector_over_those_enabled(void **state)
{
    static const uint32_t cluster[] = {0x121, 0x122, 0x127, 0x12f, 5};
    struct rig r;
    uint32_t last = 0;
    for (int map = 0; map < 2; map++) {
        rig_init(&r, cluster, 5, true);
        if (!map)
            without_map(&r);
        rig_enable(&r);
        rig_wr(&r, 1, APIC_SVR, 0xff); /* off: no candidate */
        static const uint32_t who[3] = {0, 2, 3};
        for (unsigned v = 0x30; v < 0xff; v++) {
            struct irq q = {.dest = 0x12ffff, .logical = 1, .mode = IRQ_LOWEST, .vector = (uint8_t)v, .assert_ = 1};
            assert_int_equal(fabric_deliver(r.f, q), 1);
            assert_int_equal(got_by(&r, (uint8_t)v, &last), 1);
            assert_int_equal(last, who[v % 3]);
        }
        struct irq nobody = {.dest = 0x120004, .logical = 1, .mode = IRQ_LOWEST, .vector = 0x31, .assert_ = 1};
        assert_int_equal(fabric_deliver(r.f, nobody), 0);
        rig_fini(&r);
    }
}

static void xapic_logical_destinations(void **state)
{
    static const uint32_t few[] = {2, 3, 7, 11, 0x110};
    struct rig r;
    rig_init(&r, few, 5, false);
    rig_enable(&r);
    for (uint32_t i = 0; i < 5; i++)
        rig_wr(&r, i, APIC_LDR, 1u << (24 + i));
    const struct expect flat[] = {{LOGIC(1), TO(2)}, {LOGIC(0x14), TO(7, 0x110)}, {LOGIC(0xe0), TO_NOBODY}};
    check_table(&r, flat, 3);
    assert_int_equal(atomic_load(&r.f->map)->xlogical, DEST_XL_FLAT);
    for (uint32_t i = 0; i < 5; i++) {
        rig_wr(&r, i, APIC_DFR, 0x0fffffff);
        rig_wr(&r, i, APIC_LDR, (i / 4) << 28 | 1u << (24 + i % 4));
    }
    const struct expect clusters[] = {{LOGIC(0x05), TO(2, 7)}, {LOGIC(0x11), TO(0x110)}, {LOGIC(0x21), TO_NOBODY}};
    check_table(&r, clusters, 3);
    assert_int_equal(atomic_load(&r.f->map)->xlogical, DEST_XL_CLUSTER);
    rig_wr(&r, 4, APIC_LDR, 0x01000000); /* the same logical ID twice: both receive */
    const struct expect twice = {LOGIC(0x01), TO(2, 0x110)};
    check_table(&r, &twice, 1);
    rig_fini(&r);
}

static void an_xapic_id_can_be_rewritten(void **state)
{
    static const uint32_t few[] = {2, 9, 0x110};
    struct rig r;
    rig_init(&r, few, 3, false);
    rig_enable(&r);
    rig_wr(&r, 0, APIC_ID_REG, 0x44000000);
    const struct expect rows[] = {{PHYS(0x44), TO(2)}, {PHYS(2), TO_NOBODY}, {PHYS(0x10), TO(0x110)}};
    check_table(&r, rows, 3);
    rig_fini(&r);
}

static void one_rebuild_a_change_and_none_without(void **state)
{
    struct rig r;
    rig_init(&r, observed_ids, OBSERVED, false);
    uint64_t builds = r.f->map_builds;
    rig_enable(&r); /* nobody's destination changes */
    rig_wr(&r, 3, APIC_TPR, 0x20);
    rig_wr(&r, 3, APIC_DFR, 0xffffffff);
    assert_int_equal(r.f->map_builds, builds);
    rig_base(&r, 3, APIC_BASE_EN | APIC_BASE_EXTD);
    assert_int_equal(r.f->map_builds, builds + 1);
    fabric_deliver(r.f, (struct irq){.dest = 0xff, .mode = IRQ_INIT, .assert_ = 1});
    uint8_t page;
    fabric_events_take(r.f, VCPU_IDX(3), &page);
    assert_int_equal(r.f->map_builds, builds + 1);
    fabric_reset(r.f);
    assert_int_equal(r.f->map_builds, builds + 2);
    rig_fini(&r);
}

static void a_map_comes_back_when_memory_does(void **state)
{
    struct rig r;
    rig_init(&r, observed_ids, OBSERVED, false);
    without_map(&r);
    rig_enable(&r);
    assert_int_equal(fabric_deliver(r.f, rig_fixed(0x12c, 0x60)), 1);
    r.f->map_alloc = malloc;
    rig_base(&r, 6, APIC_BASE_EN | APIC_BASE_EXTD);
    assert_non_null(atomic_load(&r.f->map));
    rig_fini(&r);
}

static void reset_forgets_everything(void **state)
{
    struct rig r;
    uint8_t page;
    rig_init(&r, observed_ids, OBSERVED, false);
    rig_enable(&r);
    rig_base(&r, 6, APIC_BASE_EN | APIC_BASE_EXTD);
    fabric_deliver(r.f, rig_fixed(0x12c, 0x60));
    fabric_deliver(r.f, (struct irq){.dest = 0x12c, .mode = IRQ_NMI, .assert_ = 1});
    fabric_reset(r.f);
    assert_int_equal(fabric_irq_pending(r.f, VCPU_IDX(6)), -1);
    assert_int_equal(fabric_events_take(r.f, VCPU_IDX(6), &page), 0);
    assert_int_equal(rig_rd(&r, 6, APIC_ID_REG), 0x2c000000);
    assert_int_equal(fabric_deliver(r.f, rig_fixed(0x12c, 0x60)), 0);
    rig_fini(&r);
}

/* Random scripts on a fabric with a map and on one that never has one: the same return values and the same state. */
static void same_script(struct rig *a, struct rig *b, uint64_t *s)
{
    uint32_t cpu = rig_below(s, a->n);
    uint32_t r32 = (uint32_t)rig_random(s);
    struct irq q = {.vector = (uint8_t)r32,
                    .mode = r32 >> 8 & 7,
                    .logical = r32 >> 11 & 1,
                    .level = r32 >> 12 & 1,
                    .assert_ = 1,
                    .dest8 = r32 >> 13 & 1};
    q.dest = r32 & 0x4000 ? a->ids[rig_below(s, a->n)].id : r32 & 0x8000 ? rig_below(s, 256) : (uint32_t)rig_random(s);
    uint64_t val = rig_random(s);
    unsigned reg = rig_below(s, 64);
    uint8_t pa = 0, pb = 0;
    uint64_t va = 0, vb = 0;
    vcpu_idx_t c = VCPU_IDX(cpu);
    a->now = b->now += rig_below(s, 100000);
    switch (rig_below(s, 9)) {
    case 0:
    case 1:
        assert_int_equal(fabric_deliver(a->f, q), fabric_deliver(b->f, q));
        break;
    case 2:
        val = rig_below(s, 2) ? val : val & 0xfff;
        assert_int_equal(fabric_msr_write(a->f, c, a->now, 0x800 + reg, val),
                         fabric_msr_write(b->f, c, b->now, 0x800 + reg, val));
        break;
    case 3:
        fabric_mmio_write(a->f, c, a->now, reg << 4, (uint32_t)val);
        fabric_mmio_write(b->f, c, b->now, reg << 4, (uint32_t)val);
        break;
    case 4:
        val = rig_below(s, 4) ? 0xc00 : (val & 0xc00);
        assert_int_equal(rig_base(a, cpu, val), rig_base(b, cpu, val));
        break;
    case 5:
        rig_wr(a, cpu, APIC_SVR, 0x1ff);
        rig_wr(b, cpu, APIC_SVR, 0x1ff);
        break;
    case 6:
        assert_int_equal(fabric_irq_take(a->f, c), fabric_irq_take(b->f, c));
        break;
    case 7:
        assert_int_equal(fabric_events_take(a->f, c, &pa), fabric_events_take(b->f, c, &pb));
        assert_int_equal(pa, pb);
        break;
    default:
        assert_int_equal(fabric_msr_read(a->f, c, a->now, 0x800 + reg, &va),
                         fabric_msr_read(b->f, c, b->now, 0x800 + reg, &vb));
        assert_true(va == vb);
    }
}

static void assert_same_requests(struct rig *a, struct rig *b)
{
    for (uint32_t i = 0; i < a->n; i++)
        for (unsigned w = 0; w < 4; w++)
            assert_true(atomic_load(&a->f->lapic[i].irr[w]) == atomic_load(&b->f->lapic[i].irr[w]));
}

static void random_scripts_agree_with_and_without_a_map(void **state)
{
    uint64_t seed = 0x243f6a8885a308d3;
    for (unsigned round = 0; round < 30; round++) {
        struct rig a, b;
        rig_init(&a, observed_ids, OBSERVED, round & 1);
        rig_init(&b, observed_ids, OBSERVED, round & 1);
        without_map(&b);
        rig_enable(&a);
        rig_enable(&b);
        for (unsigned k = 0; k < 4000; k++)
            same_script(&a, &b, &seed);
        assert_same_requests(&a, &b);
        assert_null(atomic_load(&b.f->map));
        rig_fini(&a);
        rig_fini(&b);
    }
}

static void every_id_of_32768_is_reached_alone(void **state)
{
    enum { N = 32768 };
    uint32_t *ids = malloc(N * sizeof *ids);
    struct rig r;
    for (uint32_t i = 0; i < N; i++)
        ids[i] = N - 1 - i; /* index and ID are never the same */
    rig_init(&r, ids, N, true);
    rig_enable(&r);
    for (uint32_t id = 0; id < N; id++)
        assert_int_equal(fabric_deliver(r.f, rig_fixed(id, (uint8_t)(16 + id % 240))), 1);
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(r.kicks[i], 1);
        assert_int_equal(fabric_irq_pending(r.f, VCPU_IDX(i)), 16 + ids[i] % 240);
    }
    assert_int_equal(fabric_deliver(r.f, rig_fixed(UINT32_MAX, 0xee)), N);
    rig_fini(&r);
    free(ids);
}

static void the_port_delivers(void **state)
{
    struct rig r;
    rig_init(&r, observed_ids, OBSERVED, true);
    rig_enable(&r);
    struct irq_port p = fabric_port(r.f);
    assert_int_equal(p.deliver(p.opaque, rig_fixed(0x123, 0x66)), 1);
    assert_true(rig_got(&r, 5, 0x66));
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(x2apic_answers_as_kvm_does),
        cmocka_unit_test(xapic_answers_as_kvm_does),
        cmocka_unit_test(mixed_modes),
        cmocka_unit_test(with_8_bit_ids_aliases_all_receive),
        cmocka_unit_test(the_broadcast_quirk_makes_ff_everyone),
        cmocka_unit_test(only_high_ids_work),
        cmocka_unit_test(bad_configurations_are_refused),
        cmocka_unit_test(shorthands),
        cmocka_unit_test(self_ipi_register),
        cmocka_unit_test(aps_are_started_from_x2apic_while_in_xapic_mode),
        cmocka_unit_test(nmi_goes_to_32_bit_ids),
        cmocka_unit_test(lowest_priority_hashes_the_vector_over_those_enabled),
        cmocka_unit_test(xapic_logical_destinations),
        cmocka_unit_test(an_xapic_id_can_be_rewritten),
        cmocka_unit_test(one_rebuild_a_change_and_none_without),
        cmocka_unit_test(a_map_comes_back_when_memory_does),
        cmocka_unit_test(reset_forgets_everything),
        cmocka_unit_test(random_scripts_agree_with_and_without_a_map),
        cmocka_unit_test(every_id_of_32768_is_reached_alone),
        cmocka_unit_test(the_port_delivers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
