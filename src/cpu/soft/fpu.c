#include "cpu/soft/fpu.h"

/* An FXSAVE image through which the x87 half moves; its XMM half is rubbish both ways. */
struct fx_image {
    uint8_t b[512];
} __attribute__((aligned(16)));

enum { FX_X87_BYTES = 24, FX_MXCSR = 24, FX_ST = 32, FX_ST_BYTES = 128 };

#define XMM_CLOBBERS                                                                                                   \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",         \
        "xmm13", "xmm14", "xmm15"

void fpu_enter(struct soft_vcpu *v)
{
    v->x87 = X87_MEM;
}

void fpu_leave(struct soft_vcpu *v)
{
    fpu_to_mem(v);
    if (v->x87 == X87_SCRATCH) {
        __asm__ volatile("emms");
        v->x87 = X87_MEM;
    }
}

void fpu_sync(struct soft_vcpu *v)
{
    struct fx_image img;
    if (v->x87 == X87_LIVE) {
        __asm__ volatile("fxsave64 %0" : "=m"(img));
        v->st.fx.ftw_abridged = img.b[4];
        memcpy(v->st.fx.st, img.b + FX_ST, FX_ST_BYTES);
    }
    v->st.fx.fsw = fpu_fsw(v);
}

void fpu_to_mem(struct soft_vcpu *v)
{
    fpu_sync(v);
    fpu_discard(v);
}

void fpu_discard(struct soft_vcpu *v)
{
    if (v->x87 != X87_LIVE)
        return;
    v->x87 = X87_MEM;
    __asm__ volatile("fninit");
}

void fpu_load(struct soft_vcpu *v)
{
    struct fx_image img;
    if (v->x87 == X87_LIVE)
        return;
    memset(img.b, 0, FX_X87_BYTES);
    st16(img.b, v->st.fx.fcw | FSW_EXCEPTIONS);
    st16(img.b + 2, v->st.fx.fsw & (uint16_t) ~(FSW_ES | FSW_B));
    img.b[4] = v->st.fx.ftw_abridged;
    st32(img.b + FX_MXCSR, MXCSR_INIT);
    st32(img.b + FX_MXCSR + 4, 0);
    memcpy(img.b + FX_ST, v->st.fx.st, FX_ST_BYTES);
    memset(img.b + FX_ST + FX_ST_BYTES, 0, sizeof img - FX_ST - FX_ST_BYTES);
    __asm__ volatile("fxrstor64 %0" : : "m"(img) : XMM_CLOBBERS);
    v->x87 = X87_LIVE;
}

uint16_t fpu_fsw(const struct soft_vcpu *v)
{
    uint16_t fsw = v->st.fx.fsw;
    if (v->x87 == X87_LIVE)
        __asm__ volatile("fnstsw %0" : "=m"(fsw));
    fsw &= (uint16_t) ~(FSW_ES | FSW_B);
    return fsw & ~v->st.fx.fcw & FSW_EXCEPTIONS ? fsw | FSW_ES | FSW_B : fsw;
}

void fpu_set_top(struct soft_vcpu *v, unsigned top)
{
    struct cpu_fx *fx = &v->st.fx;
    unsigned turn = (top - bits(fx->fsw, 13, FSW_TOP_SHIFT)) & 7;
    uint8_t old[8][16];
    if (turn) {
        memcpy(old, fx->st, sizeof old);
        for (unsigned i = 0; i < 8; i++)
            memcpy(fx->st[i], old[(i + turn) & 7], sizeof old[0]);
    }
    fx->fsw = (uint16_t)((fx->fsw & ~FSW_TOP) | top << FSW_TOP_SHIFT);
}

void fpu_mmx_begin(struct soft_vcpu *v)
{
    fpu_to_mem(v);
    v->x87 = X87_SCRATCH;
    if (v->st.fx.fsw & FSW_TOP)
        fpu_set_top(v, 0);
    v->st.fx.ftw_abridged = 0xff;
}
