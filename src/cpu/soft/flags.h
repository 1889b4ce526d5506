/* Lazy arithmetic flags. The last flag-setting operation leaves its result (cc_dst), a source (cc_src) and its kind
 * (cc_op, with the operand size); whoever needs RFLAGS folds them. Owning vCPU's thread only.
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

enum { CC_RFLAGS = 0 }; /* the other kinds are flags.c's and the uop handlers' (see uop.h) */

/* All of RFLAGS, folded (st.rflags holds them afterwards). */
uint64_t flags_get(struct soft_vcpu *v);

/* Replace the arithmetic flags by those of `arith`; the other bits of RFLAGS stay. */
static inline void flags_put(struct soft_vcpu *v, uint64_t arith)
{
    v->st.rflags = (v->st.rflags & ~RF_ARITH) | (arith & RF_ARITH);
    v->cc_op = CC_RFLAGS;
}

/* Replace RFLAGS whole. The caller calls mode_update() if TF or VM may have changed. */
static inline void flags_load(struct soft_vcpu *v, uint64_t rflags)
{
    v->st.rflags = rflags | RF_FIXED;
    v->cc_op = CC_RFLAGS;
}

#endif
