/* Far JMP and CALL: direct, through call gates, and to tasks. SDM 2, "JMP" and "CALL"; SDM 3A, "Call Gates". */
#include "cpu/soft/far.h"

struct far_ptr {
    uint16_t sel;
    uint64_t off;
};

static bool far_target(struct soft_vcpu *v, const struct insn *in, struct far_ptr *p)
{
    uint8_t b[10] = {0};
    p->sel = in->imm2;
    p->off = in->imm & size_mask(in->opsize);
    if (!(in->flags & INSN_MEM))
        return true;
    if (!opnd_read(v, in, b, in->opsize + 2u))
        return false;
    p->sel = ld16(b + in->opsize);
    p->off = 0;
    memcpy(&p->off, b, in->opsize);
    return true;
}

/* Push CS and the return address for a CALL that stays on this stack. */
static bool push_return(struct soft_vcpu *v, unsigned size, struct far_stack *s)
{
    struct far_frame f = {.size = size};
    frame_add(&f, v->st.seg[SEG_CS].sel);
    frame_add(&f, v->next_rip);
    return stack_push_frame(v, s, &f);
}

/* ---- real and virtual-8086 mode ---- */

static enum exec_result transfer_real(struct soft_vcpu *v, const struct insn *in, const struct far_ptr *p, bool call)
{
    struct cpu_segment cs = v->st.seg[SEG_CS];
    struct far_stack s;
    if (in_v86(v))
        seg_set_v86(&cs, p->sel);
    else
        seg_set_real(v, &cs, p->sel);
    stack_current(v, &s);
    if (!seg_check_ip(v, &cs, p->off) || (call && !push_return(v, in->opsize, &s)))
        return EXEC_FAULT;
    stack_commit(v, &s);
    return far_jump(v, &cs, p->off);
}

/* ---- protected mode ---- */

static bool long_size_ok(const struct soft_vcpu *v, uint64_t d)
{
    return !in_ia32e(v) || !desc_long(d) || !desc_big(d);
}

/* Code segment named by the instruction itself: same privilege only. */
static enum exec_result transfer_code(struct soft_vcpu *v, const struct insn *in, const struct far_ptr *p, uint64_t d,
                                      gva_t at, bool call)
{
    struct cpu_segment cs;
    struct far_stack s;
    unsigned rpl = p->sel & 3, dpl = desc_dpl(d);
    bool allowed = desc_conforming(d) ? dpl <= cpl(v) : rpl <= cpl(v) && dpl == cpl(v);
    if (!allowed || !long_size_ok(v, d))
        return raise_sel(v, VEC_GP, p->sel), EXEC_FAULT;
    if (!desc_present(d))
        return raise_sel(v, VEC_NP, p->sel), EXEC_FAULT;
    if (!desc_set_accessed(v, at, &d))
        return EXEC_FAULT;
    seg_from_desc(&cs, (uint16_t)((p->sel & ~3u) | cpl(v)), d);
    stack_current(v, &s);
    if (!seg_check_ip(v, &cs, p->off) || (call && !push_return(v, in->opsize, &s)))
        return EXEC_FAULT;
    stack_commit(v, &s);
    return far_jump(v, &cs, p->off);
}

struct call_gate {
    uint16_t sel;
    uint64_t off;
    unsigned size;   /* of what is pushed */
    unsigned params; /* words copied to an inner stack */
};

static bool read_gate(struct soft_vcpu *v, uint16_t sel, uint64_t d, struct call_gate *g)
{
    uint64_t hi = 0;
    bool wide = desc_type(d) & 8;
    g->size = in_ia32e(v) ? 8 : wide ? 4 : 2;
    g->params = in_ia32e(v) ? 0 : (unsigned)bits(d, 36, 32);
    g->sel = (uint16_t)bits(d, 31, 16);
    g->off = bits(d, 15, 0) | (wide ? bits(d, 63, 48) << 16 : 0);
    if (!in_ia32e(v))
        return true;
    if (!desc_read_high(v, sel, &hi))
        return false;
    g->off |= hi << 32;
    return !bits(hi, 44, 40) || raise_sel(v, VEC_GP, sel);
}

