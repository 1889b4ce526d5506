#include "soft_machine.h"

/* ---- a mapping to try things on: 4-level, 4 KiB pages ---- */

enum { PML4 = 0x1000, PDPT = 0x2000, PD = 0x3000, PT = 0x4000, DATA = 0x100000 };

#define KERNEL_HALF UINT64_C(0xffff800000000000)

/* PT maps both gva 0.. and KERNEL_HALF.. to DATA + i pages, all rights. */
static void map_long(unsigned pl)
{
    memset(rig.ram.low, 0, 0x10000);
    *q(PML4) = *q(PML4 + 256 * 8) = PDPT | 7;
    *q(PDPT) = PD | 7;
    *q(PD) = PT | 7;
    for (unsigned i = 0; i < 512; i++)
        *q(PT + i * 8) = (DATA + i * 0x1000) | 7;
    soft_rig_long(&rig, pl);
    rig.v->st.cr3 = PML4;
    tlb_flush_all(rig.v);
}

static void loads_and_stores_reach_ram(void **state)
{
    map_long(0);
    struct soft_vcpu *v = rig.v;
    uint64_t val;
    for (unsigned size = 1; size <= 8; size *= 2) {
        assert_true(lin_store_slow(v, 0x5004, size, UINT64_C(0x1122334455667788)));
        assert_true(lin_load_slow(v, 0x5004, size, &val));
        assert_int_equal(val, UINT64_C(0x1122334455667788) & size_mask(size));
    }
    assert_int_equal(ld64(rig.ram.low + DATA + 0x5004), UINT64_C(0x1122334455667788));
    assert_non_null(tlb_read(v, 0x5000, 8));
    assert_non_null(tlb_write(v, 0x5000, 8));
    assert_null(tlb_read(v, 0x5ffc, 8)); /* crosses the page */
}

static void stores_across_pages_are_all_or_nothing(void **state)
{
    map_long(3);
    struct soft_vcpu *v = rig.v;
    uint64_t val;
    assert_true(lin_store_slow(v, 0x1ffd, 8, UINT64_C(0x8877665544332211)));
    assert_true(lin_load_slow(v, 0x1ffd, 8, &val));
    assert_int_equal(val, UINT64_C(0x8877665544332211));
    assert_int_equal(rig.ram.low[DATA + 0x2000], 0x44);
    *q(PT + 4 * 8) &= ~UINT64_C(2);
    assert_false(lin_store_slow(v, 0x3ffd, 8, ~UINT64_C(0)));
    expect_fault(v, VEC_PF, PF_P | PF_W | PF_U);
    assert_int_equal(v->st.cr2, 0x4000);
    assert_int_equal(ld32(rig.ram.low + DATA + 0x3ffc), 0);
    uint8_t big[64];
    memset(big, 0xee, sizeof big);
    assert_false(lin_write(v, 0x3ff0, big, sizeof big, 0));
    assert_int_equal(ld64(rig.ram.low + DATA + 0x3ff0), 0);
    assert_false(lin_probe_write(v, 0x3ff0, 64, 0));
    assert_true(lin_probe_write(v, 0x2ff0, 64, 0));
}

static void error_codes_tell_the_cause(void **state)
{
    map_long(3);
    struct soft_vcpu *v = rig.v;
    uint64_t val;
    gpa_t gpa;
    *q(PT + 1 * 8) = 0;
    *q(PT + 2 * 8) &= ~UINT64_C(4);
    *q(PT + 3 * 8) |= UINT64_C(1) << 63;
    *q(PT + 4 * 8) |= UINT64_C(1) << 50;
    assert_false(lin_load_slow(v, 0x1008, 8, &val));
    expect_fault(v, VEC_PF, PF_U);
    assert_int_equal(v->st.cr2, 0x1008);
    assert_false(lin_load_slow(v, 0x2000, 1, &val));
    expect_fault(v, VEC_PF, PF_U | PF_P);
    assert_true(lin_read(v, 0x2000, &val, 1, ACC_SUPER));
    assert_false(lin_fetch(v, 0x3000, &gpa));
    expect_fault(v, VEC_PF, PF_U | PF_P | PF_I);
    assert_false(lin_store_slow(v, 0x4000, 1, 0));
    expect_fault(v, VEC_PF, PF_U | PF_P | PF_W | PF_R);
    assert_true(lin_fetch(v, 0x5123, &gpa));
    assert_int_equal(gpa, DATA + 0x5123);
    v->st.cr4 |= CR4_SMEP;
    soft_rig_mode(&rig, v->st.cr0, v->st.cr4, v->st.efer, CODE64, 0);
    assert_false(lin_fetch(v, 0x5123, &gpa));
    expect_fault(v, VEC_PF, PF_P | PF_I);
}

