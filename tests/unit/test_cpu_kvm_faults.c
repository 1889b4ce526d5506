/* The KVM engine on a kernel that fails as the test says: what it tells, that it stays within bounds, that nothing is
 * left behind. Needs no /dev/kvm. */
#include "kvm_rig.h"

#include <dirent.h>
#include <sys/mman.h>

enum { RUN_SIZE = 3 * 4096, FAKE_GSIS = 64 };

struct fake {
    struct kvm_sys sys;
    /* the call numbered `at` (from 0) of `request` answers `rc`; request 0: of all */
    unsigned long request;
    unsigned at, seen;
    int rc;
    unsigned calls; /* all so far */
    /* KVM_RUN: what it does; returns its result */
    int (*run)(struct fake *f, struct kvm_run *run);
    unsigned runs;
    struct kvm_run *mapped[64]; /* by order of mapping */
    unsigned maps;
    int fds[64];
    /* KVM_SET_GSI_ROUTING refuses tables with this GSI (-1: none) */
    int bad_gsi;
    uint32_t table[FAKE_GSIS], entries;
    struct kvm_rig *rig;
};

static int fake_open(void *opaque)
{
    return memfd_create("kvm", MFD_CLOEXEC);
}

static int fake_map(void *opaque, int fd, size_t size, void **out)
{
    struct fake *f = opaque;
    if (ftruncate(fd, (off_t)size))
        return -errno;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    f->fds[f->maps] = fd;
    f->mapped[f->maps++] = p;
    *out = p;
    return 0;
}

static int fake_cap(uintptr_t cap)
{
    switch (cap) {
    case KVM_CAP_IRQ_ROUTING:
        return FAKE_GSIS;
    case KVM_CAP_MAX_VCPUS:
    case KVM_CAP_MAX_VCPU_ID:
        return 4096;
    case KVM_CAP_XSAVE2:
        return 8192;
    default:
        return 1;
    }
}

static int fake_routing(struct fake *f, const struct kvm_irq_routing *t)
{
    for (uint32_t i = 0; i < t->nr; i++)
        if ((int)t->entries[i].gsi == f->bad_gsi)
            return -EINVAL;
    f->entries = t->nr;
    for (uint32_t i = 0; i < t->nr; i++)
        f->table[i] = t->entries[i].gsi;
    return 0;
}

static int fake_run(struct fake *f, int fd)
{
    f->runs++;
    for (unsigned i = 0; i < f->maps; i++)
        if (f->fds[i] == fd && f->run)
            return f->run(f, f->mapped[i]);
    return -EINTR;
}

static int fake_ioctl(void *opaque, int fd, unsigned long request, uintptr_t arg)
{
    struct fake *f = opaque;
    f->calls++;
    if (f->rc && (request == f->request || !f->request) && f->seen++ == f->at)
        return f->rc;
    switch (request) {
    case KVM_GET_API_VERSION:
        return KVM_API_VERSION;
    case KVM_CHECK_EXTENSION:
        return fake_cap(arg);
    case KVM_CREATE_VM:
    case KVM_CREATE_VCPU:
    case KVM_GET_STATS_FD:
        return memfd_create("kvm", MFD_CLOEXEC);
    case KVM_GET_VCPU_MMAP_SIZE:
        return RUN_SIZE;
    case KVM_GET_SUPPORTED_CPUID:
        ((struct kvm_cpuid2 *)arg)->nent = 0;
        return 0;
    case KVM_GET_MSRS:
    case KVM_SET_MSRS:
        return (int)((struct kvm_msrs *)arg)->nmsrs;
    case KVM_SET_GSI_ROUTING:
        return fake_routing(f, (const struct kvm_irq_routing *)arg);
    case KVM_RUN:
        return fake_run(f, fd);
    default:
        return 0;
    }
}

static void fake_init(struct fake *f, struct kvm_rig *r)
{
    *f = (struct fake){.bad_gsi = -1, .rig = r};
    f->sys = (struct kvm_sys){.open = fake_open, .ioctl = fake_ioctl, .map = fake_map, .opaque = f};
    rig_prepare(r);
}

static void fake_make(struct fake *f)
{
    struct err e = {""};
    if (kvm_vm_create_on(&f->sys, &f->rig->cfg, &f->rig->vm, &e))
        fail_msg("%s", e.msg);
}

/* A machine whose vCPUs do what `play` does. */
static void fake_play(struct fake *f, struct kvm_rig *r, int (*play)(struct fake *, struct kvm_run *))
{
    fake_init(f, r);
    f->run = play;
    fake_make(f);
}

