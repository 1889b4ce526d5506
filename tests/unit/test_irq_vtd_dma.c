/* VT-d: what devices' accesses become, and what invalidations drop. */
#include "vtd_rig.h"

#define RW     UINT64_C(3)
#define RID    0x0118 /* bus 1, device 3, function 0 */
#define DOMAIN 7
#define PT(n)  (RIG_PAGES + (n)*0x1000u)
#define TARGET UINT64_C(0x345000)
#define IOVA   UINT64_C(0x7f8040602123) /* indices ffh, 1, 3, 2 */
#define AW48   2
#define AW39   1

static void context(struct vtd_rig *r, unsigned rid, uint64_t lo, uint64_t aw, unsigned domain)
{
    *quad(r, RIG_ROOT + (rid >> 8) * 16u) = RIG_CONTEXT | 1;
    *quad(r, RIG_CONTEXT + (rid & 0xff) * 16u) = lo;
    *quad(r, RIG_CONTEXT + (rid & 0xff) * 16u + 8) = aw | (uint64_t)domain << 8;
}

static uint64_t *pte(struct vtd_rig *r, unsigned table, unsigned level)
{
    return quad(r, PT(table) + bits(IOVA, 20 + 9 * level, 12 + 9 * level) * 8);
}

/* Four levels down to TARGET for IOVA, and on. */
static void dma_on(struct vtd_rig *r, struct vtd_config c)
{
    vtd_rig_open(r, c);
    context(r, RID, PT(0) | 1, AW48, DOMAIN);
    for (unsigned i = 0; i < 3; i++)
        *pte(r, i, 3 - i) = PT(i + 1) | RW;
    *pte(r, 3, 0) = TARGET | RW;
    wq(r, VTD_RTADDR, RIG_ROOT);
    gcmd(r, VTD_G_SRTP, 0);
    gcmd(r, VTD_G_TE, 0);
    queue_on(r);
}

static gpa_t reads(struct vtd_rig *r, unsigned rid, uint64_t iova)
{
    struct vtd_page p = {0};
    return vtd_translate(r->v, REQUESTER_ID(rid), iova, false, &p) ? p.gpa : UINT64_MAX;
}

static void faults(struct vtd_rig *r, uint64_t iova, bool write, unsigned reason)
{
    struct vtd_page p;
    unsigned at = r->v->fault_next;
    submit(r, 2 | 1u << 4, 0);
    assert_false(vtd_translate(r->v, REQUESTER_ID(RID), iova, write, &p));
    assert_int_equal(rq(r, VTD_FRCD + at * 16), iova & VTD_PAGE_MASK);
    assert_int_equal(rq(r, VTD_FRCD + at * 16 + 8), BIT(63) | (write ? 0 : BIT(62)) | (uint64_t)reason << 32 | RID);
    wr(r, VTD_FRCD + at * 16 + 12, 0x80000000);
    assert_int_equal(rd(r, VTD_FSTS), 0);
}

static void four_levels_down(void **state)
{
    struct vtd_rig r;
    struct vtd_page p;
    dma_on(&r, vtd_rig_config(true));
    assert_true(vtd_translate(r.v, REQUESTER_ID(RID), IOVA, true, &p));
    assert_int_equal(p.gpa, TARGET | 0x123);
    assert_true(p.write);
    assert_int_equal(reads(&r, RID, IOVA), TARGET | 0x123);
    gcmd(&r, 0, VTD_G_TE);
    assert_int_equal(reads(&r, RID, IOVA), IOVA);
    assert_int_equal(reads(&r, 0x9999, UINT64_MAX - 5), UINT64_MAX - 5);
    vtd_rig_close(&r);
}

