/* Making a machine: capabilities in the order the kernel wants them, memory, then vCPUs one by one. Each failure is one
 * line that says what was asked for and what to do; what was made until then is closed again. */
#include "cpu/kvm/kvm.h"
#include "cpu/kvm/kvm_priv.h"
#include "x86/cpu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define TSS_GPA          UINT64_C(0xfeffd000) /* VMX without unrestricted guests wants 3 pages for real mode, */
#define IDENTITY_MAP_GPA UINT64_C(0xfeffc000) /* and one for an identity map; nothing else is there */
#define CREATE_TRIES     100                  /* KVM_CREATE_VM may be interrupted by any signal */
#define FILES_SPARE      64

/* ---- what must be there ---- */

static int check_irqchip(const struct engine_config *c, struct err *e)
{
    if (c->irqchip == ENGINE_IRQCHIP_OFF)
        return err_set(e, -EINVAL,
                       "kernel-irqchip=off: with KVM the local APICs are the kernel's: use "
                       "kernel-irqchip=split or on, or -accel soft");
    return 0;
}

static bool parameter_is_off(const char *path)
{
    char c = 'Y';
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return true;
    if (read(fd, &c, 1) != 1)
        c = 'Y';
    close(fd);
    return c == 'N' || c == '0';
}

/* KVM has this for the whole host, not for a machine. */
static int check_apicv(const struct engine_config *c, struct err *e)
{
    if (!c->apicv_off || (parameter_is_off("/sys/module/kvm_intel/parameters/enable_apicv") &&
                          parameter_is_off("/sys/module/kvm_amd/parameters/avic")))
        return 0;
    return err_set(e, -EINVAL,
                   "apicv=off: KVM has it for the whole host only: load kvm_intel with enable_apicv=0 or "
                   "kvm_amd with avic=0, or use -accel soft");
}

