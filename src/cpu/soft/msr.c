#include "cpu/soft/msr.h"

#include "cpu/soft/mmu.h"
#include "cpu/soft/walk.h"

/* MSRs named nowhere else. */
enum {
    MSR_P5_MC_ADDR = 0x0,
    MSR_P5_MC_TYPE = 0x1,
    MSR_PV_LOW_FIRST = 0x11,
    MSR_PV_LOW_LAST = 0x12,
    MSR_MTRR_PHYS_LAST = 0x20f,
    MSR_DEBUGCTL = 0x1d9,
    MSR_PV_FIRST = 0x4b564d00,
    MSR_PV_LAST = 0x4b564d08
};

#define MTRR_VARIABLE      8u
#define MTRR_CAP           (MTRR_VARIABLE | 1u << 8 | 1u << 10) /* fixed ranges, write-combining */
#define UCODE_REVISION     UINT64_C(0x2b000603)
#define PLATFORM_INFO_1GHZ (UINT64_C(10) << 8) /* maximum non-turbo ratio, in units of 100 MHz */
#define FEAT_CTL_LOCKED    UINT64_C(1)
#define DEBUGCTL_TOLERATED UINT64_C(0xffc3)    /* LBR, BTF, tracing and freezing: accepted and without effect */
#define MISC_ENABLE_FIXED  (BIT(11) | BIT(12)) /* no BTS, no PEBS */
#define MISC_ENABLE_KNOWN                                                                                              \
    (BIT(0) | BIT(3) | BIT(7) | BIT(11) | BIT(12) | BIT(16) | BIT(18) | BIT(22) | BIT(23) | BIT(34))
#define SPEC_CTRL_IBRS    UINT64_C(1)
#define SPEC_CTRL_STIBP   UINT64_C(2)
#define SPEC_CTRL_BHI_DIS BIT(10)
#define PRED_CMD_IBPB     UINT64_C(1)
#define UMWAIT_RESERVED   (~UINT64_C(0xffffffff) | 2)

static bool put(uint64_t *field, uint64_t val, bool ok)
{
    if (ok)
        *field = val;
    return ok;
}

/* ---- memory types: SDM 3A, "Memory Type Range Registers" and "Page Attribute Table" ---- */

static bool memtype_ok(unsigned t)
{
    return t == 0 || t == 1 || (t >= 4 && t <= 6);
}

static bool memtypes_ok(uint64_t val, bool pat)
{
    for (unsigned i = 0; i < 64; i += 8)
        if (!memtype_ok(val >> i & 0xff) && !(pat && (val >> i & 0xff) == 7))
            return false;
    return true;
}

static bool is_mtrr_phys(uint32_t msr)
{
    return msr >= MSR_MTRR_PHYS_BASE0 && msr <= MSR_MTRR_PHYS_LAST;
}

/* Index into mtrr_fixed[], or -1. */
static int mtrr_fixed(uint32_t msr)
{
    if (msr == MSR_MTRR_FIX64K)
        return 0;
    if (msr == MSR_MTRR_FIX16K_0 || msr == MSR_MTRR_FIX16K_0 + 1)
        return 1 + (int)(msr - MSR_MTRR_FIX16K_0);
    if (msr >= MSR_MTRR_FIX4K_0 && msr < MSR_MTRR_FIX4K_0 + 8)
        return 3 + (int)(msr - MSR_MTRR_FIX4K_0);
    return -1;
}

static bool mtrr_phys_write(struct soft_vcpu *v, uint32_t msr, uint64_t val)
{
    bool mask = msr & 1;
    uint64_t low = mask ? 0x7ff : 0xf00;
    bool ok = !(val & (~walk_phys_mask(v) | low)) && (mask || memtype_ok(val & 0xff));
    return put(&v->st.mtrr_phys[msr - MSR_MTRR_PHYS_BASE0], val, ok);
}

static bool has_mtrr(const struct soft_vcpu *v)
{
    return v->vm->cfg.cpuid->std1_edx & CPUID_1_EDX_MTRR;
}

static bool mtrr_read(struct soft_vcpu *v, uint32_t msr, uint64_t *val)
{
    int fixed = mtrr_fixed(msr);
    if (!has_mtrr(v))
        return false;
    *val = fixed >= 0 ? v->st.mtrr_fixed[fixed] : v->st.mtrr_phys[msr - MSR_MTRR_PHYS_BASE0];
    return true;
}

