/* SSE..SSE4.2, AES, PCLMULQDQ, SHA and MMX: the table of opcodes and the driver.
 *
 * Most instructions are a pure function of two register images: the driver finds the images (a register's, or the
 * memory operand's where it lies in guest RAM), and a stub runs the instruction itself on them. The rest has an
 * executor of its own in exec_sse_move.c, exec_sse_cvt.c or exec_sse_state.c.
 */
#include <immintrin.h>

#include "cpu/soft/sse.h"

enum sse_kind { K_UD, K_X, K_XI, K_X0, K_M, K_MI, K_LOAD, K_STORE, K_SPECIAL };
enum sse_flag {
    SF_A = 1,     /* an aligned memory operand */
    SF_F = 2,     /* consults MXCSR, raises SIMD floating-point exceptions */
    SF_T = 4,     /* a denormal result raises #U if that is unmasked */
    SF_MEM = 8,   /* exists with a memory operand only */
    SF_REG = 16,  /* exists with a register operand only */
    SF_LANE0 = 32 /* INSERTPS: a memory operand is lane 0 whatever the immediate says */
};

/* What CPUID must offer: bit + 1 of leaf 1 ECX, or of leaf 7 EBX with FEAT_LEAF7. */
enum sse_feature {
    FEAT_LEAF7 = 0x40,
    FEAT_SSE3 = 0 + 1,
    FEAT_PCLMUL = 1 + 1,
    FEAT_SSSE3 = 9 + 1,
    FEAT_SSE41 = 19 + 1,
    FEAT_SSE42 = 20 + 1,
    FEAT_AES = 25 + 1,
    FEAT_SHA = FEAT_LEAF7 | (29 + 1)
};

struct sse_op {
    uint8_t kind, size, flags, feature;
    union {
        sse_fn *x;
        sse_imm_fn *xi;
        sse_xmm0_fn *x0;
        exec_fn *special;
    };
};

#define SPECIAL(m, p, o, fl, ft, f) [m - 1][p][o] = {.kind = K_SPECIAL, .flags = fl, .feature = ft, .special = f},
#define LOAD(m, p, o, fl, ft)       [m - 1][p][o] = {.kind = K_LOAD, .size = 16, .flags = fl, .feature = ft},
#define STORE(m, p, o, fl)          [m - 1][p][o] = {.kind = K_STORE, .size = 16, .flags = fl},