static unsigned open_files(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* ---- making a machine ---- */

/* Whatever call fails, and however: a machine or one line, and no file left. */
static void each_call_fails(void **state)
{
    static const int errors[] = {-ENOMEM, -EINVAL, -EEXIST, -EPERM, -EINTR, -EMFILE, -ENOSYS};
    struct kvm_rig r;
    struct fake f;
    fake_init(&f, &r);
    fake_make(&f);
    unsigned all = f.calls, refused = 0;
    rig_fini(&r);
    for (unsigned i = 0; i < ARRAY_SIZE(errors); i++)
        for (unsigned at = 0; at < all; at++) {
            struct err e = {""};
            fake_init(&f, &r);
            f.rc = errors[i];
            f.at = at;
            unsigned files = open_files();
            int rc = kvm_vm_create_on(&f.sys, &r.cfg, &r.vm, &e);
            assert_int_equal(rc != 0, e.msg[0] != 0);
            assert_null(strchr(e.msg, '\n'));
            if (rc)
                assert_int_equal(open_files(), files);
            refused += rc != 0;
            rig_fini(&r);
        }
    assert_true(refused > 50);
}

static void no_device(void **state)
{
    struct kvm_rig r;
    struct fake f;
    struct err e = {""};
    fake_init(&f, &r);
    f.request = KVM_GET_API_VERSION;
    f.rc = 11;
    assert_int_equal(kvm_vm_create_on(&f.sys, &r.cfg, &r.vm, &e), -ENOTSUP);
    assert_non_null(strstr(e.msg, "-accel soft"));
    rig_fini(&r);
}

static void creation_is_interrupted(void **state)
{
    struct kvm_rig r;
    struct fake f;
    fake_init(&f, &r);
    f.request = KVM_CREATE_VM;
    f.rc = -EINTR;
    fake_make(&f);
    rig_fini(&r);
}

static void the_kth_vcpu(void **state)
{
    static const struct {
        int rc;
        const char *remedy;
    } c[] = {{-ENOMEM, "lower -smp, or free memory"},
             {-EEXIST, "another vCPU has that ID"},
             {-EINVAL, "KVM_CAP_MAX_VCPU_ID"},
             {-EMFILE, "raise ulimit -n"}};
    for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
        struct kvm_rig r;
        struct fake f;
        struct err e = {""};
        fake_init(&f, &r);
        f.request = KVM_CREATE_VCPU;
        f.rc = c[i].rc;
        f.at = 3;
        unsigned files = open_files();
        assert_int_equal(kvm_vm_create_on(&f.sys, &r.cfg, &r.vm, &e), c[i].rc);
        if (!strstr(e.msg, "vCPU 3 of 5 (APIC ID 300)") || !strstr(e.msg, c[i].remedy))
            fail_msg("%s", e.msg);
        assert_int_equal(open_files(), files);
        rig_fini(&r);
    }
}

/* ---- running ---- */

static struct cpu_run run_fake(struct fake *f)
{
    struct cpu_run run = {.epoch_slot = f->rig->slot[3]};
    engine_kvm.vcpu_run(rig_vcpu(f->rig, 3), &run);
    return run;
}

/* The stop comes in the middle of the storm, from where a signal handler could have set it. */
static int storm(struct fake *f, struct kvm_run *run)
{
    if (f->runs == 100000)
        engine_kvm.kick(rig_vcpu(f->rig, 3), ATTN_EXIT);
    return f->runs & 1 ? -EINTR : -EAGAIN;
}

static void interrupts_without_end(void **state)
{
    struct kvm_rig r;
    struct fake f;
    fake_play(&f, &r, storm);
    assert_int_equal(run_fake(&f).exit, CPU_EXIT_KICKED);
    assert_int_equal(f.runs, 100000);
    rig_fini(&r);
}

/* An access that never completes does not keep a vCPU from stopping. */
static int endless_access(struct fake *f, struct kvm_run *run)
{
    if (f->runs == 10)
        engine_kvm.kick(rig_vcpu(f->rig, 3), ATTN_EXIT);
    run->exit_reason = KVM_EXIT_MMIO;
    run->mmio.phys_addr = 0xd0000000;
    run->mmio.len = 255; /* more than there is room for */
    run->mmio.is_write = f->runs & 1;
    return 0;
}

static void accesses_without_end(void **state)
{
    struct kvm_rig r;
    struct fake f;
    fake_play(&f, &r, endless_access);
    assert_int_equal(run_fake(&f).exit, CPU_EXIT_KICKED);
    assert_true(f.runs < 1000);
    rig_fini(&r);
}

