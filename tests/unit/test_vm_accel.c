/* Which engine runs which machine on which host: the choice is a function of all three. */
#include "vm/accel.h"

#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

static struct kvm_probe host(bool hardware)
{
    return (struct kvm_probe){.api_version = 12, .hardware = hardware, .max_vcpus = 1024, .max_vcpu_ids = 4096};
}

static struct vm_config machine(uint32_t cpus)
{
    struct vm_config c;
    struct err e = {{0}};
    vm_config_init(&c);
    c.smp = (struct vm_smp){.cpus = cpus};
    assert_int_equal(vm_config_topology(&c.smp, &e), 0);
    return c;
}

static void list(struct vm_config *c, const char *accels)
{
    c->accels = 0;
    for (; *accels; accels++)
        c->accel[c->accels++] = *accels == 'k' ? VM_ACCEL_KVM : VM_ACCEL_SOFT;
}

struct want {
    enum vm_accel engine;
    const char *said; /* a word of the line; NULL: silent */
};

static void chosen(struct vm_config *c, struct kvm_probe p, const char *accels, struct want want)
{
    struct err said = {{0}}, e = {{0}};
    list(c, accels);
    if (accel_choose(c, &p, &said, &e))
        fail_msg("'%s': %s", accels, e.msg);
    assert_int_equal(c->engine, want.engine);
    if (!want.said && said.msg[0])
        fail_msg("'%s' says '%s'", accels, said.msg);
    if (want.said && (!strstr(said.msg, want.said) || strchr(said.msg, '\n')))
        fail_msg("'%s' says '%s', not '%s'", accels, said.msg, want.said);
}

static void refused(struct vm_config *c, struct kvm_probe p, const char *accels, const char *why)
{
    struct err said = {{0}}, e = {{0}};
    list(c, accels);
    assert_true(accel_choose(c, &p, &said, &e) < 0);
    if (!strstr(e.msg, why) || !strstr(e.msg, "-accel") || strchr(e.msg, '\n'))
        fail_msg("'%s' is refused by '%s', not '%s'", accels, e.msg, why);
    assert_string_equal(said.msg, "");
}

static const struct want soft = {VM_ACCEL_SOFT, NULL}, kvm = {VM_ACCEL_KVM, NULL};

static struct want soft_because(const char *word)
{
    return (struct want){VM_ACCEL_SOFT, word};
}

static void where_kvm_runs_everything(void **state)
{
    struct vm_config c = machine(8);
    chosen(&c, host(true), "", kvm);
    assert_false(c.kvm_in_software);
    chosen(&c, host(true), "k", kvm);
    chosen(&c, host(true), "s", soft);
    chosen(&c, host(true), "ks", kvm);
    chosen(&c, host(true), "sk", soft);
    vm_config_fini(&c);
}

static void where_there_is_no_kvm(void **state)
{
    struct vm_config c = machine(8);
    struct kvm_probe none = {.open_errno = ENOENT}, forbidden = {.open_errno = EACCES, .hardware = true};
    chosen(&c, none, "", soft);
    chosen(&c, none, "ks", soft_because("/dev/kvm"));
    refused(&c, none, "k", "/dev/kvm");
    chosen(&c, forbidden, "ks", soft_because("usermod"));
    refused(&c, forbidden, "k", "usermod");
    vm_config_fini(&c);
}

/* It is good for bare-metal programs: only who asks for it and nothing else gets it. */
static void where_kvm_is_in_software(void **state)
{
    struct vm_config c = machine(8);
    chosen(&c, host(false), "", soft);
    assert_true(c.kvm_in_software);
    chosen(&c, host(false), "ks", soft_because("in software"));
    chosen(&c, host(false), "k", kvm);
    assert_true(c.kvm_in_software);
    chosen(&c, host(false), "s", soft);
    vm_config_fini(&c);
}