static void large_pages_and_three_levels(void **state)
{
    struct vtd_rig r;
    dma_on(&r, vtd_rig_config(true));
    *pte(&r, 2, 1) = UINT64_C(0x600000) | RW | BIT(7);
    assert_int_equal(reads(&r, RID, IOVA), 0x600000 | (IOVA & 0x1fffff));
    submit(&r, 2 | 1u << 4, 0);
    *pte(&r, 1, 2) = UINT64_C(0x40000000) | RW | BIT(7);
    assert_int_equal(reads(&r, RID, IOVA), 0x40000000 | (IOVA & 0x3fffffff));
    *pte(&r, 1, 2) = UINT64_C(0x40001000) | RW | BIT(7);
    faults(&r, IOVA, false, 0xc);
    *pte(&r, 1, 2) = PT(2) | RW;
    *pte(&r, 2, 1) = PT(3) | RW;
    context(&r, RID, PT(1) | 1, AW39, DOMAIN);
    faults(&r, IOVA, false, 4);
    submit(&r, 1 | 1u << 4, 0);
    assert_int_equal(reads(&r, RID, IOVA & (BIT(39) - 1)), TARGET | 0x123);
    vtd_rig_close(&r);
}

static void every_dma_fault(void **state)
{
    struct vtd_rig r;
    struct vtd_config c = vtd_rig_config(true);
    dma_on(&r, c);
    *pte(&r, 3, 0) = TARGET | 1;
    faults(&r, IOVA, true, 5);
    *pte(&r, 3, 0) = TARGET | 2;
    faults(&r, IOVA, false, 6);
    *pte(&r, 0, 3) = PT(1) | 1; /* rights are those of all levels */
    faults(&r, IOVA, true, 5);
    *pte(&r, 0, 3) = PT(1) | RW | BIT(7);
    faults(&r, IOVA, true, 0xc);
    *pte(&r, 0, 3) = PT(1) | RW | BIT(46);
    faults(&r, IOVA, true, 0xc);
    *pte(&r, 0, 3) = NOWHERE | RW;
    faults(&r, IOVA, true, 7);
    faults(&r, BIT(48), false, 4);
    context(&r, RID, PT(0) | 1, 3, DOMAIN);
    faults(&r, IOVA, false, 3);
    context(&r, RID, PT(0) | 1 | 1u << 2, AW48, DOMAIN);
    faults(&r, IOVA, false, 3);
    context(&r, RID, PT(0) | 1 | 1u << 4, AW48, DOMAIN);
    faults(&r, IOVA, false, 0xb);
    context(&r, RID, PT(0), AW48, DOMAIN);
    faults(&r, IOVA, false, 2);
    *quad(&r, RIG_ROOT + 16) = NOWHERE | 1;
    faults(&r, IOVA, false, 9);
    *quad(&r, RIG_ROOT + 16) = RIG_CONTEXT | 1 | 2;
    faults(&r, IOVA, false, 0xa);
    *quad(&r, RIG_ROOT + 16) = 0;
    faults(&r, IOVA, false, 1);
    wq(&r, VTD_RTADDR, NOWHERE);
    gcmd(&r, VTD_G_SRTP, 0);
    faults(&r, IOVA, false, 8);
    vtd_rig_close(&r);
}

static void fpd_silences_a_device(void **state)
{
    struct vtd_rig r;
    dma_on(&r, vtd_rig_config(true));
    *pte(&r, 3, 0) = 0;
    context(&r, RID, PT(0) | 1 | 2, AW48, DOMAIN);
    assert_int_equal(reads(&r, RID, IOVA), UINT64_MAX);
    context(&r, RID, 2, AW48, DOMAIN);
    assert_int_equal(reads(&r, RID, IOVA), UINT64_MAX);
    assert_int_equal(rd(&r, VTD_FSTS), 0);
    vtd_rig_close(&r);
}

static void pass_through(void **state)
{
    struct vtd_rig r;
    struct vtd_page p;
    dma_on(&r, vtd_rig_config(true));
    context(&r, RID, 1 | 2u << 2, AW48, DOMAIN);
    assert_true(vtd_translate(r.v, REQUESTER_ID(RID), IOVA, true, &p));
    assert_int_equal(p.gpa, IOVA);
    faults(&r, BIT(48) | 0x1000, true, 4);
    vtd_rig_close(&r);
}

static void narrow_units_know_no_fourth_level(void **state)
{
    struct vtd_rig r;
    struct vtd_config c = vtd_rig_config(true);
    c.aw_bits = 39;
    dma_on(&r, c);
    faults(&r, 0x1000, false, 3);
    context(&r, RID, PT(1) | 1, AW39, DOMAIN);
    assert_int_equal(reads(&r, RID, IOVA & (BIT(39) - 1)), TARGET | 0x123);
    vtd_rig_close(&r);
}

