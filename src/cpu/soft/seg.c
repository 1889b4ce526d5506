/* Descriptors and segment-register loads. SDM 3A, "Protected-Mode Memory Management" and "Protection". */
#include "cpu/soft/far.h"

void seg_from_desc(struct cpu_segment *s, uint16_t sel, uint64_t d)
{
    uint32_t limit = (uint32_t)(bits(d, 15, 0) | bits(d, 51, 48) << 16);
    s->sel = sel;
    s->base = bits(d, 39, 16) | bits(d, 63, 56) << 24;
    s->attr = (uint32_t)bits(d, 55, 40) & 0xf0ff;
    s->limit = s->attr & SEGA_G ? limit << 12 | 0xfff : limit;
}

/* Linear address of `size` bytes of descriptor `sel`, or false past its table. */
static bool desc_address(const struct soft_vcpu *v, uint16_t sel, unsigned size, gva_t *at)
{
    uint32_t off = sel & 0xfff8u;
    const struct cpu_segment *ldt = &v->st.seg[SEG_LDTR];
    bool local = sel & 4;
    if (local && (ldt->attr & SEGA_UNUSABLE))
        return false;
    uint64_t base = local ? ldt->base : v->st.gdtr.base;
    uint32_t limit = local ? ldt->limit : v->st.gdtr.limit;
    if (off + (size - 1) > limit)
        return false;
    *at = base + off;
    if (!in_ia32e(v))
        *at = (uint32_t)*at;
    return true;
}

enum desc_status desc_try(struct soft_vcpu *v, uint16_t sel, uint64_t *lo, gva_t *at)
{
    if (!desc_address(v, sel, 8, at))
        return DESC_LIMIT;
    return lin_read(v, *at, lo, 8, ACC_READ | ACC_SUPER) ? DESC_OK : DESC_FAULT;
}

bool desc_read(struct soft_vcpu *v, uint16_t sel, unsigned vec, uint64_t *lo, gva_t *at)
{
    enum desc_status st = desc_try(v, sel, lo, at);
    if (st == DESC_LIMIT)
        return raise_sel(v, vec, sel);
    return st == DESC_OK;
}

bool desc_read_high(struct soft_vcpu *v, uint16_t sel, uint64_t *hi)
{
    gva_t at;
    if (!desc_address(v, sel, 16, &at))
        return raise_sel(v, VEC_GP, sel);
    return lin_read(v, at + 8, hi, 8, ACC_READ | ACC_SUPER);
}

/* byte = (byte & ~clear) | set, atomically towards the other vCPUs. Descriptor tables are supervisor data even for
 * CPL 3, where lin_atomic() would ask for user rights; there the machine is stopped instead, which is once a
 * descriptor's life for an accessed bit. */
static bool desc_rmw(struct soft_vcpu *v, gva_t byte_at, uint8_t clear, uint8_t set)
{
    bool via_excl = false;
    if (cpl(v) < 3) {
        uint8_t *p = lin_atomic(v, byte_at, 1, &via_excl);
        if (p) {
            if (clear)
                __atomic_and_fetch(p, (uint8_t)~clear, __ATOMIC_SEQ_CST);
            if (set)
                __atomic_or_fetch(p, set, __ATOMIC_SEQ_CST);
            return true;
        }
        if (!via_excl)
            return false;
    }
    uint8_t b;
    excl_begin(v);
    bool ok = lin_read(v, byte_at, &b, 1, ACC_READ | ACC_SUPER);
    b = ok ? (uint8_t)((b & ~clear) | set) : 0;
    ok = ok && lin_write(v, byte_at, &b, 1, ACC_WRITE | ACC_SUPER);
    excl_end(v);
    return ok;
}

bool desc_set_accessed(struct soft_vcpu *v, gva_t at, uint64_t *desc)
{
    if (desc_type(*desc) & SEGA_ACCESSED)
        return true;
    *desc |= BIT(40);
    return desc_rmw(v, at + 5, 0, SEGA_ACCESSED);
}

bool desc_set_busy(struct soft_vcpu *v, gva_t at, bool busy)
{
    return desc_rmw(v, at + 5, busy ? 0 : 2, busy ? 2 : 0);
}

/* Real mode changes the base alone, so that limits set in protected mode stay ("big real mode"); what a null selector
 * left behind becomes usable again, and every segment may be written, CS too. */
void seg_set_real(const struct soft_vcpu *v, struct cpu_segment *s, uint16_t sel)
{
    s->sel = sel;
    s->base = (uint64_t)sel << 4;
    s->attr = (s->attr & (SEGA_G | SEGA_DB | SEGA_AVL)) | SEGA_P | SEGA_S | SEGA_RW | SEGA_ACCESSED;
}