static void limits_of_the_host(void **state)
{
    struct vm_config c = machine(1024);
    chosen(&c, host(true), "k", kvm);
    vm_config_fini(&c);
    c = machine(1025);
    refused(&c, host(true), "k", "1025");
    chosen(&c, host(true), "ks", soft_because("1024"));
    chosen(&c, host(true), "", soft_because("1024"));
    vm_config_fini(&c);
    c = machine(2);
    c.apic_ids = malloc(2 * sizeof *c.apic_ids);
    c.apic_ids_n = 2;
    c.apic_ids[0] = 7;
    c.apic_ids[1] = 4095;
    chosen(&c, host(true), "k", kvm);
    c.apic_ids[1] = 4096;
    refused(&c, host(true), "k", "4096");
    chosen(&c, host(true), "", soft_because("4096"));
    c.apic_ids[1] = 255;
    struct kvm_probe old = host(true);
    old.x2apic_errno = ENOTSUP;
    refused(&c, old, "k", "255");
    c.apic_ids[1] = 254;
    chosen(&c, old, "k", kvm);
    vm_config_fini(&c);
}

static void what_only_the_other_engine_has(void **state)
{
    struct vm_config c = machine(2);
    c.deterministic = true;
    refused(&c, host(true), "k", "deterministic=on");
    chosen(&c, host(true), "ks", soft_because("deterministic=on"));
    chosen(&c, host(true), "", soft); /* asked for by name, so no news */
    c.deterministic = false;
    c.time = VM_TIME_VIRTUAL;
    refused(&c, host(true), "k", "time=virtual");
    chosen(&c, host(true), "", soft);
    c.time = VM_TIME_REAL;
    chosen(&c, host(true), "k", kvm);
    c.irqchip = VM_IRQCHIP_OFF;
    refused(&c, host(true), "k", "kernel-irqchip=off");
    chosen(&c, host(true), "", soft_because("kernel-irqchip=off"));
    c.irqchip = VM_IRQCHIP_ON;
    chosen(&c, host(true), "k", kvm);
    vm_config_fini(&c);
}

static void config_check_refuses_it_too(void **state)
{
    struct vm_config c = machine(2);
    struct err e = {{0}};
    c.kernel = "vmlinuz";
    c.engine = VM_ACCEL_KVM;
    c.deterministic = true;
    assert_int_equal(config_check(&c, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "deterministic=on"));
    vm_config_fini(&c);
}

/* A list of IDs that does not fit the number of CPUs is config_check()'s to refuse; choosing must survive it. */
static void a_bad_list_is_survived(void **state)
{
    struct vm_config c = machine(300);
    c.apic_ids = malloc(sizeof *c.apic_ids);
    c.apic_ids_n = 1;
    c.apic_ids[0] = 9;
    chosen(&c, host(true), "k", kvm);
    vm_config_fini(&c);
}

static void falling_back(void **state)
{
    struct vm_config c = machine(2);
    list(&c, "k");
    c.engine = VM_ACCEL_KVM;
    assert_false(accel_may_fall_back(&c));
    list(&c, "ks");
    assert_true(accel_may_fall_back(&c));
    list(&c, "");
    assert_true(accel_may_fall_back(&c));
    c.engine = VM_ACCEL_SOFT;
    assert_false(accel_may_fall_back(&c));
    vm_config_fini(&c);
}

static void open_files_are_raised_as_far_as_allowed(void **state)
{
    struct vm_config c = machine(900);
    struct rlimit old, l;
    struct err e = {{0}};
    c.engine = VM_ACCEL_KVM;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    if (old.rlim_max < 1100)
        skip();
    l = (struct rlimit){.rlim_cur = 64, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &l), 0);
    assert_int_equal(accel_raise_limits(&c, &e), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &l), 0);
    assert_in_range(l.rlim_cur, 901, 1100);
    l = (struct rlimit){.rlim_cur = 64, .rlim_max = 512};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &l), 0);
    assert_int_equal(accel_raise_limits(&c, &e), -EMFILE);
    assert_non_null(strstr(e.msg, "ulimit -Hn"));
    c.engine = VM_ACCEL_SOFT;
    assert_int_equal(accel_raise_limits(&c, NULL), 0);
    vm_config_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(where_kvm_runs_everything),
        cmocka_unit_test(where_there_is_no_kvm),
        cmocka_unit_test(where_kvm_is_in_software),
        cmocka_unit_test(limits_of_the_host),
        cmocka_unit_test(what_only_the_other_engine_has),
        cmocka_unit_test(config_check_refuses_it_too),
        cmocka_unit_test(a_bad_list_is_survived),
        cmocka_unit_test(falling_back),
        cmocka_unit_test(open_files_are_raised_as_far_as_allowed), /* last: the limit stays down */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