/* [map - 1][prefix][opcode] */
static const struct sse_op sse_ops[3][4][256] = {
#define X(m, p, o, n, fl, ft)  [m - 1][p][0x##o] = {K_X, n, fl, ft, {.x = sse_stub_##m##_##p##_##o}},
#define XI(m, p, o, n, fl, ft) [m - 1][p][0x##o] = {K_XI, n, fl, ft, {.xi = sse_stub_##m##_##p##_##o}},
#define X0(m, p, o, n, fl, ft) [m - 1][p][0x##o] = {K_X0, n, fl, ft, {.x0 = sse_stub_##m##_##p##_##o}},
#define M(m, o, n, ft)         [m - 1][0][0x##o] = {K_M, n, 0, ft, {.x = sse_stub_##m##_0_##o}},
#define MI(m, o, n, ft)        [m - 1][0][0x##o] = {K_MI, n, 0, ft, {.xi = sse_stub_##m##_0_##o}},
#include "cpu/soft/sse_ops.def"

    LOAD(1, 0, 0x10, 0, 0) LOAD(1, 1, 0x10, 0, 0) STORE(1, 0, 0x11, 0) STORE(1, 1, 0x11, 0) LOAD(1, 0, 0x28, SF_A, 0)
        LOAD(1, 1, 0x28, SF_A, 0) STORE(1, 0, 0x29, SF_A) STORE(1, 1, 0x29, SF_A) STORE(
            1, 0, 0x2b, SF_A | SF_MEM) STORE(1, 1, 0x2b, SF_A | SF_MEM) STORE(1, 1, 0xe7, SF_A | SF_MEM)
            LOAD(1, 1, 0x6f, SF_A, 0) LOAD(1, 2, 0x6f, 0, 0) STORE(1, 1, 0x7f, SF_A) STORE(1, 2, 0x7f, 0) LOAD(
                1, 3, 0xf0, SF_MEM, FEAT_SSE3) LOAD(2, 1, 0x2a, SF_A | SF_MEM, FEAT_SSE41)

                SPECIAL(1, 2, 0x10, 0, 0, sse_movs_load) SPECIAL(1, 3, 0x10, 0, 0, sse_movs_load) SPECIAL(
                    1, 2, 0x11,
                    0, 0, sse_movs_store) SPECIAL(1, 3, 0x11, 0, 0, sse_movs_store)
                    SPECIAL(1, 0, 0x12, 0, 0, sse_movlp_load) SPECIAL(1, 1, 0x12, SF_MEM, 0, sse_movlp_load) SPECIAL(
                        1, 0,
                        0x13, SF_MEM, 0, sse_movlp_store) SPECIAL(1, 1, 0x13, SF_MEM, 0, sse_movlp_store)
                        SPECIAL(1, 0, 0x16, 0, 0, sse_movhp_load) SPECIAL(1, 1, 0x16, SF_MEM, 0, sse_movhp_load) SPECIAL(
                            1, 0,
                            0x17, SF_MEM, 0, sse_movhp_store) SPECIAL(1, 1, 0x17, SF_MEM, 0,
                                                                      sse_movhp_store) SPECIAL(1, 2, 0x7e, 0, 0, sse_movq_load)
                            SPECIAL(1, 1, 0xd6, 0, 0, sse_movq_store) SPECIAL(1, 0, 0x6e, 0, 0, mmx_movd_load) SPECIAL(
                                1, 1, 0x6e,
                                0, 0, sse_movd_load) SPECIAL(1, 0, 0x7e, 0, 0,
                                                             mmx_movd_store) SPECIAL(1, 1, 0x7e, 0, 0, sse_movd_store)
                                SPECIAL(1, 0, 0x6f, 0, 0, mmx_movq_load) SPECIAL(1, 0, 0x7f, 0, 0, mmx_movq_store) SPECIAL(
                                    1, 0, 0xe7,
                                    SF_MEM,
                                    0, mmx_movq_store) SPECIAL(1, 2, 0xd6, SF_REG,
                                                               0, sse_movq2dq) SPECIAL(1, 3, 0xd6, SF_REG, 0, sse_movdq2q)
                                    SPECIAL(
                                        1, 0,
                                        0xf7, SF_REG, 0, mmx_maskmov) SPECIAL(1, 1, 0xf7, SF_REG, 0,
                                                                              sse_maskmov) SPECIAL(1, 0, 0x50, SF_REG, 0, sse_movmsk)
                                        SPECIAL(1, 1, 0x50, SF_REG, 0, sse_movmsk) SPECIAL(
                                            1, 0,
                                            0xd7, SF_REG, 0,
                                            mmx_pmovmskb) SPECIAL(1, 1, 0xd7, SF_REG, 0,
                                                                  sse_pmovmskb) SPECIAL(1, 0, 0xc4, 0, 0, mmx_pinsrw)
                                            SPECIAL(1, 1, 0xc4, 0, 0, sse_pinsr) SPECIAL(
                                                3, 1, 0x20,
                                                0, FEAT_SSE41, sse_pinsr) SPECIAL(3, 1, 0x22, 0, FEAT_SSE41, sse_pinsr)
                                                SPECIAL(1, 0, 0xc5, SF_REG, 0, mmx_pextrw) SPECIAL(
                                                    1, 1,
                                                    0xc5, SF_REG, 0,
                                                    sse_pextrw) SPECIAL(3, 1, 0x14, 0, FEAT_SSE41, sse_pextr)
                                                    SPECIAL(3, 1, 0x15, 0, FEAT_SSE41, sse_pextr) SPECIAL(
                                                        3, 1, 0x16,
                                                        0, FEAT_SSE41,
                                                        sse_pextr) SPECIAL(3, 1, 0x17, 0, FEAT_SSE41, sse_pextr)
                                                        SPECIAL(1, 0, 0x71, SF_REG, 0, mmx_shift_imm) SPECIAL(
                                                            1, 1,
                                                            0x71, SF_REG, 0,
                                                            sse_shift_imm) SPECIAL(1, 0, 0x72, SF_REG, 0, mmx_shift_imm)
                                                            SPECIAL(1, 1, 0x72, SF_REG, 0, sse_shift_imm) SPECIAL(
                                                                1, 0, 0x73,
                                                                SF_REG,
                                                                0, mmx_shift_imm) SPECIAL(1, 1, 0x73, SF_REG, 0,
                                                                                          sse_shift_imm)
                                                                SPECIAL(1, 0, 0x2a, 0, 0, sse_cvt_from_mmx) SPECIAL(
                                                                    1, 1, 0x2a,
                                                                    0,
                                                                    0, sse_cvt_from_mmx) SPECIAL(1, 2, 0x2a, 0, 0,
                                                                                                 sse_cvt_from_int)
                                                                    SPECIAL(1, 3, 0x2a, 0, 0, sse_cvt_from_int) SPECIAL(
                                                                        1, 0, 0x2c,
                                                                        0, 0, sse_cvt_to_mmx) SPECIAL(1, 1, 0x2c, 0,
                                                                                                      0, sse_cvt_to_mmx)
                                                                        SPECIAL(1, 0, 0x2d, 0, 0, sse_cvt_to_mmx) SPECIAL(
                                                                            1, 1, 0x2d,
                                                                            0, 0, sse_cvt_to_mmx) SPECIAL(1, 2, 0x2c, 0,
                                                                                                          0, sse_cvt_to_int)
                                                                            SPECIAL(1, 3, 0x2c, 0, 0, sse_cvt_to_int) SPECIAL(
                                                                                1, 2, 0x2d,
                                                                                0,
                                                                                0, sse_cvt_to_int) SPECIAL(1, 3, 0x2d,
                                                                                                           0, 0, sse_cvt_to_int)
                                                                                SPECIAL(
                                                                                    1, 0, 0x2e,
                                                                                    0, 0,
                                                                                    sse_compare) SPECIAL(1, 1,
                                                                                                         0x2e, 0, 0,
                                                                                                         sse_compare)
                                                                                    SPECIAL(
                                                                                        1, 0, 0x2f,
                                                                                        0, 0,
                                                                                        sse_compare) SPECIAL(1, 1,
                                                                                                             0x2f, 0, 0,
                                                                                                             sse_compare)
                                                                                        SPECIAL(
                                                                                            2, 1, 0x17,
                                                                                            0, FEAT_SSE41,
                                                                                            sse_test) SPECIAL(3,
                                                                                                              1, 0x60, 0,
                                                                                                              FEAT_SSE42,
                                                                                                              sse_string)
                                                                                            SPECIAL(
                                                                                                3, 1, 0x61,
                                                                                                0, FEAT_SSE42,
                                                                                                sse_string)
                                                                                                SPECIAL(
                                                                                                    3, 1, 0x62,
                                                                                                    0, FEAT_SSE42,
                                                                                                    sse_string)
                                                                                                    SPECIAL(
                                                                                                        3, 1, 0x63,
                                                                                                        0, FEAT_SSE42,
                                                                                                        sse_string)
                                                                                                        SPECIAL(
                                                                                                            1, 0, 0x77,
                                                                                                            0, 0,
                                                                                                            mmx_emms)
                                                                                                            SPECIAL(
                                                                                                                1, 0,
                                                                                                                0xae,
                                                                                                                SF_MEM,
                                                                                                                0,
                                                                                                                sse_group_ae)};

