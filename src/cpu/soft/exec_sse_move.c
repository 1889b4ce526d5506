/* SSE and MMX: moves, inserts, extracts and masks between XMM, MMX and general registers and memory. SDM 2. */
#include <emmintrin.h>

#include "cpu/soft/sse.h"

/* ---- partial XMM loads and stores ---- */

/* Register images are written whole, so that the next instruction's 16-byte load is forwarded from one store. */
static __m128i image(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}

static void set_image(uint8_t *p, __m128i x)
{
    _mm_storeu_si128((__m128i *)p, x);
}

/* The low 4 or 8 bytes of `d` become those of `s`. */
static void merge_low(uint8_t *d, const uint8_t *s, unsigned size)
{
    __m128i x = image(d), y = image(s);
    if (size == 4)
        x = _mm_castps_si128(_mm_move_ss(_mm_castsi128_ps(x), _mm_castsi128_ps(y)));
    else
        x = _mm_castpd_si128(_mm_move_sd(_mm_castsi128_pd(x), _mm_castsi128_pd(y)));
    set_image(d, x);
}

/* MOVSS, MOVSD: memory zero-extends, a register merges. */
enum exec_result sse_movs_load(struct soft_vcpu *v, const struct insn *in)
{
    unsigned size = in->prefix == 2 ? 4 : 8;
    uint8_t buf[16];
    if (!sse_check(v))
        return EXEC_FAULT;
    if (!is_mem(in))
        merge_low(xmm(v, in->reg), xmm(v, in->rm), size);
    else if (sse_mem_src(v, in, size, false, buf))
        set_image(xmm(v, in->reg), image(buf));
    else
        return EXEC_FAULT;
    return EXEC_OK;
}

enum exec_result sse_movs_store(struct soft_vcpu *v, const struct insn *in)
{
    unsigned size = in->prefix == 2 ? 4 : 8;
    if (!sse_check(v))
        return EXEC_FAULT;
    if (!is_mem(in))
        merge_low(xmm(v, in->rm), xmm(v, in->reg), size);
    else if (!sse_mem_store(v, in, xmm(v, in->reg), size, false))
        return EXEC_FAULT;
    return EXEC_OK;
}

/* Half `to` of the destination gets 8 bytes of memory, or half `from` of the other register. */
static enum exec_result load_half(struct soft_vcpu *v, const struct insn *in, unsigned to, unsigned from)
{
    uint8_t buf[16];
    const uint8_t *s = buf;
    if (!sse_check(v))
        return EXEC_FAULT;
    if (!is_mem(in))
        s = xmm(v, in->rm) + 8 * from;
    else if (!sse_mem_src(v, in, 8, false, buf))
        return EXEC_FAULT;
    uint8_t *d = xmm(v, in->reg);
    __m128i half = _mm_cvtsi64_si128((long long)ld64(s)), x = image(d);
    set_image(d, to ? _mm_unpacklo_epi64(x, half) : _mm_unpackhi_epi64(_mm_slli_si128(half, 8), x));
    return EXEC_OK;
}

/* MOVLPS, MOVLPD, MOVHLPS */
enum exec_result sse_movlp_load(struct soft_vcpu *v, const struct insn *in)
{
    return load_half(v, in, 0, 1);
}

/* MOVHPS, MOVHPD, MOVLHPS */
enum exec_result sse_movhp_load(struct soft_vcpu *v, const struct insn *in)
{
    return load_half(v, in, 1, 0);
}

static enum exec_result store_half(struct soft_vcpu *v, const struct insn *in, unsigned half)
{
    if (!sse_check(v) || !sse_mem_store(v, in, xmm(v, in->reg) + 8 * half, 8, false))
        return EXEC_FAULT;
    return EXEC_OK;
}

enum exec_result sse_movlp_store(struct soft_vcpu *v, const struct insn *in)
{
    return store_half(v, in, 0);
}

enum exec_result sse_movhp_store(struct soft_vcpu *v, const struct insn *in)
{
    return store_half(v, in, 1);
}

static void xmm_set_low(struct soft_vcpu *v, unsigned r, uint64_t low)
{
    _mm_storeu_si128((__m128i *)xmm(v, r), _mm_cvtsi64_si128((long long)low));
}

