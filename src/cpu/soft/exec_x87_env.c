/* x87: control instructions, environment and state images. SDM 1, "x87 FPU Control Instructions" and the figures
 * "Protected Mode x87 FPU State Image in Memory" and "Real Mode x87 FPU State Image in Memory". */
#include "cpu/soft/x87.h"

/* ---- environment images ---- */

enum { ENV_MAX = 28, STATE_MAX = ENV_MAX + 80 };

struct env_format {
    bool wide; /* 32-bit fields: 28 bytes, else 14 */
    bool real; /* real-address or virtual-8086 mode: addresses are 20 or 32 bits of linear address, with the opcode */
};

static struct env_format env_format(const struct soft_vcpu *v, const struct insn *in)
{
    return (struct env_format){in->opsize != 2, !(v->mode & MODE_PE) || (v->mode & MODE_V86)};
}

static unsigned env_size(struct env_format f)
{
    return f.wide ? 28 : 14;
}

/* A tag of the full tag word: 0 valid, 1 zero, 2 special, 3 empty. */
static unsigned tag_of(const struct cpu_fx *fx, unsigned phys)
{
    const uint8_t *st = fx->st[(phys - bits(fx->fsw, 13, FSW_TOP_SHIFT)) & 7];
    unsigned exp = ld16(st + 8) & 0x7fff;
    uint64_t man = ld64(st);
    if (!(fx->ftw_abridged >> phys & 1))
        return 3;
    if (exp == 0 && man == 0)
        return 1;
    return exp == 0 || exp == 0x7fff || !(man >> 63) ? 2 : 0;
}

static uint16_t full_tags(const struct cpu_fx *fx)
{
    uint16_t tags = 0;
    for (unsigned i = 0; i < 8; i++)
        tags |= (uint16_t)(tag_of(fx, i) << (2 * i));
    return tags;
}

static uint8_t abridged_tags(uint16_t tags)
{
    uint8_t abridged = 0;
    for (unsigned i = 0; i < 8; i++)
        if ((tags >> (2 * i) & 3) != 3)
            abridged |= (uint8_t)(1u << i);
    return abridged;
}

/* The seven fields: control, status, tags, then two address pairs. */
static void env_fields(const struct cpu_fx *fx, struct env_format f, uint32_t w[7])
{
    uint32_t ip = (uint32_t)fx->fip, dp = (uint32_t)fx->fdp;
    w[0] = fx->fcw;
    w[1] = fx->fsw;
    w[2] = full_tags(fx);
    if (f.real) {
        w[3] = ip & 0xffff;
        w[4] = (ip >> 16) << 12 | fx->fop;
        w[5] = dp & 0xffff;
        w[6] = (dp >> 16) << 12;
    } else {
        w[3] = ip;
        w[4] = f.wide ? (uint32_t)fx->fop << 16 : 0;
        w[5] = dp;
        w[6] = 0;
    }
}

/* Reserved upper halves read as ones. */
static void env_put(const struct cpu_fx *fx, struct env_format f, uint8_t *p)
{
    uint32_t w[7];
    env_fields(fx, f, w);
    for (unsigned i = 0; i < 7; i++) {
        if (!f.wide)
            st16(p + 2 * i, (uint16_t)w[i]);
        else
            st32(p + 4 * i, i < 3 || i == 6 || (f.real && i == 5) || (f.real && i == 3) ? w[i] | 0xffff0000 : w[i]);
    }
}

static void env_get(struct soft_vcpu *v, struct env_format f, const uint8_t *p)
{
    struct cpu_fx *fx = &v->st.fx;
    uint32_t w[7];
    for (unsigned i = 0; i < 7; i++)
        w[i] = f.wide ? ld32(p + 4 * i) : ld16(p + 2 * i);
    fpu_to_mem(v);
    fpu_set_top(v, w[1] >> FSW_TOP_SHIFT & 7);
    fx->fcw = (uint16_t)((w[0] & FCW_VALID) | FCW_ONE);
    fx->fsw = (uint16_t)w[1];
    fx->fsw = fpu_fsw(v);
    fx->ftw_abridged = abridged_tags((uint16_t)w[2]);
    if (f.real) {
        fx->fip = (w[3] & 0xffff) | (w[4] >> 12 & 0xffff) << 16;
        fx->fdp = (w[5] & 0xffff) | (w[6] >> 12 & 0xffff) << 16;
        fx->fop = w[4] & 0x7ff;
    } else {
        fx->fip = w[3];
        fx->fdp = w[5];
        fx->fop = f.wide ? w[4] >> 16 & 0x7ff : 0;
    }
}

