#include "soft_machine.h"

static int set_up(void **state)
{
    soft_rig_init(&rig, 2 * MIB, NULL);
    soft_rig_long(&rig, 0);
    return 0;
}

static uint64_t get(uint32_t msr)
{
    uint64_t val;
    assert_true(msr_read(rig.v, msr, &val));
    return val;
}

static bool set(uint32_t msr, uint64_t val)
{
    return msr_write(rig.v, msr, val);
}

static void unknown_msrs_are_refused(void **state)
{
    static const uint32_t unknown[] = {0x2, 0x34, 0x140, 0x198, 0x17b, 0x400, 0x606, 0xda0, 0x40000000, 0xc0010015};
    uint64_t val;
    for (unsigned i = 0; i < ARRAY_SIZE(unknown); i++) {
        assert_false(msr_read(rig.v, unknown[i], &val));
        assert_false(set(unknown[i], 0));
    }
    assert_false(msr_read(rig.v, 0x4b564d01, &val)); /* the rig has no PV device */
}

/* Linux reads these without a guard. */
static void what_linux_expects_exists(void **state)
{
    static const uint32_t needed[] = {
        0x10,       0x17,       0x1b,       0x3a,       0x3b,       0x8b,       0xe1,       0xfe,
        0x10a,      0x174,      0x175,      0x176,      0x179,      0x17a,      0x1a0,      0x200,
        0x20f,      0x250,      0x258,      0x259,      0x268,      0x26f,      0x277,      0x2ff,
        0x6e0,      0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101,
        0xc0000102, 0xc0000103, 0x48,       0xce,       0x1d9};
    for (unsigned i = 0; i < ARRAY_SIZE(needed); i++)
        get(needed[i]);
    assert_int_equal(get(MSR_MCG_CAP) & 0xff, 0);
    assert_int_equal(get(MSR_FEAT_CTL) & 1, 1);
    assert_false(set(MSR_FEAT_CTL, 0));
    assert_true(get(MSR_UCODE_REV) >> 32 != 0);
    assert_true(set(MSR_UCODE_REV, 0));
    assert_true(get(MSR_MISC_ENABLE) & 1);
    assert_true(set(MSR_SPEC_CTRL, 0x401));
    assert_false(set(MSR_SPEC_CTRL, 4)); /* SSBD */
    assert_true(set(MSR_PRED_CMD, 1));
    assert_false(set(MSR_PRED_CMD, 2));
    assert_int_equal(get(MSR_ARCH_CAPS), rig.model.arch_capabilities);
    assert_false(set(MSR_ARCH_CAPS, 0));
}

static void addresses_must_be_canonical(void **state)
{
    static const uint32_t addr[] = {MSR_FS_BASE, MSR_GS_BASE,      MSR_KERNEL_GS_BASE, MSR_LSTAR,
                                    MSR_CSTAR,   MSR_SYSENTER_ESP, MSR_SYSENTER_EIP};
    for (unsigned i = 0; i < ARRAY_SIZE(addr); i++) {
        assert_true(set(addr[i], UINT64_C(0xffff800000000123)));
        assert_false(set(addr[i], UINT64_C(0x0000800000000000)));
        assert_int_equal(get(addr[i]), UINT64_C(0xffff800000000123));
    }
    assert_int_equal(rig.v->st.seg[SEG_GS].base, UINT64_C(0xffff800000000123));
}

static void efer_keeps_its_rules(void **state)
{
    uint64_t efer = rig.v->st.efer;
    assert_false(set(MSR_EFER, efer & ~EFER_LME)); /* paging is on */
    assert_false(set(MSR_EFER, efer | 0x1000));    /* SVME */
    assert_true(set(MSR_EFER, efer & ~EFER_LMA));  /* read-only */
    assert_int_equal(get(MSR_EFER), efer);
    assert_true(set(MSR_EFER, efer & ~EFER_NXE));
    assert_int_equal(get(MSR_EFER), efer & ~EFER_NXE);
}