/* ---- checks ---- */

bool sse_check_slow(struct soft_vcpu *v)
{
    if ((v->st.cr0 & CR0_EM) || !(v->st.cr4 & CR4_OSFXSR)) {
        fault_set(v, VEC_UD, false, 0);
        return false;
    }
    fault_set(v, VEC_NM, false, 0);
    return false;
}

bool mmx_check(struct soft_vcpu *v)
{
    if (likely(!(v->st.cr0 & (CR0_EM | CR0_TS)) && !fpu_pending(v)))
        return true;
    fault_set(v, v->st.cr0 & CR0_EM ? VEC_UD : v->st.cr0 & CR0_TS ? VEC_NM : VEC_MF, false, 0);
    return false;
}

static bool has_feature(const struct soft_vcpu *v, uint8_t feature)
{
    const struct cpuid_model *m = v->vm->cfg.cpuid;
    uint32_t word = feature & FEAT_LEAF7 ? m->std7_ebx : m->std1_ecx;
    return word >> ((feature & ~FEAT_LEAF7) - 1) & 1;
}

/* ---- memory operands ---- */

static const uint8_t *mem_src_slow(struct soft_vcpu *v, const struct insn *in, unsigned size, bool aligned,
                                   uint8_t buf[16])
{
    gva_t gva;
    memset(buf, 0, 16);
    if (!opnd_linear(v, in, size, ACC_READ, &gva))
        return NULL;
    if (aligned && (gva & 15)) {
        fault_set(v, VEC_GP, true, 0);
        return NULL;
    }
    return lin_read(v, gva, buf, size, ACC_READ) ? buf : NULL;
}

