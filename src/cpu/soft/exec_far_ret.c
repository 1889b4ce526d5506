/* Far RET and IRET. SDM 2, "RET" and "IRET/IRETD/IRETQ". */
#include "cpu/soft/far.h"

/* Where a return goes, once every check has passed. */
struct far_return {
    struct cpu_segment cs;
    uint64_t rip;
    unsigned level; /* the new CPL */
    bool code64;    /* the target is 64-bit code */
};

/* Word `n` of the frame on the current stack. */
static bool frame_word(struct soft_vcpu *v, const struct insn *in, unsigned n, uint64_t *val)
{
    return stack_peek(v, (uint64_t)n * in->opsize, in->opsize, val);
}

static enum exec_result fault_gp0(struct soft_vcpu *v)
{
    return exec_fault_err(v, VEC_GP, 0);
}

/* ---- checks both share ---- */

static bool return_cs(struct soft_vcpu *v, uint16_t sel, uint64_t rip, struct far_return *r)
{
    uint64_t d;
    gva_t at;
    unsigned rpl = sel & 3;
    if (sel_is_null(sel))
        return raise_sel(v, VEC_GP, 0);
    if (!desc_read(v, sel, VEC_GP, &d, &at))
        return false;
    bool level_ok = rpl >= cpl(v) && (desc_conforming(d) ? desc_dpl(d) <= rpl : desc_dpl(d) == rpl);
    bool bad_size = in_ia32e(v) && desc_long(d) && desc_big(d);
    if (!desc_is_code(d) || !level_ok || bad_size)
        return raise_sel(v, VEC_GP, sel);
    if (!desc_present(d))
        return raise_sel(v, VEC_NP, sel);
    if (!desc_set_accessed(v, at, &d))
        return false;
    seg_from_desc(&r->cs, sel, d);
    r->rip = rip;
    r->level = rpl;
    r->code64 = in_ia32e(v) && desc_long(d);
    return seg_check_ip(v, &r->cs, rip);
}

/* The popped SS: null only into 64-bit code below CPL 3. */
static bool return_ss(struct soft_vcpu *v, uint16_t sel, const struct far_return *r, struct far_stack *s)
{
    if (!sel_is_null(sel))
        return seg_check_ss(v, sel, r->level, VEC_GP, &s->ss);
    if (!r->code64 || r->level == 3 || (sel & 3u) != r->level)
        return raise_sel(v, VEC_GP, 0);
    seg_set_null(&s->ss, sel, r->level);
    return true;
}

static enum exec_result finish(struct soft_vcpu *v, const struct far_return *r)
{
    v->st.seg[SEG_CS] = r->cs;
    v->st.rip = r->rip;
    seg_hide_inner(v);
    mode_update(v);
    return EXEC_JUMP;
}

/* CS:IP of real and virtual-8086 mode returns. */
static bool return_real(struct soft_vcpu *v, uint16_t sel, uint64_t ip, struct cpu_segment *cs)
{
    *cs = v->st.seg[SEG_CS];
    if (in_v86(v))
        seg_set_v86(cs, sel);
    else
        seg_set_real(v, cs, sel);
    return seg_check_ip(v, cs, ip);
}

/* ---- RET far ---- */

static enum exec_result retf_real(struct soft_vcpu *v, const struct insn *in, uint16_t sel, uint64_t ip)
{
    struct cpu_segment cs;
    if (!return_real(v, sel, ip, &cs))
        return EXEC_FAULT;
    stack_move(v, (int64_t)(2u * in->opsize + in->imm));
    return far_jump(v, &cs, ip);
}

static enum exec_result retf_outer(struct soft_vcpu *v, const struct insn *in, const struct far_return *r)
{
    struct far_stack s = {.code64 = r->code64};
    uint64_t sp, ss, at = 2u * in->opsize + in->imm;
    if (!stack_peek(v, at, in->opsize, &sp) || !stack_peek(v, at + in->opsize, in->opsize, &ss))
        return EXEC_FAULT;
    if (!return_ss(v, (uint16_t)ss, r, &s))
        return EXEC_FAULT;
    s.sp = sp + in->imm;
    stack_commit(v, &s);
    return finish(v, r);
}

enum exec_result exec_retf(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t ip, sel;
    struct far_return r;
    if (!frame_word(v, in, 0, &ip) || !frame_word(v, in, 1, &sel))
        return EXEC_FAULT;
    if (in_real_like(v))
        return retf_real(v, in, (uint16_t)sel, ip);
    if (!return_cs(v, (uint16_t)sel, ip, &r))
        return EXEC_FAULT;
    if (r.level > cpl(v))
        return retf_outer(v, in, &r);
    stack_move(v, (int64_t)(2u * in->opsize + in->imm));
    return far_jump(v, &r.cs, r.rip);
}

