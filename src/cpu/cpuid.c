/* What CPUID answers. SDM 2, "CPUID: CPU Identification".
 *
 * The CPU is a GenuineIntel of family 6 with Snow Ridge's number (Tremont). Intel, because Linux then drops the 10 ms
 * INIT delay; that number, because it is the newest of those without AVX (GCC's and LLVM's function multiversioning
 * picks by the number alone: a number of the big cores means AVX-512 clones), and because in Linux 6.1 and 6.12 no list
 * of vulnerable or quirky models has it that IA32_ARCH_CAPABILITIES' *_NO bits do not overrule, so there is no
 * page-table isolation and there are no retpolines (enhanced IBRS stands for them, and BHI_DIS_S for the loop that
 * would run at every system call: for a guest under a hypervisor Linux does not believe BHI_NO).
 *
 * Time is told three ways that agree, so that no guest calibrates: leaf 15h (1 GHz crystal, ratio 1), leaf 16h, leaf
 * 40000010h; with an invariant TSC, TSC_ADJUST and the TSC deadline timer. TPAUSE lets udelay() give up the CPU.
 *
 * Left out on purpose: MONITOR (Linux would idle in it and not use PV spinlocks), PCID, LA57 and SMAP (cost without
 * use), XSAVE and AVX (FXSAVE state only so far), VME and PSE-36 (nobody's need).
 */
#include "cpu/cpuid.h"

#include "base/bits.h"

enum {
    LEAF_MAX = 0x1f,
    LEAF_VIRT = 0x40000000,
    LEAF_VIRT_END = 0x40010000,
    LEAF_BLOCK = 0x100, /* each interface's leaves begin at a multiple of this past LEAF_VIRT */
    LEAF_EXT = 0x80000000,
    LEAF_EXT_MAX = 0x80000008
};

enum { LEVEL_SMT = 1, LEVEL_CORE = 2, LEVEL_DIE = 5 };

#define CRYSTAL_HZ 1000000000u
#define LINE_SIZE  64u
#define L3_SHARERS 64u /* threads that share an L3: keeps the guest's scheduler domains hierarchical */
#define LIN_BITS   48u

/* ---- topology: how many low bits of the x2APIC ID are below each level ---- */

static unsigned ceil_log2(uint32_t n)
{
    unsigned w = 0;
    while (w < 32 && (UINT64_C(1) << w) < n)
        w++;
    return w;
}

struct shifts {
    unsigned smt, core, pkg;
};

/* One socket is one package whatever IDs it has, so its shift covers the highest. */
static struct shifts shifts(const struct cpuid_model *m)
{
    struct shifts s;
    s.smt = ceil_log2(m->topo.threads);
    s.core = s.smt + ceil_log2(m->topo.cores);
    s.pkg = s.core + ceil_log2(m->topo.dies);
    if (m->topo.sockets <= 1 && s.pkg < ceil_log2(m->max_apic_id + 1))
        s.pkg = ceil_log2(m->max_apic_id + 1);
    if (m->topo.dies <= 1)
        s.core = s.pkg;
    return s;
}

static uint32_t per_package(const struct cpuid_model *m)
{
    return m->topo.threads * m->topo.cores * m->topo.dies;
}

static uint32_t clamp(uint32_t v, uint32_t max)
{
    return v < max ? v : max;
}

/* Leaves Bh and 1Fh. SDM 2, "INPUT EAX = 1FH: Returns V2 Extended Topology Information". */
static void topology(const struct cpuid_model *m, const struct cpuid_cpu *cpu, bool dies, uint32_t sub,
                     struct cpuid_regs *r)
{
    struct shifts s = shifts(m);
    bool die_level = dies && m->topo.dies > 1;
    r->ecx = sub & 0xff;
    r->edx = cpu->id.id;
    if (sub == 0) {
        r->eax = s.smt;
        r->ebx = m->topo.threads;
        r->ecx |= LEVEL_SMT << 8;
    } else if (sub == 1) {
        r->eax = die_level ? s.core : s.pkg;
        r->ebx = clamp(die_level ? m->topo.threads * m->topo.cores : per_package(m), 0xffff);
        r->ecx |= LEVEL_CORE << 8;
    } else if (sub == 2 && die_level) {
        r->eax = s.pkg;
        r->ebx = clamp(per_package(m), 0xffff);
        r->ecx |= LEVEL_DIE << 8;
    }
}

/* ---- caches ---- */

struct cache {
    uint8_t type, level; /* 1 data, 2 instruction, 3 unified */
    uint16_t ways;
    uint32_t sets;
};

static void cache(const struct cpuid_model *m, uint32_t sub, struct cpuid_regs *r)
{
    static const struct cache caches[] = {{1, 1, 12, 64}, {2, 1, 8, 64}, {3, 2, 16, 2048}, {3, 3, 16, 65536}};
    struct shifts s = shifts(m);
    if (sub >= ARRAY_SIZE(caches))
        return;
    const struct cache *c = &caches[sub];
    uint32_t sharers = c->level == 3 ? clamp(1u << clamp(s.pkg, 12), L3_SHARERS) : 1u << s.smt;
    uint32_t cores = clamp(1u << clamp(s.pkg - s.smt, 12), 64);
    r->eax = c->type | (uint32_t)c->level << 5 | 1u << 8 | (clamp(sharers, 4096) - 1) << 14 | (cores - 1) << 26;
    r->ebx = (LINE_SIZE - 1) | (uint32_t)(c->ways - 1) << 22;
    r->ecx = c->sets - 1;
}