const uint8_t *sse_mem_src(struct soft_vcpu *v, const struct insn *in, unsigned size, bool aligned, uint8_t buf[16])
{
    if (likely(in_code64(v))) {
        gva_t gva = mem_gva64(v, in);
        const uint8_t *p = tlb_read(v, gva, size);
        if (likely(p && !(aligned && (gva & 15)))) {
            if (size == 16)
                return p;
            /* One 16-byte store: the stub's load of the image can then be forwarded from it. */
            _mm_storeu_si128((__m128i *)buf, _mm_cvtsi64_si128((long long)guest_ld(p, size)));
            return buf;
        }
    }
    return mem_src_slow(v, in, size, aligned, buf);
}

bool sse_mem_store(struct soft_vcpu *v, const struct insn *in, const void *src, unsigned size, bool aligned)
{
    gva_t gva;
    if (likely(in_code64(v))) {
        gva = mem_gva64(v, in);
        uint8_t *p = tlb_write(v, gva, size);
        if (likely(p && !(aligned && (gva & 15)))) {
            ram_copy(p, src, size);
            return true;
        }
    }
    if (!opnd_linear(v, in, size, ACC_WRITE, &gva))
        return false;
    if (aligned && (gva & 15)) {
        fault_set(v, VEC_GP, true, 0);
        return false;
    }
    return lin_write(v, gva, src, size, ACC_WRITE);
}

/* ---- MXCSR ---- */

/* The host runs masked whatever the guest unmasked. That shows in sticky flags beside an unmasked exception only: PE
 * may be set with an unmasked #O or #U where hardware, which would have tried a wider exponent, found the result exact;
 * and DPPS and DPPD, several operations in one, are taken for a single one. */
void sse_fp_begin(struct soft_vcpu *v)
{
    uint32_t m = v->st.fx.mxcsr;
    uint32_t run = (m | MXCSR_INIT) & ~(uint32_t)FSW_EXCEPTIONS;
    /* "Flush-to-zero" acts on masked underflow only. */
    if (!(m & MXCSR_UM))
        run &= ~(uint32_t)MXCSR_FTZ;
    __asm__ volatile("ldmxcsr %0" : : "m"(run) : "memory");
}

bool sse_fp_end(struct soft_vcpu *v, bool tiny)
{
    enum { PRE = 7, UE = 0x10 };
    const uint32_t host = MXCSR_INIT;
    uint32_t m = v->st.fx.mxcsr, raised, unmasked = ~(m >> 7) & FSW_EXCEPTIONS;
    __asm__ volatile("stmxcsr %0\n\tldmxcsr %1" : "=m"(raised) : "m"(host) : "memory");
    raised &= FSW_EXCEPTIONS;
    /* An unmasked pre-computation exception keeps the operation from being tried ("SIMD Floating-Point Exception
     * Priority"), so no post-computation flag is set. */
    if (raised & unmasked & PRE)
        raised &= PRE;
    else if (tiny)
        raised |= unmasked & UE;
    v->st.fx.mxcsr = m | raised;
    if (likely(!(raised & unmasked)))
        return true;
    fault_set(v, v->st.cr4 & CR4_OSXMMEXCPT ? VEC_XM : VEC_UD, false, 0);
    return false;
}

static bool tiny_single(uint32_t x)
{
    return !(x & 0x7f800000) && (x & 0x7fffff);
}

static bool tiny_double(uint64_t x)
{
    return !(x & UINT64_C(0x7ff0000000000000)) && (x & UINT64_C(0xfffffffffffff));
}

/* Whether a lane the SF_T instruction computed is denormal. */
static bool result_tiny(const struct insn *in, const uint8_t *r)
{
    bool packed = in->prefix < 2 || in->opcode == 0x7c || in->opcode == 0x7d || in->opcode == 0xd0;
    bool dbl = (in->prefix & 1) && in->map == 1 && in->opcode != 0x5a;
    if (in->map == 3)
        dbl = in->opcode == 0x41;
    else if (in->prefix == 3 && packed)
        dbl = false;
    unsigned lanes = !packed ? 1 : dbl ? 2 : 4;
    for (unsigned i = 0; i < lanes; i++)
        if (dbl ? tiny_double(ld64(r + 8 * i)) : tiny_single(ld32(r + 4 * i)))
            return true;
    return false;
}

static void call_stub(const struct sse_op *op, const struct insn *in, uint8_t *d, const uint8_t *s)
{
    if (op->kind == K_X)
        op->x(d, s);
    else
        op->xi(d, s, (unsigned)in->imm);
}