static void non_canonical_is_gp(void **state)
{
    static const gva_t bad[] = {UINT64_C(0x800000000000), UINT64_C(0x5555000000000123), UINT64_C(0x7fffffffffffffff)};
    map_long(0);
    struct soft_vcpu *v = rig.v;
    uint64_t val;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_null(tlb_read(v, bad[i], 1));
        assert_false(lin_load_slow(v, bad[i], 8, &val));
        expect_fault(v, VEC_GP, 0);
    }
    *q(PML4 + 255 * 8) = PDPT | 7;
    *q(PDPT + 511 * 8) = PD | 7;
    *q(PD + 511 * 8) = PT | 7;
    assert_true(lin_store_slow(v, UINT64_C(0x7ffffffffff8), 8, 1));
    assert_false(lin_store_slow(v, UINT64_C(0x7ffffffffffc), 8, 1)); /* the second half is in the hole */
    expect_fault(v, VEC_GP, 0);
    gva_t gva;
    assert_false(seg_linear(v, SEG_SS, UINT64_C(0x7ffffffffffc), 8, ACC_READ, &gva));
    expect_fault(v, VEC_SS, 0);
    fault_set(v, VEC_GP, true, 0);
    fault_stack(v);
    expect_fault(v, VEC_SS, 0);
}

static void an_empty_tlb_never_hits(void **state)
{
    struct soft_vcpu *v = rig.v;
    map_long(0);
    uint64_t seed = 7;
    for (unsigned i = 0; i < 20000; i++) {
        gva_t gva = i < 10000 ? i * 0x400 : (uint64_t)soft_rig_random(&seed) << 32 | soft_rig_random(&seed);
        assert_null(tlb_read(v, gva, 1));
        assert_null(tlb_write(v, gva, 1));
    }
    tlb_free(v);
    assert_null(tlb_read(v, 0x1000, 1));
    uint64_t val;
    assert_true(lin_load_slow(v, 0x1000, 8, &val)); /* slow, but right */
    tlb_flush_all(v);
    tlb_flush_nonglobal(v);
    tlb_flush_page(v, 0);
    tlb_drop_write(v, NULL);
    assert_true(tlb_alloc(v));
}

static void a_write_entry_needs_the_dirty_bit(void **state)
{
    map_long(0);
    struct soft_vcpu *v = rig.v;
    uint64_t val;
    assert_true(lin_load_slow(v, 0x6000, 8, &val));
    assert_int_equal(*q(PT + 6 * 8) & 0x60, 0x20);
    assert_null(tlb_write(v, 0x6000, 8));
    assert_true(lin_store_slow(v, 0x6000, 8, 1));
    assert_int_equal(*q(PT + 6 * 8) & 0x60, 0x60);
    assert_non_null(tlb_write(v, 0x6000, 8));
    tlb_drop_write(v, rig.ram.low + DATA + 0x6000);
    assert_null(tlb_write(v, 0x6000, 8));
    assert_non_null(tlb_read(v, 0x6000, 8));
}

/* Reads through the TLB as the engine does. */
static uint64_t load(gva_t gva)
{
    uint64_t val = 0;
    const uint8_t *p = tlb_read(rig.v, gva, 8);
    if (p)
        return guest_ld(p, 8);
    assert_true(lin_load_slow(rig.v, gva, 8, &val));
    return val;
}

/* Two pages with different first words, and a way to point a PTE at either. */
static void plant(void)
{
    map_long(0);
    *q(DATA + 0x20000) = 0xa;
    *q(DATA + 0x21000) = 0xb;
}

