/* Where a vCPU's floating-point state lives, and the checks every FPU instruction starts with. SDM 1, "Programming with
 * the x87 FPU", "Programming with Intel MMX Technology", "FXSAVE and FXRSTOR Instructions".
 *
 * XMM registers and MXCSR are always in st.fx. The host's MXCSR is loaded with the guest's only around the instructions
 * that consult it (sse.h), so C code never runs in the guest's rounding mode and never sets the guest's flags.
 *
 * The x87 registers are loaded into the host FPU by the first x87 instruction of a run and stay there until
 * fpu_leave(): while they do (X87_LIVE), fsw, ftw and st[] of st.fx are stale. fcw, fop, fip and fdp are always in
 * st.fx; the host's control word is the guest's with every exception masked, so the host never sees #MF.
 *
 * Invariant: no C code that vcpu_run() can reach uses the x87 (long double, or doubles passed to libm); it would meet a
 * full register stack. SSE floating point is all right.
 *
 * Everything here: owning vCPU's thread only.
 */
#ifndef HEC_CPU_SOFT_FPU_H
#define HEC_CPU_SOFT_FPU_H

#include "cpu/soft/event.h"
#include "cpu/soft/soft.h"

enum x87_where {
    X87_MEM,    /* st.fx is exact, the host FPU is as the C ABI wants it */
    X87_LIVE,   /* the host FPU has the guest's registers and status word */
    X87_SCRATCH /* st.fx is exact, the host FPU holds rubbish (an MMX stub ran): EMMS before leaving */
};

/* FSW and FCW bits. */
enum {
    FSW_EXCEPTIONS = 0x3f, /* IE DE ZE OE UE PE: the same bits mask them in FCW */
    FSW_SF = 0x40,
    FSW_ES = 0x80,
    FSW_CC = 0x4700,
    FSW_TOP = 0x3800,
    FSW_TOP_SHIFT = 11,
    FSW_B = 0x8000,
    FCW_INIT = 0x37f,
    FCW_VALID = 0x1f3f, /* writable; bit 6 reads as 1 */
    FCW_ONE = 0x40
};

enum { MXCSR_INIT = 0x1f80, MXCSR_MASK = 0xffff, MXCSR_DM = 0x100, MXCSR_UM = 0x800, MXCSR_FTZ = 0x8000 };

/* At the start and the end of vcpu_run(). After fpu_leave() st.fx is exact and the host FPU is the host's again. */
void fpu_enter(struct soft_vcpu *v);
void fpu_leave(struct soft_vcpu *v);

/* Make st.fx exact without leaving the live state: before it is read. */
void fpu_sync(struct soft_vcpu *v);
/* Make st.fx exact and the only copy: before it is changed. */
void fpu_to_mem(struct soft_vcpu *v);
/* Forget the live registers: st.fx is about to be replaced whole. */
void fpu_discard(struct soft_vcpu *v);
/* The host FPU gets the guest's x87 registers (X87_LIVE). */
void fpu_load(struct soft_vcpu *v);

/* The status word with ES and B as the control word makes them. */
uint16_t fpu_fsw(const struct soft_vcpu *v);
/* An unmasked x87 exception is pending: the next waiting instruction raises #MF. (With CR0.NE = 0 hardware would assert
 * FERR# and wait for IRQ 13; no machine of ours wires that, so #MF is raised then, too.) */
static inline bool fpu_pending(const struct soft_vcpu *v)
{
    unsigned unmasked = ~v->st.fx.fcw & FSW_EXCEPTIONS;
    return unlikely(unmasked != 0) && (fpu_fsw(v) & unmasked) != 0;
}

/* Turn the stack so that st[] stays the same physical registers while FSW.TOP becomes `top` (X87_LIVE excluded). */
void fpu_set_top(struct soft_vcpu *v, unsigned top);
/* What every MMX instruction does: TOP = 0, all tags valid; st.fx is then the only copy and mm(i) is st[i]. */
void fpu_mmx_begin(struct soft_vcpu *v);

#endif
