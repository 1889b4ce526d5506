/* Lazy arithmetic flags. The last flag-setting operation leaves its result (cc_dst), a source (cc_src) and its kind
 * (cc_op, with the operand size); whoever needs RFLAGS folds them. Owning vCPU's thread only.
 *
 * cc_dst and cc_src are kept shifted up, so that the operand's top bit is bit 63: then ZF, SF and the carries of ADD
 * and SUB read the same whatever the size, and only AF and PF need it. Each kind's comment says what cc_src is (before
 * the shift); r is the result, a and b the operands.
 */
#ifndef HEC_CPU_SOFT_FLAGS_H
#define HEC_CPU_SOFT_FLAGS_H

#include "cpu/soft/soft.h"

#define RF_CF    UINT64_C(0x0001)
#define RF_PF    UINT64_C(0x0004)
#define RF_AF    UINT64_C(0x0010)
#define RF_ZF    UINT64_C(0x0040)
#define RF_SF    UINT64_C(0x0080)
#define RF_TF    UINT64_C(0x0100)
#define RF_IF    UINT64_C(0x0200)
#define RF_DF    UINT64_C(0x0400)
#define RF_OF    UINT64_C(0x0800)
#define RF_IOPL  UINT64_C(0x3000)
#define RF_NT    UINT64_C(0x4000)
#define RF_RF    UINT64_C(0x10000)
#define RF_VM    UINT64_C(0x20000)
#define RF_AC    UINT64_C(0x40000)
#define RF_VIF   UINT64_C(0x80000)
#define RF_VIP   UINT64_C(0x100000)
#define RF_ID    UINT64_C(0x200000)
#define RF_ARITH (RF_CF | RF_PF | RF_AF | RF_ZF | RF_SF | RF_OF)
#define RF_FIXED UINT64_C(0x0002)

/* Kinds, in cc_op's low byte; bits 8.. hold log2 of the operand's bytes. Of every kind but CC_RFLAGS: ZF is cc_dst ==
 * 0, SF is its bit 63, PF is the parity of r's low byte. */
enum cc_kind {
    CC_RFLAGS = 0, /* st.rflags has them */
    CC_LOGIC,      /* CF, OF, AF clear; cc_src unused */
    CC_ADD,        /* r = a + b; cc_src = b */
    CC_SUB,        /* r = a - b; cc_src = b */
    CC_ADC1,       /* r = a + b + 1; cc_src = b */
    CC_SBB1,       /* r = a - b - 1; cc_src = b */
    CC_INC,        /* r = a + 1; cc_src bit 0 = the CF that stays (not shifted) */
    CC_DEC,        /* r = a - 1; the same */
    CC_SHL,        /* r = a << n; cc_src = a << (n - 1), so its bit 63 is CF */
    CC_SHR,        /* r = a >> n, logical or arithmetic; cc_src bit 0 = CF (not shifted) */
    CC_EXPL        /* cc_src has CF, AF and OF at their places in RFLAGS (not shifted) */
};

#define CC(kind, log2) ((uint32_t)(kind) | (uint32_t)(log2) << 8)

/* The arithmetic flags as bits of RFLAGS; changes nothing. */
uint64_t flags_arith(const struct soft_vcpu *v);
/* Condition code `cc` (0..15, as in Jcc's opcode). SDM 1, "EFLAGS Condition Codes". */
bool flags_cond(const struct soft_vcpu *v, unsigned cc);
/* All of RFLAGS, folded (st.rflags holds them afterwards). */
uint64_t flags_get(struct soft_vcpu *v);

/* Replace the arithmetic flags by those of `arith`; the other bits of RFLAGS stay. */
static inline void flags_put(struct soft_vcpu *v, uint64_t arith)
{
    v->st.rflags = (v->st.rflags & ~RF_ARITH) | (arith & RF_ARITH);
    v->cc_op = CC_RFLAGS;
}

/* Replace RFLAGS whole. The caller calls mode_update() if TF, AC or VM may have changed. */
static inline void flags_load(struct soft_vcpu *v, uint64_t rflags)
{
    v->st.rflags = rflags | RF_FIXED;
    v->cc_op = CC_RFLAGS;
}

static inline void cc_set(struct soft_vcpu *v, uint32_t op, uint64_t dst, uint64_t src)
{
    v->cc_dst = dst;
    v->cc_src = src;
    v->cc_op = op;
}

/* CF if that takes no folding, else 2 (never for CC_RFLAGS). */
static inline unsigned flags_cf_quick(const struct soft_vcpu *v)
{
    uint64_t r = v->cc_dst, s = v->cc_src;
    switch ((uint8_t)v->cc_op) {
    case CC_RFLAGS:
        return v->st.rflags & RF_CF;
    case CC_LOGIC:
        return 0;
    case CC_ADD:
        return r < s;
    case CC_SUB:
        return r + s < s;
    case CC_INC:
    case CC_DEC:
    case CC_SHR:
    case CC_EXPL:
        return s & 1;
    default:
        return 2;
    }
}

/* CF alone: what ADC, SBB, INC, DEC and the rotates through carry ask for. */
static inline bool flags_cf(const struct soft_vcpu *v)
{
    unsigned cf = flags_cf_quick(v);
    return cf < 2 ? cf : flags_arith(v) & RF_CF;
}

/* Set CF and leave the others, as BT does (which leaves OF, SF, AF and PF undefined): cheap, nothing is folded. */
static inline void flags_set_cf_keep_zf(struct soft_vcpu *v, bool cf)
{
    if ((uint8_t)v->cc_op == CC_RFLAGS) {
        v->st.rflags = (v->st.rflags & ~RF_CF) | cf;
        return;
    }
    v->cc_op = (v->cc_op & ~0xffu) | CC_EXPL;
    v->cc_src = cf;
}

#endif
