#include "vm/config.h"

#include "cpu/cpuid.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void topology_is_filled_as_users_expect(void **state)
{
    static const struct {
        struct vm_smp in, out;
    } cases[] = {
        {{.cpus = 1}, {1, 1, 1, 1, 1, 1}},
        {{.cpus = 300}, {300, 300, 1, 1, 150, 2}},
        {{.cpus = 7}, {7, 7, 1, 1, 7, 1}},
        {{.cpus = 12, .sockets = 3}, {12, 12, 3, 1, 2, 2}},
        {{.cpus = 12, .cores = 3, .threads = 2}, {12, 12, 2, 1, 3, 2}},
        {{.cpus = 12, .cores = 3}, {12, 12, 4, 1, 3, 1}},
        {{.cpus = 16, .sockets = 2, .dies = 2, .cores = 2}, {16, 16, 2, 2, 2, 2}},
        {{.cpus = 3, .maxcpus = 8}, {3, 8, 1, 1, 4, 2}},
        {{.sockets = 2, .cores = 3, .threads = 2}, {12, 12, 2, 1, 3, 2}},
        {{.cpus = 32768}, {32768, 32768, 1, 1, 16384, 2}},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err e = {{0}};
        struct vm_smp s = cases[i].in;
        if (vm_config_topology(&s, &e))
            fail_msg("%u: %s", i, e.msg);
        assert_memory_equal(&s, &cases[i].out, sizeof s);
    }
    static const struct vm_smp bad[] = {
        {.cpus = 4, .maxcpus = 2},
        {.cpus = 4, .cores = 3},
        {.cpus = 4, .sockets = 8},
        {.cpus = 40000},
        {.sockets = 32768, .dies = 32768, .cores = 32768, .threads = 32768},
        {.cpus = 4, .sockets = 32768, .dies = 32768, .cores = 32768, .threads = 32768},
    };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct err e = {{0}};
        struct vm_smp s = bad[i];
        assert_int_equal(vm_config_topology(&s, &e), -EINVAL);
        assert_true(e.msg[0]);
    }
}

static struct vm_config config(uint32_t cpus)
{
    struct vm_config c;
    vm_config_init(&c);
    c.kernel = "vmlinuz";
    c.smp = (struct vm_smp){.cpus = cpus};
    assert_int_equal(vm_config_topology(&c.smp, NULL), 0);
    return c;
}

static void set_ids(struct vm_config *c, uint32_t first, uint32_t from)
{
    c->apic_ids_n = c->smp.cpus;
    c->apic_ids = malloc(c->apic_ids_n * sizeof *c->apic_ids);
    c->apic_ids[0] = first;
    for (uint32_t i = 1; i < c->apic_ids_n; i++)
        c->apic_ids[i] = from + i - 1;
}

static void ids_have_holes_where_counts_are_no_powers_of_two(void **state)
{
    struct vm_config c = config(12);
    apic_id_t ids[12];
    static const uint32_t want[] = {0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13};
    c.smp = (struct vm_smp){12, 12, 2, 1, 3, 2};
    vm_config_ids(&c, ids);
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(ids[i].id, want[i]);
    assert_int_equal(vm_config_max_id(&c), 13);
    set_ids(&c, 300, 7);
    vm_config_ids(&c, ids);
    assert_int_equal(ids[0].id, 300);
    assert_int_equal(ids[11].id, 17);
    assert_int_equal(vm_config_max_id(&c), 300);
    assert_true(vm_config_firmware_x2apic(&c));
    c.firmware_x2apic = VM_OFF;
    assert_false(vm_config_firmware_x2apic(&c));
    vm_config_fini(&c);
}

static void refused(struct vm_config *c, const char *why, const char *remedy)
{
    struct err e = {{0}};
    if (config_check(c, &e) >= 0)
        fail_msg("accepted, though %s", why);
    if (!strstr(e.msg, why) || !strstr(e.msg, remedy) || strchr(e.msg, '\n'))
        fail_msg("'%s' does not say '%s' and '%s'", e.msg, why, remedy);
    vm_config_fini(c);
}

static void accepted(struct vm_config *c)
{
    struct err e = {{0}};
    if (config_check(c, &e))
        fail_msg("%s", e.msg);
    vm_config_fini(c);
}

