/* The SYS group of ops.def: control and debug registers, MSRs, descriptor-table registers, ports, time, waiting and
 * hypercalls. SDM 2, one entry an instruction; each comment there is the section. */
#include "cpu/soft/event.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/io.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/msr.h"

#define KVM_EPERM UINT64_C(1)

static bool code64(const struct soft_vcpu *v)
{
    return (v->mode & MODE_CODE) == CODE64;
}

static enum exec_result gp(struct soft_vcpu *v)
{
    return exec_fault_err(v, VEC_GP, 0);
}

static enum exec_result ud(struct soft_vcpu *v)
{
    return exec_fault(v, VEC_UD);
}

/* A full general register in the mode's width: 64 bits in 64-bit mode, else 32. */
static uint64_t reg_wide(const struct soft_vcpu *v, unsigned reg)
{
    return code64(v) ? v->st.gpr[reg] : (uint32_t)v->st.gpr[reg];
}

static uint64_t edx_eax(const struct soft_vcpu *v)
{
    return v->st.gpr[RDX] << 32 | (uint32_t)v->st.gpr[RAX];
}

static void set_edx_eax(struct soft_vcpu *v, uint64_t val)
{
    v->st.gpr[RAX] = (uint32_t)val;
    v->st.gpr[RDX] = val >> 32;
}

/* ---- ports ---- */

enum exec_result exec_in(struct soft_vcpu *v, const struct insn *in)
{
    unsigned size = in->opcode & 1 ? (in->opsize == 2 ? 2 : 4) : 1;
    unsigned port = in->opcode & 8 ? (uint16_t)v->st.gpr[RDX] : (uint8_t)in->imm;
    if (!io_allowed(v, port, size))
        return EXEC_FAULT;
    uint64_t val = io_read(v, port, size), *a = &v->st.gpr[RAX];
    *a = size == 4 ? val : (*a & ~size_mask(size)) | val;
    return EXEC_END;
}

enum exec_result exec_out(struct soft_vcpu *v, const struct insn *in)
{
    unsigned size = in->opcode & 1 ? (in->opsize == 2 ? 2 : 4) : 1;
    unsigned port = in->opcode & 8 ? (uint16_t)v->st.gpr[RDX] : (uint8_t)in->imm;
    if (!io_allowed(v, port, size))
        return EXEC_FAULT;
    io_write(v, port, size, (uint32_t)(v->st.gpr[RAX] & size_mask(size)));
    return EXEC_END;
}

/* ---- descriptor-table registers ---- */

static enum exec_result table_load(struct soft_vcpu *v, const struct insn *in, struct cpu_dtable *t)
{
    uint8_t b[10] = {0};
    if (cpl(v))
        return gp(v);
    if (!opnd_read(v, in, b, code64(v) ? 10 : 6))
        return EXEC_FAULT;
    uint64_t base = ld64(b + 2);
    if (!code64(v))
        base &= in->opsize == 2 ? 0xffffff : 0xffffffff;
    else if (!gva_canonical(base))
        return gp(v);
    *t = (struct cpu_dtable){.base = base, .limit = ld16(b)};
    return EXEC_OK;
}

static bool umip_forbids(const struct soft_vcpu *v)
{
    return v->st.cr4 & CR4_UMIP && cpl(v);
}

static enum exec_result table_store(struct soft_vcpu *v, const struct insn *in, const struct cpu_dtable *t)
{
    uint8_t b[10];
    if (umip_forbids(v))
        return gp(v);
    st16(b, t->limit);
    st64(b + 2, t->base);
    return opnd_write(v, in, b, code64(v) ? 10 : 6) ? EXEC_OK : EXEC_FAULT;
}

enum exec_result exec_lgdt(struct soft_vcpu *v, const struct insn *in)
{
    return table_load(v, in, &v->st.gdtr);
}

enum exec_result exec_lidt(struct soft_vcpu *v, const struct insn *in)
{
    return table_load(v, in, &v->st.idtr);
}

enum exec_result exec_sgdt(struct soft_vcpu *v, const struct insn *in)
{
    return table_store(v, in, &v->st.gdtr);
}

enum exec_result exec_sidt(struct soft_vcpu *v, const struct insn *in)
{
    return table_store(v, in, &v->st.idtr);
}

/* ---- control registers ---- */

enum exec_result exec_smsw(struct soft_vcpu *v, const struct insn *in)
{
    if (umip_forbids(v))
        return gp(v);
    if (in->dst.kind == OPND_MEM)
        return opnd_write(v, in, &v->st.cr0, 2) ? EXEC_OK : EXEC_FAULT;
    return opnd_put(v, in, &in->dst, v->st.cr0) ? EXEC_OK : EXEC_FAULT;
}