/* ---- leaves ---- */

static uint32_t tsc_khz(const struct cpuid_model *m)
{
    return m->tsc_khz ? m->tsc_khz : CRYSTAL_HZ / 1000;
}

static void vendor(const struct cpuid_model *m, uint32_t max, struct cpuid_regs *r)
{
    r->eax = max;
    r->ebx = ld32(m->vendor);
    r->edx = ld32(m->vendor + 4);
    r->ecx = ld32(m->vendor + 8);
}

static void features(const struct cpuid_model *m, const struct cpuid_cpu *cpu, struct cpuid_regs *r)
{
    struct shifts s = shifts(m);
    r->eax = m->signature;
    r->ebx = (cpu->id.id & 0xff) << 24 | clamp(1u << clamp(s.pkg, 16), 255) << 16 | (LINE_SIZE / 8) << 8;
    r->ecx = m->std1_ecx & ~(CPUID_1_ECX_HV | CPUID_1_ECX_OSXSAVE);
    r->ecx |= m->hypervisor ? CPUID_1_ECX_HV : 0;
    r->ecx |= m->std1_ecx & CPUID_1_ECX_XSAVE && cpu->cr4 >> 18 & 1 ? CPUID_1_ECX_OSXSAVE : 0;
    r->edx = m->std1_edx & ~CPUID_1_EDX_HTT;
    r->edx |= s.pkg ? CPUID_1_EDX_HTT : 0;
    if (!cpu->apic_enabled)
        r->edx &= ~CPUID_1_EDX_APIC;
}

static void basic(const struct cpuid_model *m, const struct cpuid_cpu *cpu, uint32_t leaf, uint32_t sub,
                  struct cpuid_regs *r)
{
    switch (leaf) {
    case 0:
        vendor(m, LEAF_MAX, r);
        break;
    case 1:
        features(m, cpu, r);
        break;
    case 2: /* "see leaf 4", and no TLB told of */
        r->eax = 0x00feff01;
        break;
    case 4:
        cache(m, sub, r);
        break;
    case 6:
        r->eax = m->std6_eax;
        break;
    case 7:
        if (sub == 0)
            *r = (struct cpuid_regs){.eax = 2, .ebx = m->std7_ebx, .ecx = m->std7_ecx, .edx = m->std7_edx};
        else if (sub == 1)
            r->eax = m->std7_1_eax;
        else if (sub == 2)
            r->edx = m->std7_2_edx;
        break;
    case 0xb:
        topology(m, cpu, false, sub, r);
        break;
    case 0x15: /* TSC rate = crystal * EBX / EAX; the crystal clocks the APIC timer */
        *r = (struct cpuid_regs){.eax = 1, .ebx = 1, .ecx = CRYSTAL_HZ};
        if (m->tsc_khz)
            *r = (struct cpuid_regs){.eax = CRYSTAL_HZ / 1000, .ebx = m->tsc_khz, .ecx = CRYSTAL_HZ};
        break;
    case 0x16: /* MHz: base, maximum, bus */
        *r = (struct cpuid_regs){.eax = tsc_khz(m) / 1000, .ebx = tsc_khz(m) / 1000, .ecx = 100};
        break;
    case 0x1f:
        topology(m, cpu, true, sub, r);
        break;
    default: /* 0Ah: no performance counters; 0Dh: no XSAVE */
        break;
    }
}

/* Linux, Documentation/virt/kvm/x86/cpuid.rst. EDX of leaf 1 holds hints; KVM_HINTS_REALTIME is never among them: it
 * would turn PV spinlocks off. */
static void kvm_leaf(const struct cpuid_model *m, uint32_t base, uint32_t n, struct cpuid_regs *r)
{
    switch (n) {
    case 0:
        *r = (struct cpuid_regs){base + 0x10, ld32("KVMK"), ld32("VMKV"), ld32("M\0\0")};
        break;
    case 1:
        r->eax = m->kvm_features;
        break;
    case 0x10: /* kHz: TSC, APIC timer */
        *r = (struct cpuid_regs){.eax = tsc_khz(m), .ebx = CRYSTAL_HZ / 1000};
        break;
    default:
        break;
    }
}

/* TLFS, "Feature and Interface Discovery". The interface is that of no privileges: recommendations and the
 * virtualisation stack's properties, and nothing that has an MSR or a hypercall. */
