/* Moves: MOV, MOVZX, MOVSX, LEA, the stack, exchanges and sign spreading of registers. */
#include "cpu/soft/uop.h"

/* ---- MOV; a base register and a displacement are by far the most frequent address, so they go without the index ----
 */

#define EA_BASE() (R64(u->base) + (uint64_t)(int64_t)u->disp)
#define BASED_ADDRESS(gva, size, acc)                                                                                  \
    gva_t gva;                                                                                                         \
    if (!SLOW) {                                                                                                       \
        if (unlikely(u->aflags & AF_SLOW))                                                                             \
            return slow(v, u);                                                                                         \
        gva = EA_BASE();                                                                                               \
    } else {                                                                                                           \
        if (!uop_address(v, u, size, acc))                                                                             \
            return uop_fault(v, u);                                                                                    \
        gva = v->tmp;                                                                                                  \
    }

#define MOV(T)                                                                                                         \
    static HANDLER(op_mov_rr_##T)                                                                                      \
    {                                                                                                                  \
        PUT_##T(u->dst, REG(T, u->src));                                                                               \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    static HANDLER(op_mov_ri_##T)                                                                                      \
    {                                                                                                                  \
        PUT_##T(u->dst, (T)u->imm);                                                                                    \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    MEM_HANDLER(op_mov_rm_##T, LOAD(T, x) PUT_##T(u->dst, x); NEXT();)                                                 \
    MEM_HANDLER(op_mov_mr_##T, STORE(T, REG(T, u->src)) NEXT_STORED();)                                                \
    MEM_HANDLER(op_mov_mi_##T, STORE(T, (T)u->imm) NEXT_STORED();)                                                     \
    MEM_HANDLER(op_mov_rb_##T, BASED_ADDRESS(gva, sizeof(T), ACC_READ) LOAD_AT(T, x, gva) PUT_##T(u->dst, x); NEXT();) \
    MEM_HANDLER(op_mov_br_##T, BASED_ADDRESS(gva, sizeof(T), ACC_WRITE) STORE_AT(T, gva, REG(T, u->src)) NEXT_STORED();)

MOV(uint8_t)
MOV(uint16_t)
MOV(uint32_t)
MOV(uint64_t)

#define ROW(name)                                                                                                      \
    {                                                                                                                  \
        name##_uint8_t, name##_uint16_t, name##_uint32_t, name##_uint64_t                                              \
    }

uop_fn *uop_mov(enum uop_form form, unsigned log2, bool indexed)
{
    static uop_fn *const table[FORM_COUNT][4] = {
        [FORM_RR] = ROW(op_mov_rr), [FORM_RI] = ROW(op_mov_ri), [FORM_RM] = ROW(op_mov_rm),
        [FORM_MR] = ROW(op_mov_mr), [FORM_MI] = ROW(op_mov_mi),
    };
    static uop_fn *const based[2][4] = {ROW(op_mov_rb), ROW(op_mov_br)};
    if (!indexed && (form == FORM_RM || form == FORM_MR))
        return based[form == FORM_MR][log2];
    return table[form][log2];
}

/* ---- MOVZX, MOVSX. Widening to 4 and to 8 bytes is one thing when zeros fill ---- */

#define EXTEND(name, from, to)                                                                                         \
    static HANDLER(op_##name##_r)                                                                                      \
    {                                                                                                                  \
        R64(u->dst) = (to)REG(from, u->src);                                                                           \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    MEM_HANDLER(op_##name##_m, LOAD(u##from, x) R64(u->dst) = (to)(from)x; NEXT();)

typedef uint8_t uuint8_t;
typedef uint16_t uuint16_t;

EXTEND(zx1, uint8_t, uint64_t)
EXTEND(zx2, uint16_t, uint64_t)
EXTEND(sx14, int8_t, uint32_t)
EXTEND(sx18, int8_t, uint64_t)
EXTEND(sx24, int16_t, uint32_t)
EXTEND(sx28, int16_t, uint64_t)
EXTEND(sx48, int32_t, uint64_t)

uop_fn *uop_extend(bool sign, bool mem, unsigned from, unsigned to)
{
    if (to < 4 || from > 4 || from >= to)
        return NULL;
    if (!sign)
        return from == 1 ? (mem ? op_zx1_m : op_zx1_r) : (mem ? op_zx2_m : op_zx2_r);
    if (from == 1)
        return to == 4 ? (mem ? op_sx14_m : op_sx14_r) : (mem ? op_sx18_m : op_sx18_r);
    if (from == 2)
        return to == 4 ? (mem ? op_sx24_m : op_sx24_r) : (mem ? op_sx28_m : op_sx28_r);
    return mem ? op_sx48_m : op_sx48_r;
}

/* ---- LEA ---- */

static HANDLER(op_lea_4)
{
    R64(u->dst) = (uint32_t)EA_FLAT();
    NEXT();
}

static HANDLER(op_lea_8)
{
    R64(u->dst) = EA_FLAT();
    NEXT();
}

/* ---- the stack of 64-bit code ---- */

MEM_HANDLER(op_push_r, uint64_t sp = v->st.gpr[RSP] - 8; STORE_AT(uint64_t, sp, R64(u->src)) v->st.gpr[RSP] = sp;
            NEXT_STORED();)
MEM_HANDLER(op_push_i, uint64_t sp = v->st.gpr[RSP] - 8; STORE_AT(uint64_t, sp, u->imm) v->st.gpr[RSP] = sp;
            NEXT_STORED();)
/* POP RSP: the popped value wins. */
MEM_HANDLER(op_pop_r, uint64_t sp = v->st.gpr[RSP]; LOAD_AT(uint64_t, x, sp) v->st.gpr[RSP] = sp + 8; R64(u->dst) = x;
            NEXT();)
MEM_HANDLER(op_leave, uint64_t sp = v->st.gpr[RBP]; LOAD_AT(uint64_t, x, sp) v->st.gpr[RSP] = sp + 8;
            v->st.gpr[RBP] = x; NEXT();)

/* ---- registers among themselves ---- */

static HANDLER(op_xchg_4)
{
    uint32_t a = REG(uint32_t, u->dst), b = REG(uint32_t, u->src);
    R64(u->src) = a;
    R64(u->dst) = b;
    NEXT();
}

static HANDLER(op_xchg_8)
{
    uint64_t a = R64(u->dst), b = R64(u->src);
    R64(u->src) = a;
    R64(u->dst) = b;
    NEXT();
}

static HANDLER(op_bswap_4)
{
    R64(u->dst) = __builtin_bswap32(REG(uint32_t, u->dst));
    NEXT();
}

static HANDLER(op_bswap_8)
{
    R64(u->dst) = __builtin_bswap64(R64(u->dst));
    NEXT();
}

static HANDLER(op_cwde)
{
    v->st.gpr[RAX] = (uint32_t)(int16_t)v->st.gpr[RAX];
    NEXT();
}

static HANDLER(op_cdqe)
{
    v->st.gpr[RAX] = (uint64_t)(int32_t)v->st.gpr[RAX];
    NEXT();
}

static HANDLER(op_cdq)
{
    v->st.gpr[RDX] = (uint32_t)((int32_t)v->st.gpr[RAX] >> 31);
    NEXT();
}

static HANDLER(op_cqo)
{
    v->st.gpr[RDX] = (uint64_t)((int64_t)v->st.gpr[RAX] >> 63);
    NEXT();
}

/* `imm`: PUSH of an immediate. Operand sizes 4 and 8. */
uop_fn *uop_misc(unsigned op, bool imm, unsigned log2)
{
    bool wide = log2 == 3;
    if (log2 < 2)
        return NULL;
    switch (op) {
    case OP_lea:
        return wide ? op_lea_8 : op_lea_4;
    case OP_push:
        return imm ? op_push_i : op_push_r;
    case OP_pop:
        return op_pop_r;
    case OP_leave:
        return op_leave;
    case OP_xchg:
        return wide ? op_xchg_8 : op_xchg_4;
    case OP_bswap:
        return wide ? op_bswap_8 : op_bswap_4;
    case OP_cbw:
        return wide ? op_cdqe : op_cwde;
    case OP_cwd:
        return wide ? op_cqo : op_cdq;
    default:
        return NULL;
    }
}
