/* Host translations: device table entries, page tables of every shape, the cache, and a model that walks naively. */
#include "amdvi_rig.h"
#include "irq_rig.h"

#define TABLES  UINT64_C(0x200000) /* a page a table from here on */
#define DOMAIN  0x77
#define PR      1
#define IR_IW   (DTE0_IR | DTE0_IW)
#define NEXT(n) ((uint64_t)(n) << 9)

static gpa_t table(unsigned n)
{
    return TABLES + n * UINT64_C(4096);
}

static void pte(struct arig *r, unsigned n, unsigned index, uint64_t val)
{
    arig_st(r, table(n) + index * UINT64_C(8), val);
}

static void device(struct arig *r, uint64_t mode, uint64_t more0, uint64_t more1)
{
    arig_dte(r, ARIG_DEV, DTE0_V | DTE0_TV | NEXT(mode) | (mode ? table(0) : 0) | more0, DOMAIN | more1, 0);
}

static enum amdvi_dma_result go(struct arig *r, uint64_t iova, bool write, gpa_t *gpa)
{
    uint64_t len = 0;
    enum amdvi_dma_result res = amdvi_dma(r->a, REQUESTER_ID(ARIG_DEV), iova, write, gpa, &len);
    if (res == AMDVI_DMA_OK)
        assert_true(len > 0);
    return res;
}

#define GOES(iova, write, to)                                                                                          \
    do {                                                                                                               \
        gpa_t gpa_ = 0;                                                                                                \
        assert_int_equal(go(&r, iova, write, &gpa_), AMDVI_DMA_OK);                                                    \
        assert_int_equal(gpa_, to);                                                                                    \
        arig_quiet(&r);                                                                                                \
    } while (0)

#define FAULTS(iova, write, flags)                                                                                     \
    do {                                                                                                               \
        gpa_t gpa_ = 0;                                                                                                \
        assert_int_equal(go(&r, iova, write, &gpa_), AMDVI_DMA_BLOCKED);                                               \
        arig_expect(&r, EVT_IO_PAGE_FAULT, ARIG_DEV, DOMAIN, (flags) | ((write) ? EVT_RW : 0), iova);                  \
    } while (0)

static void invalidate(struct arig *r, uint16_t domain, uint64_t address)
{
    arig_command(r, arig_op(3, (uint64_t)domain << 32), address);
}

static void the_devices_entry(void **state)
{
    struct arig r;
    gpa_t gpa;
    arig_init(&r);
    GOES(0x1234567, true, 0x1234567); /* the unit is off */
    arig_start(&r, 0);
    GOES(0x1234567, true, 0x1234567); /* V = 0 */
    device(&r, 0, DTE0_IR, 0);
    GOES(0x1234567, false, 0x1234567);
    FAULTS(0x1234567, true, EVT_PR | EVT_PE);
    arig_dte(&r, ARIG_DEV, DTE0_V, DOMAIN, 0);
    FAULTS(0x5000, false, 0);
    device(&r, 7, IR_IW, 0);
    assert_int_equal(go(&r, 0x5000, false, &gpa), AMDVI_DMA_BLOCKED);
    arig_expect(&r, EVT_ILLEGAL_DTE, ARIG_DEV, 0, 0, 0x5000);
    device(&r, 1, IR_IW | BIT(3), 0);
    assert_int_equal(go(&r, 0x5000, true, &gpa), AMDVI_DMA_BLOCKED);
    arig_expect(&r, EVT_ILLEGAL_DTE, ARIG_DEV, 0, EVT_RZ | EVT_RW, 0x5000);
    arig_wr(&r, AMDVI_DEVTAB, ARIG_DEVTAB); /* 128 devices */
    assert_int_equal(go(&r, 0x5000, false, &gpa), AMDVI_DMA_BLOCKED);
    arig_expect(&r, EVT_IO_PAGE_FAULT, ARIG_DEV, 0, 0, 0x5000);
    arig_wr(&r, AMDVI_DEVTAB, UINT64_C(0x70000000f));
    assert_int_equal(go(&r, 0x5000, false, &gpa), AMDVI_DMA_BLOCKED);
    arig_expect(&r, EVT_DEVTAB_HW, ARIG_DEV, 0, EVT_MASTER, UINT64_C(0x700000000) + ARIG_DEV * 32);
    arig_fini(&r);
}