static bool mtrr_write(struct soft_vcpu *v, uint32_t msr, uint64_t val)
{
    int fixed = mtrr_fixed(msr);
    if (!has_mtrr(v))
        return false;
    return fixed >= 0 ? put(&v->st.mtrr_fixed[fixed], val, memtypes_ok(val, false)) : mtrr_phys_write(v, msr, val);
}

/* ---- time: guest TSC = guest ns + tsc_offset ---- */

static uint64_t deadline_read(struct soft_vcpu *v)
{
    uint64_t at = fabric_deadline_get(v->vm->cfg.fabric, v->idx);
    return at ? at + v->st.tsc_offset : 0;
}

/* A deadline that has passed fires at once; 0 disarms, so it never becomes 0 by conversion. */
static void deadline_write(struct soft_vcpu *v, uint64_t tsc)
{
    uint64_t now = soft_now_shared(v), cur = now + v->st.tsc_offset, at = 0;
    if (tsc) {
        uint64_t ahead = tsc > cur ? tsc - cur : 0;
        at = ahead < HEC_NS_NEVER - 1 - now ? now + ahead : HEC_NS_NEVER - 1;
        at += !at;
    }
    fabric_deadline_set(v->vm->cfg.fabric, v->idx, now, at);
    attn_self(v);
}

/* Move the TSC by `delta`, and an armed deadline, which is a TSC value, with it. SDM 3B, "IA32_TSC_ADJUST Register". */
static void tsc_move(struct soft_vcpu *v, uint64_t delta)
{
    uint64_t deadline = deadline_read(v);
    v->st.tsc_offset += delta;
    v->st.tsc_adjust += delta;
    if (deadline)
        deadline_write(v, deadline);
}

/* ---- the rest ---- */

static bool efer_write(struct soft_vcpu *v, uint64_t val)
{
    const struct cpuid_model *m = v->vm->cfg.cpuid;
    uint64_t old = v->st.efer;
    uint64_t ok = EFER_LMA | (m->ext1_edx & CPUID_EXT1_EDX_SYSCALL ? EFER_SCE : 0) |
                  (m->ext1_edx & CPUID_EXT1_EDX_LM ? EFER_LME : 0) | (m->ext1_edx & CPUID_EXT1_EDX_NX ? EFER_NXE : 0);
    if (val & ~ok || ((val ^ old) & EFER_LME && v->st.cr0 & CR0_PG))
        return false;
    v->st.efer = (val & ~EFER_LMA) | (old & EFER_LMA);
    if ((val ^ old) & EFER_NXE)
        tlb_flush_all(v);
    mode_update(v);
    return true;
}

/* Nothing speculates here: the bits are kept and do nothing. */
static uint64_t spec_ctrl_valid(const struct cpuid_model *m)
{
    return (m->std7_edx & CPUID_7_EDX_SPEC_CTRL ? SPEC_CTRL_IBRS | SPEC_CTRL_STIBP : 0) |
           (m->std7_2_edx & CPUID_7_2_EDX_BHI_CTRL ? SPEC_CTRL_BHI_DIS : 0);
}

static bool spec_ctrl_exists(const struct cpuid_model *m)
{
    return m->std7_edx & CPUID_7_EDX_SPEC_CTRL || m->std7_2_edx & CPUID_7_2_EDX_BHI_CTRL;
}

static bool misc_enable_write(struct soft_vcpu *v, uint64_t val)
{
    return put(&v->st.misc_enable, val | MISC_ENABLE_FIXED, !(val & ~MISC_ENABLE_KNOWN));
}

static bool apic_msr_write(struct soft_vcpu *v, uint32_t msr, uint64_t val)
{
    struct fabric *f = v->vm->cfg.fabric;
    gpa_t page = fabric_mmio_base(f, v->idx);
    if (!fabric_msr_write(f, v->idx, soft_now_shared(v), msr, val))
        return false;
    if (fabric_mmio_base(f, v->idx) != page)
        tlb_flush_all(v); /* what the APIC page covered shows again, and RAM may lie below the new one */
    attn_self(v);
    return true;
}

static bool is_apic_msr(uint32_t msr)
{
    return msr == MSR_APIC_BASE || (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST);
}

static bool is_pv_msr(const struct soft_vcpu *v, uint32_t msr)
{
    bool ours = (msr >= MSR_PV_FIRST && msr <= MSR_PV_LAST) || msr == MSR_PV_LOW_FIRST || msr == MSR_PV_LOW_LAST;
    return ours && v->vm->cfg.pv && v->vm->cfg.cpuid->kvm_features;
}

