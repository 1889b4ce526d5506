/* The CPU model: what CPUID answers, and the -cpu flags that change it.
 *
 * The model is built once and then constant; a leaf that depends on the vCPU (APIC ID, x2APIC ID, OSXSAVE) takes it as
 * an argument. Choices and their reasons: docs of cpuid.c.
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
    uint32_t std1_ecx, std1_edx; /* leaf 1 */
    uint32_t std7_ebx, std7_ecx, std7_edx;
    uint32_t std7_1_eax;         /* leaf 7 subleaf 1: fast short string operations */
    uint32_t std7_2_edx;         /* leaf 7, subleaf 2 */
    uint32_t ext1_ecx, ext1_edx; /* leaf 80000001h */
    uint32_t std6_eax;           /* leaf 6: ARAT */
    uint32_t ext7_edx;           /* leaf 80000007h: invariant TSC */
    uint32_t signature;          /* leaf 1 EAX: family, model, stepping */
    uint32_t kvm_features;       /* leaf KVM base + 1 EAX; 0: no KVM leaves */
    uint32_t hv_stack;           /* leaf 40000082h EAX, Hyper-V's virtualisation stack */
    uint32_t hv_recommend;       /* leaf 40000004h EAX; both 0: no Hyper-V leaves */
    uint32_t xen_features;       /* leaf Xen base + 4 EAX; 0: no Xen leaves */
    uint32_t ext_dest_asked;     /* enum cpuid_ext_dest: switched on by name */
    bool hypervisor;             /* leaf 1 ECX[31] and the 4000000xh leaves */
    uint32_t tsc_khz;            /* rate of the TSC that leaves 15h, 16h and 40000010h tell; 0: 1 GHz */
    uint8_t phys_bits;           /* MAXPHYADDR */
    uint64_t arch_capabilities;  /* MSR 10Ah */
    char vendor[13];
    char brand[49];
};

struct cpuid_regs {
    uint32_t eax, ebx, ecx, edx;
};

/* Interfaces that can promise a guest 15-bit destination IDs in messages. */
enum cpuid_ext_dest { CPUID_EXT_DEST_KVM = 1, CPUID_EXT_DEST_HV = 2, CPUID_EXT_DEST_XEN = 4 };

/* What one vCPU adds to the model's answer. */
struct cpuid_cpu {
    apic_id_t id;
    uint64_t cr4, xcr0;
    bool apic_enabled; /* APIC_BASE.EN */
};

/* ---- lifecycle ---- */
/* Fill `m` for -cpu `spec` ("max", "qemu64", "host", "NAME,flag=on,flag=off,+flag,-flag"; NULL is "max"). An unknown
 * model, flag or value: -EINVAL and a line that names the nearest known one; a flag that exists and can't be had
 * here: -ENOTSUP. */
int cpuid_model_init(struct cpuid_model *m, const char *spec, const struct cpu_topology *topo, uint32_t vcpus,
                     uint32_t max_apic_id, struct err *e);

/* What another engine can do, in place of the built-in one's abilities: only feature words, vendor, brand, signature
 * and phys_bits count. `gives` is what the model has unless flags say otherwise, `can` what they may add to that. */
struct cpuid_offer {
    const char *who; /* for messages: "this host's KVM" */
    struct cpuid_model can, gives;
};

/* cpuid_model_init() from an offer. All model names mean what the offer gives. */
int cpuid_model_init_from(struct cpuid_model *m, const struct cpuid_offer *o, const char *spec,
                          const struct cpu_topology *topo, uint32_t vcpus, uint32_t max_apic_id, struct err *e);

/* Which interfaces promise 15-bit destination IDs (enum cpuid_ext_dest bits). */
unsigned cpuid_ext_dest(const struct cpuid_model *m);
/* Take the promise back from every interface: the interrupt controllers can't keep it. */
void cpuid_withdraw_ext_dest(struct cpuid_model *m);

/* ---- any thread ---- */
void cpuid_query(const struct cpuid_model *m, const struct cpuid_cpu *cpu, uint32_t leaf, uint32_t subleaf,
                 struct cpuid_regs *out);
/* Print every -cpu flag name, one a line, with its leaf and bit (for -cpu help). */
void cpuid_print_flags(void (*line)(void *opaque, const char *text), void *opaque);

/* Feature tests engines use to decide what exists: bit of leaf 1 ECX etc. */
#define CPUID_1_ECX_X2APIC  (1u << 21)
#define CPUID_1_ECX_MOVBE   (1u << 22)
#define CPUID_1_ECX_POPCNT  (1u << 23)
#define CPUID_1_ECX_TSCDL   (1u << 24)
#define CPUID_1_ECX_XSAVE   (1u << 26)
#define CPUID_1_ECX_OSXSAVE (1u << 27)
#define CPUID_1_ECX_RDRAND  (1u << 30)
#define CPUID_1_ECX_HV      (1u << 31)

#define CPUID_1_EDX_VME  (1u << 1)
#define CPUID_1_EDX_DE   (1u << 2)
#define CPUID_1_EDX_PSE  (1u << 3)
#define CPUID_1_EDX_TSC  (1u << 4)
#define CPUID_1_EDX_PAE  (1u << 6)
#define CPUID_1_EDX_MCE  (1u << 7)
#define CPUID_1_EDX_APIC (1u << 9)
#define CPUID_1_EDX_SEP  (1u << 11)
#define CPUID_1_EDX_MTRR (1u << 12)
#define CPUID_1_EDX_PGE  (1u << 13)
#define CPUID_1_EDX_MCA  (1u << 14)
#define CPUID_1_EDX_PAT  (1u << 16)
#define CPUID_1_EDX_FXSR (1u << 24)
#define CPUID_1_EDX_SSE  (1u << 25)
#define CPUID_1_EDX_HTT  (1u << 28)

#define CPUID_7_EBX_FSGSBASE   (1u << 0)
#define CPUID_7_EBX_TSC_ADJUST (1u << 1)
#define CPUID_7_EBX_SMEP       (1u << 7)
#define CPUID_7_EBX_RDSEED     (1u << 18)
#define CPUID_7_ECX_UMIP       (1u << 2)
#define CPUID_7_ECX_WAITPKG    (1u << 5)
#define CPUID_7_ECX_RDPID      (1u << 22)
#define CPUID_7_EDX_SERIALIZE  (1u << 14)
#define CPUID_7_EDX_SPEC_CTRL  (1u << 26)
#define CPUID_7_EDX_ARCH_CAPS  (1u << 29)

#define CPUID_7_2_EDX_BHI_CTRL (1u << 4)

#define CPUID_EXT1_EDX_SYSCALL (1u << 11)
#define CPUID_EXT1_EDX_NX      (1u << 20)
#define CPUID_EXT1_EDX_PDPE1GB (1u << 26)
#define CPUID_EXT1_EDX_RDTSCP  (1u << 27)
#define CPUID_EXT1_EDX_LM      (1u << 29)

#define KVM_FEATURE_EXT_DEST_ID (1u << 15)
#define HV_STACK_EXT_DEST_ID    (1u << 2) /* 40000082h EAX: I/O APIC entries and messages hold 15-bit IDs */
#define HV_RECOMMEND_RELAXED    (1u << 5) /* 40000004h EAX: no watchdogs */
#define XEN_FEATURE_EXT_DEST_ID (1u << 5) /* Xen base + 4 EAX */

#endif
