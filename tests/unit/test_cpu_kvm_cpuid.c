/* From what KVM supports to what a vCPU sees: IDs of 32 bits, the machine's topology, the -cpu flags. */
#include "cpu/kvm/kvm.h"
#include "cpu/kvm/kvm_cpuid.h"
#include "cpu/pv.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on
#include <errno.h>
#include <string.h>

static struct kvm_cpuid_table supported, seen;

static void add(uint32_t leaf, uint32_t sub, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    supported.e[supported.head.nent++] =
        (struct kvm_cpuid_entry2){.function = leaf, .index = sub, .eax = a, .ebx = b, .ecx = c, .edx = d};
}

/* A host of its own topology: 64 threads, leaves that must not come through, and XSAVE. */
static void host(bool intel)
{
    supported.head.nent = 0;
    add(0, 0, intel ? 0x20 : 0x10, intel ? 0x756e6547 : 0x68747541, intel ? 0x6c65746e : 0x444d4163,
        intel ? 0x49656e69 : 0x69746e65);
    add(1, 0, 0xa0f11, 0x00400800, 0x16d83203, 0x078bfbff);
    add(4, 0, 0x7c004121, 0x01c0003f, 0x3f, 0);
    add(4, 3, 0xfc1fc163, 0x03c0003f, 0x7ff, 0);
    add(6, 0, 4, 0, 0, 0);
    add(7, 0, 1, 0x219c95a9, 0x0040068c, 0xac004410);
    add(0xb, 0, 1, 2, 0x100, 77);
    add(0xb, 1, 7, 128, 0x201, 77);
    add(0xd, 0, 7, 0x340, 0x340, 0);
    add(0x15, 0, 2, 84, 38400000, 0);
    add(0x1f, 0, 1, 2, 0x100, 77);
    add(0x40000000, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
    add(0x40000001, 0, 0x01007efb, 0, 0, 0);
    add(0x80000000, 0, 0x80000026, 0, 0, 0);
    add(0x80000001, 0, 0xa0f11, 0, 0x00400121, 0x2c100800);
    add(0x80000008, 0, 0x3030, 0, 0x603f, 0);
    add(0x8000001d, 3, 0x0fffc163, 0x03c0003f, 0x7ff, 0);
    add(0x8000001e, 0, 77, 0x100, 0x3, 0);
    add(0x80000026, 0, 1, 2, 3, 77);
}

static void model(struct cpuid_model *m, bool intel, bool xsave)
{
    *m = (struct cpuid_model){.topo = {1, 1, 512, 2}, .vcpus = 1024, .max_apic_id = 1023};
    memcpy(m->vendor, intel ? "GenuineIntel" : "AuthenticAMD", 13);
    m->std1_ecx = 0x16d83203 | CPUID_1_ECX_X2APIC;
    if (!xsave)
        m->std1_ecx &= ~CPUID_1_ECX_XSAVE;
    m->std1_edx = 0x078bfbff;
    m->std7_ebx = 0x219c95a9;
    m->ext1_ecx = 0x00400121;
    m->kvm_features = 0x01007efb | KVM_FEATURE_EXT_DEST_ID;
    m->hypervisor = true;
    m->tsc_khz = 2600000;
    m->phys_bits = 46;
}

static const struct kvm_cpuid_entry2 *see(uint32_t leaf, uint32_t sub)
{
    const struct kvm_cpuid_entry2 *found = NULL;
    for (uint32_t i = 0; i < seen.head.nent; i++)
        if (seen.e[i].function == leaf && seen.e[i].index == sub) {
            assert_null(found); /* once */
            found = &seen.e[i];
        }
    return found;
}

static void wide_ids(void **state)
{
    static const uint32_t ids[] = {0, 35, 255, 300, 1023};
    struct cpuid_model m;
    for (unsigned intel = 0; intel < 2; intel++)
        for (unsigned i = 0; i < sizeof ids / sizeof ids[0]; i++) {
            host(intel);
            model(&m, intel, true);
            kvm_cpuid_build(&supported, &m, APIC_ID(ids[i]), &seen);
            assert_int_equal(see(1, 0)->ebx >> 24, ids[i] & 0xff);
            assert_true(see(1, 0)->ecx & CPUID_1_ECX_X2APIC);
            for (uint32_t sub = 0; sub < 2; sub++)
                assert_int_equal(see(0xb, sub)->edx, ids[i]);
            assert_int_equal(see(0xb, 0)->ebx, 2);
            assert_int_equal(see(0xb, 1)->ebx, 1024);
            assert_int_equal(see(0xb, 1)->eax, 10);
            assert_true(see(0x40000001, 0)->eax & KVM_FEATURE_EXT_DEST_ID);
            assert_int_equal(see(0x40000010, 0)->eax, 2600000);
            assert_null(see(0x80000026, 0));
        }
}

static void intels_leaves(void **state)
{
    struct cpuid_model m;
    host(true);
    model(&m, true, true);
    kvm_cpuid_build(&supported, &m, APIC_ID(300), &seen);
    assert_int_equal(see(0x1f, 1)->edx, 300);
    assert_int_equal(see(0x15, 0)->ecx, 1000000000); /* the crystal clocks KVM's APIC timer */
    assert_int_equal(see(4, 0)->eax >> 14 & 0xfff, 1);
    assert_int_equal(see(4, 3)->eax >> 14 & 0xfff, 63);
    assert_int_equal(see(0x80000008, 0)->ecx, 0);
    assert_int_equal(see(0x80000008, 0)->eax & 0xff, 46);
}

static void amds_leaves(void **state)
{
    struct cpuid_model m;
    host(false);
    model(&m, false, true);
    kvm_cpuid_build(&supported, &m, APIC_ID(300), &seen);
    assert_int_equal(see(0x8000001e, 0)->eax, 300);
    assert_int_equal(see(0x8000001e, 0)->ebx, 0x100 | (150 & 0xff));
    assert_int_equal(see(0x80000008, 0)->ecx >> 12, 10);
    assert_int_equal(see(0x8000001d, 3)->eax >> 14 & 0xfff, 63);
    assert_null(see(0x15, 0));
    assert_null(see(0x1f, 0));
}

static void without_xsave(void **state)
{
    struct cpuid_model m;
    host(false);
    model(&m, false, true);
    kvm_cpuid_build(&supported, &m, APIC_ID(3), &seen);
    assert_non_null(see(0xd, 0));
    model(&m, false, false);
    kvm_cpuid_build(&supported, &m, APIC_ID(3), &seen);
    assert_null(see(0xd, 0));
}

/* A kernel that tells more entries than KVM takes back. */
static void too_many(void **state)
{
    struct cpuid_model m;
    supported.head.nent = 0;
    for (uint32_t i = 0; i < KVM_CPUID_MAX; i++)
        add(i % 2 ? 0x20 + i : 0x80000100 + i, i, 1, 1, 1, 1);
    model(&m, true, true);
    kvm_cpuid_build(&supported, &m, APIC_ID(3), &seen);
    assert_int_equal(seen.head.nent, KVM_CPUID_MAX);
}

static void flags_from_an_offer(void **state)
{
    static const struct cpu_topology topo = {1, 1, 8, 1};
    struct cpuid_offer o = {.who = "this test"};
    struct cpuid_model m;
    struct err e = {""};
    o.can.std1_ecx = CPUID_1_ECX_X2APIC | CPUID_1_ECX_XSAVE | 1u << 28 | 1u << 5;
    o.can.std7_ebx = 1u << 5;
    o.gives = o.can;
    o.gives.std1_ecx &= ~(1u << 5);
    memcpy(o.gives.vendor, "AuthenticAMD", 13);
    assert_int_equal(cpuid_model_init_from(&m, &o, "host,-avx2,vmx=on", &topo, 8, 300, &e), 0);
    assert_int_equal(m.std1_ecx, CPUID_1_ECX_X2APIC | CPUID_1_ECX_XSAVE | 1u << 28 | 1u << 5);
    assert_int_equal(m.std7_ebx, 0);
    assert_string_equal(m.vendor, "AuthenticAMD");
    assert_int_equal(m.max_apic_id, 300);
    assert_int_equal(cpuid_model_init_from(&m, &o, "max", &topo, 8, 300, &e), 0);
    assert_int_equal(m.std1_ecx & 1u << 5, 0);
    assert_int_equal(cpuid_model_init_from(&m, &o, "host,+avx512f", &topo, 8, 300, &e), -ENOTSUP);
    assert_string_equal(e.msg, "-cpu: this test has no 'avx512f'; leave it out");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wide_ids),      cmocka_unit_test(intels_leaves),       cmocka_unit_test(amds_leaves),
        cmocka_unit_test(without_xsave), cmocka_unit_test(flags_from_an_offer), cmocka_unit_test(too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