enum exec_result exec_lmsw(struct soft_vcpu *v, const struct insn *in)
{
    const uint64_t mask = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
    uint64_t val;
    if (cpl(v))
        return gp(v);
    if (!opnd_get(v, in, &in->src, &val))
        return EXEC_FAULT;
    val |= v->st.cr0 & CR0_PE; /* LMSW cannot leave protected mode */
    return cr_write(v, 0, (v->st.cr0 & ~mask) | (val & mask)) ? EXEC_END : gp(v);
}

enum exec_result exec_clts(struct soft_vcpu *v, const struct insn *in)
{
    if (cpl(v))
        return gp(v);
    return cr_write(v, 0, v->st.cr0 & ~CR0_TS) ? EXEC_END : gp(v);
}

static bool cr_exists(unsigned cr)
{
    return cr == 0 || cr == 2 || cr == 3 || cr == 4 || cr == 8;
}

enum exec_result exec_mov_from_cr(struct soft_vcpu *v, const struct insn *in)
{
    if (!cr_exists(in->reg))
        return ud(v);
    if (cpl(v))
        return gp(v);
    uint64_t val = in->reg == 0   ? v->st.cr0
                   : in->reg == 2 ? v->st.cr2
                   : in->reg == 3 ? v->st.cr3
                   : in->reg == 4 ? v->st.cr4
                                  : fabric_cr8_get(v->vm->cfg.fabric, v->idx);
    v->st.gpr[in->rm] = code64(v) ? val : (uint32_t)val;
    return EXEC_OK;
}

enum exec_result exec_mov_to_cr(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t val = reg_wide(v, in->rm);
    if (!cr_exists(in->reg))
        return ud(v);
    if (cpl(v))
        return gp(v);
    if (in->reg == 2)
        v->st.cr2 = val;
    else if (!cr_write(v, in->reg, val))
        return gp(v);
    return EXEC_END;
}

/* ---- debug registers ---- */

/* Checks that MOV from and to DRn share; *n becomes 0..3, 6 or 7. SDM 3B, "Debug Registers". */
static bool dr_select(struct soft_vcpu *v, const struct insn *in, unsigned *n)
{
    *n = in->reg;
    if (*n > 7 || ((*n == 4 || *n == 5) && v->st.cr4 & CR4_DE)) {
        fault_set(v, VEC_UD, false, 0);
        return false;
    }
    if (cpl(v)) {
        fault_set(v, VEC_GP, true, 0);
        return false;
    }
    if (v->st.dr[7] & DR7_GD) {
        event_raise_db(v, DR6_BD);
        return false;
    }
    *n |= *n == 4 || *n == 5 ? 2 : 0;
    return true;
}

enum exec_result exec_mov_from_dr(struct soft_vcpu *v, const struct insn *in)
{
    unsigned n;
    if (!dr_select(v, in, &n))
        return EXEC_FAULT;
    v->st.gpr[in->rm] = code64(v) ? v->st.dr[n] : (uint32_t)v->st.dr[n];
    return EXEC_OK;
}

enum exec_result exec_mov_to_dr(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t val = reg_wide(v, in->rm);
    unsigned n;
    if (!dr_select(v, in, &n))
        return EXEC_FAULT;
    if (n >= 6 && val >> 32)
        return gp(v);
    if (n == 6)
        val = (val & (15 | DR6_BD | DR6_BS | DR6_BT)) | DR6_FIXED;
    else if (n == 7)
        val = (val & 0xffff23ff) | DR7_FIXED;
    v->st.dr[n] = val;
    mode_update(v);
    return EXEC_END;
}

/* ---- TLB and caches ---- */

enum exec_result exec_invlpg(struct soft_vcpu *v, const struct insn *in)
{
    if (cpl(v))
        return gp(v);
    uint64_t gva = insn_offset(v, in);
    if (!code64(v))
        gva = (uint32_t)(gva + v->st.seg[in->seg].base);
    else if (in->seg == SEG_FS || in->seg == SEG_GS)
        gva += v->st.seg[in->seg].base;
    tlb_flush_page(v, gva);
    return EXEC_END;
}

/* CPUID never offers INVPCID. */
enum exec_result exec_invpcid(struct soft_vcpu *v, const struct insn *in)
{
    return ud(v);
}