/* Whether a cached translation is still in use: the leaf has been moved meanwhile. */
static bool cached(struct vtd_rig *r)
{
    *pte(r, 3, 0) = TARGET | RW;
    submit(r, 2 | 1u << 4, 0);
    assert_int_equal(reads(r, RID, IOVA), TARGET | 0x123);
    *pte(r, 3, 0) = (TARGET + 0x1000) | RW;
    assert_int_equal(reads(r, RID, IOVA), TARGET | 0x123);
    return true;
}

static bool dropped(struct vtd_rig *r, uint64_t lo, uint64_t hi)
{
    cached(r);
    submit(r, lo, hi);
    return reads(r, RID, IOVA) != (TARGET | 0x123);
}

static bool dropped_by_registers(struct vtd_rig *r, unsigned reg, uint64_t val, uint64_t done)
{
    cached(r);
    wq(r, reg, val);
    assert_int_equal(rq(r, reg) >> 57, done);
    return reads(r, RID, IOVA) != (TARGET | 0x123);
}

static void invalidations_drop_what_they_name(void **state)
{
    uint64_t page = IOVA & VTD_PAGE_MASK, domain = DOMAIN << 16, other = 8 << 16;
    struct vtd_rig r;
    dma_on(&r, vtd_rig_config(true));
    assert_true(dropped(&r, 2 | 1u << 4, 0));
    assert_true(dropped(&r, 2 | 2u << 4 | domain, 0));
    assert_false(dropped(&r, 2 | 2u << 4 | other, 0));
    assert_true(dropped(&r, 2 | 3u << 4 | domain, page));
    assert_false(dropped(&r, 2 | 3u << 4 | other, page));
    assert_false(dropped(&r, 2 | 3u << 4 | domain, page + 0x1000));
    assert_true(dropped(&r, 2 | 3u << 4 | domain, (page ^ 0x7000) | 3));
    assert_false(dropped(&r, 2 | 3u << 4 | domain, (page ^ 0x8000) | 3));
    assert_true(dropped(&r, 1 | 1u << 4, 0));
    assert_true(dropped(&r, 1 | 2u << 4 | domain, 0));
    assert_false(dropped(&r, 1 | 2u << 4 | other, 0));
    assert_true(dropped(&r, 1 | 3u << 4 | domain | (uint64_t)RID << 32, 0));
    assert_false(dropped(&r, 1 | 3u << 4 | domain | (uint64_t)(RID + 1) << 32, 0));
    assert_false(dropped(&r, 1 | 3u << 4 | domain | (uint64_t)(RID + 1) << 32 | UINT64_C(2) << 48, 0));
    assert_true(dropped(&r, 1 | 3u << 4 | domain | (uint64_t)(RID + 1) << 32 | UINT64_C(3) << 48, 0));
    assert_int_equal(rd(&r, VTD_FSTS), 0);
    vtd_rig_close(&r);
}

static void invalidation_by_registers(void **state)
{
    struct vtd_rig r;
    dma_on(&r, vtd_rig_config(true));
    assert_true(dropped_by_registers(&r, VTD_CCMD, BIT(63) | UINT64_C(1) << 61, 1 << 2 | 1 << 4));
    assert_true(dropped_by_registers(&r, VTD_CCMD, BIT(63) | UINT64_C(2) << 61 | DOMAIN, 2 << 2 | 2 << 4));
    assert_false(dropped_by_registers(&r, VTD_CCMD, BIT(63) | UINT64_C(3) << 61 | DOMAIN | 5 << 16, 3 << 2 | 3 << 4));
    assert_true(dropped_by_registers(&r, VTD_CCMD, BIT(63) | UINT64_C(3) << 61 | DOMAIN | (uint64_t)RID << 16,
                                     3 << 2 | 3 << 4));
    assert_true(dropped_by_registers(&r, VTD_IOTLB, BIT(63) | UINT64_C(1) << 60, 1 | 1 << 3));
    assert_true(dropped_by_registers(&r, VTD_IOTLB, BIT(63) | UINT64_C(2) << 60 | (uint64_t)DOMAIN << 32, 2 | 2 << 3));
    wq(&r, VTD_IVA, (IOVA & VTD_PAGE_MASK) + 0x1000);
    assert_false(dropped_by_registers(&r, VTD_IOTLB, BIT(63) | UINT64_C(3) << 60 | (uint64_t)DOMAIN << 32, 3 | 3 << 3));
    wq(&r, VTD_IVA, IOVA & VTD_PAGE_MASK);
    assert_true(dropped_by_registers(&r, VTD_IOTLB, BIT(63) | UINT64_C(3) << 60 | (uint64_t)DOMAIN << 32, 3 | 3 << 3));
    wq(&r, VTD_IVA, 0x3f); /* too wide: the whole domain instead */
    assert_true(dropped_by_registers(&r, VTD_IOTLB, BIT(63) | UINT64_C(3) << 60 | (uint64_t)DOMAIN << 32, 2 | 3 << 3));
    assert_int_equal(rq(&r, VTD_IVA), 0);
    vtd_rig_close(&r);
}

