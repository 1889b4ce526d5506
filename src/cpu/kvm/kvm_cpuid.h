/* From KVM_GET_SUPPORTED_CPUID to what KVM_SET_CPUID2 is told of each vCPU. Private to cpu/kvm. */
#ifndef HEC_CPU_KVM_KVM_CPUID_H
#define HEC_CPU_KVM_KVM_CPUID_H

#include "cpu/cpuid.h"
#include "cpu/kvm/kvm_sys.h"

#include <linux/kvm.h>

#define KVM_CPUID_MAX 256 /* as many entries as KVM takes */

struct kvm_cpuid_table {
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 e[KVM_CPUID_MAX];
};

/* What KVM supports on this host. -errno. */
int kvm_cpuid_supported(const struct kvm_sys *s, int dev, struct kvm_cpuid_table *out);
/* All that one vCPU is to see: KVM's leaves, the model's features, topology and hypervisor leaves. */
void kvm_cpuid_build(const struct kvm_cpuid_table *supported, const struct cpuid_model *m, apic_id_t id,
                     struct kvm_cpuid_table *out);

#endif