static void aim(unsigned pte, bool b, uint64_t flags)
{
    *q(PT + pte * 8) = (DATA + (b ? 0x21000 : 0x20000)) | 0x63 | flags;
}

static void invlpg_drops_one_page_global_or_not(void **state)
{
    plant();
    aim(8, false, PTE_G);
    aim(9, false, 0);
    assert_int_equal(load(KERNEL_HALF + 0x8000), 0xa);
    assert_int_equal(load(KERNEL_HALF + 0x9000), 0xa);
    aim(8, true, PTE_G);
    aim(9, true, 0);
    tlb_flush_page(rig.v, KERNEL_HALF + 0x8123);
    assert_int_equal(load(KERNEL_HALF + 0x8000), 0xb);
    tlb_flush_page(rig.v, KERNEL_HALF + 0x9fff);
    assert_int_equal(load(KERNEL_HALF + 0x9000), 0xb);
}

static void mov_cr3_keeps_global_pages_only(void **state)
{
    plant();
    aim(8, false, PTE_G);
    aim(9, false, 0);
    load(KERNEL_HALF + 0x8000);
    load(KERNEL_HALF + 0x9000);
    aim(8, true, PTE_G);
    aim(9, true, 0);
    assert_true(cr_write(rig.v, 3, PML4));
    assert_int_equal(load(KERNEL_HALF + 0x9000), 0xb);
    assert_int_equal(load(KERNEL_HALF + 0x8000), 0xa); /* kept */
    assert_true(cr_write(rig.v, 4, rig.v->st.cr4 & ~CR4_PGE));
    assert_int_equal(load(KERNEL_HALF + 0x8000), 0xb);
    aim(8, false, PTE_G); /* G without CR4.PGE is no promise */
    assert_true(cr_write(rig.v, 3, PML4));
    assert_int_equal(load(KERNEL_HALF + 0x8000), 0xa);
}

static void two_pages_of_one_slot_share_no_global_bit(void **state)
{
    plant();
    gva_t a = KERNEL_HALF, b = KERNEL_HALF + (gva_t)TLB_SIZE * 0x1000;
    aim(0, false, PTE_G);
    aim(TLB_SIZE, false, 0);
    uint64_t val;
    assert_true(lin_store_slow(rig.v, b, 8, 0xa)); /* write entry: not global */
    assert_true(lin_load_slow(rig.v, a, 8, &val)); /* read entry of the same slot: global */
    assert_non_null(tlb_write(rig.v, b, 8));
    assert_true(cr_write(rig.v, 3, PML4));
    assert_null(tlb_write(rig.v, b, 8));
}

static void invlpg_drops_the_whole_of_a_large_page(void **state)
{
    plant();
    *q(PD) = 0x000000 | 0xe3; /* gva 0.. = gpa 0.., 2 MiB */
    tlb_flush_all(rig.v);
    assert_int_equal(load(DATA + 0x20000), 0xa);
    assert_int_equal(load(DATA + 0x21000), 0xb);
    *q(PD) = PT | 7;
    aim((DATA + 0x20000) >> 12 & 511, true, 0);
    tlb_flush_page(rig.v, 0x1000);
    assert_int_equal(load(DATA + 0x20000), 0xb);
}

static void write_protection_follows_cr0_wp(void **state)
{
    plant();
    struct soft_vcpu *v = rig.v;
    aim(8, false, 0);
    *q(PT + 8 * 8) &= ~UINT64_C(2);
    assert_false(lin_store_slow(v, 0x8000, 8, 1));
    expect_fault(v, VEC_PF, PF_P | PF_W);
    assert_true(cr_write(v, 0, v->st.cr0 & ~CR0_WP));
    assert_true(lin_store_slow(v, 0x8000, 8, 1));
    assert_non_null(tlb_write(v, 0x8000, 8));
    assert_true(cr_write(v, 0, v->st.cr0 | CR0_WP));
    assert_null(tlb_write(v, 0x8000, 8));
    assert_false(lin_store_slow(v, 0x8000, 8, 1));
}