static enum exec_result run_fp_unmasked(struct soft_vcpu *v, const struct sse_op *op, const struct insn *in, uint8_t *d,
                                        const uint8_t *s)
{
    uint8_t r[16];
    memcpy(r, d, 16);
    sse_fp_begin(v);
    call_stub(op, in, r, s);
    if (!sse_fp_end(v, (op->flags & SF_T) && result_tiny(in, r)))
        return EXEC_FAULT;
    memcpy(d, r, 16);
    return EXEC_OK;
}

static enum exec_result run_fp(struct soft_vcpu *v, const struct sse_op *op, const struct insn *in, uint8_t *d,
                               const uint8_t *s)
{
    const uint32_t host = MXCSR_INIT;
    if (unlikely(!sse_fp_masked(v)))
        return run_fp_unmasked(v, op, in, d, s);
    __asm__ volatile("ldmxcsr %0" : : "m"(v->st.fx.mxcsr) : "memory");
    call_stub(op, in, d, s);
    __asm__ volatile("stmxcsr %0\n\tldmxcsr %1" : "=m"(v->st.fx.mxcsr) : "m"(host) : "memory");
    return EXEC_OK;
}

/* ---- the driver ---- */

static enum exec_result run_xmm(struct soft_vcpu *v, const struct sse_op *op, const struct insn *in)
{
    uint8_t buf[16];
    uint8_t *d = xmm(v, in->reg);
    if (!sse_check(v))
        return EXEC_FAULT;
    const uint8_t *s = sse_src(v, in, op->size, op->flags & SF_A, buf);
    if (unlikely(!s))
        return EXEC_FAULT;
    if (op->flags & SF_F)
        return run_fp(v, op, in, d, s);
    switch (op->kind) {
    case K_X:
        op->x(d, s);
        break;
    case K_XI:
        op->xi(d, s, (unsigned)(op->flags & SF_LANE0 && is_mem(in) ? in->imm & 0x3f : in->imm));
        break;
    default:
        op->x0(d, s, xmm(v, 0));
    }
    return EXEC_OK;
}

static enum exec_result run_mmx(struct soft_vcpu *v, const struct sse_op *op, const struct insn *in)
{
    uint8_t buf[16];
    const uint8_t *s = buf;
    if (!mmx_check(v) || (is_mem(in) && !(s = sse_mem_src(v, in, op->size, false, buf))))
        return EXEC_FAULT;
    fpu_mmx_begin(v);
    if (!is_mem(in))
        s = mm(v, in->rm);
    if (op->kind == K_M)
        op->x(mm(v, in->reg), s);
    else
        op->xi(mm(v, in->reg), s, (unsigned)in->imm);
    mm_written(v, in->reg);
    return EXEC_OK;
}

static enum exec_result run_load(struct soft_vcpu *v, const struct sse_op *op, const struct insn *in)
{
    uint8_t buf[16];
    if (!sse_check(v))
        return EXEC_FAULT;
    const uint8_t *s = sse_src(v, in, 16, op->flags & SF_A, buf);
    if (unlikely(!s))
        return EXEC_FAULT;
    ram_copy16(xmm(v, in->reg), s);
    return EXEC_OK;
}

static enum exec_result run_store(struct soft_vcpu *v, const struct sse_op *op, const struct insn *in)
{
    if (!sse_check(v))
        return EXEC_FAULT;
    if (!is_mem(in))
        ram_copy16(xmm(v, in->rm), xmm(v, in->reg));
    else if (!sse_mem_store(v, in, xmm(v, in->reg), 16, op->flags & SF_A))
        return EXEC_FAULT;
    return EXEC_OK;
}

enum exec_result exec_sse(struct soft_vcpu *v, const struct insn *in)
{
    if (unlikely(in->map - 1u > 2))
        return exec_fault(v, VEC_UD);
    const struct sse_op *op = &sse_ops[in->map - 1][in->prefix & 3][in->opcode];
    if (unlikely(op->feature && !has_feature(v, op->feature)))
        return exec_fault(v, VEC_UD);
    if (unlikely(op->flags & (is_mem(in) ? SF_REG : SF_MEM)))
        return exec_fault(v, VEC_UD);
    switch (op->kind) {
    case K_X:
    case K_XI:
    case K_X0:
        return run_xmm(v, op, in);
    case K_M:
    case K_MI:
        return run_mmx(v, op, in);
    case K_LOAD:
        return run_load(v, op, in);
    case K_STORE:
        return run_store(v, op, in);
    case K_SPECIAL:
        return op->special(v, in);
    default:
        return exec_fault(v, VEC_UD);
    }
}