/* ---- IRET ---- */

/* Flags an IRET at this CPL and operand size may change. VM changes only on the way to virtual-8086 mode. */
static uint64_t iret_flags(struct soft_vcpu *v, const struct insn *in, uint64_t val)
{
    uint64_t can = RF_ARITH | RF_TF | RF_DF | RF_NT | RF_RF | RF_AC | RF_ID;
    if (cpl(v) <= iopl(v))
        can |= RF_IF;
    if (cpl(v) == 0)
        can |= in_protected(v) ? RF_IOPL | RF_VIF | RF_VIP : RF_IOPL;
    can &= size_mask(in->opsize);
    return (flags_get(v) & ~can) | (val & can);
}

static enum exec_result iret_real(struct soft_vcpu *v, const struct insn *in, const uint64_t w[3])
{
    struct cpu_segment cs;
    if (in_v86(v) && iopl(v) < 3)
        return fault_gp0(v);
    uint64_t flags = iret_flags(v, in, w[2]);
    if (!return_real(v, (uint16_t)w[1], w[0], &cs))
        return EXEC_FAULT;
    stack_move(v, 3 * in->opsize);
    far_load_flags(v, flags);
    return far_jump(v, &cs, w[0]);
}

/* SDM 3B, "Entering Virtual-8086 Mode". */
static enum exec_result iret_to_v86(struct soft_vcpu *v, const struct insn *in, const uint64_t w[3])
{
    static const uint8_t order[] = {SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    uint64_t sp, sel[ARRAY_SIZE(order)];
    if (!frame_word(v, in, 3, &sp))
        return EXEC_FAULT;
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        if (!frame_word(v, in, 4 + i, &sel[i]))
            return EXEC_FAULT;
    if (w[0] > 0xffff)
        return fault_gp0(v);
    far_load_flags(v, iret_flags(v, in, w[2]) | RF_VM);
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        seg_set_v86(&v->st.seg[order[i]], (uint16_t)sel[i]);
    seg_set_v86(&v->st.seg[SEG_CS], (uint16_t)w[1]);
    v->st.gpr[RSP] = sp;
    v->st.rip = w[0];
    mode_update(v);
    return EXEC_JUMP;
}

/* 64-bit code always pops SS:RSP, legacy and compatibility code only towards an outer level. */
static enum exec_result iret_protected(struct soft_vcpu *v, const struct insn *in, const uint64_t w[3])
{
    struct far_return r;
    struct far_stack s;
    uint64_t sp, ss;
    if (!return_cs(v, (uint16_t)w[1], w[0], &r))
        return EXEC_FAULT;
    bool outer = r.level > cpl(v);
    bool pops_stack = outer || in_code64(v);
    if (pops_stack) {
        s = (struct far_stack){.code64 = r.code64};
        if (!frame_word(v, in, 3, &sp) || !frame_word(v, in, 4, &ss) || !return_ss(v, (uint16_t)ss, &r, &s))
            return EXEC_FAULT;
        s.sp = sp;
    }
    far_load_flags(v, iret_flags(v, in, w[2]));
    if (pops_stack)
        stack_commit(v, &s);
    else
        stack_move(v, 3 * in->opsize);
    return outer ? finish(v, &r) : far_jump(v, &r.cs, r.rip);
}

/* SDM 3A, "Task Linking": back to the task named by the current TSS's link. */
static enum exec_result iret_task(struct soft_vcpu *v)
{
    uint16_t link;
    if (in_ia32e(v))
        return fault_gp0(v);
    if (!lin_read(v, (uint32_t)v->st.seg[SEG_TR].base, &link, 2, ACC_READ | ACC_SUPER))
        return EXEC_FAULT;
    struct task_args a = {link, TASK_IRET, v->next_rip, flags_get(v), false, 0, false};
    return task_transfer(v, &a);
}

/* SDM 3A, "Handling Multiple NMIs": NMIs are let in again even if the IRET itself faults. */
static void unblock_nmi(struct soft_vcpu *v)
{
    if (!v->st.nmi_blocked)
        return;
    v->st.nmi_blocked = 0;
    if (fabric_events_pending(v->vm->cfg.fabric, v->idx))
        attn_self(v);
}

enum exec_result exec_iret(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t w[3];
    unblock_nmi(v);
    if (!in_real_like(v) && (v->st.rflags & RF_NT))
        return iret_task(v);
    for (unsigned i = 0; i < 3; i++)
        if (!frame_word(v, in, i, &w[i]))
            return EXEC_FAULT;
    if (in_real_like(v))
        return iret_real(v, in, w);
    if ((w[2] & RF_VM) && cpl(v) == 0 && !in_ia32e(v) && in->opsize == 4)
        return iret_to_v86(v, in, w);
    return iret_protected(v, in, w);
}