static void supervisor_entries_do_not_serve_user_code(void **state)
{
    plant();
    struct soft_vcpu *v = rig.v;
    *q(PT + 8 * 8) &= ~UINT64_C(4);
    load(0x8000);
    assert_non_null(tlb_read(v, 0x8000, 8));
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        v->st.seg[i].attr |= 3u << SEGA_DPL_SHIFT;
    mode_update(v);
    assert_null(tlb_read(v, 0x8000, 8));
    uint64_t val;
    assert_false(lin_load_slow(v, 0x8000, 8, &val));
    expect_fault(v, VEC_PF, PF_P | PF_U);
}

static void alignment_is_checked_in_user_mode_only(void **state)
{
    map_long(3);
    struct soft_vcpu *v = rig.v;
    uint64_t val;
    load(0x5000);
    v->st.cr0 |= CR0_AM;
    flags_load(v, RF_AC);
    mode_update(v);
    assert_null(tlb_read(v, 0x5001, 4));
    assert_false(lin_load_slow(v, 0x5001, 4, &val));
    expect_fault(v, VEC_AC, 0);
    assert_true(lin_load_slow(v, 0x5004, 4, &val));
    assert_true(lin_read(v, 0x5001, &val, 4, ACC_SUPER));
    assert_true(lin_load_slow(v, 0x5001, 1, &val));
    flags_load(v, 0);
    mode_update(v);
    assert_true(lin_load_slow(v, 0x5001, 4, &val));
}

static void data_breakpoints_are_noted(void **state)
{
    map_long(0);
    struct soft_vcpu *v = rig.v;
    uint64_t val;
    load(0x5000);
    v->st.dr[0] = 0x5004;
    v->st.dr[1] = 0x5010;
    v->st.dr[7] =
        DR7_FIXED | 1 | 4 | UINT64_C(0xd) << 16 | UINT64_C(0x7) << 20; /* 0: 4 bytes, writes; 1: 2 bytes, any */
    mode_update(v);
    assert_null(tlb_read(v, 0x5000, 8));
    v->db_hits = 0;
    assert_true(lin_load_slow(v, 0x5000, 8, &val));
    assert_int_equal(v->db_hits, 0);
    assert_true(lin_store_slow(v, 0x5000, 4, 0));
    assert_int_equal(v->db_hits, 0);
    assert_true(lin_store_slow(v, 0x5007, 1, 0));
    assert_int_equal(v->db_hits, 1);
    assert_true(lin_load_slow(v, 0x5011, 1, &val));
    assert_int_equal(v->db_hits, 3);
    v->st.dr[7] = DR7_FIXED;
    mode_update(v);
    assert_non_null(tlb_read(v, 0x5000, 8));
}

static void atomics_get_a_pointer_or_the_machine(void **state)
{
    map_long(0);
    struct soft_vcpu *v = rig.v;
    bool excl;
    assert_ptr_equal(lin_atomic(v, 0x5010, 16, &excl), rig.ram.low + DATA + 0x5010);
    assert_false(excl);
    assert_null(lin_atomic(v, 0x503d, 4, &excl));
    assert_true(excl);
    assert_null(lin_atomic(v, 0x5ffd, 4, &excl));
    assert_true(excl);
    *q(PT + 7 * 8) &= ~UINT64_C(2);
    assert_null(lin_atomic(v, 0x7000, 4, &excl));
    assert_false(excl);
    expect_fault(v, VEC_PF, PF_P | PF_W);
    assert_null(lin_atomic(v, 0x6ffe, 4, &excl)); /* the second page is read-only */
    assert_false(excl);
}

/* ---- MMIO and the local APIC page ---- */

struct probe_dev {
    unsigned reads, writes, size;
    uint64_t off, val;
};

static uint64_t probe_read(void *dev, uint64_t off, unsigned size)
{
    struct probe_dev *d = dev;
    d->reads++;
    d->off = off;
    d->size = size;
    return UINT64_C(0x0807060504030201);
}

static void probe_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct probe_dev *d = dev;
    d->writes++;
    d->off = off;
    d->size = size;
    d->val = val;
}

