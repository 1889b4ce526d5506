/* The rare integer instructions: cmpxchg8b/16b, BCD arithmetic, the 16-bit compilers' favourites, random numbers. */
#include "cpu/soft/event.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/mmu.h"

#include <sys/random.h>

/* ---- registers ---- */

static uint8_t al(const struct soft_vcpu *v)
{
    return (uint8_t)v->st.gpr[RAX];
}

static uint8_t ah(const struct soft_vcpu *v)
{
    return (uint8_t)(v->st.gpr[RAX] >> 8);
}

static void put_ax(struct soft_vcpu *v, unsigned high, unsigned low)
{
    v->st.gpr[RAX] = (v->st.gpr[RAX] & ~UINT64_C(0xffff)) | (high & 0xff) << 8 | (low & 0xff);
}

/* A write of a general register of `size` bytes. */
static void put_reg(struct soft_vcpu *v, unsigned reg, unsigned size, uint64_t val)
{
    uint64_t *r = &v->st.gpr[reg];
    *r = size < 4 ? (*r & ~size_mask(size)) | (val & size_mask(size)) : val & size_mask(size);
}

static void put_zf(struct soft_vcpu *v, bool zf)
{
    flags_put(v, (flags_get(v) & ~RF_ZF) | (zf ? RF_ZF : 0));
}

/* SF, ZF and PF of a byte. */
static uint64_t szp(uint8_t r)
{
    return (r & 0x80 ? RF_SF : 0) | (r ? 0 : RF_ZF) | (__builtin_parity(r) ? 0 : RF_PF);
}

/* ---- CMPXCHG8B, CMPXCHG16B ---- */

static bool host_cmpxchg8b(uint8_t *p, uint64_t *expect, uint64_t val)
{
    bool ok;
    __asm__ volatile("lock cmpxchgq %3, %1" : "=@ccz"(ok), "+m"(*(guest_u64 *)p), "+a"(*expect) : "r"(val) : "memory");
    return ok;
}

static bool host_cmpxchg16b(uint8_t *p, uint64_t expect[2], const uint64_t val[2])
{
    bool ok;
    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(ok), "+m"(*(unsigned __int128 *)p), "+a"(expect[0]), "+d"(expect[1])
                     : "b"(val[0]), "c"(val[1])
                     : "memory");
    return ok;
}

/* Where no host atomic can go: alone in the machine. Writes even if the comparison fails, as the CPU does. */
static bool cmpxchg_alone(struct soft_vcpu *v, gva_t gva, unsigned size, uint64_t expect[2], const uint64_t val[2],
                          bool *equal)
{
    uint64_t old[2] = {0};
    bool ok;
    excl_begin(v);
    ok = lin_read(v, gva, old, size, ACC_READ);
    *equal = old[0] == expect[0] && old[1] == expect[1];
    ok = ok && lin_write(v, gva, *equal ? val : old, size, ACC_WRITE);
    excl_end(v);
    memcpy(expect, old, sizeof old);
    return ok;
}

static bool cmpxchg_mem(struct soft_vcpu *v, gva_t gva, unsigned size, uint64_t expect[2], const uint64_t val[2],
                        bool *equal)
{
    bool alone;
    uint8_t *p = lin_atomic(v, gva, size, &alone);
    if (!p)
        return alone && cmpxchg_alone(v, gva, size, expect, val, equal);
    *equal = size == 8 ? host_cmpxchg8b(p, expect, val[0]) : host_cmpxchg16b(p, expect, val);
    return true;
}

/* SDM 2, "CMPXCHG8B/CMPXCHG16B" */
enum exec_result exec_cmpxchg8b(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t *g = v->st.gpr;
    uint64_t expect[2] = {(uint32_t)g[RAX] | g[RDX] << 32, 0};
    uint64_t val[2] = {(uint32_t)g[RBX] | g[RCX] << 32, 0};
    gva_t gva;
    bool equal;
    if (!opnd_linear(v, in, 8, ACC_WRITE, &gva) || !cmpxchg_mem(v, gva, 8, expect, val, &equal))
        return EXEC_FAULT;
    if (!equal) {
        g[RAX] = (uint32_t)expect[0];
        g[RDX] = expect[0] >> 32;
    }
    put_zf(v, equal);
    return EXEC_OK;
}

