/* Writes to control registers: the cr_write() of msr.h. */
#include "cpu/soft/msr.h"

#include "cpu/soft/mmu.h"
#include "cpu/soft/walk.h"

#define CR0_DEFINED (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define CR4_PAGING  (CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP)

static bool cs_is_64(const struct soft_vcpu *v)
{
    return v->st.efer & EFER_LMA && v->st.seg[SEG_CS].attr & SEGA_L;
}

/* Turning paging on or off: SDM 3A, "Initializing IA-32e Mode" and "Paging-Mode Enabling". */
static bool pg_allowed(const struct soft_vcpu *v, uint64_t val)
{
    if (!(val & CR0_PG))
        return !cs_is_64(v);
    if (v->st.efer & EFER_LME)
        return v->st.cr4 & CR4_PAE && !(v->st.seg[SEG_CS].attr & SEGA_L);
    return !(v->st.cr4 & CR4_PAE) || walk_pdptes_valid(v, v->st.cr3);
}

static bool cr0_write(struct soft_vcpu *v, uint64_t val)
{
    uint64_t old = v->st.cr0;
    if (val >> 32 || (val & CR0_PG && !(val & CR0_PE)) || (val & CR0_NW && !(val & CR0_CD)))
        return false;
    if ((val ^ old) & CR0_PG && !pg_allowed(v, val))
        return false;
    v->st.cr0 = (val & CR0_DEFINED) | CR0_ET;
    if ((val ^ old) & CR0_PG) {
        bool lma = val & CR0_PG && v->st.efer & EFER_LME;
        v->st.efer = (v->st.efer & ~EFER_LMA) | (lma ? EFER_LMA : 0);
        trace(v->vm->cfg.trace, TRACE_CPU, "cpu %u: paging %s%s", v->idx.i, val & CR0_PG ? "on" : "off",
              lma ? ", long mode" : "");
    }
    if ((val ^ old) & (CR0_PG | CR0_WP | CR0_PE))
        tlb_flush_all(v);
    if ((val ^ old) & ~CR0_TS)
        mode_update(v);
    return true;
}

static bool cr3_write(struct soft_vcpu *v, uint64_t val)
{
    if (v->st.efer & EFER_LMA) {
        if (val & ~walk_phys_mask(v))
            return false;
    } else {
        val &= 0xffffffff;
        if (v->st.cr0 & CR0_PG && v->st.cr4 & CR4_PAE && !walk_pdptes_valid(v, val))
            return false;
    }
    v->st.cr3 = val;
    tlb_flush_nonglobal(v);
    return true;
}

/* The bits our CPUID lets a guest set. */
static uint64_t cr4_valid(const struct cpuid_model *m)
{
    uint64_t ok = CR4_TSD | CR4_PCE | CR4_OSXMMEXCPT;
    ok |= m->std1_edx & CPUID_1_EDX_VME ? CR4_VME | CR4_PVI : 0;
    ok |= m->std1_edx & CPUID_1_EDX_DE ? CR4_DE : 0;
    ok |= m->std1_edx & CPUID_1_EDX_PSE ? CR4_PSE : 0;
    ok |= m->std1_edx & CPUID_1_EDX_PAE ? CR4_PAE : 0;
    ok |= m->std1_edx & CPUID_1_EDX_MCE ? CR4_MCE : 0;
    ok |= m->std1_edx & CPUID_1_EDX_PGE ? CR4_PGE : 0;
    ok |= m->std1_edx & CPUID_1_EDX_FXSR ? CR4_OSFXSR : 0;
    ok |= m->std7_ecx & CPUID_7_ECX_UMIP ? CR4_UMIP : 0;
    ok |= m->std7_ebx & CPUID_7_EBX_FSGSBASE ? CR4_FSGSBASE : 0;
    ok |= m->std7_ebx & CPUID_7_EBX_SMEP ? CR4_SMEP : 0;
    return ok;
}

static bool cr4_write(struct soft_vcpu *v, uint64_t val)
{
    uint64_t old = v->st.cr4;
    if (val & ~cr4_valid(v->vm->cfg.cpuid))
        return false;
    if (!(val & CR4_PAE) && v->st.efer & EFER_LMA)
        return false;
    bool reload = v->st.cr0 & CR0_PG && !(v->st.efer & EFER_LMA) && val & CR4_PAE && (val ^ old) & CR4_PAGING;
    if (reload && !walk_pdptes_valid(v, v->st.cr3))
        return false;
    v->st.cr4 = val;
    if ((val ^ old) & CR4_PAGING)
        tlb_flush_all(v);
    mode_update(v);
    return true;
}

static bool cr8_write(struct soft_vcpu *v, uint64_t val)
{
    if (val > 15)
        return false;
    fabric_cr8_set(v->vm->cfg.fabric, v->idx, (uint8_t)val);
    attn_self(v);
    return true;
}

bool cr_write(struct soft_vcpu *v, unsigned cr, uint64_t val)
{
    switch (cr) {
    case 0:
        return cr0_write(v, val);
    case 3:
        return cr3_write(v, val);
    case 4:
        return cr4_write(v, val);
    case 8:
        return cr8_write(v, val);
    default:
        return false;
    }
}
