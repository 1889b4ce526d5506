/* Descriptor-table registers and the instructions that ask about descriptors. SDM 2, by mnemonic. */
#include "cpu/soft/far.h"

/* ---- LLDT, LTR, SLDT, STR ---- */

/* Base of a system descriptor, 64 bits of it in IA-32e mode. */
static bool system_segment(struct soft_vcpu *v, uint16_t sel, uint64_t d, struct cpu_segment *out)
{
    uint64_t hi = 0;
    seg_from_desc(out, sel, d);
    if (!in_ia32e(v))
        return true;
    if (!desc_read_high(v, sel, &hi))
        return false;
    out->base |= hi << 32;
    return (!bits(hi, 44, 40) && is_canonical(out->base)) || raise_sel(v, VEC_GP, sel);
}

/* A descriptor of the GDT with one of the types in the bit set `types`. */
static bool system_desc(struct soft_vcpu *v, uint16_t sel, unsigned types, uint64_t *d, gva_t *at,
                        struct cpu_segment *out)
{
    if (sel & 4)
        return raise_sel(v, VEC_GP, sel);
    if (!desc_read(v, sel, VEC_GP, d, at))
        return false;
    if (desc_is_segment(*d) || !(types >> desc_type(*d) & 1))
        return raise_sel(v, VEC_GP, sel);
    if (!desc_present(*d))
        return raise_sel(v, VEC_NP, sel);
    return system_segment(v, sel, *d, out);
}

/* LLDT and LTR: the operand, at CPL 0 of protected mode. */
static enum exec_result table_operand(struct soft_vcpu *v, const struct insn *in, uint16_t *sel)
{
    uint64_t val;
    if (in_real_like(v))
        return exec_fault(v, VEC_UD);
    if (cpl(v))
        return exec_fault_err(v, VEC_GP, 0);
    if (!opnd_get(v, in, &in->src, &val))
        return EXEC_FAULT;
    *sel = (uint16_t)val;
    return EXEC_OK;
}

enum exec_result exec_lldt(struct soft_vcpu *v, const struct insn *in)
{
    uint16_t sel;
    uint64_t d;
    gva_t at;
    struct cpu_segment s = v->st.seg[SEG_LDTR];
    enum exec_result r = table_operand(v, in, &sel);
    if (r != EXEC_OK)
        return r;
    if (sel_is_null(sel))
        seg_set_null(&s, sel, 0);
    else if (!system_desc(v, sel, 1u << DT_LDT, &d, &at, &s))
        return EXEC_FAULT;
    v->st.seg[SEG_LDTR] = s;
    return EXEC_OK;
}

enum exec_result exec_ltr(struct soft_vcpu *v, const struct insn *in)
{
    uint16_t sel;
    uint64_t d;
    gva_t at;
    struct cpu_segment s;
    unsigned types = 1u << DT_TSS32 | (in_ia32e(v) ? 0 : 1u << DT_TSS16);
    enum exec_result r = table_operand(v, in, &sel);
    if (r != EXEC_OK)
        return r;
    if (sel_is_null(sel))
        return exec_fault_err(v, VEC_GP, 0);
    if (!system_desc(v, sel, types, &d, &at, &s) || !desc_set_busy(v, at, true))
        return EXEC_FAULT;
    s.attr |= 2;
    v->st.seg[SEG_TR] = s;
    return EXEC_OK;
}

static enum exec_result store_selector(struct soft_vcpu *v, const struct insn *in, unsigned seg)
{
    if (in_real_like(v))
        return exec_fault(v, VEC_UD);
    if (cpl(v) && (v->st.cr4 & CR4_UMIP))
        return exec_fault_err(v, VEC_GP, 0);
    return opnd_put(v, in, &in->dst, v->st.seg[seg].sel) ? EXEC_OK : EXEC_FAULT;
}

