#include "cpu/cpuid.h"
#include "cpu/pv.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct cpu_topology one_socket = {.sockets = 1, .dies = 1, .cores = 150, .threads = 2};

static struct cpuid_model model(const char *spec)
{
    struct cpuid_model m;
    struct err e = {""};
    assert_int_equal(cpuid_model_init(&m, spec, &one_socket, 300, 554, &e), 0);
    assert_string_equal(e.msg, "");
    return m;
}

static struct cpuid_regs query(const struct cpuid_model *m, uint32_t id, uint32_t leaf, uint32_t sub)
{
    struct cpuid_cpu cpu = {.id = APIC_ID(id), .apic_enabled = true};
    struct cpuid_regs r;
    cpuid_query(m, &cpu, leaf, sub, &r);
    return r;
}

static void identifies_itself(void **state)
{
    struct cpuid_model m = model(NULL);
    struct cpuid_regs r = query(&m, 0, 0, 0);
    assert_memory_equal(&r.ebx, "Genu", 4);
    assert_memory_equal(&r.edx, "ineI", 4);
    assert_memory_equal(&r.ecx, "ntel", 4);
    assert_true(r.eax >= 0x1f);
    r = query(&m, 0, 0x40000000, 0);
    char sig[13] = {0};
    memcpy(sig, &r.ebx, 4);
    memcpy(sig + 4, &r.ecx, 4);
    memcpy(sig + 8, &r.edx, 4);
    assert_string_equal(sig, "KVMKVMKVM");
    r = query(&m, 0, 1, 0);
    assert_int_equal(r.eax >> 8 & 15, 6);
}

static void ids_past_255_are_whole_in_the_topology_leaves(void **state)
{
    struct cpuid_model m = model("max");
    assert_int_equal(query(&m, 0x22a, 1, 0).ebx >> 24, 0x2a);
    assert_int_equal(query(&m, 0x22a, 1, 0).ebx >> 16 & 0xff, 255);
    for (uint32_t leaf = 0xb; leaf <= 0x1f; leaf += 0x14)
        for (uint32_t sub = 0; sub < 4; sub++)
            assert_int_equal(query(&m, 554, leaf, sub).edx, 554);
    struct cpuid_regs smt = query(&m, 554, 0xb, 0), core = query(&m, 554, 0xb, 1), end = query(&m, 554, 0xb, 2);
    assert_int_equal(smt.eax, 1);
    assert_int_equal(smt.ebx, 2);
    assert_int_equal(smt.ecx, 0x100);
    assert_int_equal(core.eax, 10); /* one socket: IDs up to 554 are one package */
    assert_int_equal(core.ebx, 300);
    assert_int_equal(core.ecx, 0x201);
    assert_int_equal(end.ebx, 0);
    assert_int_equal(end.ecx, 2);
}

static void dies_show_only_in_leaf_1f(void **state)
{
    struct cpu_topology t = {.sockets = 2, .dies = 3, .cores = 5, .threads = 1};
    struct cpuid_model m;
    assert_int_equal(cpuid_model_init(&m, "max", &t, 30, 60, NULL), 0);
    assert_int_equal(query(&m, 9, 0x1f, 0).eax, 0);
    assert_int_equal(query(&m, 9, 0x1f, 1).eax, 3);
    assert_int_equal(query(&m, 9, 0x1f, 1).ebx, 5);
    assert_int_equal(query(&m, 9, 0x1f, 2).eax, 5);
    assert_int_equal(query(&m, 9, 0x1f, 2).ebx, 15);
    assert_int_equal(query(&m, 9, 0x1f, 2).ecx, 0x502);
    assert_int_equal(query(&m, 9, 0x1f, 3).ecx, 3);
    assert_int_equal(query(&m, 9, 0xb, 1).eax, 5);
    assert_int_equal(query(&m, 9, 0xb, 2).ecx, 2);
}

static void the_l3_is_shared_by_64(void **state)
{
    struct cpuid_model m = model("max");
    assert_int_equal((query(&m, 0, 4, 3).eax >> 14 & 0xfff) + 1, 64);
    assert_int_equal((query(&m, 0, 4, 0).eax >> 14 & 0xfff) + 1, 2);
    assert_int_equal(query(&m, 0, 4, 4).eax, 0);
    struct cpu_topology t = {1, 1, 1, 1};
    assert_int_equal(cpuid_model_init(&m, "max", &t, 1, 0, NULL), 0);
    assert_int_equal((query(&m, 0, 4, 3).eax >> 14 & 0xfff) + 1, 1);
    assert_false(query(&m, 0, 1, 0).edx & CPUID_1_EDX_HTT);
}

