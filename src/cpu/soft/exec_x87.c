/* x87: everything but control and environment. SDM 1, "Programming with the x87 FPU"; SDM 2.
 *
 * The host FPU holds the guest's registers (fpu.h), so an instruction is a call of its own stub, and its result,
 * condition codes and stack faults are the hardware's. The last instruction's addresses are kept here: the host's would
 * be ours. FCS and FDS are 0, as CPUID.7:EBX[13] says.
 */
#include "cpu/soft/flags.h"
#include "cpu/soft/sse.h"
#include "cpu/soft/x87.h"

typedef void slot_fn(void *operand);
typedef uint8_t slot_bytes[4];
extern const slot_bytes x87_reg_stubs[8][64], x87_mem_stubs[8][8];

struct x87_env {
    uint32_t fcw, fsw, rest[5];
};
uint32_t x87_call_flags(slot_fn *slot, uint32_t flags);
uint32_t x87_call_unmasked(slot_fn *slot, void *operand, const uint16_t *fcw, uint32_t flags, struct x87_env *out);

/* Register forms that exist, by opcode - D8h, bit modrm - C0h; with the aliases every processor since the 8087 has. */
static const uint64_t reg_valid[8] = {
    UINT64_C(0xffffffffffffffff), /* D8 */
    UINT64_C(0xffff7f33ff01ffff), /* D9: FNOP only in D0-D7; no E2, E3, E6, E7, EF */
    UINT64_C(0x00000200ffffffff), /* DA: FCMOVcc, FUCOMPP */
    UINT64_C(0x00ffff1fffffffff), /* DB: FCMOVNcc, E0-E4 control, FUCOMI, FCOMI */
    UINT64_C(0xffffffffffffffff), /* DC */
    UINT64_C(0x0000ffffffffffff), /* DD */
    UINT64_C(0xffffffff02ffffff), /* DE: FCOMPP only in D8-DF */
    UINT64_C(0x00ffff01ffffffff)  /* DF: FNSTSW AX, FUCOMIP, FCOMIP */
};

enum mem_dir { M_UD, M_LOAD, M_STORE, M_CONTROL };
struct mem_form {
    uint8_t dir, size;
};

#define L(n)                                                                                                           \
    {                                                                                                                  \
        M_LOAD, n                                                                                                      \
    }
#define S(n)                                                                                                           \
    {                                                                                                                  \
        M_STORE, n                                                                                                     \
    }
#define C                                                                                                              \
    {                                                                                                                  \
        M_CONTROL, 0                                                                                                   \
    }
static const struct mem_form mem_forms[8][8] = {
    {L(4), L(4), L(4), L(4), L(4), L(4), L(4), L(4)}, {L(4), {0}, S(4), S(4), C, C, C, C},
    {L(4), L(4), L(4), L(4), L(4), L(4), L(4), L(4)}, {L(4), S(4), S(4), S(4), {0}, L(10), {0}, S(10)},
    {L(8), L(8), L(8), L(8), L(8), L(8), L(8), L(8)}, {L(8), S(8), S(8), S(8), C, {0}, C, C},
    {L(2), L(2), L(2), L(2), L(2), L(2), L(2), L(2)}, {L(2), S(2), S(2), S(2), L(10), L(8), S(10), S(8)},
};
#undef L
#undef S
#undef C

static bool all_masked(const struct soft_vcpu *v)
{
    return likely((v->st.fx.fcw & FSW_EXCEPTIONS) == FSW_EXCEPTIONS);
}

static slot_fn *slot_of(const slot_bytes *s)
{
    return (slot_fn *)(uintptr_t)s;
}

/* The last instruction's opcode and address. */
static void record(struct soft_vcpu *v, const struct insn *in)
{
    v->st.fx.fop = (uint16_t)((in->opcode & 7) << 8 | in->modrm);
    v->st.fx.fip = v->st.rip;
}

/* Run a slot under a control word with unmasked exceptions. Returns those it raised; if any, the state is in memory
 * again, with ES set. */
static unsigned run_unmasked(struct soft_vcpu *v, slot_fn *slot, void *operand, uint32_t *flags)
{
    struct x87_env env;
    *flags = x87_call_unmasked(slot, operand, &v->st.fx.fcw, *flags, &env);
    unsigned raised = env.fsw & ~(unsigned)v->st.fx.fcw & FSW_EXCEPTIONS;
    if (raised)
        fpu_to_mem(v);
    return raised;
}

static unsigned run_slot(struct soft_vcpu *v, slot_fn *slot, void *operand)
{
    uint32_t flags = 0;
    fpu_load(v);
    if (!all_masked(v))
        return run_unmasked(v, slot, operand, &flags);
    slot(operand);
    return 0;
}

/* ---- register forms ---- */

/* FCMOVcc reads RFLAGS, FCOMI and its kin write them: OF, SF and AF become 0. Whether an unmasked #I keeps them is the
 * host's choice. */
