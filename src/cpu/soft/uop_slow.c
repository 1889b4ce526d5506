/* What the handlers' slow twins call, and the ways back to the dispatcher. */
#include "cpu/soft/block.h"

#include "cpu/soft/event.h"

/* ---- memory operands ---- */

bool uop_address(struct soft_vcpu *v, const struct uop *u, unsigned size, unsigned acc)
{
    uint64_t ea = EA_FLAT();
    unsigned seg = u->aflags >> AF_SEG_SHIFT;
    bool long_mode = (v->mode & MODE_CODE) == CODE64;
    if (u->aflags & AF_MASK32)
        ea = (uint32_t)ea;
    else if (u->aflags & AF_MASK16)
        ea = (uint16_t)ea;
    if (u->aflags & AF_BASE)
        ea += v->st.seg[seg].base;
    if (u->aflags & AF_SEG || (!long_mode && ea + size - 1 > 0xffffffff))
        return seg_linear(v, seg, ea, size, acc, &v->tmp);
    v->tmp = ea;
    return true;
}

bool uop_load_slow(struct soft_vcpu *v, const struct uop *u, gva_t gva, unsigned size)
{
    v->block_left = u->left;
    return lin_load_slow(v, gva, size, &v->tmp);
}

bool uop_store_slow(struct soft_vcpu *v, const struct uop *u, gva_t gva, unsigned size, uint64_t val)
{
    v->block_left = u->left;
    return lin_store_slow(v, gva, size, val);
}

bool uop_rmw_slow(struct soft_vcpu *v, const struct uop *u, gva_t gva, unsigned size)
{
    v->block_left = u->left;
    return lin_probe_write(v, gva, size, ACC_WRITE) && lin_load_slow(v, gva, size, &v->tmp);
}

/* ---- back to the dispatcher ---- */

/* The instructions after this one give their budget back. */
static const struct uop *stop(struct soft_vcpu *v, const struct uop *u, enum uop_stop why)
{
    v->budget += u->left - 1;
    v->stop = why;
    return NULL;
}

const struct uop *uop_fault(struct soft_vcpu *v, const struct uop *u)
{
    v->st.rip = uop_rip(v, u);
    return stop(v, u, STOP_FAULT);
}

const struct uop *uop_mem_fault(struct soft_vcpu *v, const struct uop *u)
{
    if (u->aflags >> AF_SEG_SHIFT == SEG_SS && (v->mode & MODE_CODE) == CODE64)
        fault_stack(v);
    return uop_fault(v, u);
}

const struct uop *uop_stack_fault(struct soft_vcpu *v, const struct uop *u)
{
    fault_stack(v);
    return uop_fault(v, u);
}

const struct uop *uop_done(struct soft_vcpu *v, const struct uop *u)
{
    v->st.rip = rip_wrap(v, v->rip_bias + u->off + u->len);
    return stop(v, u, STOP_LOOKUP);
}

const struct uop *uop_goto(struct soft_vcpu *v, uint64_t rip)
{
    v->st.rip = rip;
    v->stop = STOP_LOOKUP;
    return NULL;
}

const struct uop *uop_fold(struct soft_vcpu *v, const struct uop *u)
{
    flags_get(v);
    TAIL(u);
}

static bool enterable(const struct soft_vcpu *v, const struct block *b)
{
    return v->budget >= atomic_load_explicit(&b->gate, memory_order_relaxed) &&
           !atomic_load_explicit(&v->attn, memory_order_relaxed);
}

const struct uop *uop_link_slow(struct soft_vcpu *v, const struct uop *u)
{
    uint64_t rip = rip_wrap(v, v->rip_bias + u->off + u->len + (uint64_t)(int64_t)u->disp);
    const struct jump_entry *e = &v->jump[jump_slot(rip)];
    bool linkable = rip >> 12 == v->rip_bias >> 12;
    v->patch = u;
    if (v->mode & MODE_SINGLE || e->rip != rip || (linkable && !e->b->page2) || !enterable(v, e->b))
        return uop_goto(v, rip);
    v->patch = NULL;
    v->rip_bias = rip & ~UINT64_C(0xfff);
    v->cur = e->b;
    v->budget -= atomic_load_explicit(&e->b->gate, memory_order_relaxed);
    TAIL(e->b->uops);
}

/* ---- uops that are none of an operation's ---- */

HANDLER(op_nop)
{
    NEXT();
}

/* Bytes that are no instruction: imm is the vector. */
HANDLER(op_bad)
{
    fault_set(v, (unsigned)u->imm, u->imm == VEC_GP, 0);
    return uop_fault(v, u);
}

/* SDM 2, "PAUSE": a vCPU that spins is better off the worker. */
HANDLER(op_pause)
{
    if (++v->pauses < PAUSES_MOST)
        NEXT();
    v->pauses = 0;
    v->run->exit = CPU_EXIT_SPIN;
    uop_done(v, u);
    v->stop = STOP_LEAVE;
    return NULL;
}

COLD static const struct uop *cold_end(struct soft_vcpu *v, const struct uop *u, enum exec_result r)
{
    switch (r) {
    case EXEC_FAULT:
        return uop_fault(v, u);
    case EXEC_JUMP:
    case EXEC_RESTART:
        return stop(v, u, STOP_LOOKUP);
    case EXEC_LEAVE:
        v->st.rip = v->next_rip;
        return stop(v, u, STOP_LEAVE);
    default: /* END, or OK with the block gone */
        v->st.rip = v->next_rip;
        return stop(v, u, STOP_LOOKUP);
    }
}

ALWAYS_INLINE enum exec_result cold(struct soft_vcpu *v, const struct uop *u, const struct insn *in)
{
    v->st.rip = uop_rip(v, u);
    v->next_rip = rip_wrap(v, v->st.rip + u->len);
    v->block_left = u->left;
    return exec_of(in->op)(v, in);
}

HANDLER(op_cold)
{
    enum exec_result r = cold(v, u, u->in);
    if (likely(r == EXEC_OK) && likely(!v->smc))
        NEXT();
    return cold_end(v, u, r);
}

bool uop_execute(struct soft_vcpu *v, const struct uop *u, const struct insn *in)
{
    enum exec_result r = cold(v, u, in);
    if (likely(r == EXEC_OK) && likely(!v->smc))
        return true;
    cold_end(v, u, r);
    return false;
}