static bool value(uint64_t *out, uint64_t val, bool exists)
{
    *out = val;
    return exists;
}

/* Opcode switch: one line an MSR. */
static bool known_read(struct soft_vcpu *v, uint32_t msr, uint64_t *val)
{
    const struct cpu_state *s = &v->st;
    const struct cpuid_model *m = v->vm->cfg.cpuid;
    switch (msr) {
    case MSR_P5_MC_ADDR:
    case MSR_P5_MC_TYPE:
    case MSR_PLATFORM_ID:
    case MSR_MCG_CAP:
    case MSR_DEBUGCTL:
        return value(val, 0, true);
    case MSR_TSC:
        return value(val, soft_now_shared(v) + s->tsc_offset, true);
    case MSR_FEAT_CTL:
        return value(val, s->feat_ctl | FEAT_CTL_LOCKED, true);
    case MSR_TSC_ADJUST:
        return value(val, s->tsc_adjust, m->std7_ebx & CPUID_7_EBX_TSC_ADJUST);
    case MSR_SPEC_CTRL:
        return value(val, s->spec_ctrl, spec_ctrl_exists(m));
    case MSR_UCODE_REV:
        return value(val, UCODE_REVISION << 32, true);
    case MSR_PLATFORM_INFO:
        return value(val, PLATFORM_INFO_1GHZ, true);
    case MSR_UMWAIT_CONTROL:
        return value(val, s->umwait_control, m->std7_ecx & CPUID_7_ECX_WAITPKG);
    case MSR_MTRR_CAP:
        return value(val, MTRR_CAP, has_mtrr(v));
    case MSR_MTRR_DEF_TYPE:
        return value(val, s->mtrr_def_type, has_mtrr(v));
    case MSR_ARCH_CAPS:
        return value(val, m->arch_capabilities, m->std7_edx & CPUID_7_EDX_ARCH_CAPS);
    case MSR_SYSENTER_CS:
        return value(val, s->sysenter_cs, true);
    case MSR_SYSENTER_ESP:
        return value(val, s->sysenter_esp, true);
    case MSR_SYSENTER_EIP:
        return value(val, s->sysenter_eip, true);
    case MSR_MCG_STATUS:
        return value(val, s->mcg_status, true);
    case MSR_MISC_ENABLE:
        return value(val, s->misc_enable | MISC_ENABLE_FIXED, true);
    case MSR_PAT:
        return value(val, s->pat, m->std1_edx & CPUID_1_EDX_PAT);
    case MSR_TSC_DEADLINE:
        return value(val, deadline_read(v), m->std1_ecx & CPUID_1_ECX_TSCDL);
    case MSR_EFER:
        return value(val, s->efer, true);
    case MSR_STAR:
        return value(val, s->star, true);
    case MSR_LSTAR:
        return value(val, s->lstar, true);
    case MSR_CSTAR:
        return value(val, s->cstar, true);
    case MSR_FMASK:
        return value(val, s->fmask, true);
    case MSR_FS_BASE:
        return value(val, s->seg[SEG_FS].base, true);
    case MSR_GS_BASE:
        return value(val, s->seg[SEG_GS].base, true);
    case MSR_KERNEL_GS_BASE:
        return value(val, s->kernel_gs_base, true);
    case MSR_TSC_AUX:
        return value(val, s->tsc_aux, m->ext1_edx & CPUID_EXT1_EDX_RDTSCP || m->std7_ecx & CPUID_7_ECX_RDPID);
    default:
        return false;
    }
}