enum exec_result sse_movq_load(struct soft_vcpu *v, const struct insn *in)
{
    uint8_t buf[16];
    if (!sse_check(v))
        return EXEC_FAULT;
    const uint8_t *s = sse_src(v, in, 8, false, buf);
    if (!s)
        return EXEC_FAULT;
    xmm_set_low(v, in->reg, ld64(s));
    return EXEC_OK;
}

enum exec_result sse_movq_store(struct soft_vcpu *v, const struct insn *in)
{
    if (!sse_check(v))
        return EXEC_FAULT;
    if (!is_mem(in))
        xmm_set_low(v, in->rm, ld64(xmm(v, in->reg)));
    else if (!sse_mem_store(v, in, xmm(v, in->reg), 8, false))
        return EXEC_FAULT;
    return EXEC_OK;
}

/* ---- general registers and memory to vectors and back ---- */

/* r/m32 or, with REX.W, r/m64. */
static bool gpr_src(struct soft_vcpu *v, const struct insn *in, unsigned size, uint64_t *val)
{
    uint8_t buf[16];
    if (!is_mem(in)) {
        *val = v->st.gpr[in->rm] & size_mask(size);
        return true;
    }
    if (!sse_mem_src(v, in, size, false, buf))
        return false;
    *val = ld64(buf);
    return true;
}

static bool gpr_dst(struct soft_vcpu *v, const struct insn *in, unsigned size, uint64_t val)
{
    if (is_mem(in))
        return sse_mem_store(v, in, &val, size, false);
    v->st.gpr[in->rm] = val & size_mask(size);
    return true;
}

static unsigned rex_w_size(const struct insn *in)
{
    return in->flags & INSN_REX_W ? 8 : 4;
}

enum exec_result sse_movd_load(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t val;
    if (!sse_check(v) || !gpr_src(v, in, rex_w_size(in), &val))
        return EXEC_FAULT;
    xmm_set_low(v, in->reg, val);
    return EXEC_OK;
}

enum exec_result sse_movd_store(struct soft_vcpu *v, const struct insn *in)
{
    if (!sse_check(v) || !gpr_dst(v, in, rex_w_size(in), ld64(xmm(v, in->reg))))
        return EXEC_FAULT;
    return EXEC_OK;
}

static enum exec_result mm_set(struct soft_vcpu *v, unsigned r, uint64_t val)
{
    fpu_mmx_begin(v);
    st64(mm(v, r), val);
    mm_written(v, r);
    return EXEC_OK;
}

/* What mm(r) holds before fpu_mmx_begin(): the physical register. */
static uint64_t mm_peek(struct soft_vcpu *v, unsigned r)
{
    fpu_to_mem(v);
    return ld64(v->st.fx.st[(r - bits(v->st.fx.fsw, 13, FSW_TOP_SHIFT)) & 7]);
}

enum exec_result mmx_movd_load(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t val;
    if (!mmx_check(v) || !gpr_src(v, in, rex_w_size(in), &val))
        return EXEC_FAULT;
    return mm_set(v, in->reg, val);
}

enum exec_result mmx_movd_store(struct soft_vcpu *v, const struct insn *in)
{
    if (!mmx_check(v) || !gpr_dst(v, in, rex_w_size(in), mm_peek(v, in->reg)))
        return EXEC_FAULT;
    fpu_mmx_begin(v);
    return EXEC_OK;
}

enum exec_result mmx_movq_load(struct soft_vcpu *v, const struct insn *in)
{
    uint8_t buf[16];
    if (!mmx_check(v))
        return EXEC_FAULT;
    if (!is_mem(in))
        return mm_set(v, in->reg, mm_peek(v, in->rm));
    const uint8_t *s = sse_mem_src(v, in, 8, false, buf);
    return s ? mm_set(v, in->reg, ld64(s)) : EXEC_FAULT;
}

enum exec_result mmx_movq_store(struct soft_vcpu *v, const struct insn *in)
{
    if (!mmx_check(v))
        return EXEC_FAULT;
    uint64_t val = mm_peek(v, in->reg);
    if (!is_mem(in))
        return mm_set(v, in->rm, val);
    if (!sse_mem_store(v, in, &val, 8, false))
        return EXEC_FAULT;
    fpu_mmx_begin(v);
    return EXEC_OK;
}