enum exec_result exec_cmpxchg16b(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t *g = v->st.gpr;
    uint64_t expect[2] = {g[RAX], g[RDX]}, val[2] = {g[RBX], g[RCX]};
    gva_t gva;
    bool equal;
    if (!opnd_linear(v, in, 16, ACC_WRITE, &gva))
        return EXEC_FAULT;
    if (gva & 15)
        return exec_fault_err(v, VEC_GP, 0);
    if (!cmpxchg_mem(v, gva, 16, expect, val, &equal))
        return EXEC_FAULT;
    if (!equal) {
        g[RAX] = expect[0];
        g[RDX] = expect[1];
    }
    put_zf(v, equal);
    return EXEC_OK;
}

/* ---- decimal arithmetic; flags the SDM leaves undefined are as Intel's CPUs have them or 0 ---- */

static enum exec_result ascii_adjust(struct soft_vcpu *v, int sign)
{
    uint64_t f = flags_get(v);
    bool adjust = (al(v) & 15) > 9 || f & RF_AF;
    if (adjust) {
        uint16_t ax = (uint16_t)(v->st.gpr[RAX] + (uint64_t)(sign * 0x106));
        put_ax(v, ax >> 8, ax & 15);
    } else {
        put_ax(v, ah(v), al(v) & 15);
    }
    flags_put(v, szp(al(v)) | (adjust ? RF_AF | RF_CF : 0));
    return EXEC_OK;
}

enum exec_result exec_aaa(struct soft_vcpu *v, const struct insn *in)
{
    return ascii_adjust(v, 1);
}

enum exec_result exec_aas(struct soft_vcpu *v, const struct insn *in)
{
    return ascii_adjust(v, -1);
}

enum exec_result exec_aam(struct soft_vcpu *v, const struct insn *in)
{
    uint8_t base = (uint8_t)in->imm, old = al(v);
    if (!base)
        return exec_fault(v, VEC_DE);
    put_ax(v, old / base, old % base);
    flags_put(v, szp(al(v)));
    return EXEC_OK;
}

enum exec_result exec_aad(struct soft_vcpu *v, const struct insn *in)
{
    put_ax(v, 0, al(v) + ah(v) * (unsigned)in->imm);
    flags_put(v, szp(al(v)));
    return EXEC_OK;
}

/* SDM 2, "DAA" and "DAS": they differ in the sign, and in when the low digit's borrow counts. */
static enum exec_result decimal_adjust(struct soft_vcpu *v, int sign)
{
    uint64_t f = flags_get(v), out = 0;
    uint8_t old = al(v);
    unsigned r = old;
    if ((old & 15) > 9 || f & RF_AF) {
        r += (unsigned)(sign * 6);
        out = RF_AF | (sign < 0 && r > 0xff ? RF_CF : 0);
    }
    if (old > 0x99 || f & RF_CF) {
        r += (unsigned)(sign * 0x60);
        out |= RF_CF;
    }
    put_ax(v, ah(v), r);
    flags_put(v, szp((uint8_t)r) | out);
    return EXEC_OK;
}

enum exec_result exec_daa(struct soft_vcpu *v, const struct insn *in)
{
    return decimal_adjust(v, 1);
}

enum exec_result exec_das(struct soft_vcpu *v, const struct insn *in)
{
    return decimal_adjust(v, -1);
}

enum exec_result exec_salc(struct soft_vcpu *v, const struct insn *in)
{
    put_ax(v, ah(v), flags_get(v) & RF_CF ? 0xff : 0);
    return EXEC_OK;
}

/* ---- table look-up, bounds ---- */