static void without_host_tables_mode_must_be_zero(void **state)
{
    struct arig r;
    gpa_t gpa;
    arig_init_as(&r, true, true, false);
    arig_start(&r, 0);
    device(&r, 0, IR_IW, 0);
    GOES(0x5000, true, 0x5000);
    device(&r, 1, IR_IW, 0);
    assert_int_equal(go(&r, 0x5000, false, &gpa), AMDVI_DMA_BLOCKED);
    arig_expect(&r, EVT_ILLEGAL_DTE, ARIG_DEV, 0, 0, 0x5000);
    arig_fini(&r);
}

static void every_number_of_levels(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_start(&r, 0);
    for (unsigned levels = 1; levels <= 6; levels++) {
        uint64_t iova = 0x123;
        for (unsigned l = levels; l >= 1; l--) {
            unsigned index = l == 6 ? 0x55 : 0x101 + l;
            iova |= (uint64_t)index << (12 + 9 * (l - 1));
            pte(&r, levels - l, index,
                PR | IR_IW | (l == 1 ? UINT64_C(0xabcde12345000) : NEXT(l - 1) | table(levels - l + 1)));
        }
        arig_command(&r, arig_op(8, 0), 0);
        device(&r, levels, IR_IW, 0);
        GOES(iova, true, UINT64_C(0xabcde12345123));
        if (levels < 6)
            FAULTS(iova | BIT(12 + 9 * levels), false, 0);
        memset(r.ram.low + TABLES, 0, 6 * 4096);
    }
    arig_fini(&r);
}

static void page_sizes(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_start(&r, 0);
    device(&r, 3, IR_IW, 0);
    pte(&r, 0, 1, PR | IR_IW | UINT64_C(0x1c0000000)); /* 1 GiB */
    GOES(UINT64_C(0x7fffffff), true, UINT64_C(0x1ffffffff));
    pte(&r, 0, 2, PR | IR_IW | NEXT(2) | table(1));
    pte(&r, 1, 0, PR | IR_IW | NEXT(7) | UINT64_C(0x1000001ff000)); /* lowest clear bit 21: 4 MiB */
    pte(&r, 1, 1, arig_ld(&r, table(1)));                           /* it takes two entries */
    GOES(UINT64_C(0x803fffff), true, UINT64_C(0x1000003fffff));
    pte(&r, 1, 2, PR | IR_IW | NEXT(1) | table(2));
    pte(&r, 2, 8, PR | IR_IW | NEXT(7) | UINT64_C(0x100000003000)); /* 32 KiB */
    GOES(UINT64_C(0x80408abc), false, UINT64_C(0x100000000abc));
    pte(&r, 2, 16, PR | IR_IW | NEXT(7) | UINT64_C(0x1000000ff000)); /* 2 MiB: the next level's */
    FAULTS(UINT64_C(0x80410000), false, EVT_PR);
    pte(&r, 1, 4, PR | IR_IW | NEXT(7) | UINT64_C(0x10000000f000)); /* 128 KiB: less than this level's */
    FAULTS(UINT64_C(0x80800000), false, EVT_PR);
    arig_fini(&r);
}

static void levels_may_be_skipped_over_zeros(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_start(&r, 0);
    device(&r, 4, IR_IW, 0);
    pte(&r, 0, 3, PR | IR_IW | NEXT(1) | table(1));
    pte(&r, 1, 5, PR | IR_IW | 0x300000);
    uint64_t iova = UINT64_C(3) << 39 | 5 << 12;
    GOES(iova, true, 0x300000);
    FAULTS(iova | BIT(21), false, 0);
    FAULTS(iova | BIT(38), false, 0);
    pte(&r, 0, 4, PR | IR_IW | NEXT(4) | table(1)); /* no way up */
    FAULTS(UINT64_C(4) << 39, false, EVT_PR);
    pte(&r, 1, 6, PR | IR_IW | NEXT(1) | table(1));
    FAULTS(UINT64_C(3) << 39 | 6 << 12, false, EVT_PR);
    arig_fini(&r);
}