static void mmio_goes_to_the_bus_whole_and_never_to_the_tlb(void **state)
{
    static const struct bus_ops ops = {probe_read, probe_write};
    struct probe_dev d = {0};
    struct bus_region region = {.base = 0xfed00000, .len = 0x2000, .ops = &ops, .dev = &d, .name = "probe"};
    map_long(0);
    struct soft_vcpu *v = rig.v;
    assert_int_equal(bus_map(&rig.mmio, &region, NULL), 0);
    *q(PT + 8 * 8) = 0xfed00063;
    uint64_t val;
    assert_true(lin_load_slow(v, 0x8010, 8, &val));
    assert_int_equal(val, UINT64_C(0x0807060504030201));
    assert_int_equal(d.reads, 1);
    assert_int_equal(d.size, 8);
    assert_int_equal(d.off, 0x10);
    assert_null(tlb_read(v, 0x8010, 8));
    assert_true(lin_store_slow(v, 0x8004, 2, 0x1234));
    assert_int_equal(d.writes, 1);
    assert_int_equal(d.val, 0x1234);
    assert_null(tlb_write(v, 0x8004, 2));
    assert_int_equal(atomic_load(&rig.clock.seen), 5000);  /* the device saw the time of the access */
    assert_true(lin_store_slow(v, 0x7ffe, 4, 0x44332211)); /* RAM, then MMIO */
    assert_int_equal(ld16(rig.ram.low + DATA + 0x7ffe), 0x2211);
    assert_int_equal(d.val, 0x4433);
    bool excl;
    assert_null(lin_atomic(v, 0x8000, 4, &excl));
    assert_true(excl);
    *q(PT + 9 * 8) = UINT64_C(0x3fff00000063); /* nobody's */
    assert_true(lin_load_slow(v, 0x9000, 4, &val));
    assert_int_equal(val, 0xffffffff);
    assert_true(lin_store_slow(v, 0x9000, 4, 0));
    assert_int_equal(bus_unmap(&rig.mmio, 0xfed00000), 0);
}

static void the_apic_page_wins_over_ram(void **state)
{
    map_long(0);
    struct soft_vcpu *v = rig.v;
    uint64_t val;
    *q(PT + 8 * 8) = 0xfee00063;
    assert_true(lin_load_slow(v, 0x8030, 4, &val));
    assert_true((val & 0xff) >= 0x10); /* version */
    assert_true(lin_store_slow(v, 0x8080, 4, 0x50));
    assert_int_equal(fabric_cr8_get(rig.fabric, VCPU_IDX(0)), 5);
    atomic_store(&v->attn, 0);
    assert_true(lin_store_slow(v, 0x8080, 1, 0x70)); /* narrow: we are lenient */
    assert_int_equal(fabric_cr8_get(rig.fabric, VCPU_IDX(0)), 7);
    assert_true(atomic_load(&v->attn) & ATTN_IRQ);
    assert_true(lin_load_slow(v, 0x8081, 1, &val));
    assert_int_equal(val, 0);
    assert_true(lin_load_slow(v, 0x8084, 4, &val));
    assert_int_equal(val, 0);
    *q(DATA + 0x9080) = 0xdead;
    assert_int_equal(load(0x9080), 0xdead);
    assert_true(msr_write(v, MSR_APIC_BASE, (DATA + 0x9000) | 0x900));
    assert_int_equal(load(0x9080) & 0xffffffff, 0x70);
    assert_true(lin_store_slow(v, 0x9080, 4, 0x30));
    assert_int_equal(*q(DATA + 0x9080), 0xdead);
    assert_true(msr_write(v, MSR_APIC_BASE, 0xfee00900));
    assert_int_equal(load(0x9080), 0xdead);
}

/* ---- segments ---- */

static void no_paging_is_the_identity(void **state)
{
    soft_rig_mode(&rig, CR0_PE, 0, 0, CODE32, 0);
    struct soft_vcpu *v = rig.v;
    assert_true(lin_store_slow(v, 0x12345, 4, 0xcafe));
    assert_int_equal(ld32(rig.ram.low + 0x12345), 0xcafe);
    assert_non_null(tlb_write(v, 0x12345, 4));
    uint64_t val;
    assert_true(lin_load_slow(v, 0xfffffffe, 4, &val)); /* wraps to 0 */
    assert_int_equal(val & 0xffff, 0xffff);
    assert_int_equal(val >> 16, ld16(rig.ram.low));
}