enum exec_result exec_xlat(struct soft_vcpu *v, const struct insn *in)
{
    uint8_t byte;
    uint64_t off = (v->st.gpr[RBX] + al(v)) & size_mask(in->addrsize);
    if (!seg_read(v, in->seg, off, &byte, 1))
        return EXEC_FAULT;
    put_ax(v, ah(v), byte);
    return EXEC_OK;
}

/* SDM 2, "BOUND": signed index between two signed bounds in memory. */
enum exec_result exec_bound(struct soft_vcpu *v, const struct insn *in)
{
    uint8_t pair[8];
    if (!opnd_read(v, in, pair, in->opsize * 2u))
        return EXEC_FAULT;
    uint64_t reg = v->st.gpr[in->dst.reg];
    bool wide = in->opsize == 4;
    int32_t index = wide ? (int32_t)reg : (int16_t)reg;
    int32_t low = wide ? (int32_t)ld32(pair) : (int16_t)ld16(pair);
    int32_t high = wide ? (int32_t)ld32(pair + 4) : (int16_t)ld16(pair + 2);
    return index < low || index > high ? exec_fault(v, VEC_BR) : EXEC_OK;
}

/* SDM 2, "ARPL": protected mode only. */
enum exec_result exec_arpl(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t sel, rpl = v->st.gpr[in->src.reg] & 3;
    if (!(v->mode & MODE_PE) || v->mode & MODE_V86)
        return exec_fault(v, VEC_UD);
    if (!opnd_get(v, in, &in->dst, &sel))
        return EXEC_FAULT;
    bool raise = (sel & 3) < rpl;
    if (raise && !opnd_put(v, in, &in->dst, (sel & ~UINT64_C(3)) | rpl))
        return EXEC_FAULT;
    put_zf(v, raise);
    return EXEC_OK;
}

/* ---- stack frames ---- */

static unsigned stack_size(const struct soft_vcpu *v)
{
    if ((v->mode & MODE_CODE) == CODE64)
        return 8;
    return v->st.seg[SEG_SS].attr & SEGA_DB ? 4 : 2;
}

/* The display: copies of the enclosing frames' pointers. */
static bool push_display(struct soft_vcpu *v, const struct insn *in, unsigned level, uint64_t frame)
{
    uint64_t mask = size_mask(stack_size(v)), bp = v->st.gpr[RBP];
    for (unsigned i = 1; i < level; i++) {
        uint64_t val = 0;
        bp -= in->opsize;
        if (!seg_read(v, SEG_SS, bp & mask, &val, in->opsize) || !stack_push(v, in->opsize, val))
            return false;
    }
    return stack_push(v, in->opsize, frame);
}

/* SDM 2, "ENTER". Faults also if the new top of the stack could not be written. */
enum exec_result exec_enter(struct soft_vcpu *v, const struct insn *in)
{
    unsigned level = in->imm2 & 31, size = stack_size(v);
    uint64_t *sp = &v->st.gpr[RSP], old = *sp;
    gva_t top;
    if (!stack_push(v, in->opsize, v->st.gpr[RBP]))
        return EXEC_FAULT;
    uint64_t frame = *sp;
    if (level && !push_display(v, in, level, frame))
        goto fault;
    put_reg(v, RSP, size, *sp - in->imm);
    if (!seg_linear(v, SEG_SS, *sp & size_mask(size), in->opsize, ACC_WRITE, &top) ||
        !lin_probe_write(v, top, in->opsize, ACC_WRITE))
        goto fault;
    put_reg(v, RBP, size, frame);
    return EXEC_OK;
fault:
    *sp = old;
    return EXEC_FAULT;
}

/* Whether `bytes` from `sp` lie in the stack without wrapping around its size. */
static bool contiguous(const struct soft_vcpu *v, uint64_t sp, unsigned bytes)
{
    return sp <= size_mask(stack_size(v)) - bytes;
}

static const uint8_t pusha_order[8] = {RDI, RSI, RBP, RSP, RBX, RDX, RCX, RAX}; /* from the lowest address */