enum exec_result sse_movq2dq(struct soft_vcpu *v, const struct insn *in)
{
    if (!sse_check(v) || !mmx_check(v))
        return EXEC_FAULT;
    fpu_mmx_begin(v);
    xmm_set_low(v, in->reg, ld64(mm(v, in->rm)));
    return EXEC_OK;
}

enum exec_result sse_movdq2q(struct soft_vcpu *v, const struct insn *in)
{
    if (!sse_check(v) || !mmx_check(v))
        return EXEC_FAULT;
    return mm_set(v, in->reg, ld64(xmm(v, in->rm)));
}

enum exec_result mmx_emms(struct soft_vcpu *v, const struct insn *in)
{
    if (!mmx_check(v))
        return EXEC_FAULT;
    fpu_mmx_begin(v);
    v->st.fx.ftw_abridged = 0;
    return EXEC_OK;
}

/* ---- MASKMOVQ, MASKMOVDQU ---- */

/* Bytes of `data` whose mask byte has bit 7 go to seg:[rDI]. All are probed before the first is written. */
static enum exec_result masked_store(struct soft_vcpu *v, const struct insn *in, const uint8_t *data,
                                     const uint8_t *mask, unsigned n)
{
    gva_t gva[16];
    for (unsigned i = 0; i < n; i++) {
        uint64_t off = (v->st.gpr[RDI] + i) & size_mask(in->addrsize);
        if (!(mask[i] & 0x80))
            continue;
        if (!seg_linear(v, in->seg, off, 1, ACC_WRITE, &gva[i]) || !lin_probe_write(v, gva[i], 1, ACC_WRITE))
            return EXEC_FAULT;
    }
    for (unsigned i = 0; i < n; i++)
        if ((mask[i] & 0x80) && !lin_write(v, gva[i], data + i, 1, ACC_WRITE))
            return EXEC_FAULT;
    return EXEC_OK;
}

enum exec_result sse_maskmov(struct soft_vcpu *v, const struct insn *in)
{
    if (!sse_check(v))
        return EXEC_FAULT;
    return masked_store(v, in, xmm(v, in->reg), xmm(v, in->rm), 16);
}

enum exec_result mmx_maskmov(struct soft_vcpu *v, const struct insn *in)
{
    uint8_t data[8], mask[8];
    if (!mmx_check(v))
        return EXEC_FAULT;
    st64(data, mm_peek(v, in->reg));
    st64(mask, mm_peek(v, in->rm));
    enum exec_result r = masked_store(v, in, data, mask, 8);
    if (r == EXEC_OK)
        fpu_mmx_begin(v);
    return r;
}

/* ---- masks ---- */

enum exec_result sse_movmsk(struct soft_vcpu *v, const struct insn *in)
{
    if (!sse_check(v))
        return EXEC_FAULT;
    __m128i x = _mm_loadu_si128((const __m128i *)xmm(v, in->rm));
    int m = in->prefix ? _mm_movemask_pd(_mm_castsi128_pd(x)) : _mm_movemask_ps(_mm_castsi128_ps(x));
    gpr_put32(v, in->reg, (uint32_t)m);
    return EXEC_OK;
}

enum exec_result sse_pmovmskb(struct soft_vcpu *v, const struct insn *in)
{
    if (!sse_check(v))
        return EXEC_FAULT;
    gpr_put32(v, in->reg, (uint32_t)_mm_movemask_epi8(_mm_loadu_si128((const __m128i *)xmm(v, in->rm))));
    return EXEC_OK;
}

enum exec_result mmx_pmovmskb(struct soft_vcpu *v, const struct insn *in)
{
    if (!mmx_check(v))
        return EXEC_FAULT;
    fpu_mmx_begin(v);
    gpr_put32(v, in->reg, (uint32_t)_mm_movemask_epi8(_mm_loadl_epi64((const __m128i *)mm(v, in->rm))));
    return EXEC_OK;
}

/* ---- PINSRx, PEXTRx ---- */

/* Element size of the inserts and extracts. */
static unsigned element_size(const struct insn *in)
{
    if (in->map == 1 || in->opcode == 0x15)
        return 2;
    if (in->opcode == 0x14 || in->opcode == 0x20)
        return 1;
    return in->opcode == 0x17 ? 4 : rex_w_size(in);
}