static int open_device(struct kvm_vm *vm, struct err *e)
{
    static const struct {
        unsigned cap;
        const char *name;
    } wanted[] = {{KVM_CAP_IRQCHIP, "in-kernel interrupt controllers"},
                  {KVM_CAP_SIGNAL_MSI, "KVM_SIGNAL_MSI"},
                  {KVM_CAP_IRQ_ROUTING, "GSI routing"},
                  {KVM_CAP_IMMEDIATE_EXIT, "immediate_exit (Linux 4.13)"},
                  {KVM_CAP_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS"}};
    vm->dev = vm->sys->open(vm->sys->opaque);
    if (vm->dev < 0)
        return err_set(e, vm->dev, "/dev/kvm: %s: see hecaton doctor, or use -accel soft", strerror(-vm->dev));
    if (kvm_io(vm->sys, vm->dev, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
        return err_set(e, -ENOTSUP, "/dev/kvm speaks another version of its interface than %d: use -accel soft",
                       KVM_API_VERSION);
    for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++)
        if (!kvm_cap(vm->sys, vm->dev, wanted[i].cap))
            return err_set(e, -ENOTSUP, "this host's KVM has no %s: use a newer kernel or -accel soft", wanted[i].name);
    return 0;
}

/* A vCPU is a file, and the usual limit of 1024 is a soft one. True: there is room for `files` and for some more. */
static bool raise_file_limit(rlim_t files)
{
    struct rlimit r;
    rlim_t want = files + FILES_SPARE;
    if (getrlimit(RLIMIT_NOFILE, &r))
        return false;
    if (r.rlim_cur >= want)
        return true;
    r.rlim_cur = r.rlim_max < want ? r.rlim_max : want;
    return !setrlimit(RLIMIT_NOFILE, &r) && r.rlim_cur >= want;
}

/* ---- the machine ---- */

static int create_machine(struct kvm_vm *vm, struct err *e)
{
    int fd = -EINTR;
    for (unsigned i = 0; i < CREATE_TRIES && fd == -EINTR; i++)
        fd = kvm_io(vm->sys, vm->dev, KVM_CREATE_VM, 0);
    if (fd < 0)
        return err_set(e, fd, "KVM makes no machine: %s: another hypervisor may have the CPU, or memory is short",
                       strerror(-fd));
    vm->fd = fd;
    return 0;
}

static uint32_t max_id(const struct engine_config *c)
{
    uint32_t max = 0;
    for (uint32_t i = 0; i < c->vcpus; i++)
        max = c->ids[i].id > max ? c->ids[i].id : max;
    return max;
}

/* Tells the kernel how large its tables have to be. Kernels before 6.0 do not take it. */
static int limit_ids(struct kvm_vm *vm, struct err *e)
{
    uint32_t max = max_id(&vm->cfg);
    int ids = kvm_cap(vm->sys, vm->fd, KVM_CAP_MAX_VCPU_ID),
        rc = kvm_enable(vm->sys, vm->fd, KVM_CAP_MAX_VCPU_ID, max + 1);
    if (rc < 0 && ids && max >= (uint32_t)ids)
        return err_set(e, -E2BIG,
                       "APIC ID %u: this host's KVM has IDs up to %d (KVM_CAP_MAX_VCPU_ID): choose a "
                       "topology without holes, or use -accel soft",
                       max, ids - 1);
    return 0;
}

static int reserve_pages(struct kvm_vm *vm, struct err *e)
{
    uint64_t identity = IDENTITY_MAP_GPA;
    int rc = 0;
    if (kvm_cap(vm->sys, vm->dev, KVM_CAP_SET_IDENTITY_MAP_ADDR))
        rc = kvm_vm_iop(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    if (rc >= 0 && kvm_cap(vm->sys, vm->dev, KVM_CAP_SET_TSS_ADDR))
        rc = kvm_io(vm->sys, vm->fd, KVM_SET_TSS_ADDR, TSS_GPA);
    return rc < 0 ? err_set(e, rc, "KVM takes no pages for real mode: %s", strerror(-rc)) : 0;
}

static int make_irqchip(struct kvm_vm *vm, struct err *e)
{
    bool split = vm->cfg.irqchip == ENGINE_IRQCHIP_SPLIT;
    int rc = split ? kvm_enable(vm->sys, vm->fd, KVM_CAP_SPLIT_IRQCHIP, KVM_PINS)
                   : kvm_io(vm->sys, vm->fd, KVM_CREATE_IRQCHIP, 0);
    if (rc < 0)
        return err_set(e, rc, "kernel-irqchip=%s: KVM: %s: use kernel-irqchip=%s", split ? "split" : "on",
                       strerror(-rc), split ? "on (no IDs past 254), or -accel soft" : "split");
    return 0;
}

static int wide_ids(struct kvm_vm *vm, struct err *e)
{
    uint64_t flags = (vm->cfg.x2apic_8bit_ids ? 0 : KVM_X2APIC_API_USE_32BIT_IDS) |
                     (vm->cfg.x2apic_broadcast_quirk ? 0 : KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);
    int rc = flags ? kvm_enable(vm->sys, vm->fd, KVM_CAP_X2APIC_API, flags) : 0;
    vm->wide_ids = rc >= 0 && flags & KVM_X2APIC_API_USE_32BIT_IDS;
    if (rc < 0 && max_id(&vm->cfg) > 254)
        return err_set(e, rc,
                       "APIC IDs past 254: KVM has no 32-bit x2APIC IDs (KVM_CAP_X2APIC_API): %s: use -accel soft",
                       strerror(-rc));
    return 0;
}

static int set_memory(struct kvm_vm *vm, struct err *e)
{
    const struct ram *r = vm->cfg.ram;
    int rc = kvm_slots_set(vm, false);
    return rc < 0 ? err_set(e, rc, "KVM takes no %llu MiB of guest memory: %s: lower -m",
                            (unsigned long long)((r->low_size + r->high_size) >> 20), strerror(-rc))
                  : 0;
}

/* Behaviour that a kernel may lack without harm. */
static int set_options(struct kvm_vm *vm, struct err *e)
{
    const struct kvm_sys *s = vm->sys;
    kvm_io(s, vm->fd, KVM_SET_BOOT_CPU_ID, vm->cfg.ids[0].id); /* fails only after a vCPU was made */
    if (trace_wants(vm->cfg.trace, TRACE_MSR) && kvm_cap(s, vm->dev, KVM_CAP_X86_USER_SPACE_MSR))
        kvm_enable(s, vm->fd, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL);
    if (kvm_cap(s, vm->dev, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE)
        vm->has_clear_dirty =
            kvm_enable(s, vm->fd, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) >= 0;
    vm->has_xcrs = kvm_cap(s, vm->dev, KVM_CAP_XCRS);
    /* the statistics of a vCPU are another file, which must not take the place of a vCPU */
    vm->has_stats = kvm_cap(s, vm->dev, KVM_CAP_BINARY_STATS_FD) && raise_file_limit(2 * (rlim_t)vm->cfg.vcpus);
    int xsave = kvm_cap(s, vm->fd, KVM_CAP_XSAVE2);
    vm->xsave_size = !kvm_cap(s, vm->dev, KVM_CAP_XSAVE) ? 0 : max_u64(sizeof(struct kvm_xsave), (uint64_t)xsave);
    int size = kvm_io(s, vm->dev, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof(struct kvm_run))
        return err_set(e, size < 0 ? size : -EPROTO, "KVM does not say how it shares a vCPU's state");
    vm->run_size = (size_t)size;
    return 0;
}

/* ---- vCPUs ---- */

static const char *vcpu_remedy(int rc)
{
    switch (-rc) {
    case EEXIST:
        return "another vCPU has that ID";
    case EINVAL:
        return "KVM's limits are KVM_CAP_MAX_VCPUS and KVM_CAP_MAX_VCPU_ID (hecaton doctor shows them): lower -smp, or "
               "use -accel soft";
    case ENOMEM:
    case ENOSPC:
        return "lower -smp, or free memory";
    case EMFILE:
    case ENFILE:
        return "a vCPU is a file: raise ulimit -n";
    default:
        return "use -accel soft";
    }
}

static int vcpu_error(const struct kvm_vcpu *v, int rc, const char *what, struct err *e)
{
    return err_set(e, rc, "vCPU %u of %u (APIC ID %u): %s: %s: %s", v->idx.i, v->vm->cfg.vcpus, v->id.id, what,
                   strerror(-rc), vcpu_remedy(rc));
}

static void learn_tsc(struct kvm_vm *vm, const struct kvm_vcpu *v)
{
    int khz = kvm_io(vm->sys, v->fd, KVM_GET_TSC_KHZ, 0);
    struct kvm_device_attr a = {.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET};
    vm->model.tsc_khz = khz > 0 ? (uint32_t)khz : 0;
    vm->has_tsc_offset = kvm_iop(vm->sys, v->fd, KVM_HAS_DEVICE_ATTR, &a) >= 0;
}

static int make_vcpu(struct kvm_vcpu *v, const struct kvm_cpuid_table *supported, struct kvm_cpuid_table *scratch,
                     struct err *e)
{
    struct kvm_vm *vm = v->vm;
    void *shared;
    v->fd = kvm_io(vm->sys, vm->fd, KVM_CREATE_VCPU, v->id.id);
    if (v->fd < 0)
        return vcpu_error(v, v->fd, "KVM_CREATE_VCPU", e);
    int rc = vm->sys->map(vm->sys->opaque, v->fd, vm->run_size, &shared);
    if (rc < 0)
        return vcpu_error(v, rc, "mapping its state", e);
    v->run = shared;
    if (v->idx.i == 0)
        learn_tsc(vm, v);
    kvm_cpuid_build(supported, &vm->model, v->id, scratch);
    rc = kvm_vcpu_iop(v, KVM_SET_CPUID2, scratch);
    if (rc < 0)
        return vcpu_error(v, rc, "KVM_SET_CPUID2", e);
    if (vm->model.std7_edx & CPUID_7_EDX_ARCH_CAPS)
        kvm_msr_set(v, MSR_ARCH_CAPS, vm->model.arch_capabilities);
    kvm_stats_open(v);
    kvm_apic_first(v);
    return 0;
}

static int make_vcpus(struct kvm_vm *vm, struct err *e)
{
    struct kvm_cpuid_table *t = malloc(2 * sizeof *t);
    int rc = t ? kvm_cpuid_supported(vm->sys, vm->dev, &t[0]) : -ENOMEM;
    if (rc)
        err_set(e, rc, "KVM does not say what it supports (KVM_GET_SUPPORTED_CPUID): %s", strerror(-rc));
    for (uint32_t i = 0; i < vm->cfg.vcpus && !rc; i++)
        rc = make_vcpu(&vm->vcpu[i], &t[0], &t[1], e);
    free(t);
    return rc;
}

/* ---- lifecycle ---- */

static void vcpu_fini(struct kvm_vcpu *v)
{
    if (v->run)
        munmap(v->run, v->vm->run_size);
    if (v->stats_fd >= 0)
        close(v->stats_fd);
    if (v->fd >= 0)
        close(v->fd);
}

static void kvm_vm_destroy(struct engine_vm *evm)
{
    struct kvm_vm *vm = kvm_vm_of(evm);
    if (!vm)
        return;
    for (uint32_t i = 0; vm->vcpu && i < vm->cfg.vcpus; i++)
        vcpu_fini(&vm->vcpu[i]);
    kvm_irq_fini(vm);
    kvm_dirty_fini(vm);
    pthread_mutex_destroy(&vm->stats_lock);
    if (vm->fd >= 0)
        close(vm->fd);
    if (vm->dev >= 0)
        close(vm->dev);
    kvm_inhibit_close(vm);
    free(vm->vcpu);
    free((void *)vm->cfg.ids);
    free(vm);
}

static int allocate(struct kvm_vm *vm, const struct engine_config *c, struct err *e)
{
    apic_id_t *ids = malloc(c->vcpus * sizeof *ids);
    vm->cfg.ids = ids;
    vm->vcpu = calloc(c->vcpus, sizeof *vm->vcpu);
    if (!ids || !vm->vcpu)
        return err_set(e, -ENOMEM, "out of memory for %u vCPUs", c->vcpus);
    memcpy(ids, c->ids, c->vcpus * sizeof *ids);
    for (uint32_t i = 0; i < c->vcpus; i++) {
        vm->vcpu[i] = (struct kvm_vcpu){.vm = vm, .idx = VCPU_IDX(i), .id = ids[i], .fd = -1, .stats_fd = -1};
        cpu_state_reset(&vm->vcpu[i].kept, i == 0);
    }
    return kvm_irq_init(vm, e);
}

static int build(struct kvm_vm *vm, struct err *e)
{
    static int (*const step[])(struct kvm_vm *, struct err *) = {
        create_machine, limit_ids, reserve_pages, make_irqchip, wide_ids, set_memory, set_options, make_vcpus};
    int rc = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(step) && !rc; i++)
        rc = step[i](vm, e);
    return rc;
}

int kvm_vm_create_on(const struct kvm_sys *sys, const struct engine_config *c, struct engine_vm **out, struct err *e)
{
    int rc = check_irqchip(c, e);
    if (!rc)
        rc = check_apicv(c, e);
    if (rc)
        return rc;
    struct kvm_vm *vm = calloc(1, sizeof *vm);
    if (!vm)
        return err_set(e, -ENOMEM, "out of memory for the engine");
    *vm = (struct kvm_vm){.cfg = *c, .model = *c->cpuid, .sys = sys, .dev = -1, .fd = -1, .inhibit_trace = -1};
    vm->cfg.ids = NULL;
    pthread_mutex_init(&vm->stats_lock, NULL);
    kvm_dirty_init(vm);
    rc = open_device(vm, e);
    if (!rc)
        rc = allocate(vm, c, e);
    if (!rc)
        rc = kvm_kick_init(e);
    if (!rc) {
        raise_file_limit(c->vcpus);
        kvm_inhibit_open(vm);
        rc = build(vm, e);
    }
    if (!rc)
        rc = kvm_irq_start(vm, e);
    if (rc)
        kvm_vm_destroy((struct engine_vm *)vm);
    else
        *out = (struct engine_vm *)vm;
    return rc;
}

static int kvm_vm_create(const struct engine_config *c, struct engine_vm **out, struct err *e)
{
    int rc = kvm_vm_create_on(&kvm_sys_host, c, out, e);
    if (!rc)
        kvm_vm_of(*out)->software = !kvm_has_hardware();
    return rc;
}

static struct engine_vcpu *kvm_vcpu(struct engine_vm *vm, vcpu_idx_t idx)
{
    return (struct engine_vcpu *)&kvm_vm_of(vm)->vcpu[idx.i];
}

static unsigned kvm_attn(const struct engine_vcpu *v)
{
    return atomic_load(&((const struct kvm_vcpu *)v)->attn);
}

static void kvm_set_eoi(struct engine_vm *vm, void (*eoi)(void *opaque, uint8_t vector), void *opaque)
{
    kvm_vm_of(vm)->eoi = eoi;
    kvm_vm_of(vm)->eoi_opaque = opaque;
}

static void kvm_vcpu_trim(struct engine_vcpu *v)
{
}

const struct engine_ops engine_kvm = {
    .name = "kvm",
    .traits = ENGINE_OWN_APICS | ENGINE_OWN_THREADS,
    .vm_create = kvm_vm_create,
    .vm_destroy = kvm_vm_destroy,
    .vcpu = kvm_vcpu,
    .apic_reset = kvm_apic_reset,
    .port = kvm_port,
    .set_eoi = kvm_set_eoi,
    .intr = kvm_intr,
    .gsi = kvm_gsi,
    .kick = kvm_kick,
    .attn = kvm_attn,
    .ram_written = kvm_ram_written,
    .vcpu_run = kvm_vcpu_run,
    .get_state = kvm_get_state,
    .set_state = kvm_set_state,
    .get_apic = kvm_get_apic,
    .set_apic = kvm_set_apic,
    .vcpu_trim = kvm_vcpu_trim,
    .stats = kvm_stats_get,
    .dirty_track = kvm_dirty_track,
    .dirty_fetch = kvm_dirty_fetch,
};