static void expect_error(int (*play)(struct fake *, struct kvm_run *), const char *says)
{
    struct kvm_rig r;
    struct fake f;
    fake_play(&f, &r, play);
    kvm_vm_of(r.vm)->software = true;
    struct cpu_run run = run_fake(&f);
    assert_int_equal(run.exit, CPU_EXIT_ERROR);
    if (!strstr(run.err, "CPU 3 (APIC ID 300)") || !strstr(run.err, says) || strchr(run.err, '\n'))
        fail_msg("%s", run.err);
    rig_fini(&r);
}

static int play_emulation(struct fake *f, struct kvm_run *run)
{
    run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
    run->emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
    run->emulation_failure.ndata = 3;
    run->emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
    run->emulation_failure.insn_size = 2;
    memcpy(run->emulation_failure.insn_bytes, "\xdb\xe3", 2);
    return 0;
}

static int play_internal(struct fake *f, struct kvm_run *run)
{
    run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
    run->internal.suberror = KVM_INTERNAL_ERROR_DELIVERY_EV;
    run->internal.ndata = 99;
    return 0;
}

static int play_entry(struct fake *f, struct kvm_run *run)
{
    run->exit_reason = KVM_EXIT_FAIL_ENTRY;
    run->fail_entry.hardware_entry_failure_reason = 0x80000021;
    return 0;
}

static int play_unknown(struct fake *f, struct kvm_run *run)
{
    run->exit_reason = 4711;
    return 0;
}

static int play_fault(struct fake *f, struct kvm_run *run)
{
    return -EFAULT;
}

static int play_nosys(struct fake *f, struct kvm_run *run)
{
    return -ENOSYS;
}

static void errors_are_told(void **state)
{
    expect_error(play_emulation, "bytes db e3: this host's KVM is one in software");
    expect_error(play_internal, "internal error 3");
    expect_error(play_entry, "80000021h");
    expect_error(play_unknown, "exit 4711");
    expect_error(play_fault, "free memory");
    expect_error(play_nosys, "KVM_RUN: Function not implemented");
}

static int play_bus(struct fake *f, struct kvm_run *run)
{
    run->exit_reason = f->runs & 1 ? KVM_EXIT_HLT : KVM_EXIT_SYSTEM_EVENT;
    run->system_event.type = KVM_SYSTEM_EVENT_CRASH;
    if (f->runs == 100)
        run->exit_reason = KVM_EXIT_SHUTDOWN;
    return 0;
}

static void shutdown_is_a_shutdown(void **state)
{
    struct kvm_rig r;
    struct fake f;
    fake_play(&f, &r, play_bus);
    assert_int_equal(run_fake(&f).exit, CPU_EXIT_SHUTDOWN);
    assert_int_equal(f.runs, 100);
    assert_int_equal(run_fake(&f).exit, CPU_EXIT_SHUTDOWN);
    assert_int_equal(f.runs, 100);
    rig_fini(&r);
}

/* ---- interrupts ---- */

static bool has_gsi(const struct fake *f, uint32_t gsi)
{
    for (uint32_t i = 0; i < f->entries; i++)
        if (f->table[i] == gsi)
            return true;
    return false;
}

static void one_route_is_refused(void **state)
{
    struct kvm_rig r;
    struct fake f;
    struct remap remap;
    struct msi_msg m = {.addr = 0xfee00000, .data = 0x41};
    fake_init(&f, &r);
    fake_make(&f);
    remap_init(&remap, true);
    unsigned gsi[4];
    for (unsigned i = 0; i < 4; i++) {
        gsi[i] = (unsigned)kvm_gsi_alloc(r.vm);
        assert_true(kvm_gsi_route(r.vm, gsi[i], &remap, m, REQUESTER_ID(8)));
        if (i == 0)
            assert_int_equal(kvm_gsi_commit(r.vm), 0);
    }
    f.bad_gsi = (int)gsi[2];
    assert_int_equal(kvm_gsi_commit(r.vm), 0);
    assert_true(has_gsi(&f, gsi[0]) && has_gsi(&f, gsi[1]) && has_gsi(&f, gsi[3]));
    assert_false(has_gsi(&f, gsi[2]));
    assert_int_equal(f.entries, 3);
    f.bad_gsi = -1;
    assert_true(kvm_gsi_route(r.vm, gsi[2], &remap, m, REQUESTER_ID(8)));
    assert_int_equal(kvm_gsi_commit(r.vm), 0);
    assert_int_equal(f.entries, 4);
    rig_fini(&r);
}

