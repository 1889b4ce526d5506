/* Host code that belongs to no block: the ways in and out. System V ABI, AMD64, "Registers" and "Stack Frame". */
#include "cpu/jit/jit_priv.h"

static const uint8_t saved[] = {H_BX, H_BP, H_12, H_13, H_14, H_15};

enum { ALIGN = 8 }; /* six saved registers and the return address leave RSP 8 short of a multiple of 16 */

static void each_register(struct asm_buf *a, void one(struct asm_buf *, unsigned size, unsigned reg, struct rm at))
{
    for (unsigned r = 0; r < 16; r++)
        if (host_of(r) != H_NONE)
            one(a, 8, host_of(r), GPR(r));
}

static void spill_one(struct asm_buf *a, unsigned size, unsigned reg, struct rm at)
{
    asm_store(a, size, at, reg);
}

static void spill(struct asm_buf *a)
{
    each_register(a, spill_one);
}

static void fill(struct asm_buf *a)
{
    each_register(a, asm_load);
}

static void move_stack(struct asm_buf *a, int by)
{
    asm_lea(a, 8, H_SP, rm_mem(H_SP, by));
}

static void make_enter(struct jit *j, struct asm_buf *a)
{
    void *here = asm_here(a);
    memcpy(&j->enter, &here, sizeof here);
    for (unsigned i = 0; i < ARRAY_SIZE(saved); i++)
        asm_push(a, saved[i]);
    move_stack(a, -ALIGN);
    asm_mov(a, 8, H_VCPU, H_DI);
    asm_mov(a, 8, T_FLAGS, H_SI);
    fill(a);
    asm_jmp_rm(a, rm_reg(T_FLAGS));
}

/* `leave`, and behind its first half the way out for who has no registers to give back. */
static void *make_leave(struct jit *j, struct asm_buf *a)
{
    j->leave = asm_here(a);
    spill(a);
    void *left = asm_here(a);
    move_stack(a, ALIGN);
    for (unsigned i = ARRAY_SIZE(saved); i-- > 0;)
        asm_pop(a, saved[i]);
    asm_ret(a);
    return left;
}

static void leave_with(struct jit *j, struct asm_buf *a, unsigned reg, enum jit_back how)
{
    asm_lea(a, 8, T_FLAGS, rm_mem(reg, (int32_t)how));
    asm_jmp(a, j->leave);
}

static void make_exits(struct jit *j, struct asm_buf *a)
{
    j->leave_uop = asm_here(a);
    asm_store(a, 8, VCPU(cur), T_ADDR);
    asm_jmp(a, j->leave);
    j->unlinked = asm_here(a);
    leave_with(j, a, T_VAL, BACK_LINK);
    j->untranslated = asm_here(a);
    leave_with(j, a, T_ADDR, BACK_BLOCK);
    j->refuse = asm_here(a);
    asm_test(a, 8, rm_reg(T_VAL), T_VAL);
    uint8_t *linked = asm_jcc(a, A_NE);
    leave_with(j, a, T_ADDR, BACK_REFUSED);
    asm_land(a, linked);
    leave_with(j, a, T_VAL, BACK_LINK_REFUSED);
    j->go_rip = asm_here(a);
    asm_store(a, 8, VCPU(st.rip), T_FLAGS);
    asm_store_imm(a, 1, VCPU(stop), STOP_LOOKUP);
    asm_alu(a, A_XOR, 4, T_FLAGS, rm_reg(T_FLAGS));
    asm_jmp(a, j->leave);
}

/* From code that was itself called, and has pushed an even number of registers since. */
static void call_c(struct asm_buf *a, uint64_t function)
{
    asm_mov_imm(a, T_FLAGS, function);
    move_stack(a, -ALIGN);
    asm_call_rm(a, rm_reg(T_FLAGS));
    move_stack(a, ALIGN);
}

static void make_generic(struct jit *j, struct asm_buf *a, const void *left)
{
    bool (*fn)(struct soft_vcpu *, const struct jit_site *) = jit_generic;
    uint64_t at;
    memcpy(&at, &fn, sizeof at);
    j->generic = asm_here(a);
    spill(a);
    asm_mov(a, 8, H_DI, H_VCPU);
    asm_mov(a, 8, H_SI, T_FLAGS);
    call_c(a, at);
    asm_test(a, 1, rm_reg(H_AX), H_AX);
    uint8_t *ended = asm_jcc(a, A_E);
    fill(a);
    asm_ret(a);
    asm_land(a, ended);
    move_stack(a, 8);
    asm_alu(a, A_XOR, 4, T_FLAGS, rm_reg(T_FLAGS));
    asm_jmp(a, left);
}

/* The guest's registers in host registers that C need not keep. */
static const uint8_t lost[] = {H_CX, H_DX, H_SI, H_DI, H_8, H_9};

static void make_refill(struct jit *j, struct asm_buf *a)
{
    uint8_t *(*fn)(struct soft_vcpu *, gva_t, unsigned) = jit_refill;
    uint64_t at;
    memcpy(&at, &fn, sizeof at);
    j->refill = asm_here(a);
    for (unsigned i = 0; i < ARRAY_SIZE(lost); i++)
        asm_push(a, lost[i]);
    asm_mov(a, 8, H_DI, H_VCPU);
    asm_mov(a, 8, H_SI, T_ADDR);
    asm_mov(a, 4, H_DX, T_FLAGS);
    call_c(a, at);
    for (unsigned i = ARRAY_SIZE(lost); i-- > 0;)
        asm_pop(a, lost[i]);
    asm_mov(a, 8, T_ADDR, H_AX);
    asm_test(a, 8, rm_reg(H_AX), H_AX);
    asm_ret(a);
}

bool jit_make_thunks(struct jit *j)
{
    struct asm_buf a = {.at = j->rw, .end = j->rw + JIT_SIZE, .run = j->rx - j->rw};
    make_enter(j, &a);
    const void *left = make_leave(j, &a);
    make_exits(j, &a);
    make_generic(j, &a, left);
    make_refill(j, &a);
    j->thunks = j->front = align_up((uint32_t)(a.at - j->rw), 64);
    return !a.full;
}
