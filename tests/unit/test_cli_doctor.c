/* hecaton doctor: facts read from a made-up host, and what they mean. */
#include "base/bits.h"
#include "cli/doctor.h"
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static char root[64];

static void put(const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *s = full + strlen(root) + 1; (s = strchr(s, '/')); s++) {
        *s = 0;
        mkdir(full, 0755);
        *s = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int set_up(void **state)
{
    strcpy(root, "/tmp/hec-doctor-XXXXXX");
    assert_non_null(mkdtemp(root));
    put("/proc/cpuinfo", "processor\t: 0\nmodel name\t: Made Up 9000\nflags\t\t: fpu svm_lock svm sse hypervisor\n\n"
                         "processor\t: 1\nmodel name\t: Other\nflags\t\t: fpu vmx\n");
    put("/proc/meminfo",
        "MemTotal:        4194304 kB\nMemFree: 5 kB\nMemAvailable:    2097152 kB\nSwapFree: 1024 kB\n");
    put("/proc/modules", "kvm_amd 1 0 - Live\nfuse 1 1 - Live\nkvm 2 1 kvm_amd, Live\n");
    put("/proc/self/cgroup", "9:cpu:/a\n0::/a/b\n");
    put("/proc/sys/vm/overcommit_memory", "2\n");
    put("/sys/fs/cgroup/a/b/memory.max", "max\n");
    put("/sys/fs/cgroup/a/memory.max", "1073741824\n");
    put("/sys/fs/cgroup/a/memory.current", "73741824\n");
    put("/sys/module/kvm_amd/parameters/avic", "N\n");
    put("/sys/module/kvm_amd/parameters/nested", "1\n");
    return 0;
}

static int tear_down(void **state)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

static void test_facts(void **state)
{
    struct host h;
    host_read(&h, root);
    assert_int_equal(h.cpus, 2);
    assert_string_equal(h.cpu, "Made Up 9000");
    assert_true(h.svm && h.hypervisor && !h.vmx);
    assert_int_equal(h.mem_total, UINT64_C(4) << 30);
    assert_int_equal(h.mem_limit, 1000000000);
    assert_int_equal(host_memory(&h), 1000000000);
    assert_int_equal(h.overcommit, 2);
    assert_string_equal(h.kvm_modules, "kvm_amd kvm");
    assert_string_equal(h.apicv, "kvm_amd avic=N");
    assert_string_equal(h.nested, "kvm_amd nested=1");
    assert_false(h.inhibit_event);
}

/* Nothing to read: everything is absent, nothing fails. */
static void test_no_facts(void **state)
{
    struct host h;
    host_read(&h, "/nonexistent");
    assert_int_equal(h.cpus, 0);
    assert_int_equal(h.mem_available, 0);
    assert_true(h.mem_limit == HOST_UNLIMITED);
    assert_false(h.vmx || h.svm || h.apicv[0]);
}

struct report {
    char *text;
    size_t size;
    FILE *out;
};

static FILE *begin(struct report *r)
{
    *r = (struct report){0};
    return r->out = open_memstream(&r->text, &r->size);
}

static void expect(struct report *r, const char *want)
{
    fflush(r->out);
    if (!strstr(r->text, want))
        fail_msg("no '%s' in:\n%s", want, r->text);
}

static void end(struct report *r)
{
    fclose(r->out);
    free(r->text);
}

static const struct host big = {.cpus = 4,
                                .cpus_usable = 4,
                                .vmx = true,
                                .mem_total = UINT64_C(64) << 30,
                                .mem_available = UINT64_C(60) << 30,
                                .mem_limit = HOST_UNLIMITED,
                                .limit_as = HOST_UNLIMITED,
                                .limit_nproc = HOST_UNLIMITED,
                                .limit_nofile = 1024,
                                .limit_nofile_hard = 1024};
static const struct host_kvm good = {
    .api_version = 12, .max_vcpus = 1024, .nr_vcpus = 4, .max_vcpu_id = 4096, .split = 1, .x2apic_api = 3};

static void test_engine(void **state)
{
    struct report r;
    struct host h = big;
    assert_true(doctor_engine(begin(&r), &h, 300));
    expect(&r, "works");
    expect(&r, "APIC IDs up to 299");
    end(&r);
    h.mem_limit = UINT64_C(256) << 20;
    assert_true(doctor_engine(begin(&r), &h, 300));
    expect(&r, "256 MiB is all there is");
    expect(&r, "short of memory");
    end(&r);
    h.limit_as = UINT64_C(256) << 20;
    assert_false(doctor_engine(begin(&r), &h, 300));
    expect(&r, "ulimit -v unlimited");
    end(&r);
}

static void kvm_says(const struct host *h, const struct host_kvm *k, uint32_t n, const char *want)
{
    struct report r;
    doctor_kvm(begin(&r), h, k, n);
    expect(&r, want);
    end(&r);
}

static void test_kvm(void **state)
{
    struct host h = big;
    struct host_kvm k = good;
    kvm_says(&h, &k, 300, "300 CPUs        yes");
    kvm_says(&h, &k, 2000, "2000 CPUs       no: KVM_CAP_MAX_VCPUS");
    kvm_says(&h, &k, 1000, "1000 CPUs       no: a file a vCPU");
    k.split_errno = EINVAL;
    kvm_says(&h, &k, 300, "split irqchip   offered, but enabling it failed: Invalid argument");
    kvm_says(&h, &k, 300, "300 CPUs        no: IDs past 254 need the split irqchip");
    kvm_says(&h, &k, 8, "8 CPUs          yes");
    k = good;
    k.max_vcpu_id = 256;
    kvm_says(&h, &k, 300, "no: the highest APIC ID");
    k.vm_errno = ENOMEM;
    kvm_says(&h, &k, 8, "can't be created: Cannot allocate memory");
    k = good;
    k.max_vcpus = -EINVAL;
    kvm_says(&h, &k, 8, "KVM_CAP_MAX_VCPUS: Invalid argument");
    h.vmx = false;
    kvm_says(&h, &good, 8, "neither VMX nor SVM");
}

/* Every way not to open /dev/kvm has a remedy. */
static void test_kvm_closed(void **state)
{
    struct host h = big;
    kvm_says(&h, &(struct host_kvm){.open_errno = EACCES}, 300, "usermod -aG kvm");
    kvm_says(&h, &(struct host_kvm){.open_errno = ENOENT}, 300, "modprobe kvm_intel");
    kvm_says(&h, &(struct host_kvm){.open_errno = ENODEV}, 300, "back end");
    h.vmx = false;
    kvm_says(&h, &(struct host_kvm){.open_errno = ENOENT}, 300, "firmware's setup");
    h.hypervisor = true;
    kvm_says(&h, &(struct host_kvm){.open_errno = ENOENT}, 300, "nested virtualization");
    struct host_kvm k;
    host_kvm_read(&k, "/nonexistent");
    assert_int_equal(k.open_errno, ENOENT);
    host_kvm_read(&k, "/dev/null");
    assert_int_equal(k.open_errno, 0);
    assert_true(k.max_vcpus < 0 && k.vm_errno != 0);
    kvm_says(&h, &k, 8, "8 CPUs          no: its API version");
}

static void choice_says(const struct kvm_probe *p, uint32_t n, const char *want)
{
    struct report r;
    doctor_choice(begin(&r), p, n);
    expect(&r, want);
    end(&r);
}

static void test_choice(void **state)
{
    struct kvm_probe p = {.api_version = 12, .hardware = true, .max_vcpus = 1024, .max_vcpu_ids = 4096};
    choice_says(&p, 300, "engine          KVM");
    choice_says(&p, 300, "runs unmodified guests");
    choice_says(&p, 2000, "engine          hecaton's own");
    choice_says(&p, 2000, "KVM_CAP_MAX_VCPUS");
    p.hardware = false;
    choice_says(&p, 300, "engine          hecaton's own");
    choice_says(&p, 300, "one in software");
    p.open_errno = ENOENT;
    choice_says(&p, 300, "/dev/kvm does not open");
}

static void test_settings(void **state)
{
    struct report r;
    doctor_settings(begin(&r), 300);
    expect(&r, "hecaton -smp 300");
    expect(&r, "kernel-irqchip=split");
    expect(&r, "kvm-msi-ext-dest-id=on");
    expect(&r, "Needs QEMU 8.1");
    expect(&r, "<driver intremap='on' eim='on'");
    end(&r);
    doctor_settings(begin(&r), 8);
    expect(&r, "-smp 8 ");
    fflush(r.out);
    assert_null(strstr(r.text, "iommu"));
    end(&r);
    doctor_settings(begin(&r), 32768);
    expect(&r, "No version of QEMU");
    end(&r);
}

/* The whole command on the real host: whatever it is, a report and a status. */
static void test_command(void **state)
{
    struct report r;
    char *argv[] = {"doctor", "4", NULL};
    int status = command_doctor(2, argv, begin(&r));
    assert_true(status == 0 || status == 1);
    expect(&r, "Settings for 4 CPUs");
    end(&r);
    char *help[] = {"doctor", "-h", NULL};
    assert_int_equal(command_doctor(2, help, begin(&r)), 0);
    expect(&r, "hecaton doctor [N]");
    argv[1] = "none";
    assert_int_equal(command_doctor(2, argv, r.out), 2);
    argv[1] = "32769";
    assert_int_equal(command_doctor(2, argv, r.out), 2);
    end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_facts, set_up, tear_down),
        cmocka_unit_test(test_no_facts),
        cmocka_unit_test(test_engine),
        cmocka_unit_test(test_kvm),
        cmocka_unit_test(test_kvm_closed),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_command),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
