/* FXSAVE, FXRSTOR, LDMXCSR, STMXCSR. SDM 1, "FXSAVE and FXRSTOR Instructions" and "FXSAVE Area". */
#include "cpu/soft/sse.h"

/* Bytes of the area that mean something: 8 XMM registers outside 64-bit mode, 16 in it. */
static unsigned fx_bytes(const struct soft_vcpu *v)
{
    return in_code64(v) ? offsetof(struct cpu_fx, reserved1) : offsetof(struct cpu_fx, xmm) + 8 * 16;
}

/* The whole operand: 512 bytes, 16-byte aligned. */
static bool fx_operand(struct soft_vcpu *v, const struct insn *in, unsigned acc, gva_t *gva)
{
    if (v->st.cr0 & (CR0_EM | CR0_TS)) {
        fault_set(v, VEC_NM, false, 0);
        return false;
    }
    if (!opnd_linear(v, in, 512, acc, gva))
        return false;
    if (*gva & 15) {
        fault_set(v, VEC_GP, true, 0);
        return false;
    }
    return true;
}

/* Without REX.W the instruction and data pointers are 32 bits and a selector, which reads as 0 (CPUID.7:EBX[13]). */
static uint64_t fx_pointer(const struct insn *in, uint64_t p)
{
    return in->flags & INSN_REX_W ? p : (uint32_t)p;
}

static enum exec_result fxsave(struct soft_vcpu *v, const struct insn *in)
{
    struct cpu_fx img;
    gva_t gva;
    if (!fx_operand(v, in, ACC_WRITE, &gva))
        return EXEC_FAULT;
    fpu_sync(v);
    img = v->st.fx;
    img.fsw = fpu_fsw(v);
    img.fip = fx_pointer(in, img.fip);
    img.fdp = fx_pointer(in, img.fdp);
    img.mxcsr_mask = MXCSR_MASK;
    img.reserved0 = 0;
    return lin_write(v, gva, &img, fx_bytes(v), ACC_WRITE) ? EXEC_OK : EXEC_FAULT;
}

static enum exec_result fxrstor(struct soft_vcpu *v, const struct insn *in)
{
    struct cpu_fx img, *fx = &v->st.fx;
    gva_t gva;
    if (!fx_operand(v, in, ACC_READ, &gva) || !lin_read(v, gva, &img, sizeof img, ACC_READ))
        return EXEC_FAULT;
    if (img.mxcsr & ~(uint32_t)MXCSR_MASK)
        return exec_fault_err(v, VEC_GP, 0);
    fpu_discard(v);
    memcpy(fx->xmm, img.xmm, in_code64(v) ? sizeof img.xmm : sizeof img.xmm / 2);
    for (unsigned i = 0; i < 8; i++) {
        memset(img.st[i] + 10, 0, 6);
        memcpy(fx->st[i], img.st[i], 16);
    }
    fx->mxcsr = img.mxcsr;
    fx->fcw = (img.fcw & FCW_VALID) | FCW_ONE;
    fx->fsw = img.fsw;
    fx->fsw = fpu_fsw(v);
    fx->ftw_abridged = img.ftw_abridged;
    fx->fop = img.fop & 0x7ff;
    fx->fip = fx_pointer(in, img.fip);
    fx->fdp = fx_pointer(in, img.fdp);
    return EXEC_OK;
}

static enum exec_result ldmxcsr(struct soft_vcpu *v, const struct insn *in)
{
    uint8_t buf[16];
    if (!sse_check(v) || !sse_mem_src(v, in, 4, false, buf))
        return EXEC_FAULT;
    if (ld32(buf) & ~(uint32_t)MXCSR_MASK)
        return exec_fault_err(v, VEC_GP, 0);
    v->st.fx.mxcsr = ld32(buf);
    return EXEC_OK;
}

static enum exec_result stmxcsr(struct soft_vcpu *v, const struct insn *in)
{
    if (!sse_check(v) || !sse_mem_store(v, in, &v->st.fx.mxcsr, 4, false))
        return EXEC_FAULT;
    return EXEC_OK;
}

/* 0F AE with a memory operand and no prefix. XSAVE and its kin are not offered by CPUID. */
enum exec_result sse_group_ae(struct soft_vcpu *v, const struct insn *in)
{
    switch (in->modrm >> 3 & 7) {
    case 0:
        return fxsave(v, in);
    case 1:
        return fxrstor(v, in);
    case 2:
        return ldmxcsr(v, in);
    case 3:
        return stmxcsr(v, in);
    default:
        return exec_fault(v, VEC_UD);
    }
}