void seg_set_v86(struct cpu_segment *s, uint16_t sel)
{
    *s = (struct cpu_segment){.sel = sel,
                              .base = (uint64_t)sel << 4,
                              .limit = 0xffff,
                              .attr = SEGA_P | 3u << SEGA_DPL_SHIFT | SEGA_S | SEGA_RW | SEGA_ACCESSED};
}

void seg_set_null(struct cpu_segment *s, uint16_t sel, unsigned dpl)
{
    s->sel = sel;
    s->base = 0;
    s->attr = SEGA_UNUSABLE | dpl << SEGA_DPL_SHIFT;
}

void seg_set_flat(struct cpu_segment *s, uint16_t sel, uint32_t attr)
{
    *s = (struct cpu_segment){.sel = sel, .limit = 0xffffffff, .attr = attr | SEGA_P | SEGA_S | SEGA_G | SEGA_ACCESSED};
}

bool seg_check_ss(struct soft_vcpu *v, uint16_t sel, unsigned level, unsigned vec, struct cpu_segment *out)
{
    uint64_t d;
    gva_t at;
    if (!desc_read(v, sel, vec, &d, &at))
        return false;
    if ((sel & 3u) != level || !desc_writable_data(d) || desc_dpl(d) != level)
        return raise_sel(v, vec, sel);
    if (!desc_present(d))
        return raise_sel(v, VEC_SS, sel);
    if (!desc_set_accessed(v, at, &d))
        return false;
    seg_from_desc(out, sel, d);
    return true;
}

bool seg_check_data(struct soft_vcpu *v, uint16_t sel, unsigned level, unsigned vec, struct cpu_segment *out)
{
    uint64_t d;
    gva_t at;
    if (!desc_read(v, sel, vec, &d, &at))
        return false;
    bool readable = desc_is_segment(d) && (!desc_is_code(d) || (desc_type(d) & SEGA_RW));
    bool visible = desc_conforming(d) || ((sel & 3u) <= desc_dpl(d) && level <= desc_dpl(d));
    if (!readable || !visible)
        return raise_sel(v, vec, sel);
    if (!desc_present(d))
        return raise_sel(v, VEC_NP, sel);
    if (!desc_set_accessed(v, at, &d))
        return false;
    seg_from_desc(out, sel, d);
    return true;
}

/* SS may be null in 64-bit mode below CPL 3, where nothing looks at it. SDM 2, "MOV". */
static bool load_ss(struct soft_vcpu *v, uint16_t sel, struct cpu_segment *out)
{
    unsigned level = cpl(v);
    if (!sel_is_null(sel))
        return seg_check_ss(v, sel, level, VEC_GP, out);
    if (!in_code64(v) || level == 3 || sel != level)
        return raise_sel(v, VEC_GP, 0);
    seg_set_null(out, sel, level);
    return true;
}

static bool load_protected(struct soft_vcpu *v, unsigned seg, uint16_t sel, struct cpu_segment *out)
{
    if (seg == SEG_SS)
        return load_ss(v, sel, out);
    if (!sel_is_null(sel))
        return seg_check_data(v, sel, cpl(v), VEC_GP, out);
    seg_set_null(out, sel, 0);
    return true;
}

bool seg_load(struct soft_vcpu *v, unsigned seg, uint16_t sel)
{
    struct cpu_segment s = v->st.seg[seg];
    if (!in_protected(v))
        seg_set_real(v, &s, sel);
    else if (in_v86(v))
        seg_set_v86(&s, sel);
    else if (!load_protected(v, seg, sel, &s))
        return false;
    v->st.seg[seg] = s;
    mode_update(v);
    return true;
}

void seg_hide_inner(struct soft_vcpu *v)
{
    static const uint8_t data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    for (unsigned i = 0; i < ARRAY_SIZE(data); i++) {
        struct cpu_segment *s = &v->st.seg[data[i]];
        bool conforming = (s->attr & (SEGA_CODE | SEGA_DC)) == (SEGA_CODE | SEGA_DC);
        if ((s->attr & SEGA_UNUSABLE) || conforming || (s->attr >> SEGA_DPL_SHIFT & 3) >= cpl(v))
            continue;
        /* The base stays: in 64-bit mode FS and GS may hold one that an MSR write put there. */
        s->sel = 0;
        s->attr = SEGA_UNUSABLE;
    }
}

bool seg_check_ip(struct soft_vcpu *v, const struct cpu_segment *cs, uint64_t off)
{
    bool code64 = in_ia32e(v) && (cs->attr & SEGA_L);
    if (code64 ? is_canonical(off) : off <= cs->limit)
        return true;
    return raise_sel(v, VEC_GP, 0);
}