static enum exec_result run_with_flags(struct soft_vcpu *v, const struct insn *in, slot_fn *slot)
{
    uint32_t flags = (uint32_t)(flags_get(v) & RF_ARITH);
    fpu_load(v);
    if (all_masked(v))
        flags = x87_call_flags(slot, flags & 0xff);
    else
        run_unmasked(v, slot, NULL, &flags);
    if (in->modrm >= 0xe0)
        flags_put(v, flags);
    return EXEC_OK;
}

static bool wants_flags(const struct insn *in)
{
    unsigned op = in->opcode & 7, m = in->modrm;
    return ((op == 2 || op == 3) && m < 0xe0) || ((op == 3 || op == 7) && m >= 0xe8);
}

static bool is_control(const struct insn *in)
{
    return (in->opcode == 0xdb && in->modrm >= 0xe0 && in->modrm <= 0xe4) || (in->opcode == 0xdf && in->modrm == 0xe0);
}

static enum exec_result exec_reg(struct soft_vcpu *v, const struct insn *in)
{
    unsigned op = in->opcode & 7, m = in->modrm & 0x3f;
    if (!(reg_valid[op] >> m & 1))
        return exec_fault(v, VEC_UD);
    if (is_control(in))
        return x87_control_reg(v, in);
    if (fpu_pending(v))
        return exec_fault(v, VEC_MF);
    record(v, in);
    slot_fn *slot = slot_of(&x87_reg_stubs[op][m]);
    if (wants_flags(in))
        return run_with_flags(v, in, slot);
    run_slot(v, slot, NULL);
    return EXEC_OK;
}

/* ---- memory forms ---- */

static enum exec_result mem_load(struct soft_vcpu *v, const struct insn *in, slot_fn *slot, unsigned size)
{
    uint8_t buf[16];
    const uint8_t *p = NULL;
    uint64_t off = insn_offset(v, in);
    if (likely(in_code64(v)))
        p = tlb_read(v, gva64(v, in, off), size);
    if (unlikely(!p)) {
        if (!opnd_read(v, in, buf, size))
            return EXEC_FAULT;
        p = buf;
    }
    record(v, in);
    v->st.fx.fdp = off;
    run_slot(v, slot, (void *)(uintptr_t)p);
    return EXEC_OK;
}

/* Fault as a store would that is not made. */
static bool probe_operand(struct soft_vcpu *v, const struct insn *in, unsigned size)
{
    gva_t gva;
    return opnd_linear(v, in, size, ACC_WRITE, &gva) && lin_probe_write(v, gva, size, ACC_WRITE);
}

/* The store may fault after the stub has popped the stack: then everything is as before. */
static enum exec_result mem_store_slow(struct soft_vcpu *v, const struct insn *in, slot_fn *slot, unsigned size)
{
    enum { NO_STORE = 0x1f }; /* unmasked, any exception but precision keeps the destination */
    struct cpu_fx before;
    uint8_t buf[16];
    fpu_sync(v);
    before = v->st.fx;
    record(v, in);
    v->st.fx.fdp = insn_offset(v, in);
    bool store = !(run_slot(v, slot, buf) & NO_STORE);
    if (store ? opnd_write(v, in, buf, size) : probe_operand(v, in, size))
        return EXEC_OK;
    fpu_discard(v);
    v->st.fx = before;
    return EXEC_FAULT;
}

static enum exec_result mem_store(struct soft_vcpu *v, const struct insn *in, slot_fn *slot, unsigned size)
{
    uint8_t *p = NULL;
    uint64_t off = insn_offset(v, in);
    if (likely(in_code64(v)) && all_masked(v))
        p = tlb_write(v, gva64(v, in, off), size);
    if (unlikely(!p))
        return mem_store_slow(v, in, slot, size);
    record(v, in);
    v->st.fx.fdp = off;
    run_slot(v, slot, p);
    return EXEC_OK;
}

static enum exec_result exec_mem(struct soft_vcpu *v, const struct insn *in)
{
    unsigned op = in->opcode & 7, ext = in->modrm >> 3 & 7;
    const struct mem_form *f = &mem_forms[op][ext];
    if (f->dir == M_CONTROL)
        return x87_control_mem(v, in);
    if (f->dir == M_UD)
        return exec_fault(v, VEC_UD);
    if (fpu_pending(v))
        return exec_fault(v, VEC_MF);
    slot_fn *slot = slot_of(&x87_mem_stubs[op][ext]);
    return f->dir == M_LOAD ? mem_load(v, in, slot, f->size) : mem_store(v, in, slot, f->size);
}

static enum exec_result fwait(struct soft_vcpu *v)
{
    if ((v->st.cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
        return exec_fault(v, VEC_NM);
    return fpu_pending(v) ? exec_fault(v, VEC_MF) : EXEC_OK;
}

enum exec_result exec_x87(struct soft_vcpu *v, const struct insn *in)
{
    if (in->opcode == 0x9b)
        return fwait(v);
    if (unlikely(v->st.cr0 & (CR0_EM | CR0_TS)))
        return exec_fault(v, VEC_NM);
    return is_mem(in) ? exec_mem(v, in) : exec_reg(v, in);
}