static void cpus_without_a_route_are_refused(void **state)
{
    struct vm_config c = config(300);
    accepted(&c);
    c = config(300);
    c.cpu = "max,x2apic=off";
    refused(&c, "x2APIC", "drop x2apic=off");
    c = config(255); /* IDs 0 .. 254 */
    c.cpu = "max,kvm-msi-ext-dest-id=off,x2apic=off";
    accepted(&c);
    c = config(256);
    c.x2apic_broadcast_quirk = true;
    refused(&c, "broadcast-quirk", "apic-ids=");
    c = config(3);
    set_ids(&c, 255, 1);
    c.cpu = "max,kvm-msi-ext-dest-id=off";
    refused(&c, "boot CPU", "another ID");
    c = config(3);
    set_ids(&c, 300, 1);
    c.irqchip = VM_IRQCHIP_ON;
    refused(&c, "boot CPU", "kernel-irqchip=split");
    c = config(3);
    set_ids(&c, 255, 1);
    accepted(&c);
    c = config(300);
    set_ids(&c, 0, 256);
    accepted(&c);
    c = config(4);
    set_ids(&c, 30000, 32765);
    accepted(&c);
    c = config(32768);
    accepted(&c);
    c = config(4);
    c.firmware_x2apic = VM_ON;
    c.cpu = "max,x2apic=off";
    refused(&c, "firmware-x2apic", "drop");
    c = config(3 * 5000);
    c.smp = (struct vm_smp){15000, 15000, 3, 1, 5000, 1};
    accepted(&c);
    c.kernel = "vmlinuz";
    c = config(5 * 5 * 1025);
    c.smp = (struct vm_smp){25625, 25625, 5, 5, 1025, 1}; /* 3 + 3 + 11 bits */
    refused(&c, "topology", "powers of two");
}

/* What is said before the start, NULL: nothing. One line. */
static void warned(struct vm_config *c, const char *what, const char *remedy)
{
    struct err e = {{0}};
    char line[1024] = "";
    if (config_check(c, &e))
        fail_msg("%s", e.msg);
    int n = config_warning(c, line, sizeof line);
    if (!what && n)
        fail_msg("'%s'", line);
    if (what && (!strstr(line, what) || !strstr(line, remedy) || strchr(line, '\n') || n >= (int)sizeof line))
        fail_msg("'%s' does not say '%s' and '%s'", line, what, remedy);
    vm_config_fini(c);
}

static void cpus_the_guest_cannot_use_are_announced(void **state)
{
    struct vm_config c = config(300);
    warned(&c, NULL, NULL);
    c = config(300);
    c.irqchip = VM_IRQCHIP_ON;
    warned(&c, "use 255 of 300 CPUs", "kernel-irqchip=split");
    c = config(300);
    c.irqchip = VM_IRQCHIP_ON;
    c.cpu = "max,kvm-msi-ext-dest-id=on";
    warned(&c, "bit 15) is not offered and the guest will use 255 of 300", "kernel-irqchip=split");
    c = config(4);
    c.irqchip = VM_IRQCHIP_OFF;
    c.cpu = "max,+xen-ext-dest-id";
    warned(&c, "kernel-irqchip=off", "4 of 4");
    c = config(4);
    c.irqchip = VM_IRQCHIP_ON;
    warned(&c, NULL, NULL);
    c = config(300);
    c.cpu = "max,kvm-msi-ext-dest-id=off";
    warned(&c, "255 of 300 CPUs", "let -cpu offer kvm-msi-ext-dest-id");
    c = config(300);
    c.cpu = "max,kvm-msi-ext-dest-id=off,hv-ext-dest-id=on"; /* Linux takes us for KVM */
    warned(&c, "Linux guest will use 256 of 300", "kvm-msi-ext-dest-id too");
    c = config(300);
    c.cpu = "max,kvm=off,hv-ext-dest-id=on";
    warned(&c, NULL, NULL);
    c = config(20);
    set_ids(&c, 3, 250);
    c.cpu = "max,kvm=off";
    warned(&c, "6 of 20", "let -cpu");
}

static void only_a_split_irqchip_promises_anything(void **state)
{
    static const char cpu[] = "max,hv-ext-dest-id=on,xen-ext-dest-id=on";
    struct cpuid_model m;
    struct vm_config c = config(300);
    c.cpu = cpu;
    assert_int_equal(vm_config_cpuid(&c, &m, NULL), 0);
    assert_int_equal(cpuid_ext_dest(&m), CPUID_EXT_DEST_KVM | CPUID_EXT_DEST_HV | CPUID_EXT_DEST_XEN);
    c.irqchip = VM_IRQCHIP_ON;
    assert_int_equal(vm_config_cpuid(&c, &m, NULL), 0);
    assert_int_equal(cpuid_ext_dest(&m), 0);
    assert_int_equal(m.ext_dest_asked, CPUID_EXT_DEST_HV | CPUID_EXT_DEST_XEN);
    vm_config_fini(&c);
}

