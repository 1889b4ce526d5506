/* Stacks: single words, whole frames, and the stacks of a TSS. SDM 1, "Stack Operation"; SDM 3A, "Stack Switching". */
#include "cpu/soft/far.h"

static uint64_t stack_mask(const struct cpu_segment *ss, bool code64)
{
    if (code64)
        return UINT64_MAX;
    return ss->attr & SEGA_DB ? 0xffffffff : 0xffff;
}

static void set_rsp(struct soft_vcpu *v, uint64_t mask, uint64_t sp)
{
    uint64_t *rsp = &v->st.gpr[RSP];
    *rsp = mask == 0xffff ? (*rsp & ~mask) | (sp & mask) : sp & mask;
}

bool stack_push(struct soft_vcpu *v, unsigned size, uint64_t val)
{
    uint64_t mask = stack_mask(&v->st.seg[SEG_SS], in_code64(v));
    uint64_t sp = (v->st.gpr[RSP] - size) & mask;
    if (!seg_write(v, SEG_SS, sp, &val, size))
        return false;
    set_rsp(v, mask, sp);
    return true;
}

bool stack_pop(struct soft_vcpu *v, unsigned size, uint64_t *val)
{
    if (!stack_peek(v, 0, size, val))
        return false;
    stack_move(v, size);
    return true;
}

bool stack_peek(struct soft_vcpu *v, uint64_t off, unsigned size, uint64_t *val)
{
    uint64_t mask = stack_mask(&v->st.seg[SEG_SS], in_code64(v));
    *val = 0;
    return seg_read(v, SEG_SS, (v->st.gpr[RSP] + off) & mask, val, size);
}

void stack_move(struct soft_vcpu *v, int64_t delta)
{
    set_rsp(v, stack_mask(&v->st.seg[SEG_SS], in_code64(v)), v->st.gpr[RSP] + (uint64_t)delta);
}

void stack_current(const struct soft_vcpu *v, struct far_stack *s)
{
    *s = (struct far_stack){.ss = v->st.seg[SEG_SS], .sp = v->st.gpr[RSP], .code64 = in_code64(v)};
}

void stack_commit(struct soft_vcpu *v, const struct far_stack *s)
{
    v->st.seg[SEG_SS] = s->ss;
    set_rsp(v, stack_mask(&s->ss, s->code64), s->sp);
}

/* SDM 3A, "Limit Checking": is [off, off+len) inside the stack segment? */
static bool in_limits(const struct soft_vcpu *v, const struct far_stack *s, uint64_t off, unsigned len)
{
    uint64_t last = off + len - 1;
    if (s->code64)
        return is_canonical(off) && is_canonical(last);
    if (in_protected(v) && (s->ss.attr & SEGA_UNUSABLE))
        return false;
    if (s->ss.attr & SEGA_DC) /* expand-down: limit + 1 .. top */
        return off > s->ss.limit && last <= (s->ss.attr & SEGA_DB ? 0xffffffff : 0xffff);
    return last <= s->ss.limit;
}

static gva_t linear(const struct far_stack *s, uint64_t off)
{
    return s->code64 ? off : (uint32_t)(s->ss.base + off);
}

static bool no_room(struct soft_vcpu *v, const struct far_stack *s)
{
    fault_set(v, VEC_SS, true, s->err);
    return false;
}

/* A frame around the wrap of a 16-bit (or 32-bit) stack pointer, word by word. */
static bool push_wrapped(struct soft_vcpu *v, struct far_stack *s, const struct far_frame *f, uint64_t mask)
{
    for (unsigned i = 0; i < f->n; i++) {
        uint64_t off = (s->sp - (uint64_t)(i + 1) * f->size) & mask;
        if (!in_limits(v, s, off, f->size))
            return no_room(v, s);
        if (!lin_probe_write(v, linear(s, off), f->size, ACC_WRITE | s->acc))
            return false;
    }
    for (unsigned i = 0; i < f->n; i++) {
        uint64_t off = (s->sp - (uint64_t)(i + 1) * f->size) & mask;
        if (!lin_write(v, linear(s, off), &f->word[i], f->size, ACC_WRITE | s->acc))
            return false;
    }
    s->sp -= (uint64_t)f->n * f->size;
    return true;
}

bool stack_push_frame(struct soft_vcpu *v, struct far_stack *s, const struct far_frame *f)
{
    uint64_t mask = stack_mask(&s->ss, s->code64);
    unsigned len = f->n * f->size;
    uint64_t low = (s->sp - len) & mask;
    uint8_t buf[FRAME_MAX * 8];
    if (low > mask - len + 1)
        return push_wrapped(v, s, f, mask);
    if (!in_limits(v, s, low, len))
        return no_room(v, s);
    for (unsigned i = 0; i < f->n; i++)
        memcpy(buf + len - (i + 1) * f->size, &f->word[i], f->size);
    if (!lin_write(v, linear(s, low), buf, len, ACC_WRITE | s->acc))
        return false;
    s->sp = low;
    return true;
}

/* `len` bytes at `off` of the TSS; #TS(TR) past its limit. */
static bool tss_read(struct soft_vcpu *v, unsigned off, void *buf, unsigned len)
{
    const struct cpu_segment *tr = &v->st.seg[SEG_TR];
    if ((tr->attr & SEGA_UNUSABLE) || off + len - 1 > tr->limit)
        return raise_sel(v, VEC_TS, tr->sel);
    gva_t at = tr->base + off;
    return lin_read(v, in_ia32e(v) ? at : (uint32_t)at, buf, len, ACC_READ | ACC_SUPER);
}

static bool tss_rsp(struct soft_vcpu *v, unsigned off, uint64_t *rsp)
{
    if (!tss_read(v, off, rsp, 8))
        return false;
    return is_canonical(*rsp) || raise_sel(v, VEC_SS, 0);
}

bool stack_from_ist(struct soft_vcpu *v, unsigned ist, uint64_t *rsp)
{
    return tss_rsp(v, 28 + ist * 8, rsp);
}

static bool tss_stack_legacy(struct soft_vcpu *v, unsigned level, struct far_stack *s)
{
    bool tss32 = v->st.seg[SEG_TR].attr & 8;
    uint8_t b[6] = {0};
    if (!tss_read(v, tss32 ? level * 8 + 4 : level * 4 + 2, b, tss32 ? 6 : 4))
        return false;
    uint16_t sel = ld16(b + (tss32 ? 4 : 2));
    s->sp = tss32 ? ld32(b) : ld16(b);
    s->err = sel & 0xfffcu;
    if (sel_is_null(sel))
        return raise_sel(v, VEC_TS, 0);
    return seg_check_ss(v, sel, level, VEC_TS, &s->ss);
}

bool stack_from_tss(struct soft_vcpu *v, unsigned level, struct far_stack *s)
{
    *s = (struct far_stack){.acc = level < 3 ? ACC_SUPER : 0};
    if (!in_ia32e(v))
        return tss_stack_legacy(v, level, s);
    s->code64 = true;
    seg_set_null(&s->ss, (uint16_t)level, level);
    return tss_rsp(v, level * 8 + 4, &s->sp);
}
