#include "cpu/kvm/kvm.h"
#include "cpu/kvm/kvm_priv.h"

#include <cpuid.h>
#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <unistd.h>

static bool cpu_has_vmx_or_svm(void)
{
    unsigned a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d) && c >> 5 & 1)
        return true;
    return __get_cpuid(0x80000001, &a, &b, &c, &d) && c >> 2 & 1;
}

/* A CPU with the feature may still be driven by another back end than the one that uses it. */
static bool has_back_end(void)
{
    return !access("/sys/module/kvm_intel", F_OK) || !access("/sys/module/kvm_amd", F_OK);
}

static void probe_extensions(struct kvm_probe *p, const struct kvm_sys *s, int dev)
{
    int recommended = kvm_cap(s, dev, KVM_CAP_NR_VCPUS), max = kvm_cap(s, dev, KVM_CAP_MAX_VCPUS);
    int ids = kvm_cap(s, dev, KVM_CAP_MAX_VCPU_ID);
    if (!recommended)
        recommended = 4; /* api.rst: what old kernels mean by silence */
    p->max_vcpus = (uint32_t)(max ? max : recommended);
    p->max_vcpu_ids = ids ? (uint32_t)ids : p->max_vcpus;
}

static int try_enable(const struct kvm_sys *s, int dev, int vm, unsigned cap, uint64_t arg)
{
    return kvm_cap(s, dev, cap) ? -kvm_enable(s, vm, cap, arg) : ENOTSUP;
}

static void probe_machine(struct kvm_probe *p, const struct kvm_sys *s, int dev)
{
    int vm = kvm_io(s, dev, KVM_CREATE_VM, 0);
    if (vm < 0) {
        p->vm_errno = -vm;
        return;
    }
    p->split_errno = try_enable(s, dev, vm, KVM_CAP_SPLIT_IRQCHIP, KVM_PINS);
    p->x2apic_errno = try_enable(s, dev, vm, KVM_CAP_X2APIC_API,
                                 KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);
    close(vm);
}

bool kvm_has_hardware(void)
{
    return cpu_has_vmx_or_svm() && has_back_end();
}

void kvm_probe(struct kvm_probe *p)
{
    const struct kvm_sys *s = &kvm_sys_host;
    *p = (struct kvm_probe){.hardware = kvm_has_hardware()};
    int dev = s->open(s->opaque);
    if (dev < 0) {
        p->open_errno = -dev;
        return;
    }
    int version = kvm_io(s, dev, KVM_GET_API_VERSION, 0);
    p->api_version = version < 0 ? 0 : version;
    if (p->api_version == KVM_API_VERSION) {
        probe_extensions(p, s, dev);
        probe_machine(p, s, dev);
    }
    close(dev);
}

static int check_device(const struct kvm_probe *p, struct err *e)
{
    switch (p->open_errno) {
    case 0:
        break;
    case EACCES:
    case EPERM:
        return err_set(e, -p->open_errno,
                       "/dev/kvm: %s: join the group that owns it (usermod -aG kvm USER), or use "
                       "-accel soft",
                       strerror(p->open_errno));
    default:
        return err_set(e, -p->open_errno, "/dev/kvm: %s: load kvm_intel or kvm_amd, or use -accel soft",
                       strerror(p->open_errno));
    }
    if (p->api_version != KVM_API_VERSION)
        return err_set(e, -ENOTSUP,
                       "/dev/kvm speaks version %d of its interface, and only %d is known: use -accel soft",
                       p->api_version, KVM_API_VERSION);
    if (p->vm_errno)
        return err_set(e, -p->vm_errno, "KVM makes no machine: %s: use -accel soft", strerror(p->vm_errno));
    return 0;
}

int kvm_probe_check(const struct kvm_probe *p, uint32_t vcpus, uint32_t max_id, struct err *e)
{
    int rc = check_device(p, e);
    if (rc)
        return rc;
    if (vcpus > p->max_vcpus)
        return err_set(e, -E2BIG,
                       "%u CPUs: this host's KVM has at most %u (KVM_CAP_MAX_VCPUS): lower -smp, or use "
                       "-accel soft",
                       vcpus, p->max_vcpus);
    if (max_id >= p->max_vcpu_ids)
        return err_set(e, -E2BIG,
                       "APIC ID %u: this host's KVM has IDs up to %u (KVM_CAP_MAX_VCPU_ID): choose a "
                       "topology without holes, or use -accel soft",
                       max_id, p->max_vcpu_ids - 1);
    if (max_id > 254 && (p->split_errno || p->x2apic_errno))
        return err_set(e, -ENOTSUP,
                       "APIC ID %u: this host's KVM has no %s, without which IDs end at 254: use "
                       "-accel soft",
                       max_id, p->split_errno ? "split irqchip" : "32-bit x2APIC IDs");
    return 0;
}