static void limits_and_types_are_checked(void **state)
{
    soft_rig_mode(&rig, CR0_PE, 0, 0, CODE32, 0);
    struct soft_vcpu *v = rig.v;
    struct cpu_segment *ds = &v->st.seg[SEG_DS];
    gva_t gva;
    ds->base = 0x10000;
    ds->limit = 0xfff;
    assert_true(seg_linear(v, SEG_DS, 0xffc, 4, ACC_WRITE, &gva));
    assert_int_equal(gva, 0x10ffc);
    assert_false(seg_linear(v, SEG_DS, 0xffd, 4, ACC_READ, &gva));
    expect_fault(v, VEC_GP, 0);
    ds->attr |= SEGA_DC; /* expand-down: 1000h..FFFFFFFFh */
    assert_false(seg_linear(v, SEG_DS, 0xfff, 1, ACC_READ, &gva));
    assert_true(seg_linear(v, SEG_DS, 0x1000, 1, ACC_READ, &gva));
    ds->attr &= ~(uint32_t)SEGA_DB; /* ..FFFFh */
    assert_true(seg_linear(v, SEG_DS, 0xffff, 1, ACC_READ, &gva));
    assert_false(seg_linear(v, SEG_DS, 0xffff, 2, ACC_READ, &gva));
    v->st.seg[SEG_SS].limit = 0xff;
    assert_false(seg_linear(v, SEG_SS, 0x100, 1, ACC_READ, &gva));
    expect_fault(v, VEC_SS, 0);
    ds->attr = (ds->attr & ~(uint32_t)(SEGA_DC | SEGA_RW));
    ds->limit = 0xffffffff;
    assert_true(seg_linear(v, SEG_DS, 0, 1, ACC_READ, &gva));
    assert_false(seg_linear(v, SEG_DS, 0, 1, ACC_WRITE, &gva));
    assert_false(seg_linear(v, SEG_CS, 0, 1, ACC_WRITE, &gva));
    assert_true(seg_linear(v, SEG_CS, 0, 1, ACC_EXEC, &gva));
    v->st.seg[SEG_ES].attr = SEGA_UNUSABLE;
    assert_false(seg_linear(v, SEG_ES, 0, 1, ACC_READ, &gva));
    ds->base = 0xfffff000;
    ds->limit = 0xffff;
    assert_true(seg_linear(v, SEG_DS, 0x1004, 4, ACC_READ, &gva));
    assert_int_equal(gva, 4);
}

static void operands_wrap_at_the_address_size(void **state)
{
    map_long(0);
    struct soft_vcpu *v = rig.v;
    v->st.gpr[RBX] = UINT64_C(0x1fffffff0);
    v->st.gpr[RSI] = 0x10;
    v->next_rip = 0x7000;
    struct insn in = {.addrsize = 8, .base = RBX, .index = RSI, .scale = 2, .disp = -0x10, .seg = SEG_DS};
    assert_int_equal(insn_offset(v, &in), UINT64_C(0x200000020));
    in.addrsize = 4;
    assert_int_equal(insn_offset(v, &in), 0x20);
    in.addrsize = 2;
    in.disp = 0xfff0;
    assert_int_equal(insn_offset(v, &in), 0x20);
    in = (struct insn){.addrsize = 8, .base = INSN_RIP, .index = INSN_NO_REG, .disp = 0x10, .seg = SEG_DS};
    assert_int_equal(insn_offset(v, &in), 0x7010);
    in = (struct insn){.addrsize = 8, .base = INSN_NO_REG, .index = INSN_NO_REG, .disp = 0x10, .seg = SEG_GS};
    v->st.seg[SEG_GS].base = 0x5000;
    gva_t gva;
    assert_true(opnd_linear(v, &in, 8, ACC_READ, &gva));
    assert_int_equal(gva, 0x5010);
}