static void entries_that_do_not_do(void **state)
{
    struct arig r;
    gpa_t gpa;
    arig_init(&r);
    arig_start(&r, 0);
    device(&r, 1, IR_IW, 0);
    FAULTS(0x5000, true, 0);
    pte(&r, 0, 5, PR | IR_IW | BIT(55) | 0x9000);
    FAULTS(0x5000, true, EVT_PR | EVT_RZ);
    pte(&r, 0, 5, PR | DTE0_IR | 0x9000);
    FAULTS(0x5000, true, EVT_PR | EVT_PE);
    GOES(0x5000, false, 0x9000);
    FAULTS(0x5000, true, EVT_PR | EVT_PE);
    pte(&r, 0, 5, PR | IR_IW | 0x9000); /* more rights need no invalidation */
    GOES(0x5008, true, 0x9008);
    device(&r, 2, IR_IW, 0);
    pte(&r, 0, 1, PR | IR_IW | NEXT(1) | UINT64_C(0x700000000));
    assert_int_equal(go(&r, 0x201000, false, &gpa), AMDVI_DMA_BLOCKED);
    arig_expect(&r, EVT_PAGETAB_HW, ARIG_DEV, DOMAIN, EVT_MASTER, UINT64_C(0x700000008));
    arig_fini(&r);
}

static void rights_are_those_of_every_level(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_start(&r, 0);
    for (unsigned m = 0; m < 64; m++) {
        unsigned all = m & m >> 2 & m >> 4 & 3;
        arig_command(&r, arig_op(8, 0), 0);
        device(&r, 2, (uint64_t)(m & 3) << 61, 0);
        pte(&r, 0, 0, PR | (uint64_t)(m >> 2 & 3) << 61 | NEXT(1) | table(1));
        pte(&r, 1, 5, PR | (uint64_t)(m >> 4 & 3) << 61 | 0x9000);
        for (unsigned write = 0; write < 2; write++) {
            if (all >> write & 1)
                GOES(0x5000, write, 0x9000);
            else
                FAULTS(0x5000, write, EVT_PR | EVT_PE);
        }
    }
    arig_fini(&r);
}

static void faults_may_be_suppressed(void **state)
{
    struct arig r;
    gpa_t gpa;
    arig_init(&r);
    arig_start(&r, 0);
    device(&r, 1, IR_IW, DTE1_SA);
    assert_int_equal(go(&r, 0x5000, false, &gpa), AMDVI_DMA_BLOCKED);
    arig_quiet(&r);
    device(&r, 1, IR_IW, DTE1_SE);
    for (unsigned i = 0; i < 3; i++) {
        FAULTS(0x5000, false, 0);
        assert_int_equal(go(&r, 0x5000, false, &gpa), AMDVI_DMA_BLOCKED);
        arig_quiet(&r);
        arig_command(&r, arig_op(i == 1 ? 8 : 2, i == 1 ? 0 : ARIG_DEV), 0);
    }
    arig_fini(&r);
}

static void the_exclusion_range(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_start(&r, 0);
    device(&r, 1, IR_IW, 0);
    arig_wr(&r, AMDVI_EXCL_BASE, 0x7000 | 1);
    arig_wr(&r, AMDVI_EXCL_LIMIT, 0x8000);
    FAULTS(0x7000, false, 0);
    device(&r, 1, IR_IW, DTE1_EX);
    GOES(0x7000, true, 0x7000);
    GOES(0x8fff, true, 0x8fff);
    FAULTS(0x9000, false, 0);
    FAULTS(0x6fff, false, 0);
    device(&r, 1, IR_IW, 0);
    arig_wr(&r, AMDVI_EXCL_BASE, 0x7000 | 3);
    GOES(0x7000, true, 0x7000);
    arig_wr(&r, AMDVI_EXCL_BASE, 0x7000 | 2);
    FAULTS(0x7000, true, 0);
    arig_fini(&r);
}