static void no_routes_at_all(void **state)
{
    struct kvm_rig r;
    struct fake f;
    struct irq irq = {.dest = 300, .vector = 0x41, .level = 1, .assert_ = 1};
    fake_init(&f, &r);
    fake_make(&f);
    struct irq_port port = engine_kvm.port(r.vm);
    f.request = KVM_SET_GSI_ROUTING;
    f.rc = -ENOMEM;
    port.pin(port.opaque, 5, &irq);
    port.pin(port.opaque, 500, &irq);
    assert_int_equal(port.deliver(port.opaque, irq), 0);
    assert_int_equal(f.entries, 0);
    port.pin(port.opaque, 5, NULL);
    port.pin(port.opaque, 6, &irq);
    port.deliver(port.opaque, irq);
    assert_true(has_gsi(&f, 6) && f.entries == 1);
    rig_fini(&r);
}

static void messages_are_refused(void **state)
{
    static const int errors[] = {-EINVAL, -EPERM, -ENXIO, -EINTR};
    struct kvm_rig r;
    struct fake f;
    fake_init(&f, &r);
    fake_make(&f);
    struct irq_port port = engine_kvm.port(r.vm);
    f.request = KVM_SIGNAL_MSI;
    for (unsigned i = 0; i < ARRAY_SIZE(errors); i++) {
        f.rc = errors[i];
        f.seen = 0;
        assert_int_equal(port.deliver(port.opaque, (struct irq){.dest = 1, .vector = 0x41, .assert_ = 1}), 0);
    }
    rig_fini(&r);
}

/* ---- state ---- */

static int nothing_works(void *opaque, int fd, unsigned long request, uintptr_t arg)
{
    return -EIO;
}

static void state_without_a_kernel(void **state)
{
    struct kvm_rig r;
    struct fake f;
    struct cpu_state s, back;
    struct cpu_apic a;
    struct err e = {""};
    struct engine_stats st;
    fake_init(&f, &r);
    fake_make(&f);
    f.sys.ioctl = nothing_works;
    cpu_state_reset(&s, false);
    s.gpr[RAX] = 0x1234;
    engine_kvm.set_state(rig_vcpu(&r, 3), &s);
    engine_kvm.get_state(rig_vcpu(&r, 3), &back);
    assert_int_equal(back.gpr[RAX], 0x1234);
    struct cpu_run run = run_fake(&f);
    assert_int_equal(run.exit, CPU_EXIT_ERROR);
    assert_non_null(strstr(run.err, "KVM_GET_SREGS"));
    engine_kvm.get_apic(rig_vcpu(&r, 3), &a);
    assert_false(engine_kvm.set_apic(rig_vcpu(&r, 3), &a));
    assert_true(engine_kvm.apic_reset(r.vm, &e) < 0);
    assert_non_null(strstr(e.msg, "vCPU 0"));
    e.msg[0] = 0;
    assert_true(engine_kvm.dirty_track(r.vm, true, &e) < 0 && e.msg[0]);
    engine_kvm.stats(r.vm, &st);
    assert_int_equal(st.exits, 0);
    rig_fini(&r);
}

static void probing(void **state)
{
    struct kvm_probe p = {.open_errno = EACCES};
    struct err e = {""};
    assert_int_equal(kvm_probe_check(&p, 1, 0, &e), -EACCES);
    assert_non_null(strstr(e.msg, "usermod -aG kvm"));
    p = (struct kvm_probe){.api_version = KVM_API_VERSION, .max_vcpus = 1024, .max_vcpu_ids = 4096};
    e.msg[0] = 0;
    assert_int_equal(kvm_probe_check(&p, 1024, 4095, &e), 0);
    assert_int_equal(kvm_probe_check(&p, 1025, 4095, &e), -E2BIG);
    assert_non_null(strstr(e.msg, "at most 1024"));
    e.msg[0] = 0;
    assert_int_equal(kvm_probe_check(&p, 2, 4096, &e), -E2BIG);
    assert_non_null(strstr(e.msg, "IDs up to 4095"));
    e.msg[0] = 0;
    p.x2apic_errno = ENOTSUP;
    assert_int_equal(kvm_probe_check(&p, 2, 254, &e), 0);
    assert_int_equal(kvm_probe_check(&p, 2, 255, &e), -ENOTSUP);
    kvm_probe(&p); /* whatever it finds */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_call_fails),
        cmocka_unit_test(no_device),
        cmocka_unit_test(creation_is_interrupted),
        cmocka_unit_test(the_kth_vcpu),
        cmocka_unit_test(interrupts_without_end),
        cmocka_unit_test(accesses_without_end),
        cmocka_unit_test(errors_are_told),
        cmocka_unit_test(shutdown_is_a_shutdown),
        cmocka_unit_test(one_route_is_refused),
        cmocka_unit_test(no_routes_at_all),
        cmocka_unit_test(messages_are_refused),
        cmocka_unit_test(state_without_a_kernel),
        cmocka_unit_test(probing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
