/* System calls without descriptors: SYSCALL, SYSRET, SYSENTER, SYSEXIT. SDM 2, by mnemonic; the Intel behaviour. */
#include "cpu/soft/far.h"

#define CODE(dpl) (SEGA_CODE | SEGA_RW | (dpl) << SEGA_DPL_SHIFT)
#define DATA(dpl) (SEGA_RW | SEGA_DB | (dpl) << SEGA_DPL_SHIFT)

/* CS and SS of the fast calls: flat, fixed attributes, nothing read from the tables. */
static void set_flat(struct soft_vcpu *v, uint64_t cs, uint64_t ss, unsigned level, bool code64)
{
    uint32_t size = code64 ? SEGA_L : SEGA_DB;
    uint16_t rpl = (uint16_t)level;
    seg_set_flat(&v->st.seg[SEG_CS], (uint16_t)((cs & 0xfffc) | rpl), CODE(level) | size);
    seg_set_flat(&v->st.seg[SEG_SS], (uint16_t)((ss & 0xfffc) | rpl), DATA(level));
}

enum exec_result exec_syscall(struct soft_vcpu *v, const struct insn *in)
{
    if (!in_code64(v) || !(v->st.efer & EFER_SCE))
        return exec_fault(v, VEC_UD);
    uint64_t flags = flags_get(v) & ~RF_RF;
    uint64_t sel = bits(v->st.star, 47, 32);
    v->st.gpr[RCX] = v->next_rip;
    v->st.gpr[R11] = flags;
    flags_load(v, flags & ~v->st.fmask);
    set_flat(v, sel, (sel & 0xfffc) + 8, 0, true);
    v->st.rip = v->st.lstar;
    mode_update(v);
    return EXEC_JUMP;
}

/* A non-canonical RCX faults here, at CPL 0 and with the user's RSP already loaded by the kernel: the Intel way, which
 * Linux guards against. */
enum exec_result exec_sysret(struct soft_vcpu *v, const struct insn *in)
{
    bool wide = in->opsize == 8;
    if (!in_code64(v) || !(v->st.efer & EFER_SCE))
        return exec_fault(v, VEC_UD);
    if (cpl(v) || (wide && !is_canonical(v->st.gpr[RCX])))
        return exec_fault_err(v, VEC_GP, 0);
    uint64_t sel = bits(v->st.star, 63, 48);
    v->st.rip = wide ? v->st.gpr[RCX] : (uint32_t)v->st.gpr[RCX];
    far_load_flags(v, v->st.gpr[R11] & 0x3c7fd7);
    set_flat(v, wide ? sel + 16 : sel, sel + 8, 3, wide);
    mode_update(v);
    return EXEC_JUMP;
}

enum exec_result exec_sysenter(struct soft_vcpu *v, const struct insn *in)
{
    bool wide = in_ia32e(v);
    uint64_t sel = v->st.sysenter_cs & 0xfffc;
    if (!in_protected(v) || !sel)
        return exec_fault_err(v, VEC_GP, 0);
    flags_load(v, flags_get(v) & ~(RF_VM | RF_IF | RF_RF));
    v->st.gpr[RSP] = wide ? v->st.sysenter_esp : (uint32_t)v->st.sysenter_esp;
    v->st.rip = wide ? v->st.sysenter_eip : (uint32_t)v->st.sysenter_eip;
    set_flat(v, sel, sel + 8, 0, wide);
    mode_update(v);
    return EXEC_JUMP;
}

enum exec_result exec_sysexit(struct soft_vcpu *v, const struct insn *in)
{
    bool wide = in->opsize == 8;
    uint64_t sel = v->st.sysenter_cs & 0xfffc;
    if (!in_protected(v) || !sel || cpl(v))
        return exec_fault_err(v, VEC_GP, 0);
    if (wide && (!is_canonical(v->st.gpr[RCX]) || !is_canonical(v->st.gpr[RDX])))
        return exec_fault_err(v, VEC_GP, 0);
    v->st.gpr[RSP] = wide ? v->st.gpr[RCX] : (uint32_t)v->st.gpr[RCX];
    v->st.rip = wide ? v->st.gpr[RDX] : (uint32_t)v->st.gpr[RDX];
    set_flat(v, sel + (wide ? 32 : 16), sel + (wide ? 40 : 24), 3, wide);
    mode_update(v);
    return EXEC_JUMP;
}
