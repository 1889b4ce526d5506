/* Memory as segments and operands see it: the upper levels of mmu.h. */
#include "cpu/soft/mmu.h"

#include "cpu/soft/event.h"
#include "cpu/soft/flags.h"

static bool seg_fault(struct soft_vcpu *v, unsigned seg)
{
    fault_set(v, seg == SEG_SS ? VEC_SS : VEC_GP, true, 0);
    return false;
}

/* SDM 3A, "Type Checking": protected mode only. */
static bool type_ok(const struct cpu_segment *s, unsigned acc)
{
    if (s->attr & SEGA_UNUSABLE || !(s->attr & SEGA_P))
        return false;
    if (acc & ACC_WRITE)
        return !(s->attr & SEGA_CODE) && s->attr & SEGA_RW;
    if (acc & ACC_EXEC)
        return s->attr & SEGA_CODE;
    return !(s->attr & SEGA_CODE) || s->attr & SEGA_RW;
}

/* SDM 3A, "Limit Checking". A 4 GiB expand-up segment lets an access wrap, as flat code expects. */
static bool limit_ok(const struct cpu_segment *s, uint64_t off, unsigned size)
{
    uint64_t last = off + size - 1;
    if ((s->attr & (SEGA_CODE | SEGA_DC)) == SEGA_DC)
        return off > s->limit && last <= (s->attr & SEGA_DB ? 0xffffffff : 0xffff);
    return last <= s->limit || s->limit == 0xffffffff;
}

bool seg_linear(struct soft_vcpu *v, unsigned seg, uint64_t off, unsigned size, unsigned acc, gva_t *gva)
{
    const struct cpu_segment *s = &v->st.seg[seg];
    if ((v->mode & MODE_CODE) == CODE64) {
        *gva = off + (seg == SEG_FS || seg == SEG_GS ? s->base : 0);
        return (likely(gva_canonical(*gva)) && likely(gva_canonical(*gva + size - 1))) || seg_fault(v, seg);
    }
    off &= 0xffffffff;
    bool typed = v->st.cr0 & CR0_PE && !(v->st.rflags & RF_VM);
    if ((typed && !type_ok(s, acc)) || !limit_ok(s, off, size))
        return seg_fault(v, seg);
    *gva = (s->base + off) & 0xffffffff;
    return true;
}

bool seg_read(struct soft_vcpu *v, unsigned seg, uint64_t off, void *buf, unsigned size)
{
    gva_t gva;
    return seg_linear(v, seg, off, size, ACC_READ, &gva) && lin_read(v, gva, buf, size, ACC_READ);
}

bool seg_write(struct soft_vcpu *v, unsigned seg, uint64_t off, const void *buf, unsigned size)
{
    gva_t gva;
    return seg_linear(v, seg, off, size, ACC_WRITE, &gva) && lin_write(v, gva, buf, size, ACC_WRITE);
}

uint64_t insn_offset(const struct soft_vcpu *v, const struct insn *in)
{
    uint64_t off = (uint64_t)in->disp;
    if (in->base < INSN_NO_REG)
        off += v->st.gpr[in->base];
    else if (in->base == INSN_RIP)
        off += v->next_rip;
    if (in->index < INSN_NO_REG)
        off += v->st.gpr[in->index] << in->scale;
    return off & size_mask(in->addrsize);
}

bool opnd_linear(struct soft_vcpu *v, const struct insn *in, unsigned size, unsigned acc, gva_t *gva)
{
    return seg_linear(v, in->seg, insn_offset(v, in), size, acc, gva);
}

bool opnd_read(struct soft_vcpu *v, const struct insn *in, void *buf, unsigned size)
{
    gva_t gva;
    return opnd_linear(v, in, size, ACC_READ, &gva) && lin_read(v, gva, buf, size, ACC_READ);
}

bool opnd_write(struct soft_vcpu *v, const struct insn *in, const void *buf, unsigned size)
{
    gva_t gva;
    return opnd_linear(v, in, size, ACC_WRITE, &gva) && lin_write(v, gva, buf, size, ACC_WRITE);
}

static unsigned opnd_size(const struct insn *in, const struct opnd *o)
{
    return o->size ? o->size : in->opsize;
}

static void reg_put(struct soft_vcpu *v, unsigned reg, unsigned size, uint64_t val)
{
    if (reg >= OPND_AH) {
        uint64_t *r = &v->st.gpr[reg - OPND_AH];
        *r = (*r & ~UINT64_C(0xff00)) | (val & 0xff) << 8;
    } else if (size >= 4) {
        v->st.gpr[reg] = val & size_mask(size);
    } else {
        v->st.gpr[reg] = (v->st.gpr[reg] & ~size_mask(size)) | (val & size_mask(size));
    }
}

bool opnd_get(struct soft_vcpu *v, const struct insn *in, const struct opnd *o, uint64_t *val)
{
    unsigned size = opnd_size(in, o);
    switch (o->kind) {
    case OPND_REG:
        *val = o->reg >= OPND_AH ? v->st.gpr[o->reg - OPND_AH] >> 8 & 0xff : v->st.gpr[o->reg] & size_mask(size);
        return true;
    case OPND_MEM:
        *val = 0;
        return opnd_read(v, in, val, size);
    default:
        *val = in->imm & size_mask(size);
        return true;
    }
}

bool opnd_put(struct soft_vcpu *v, const struct insn *in, const struct opnd *o, uint64_t val)
{
    unsigned size = opnd_size(in, o);
    if (o->kind == OPND_MEM)
        return opnd_write(v, in, &val, size);
    reg_put(v, o->reg, size, val);
    return true;
}