static void memory_types_are_checked(void **state)
{
    assert_true(set(MSR_PAT, UINT64_C(0x0007010600070106)));
    assert_false(set(MSR_PAT, UINT64_C(0x0007010600070102)));
    assert_int_equal(get(MSR_PAT), UINT64_C(0x0007010600070106));
    assert_true(set(MSR_MTRR_DEF_TYPE, 0xc06));
    assert_false(set(MSR_MTRR_DEF_TYPE, 0xc07));
    assert_false(set(MSR_MTRR_DEF_TYPE, 0x1006));
    assert_true(set(MSR_MTRR_FIX4K_0 + 7, UINT64_C(0x0606060606060606)));
    assert_false(set(MSR_MTRR_FIX4K_0 + 7, UINT64_C(0x0606060606060607)));
    assert_int_equal(get(MSR_MTRR_FIX4K_0 + 7), UINT64_C(0x0606060606060606));
    assert_int_equal(get(MSR_MTRR_FIX4K_0 + 6), 0);
    assert_true(set(MSR_MTRR_PHYS_BASE0 + 2, 0x80000006));
    assert_false(set(MSR_MTRR_PHYS_BASE0 + 2, 0x80000106));
    assert_false(set(MSR_MTRR_PHYS_BASE0 + 2, UINT64_C(1) << 46));
    assert_true(set(MSR_MTRR_PHYS_BASE0 + 3, 0x3fff80000800));
    assert_false(set(MSR_MTRR_PHYS_BASE0 + 3, 0x3fff80000801));
}

static void tsc_and_its_adjustment_move_together(void **state)
{
    struct soft_vcpu *v = rig.v;
    assert_int_equal(get(MSR_TSC), 5000);
    assert_true(set(MSR_TSC, 100000));
    assert_int_equal(get(MSR_TSC), 100000);
    assert_int_equal(get(MSR_TSC_ADJUST), 95000);
    assert_true(set(MSR_TSC_ADJUST, 0));
    assert_int_equal(get(MSR_TSC), 5000);
    v->entry_now = 6000;
    assert_int_equal(get(MSR_TSC), 6000);
    assert_true(set(MSR_TSC, 0));
    assert_int_equal((int64_t)get(MSR_TSC_ADJUST), -6000);
    assert_int_equal(get(MSR_TSC), 0);
}

static void the_deadline_is_a_tsc_value(void **state)
{
    struct soft_vcpu *v = rig.v;
    fabric_mmio_write(rig.fabric, VCPU_IDX(0), 0, 0xf0, 0x1ff);
    fabric_mmio_write(rig.fabric, VCPU_IDX(0), 0, 0x320, 0x40020); /* LVT timer: TSC deadline */
    assert_true(set(MSR_TSC, 1000000));
    assert_true(set(MSR_TSC_DEADLINE, 1000700));
    assert_int_equal(fabric_deadline_get(rig.fabric, VCPU_IDX(0)), 5700);
    assert_int_equal(get(MSR_TSC_DEADLINE), 1000700);
    assert_true(set(MSR_TSC, 1000500)); /* 200 ticks are left now */
    assert_int_equal(get(MSR_TSC_DEADLINE), 1000700);
    assert_int_equal(fabric_deadline_get(rig.fabric, VCPU_IDX(0)), 5200);
    assert_true(set(MSR_TSC_DEADLINE, 0));
    assert_int_equal(fabric_deadline_get(rig.fabric, VCPU_IDX(0)), 0);
    assert_true(set(MSR_TSC, 10));
    assert_true(set(MSR_TSC_DEADLINE, 1010)); /* the offset is negative */
    assert_int_equal(fabric_deadline_get(rig.fabric, VCPU_IDX(0)), 6000);
    assert_true(set(MSR_TSC_DEADLINE, ~UINT64_C(0)));
    assert_true(fabric_deadline_get(rig.fabric, VCPU_IDX(0)) > UINT64_C(1) << 62);
    atomic_store(&v->attn, 0);
    assert_true(set(MSR_TSC_DEADLINE, 1));
    assert_true(fabric_deadline_get(rig.fabric, VCPU_IDX(0)) <= 5000); /* past: due at once (it may have fired) */
    assert_true(atomic_load(&v->attn) & ATTN_IRQ);
}

static void flags_take_their_msrs_with_them(void **state)
{
    soft_rig_fini(&rig);
    soft_rig_init(
        &rig, 2 * MIB,
        "max,tsc-deadline=off,tsc-adjust=off,spec-ctrl=off,bhi-ctrl=off,arch-capabilities=off,waitpkg=off,mtrr=off");
    static const uint32_t gone[] = {MSR_TSC_DEADLINE,   MSR_TSC_ADJUST, MSR_SPEC_CTRL,     MSR_ARCH_CAPS,
                                    MSR_UMWAIT_CONTROL, MSR_MTRR_CAP,   MSR_MTRR_DEF_TYPE, MSR_MTRR_PHYS_BASE0};
    uint64_t val;
    for (unsigned i = 0; i < ARRAY_SIZE(gone); i++) {
        assert_false(msr_read(rig.v, gone[i], &val));
        assert_false(set(gone[i], 0));
    }
}