static void time_is_told_alike_everywhere(void **state)
{
    struct cpuid_model m = model("max");
    struct cpuid_regs r = query(&m, 0, 0x15, 0);
    assert_int_equal((uint64_t)r.ecx * r.ebx / r.eax, 1000000000);
    assert_int_equal(query(&m, 0, 0x16, 0).eax, 1000);
    assert_int_equal(query(&m, 0, 0x40000010, 0).eax, 1000000);
    assert_true(query(&m, 0, 0x80000007, 0).edx & 1u << 8);
    assert_true(query(&m, 0, 6, 0).eax & 4);
}

/* GCC's target_clones("arch=...") looks at the number and not at the AVX bit: stress-ng died of SIGILL with a big
 * core's. */
static void the_model_number_promises_no_avx(void **state)
{
    struct cpuid_model m = model("max");
    assert_int_equal(query(&m, 0, 1, 0).eax, 0x80661);
    assert_false(query(&m, 0, 1, 0).ecx & 1u << 28);
}

static void what_we_lack_is_hidden(void **state)
{
    struct cpuid_model m = model("max");
    struct cpuid_regs r = query(&m, 0, 1, 0);
    assert_false(r.ecx & (1u << 3 | 1u << 17 | 1u << 26 | 1u << 27 | 1u << 28)); /* MONITOR PCID XSAVE OSXSAVE AVX */
    r = query(&m, 0, 7, 0);
    assert_false(r.ebx & (1u << 10 | 1u << 20 | 1u << 5)); /* INVPCID SMAP AVX2 */
    assert_false(r.ecx & 1u << 16);                        /* LA57 */
    assert_int_equal(query(&m, 0, 0xa, 0).eax, 0);
    assert_int_equal(query(&m, 0, 0xd, 0).eax, 0);
    assert_int_equal(query(&m, 0, 0x40000001, 0).edx, 0); /* no hints, above all not REALTIME */
    assert_int_equal(m.arch_capabilities & 0x161, 0x161); /* no Meltdown, MDS, ITLB multihit, TAA */
}

static void apic_bit_follows_the_enable_bit(void **state)
{
    struct cpuid_model m = model("max");
    struct cpuid_cpu cpu = {.id = APIC_ID(3)};
    struct cpuid_regs r;
    cpuid_query(&m, &cpu, 1, 0, &r);
    assert_false(r.edx & CPUID_1_EDX_APIC);
    assert_true(query(&m, 3, 1, 0).edx & CPUID_1_EDX_APIC);
}

static void flags_switch_bits(void **state)
{
    struct cpuid_model m = model("qemu64,-x2apic,kvm_msi_ext_dest_id=off,smep=off,+waitpkg,vendor=AuthenticAMD");
    assert_false(m.std1_ecx & CPUID_1_ECX_X2APIC);
    assert_false(m.kvm_features & PV_EXT_DEST_ID);
    assert_true(m.kvm_features & PV_SEND_IPI);
    assert_false(m.std7_ebx & CPUID_7_EBX_SMEP);
    assert_true(m.std7_ecx & CPUID_7_ECX_WAITPKG);
    assert_string_equal(m.vendor, "AuthenticAMD");
    assert_int_equal(query(&m, 0, 1, 0).eax >> 8 & 15, 15);
    m = model("host,hypervisor=off");
    assert_false(query(&m, 0, 1, 0).ecx & CPUID_1_ECX_HV);
    assert_int_equal(m.kvm_features, 0);
    m = model("max,kvm=off,kvmclock=on,avx=off,model-id=A CPU,phys-bits=40");
    assert_int_equal(m.kvm_features, PV_CLOCKSOURCE | PV_CLOCKSOURCE2);
    assert_string_equal(m.brand, "A CPU");
    assert_int_equal(query(&m, 0, 0x80000008, 0).eax, 40 | 48 << 8);
}