enum exec_result exec_sldt(struct soft_vcpu *v, const struct insn *in)
{
    return store_selector(v, in, SEG_LDTR);
}

enum exec_result exec_str(struct soft_vcpu *v, const struct insn *in)
{
    return store_selector(v, in, SEG_TR);
}

/* ---- LAR, LSL, VERR, VERW ---- */

enum ask { ASK_NO, ASK_YES, ASK_FAULT };

/* Read the descriptor in question and apply the privilege rule; conforming code may be asked about from any level. */
static enum ask ask_desc(struct soft_vcpu *v, const struct insn *in, uint64_t *d)
{
    uint64_t sel;
    gva_t at;
    if (in_real_like(v)) {
        fault_set(v, VEC_UD, false, 0);
        return ASK_FAULT;
    }
    if (!opnd_get(v, in, &in->src, &sel))
        return ASK_FAULT;
    if (sel_is_null((uint16_t)sel))
        return ASK_NO;
    enum desc_status st = desc_try(v, (uint16_t)sel, d, &at);
    if (st != DESC_OK)
        return st == DESC_FAULT ? ASK_FAULT : ASK_NO;
    unsigned dpl = desc_dpl(*d);
    return desc_conforming(*d) || (cpl(v) <= dpl && (sel & 3) <= dpl) ? ASK_YES : ASK_NO;
}

/* ZF says whether `yes`; the destination is written only then. */
static enum exec_result answer(struct soft_vcpu *v, const struct insn *in, bool yes, uint64_t val)
{
    uint64_t flags = flags_get(v) & ~RF_ZF;
    if (yes && in->dst.kind != OPND_NONE && !opnd_put(v, in, &in->dst, val))
        return EXEC_FAULT;
    flags_put(v, yes ? flags | RF_ZF : flags);
    return EXEC_OK;
}

static bool has_type(const struct soft_vcpu *v, uint64_t d, unsigned legacy, unsigned ia32e)
{
    return desc_is_segment(d) || ((in_ia32e(v) ? ia32e : legacy) >> desc_type(d) & 1);
}

enum exec_result exec_lar(struct soft_vcpu *v, const struct insn *in)
{
    enum {
        LONG_TYPES = 1 << 2 | 1 << 9 | 1 << 11 | 1 << 12,
        LEGACY_TYPES = LONG_TYPES | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5
    };
    uint64_t d = 0;
    enum ask a = ask_desc(v, in, &d);
    if (a == ASK_FAULT)
        return EXEC_FAULT;
    return answer(v, in, a == ASK_YES && has_type(v, d, LEGACY_TYPES, LONG_TYPES), d >> 32 & 0x00f0ff00);
}

enum exec_result exec_lsl(struct soft_vcpu *v, const struct insn *in)
{
    enum { LONG_TYPES = 1 << 2 | 1 << 9 | 1 << 11, LEGACY_TYPES = LONG_TYPES | 1 << 1 | 1 << 3 };
    struct cpu_segment s;
    uint64_t d = 0;
    enum ask a = ask_desc(v, in, &d);
    if (a == ASK_FAULT)
        return EXEC_FAULT;
    seg_from_desc(&s, 0, d);
    return answer(v, in, a == ASK_YES && has_type(v, d, LEGACY_TYPES, LONG_TYPES), s.limit);
}

enum exec_result exec_verr(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t d = 0;
    enum ask a = ask_desc(v, in, &d);
    if (a == ASK_FAULT)
        return EXEC_FAULT;
    bool readable = desc_is_segment(d) && (!desc_is_code(d) || (desc_type(d) & SEGA_RW));
    return answer(v, in, a == ASK_YES && readable, 0);
}

enum exec_result exec_verw(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t d = 0;
    enum ask a = ask_desc(v, in, &d);
    if (a == ASK_FAULT)
        return EXEC_FAULT;
    return answer(v, in, a == ASK_YES && desc_writable_data(d), 0);
}