enum exec_result sse_pinsr(struct soft_vcpu *v, const struct insn *in)
{
    unsigned size = element_size(in);
    uint64_t val;
    if (!sse_check(v) || !gpr_src(v, in, size, &val))
        return EXEC_FAULT;
    memcpy(xmm(v, in->reg) + (in->imm & (16 / size - 1)) * size, &val, size);
    return EXEC_OK;
}

enum exec_result mmx_pinsrw(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t val;
    if (!mmx_check(v) || !gpr_src(v, in, 2, &val))
        return EXEC_FAULT;
    fpu_mmx_begin(v);
    st16(mm(v, in->reg) + (in->imm & 3) * 2, (uint16_t)val);
    mm_written(v, in->reg);
    return EXEC_OK;
}

/* PEXTRB, PEXTRW, PEXTRD/Q, EXTRACTPS to r/m. */
enum exec_result sse_pextr(struct soft_vcpu *v, const struct insn *in)
{
    unsigned size = element_size(in);
    uint64_t val = 0;
    if (!sse_check(v))
        return EXEC_FAULT;
    memcpy(&val, xmm(v, in->reg) + (in->imm & (16 / size - 1)) * size, size);
    return gpr_dst(v, in, size, val) ? EXEC_OK : EXEC_FAULT;
}

enum exec_result sse_pextrw(struct soft_vcpu *v, const struct insn *in)
{
    if (!sse_check(v))
        return EXEC_FAULT;
    gpr_put32(v, in->reg, ld16(xmm(v, in->rm) + (in->imm & 7) * 2));
    return EXEC_OK;
}

enum exec_result mmx_pextrw(struct soft_vcpu *v, const struct insn *in)
{
    if (!mmx_check(v))
        return EXEC_FAULT;
    fpu_mmx_begin(v);
    gpr_put32(v, in->reg, ld16(mm(v, in->rm) + (in->imm & 3) * 2));
    return EXEC_OK;
}

/* ---- shifts by an immediate: the register forms with the count as an image ---- */

struct shift {
    sse_fn *xmm, *mmx;
};

static const struct shift *shift_op(const struct insn *in)
{
#define SHIFT(op)                                                                                                      \
    {                                                                                                                  \
        sse_stub_1_1_##op, sse_stub_1_0_##op                                                                           \
    }
    static const struct shift ops[3][8] = {
        {[2] = SHIFT(d1), [4] = SHIFT(e1), [6] = SHIFT(f1)},
        {[2] = SHIFT(d2), [4] = SHIFT(e2), [6] = SHIFT(f2)},
        {[2] = SHIFT(d3), [6] = SHIFT(f3)},
    };
#undef SHIFT
    const struct shift *s = &ops[in->opcode - 0x71][in->modrm >> 3 & 7];
    return s->xmm ? s : NULL;
}

/* PSRLDQ (/3) and PSLLDQ (/7). */
static void shift_bytes(uint8_t *x, unsigned count, bool left)
{
    uint8_t wide[48] = {0};
    count = count > 16 ? 16 : count;
    memcpy(wide + 16, x, 16);
    memcpy(x, wide + 16 + (left ? -(int)count : (int)count), 16);
}

enum exec_result sse_shift_imm(struct soft_vcpu *v, const struct insn *in)
{
    unsigned ext = in->modrm >> 3 & 7;
    const struct shift *s = shift_op(in);
    uint64_t count[2] = {in->imm & 0xff, 0};
    bool bytes = in->opcode == 0x73 && (ext & 3) == 3;
    if (!s && !bytes)
        return exec_fault(v, VEC_UD);
    if (!sse_check(v))
        return EXEC_FAULT;
    if (bytes)
        shift_bytes(xmm(v, in->rm), (unsigned)count[0], ext == 7);
    else
        s->xmm(xmm(v, in->rm), count);
    return EXEC_OK;
}

enum exec_result mmx_shift_imm(struct soft_vcpu *v, const struct insn *in)
{
    const struct shift *s = shift_op(in);
    uint64_t count[2] = {in->imm & 0xff, 0};
    if (!s)
        return exec_fault(v, VEC_UD);
    if (!mmx_check(v))
        return EXEC_FAULT;
    fpu_mmx_begin(v);
    s->mmx(mm(v, in->rm), count);
    mm_written(v, in->rm);
    return EXEC_OK;
}