static void mistakes_name_what_was_meant(void **state)
{
    static const struct {
        const char *spec, *expect;
    } bad[] = {
        {"maxx", "'max'"},
        {"qemu46", "'qemu64'"},
        {"", "model ''"},
        {"max,x2apik=on", "'x2apic'"},
        {"max,+hypervizor", "'hypervisor'"},
        {"max,", "unknown flag ''"},
        {"max,x2apic=maybe", "neither on nor off"},
        {"max,+x2apic=on", "both a sign and a value"},
        {"max,avx=on", "no 'avx'"},
        {"max,vendor=Intel", "12 characters"},
        {"max,phys-bits=99", "36 to 52"},
        {"max,vendr=GenuineIntel", "'vendor'"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct cpuid_model m;
        struct err e = {""};
        int want = strstr(bad[i].spec, "avx") ? -ENOTSUP : -EINVAL;
        assert_int_equal(cpuid_model_init(&m, bad[i].spec, &one_socket, 300, 554, &e), want);
        if (!strstr(e.msg, bad[i].expect))
            fail_msg("%s: %s", bad[i].spec, e.msg);
    }
}

static void count_line(void *opaque, const char *text)
{
    unsigned *n = opaque;
    assert_true(strlen(text) > 10);
    ++*n;
}

static void every_flag_is_listed(void **state)
{
    unsigned n = 0;
    cpuid_print_flags(count_line, &n);
    assert_true(n > 150);
}

static void any_leaf_may_be_asked(void **state)
{
    struct cpuid_model m = model("max");
    for (uint64_t leaf = 0; leaf < 0x100000000; leaf += leaf & 0xff ? 1 : 0xff01)
        for (uint32_t sub = 0; sub < 8; sub++)
            query(&m, 554, (uint32_t)leaf, sub);
}

static void model_of(struct cpuid_model *m, const char *spec)
{
    static const struct cpu_topology topo = {1, 1, 150, 2};
    struct err e = {""};
    if (cpuid_model_init(m, spec, &topo, 300, 299, &e))
        fail_msg("%s: %s", spec, e.msg);
}

static void assert_block(const struct cpuid_model *m, uint32_t base, const char *sign, uint32_t last)
{
    struct cpuid_regs r = query(m, 0, base, 0);
    char got[13] = {0};
    memcpy(got, &r.ebx, 4);
    memcpy(got + 4, &r.ecx, 4);
    memcpy(got + 8, &r.edx, 4);
    assert_string_equal(got, sign);
    assert_int_equal(r.eax, base + last);
}

/* Linux takes the last base with a signature it knows, and each interface's bit relative to its own base. */
static void three_interfaces_promise_15_bit_ids(void **state)
{
    struct cpuid_model m;
    model_of(&m, "max");
    assert_block(&m, 0x40000000, "KVMKVMKVM", 0x10);
    assert_int_equal(query(&m, 0, 0x40000001, 0).eax >> 15 & 1, 1);
    assert_int_equal(query(&m, 0, 0x40000100, 0).ebx, 0);
    model_of(&m, "max,hv-ext-dest-id=on");
    assert_block(&m, 0x40000000, "Microsoft Hv", 0x82);
    assert_int_equal(query(&m, 0, 0x40000001, 0).eax, 0x31237648);
    assert_int_equal(query(&m, 0, 0x40000005, 0).eax, 300);
    assert_int_equal(query(&m, 0, 0x40000081, 0).eax, 0x31235356);
    assert_int_equal(query(&m, 0, 0x40000082, 0).eax, 4);
    assert_block(&m, 0x40000100, "KVMKVMKVM", 0x10);
    assert_int_equal(query(&m, 0, 0x40000101, 0).eax >> 15 & 1, 1);
    assert_int_equal(query(&m, 0, 0x40000110, 0).eax, 1000000);
    model_of(&m, "max,xen-ext-dest-id=on,hv-relaxed=on,kvm-msi-ext-dest-id=off");
    assert_block(&m, 0x40000000, "Microsoft Hv", 0x82);
    assert_int_equal(query(&m, 0, 0x40000004, 0).eax, 0x20);
    assert_int_equal(query(&m, 0, 0x40000082, 0).eax, 0);
    assert_block(&m, 0x40000100, "XenVMMXenVMM", 5);
    assert_int_equal(query(&m, 0, 0x40000104, 0).eax, 0x20);
    assert_block(&m, 0x40000200, "KVMKVMKVM", 0x10);
    assert_int_equal(query(&m, 0, 0x40000201, 0).eax >> 15 & 1, 0);
    assert_int_equal(cpuid_ext_dest(&m), CPUID_EXT_DEST_XEN);
    cpuid_withdraw_ext_dest(&m);
    assert_int_equal(cpuid_ext_dest(&m), 0);
    model_of(&m, "max,kvm=off,hv-ext-dest-id=on");
    assert_block(&m, 0x40000000, "Microsoft Hv", 0x82);
    assert_int_equal(query(&m, 0, 0x40000100, 0).eax, 0);
    model_of(&m, "max,hypervisor=off,hv-ext-dest-id=on,xen-ext-dest-id=on");
    assert_int_equal(cpuid_ext_dest(&m), 0);
    assert_int_equal(query(&m, 0, 0x40000081, 0).eax == 0x31235356, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identifies_itself),
        cmocka_unit_test(ids_past_255_are_whole_in_the_topology_leaves),
        cmocka_unit_test(dies_show_only_in_leaf_1f),
        cmocka_unit_test(the_l3_is_shared_by_64),
        cmocka_unit_test(time_is_told_alike_everywhere),
        cmocka_unit_test(the_model_number_promises_no_avx),
        cmocka_unit_test(what_we_lack_is_hidden),
        cmocka_unit_test(apic_bit_follows_the_enable_bit),
        cmocka_unit_test(flags_switch_bits),
        cmocka_unit_test(mistakes_name_what_was_meant),
        cmocka_unit_test(every_flag_is_listed),
        cmocka_unit_test(any_leaf_may_be_asked),
        cmocka_unit_test(three_interfaces_promise_15_bit_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