/* Record the fault of the first push, from the top, that can't be done. */
static enum exec_result pusha_fault(struct soft_vcpu *v, uint64_t sp, unsigned n)
{
    gva_t at;
    for (unsigned i = 8; i-- > 0;)
        if (!seg_linear(v, SEG_SS, sp + i * n, n, ACC_WRITE, &at) || !lin_probe_write(v, at, n, ACC_WRITE))
            break;
    return EXEC_FAULT;
}

/* SDM 2, "PUSHA/PUSHAD": all eight or none, except where the stack wraps. */
enum exec_result exec_pusha(struct soft_vcpu *v, const struct insn *in)
{
    unsigned n = in->opsize, size = stack_size(v);
    uint64_t old = v->st.gpr[RSP], sp = (old - n * 8) & size_mask(size);
    uint8_t frame[32];
    for (unsigned i = 0; i < 8; i++)
        memcpy(frame + i * n, &v->st.gpr[pusha_order[i]], n);
    if (contiguous(v, sp, n * 8)) {
        if (!seg_write(v, SEG_SS, sp, frame, n * 8))
            return pusha_fault(v, sp, n);
        put_reg(v, RSP, size, sp);
        return EXEC_OK;
    }
    for (unsigned i = 8; i-- > 0;) {
        uint64_t val = 0;
        memcpy(&val, frame + i * n, n);
        if (!stack_push(v, n, val)) {
            v->st.gpr[RSP] = old;
            return EXEC_FAULT;
        }
    }
    return EXEC_OK;
}

enum exec_result exec_popa(struct soft_vcpu *v, const struct insn *in)
{
    unsigned n = in->opsize, size = stack_size(v);
    uint64_t sp = v->st.gpr[RSP] & size_mask(size);
    uint64_t val[8] = {0};
    for (unsigned i = 0; i < 8; i++)
        if (!seg_read(v, SEG_SS, (sp + i * n) & size_mask(size), &val[i], n))
            return EXEC_FAULT;
    for (unsigned i = 0; i < 8; i++)
        if (pusha_order[i] != RSP)
            put_reg(v, pusha_order[i], n, val[i]);
    put_reg(v, RSP, size, sp + n * 8);
    return EXEC_OK;
}

/* ---- random numbers ---- */

/* Deterministic machines draw from the seeded generator of the vCPU (splitmix64), others from the host kernel. */
static bool random_word(struct soft_vcpu *v, uint64_t *val)
{
    if (!v->vm->cfg.deterministic)
        return getrandom(val, sizeof *val, GRND_NONBLOCK) == sizeof *val;
    uint64_t z = v->rng += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    *val = z ^ z >> 31;
    return true;
}

/* SDM 2, "RDRAND": CF says whether there was a number; without one the destination is 0. */
enum exec_result exec_rdrand(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t val = 0;
    bool ok = random_word(v, &val);
    put_reg(v, in->dst.reg, in->opsize, ok ? val : 0);
    flags_put(v, ok ? RF_CF : 0);
    return EXEC_OK;
}

enum exec_result exec_rdseed(struct soft_vcpu *v, const struct insn *in)
{
    return exec_rdrand(v, in);
}

/* ---- the rest ---- */

enum exec_result exec_ud(struct soft_vcpu *v, const struct insn *in)
{
    return exec_fault(v, VEC_UD);
}

/* Caches are the host's business; only the faults of a byte read remain. */
enum exec_result exec_clflush(struct soft_vcpu *v, const struct insn *in)
{
    gva_t gva;
    uint8_t byte;
    if (!opnd_linear(v, in, 1, ACC_READ, &gva))
        return EXEC_FAULT;
    return tlb_read(v, gva, 1) || lin_read(v, gva, &byte, 1, ACC_READ) ? EXEC_OK : EXEC_FAULT;
}

enum exec_result exec_prefetch(struct soft_vcpu *v, const struct insn *in)
{
    return EXEC_OK;
}