static void a_remapping_unit_reaches_every_id(void **state)
{
    struct vm_config c = config(300);
    c.iommu.kind = VM_IOMMU_INTEL;
    c.cpu = "max,kvm-msi-ext-dest-id=off";
    assert_true(vm_config_remaps_wide(&c));
    assert_false(vm_config_physical_destination(&c));
    accepted(&c);
    c = config(256);
    c.iommu = (struct vm_iommu){.kind = VM_IOMMU_INTEL, .intremap = true, .eim = VM_ON, .aw_bits = 39};
    c.cpu = "max,kvm-msi-ext-dest-id=off";
    accepted(&c);
    c = config(300);
    c.iommu.kind = VM_IOMMU_INTEL;
    c.iommu.eim = VM_OFF;
    refused(&c, "eim=off", "intremap=on,eim=on");
    c = config(255);
    c.iommu.kind = VM_IOMMU_INTEL;
    c.iommu.eim = VM_OFF;
    accepted(&c);
    c = config(300); /* a unit that only does DMA is in nobody's way */
    c.iommu.kind = VM_IOMMU_INTEL;
    c.iommu.intremap = false;
    assert_true(vm_config_physical_destination(&c));
    accepted(&c);
    c = config(300);
    c.iommu.kind = VM_IOMMU_INTEL;
    c.iommu.intremap = false;
    c.cpu = "max,kvm-msi-ext-dest-id=off";
    warned(&c, "255 of 300 CPUs", "intremap=on,eim=on");
    c = config(3);
    c.iommu.kind = VM_IOMMU_INTEL;
    c.iommu.intremap = false;
    c.iommu.eim = VM_ON;
    refused(&c, "eim=on", "intremap=on");
    c = config(3);
    c.iommu.kind = VM_IOMMU_INTEL;
    c.iommu.aw_bits = 40;
    refused(&c, "aw-bits=40", "39 or 48");
}

static void the_destination_mode_guests_are_asked_for(void **state)
{
    struct vm_config c = config(300);
    assert_true(vm_config_physical_destination(&c));
    c.apic_destination = VM_DEST_CLUSTER;
    assert_false(vm_config_physical_destination(&c));
    vm_config_fini(&c);
    c = config(255);
    assert_false(vm_config_physical_destination(&c));
    c.apic_destination = VM_DEST_PHYSICAL;
    assert_true(vm_config_physical_destination(&c));
    vm_config_fini(&c);
}

static void id_lists_are_checked(void **state)
{
    struct vm_config c = config(4);
    set_ids(&c, 5, 5);
    refused(&c, "twice", "own");
    c = config(4);
    set_ids(&c, 5, 100);
    c.apic_ids_n = 3;
    refused(&c, "3 IDs", "-smp");
    c = config(4);
    set_ids(&c, 32768, 0);
    refused(&c, "32768", "32767");
}

static void contradictions_are_refused(void **state)
{
    struct vm_config c = config(4);
    c.deterministic = true;
    c.time = VM_TIME_REAL;
    refused(&c, "real time", "drop time=real");
    c = config(4);
    c.deterministic = true;
    c.workers = 2;
    refused(&c, "one worker", "drop workers=2");
    c = config(4);
    c.kernel = NULL;
    refused(&c, "nothing to start", "-kernel");
    c = config(4);
    c.mem_size = 4097;
    refused(&c, "4097", "multiple");
    c = config(4);
    c.debug_exit = true;
    c.debug_exit_base = 0xffff;
    refused(&c, "isa-debug-exit", "FFFFh");
    c = config(4);
    c.serial[0].kind = VM_SERIAL_UNIX;
    c.serial[0].spec = calloc(1, 200);
    memset(c.serial[0].spec, 'p', 199);
    memcpy(c.serial[0].spec, "unix:", 5);
    refused(&c, "socket", "shorter");
}

static void too_little_memory_for_linux_says_how_much(void **state)
{
    struct err e = {{0}};
    struct vm_config c = config(300);
    c.mem_size = 128 << 20;
    assert_int_equal(config_check(&c, &e), 0); /* other payloads may do with it */
    assert_int_equal(config_check_linux(&c, &e), -ENOMEM);
    assert_non_null(strstr(e.msg, "300 CPUs"));
    assert_non_null(strstr(e.msg, "give -m 667M"));
    c.mem_size = UINT64_C(667) << 20;
    assert_int_equal(config_check_linux(&c, &e), 0);
    c = config(1);
    c.mem_size = 64 << 20;
    assert_int_equal(config_check_linux(&c, &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(topology_is_filled_as_users_expect),
        cmocka_unit_test(ids_have_holes_where_counts_are_no_powers_of_two),
        cmocka_unit_test(cpus_without_a_route_are_refused),
        cmocka_unit_test(cpus_the_guest_cannot_use_are_announced),
        cmocka_unit_test(only_a_split_irqchip_promises_anything),
        cmocka_unit_test(a_remapping_unit_reaches_every_id),
        cmocka_unit_test(the_destination_mode_guests_are_asked_for),
        cmocka_unit_test(id_lists_are_checked),
        cmocka_unit_test(contradictions_are_refused),
        cmocka_unit_test(too_little_memory_for_linux_says_how_much),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
