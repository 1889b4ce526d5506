/* The destination map against a model that knows nothing of maps: one loop over all APICs per rule of the manual. */
#include "irq_rig.h"

#define MAX_CPUS 400

struct apic {
    uint32_t id;
    uint8_t mode, xid, ldr, model;
};

struct world {
    struct apic a[MAX_CPUS];
    _Atomic dest_word_t words[MAX_CPUS];
    uint32_t n, max_id;
    struct dest_map *map;
};

static bool model_logical(const struct apic *a, struct irq q)
{
    if (a->mode == LAPIC_X2APIC) {
        uint32_t ldr = (a->id / 16) * 65536 + (1u << (a->id % 16));
        return (ldr & 0xffff0000u) == (q.dest & 0xffff0000u) && (ldr & q.dest & 0xffff);
    }
    if (q.dest > 255)
        return false;
    if (a->model == DEST_FLAT)
        return a->ldr & q.dest;
    if (a->model == DEST_CLUSTER)
        return (a->ldr & 0xf0) == (q.dest & 0xf0) && (a->ldr & q.dest & 15);
    return false;
}

/* The one APIC that answers to a physical ID. */
static int model_owner(const struct world *w, uint32_t dest)
{
    for (uint32_t i = 0; i < w->n; i++)
        if (w->a[i].id == dest && (w->a[i].mode == LAPIC_X2APIC || (w->a[i].mode == LAPIC_XAPIC && dest > 255)))
            return (int)i;
    for (int truncated = 0; truncated < 2; truncated++)
        for (uint32_t i = 0; i < w->n; i++)
            if (w->a[i].mode == LAPIC_XAPIC && w->a[i].xid == dest && (w->a[i].id > 255) == truncated)
                return (int)i;
    return -1;
}

static bool model_takes(const struct world *w, uint32_t i, struct irq q)
{
    const struct apic *a = &w->a[i];
    bool any_xapic = false;
    for (uint32_t k = 0; k < w->n; k++)
        any_xapic |= w->a[k].mode == LAPIC_XAPIC;
    if (a->mode == LAPIC_DISABLED)
        return false;
    if (q.dest == UINT32_MAX)
        return a->mode == LAPIC_X2APIC;
    if (q.dest == 255 && q.dest8 && a->mode == LAPIC_XAPIC)
        return true;
    if (q.logical)
        return model_logical(a, q);
    if (q.dest == 255 && q.dest8 && any_xapic)
        return a->id == 255; /* in x2APIC mode */
    return model_owner(w, q.dest) == (int)i;
}

static void world_words(struct world *w)
{
    w->max_id = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        const struct apic *a = &w->a[i];
        if (a->id > w->max_id)
            w->max_id = a->id;
        atomic_store(&w->words[i], dest_word(APIC_ID(a->id), a->mode, a->xid, a->ldr, a->model));
    }
    w->map = malloc(dest_map_size(w->max_id));
    dest_map_build(w->map, w->max_id, w->words, w->n);
}

enum style { HOLES, HIGH_ONLY, DESCENDING, STYLES };

/* IDs with holes; modes all one, the other, or mixed; logical IDs orderly, or as a confused guest leaves them. */
static void world_random(struct world *w, uint64_t *s, enum style style)
{
    unsigned modes = rig_below(s, 4), order = rig_below(s, 3);
    uint32_t id = style == HIGH_ONLY ? 256 + rig_below(s, 2000) : rig_below(s, 3);
    w->n = 1 + rig_below(s, MAX_CPUS - 1);
    for (uint32_t i = 0; i < w->n; i++) {
        struct apic *a = &w->a[i];
        a->id = id;
        a->xid = (uint8_t)(rig_below(s, 50) ? id : rig_random(s));
        a->mode = (uint8_t)(modes == 0 ? LAPIC_X2APIC : modes == 1 ? LAPIC_XAPIC : rig_below(s, 3));
        a->ldr = (uint8_t)(order == 0   ? (i < 8 ? 1u << i : 0)
                           : order == 1 ? (i % 15) << 4 | 1u << (i / 15 % 4)
                                        : rig_random(s));
        a->model = (uint8_t)(order == 0 ? DEST_FLAT : order == 1 ? DEST_CLUSTER : rig_below(s, 3));
        if (order == 1 && i >= 60)
            a->ldr = 0;
        id += 1 + (rig_below(s, 3) ? 0 : rig_below(s, 160));
        if (id > HEC_APIC_ID_MAX) {
            w->n = i + 1;
            break;
        }
    }
    for (uint32_t i = 0; style == DESCENDING && i < w->n / 2; i++) {
        struct apic t = w->a[i];
        w->a[i] = w->a[w->n - 1 - i];
        w->a[w->n - 1 - i] = t;
    }
    world_words(w);
}