/* The gate's code segment; `inner`: a CALL through it changes to its DPL. */
static bool gate_code(struct soft_vcpu *v, const struct call_gate *g, bool call, struct cpu_segment *cs, bool *inner)
{
    uint64_t d;
    gva_t at;
    if (sel_is_null(g->sel))
        return raise_sel(v, VEC_GP, 0);
    if (!desc_read(v, g->sel, VEC_GP, &d, &at))
        return false;
    unsigned dpl = desc_dpl(d);
    bool reachable = call || desc_conforming(d) ? dpl <= cpl(v) : dpl == cpl(v);
    bool wrong_size = in_ia32e(v) && (!desc_long(d) || desc_big(d));
    if (!desc_is_code(d) || !reachable || wrong_size)
        return raise_sel(v, VEC_GP, g->sel);
    if (!desc_present(d))
        return raise_sel(v, VEC_NP, g->sel);
    *inner = !desc_conforming(d) && dpl < cpl(v);
    if (!desc_set_accessed(v, at, &d))
        return false;
    seg_from_desc(cs, (uint16_t)((g->sel & ~3u) | (*inner ? dpl : cpl(v))), d);
    return seg_check_ip(v, cs, g->off);
}

/* The caller's SS:RSP and its parameters, which lie above its RSP, last one highest. */
static bool push_caller(struct soft_vcpu *v, const struct call_gate *g, struct far_frame *f)
{
    frame_add(f, v->st.seg[SEG_SS].sel);
    frame_add(f, v->st.gpr[RSP]);
    for (unsigned i = g->params; i-- > 0;) {
        uint64_t word;
        if (!stack_peek(v, i * g->size, g->size, &word))
            return false;
        frame_add(f, word);
    }
    return true;
}

static enum exec_result transfer_gate(struct soft_vcpu *v, const struct far_ptr *p, uint64_t d, bool call)
{
    struct call_gate g;
    struct cpu_segment cs;
    struct far_stack s;
    bool inner;
    if (!read_gate(v, p->sel, d, &g) || !gate_code(v, &g, call, &cs, &inner))
        return EXEC_FAULT;
    struct far_frame f = {.size = g.size};
    stack_current(v, &s);
    s.code64 = in_ia32e(v);
    if (inner && (!stack_from_tss(v, cs.sel & 3, &s) || !push_caller(v, &g, &f)))
        return EXEC_FAULT;
    frame_add(&f, v->st.seg[SEG_CS].sel);
    frame_add(&f, v->next_rip);
    if (call) {
        if (!stack_push_frame(v, &s, &f))
            return EXEC_FAULT;
        stack_commit(v, &s);
    }
    return far_jump(v, &cs, g.off);
}

static enum exec_result transfer_task(struct soft_vcpu *v, uint16_t tss, bool call)
{
    struct task_args a = {tss, call ? TASK_CALL : TASK_JMP, v->next_rip, flags_get(v), false, 0, false};
    return task_transfer(v, &a);
}

/* Gates and TSSs: types the mode knows, reachable from CPL and RPL. */
static enum exec_result transfer_system(struct soft_vcpu *v, const struct far_ptr *p, uint64_t d, bool call)
{
    unsigned type = desc_type(d), dpl = desc_dpl(d);
    bool gate = type == DT_CALL32 || (!in_ia32e(v) && type == DT_CALL16);
    bool task = !in_ia32e(v) && (type == DT_TSS16 || type == DT_TSS32 || type == DT_TASK_GATE);
    if ((!gate && !task) || dpl < cpl(v) || dpl < (p->sel & 3u))
        return raise_sel(v, VEC_GP, p->sel), EXEC_FAULT;
    if (!desc_present(d))
        return raise_sel(v, VEC_NP, p->sel), EXEC_FAULT;
    if (gate)
        return transfer_gate(v, p, d, call);
    return transfer_task(v, type == DT_TASK_GATE ? (uint16_t)bits(d, 31, 16) : p->sel, call);
}

static enum exec_result transfer(struct soft_vcpu *v, const struct insn *in, bool call)
{
    struct far_ptr p;
    uint64_t d;
    gva_t at;
    if (!far_target(v, in, &p))
        return EXEC_FAULT;
    if (in_real_like(v))
        return transfer_real(v, in, &p, call);
    if (sel_is_null(p.sel))
        return exec_fault_err(v, VEC_GP, 0);
    if (!desc_read(v, p.sel, VEC_GP, &d, &at))
        return EXEC_FAULT;
    if (desc_is_code(d))
        return transfer_code(v, in, &p, d, at, call);
    if (!desc_is_segment(d))
        return transfer_system(v, &p, d, call);
    return raise_sel(v, VEC_GP, p.sel), EXEC_FAULT;
}

enum exec_result exec_jmpf(struct soft_vcpu *v, const struct insn *in)
{
    return transfer(v, in, false);
}

enum exec_result exec_callf(struct soft_vcpu *v, const struct insn *in)
{
    return transfer(v, in, true);
}