/* Guest RAM is coherent with everything that can see it, so there is nothing to write back. */
enum exec_result exec_wbinvd(struct soft_vcpu *v, const struct insn *in)
{
    return cpl(v) ? gp(v) : EXEC_OK;
}

enum exec_result exec_invd(struct soft_vcpu *v, const struct insn *in)
{
    return cpl(v) ? gp(v) : EXEC_OK;
}

/* ---- MSRs and identification ---- */

enum exec_result exec_rdmsr(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t val;
    if (cpl(v) || !msr_read(v, (uint32_t)v->st.gpr[RCX], &val))
        return gp(v);
    set_edx_eax(v, val);
    return EXEC_OK;
}

enum exec_result exec_wrmsr(struct soft_vcpu *v, const struct insn *in)
{
    return cpl(v) || !msr_write(v, (uint32_t)v->st.gpr[RCX], edx_eax(v)) ? gp(v) : EXEC_END;
}

/* There are no counters: every index is unknown. */
enum exec_result exec_rdpmc(struct soft_vcpu *v, const struct insn *in)
{
    return gp(v);
}

enum exec_result exec_cpuid(struct soft_vcpu *v, const struct insn *in)
{
    struct cpuid_regs r;
    uint64_t base = 0;
    fabric_msr_read(v->vm->cfg.fabric, v->idx, v->entry_now, MSR_APIC_BASE, &base);
    struct cpuid_cpu me = {.id = v->id, .cr4 = v->st.cr4, .xcr0 = v->st.xcr0, .apic_enabled = base >> 11 & 1};
    cpuid_query(v->vm->cfg.cpuid, &me, (uint32_t)v->st.gpr[RAX], (uint32_t)v->st.gpr[RCX], &r);
    v->st.gpr[RAX] = r.eax;
    v->st.gpr[RBX] = r.ebx;
    v->st.gpr[RCX] = r.ecx;
    v->st.gpr[RDX] = r.edx;
    return EXEC_OK;
}

/* XCR0 holds x87 alone, and only where XSAVE exists at all; CR4.OSXSAVE cannot be set without it. */
enum exec_result exec_xgetbv(struct soft_vcpu *v, const struct insn *in)
{
    if (!(v->st.cr4 & CR4_OSXSAVE))
        return ud(v);
    if ((uint32_t)v->st.gpr[RCX])
        return gp(v);
    set_edx_eax(v, v->st.xcr0);
    return EXEC_OK;
}

enum exec_result exec_xsetbv(struct soft_vcpu *v, const struct insn *in)
{
    if (!(v->st.cr4 & CR4_OSXSAVE))
        return ud(v);
    if (cpl(v) || (uint32_t)v->st.gpr[RCX] || edx_eax(v) != 1)
        return gp(v);
    return EXEC_OK;
}

/* ---- time ---- */

static bool tsc_forbidden(const struct soft_vcpu *v)
{
    return v->st.cr4 & CR4_TSD && cpl(v);
}

enum exec_result exec_rdtsc(struct soft_vcpu *v, const struct insn *in)
{
    if (tsc_forbidden(v))
        return gp(v);
    set_edx_eax(v, soft_now_shared(v) + v->st.tsc_offset);
    return EXEC_OK;
}

enum exec_result exec_rdtscp(struct soft_vcpu *v, const struct insn *in)
{
    if (!(v->vm->cfg.cpuid->ext1_edx & CPUID_EXT1_EDX_RDTSCP))
        return ud(v);
    if (tsc_forbidden(v))
        return gp(v);
    set_edx_eax(v, soft_now_shared(v) + v->st.tsc_offset);
    v->st.gpr[RCX] = (uint32_t)v->st.tsc_aux;
    return EXEC_OK;
}

enum exec_result exec_rdpid(struct soft_vcpu *v, const struct insn *in)
{
    if (!(v->vm->cfg.cpuid->std7_ecx & CPUID_7_ECX_RDPID))
        return ud(v);
    v->st.gpr[in->rm] = (uint32_t)v->st.tsc_aux;
    return EXEC_OK;
}

/* ---- waiting ---- */

static enum exec_result leave(struct soft_vcpu *v, enum cpu_exit_kind why)
{
    v->run->exit = why;
    return EXEC_LEAVE;
}

enum exec_result exec_hlt(struct soft_vcpu *v, const struct insn *in)
{
    if (cpl(v))
        return gp(v);
    v->st.activity = CPU_HALTED;
    return leave(v, CPU_EXIT_HALT);
}