static struct irq random_irq(struct world *w, uint64_t *s)
{
    uint32_t near = w->a[rig_below(s, w->n)].id;
    struct irq q = {.logical = (uint8_t)rig_below(s, 2), .assert_ = 1, .vector = 0x31};
    switch (rig_below(s, 6)) {
    case 0:
        q.dest = 255;
        break;
    case 1:
        q.dest = UINT32_MAX;
        break;
    case 2:
        q.dest = rig_below(s, 256);
        break;
    case 3:
        q.dest = near ^ (rig_below(s, 2) ? 0x100 : 0);
        break;
    case 4:
        q.dest = near & 0xff;
        break;
    default:
        q.dest = q.logical ? (near >> 4) << 16 | rig_below(s, 65536) : near;
    }
    q.dest8 = q.dest <= 255 && rig_below(s, 2);
    return q;
}

static void check_set(struct world *w, const struct dest_map *map, struct irq q)
{
    struct dest_set set;
    bool got[MAX_CPUS] = {false};
    dest_find(map, w->words, w->n, q, &set);
    for (uint32_t i = 0; set.scan && i < w->n; i++)
        got[i] = dest_match(atomic_load(&w->words[i]), q);
    for (uint32_t k = 0; !set.scan && k < set.n; k++) {
        assert_true(set.idx[k] < w->n);
        assert_false(got[set.idx[k]]);
        assert_true(k == 0 || set.idx[k - 1] < set.idx[k]);
        got[set.idx[k]] = true;
    }
    for (uint32_t i = 0; i < w->n; i++)
        if (got[i] != model_takes(w, i, q))
            fail_msg("map %d dest %x logical %d dest8 %d: apic %x mode %d xid %x ldr %x model %d got %d", map != NULL,
                     q.dest, q.logical, q.dest8, w->a[i].id, w->a[i].mode, w->a[i].xid, w->a[i].ldr, w->a[i].model,
                     got[i]);
}

static void map_and_words_give_the_models_answer(void **state)
{
    uint64_t seed = 0x9e3779b97f4a7c15;
    for (unsigned round = 0; round < 90; round++) {
        static struct world w;
        world_random(&w, &seed, round % STYLES);
        for (unsigned k = 0; k < 200; k++) {
            struct irq q = random_irq(&w, &seed);
            check_set(&w, w.map, q);
            check_set(&w, NULL, q);
        }
        free(w.map);
    }
}

static void a_truncated_id_never_hides_a_real_one(void **state)
{
    static struct world w = {.a = {{.id = 0x300, .mode = LAPIC_X2APIC},
                                   {.id = 0x223, .mode = LAPIC_XAPIC, .xid = 0x23},
                                   {.id = 0x123, .mode = LAPIC_XAPIC, .xid = 0x23},
                                   {.id = 0x23, .mode = LAPIC_XAPIC, .xid = 0x23}},
                             .n = 4};
    world_words(&w);
    assert_int_equal(dest_map_physical(w.map, 0x23), 3);
    assert_int_equal(dest_map_physical(w.map, 0x123), 2);
    assert_int_equal(dest_map_physical(w.map, 0x223), 1);
    assert_int_equal(dest_map_physical(w.map, 0x300), 0);
    assert_int_equal(dest_map_physical(w.map, 0), DEST_NOBODY);
    assert_int_equal(dest_map_physical(w.map, 32767), DEST_NOBODY);
    assert_int_equal(dest_map_physical(w.map, 0xfffffffe), DEST_NOBODY);
    free(w.map);
}

static void the_largest_id_has_a_slot(void **state)
{
    static struct world w = {.a = {{.id = 32767, .mode = LAPIC_X2APIC}, {.id = 5, .mode = LAPIC_X2APIC}}, .n = 2};
    world_words(&w);
    assert_int_equal(dest_map_physical(w.map, 32767), 0);
    assert_int_equal(dest_map_physical(w.map, 5), 1);
    assert_int_equal(dest_map_physical(w.map, 32768), DEST_NOBODY);
    check_set(&w, w.map, (struct irq){.dest = 2047u << 16 | 0x8000, .logical = 1});
    free(w.map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map_and_words_give_the_models_answer),
        cmocka_unit_test(a_truncated_id_never_hides_a_real_one),
        cmocka_unit_test(the_largest_id_has_a_slot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