/* Opcode switch: one line an MSR. */
static bool known_write(struct soft_vcpu *v, uint32_t msr, uint64_t val)
{
    struct cpu_state *s = &v->st;
    const struct cpuid_model *m = v->vm->cfg.cpuid;
    switch (msr) {
    case MSR_TSC:
        tsc_move(v, val - (soft_now_shared(v) + s->tsc_offset));
        return true;
    case MSR_TSC_ADJUST:
        if (!(m->std7_ebx & CPUID_7_EBX_TSC_ADJUST))
            return false;
        tsc_move(v, val - s->tsc_adjust);
        return true;
    case MSR_TSC_DEADLINE:
        if (!(m->std1_ecx & CPUID_1_ECX_TSCDL))
            return false;
        deadline_write(v, val);
        return true;
    case MSR_SPEC_CTRL:
        return put(&s->spec_ctrl, val, spec_ctrl_exists(m) && !(val & ~spec_ctrl_valid(m)));
    case MSR_PRED_CMD:
        return m->std7_edx & CPUID_7_EDX_SPEC_CTRL && !(val & ~PRED_CMD_IBPB);
    case MSR_UCODE_REV: /* 0, before CPUID loads the revision */
        return true;
    case MSR_DEBUGCTL:
        return !(val & ~DEBUGCTL_TOLERATED);
    case MSR_UMWAIT_CONTROL:
        return put(&s->umwait_control, val, m->std7_ecx & CPUID_7_ECX_WAITPKG && !(val & UMWAIT_RESERVED));
    case MSR_MTRR_DEF_TYPE:
        return put(&s->mtrr_def_type, val, has_mtrr(v) && !(val & ~UINT64_C(0xcff)) && memtype_ok(val & 0xff));
    case MSR_SYSENTER_CS:
        return put(&s->sysenter_cs, val & 0xffffffff, true);
    case MSR_SYSENTER_ESP:
        return put(&s->sysenter_esp, val, gva_canonical(val));
    case MSR_SYSENTER_EIP:
        return put(&s->sysenter_eip, val, gva_canonical(val));
    case MSR_MCG_STATUS: /* only clearing is allowed */
        return put(&s->mcg_status, 0, !val);
    case MSR_MISC_ENABLE:
        return misc_enable_write(v, val);
    case MSR_PAT:
        return put(&s->pat, val, m->std1_edx & CPUID_1_EDX_PAT && memtypes_ok(val, true));
    case MSR_EFER:
        return efer_write(v, val);
    case MSR_STAR:
        return put(&s->star, val, true);
    case MSR_LSTAR:
        return put(&s->lstar, val, gva_canonical(val));
    case MSR_CSTAR:
        return put(&s->cstar, val, gva_canonical(val));
    case MSR_FMASK:
        return put(&s->fmask, val, !(val >> 32));
    case MSR_FS_BASE:
        return put(&s->seg[SEG_FS].base, val, gva_canonical(val));
    case MSR_GS_BASE:
        return put(&s->seg[SEG_GS].base, val, gva_canonical(val));
    case MSR_KERNEL_GS_BASE:
        return put(&s->kernel_gs_base, val, gva_canonical(val));
    case MSR_TSC_AUX:
        return put(&s->tsc_aux, val,
                   !(val >> 32) && (m->ext1_edx & CPUID_EXT1_EDX_RDTSCP || m->std7_ecx & CPUID_7_ECX_RDPID));
    default: /* among them FEAT_CTL, which firmware has locked */
        return false;
    }
}

static bool any_read(struct soft_vcpu *v, uint32_t msr, uint64_t *val)
{
    if (is_apic_msr(msr))
        return fabric_msr_read(v->vm->cfg.fabric, v->idx, soft_now_shared(v), msr, val);
    if (is_pv_msr(v, msr))
        return pv_msr_read(v->vm->cfg.pv, v->idx, msr, val);
    if (is_mtrr_phys(msr) || mtrr_fixed(msr) >= 0)
        return mtrr_read(v, msr, val);
    return known_read(v, msr, val);
}

static bool any_write(struct soft_vcpu *v, uint32_t msr, uint64_t val)
{
    if (is_apic_msr(msr))
        return apic_msr_write(v, msr, val);
    if (is_pv_msr(v, msr))
        return pv_msr_write(v->vm->cfg.pv, v->idx, soft_now_shared(v), msr, val);
    if (is_mtrr_phys(msr) || mtrr_fixed(msr) >= 0)
        return mtrr_write(v, msr, val);
    return known_write(v, msr, val);
}

bool msr_read(struct soft_vcpu *v, uint32_t msr, uint64_t *val)
{
    *val = 0;
    if (any_read(v, msr, val))
        return true;
    trace(v->vm->cfg.trace, TRACE_MSR, "cpu %u: rdmsr 0x%x at 0x%llx: #GP", v->idx.i, msr,
          (unsigned long long)v->st.rip);
    return false;
}

bool msr_write(struct soft_vcpu *v, uint32_t msr, uint64_t val)
{
    if (any_write(v, msr, val))
        return true;
    trace(v->vm->cfg.trace, TRACE_MSR, "cpu %u: wrmsr 0x%x = 0x%llx at 0x%llx: #GP", v->idx.i, msr,
          (unsigned long long)val, (unsigned long long)v->st.rip);
    return false;
}