static enum exec_result fldenv(struct soft_vcpu *v, const struct insn *in)
{
    struct env_format f = env_format(v, in);
    uint8_t img[ENV_MAX];
    if (!opnd_read(v, in, img, env_size(f)))
        return EXEC_FAULT;
    env_get(v, f, img);
    return EXEC_OK;
}

static enum exec_result fnstenv(struct soft_vcpu *v, const struct insn *in)
{
    struct env_format f = env_format(v, in);
    uint8_t img[ENV_MAX];
    fpu_sync(v);
    env_put(&v->st.fx, f, img);
    if (!opnd_write(v, in, img, env_size(f)))
        return EXEC_FAULT;
    v->st.fx.fcw |= FSW_EXCEPTIONS;
    return EXEC_OK;
}

/* ---- FNINIT and whole states ---- */

static void fninit(struct soft_vcpu *v)
{
    struct cpu_fx *fx = &v->st.fx;
    if (v->x87 == X87_LIVE) {
        __asm__ volatile("fninit");
    } else {
        fpu_set_top(v, 0);
        fx->fsw = 0;
        fx->ftw_abridged = 0;
    }
    fx->fcw = FCW_INIT;
    fx->fop = 0;
    fx->fip = fx->fdp = 0;
}

static enum exec_result frstor(struct soft_vcpu *v, const struct insn *in)
{
    struct env_format f = env_format(v, in);
    uint8_t img[STATE_MAX];
    if (!opnd_read(v, in, img, env_size(f) + 80))
        return EXEC_FAULT;
    env_get(v, f, img);
    for (unsigned i = 0; i < 8; i++)
        memcpy(v->st.fx.st[i], img + env_size(f) + 10 * i, 10);
    return EXEC_OK;
}

static enum exec_result fnsave(struct soft_vcpu *v, const struct insn *in)
{
    struct env_format f = env_format(v, in);
    uint8_t img[STATE_MAX];
    fpu_sync(v);
    env_put(&v->st.fx, f, img);
    for (unsigned i = 0; i < 8; i++)
        memcpy(img + env_size(f) + 10 * i, v->st.fx.st[i], 10);
    if (!opnd_write(v, in, img, env_size(f) + 80))
        return EXEC_FAULT;
    fninit(v);
    return EXEC_OK;
}

/* ---- control and status words ---- */

static enum exec_result fldcw(struct soft_vcpu *v, const struct insn *in)
{
    uint16_t cw;
    if (!opnd_read(v, in, &cw, 2))
        return EXEC_FAULT;
    v->st.fx.fcw = (cw & FCW_VALID) | FCW_ONE;
    if (v->x87 == X87_LIVE) {
        cw = v->st.fx.fcw | FSW_EXCEPTIONS;
        __asm__ volatile("fldcw %0" : : "m"(cw));
    }
    return EXEC_OK;
}

static enum exec_result store16(struct soft_vcpu *v, const struct insn *in, uint16_t val)
{
    return opnd_write(v, in, &val, 2) ? EXEC_OK : EXEC_FAULT;
}

static void fnclex(struct soft_vcpu *v)
{
    if (v->x87 == X87_LIVE)
        __asm__ volatile("fnclex");
    else
        v->st.fx.fsw &= (uint16_t) ~(FSW_EXCEPTIONS | FSW_SF | FSW_ES | FSW_B);
}

/* FNSTSW AX, FNCLEX, FNINIT; FNENI, FNDISI and FNSETPM do nothing. */
enum exec_result x87_control_reg(struct soft_vcpu *v, const struct insn *in)
{
    if (in->opcode == 0xdf)
        v->st.gpr[RAX] = (v->st.gpr[RAX] & ~UINT64_C(0xffff)) | fpu_fsw(v);
    else if (in->modrm == 0xe2)
        fnclex(v);
    else if (in->modrm == 0xe3)
        fninit(v);
    return EXEC_OK;
}

enum exec_result x87_control_mem(struct soft_vcpu *v, const struct insn *in)
{
    unsigned ext = in->modrm >> 3 & 7;
    bool waits = ext < 6;
    if (waits && fpu_pending(v))
        return exec_fault(v, VEC_MF);
    if (in->opcode == 0xdd)
        return ext == 4 ? frstor(v, in) : ext == 6 ? fnsave(v, in) : store16(v, in, fpu_fsw(v));
    switch (ext) {
    case 4:
        return fldenv(v, in);
    case 5:
        return fldcw(v, in);
    case 6:
        return fnstenv(v, in);
    default:
        return store16(v, in, v->st.fx.fcw);
    }
}