static void a_page_of_a_large_page_drops_it_all(void **state)
{
    struct vtd_rig r;
    dma_on(&r, vtd_rig_config(true));
    *pte(&r, 2, 1) = UINT64_C(0x600000) | RW | BIT(7);
    assert_int_equal(reads(&r, RID, IOVA), 0x600000 | (IOVA & 0x1fffff));
    *pte(&r, 2, 1) = UINT64_C(0x800000) | RW | BIT(7);
    submit(&r, 2 | 3u << 4 | DOMAIN << 16, (IOVA & ~UINT64_C(0x1fffff)) + 0x9000);
    assert_int_equal(reads(&r, RID, IOVA), 0x800000 | (IOVA & 0x1fffff));
    vtd_rig_close(&r);
}

static void more_rights_need_no_invalidation(void **state)
{
    struct vtd_rig r;
    struct vtd_page p;
    dma_on(&r, vtd_rig_config(true));
    *pte(&r, 3, 0) = TARGET | 1;
    assert_true(vtd_translate(r.v, REQUESTER_ID(RID), IOVA, false, &p));
    assert_false(p.write);
    *pte(&r, 3, 0) = TARGET | RW;
    assert_true(vtd_translate(r.v, REQUESTER_ID(RID), IOVA, true, &p));
    vtd_rig_close(&r);
}

static void rights_are_those_of_all_levels(void **state)
{
    struct vtd_rig r;
    struct vtd_page p;
    dma_on(&r, vtd_rig_config(true));
    *pte(&r, 1, 2) = PT(2) | 1; /* read only, above a leaf that grants both */
    assert_true(vtd_translate(r.v, REQUESTER_ID(RID), IOVA, false, &p));
    assert_false(p.write);
    assert_false(vtd_translate(r.v, REQUESTER_ID(RID), IOVA, true, &p));
    vtd_rig_close(&r);
}

static void devices_do_not_share_translations(void **state)
{
    struct vtd_rig r;
    dma_on(&r, vtd_rig_config(true));
    context(&r, RID + 1, 1 | 2u << 2, AW48, DOMAIN);
    for (uint64_t i = 0; i < 5000; i++) { /* more than the cache holds, of both */
        uint64_t iova = IOVA + (i % 7 ? i * 0x1000 : 0);
        assert_int_equal(reads(&r, RID + 1, iova), iova);
        assert_int_equal(reads(&r, RID, IOVA), TARGET | 0x123);
    }
    vtd_rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(four_levels_down),
        cmocka_unit_test(large_pages_and_three_levels),
        cmocka_unit_test(every_dma_fault),
        cmocka_unit_test(fpd_silences_a_device),
        cmocka_unit_test(pass_through),
        cmocka_unit_test(narrow_units_know_no_fourth_level),
        cmocka_unit_test(invalidations_drop_what_they_name),
        cmocka_unit_test(invalidation_by_registers),
        cmocka_unit_test(a_page_of_a_large_page_drops_it_all),
        cmocka_unit_test(more_rights_need_no_invalidation),
        cmocka_unit_test(rights_are_those_of_all_levels),
        cmocka_unit_test(devices_do_not_share_translations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