static bool waitpkg_checks(struct soft_vcpu *v, const struct insn *in)
{
    if (!(v->vm->cfg.cpuid->std7_ecx & CPUID_7_ECX_WAITPKG)) {
        fault_set(v, VEC_UD, false, 0);
        return false;
    }
    if ((uint32_t)v->st.gpr[in->rm] & ~1u || tsc_forbidden(v)) {
        fault_set(v, VEC_GP, true, 0);
        return false;
    }
    return true;
}

/* The deadline is a TSC value; IA32_UMWAIT_CONTROL[31:2] limits the wait, and CF says that the limit came first. */
enum exec_result exec_tpause(struct soft_vcpu *v, const struct insn *in)
{
    if (!waitpkg_checks(v, in))
        return EXEC_FAULT;
    uint64_t now = soft_now_shared(v), cur = now + v->st.tsc_offset, deadline = edx_eax(v);
    uint64_t wait = deadline > cur ? deadline - cur : 0, limit = v->st.umwait_control & 0xfffffffc;
    bool limited = limit && limit < wait;
    flags_put(v, limited ? RF_CF : 0);
    if (limited)
        wait = limit;
    if (!wait)
        return EXEC_OK;
    v->tpause_until = wait < HEC_NS_NEVER - 1 - now ? now + wait : HEC_NS_NEVER - 1;
    v->run->until = v->tpause_until;
    return leave(v, CPU_EXIT_TPAUSE);
}

/* The range is checked as a load would be, and never armed: SDM 2, "UMWAIT", lets the wait end at once then. */
enum exec_result exec_umonitor(struct soft_vcpu *v, const struct insn *in)
{
    gva_t gva;
    uint8_t byte;
    if (!(v->vm->cfg.cpuid->std7_ecx & CPUID_7_ECX_WAITPKG))
        return ud(v);
    uint64_t off = v->st.gpr[in->rm] & size_mask(in->addrsize);
    bool ok = seg_linear(v, in->seg, off, 1, ACC_READ, &gva) && lin_read(v, gva, &byte, 1, ACC_READ);
    return ok ? EXEC_OK : EXEC_FAULT;
}

enum exec_result exec_umwait(struct soft_vcpu *v, const struct insn *in)
{
    if (!waitpkg_checks(v, in))
        return EXEC_FAULT;
    flags_put(v, 0);
    return leave(v, CPU_EXIT_SPIN);
}

/* CPUID offers neither MONITOR nor SMAP nor SMM's RSM. */
enum exec_result exec_monitor(struct soft_vcpu *v, const struct insn *in)
{
    return ud(v);
}

enum exec_result exec_mwait(struct soft_vcpu *v, const struct insn *in)
{
    return ud(v);
}

enum exec_result exec_stac(struct soft_vcpu *v, const struct insn *in)
{
    return ud(v);
}

enum exec_result exec_clac(struct soft_vcpu *v, const struct insn *in)
{
    return ud(v);
}

enum exec_result exec_rsm(struct soft_vcpu *v, const struct insn *in)
{
    return ud(v);
}

/* Blocks are dropped by the store that changed them, so ending this one is all there is to serialise. */
enum exec_result exec_serialize(struct soft_vcpu *v, const struct insn *in)
{
    return v->vm->cfg.cpuid->std7_edx & CPUID_7_EDX_SERIALIZE ? EXEC_END : ud(v);
}

/* ---- hypercalls: Linux, Documentation/virt/kvm/x86/hypercalls.rst ---- */

static enum exec_result hypercall(struct soft_vcpu *v)
{
    struct pv *pv = v->vm->cfg.pv;
    if (!v->vm->cfg.cpuid->kvm_features || !pv)
        return ud(v);
    uint64_t ret = -KVM_EPERM;
    bool yield = false;
    if (!cpl(v)) {
        uint64_t a[4] = {reg_wide(v, RBX), reg_wide(v, RCX), reg_wide(v, RDX), reg_wide(v, RSI)};
        soft_now_shared(v);
        yield = pv_hypercall(pv, v->idx, reg_wide(v, RAX), a, code64(v), &ret, &v->run->yield_to);
    }
    v->st.gpr[RAX] = code64(v) ? ret : (uint32_t)ret;
    if (!yield)
        return EXEC_END;
    v->run->has_yield_to = true;
    return leave(v, CPU_EXIT_SPIN);
}

enum exec_result exec_vmcall(struct soft_vcpu *v, const struct insn *in)
{
    return hypercall(v);
}

enum exec_result exec_vmmcall(struct soft_vcpu *v, const struct insn *in)
{
    return hypercall(v);
}