static void register_operands_merge_as_the_manual_says(void **state)
{
    struct soft_vcpu *v = rig.v;
    struct insn in = {.opsize = 8};
    struct opnd o = {.kind = OPND_REG, .size = 4, .reg = RDX};
    uint64_t val;
    v->st.gpr[RDX] = UINT64_C(0x1122334455667788);
    assert_true(opnd_get(v, &in, &o, &val));
    assert_int_equal(val, 0x55667788);
    o.size = 2;
    assert_true(opnd_put(v, &in, &o, 0xaaaabbbb));
    assert_int_equal(v->st.gpr[RDX], UINT64_C(0x112233445566bbbb));
    o = (struct opnd){.kind = OPND_REG, .size = 1, .reg = OPND_AH + 2};
    assert_true(opnd_put(v, &in, &o, 0x42));
    assert_int_equal(v->st.gpr[RDX], UINT64_C(0x11223344556642bb));
    assert_true(opnd_get(v, &in, &o, &val));
    assert_int_equal(val, 0x42);
    o = (struct opnd){.kind = OPND_REG, .size = 4, .reg = RDX};
    assert_true(opnd_put(v, &in, &o, ~UINT64_C(0)));
    assert_int_equal(v->st.gpr[RDX], 0xffffffff);
}

static void page_tables_outside_ram_do_not_crash(void **state)
{
    map_long(0);
    struct soft_vcpu *v = rig.v;
    uint64_t val;
    v->st.cr3 = UINT64_C(0x3ffffffff000);
    tlb_flush_all(v);
    assert_false(lin_load_slow(v, 0x1000, 8, &val));
    expect_fault(v, VEC_PF, PF_P | PF_R); /* all ones */
    v->st.cr3 = PML4;
    *q(PD) = UINT64_C(0x3ffffffff007);
    assert_false(lin_store_slow(v, 0x1000, 8, 0));
    expect_fault(v, VEC_PF, PF_P | PF_R | PF_W);
}

/* A page that a vCPU has executed from is written through the slow path only, and the new bytes are what runs next. */
static void stores_to_code_are_seen(void **state)
{
    static const uint8_t code[] = {0xb0, 0x11, 0xf4}; /* mov al, 11h; hlt */
    struct cpu_state st;
    struct engine_vcpu *ev = engine_soft.vcpu(rig.vm, VCPU_IDX(0));
    for (unsigned round = 0; round < 2; round++) {
        struct cpu_run run = {.now = 6000 + round, .budget = 1000};
        if (!round)
            memcpy(rig.ram.low + 0x8000, code, sizeof code);
        cpu_state_reset(&st, true);
        cpu_state_sipi(&st, 8);
        engine_soft.set_state(ev, &st);
        engine_soft.vcpu_run(ev, &run);
        assert_int_equal(run.exit, CPU_EXIT_HALT);
        engine_soft.get_state(ev, &st);
        assert_int_equal(st.gpr[RAX] & 0xff, round ? 0x77 : 0x11);
        assert_true(block_page_has_code(rig.v->vm, 0x8000));
        assert_true(lin_store_slow(rig.v, 0x8001, 1, 0x77));
        assert_null(tlb_write(rig.v, 0x8001, 1));
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up_bare, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(loads_and_stores_reach_ram),
        TEST(stores_across_pages_are_all_or_nothing),
        TEST(error_codes_tell_the_cause),
        TEST(non_canonical_is_gp),
        TEST(an_empty_tlb_never_hits),
        TEST(a_write_entry_needs_the_dirty_bit),
        TEST(invlpg_drops_one_page_global_or_not),
        TEST(mov_cr3_keeps_global_pages_only),
        TEST(two_pages_of_one_slot_share_no_global_bit),
        TEST(invlpg_drops_the_whole_of_a_large_page),
        TEST(write_protection_follows_cr0_wp),
        TEST(supervisor_entries_do_not_serve_user_code),
        TEST(alignment_is_checked_in_user_mode_only),
        TEST(data_breakpoints_are_noted),
        TEST(atomics_get_a_pointer_or_the_machine),
        TEST(mmio_goes_to_the_bus_whole_and_never_to_the_tlb),
        TEST(the_apic_page_wins_over_ram),
        TEST(no_paging_is_the_identity),
        TEST(limits_and_types_are_checked),
        TEST(operands_wrap_at_the_address_size),
        TEST(register_operands_merge_as_the_manual_says),
        TEST(page_tables_outside_ram_do_not_crash),
        TEST(stores_to_code_are_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