static void hv_leaf(const struct cpuid_model *m, uint32_t base, uint32_t n, struct cpuid_regs *r)
{
    switch (n) {
    case 0:
        *r = (struct cpuid_regs){base + 0x82, ld32("Micr"), ld32("osof"), ld32("t Hv")};
        break;
    case 1:
        r->eax = ld32("Hv#1");
        break;
    case 4:
        r->eax = m->hv_recommend;
        r->ebx = UINT32_MAX; /* spinlocks: never tell the hypervisor */
        break;
    case 5:
        r->eax = m->vcpus;
        break;
    case 0x80:
        *r = (struct cpuid_regs){base + 0x82, ld32("Micr"), ld32("osof"), ld32("t VS")};
        break;
    case 0x81:
        r->eax = ld32("VS#1");
        break;
    case 0x82:
        r->eax = m->hv_stack;
        break;
    default:
        break;
    }
}

/* Xen, public/arch-x86/cpuid.h. No hypercall pages, no PV features: HVM features alone. */
static void xen_leaf(const struct cpuid_model *m, uint32_t base, uint32_t n, struct cpuid_regs *r)
{
    switch (n) {
    case 0:
        *r = (struct cpuid_regs){base + 5, ld32("XenV"), ld32("MMXe"), ld32("nVMM")};
        break;
    case 1:
        r->eax = 4u << 16 | 17; /* the version whose leaf 4 has the bit */
        break;
    case 4:
        r->eax = m->xen_features;
        break;
    default:
        break;
    }
}

/* Hyper-V's leaves can only be at 40000000h; Linux takes the hypervisor it knows with the highest base, so that KVM's
 * come last. */
static void hypervisor(const struct cpuid_model *m, uint32_t leaf, struct cpuid_regs *r)
{
    static void (*const leaf_fn[])(const struct cpuid_model *, uint32_t, uint32_t,
                                   struct cpuid_regs *) = {hv_leaf, xen_leaf, kvm_leaf};
    const bool present[] = {m->hv_stack || m->hv_recommend, m->xen_features != 0, m->kvm_features != 0};
    uint32_t base = LEAF_VIRT;
    for (unsigned i = 0; i < ARRAY_SIZE(leaf_fn); i++) {
        if (!present[i])
            continue;
        if (leaf - base < LEAF_BLOCK) {
            leaf_fn[i](m, base, leaf - base, r);
            return;
        }
        base += LEAF_BLOCK;
    }
}

unsigned cpuid_ext_dest(const struct cpuid_model *m)
{
    return (m->kvm_features & KVM_FEATURE_EXT_DEST_ID ? CPUID_EXT_DEST_KVM : 0) |
           (m->hv_stack & HV_STACK_EXT_DEST_ID ? CPUID_EXT_DEST_HV : 0) |
           (m->xen_features & XEN_FEATURE_EXT_DEST_ID ? CPUID_EXT_DEST_XEN : 0);
}

void cpuid_withdraw_ext_dest(struct cpuid_model *m)
{
    m->kvm_features &= ~KVM_FEATURE_EXT_DEST_ID;
    m->hv_stack &= ~HV_STACK_EXT_DEST_ID;
    m->xen_features &= ~XEN_FEATURE_EXT_DEST_ID;
}

static void brand(const struct cpuid_model *m, uint32_t part, struct cpuid_regs *r)
{
    const char *b = m->brand + part * 16;
    *r = (struct cpuid_regs){ld32(b), ld32(b + 4), ld32(b + 8), ld32(b + 12)};
}

static void extended(const struct cpuid_model *m, uint32_t leaf, struct cpuid_regs *r)
{
    switch (leaf - LEAF_EXT) {
    case 0:
        if (ld32(m->vendor) == ld32("Auth"))
            vendor(m, LEAF_EXT_MAX, r);
        r->eax = LEAF_EXT_MAX;
        break;
    case 1:
        r->ecx = m->ext1_ecx;
        r->edx = m->ext1_edx;
        break;
    case 2:
    case 3:
    case 4:
        brand(m, leaf - LEAF_EXT - 2, r);
        break;
    case 6: /* L2: 2 MiB, 16 ways */
        r->ecx = 2048u << 16 | 8u << 12 | LINE_SIZE;
        break;
    case 7:
        r->edx = m->ext7_edx;
        break;
    case 8:
        r->eax = m->phys_bits | LIN_BITS << 8;
        break;
    default:
        break;
    }
}

void cpuid_query(const struct cpuid_model *m, const struct cpuid_cpu *cpu, uint32_t leaf, uint32_t subleaf,
                 struct cpuid_regs *out)
{
    *out = (struct cpuid_regs){0};
    bool virt = m->kvm_features || m->hv_stack || m->hv_recommend || m->xen_features;
    if (m->hypervisor && virt && leaf >= LEAF_VIRT && leaf < LEAF_VIRT_END)
        hypervisor(m, leaf, out);
    else if (leaf >= LEAF_EXT && leaf <= LEAF_EXT_MAX)
        extended(m, leaf, out);
    else if (leaf <= LEAF_MAX)
        basic(m, cpu, leaf, subleaf, out);
    else if (ld32(m->vendor) == ld32("Genu")) /* past the end, Intel's CPUs answer the last basic leaf */
        basic(m, cpu, LEAF_MAX, subleaf, out);
}