static void apic_msrs_reach_the_fabric(void **state)
{
    uint64_t val;
    assert_true(get(MSR_APIC_BASE) & 0x800);
    assert_false(msr_read(rig.v, 0x802, &val)); /* xAPIC mode */
    assert_true(set(MSR_APIC_BASE, get(MSR_APIC_BASE) | 0x400));
    assert_int_equal(get(0x802), 0);
    struct soft_vcpu *other = (struct soft_vcpu *)engine_soft.vcpu(rig.vm, VCPU_IDX(1));
    assert_true(msr_write(other, MSR_APIC_BASE, 0xfee00c00));
    assert_true(msr_read(other, 0x802, &val));
    assert_int_equal(val, 300);
    assert_false(set(0x802, 1));
}

static void control_registers_keep_their_rules(void **state)
{
    struct soft_vcpu *v = rig.v;
    uint64_t cr0 = v->st.cr0, cr4 = v->st.cr4;
    assert_false(cr_write(v, 0, cr0 & ~CR0_PG)); /* from 64-bit code */
    assert_false(cr_write(v, 0, cr0 & ~CR0_PE));
    assert_false(cr_write(v, 0, cr0 | CR0_NW));
    assert_false(cr_write(v, 0, cr0 | UINT64_C(1) << 32));
    assert_true(cr_write(v, 0, cr0 | CR0_TS));
    assert_false(cr_write(v, 4, cr4 & ~CR4_PAE));
    assert_false(cr_write(v, 4, cr4 | CR4_PCIDE));
    assert_false(cr_write(v, 4, cr4 | CR4_OSXSAVE));
    assert_false(cr_write(v, 4, cr4 | CR4_SMAP));
    assert_true(cr_write(v, 4, cr4 | CR4_SMEP | CR4_UMIP | CR4_FSGSBASE | CR4_OSFXSR | CR4_MCE | CR4_TSD));
    assert_false(cr_write(v, 3, UINT64_C(1) << 46));
    assert_true(cr_write(v, 3, 0x1000));
    assert_false(cr_write(v, 8, 16));
    assert_true(cr_write(v, 8, 9));
    assert_int_equal(fabric_cr8_get(rig.fabric, VCPU_IDX(0)), 9);
}

static void long_mode_is_entered_and_left(void **state)
{
    struct soft_vcpu *v = rig.v;
    soft_rig_mode(&rig, CR0_PE | CR0_ET, 0, 0, CODE32, 0);
    assert_true(set(MSR_EFER, EFER_LME));
    assert_false(cr_write(v, 0, CR0_PE | CR0_PG)); /* no PAE */
    assert_true(cr_write(v, 4, CR4_PAE));
    assert_true(cr_write(v, 0, CR0_PE | CR0_PG));
    assert_int_equal(v->st.efer, EFER_LME | EFER_LMA);
    assert_int_equal(v->st.cr0, CR0_PE | CR0_PG | CR0_ET);
    assert_true(cr_write(v, 0, CR0_PE)); /* compatibility-mode code may */
    assert_int_equal(v->st.efer, EFER_LME);
}

static void pdptes_are_checked_when_loaded(void **state)
{
    struct soft_vcpu *v = rig.v;
    soft_rig_mode(&rig, CR0_PE, CR4_PAE, 0, CODE32, 0);
    st64(rig.ram.low + 0x1020 + 8, 0x2007); /* W and U are reserved */
    assert_true(cr_write(v, 3, 0x1020));    /* paging is off */
    assert_false(cr_write(v, 0, CR0_PE | CR0_PG));
    st64(rig.ram.low + 0x1020 + 8, 0x2001);
    assert_true(cr_write(v, 0, CR0_PE | CR0_PG));
    st64(rig.ram.low + 0x1040, UINT64_C(1) << 50 | 1);
    assert_false(cr_write(v, 3, 0x1040));
    assert_int_equal(v->st.cr3, 0x1020);
    st64(rig.ram.low + 0x1040, UINT64_C(1) << 50);
    assert_true(cr_write(v, 3, 0x1040)); /* not present: nothing is reserved */
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(unknown_msrs_are_refused),      TEST(what_linux_expects_exists),
        TEST(addresses_must_be_canonical),   TEST(efer_keeps_its_rules),
        TEST(memory_types_are_checked),      TEST(tsc_and_its_adjustment_move_together),
        TEST(the_deadline_is_a_tsc_value),   TEST(flags_take_their_msrs_with_them),
        TEST(apic_msrs_reach_the_fabric),    TEST(control_registers_keep_their_rules),
        TEST(long_mode_is_entered_and_left), TEST(pdptes_are_checked_when_loaded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
