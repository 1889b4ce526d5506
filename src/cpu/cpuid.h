/* The CPU model: what CPUID answers, and the -cpu flags that change it.
 *
 * The model is built once and then constant; a leaf that depends on the vCPU (APIC ID, x2APIC ID, OSXSAVE) takes it as an
 * argument. Choices and their reasons: docs of cpuid.c.
 */
#ifndef HEC_CPU_CPUID_H
#define HEC_CPU_CPUID_H

#include "base/err.h"
#include "base/types.h"

struct cpu_topology {
    uint32_t sockets, dies, cores, threads; /* threads a core, cores a die, dies a socket */
};

struct cpuid_model {
    struct cpu_topology topo;
    uint32_t vcpus;
    uint32_t max_apic_id;
    uint32_t std1_ecx, std1_edx;      /* leaf 1 */
    uint32_t std7_ebx, std7_ecx, std7_edx;
    uint32_t ext1_ecx, ext1_edx;      /* leaf 80000001h */
    uint32_t kvm_features;            /* leaf 40000001h EAX; 0 with `hypervisor` off */
    bool hypervisor;                  /* leaf 1 ECX[31] and the 4000000xh leaves */
    uint8_t phys_bits;                /* MAXPHYADDR */
    uint64_t arch_capabilities;       /* MSR 10Ah */
    char vendor[13];
    char brand[49];
};

struct cpuid_regs {
    uint32_t eax, ebx, ecx, edx;
};

/* What one vCPU adds to the model's answer. */
struct cpuid_cpu {
    apic_id_t id;
    uint64_t cr4, xcr0;
    bool apic_enabled; /* APIC_BASE.EN */
};

/* ---- lifecycle ---- */
/* Fill `m` for -cpu `spec` ("max", "qemu64", "host", "NAME,flag=on,flag=off,+flag,-flag"; NULL is "max"). An unknown
 * model, flag or value: -EINVAL and a line that names the nearest known one. */
int cpuid_model_init(struct cpuid_model *m, const char *spec, const struct cpu_topology *topo, uint32_t vcpus,
                     uint32_t max_apic_id, struct err *e);

/* ---- any thread ---- */
void cpuid_query(const struct cpuid_model *m, const struct cpuid_cpu *cpu, uint32_t leaf, uint32_t subleaf,
                 struct cpuid_regs *out);
/* Print every -cpu flag name, one a line, with its leaf and bit (for -cpu help). */
void cpuid_print_flags(void (*line)(void *opaque, const char *text), void *opaque);

/* Feature tests engines use to decide what exists: bit of leaf 1 ECX etc. */
#define CPUID_1_ECX_X2APIC  (1u << 21)
#define CPUID_1_ECX_TSCDL   (1u << 24)
#define CPUID_1_ECX_HV      (1u << 31)
#define KVM_FEATURE_EXT_DEST_ID (1u << 15)

#endif
