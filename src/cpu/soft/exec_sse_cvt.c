/* SSE: conversions to and from general and MMX registers, compares that set RFLAGS, string compares. SDM 2. */
#include "cpu/soft/flags.h"
#include "cpu/soft/sse.h"

/* Stubs of exec_sse_stub.S. */
typedef uint64_t to_int_fn(const void *src);
typedef void from_int_fn(void *dst, uint64_t val);
typedef uint32_t compare_fn(const void *a, const void *b);
to_int_fn sse_cvtss2si32, sse_cvtss2si64, sse_cvtsd2si32, sse_cvtsd2si64;
to_int_fn sse_cvttss2si32, sse_cvttss2si64, sse_cvttsd2si32, sse_cvttsd2si64;
from_int_fn sse_cvtsi2ss32, sse_cvtsi2ss64, sse_cvtsi2sd32, sse_cvtsi2sd64;
sse_fn sse_cvtps2pi, sse_cvtpd2pi, sse_cvttps2pi, sse_cvttpd2pi;
compare_fn sse_comiss, sse_ucomiss, sse_comisd, sse_ucomisd, sse_ptest;

static unsigned rex_w(const struct insn *in)
{
    return in->flags & INSN_REX_W ? 1 : 0;
}

/* CVTSS2SI, CVTSD2SI, CVTTSS2SI, CVTTSD2SI */
enum exec_result sse_cvt_to_int(struct soft_vcpu *v, const struct insn *in)
{
    static to_int_fn *const fn[2][2][2] = {/* [double][truncate][64] */
                                           {{sse_cvtss2si32, sse_cvtss2si64}, {sse_cvttss2si32, sse_cvttss2si64}},
                                           {{sse_cvtsd2si32, sse_cvtsd2si64}, {sse_cvttsd2si32, sse_cvttsd2si64}}};
    bool dbl = in->prefix == 3;
    uint8_t buf[16];
    if (!sse_check(v))
        return EXEC_FAULT;
    const uint8_t *s = sse_src(v, in, dbl ? 8 : 4, false, buf);
    if (!s)
        return EXEC_FAULT;
    sse_fp_begin(v);
    uint64_t val = fn[dbl][in->opcode == 0x2c][rex_w(in)](s);
    if (!sse_fp_end(v, false))
        return EXEC_FAULT;
    v->st.gpr[in->reg] = val;
    return EXEC_OK;
}

/* CVTSI2SS, CVTSI2SD */
enum exec_result sse_cvt_from_int(struct soft_vcpu *v, const struct insn *in)
{
    static from_int_fn *const fn[2][2] = {{sse_cvtsi2ss32, sse_cvtsi2ss64}, {sse_cvtsi2sd32, sse_cvtsi2sd64}};
    uint8_t buf[16];
    uint64_t val = v->st.gpr[in->rm];
    if (!sse_check(v))
        return EXEC_FAULT;
    if (is_mem(in)) {
        if (!sse_mem_src(v, in, rex_w(in) ? 8 : 4, false, buf))
            return EXEC_FAULT;
        val = ld64(buf);
    }
    memcpy(buf, xmm(v, in->reg), 16);
    sse_fp_begin(v);
    fn[in->prefix == 3][rex_w(in)](buf, val);
    if (!sse_fp_end(v, false))
        return EXEC_FAULT;
    memcpy(xmm(v, in->reg), buf, 16);
    return EXEC_OK;
}

/* CVTPI2PS, CVTPI2PD, as CVTDQ2PS and CVTDQ2PD of two integers and two zeros. A memory operand leaves the x87 state
 * alone. */
enum exec_result sse_cvt_from_mmx(struct soft_vcpu *v, const struct insn *in)
{
    uint8_t buf[16] = {0}, r[16];
    if (!sse_check(v) || !(is_mem(in) ? sse_mem_src(v, in, 8, false, buf) != NULL : mmx_check(v)))
        return EXEC_FAULT;
    if (!is_mem(in)) {
        fpu_mmx_begin(v);
        memcpy(buf, mm(v, in->rm), 8);
    }
    if (in->prefix == 1) {
        sse_stub_1_2_e6(xmm(v, in->reg), buf);
        return EXEC_OK;
    }
    sse_fp_begin(v);
    sse_stub_1_0_5b(r, buf);
    if (!sse_fp_end(v, false))
        return EXEC_FAULT;
    memcpy(xmm(v, in->reg), r, 8);
    return EXEC_OK;
}