static void the_interrupt_range(void **state)
{
    struct arig r;
    gpa_t gpa;
    arig_init(&r);
    assert_int_equal(go(&r, 0xfee00000, true, &gpa), AMDVI_DMA_INTERRUPT);
    arig_start(&r, 0);
    assert_int_equal(go(&r, 0xfeefffff, true, &gpa), AMDVI_DMA_INTERRUPT);
    arig_quiet(&r);
    assert_int_equal(go(&r, 0xfee12345, false, &gpa), AMDVI_DMA_BLOCKED);
    arig_expect(&r, EVT_INVALID_DEVICE_REQUEST, ARIG_DEV, 0, 0, 0xfee12345);
    GOES(0xfef00000, true, 0xfef00000);
    arig_fini(&r);
}

/* Shows that there is a cache, and that each way of invalidation reaches what it must and spares the rest. */
static void invalidations(void **state)
{
    static const struct {
        uint16_t domain;
        uint64_t address;
        bool drops;
    } t[] = {{DOMAIN, 0x5000, true},
             {DOMAIN, 0x6000, false},
             {DOMAIN + 1, 0x5000, false},
             {DOMAIN, 0x0000 | 1, false},                       /* pages 0 and 1 */
             {DOMAIN, 0x4000 | 1, true},                        /* pages 4 and 5 */
             {DOMAIN, 0x7000 | 1, true},                        /* pages 0 to 15 */
             {DOMAIN, 0x17000 | 1, false},                      /* pages 16 to 31 */
             {DOMAIN, UINT64_C(0x7ffffffffffff000) | 3, true}}; /* all */
    struct arig r;
    arig_init(&r);
    arig_start(&r, 0);
    device(&r, 1, IR_IW, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        pte(&r, 0, 5, PR | IR_IW | 0x9000);
        arig_command(&r, arig_op(8, 0), 0);
        GOES(0x5000, true, 0x9000);
        pte(&r, 0, 5, PR | IR_IW | 0xa000);
        GOES(0x5000, true, 0x9000);
        invalidate(&r, t[i].domain, t[i].address);
        GOES(0x5000, true, t[i].drops ? 0xa000 : 0x9000);
    }
    arig_fini(&r);
}

/* A page of a large page goes when any part of the large page does. */
static void invalidating_part_of_a_large_page(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_start(&r, 0);
    device(&r, 2, IR_IW, 0);
    pte(&r, 0, 1, PR | IR_IW | 0x40000000);
    GOES(0x201000, true, 0x40001000);
    pte(&r, 0, 1, PR | IR_IW | 0x60000000);
    invalidate(&r, DOMAIN, 0x3ff000);
    GOES(0x201000, true, 0x60001000);
    arig_fini(&r);
}

/* ---- against a naive walk ---- */

