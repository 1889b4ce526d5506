/* What exec_sse.c (tables and driver), exec_sse_move.c, exec_sse_cvt.c and exec_sse_state.c share. Owning vCPU's thread
 * only. SDM 1, "Programming with Intel Streaming SIMD Extensions".
 */
#ifndef HEC_CPU_SOFT_SSE_H
#define HEC_CPU_SOFT_SSE_H

#include "cpu/soft/fpu.h"
#include "cpu/soft/mmu.h"

/* ---- guest RAM behind a TLB entry ---- */

/* Other vCPUs may touch the same bytes, so these are single instructions no compiler or sanitizer looks into. */
static inline void ram_copy16(void *dst, const void *src)
{
    typedef uint8_t vec[16];
    __asm__ volatile("movups %1, %%xmm0\n\tmovups %%xmm0, %0" : "=m"(*(vec *)dst) : "m"(*(const vec *)src) : "xmm0");
}

static inline void ram_copy8(void *dst, const void *src)
{
    typedef uint8_t vec[8];
    uint64_t t;
    __asm__ volatile("movq %2, %1\n\tmovq %1, %0" : "=m"(*(vec *)dst), "=&r"(t) : "m"(*(const vec *)src));
}

static inline void ram_copy4(void *dst, const void *src)
{
    typedef uint8_t vec[4];
    uint32_t t;
    __asm__ volatile("movl %2, %1\n\tmovl %1, %0" : "=m"(*(vec *)dst), "=&r"(t) : "m"(*(const vec *)src));
}

static inline void ram_copy2(void *dst, const void *src)
{
    typedef uint8_t vec[2];
    uint16_t t;
    __asm__ volatile("movw %2, %1\n\tmovw %1, %0" : "=m"(*(vec *)dst), "=&r"(t) : "m"(*(const vec *)src));
}

/* `size` is 1, 2, 4, 8, 10 or 16. */
static inline void ram_copy(void *dst, const void *src, unsigned size)
{
    switch (size) {
    case 16:
        ram_copy16(dst, src);
        break;
    case 10:
        ram_copy8(dst, src);
        ram_copy2((uint8_t *)dst + 8, (const uint8_t *)src + 8);
        break;
    case 8:
        ram_copy8(dst, src);
        break;
    case 4:
        ram_copy4(dst, src);
        break;
    case 2:
        ram_copy2(dst, src);
        break;
    default:
        guest_st(dst, 1, guest_ld(src, 1));
    }
}

/* ---- a memory operand ---- */

static inline bool in_code64(const struct soft_vcpu *v)
{
    return (v->mode & MODE_CODE) == CODE64;
}

/* Linear address of the memory operand at `off` in 64-bit code. It may be non-canonical: then no TLB entry has it. */
static inline gva_t gva64(const struct soft_vcpu *v, const struct insn *in, uint64_t off)
{
    return in->seg == SEG_FS || in->seg == SEG_GS ? off + v->st.seg[in->seg].base : off;
}

static inline gva_t mem_gva64(const struct soft_vcpu *v, const struct insn *in)
{
    return gva64(v, in, insn_offset(v, in));
}

/* The memory operand, `size` bytes (at most 16) and zeros to 16; either in RAM or copied to `buf`. NULL: v->fault. An
 * `aligned` operand that is not is #GP(0). */
const uint8_t *sse_mem_src(struct soft_vcpu *v, const struct insn *in, unsigned size, bool aligned, uint8_t buf[16]);
bool sse_mem_store(struct soft_vcpu *v, const struct insn *in, const void *src, unsigned size, bool aligned);

/* ---- registers ---- */

static inline uint8_t *xmm(struct soft_vcpu *v, unsigned r)
{
    return v->st.fx.xmm[r];
}

/* After fpu_mmx_begin(). */
static inline uint8_t *mm(struct soft_vcpu *v, unsigned r)
{
    return v->st.fx.st[r & 7];
}

static inline void mm_written(struct soft_vcpu *v, unsigned r)
{
    st16(mm(v, r) + 8, 0xffff);
}

static inline void gpr_put32(struct soft_vcpu *v, unsigned r, uint32_t val)
{
    v->st.gpr[r] = val;
}

static inline bool is_mem(const struct insn *in)
{
    return in->flags & INSN_MEM;
}

/* The r/m operand as an XMM or memory image. */
static inline const uint8_t *sse_src(struct soft_vcpu *v, const struct insn *in, unsigned size, bool aligned,
                                     uint8_t buf[16])
{
    return is_mem(in) ? sse_mem_src(v, in, size, aligned, buf) : xmm(v, in->rm);
}

/* ---- state checks; false: v->fault ---- */
bool sse_check_slow(struct soft_vcpu *v);
static inline bool sse_check(struct soft_vcpu *v)
{
    if (likely(!(v->st.cr0 & (CR0_EM | CR0_TS)) && (v->st.cr4 & CR4_OSFXSR)))
        return true;
    return sse_check_slow(v);
}
bool mmx_check(struct soft_vcpu *v);

/* ---- instructions that consult MXCSR ---- */

/* Between begin and end the host runs under the guest's MXCSR, masked: nothing but the stub may go there. end()
 * collects the flags; false: an unmasked exception was raised (v->fault is #XM, or #UD without CR4.OSXMMEXCPT) and the
 * result must be dropped. `tiny`: the result has a denormal, which raises an unmasked #U even where it is exact. */
void sse_fp_begin(struct soft_vcpu *v);
bool sse_fp_end(struct soft_vcpu *v, bool tiny);

static inline bool sse_fp_masked(const struct soft_vcpu *v)
{
    return (v->st.fx.mxcsr & MXCSR_INIT) == MXCSR_INIT;
}

/* ---- stubs (exec_sse_stub.S) ---- */
typedef void sse_fn(void *dst, const void *src);
typedef void sse_imm_fn(void *dst, const void *src, unsigned imm8);
typedef void sse_xmm0_fn(void *dst, const void *src, const void *xmm0);
#define X(m, p, o, n, fl, ft)  sse_fn sse_stub_##m##_##p##_##o;
#define XI(m, p, o, n, fl, ft) sse_imm_fn sse_stub_##m##_##p##_##o;
#define X0(m, p, o, n, fl, ft) sse_xmm0_fn sse_stub_##m##_##p##_##o;
#define M(m, o, n, ft)         sse_fn sse_stub_##m##_0_##o;
#define MI(m, o, n, ft)        sse_imm_fn sse_stub_##m##_0_##o;
#include "cpu/soft/sse_ops.def"
#undef X
#undef XI
#undef X0
#undef M
#undef MI

/* ---- executors of what is no pure function of two registers ---- */
exec_fn sse_movs_load, sse_movs_store, sse_movlp_load, sse_movhp_load, sse_movlp_store, sse_movhp_store;
exec_fn sse_movq_load, sse_movq_store, sse_movd_load, sse_movd_store, mmx_movd_load, mmx_movd_store;
exec_fn mmx_movq_load, mmx_movq_store, sse_movq2dq, sse_movdq2q, sse_maskmov, mmx_maskmov;
exec_fn sse_movmsk, sse_pmovmskb, mmx_pmovmskb, sse_pinsr, mmx_pinsrw, sse_pextr, sse_pextrw, mmx_pextrw;
exec_fn sse_shift_imm, mmx_shift_imm;
exec_fn sse_cvt_from_int, sse_cvt_to_int, sse_cvt_from_mmx, sse_cvt_to_mmx, sse_compare, sse_test, sse_string;
exec_fn mmx_emms, sse_group_ae;

#endif