/* CVTPS2PI, CVTPD2PI, CVTTPS2PI, CVTTPD2PI */
enum exec_result sse_cvt_to_mmx(struct soft_vcpu *v, const struct insn *in)
{
    static sse_fn *const fn[2][2] = {{sse_cvtps2pi, sse_cvttps2pi}, {sse_cvtpd2pi, sse_cvttpd2pi}};
    bool dbl = in->prefix == 1;
    uint8_t buf[16], r[8];
    if (!sse_check(v) || !mmx_check(v))
        return EXEC_FAULT;
    const uint8_t *s = sse_src(v, in, dbl ? 16 : 8, dbl, buf);
    if (!s)
        return EXEC_FAULT;
    fpu_mmx_begin(v);
    sse_fp_begin(v);
    fn[dbl][in->opcode == 0x2c](r, s);
    if (!sse_fp_end(v, false))
        return EXEC_FAULT;
    memcpy(mm(v, in->reg), r, 8);
    mm_written(v, in->reg);
    return EXEC_OK;
}

/* COMISS, COMISD, UCOMISS, UCOMISD */
enum exec_result sse_compare(struct soft_vcpu *v, const struct insn *in)
{
    static compare_fn *const fn[2][2] = {{sse_ucomiss, sse_comiss}, {sse_ucomisd, sse_comisd}};
    bool dbl = in->prefix == 1;
    uint8_t buf[16];
    if (!sse_check(v))
        return EXEC_FAULT;
    const uint8_t *s = sse_src(v, in, dbl ? 8 : 4, false, buf);
    if (!s)
        return EXEC_FAULT;
    sse_fp_begin(v);
    uint32_t flags = fn[dbl][in->opcode == 0x2f](xmm(v, in->reg), s);
    if (!sse_fp_end(v, false))
        return EXEC_FAULT;
    flags_put(v, flags);
    return EXEC_OK;
}

/* PTEST */
enum exec_result sse_test(struct soft_vcpu *v, const struct insn *in)
{
    uint8_t buf[16];
    if (!sse_check(v))
        return EXEC_FAULT;
    const uint8_t *s = sse_src(v, in, 16, true, buf);
    if (!s)
        return EXEC_FAULT;
    flags_put(v, sse_ptest(xmm(v, in->reg), s));
    return EXEC_OK;
}

/* In: xmm the first operand, a and b the lengths (RAX, RDX). Out: xmm what XMM0 became, a RCX, b RFLAGS. */
struct sse_strcmp {
    uint8_t xmm[16];
    uint64_t a, b;
};
typedef void string_fn(struct sse_strcmp *s, const void *src, unsigned imm8);
string_fn sse_pcmpestrm, sse_pcmpestri, sse_pcmpistrm, sse_pcmpistri;

/* PCMPESTRM, PCMPESTRI, PCMPISTRM, PCMPISTRI. Lengths are absolute values that saturate at 8 or 16, so the 64-bit stub
 * serves a sign-extended 32-bit length, too. */
enum exec_result sse_string(struct soft_vcpu *v, const struct insn *in)
{
    static string_fn *const fn[4] = {sse_pcmpestrm, sse_pcmpestri, sse_pcmpistrm, sse_pcmpistri};
    struct sse_strcmp io = {.a = v->st.gpr[RAX], .b = v->st.gpr[RDX]};
    uint8_t buf[16];
    if (!sse_check(v))
        return EXEC_FAULT;
    const uint8_t *s = sse_src(v, in, 16, false, buf);
    if (!s)
        return EXEC_FAULT;
    if (!rex_w(in)) {
        io.a = (uint64_t)(int32_t)io.a;
        io.b = (uint64_t)(int32_t)io.b;
    }
    memcpy(io.xmm, xmm(v, in->reg), 16);
    fn[in->opcode - 0x60](&io, s, (unsigned)in->imm);
    if (in->opcode & 1)
        gpr_put32(v, RCX, (uint32_t)io.a);
    else
        memcpy(xmm(v, 0), io.xmm, 16);
    flags_put(v, io.b);
    return EXEC_OK;
}