/* What the tables say now, bit by bit: true and *gpa, or false and the flags of the fault. */
static bool model_walk(struct arig *r, uint64_t iova, unsigned level, bool write, gpa_t *gpa, uint32_t *flags)
{
    uint64_t q = arig_ld(r, ARIG_DEVTAB + ARIG_DEV * 32);
    *flags = EVT_PR | EVT_PE;
    if (!(q >> (write ? 62 : 61) & 1))
        return false;
    *flags = 0;
    if (level < 6 && iova >> (12 + 9 * level))
        return false;
    uint64_t perm = 3, at = q & UINT64_C(0xffffffffff000);
    for (;;) {
        unsigned shift = 12 + 9 * (level - 1), size = 0;
        q = arig_ld(r, at + (iova >> shift & 0x1ff) * 8);
        *flags = 0;
        if (!(q & 1))
            return false;
        *flags = EVT_PR | EVT_RZ;
        if (q >> 52 & 0x7f)
            return false;
        perm &= q >> 61;
        unsigned next = q >> 9 & 7;
        *flags = EVT_PR;
        if (next == 0)
            size = shift;
        if (next == 7) {
            for (size = 12; q >> size & 1; size++)
                ;
            if (++size <= shift || size >= shift + 9)
                return false;
        }
        if (size) {
            *gpa = (q & UINT64_C(0xffffffffff000)) >> size << size | (iova & (BIT(size) - 1));
            *flags = EVT_PR | EVT_PE;
            return perm >> write & 1;
        }
        if (next >= level)
            return false;
        *flags = 0;
        for (unsigned skipped = next + 1; skipped < level; skipped++)
            if (iova >> (12 + 9 * (skipped - 1)) & 0x1ff)
                return false;
        at = q & UINT64_C(0xffffffffff000);
        level = next;
    }
}

static uint64_t random_pte(uint64_t *s)
{
    uint64_t v = (rig_below(s, 8) != 0) | (rig_below(s, 4) ? 3 : rig_random(s) & 3) << 61;
    unsigned next = rig_below(s, 4) ? rig_below(s, 3) : rig_below(s, 8);
    v |= next == 0 || next == 7 ? rig_random(s) & UINT64_C(0x7fffffff000) : table(rig_below(s, 8));
    if (next == 7)
        v |= (BIT(rig_below(s, 24)) - 1) << 12;
    return v | NEXT(next) | (rig_below(s, 32) ? 0 : BIT(52 + rig_below(s, 7)));
}

/* Few indices, so that walks go deep; now and then a bit anywhere. */
static uint64_t random_iova(uint64_t *s, unsigned levels)
{
    uint64_t v = rig_random(s) & 0xfff;
    for (unsigned l = 0; l < levels && l < 6; l++)
        if (rig_below(s, 2))
            v |= (uint64_t)(1 + rig_below(s, 2)) << (12 + 9 * l);
    v |= rig_below(s, 16) ? 0 : BIT(rig_below(s, 64));
    return v >= 0xfee00000 && v <= 0xfeefffff ? 0 : v;
}

static void any_tables(void **state)
{
    uint64_t s = 0x77123, good = 0, bad = 0;
    struct arig r;
    arig_init(&r);
    arig_start(&r, 0);
    for (unsigned round = 0; round < 60000; round++) {
        unsigned levels = 1 + round / 8 % 6;
        if (round % 8 == 0) {
            for (unsigned t = 0; t < 8; t++)
                for (unsigned i = 0; i < 4; i++)
                    pte(&r, t, i, random_pte(&s));
            device(&r, levels, (rig_below(&s, 8) ? 3 : rig_random(&s) & 3) << 61, 0);
            arig_command(&r, arig_op(8, 0), 0);
        }
        uint64_t iova = random_iova(&s, levels);
        bool write = rig_below(&s, 2);
        gpa_t want = 0;
        uint32_t flags;
        if (model_walk(&r, iova, levels, write, &want, &flags)) {
            good++;
            GOES(iova, write, want);
        } else {
            bad++;
            FAULTS(iova, write, flags);
        }
    }
    assert_true(good > 5000 && bad > 5000);
    arig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_devices_entry),
        cmocka_unit_test(without_host_tables_mode_must_be_zero),
        cmocka_unit_test(every_number_of_levels),
        cmocka_unit_test(page_sizes),
        cmocka_unit_test(levels_may_be_skipped_over_zeros),
        cmocka_unit_test(entries_that_do_not_do),
        cmocka_unit_test(rights_are_those_of_every_level),
        cmocka_unit_test(faults_may_be_suppressed),
        cmocka_unit_test(the_exclusion_range),
        cmocka_unit_test(the_interrupt_range),
        cmocka_unit_test(invalidations),
        cmocka_unit_test(invalidating_part_of_a_large_page),
        cmocka_unit_test(any_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
