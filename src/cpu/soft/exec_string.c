/* MOVS, CMPS, SCAS, LODS, STOS, INS, OUTS and their REP forms. SDM 2, "REP/REPE/REPZ/REPNE/REPNZ".
 *
 * One element is the atomic unit: rCX, rSI and rDI always say exactly which elements are done, so a fault or an
 * interrupt between two of them is restartable. A call does at most CHUNK bytes and then returns EXEC_RESTART, so that
 * interrupts are seen; the call counts as one instruction. Elements in RAM that the TLB knows go by the host's own
 * string instructions, a page at a time: they have the guest's semantics even for overlapping operands.
 */
#include "cpu/soft/event.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/io.h"
#include "cpu/soft/mmu.h"

enum {
    CHUNK = 4096,   /* bytes a call */
    SLOW_CHUNK = 64 /* elements a call that took the slow way (MMIO, ports, code pages) */
};

enum { USES_SI = 1, USES_DI = 2, USES_FLAGS = 4, USES_PORT = 8 };

struct str {
    struct soft_vcpu *v;
    const struct insn *in;
    unsigned size;    /* of an element */
    uint64_t mask;    /* of the address size */
    uint64_t a, b;    /* CMPS and SCAS: the last pair compared */
    bool until_equal; /* CMPS and SCAS with REP: which outcome ends them */
};

struct str_ops {
    unsigned uses;
    /* One element at rSI/rDI, by the way that always works. False: v->fault. */
    bool (*one)(struct str *s);
    /* At most `n` elements upwards in known RAM; returns how many were done, 0 for "take the slow way". May be NULL. */
    unsigned (*many)(struct str *s, unsigned n);
};

/* ---- registers ---- */

static uint64_t offset(const struct str *s, unsigned reg)
{
    return s->v->st.gpr[reg] & s->mask;
}

static void put_offset(struct str *s, unsigned reg, uint64_t val)
{
    uint64_t *r = &s->v->st.gpr[reg];
    *r = s->in->addrsize == 2 ? (*r & ~s->mask) | (val & s->mask) : val & s->mask;
}

static bool backwards(const struct str *s)
{
    return s->v->st.rflags & RF_DF;
}

static void advance(struct str *s, unsigned uses, unsigned n)
{
    uint64_t step = (uint64_t)n * s->size;
    if (backwards(s))
        step = -step;
    if (uses & USES_SI)
        put_offset(s, RSI, s->v->st.gpr[RSI] + step);
    if (uses & USES_DI)
        put_offset(s, RDI, s->v->st.gpr[RDI] + step);
}

/* ---- memory ---- */

/* Elements from `off` that neither wrap the address size nor leave the page of the linear address; 0 if the first one
 * does or the segment would object. */
static unsigned run_length(struct str *s, unsigned seg, uint64_t off, unsigned n, unsigned acc, gva_t *gva)
{
    if (!seg_linear(s->v, seg, off, s->size, acc, gva))
        return 0;
    unsigned in_page = (4096 - (*gva & 0xfff)) / s->size;
    uint64_t before_wrap = (s->mask - off) / s->size;
    n = n < in_page ? n : in_page;
    n = n < before_wrap ? n : (unsigned)before_wrap;
    gva_t last;
    return n && seg_linear(s->v, seg, off, n * s->size, acc, &last) ? n : 0;
}

static const uint8_t *source(struct str *s, unsigned seg, unsigned reg, unsigned *n)
{
    gva_t gva;
    *n = run_length(s, seg, offset(s, reg), *n, ACC_READ, &gva);
    return *n ? tlb_read(s->v, gva, *n * s->size) : NULL;
}

static uint8_t *target(struct str *s, unsigned *n)
{
    gva_t gva;
    *n = run_length(s, SEG_ES, offset(s, RDI), *n, ACC_WRITE, &gva);
    return *n ? tlb_write(s->v, gva, *n * s->size) : NULL;
}

static bool load_si(struct str *s, uint64_t *val)
{
    *val = 0;
    return seg_read(s->v, s->in->seg, offset(s, RSI), val, s->size);
}

static bool store_di(struct str *s, uint64_t val)
{
    return seg_write(s->v, SEG_ES, offset(s, RDI), &val, s->size);
}

/* ---- MOVS, STOS, LODS ---- */

static bool movs_one(struct str *s)
{
    uint64_t val;
    return load_si(s, &val) && store_di(s, val);
}

static unsigned movs_many(struct str *s, unsigned n)
{
    const uint8_t *from = source(s, s->in->seg, RSI, &n);
    uint8_t *to = from ? target(s, &n) : NULL;
    size_t count = n;
    if (!to)
        return 0;
    switch (s->size) {
    case 1:
        __asm__ volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
        break;
    case 2:
        __asm__ volatile("rep movsw" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
        break;
    case 4:
        __asm__ volatile("rep movsl" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
        break;
    default:
        __asm__ volatile("rep movsq" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
    }
    return n;
}

static bool stos_one(struct str *s)
{
    return store_di(s, s->v->st.gpr[RAX]);
}

static unsigned stos_many(struct str *s, unsigned n)
{
    uint8_t *to = target(s, &n);
    uint64_t val = s->v->st.gpr[RAX];
    size_t count = n;
    if (!to)
        return 0;
    switch (s->size) {
    case 1:
        __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(val) : "memory");
        break;
    case 2:
        __asm__ volatile("rep stosw" : "+D"(to), "+c"(count) : "a"(val) : "memory");
        break;
    case 4:
        __asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(val) : "memory");
        break;
    default:
        __asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(val) : "memory");
    }
    return n;
}

static bool lods_one(struct str *s)
{
    uint64_t val;
    if (!load_si(s, &val))
        return false;
    uint64_t *rax = &s->v->st.gpr[RAX];
    *rax = s->size < 4 ? (*rax & ~size_mask(s->size)) | val : val;
    return true;
}

/* ---- CMPS, SCAS ---- */

/* SDM 2, "CMP": flags of a - b. */
static uint64_t cmp_flags(uint64_t a, uint64_t b, unsigned size)
{
    uint64_t r = (a - b) & size_mask(size), sign = UINT64_C(1) << (size * 8 - 1);
    uint64_t f = (a ^ b ^ r) & RF_AF;
    f |= a < b ? RF_CF : 0;
    f |= r ? 0 : RF_ZF;
    f |= r & sign ? RF_SF : 0;
    f |= (a ^ b) & (a ^ r) & sign ? RF_OF : 0;
    f |= __builtin_parity(r & 0xff) ? 0 : RF_PF;
    return f;
}

static bool cmps_one(struct str *s)
{
    uint64_t a, b = 0;
    if (!load_si(s, &a) || !seg_read(s->v, SEG_ES, offset(s, RDI), &b, s->size))
        return false;
    s->a = a;
    s->b = b;
    return true;
}

static unsigned cmps_many(struct str *s, unsigned n)
{
    const uint8_t *p = source(s, s->in->seg, RSI, &n);
    const uint8_t *q = p ? source(s, SEG_ES, RDI, &n) : NULL;
    if (!q)
        return 0;
    for (unsigned i = 0; i < n; i++) {
        s->a = guest_ld(p + i * s->size, s->size);
        s->b = guest_ld(q + i * s->size, s->size);
        if ((s->a == s->b) == s->until_equal)
            return i + 1;
    }
    return n;
}

static bool scas_one(struct str *s)
{
    uint64_t b = 0;
    if (!seg_read(s->v, SEG_ES, offset(s, RDI), &b, s->size))
        return false;
    s->a = s->v->st.gpr[RAX] & size_mask(s->size);
    s->b = b;
    return true;
}

static unsigned scas_many(struct str *s, unsigned n)
{
    const uint8_t *q = source(s, SEG_ES, RDI, &n);
    if (!q)
        return 0;
    s->a = s->v->st.gpr[RAX] & size_mask(s->size);
    for (unsigned i = 0; i < n; i++) {
        s->b = guest_ld(q + i * s->size, s->size);
        if ((s->a == s->b) == s->until_equal)
            return i + 1;
    }
    return n;
}

/* ---- INS, OUTS ---- */

static unsigned port(const struct str *s)
{
    return s->v->st.gpr[RDX] & 0xffff;
}

/* The store must be known to succeed before the device is read. */
static bool ins_one(struct str *s)
{
    gva_t gva;
    if (!io_allowed(s->v, port(s), s->size) || !seg_linear(s->v, SEG_ES, offset(s, RDI), s->size, ACC_WRITE, &gva) ||
        !lin_probe_write(s->v, gva, s->size, ACC_WRITE))
        return false;
    return store_di(s, io_read(s->v, port(s), s->size));
}

static bool outs_one(struct str *s)
{
    uint64_t val;
    if (!io_allowed(s->v, port(s), s->size) || !load_si(s, &val))
        return false;
    io_write(s->v, port(s), s->size, (uint32_t)val);
    return true;
}

/* ---- REP ---- */

static void commit_flags(struct str *s, const struct str_ops *ops)
{
    if (ops->uses & USES_FLAGS)
        flags_put(s->v, cmp_flags(s->a, s->b, s->size));
}

/* Whether the outcome of the last pair ends a REPE or REPNE. */
static bool decided(const struct str *s, const struct str_ops *ops)
{
    return ops->uses & USES_FLAGS && (s->a == s->b) == s->until_equal;
}

/* Whether something has to be looked at before the next element. */
static bool must_pause(const struct soft_vcpu *v)
{
    return v->smc || v->db_hits || v->mode & MODE_SINGLE;
}

static enum exec_result repeat(struct str *s, const struct str_ops *ops)
{
    struct soft_vcpu *v = s->v;
    uint64_t count = offset(s, RCX);
    unsigned done = 0, slow = 0;
    if (!count) /* the right to use the port is checked even so */
        return !(ops->uses & USES_PORT) || io_allowed(v, port(s), s->size) ? EXEC_OK : EXEC_FAULT;
    do {
        unsigned n = 0, want = v->mode & MODE_SINGLE ? 1 : (CHUNK - done) / s->size;
        if (ops->many && !backwards(s))
            n = ops->many(s, count < want ? (unsigned)count : want);
        if (!n) {
            if (!ops->one(s))
                return EXEC_FAULT; /* the flags stay as they were (SDM 2, "REP") */
            n = 1;
            slow++;
        }
        count -= n;
        advance(s, ops->uses, n);
        put_offset(s, RCX, count);
        if (decided(s, ops))
            break;
        done += n * s->size;
        if (count && (done >= CHUNK || slow >= SLOW_CHUNK || must_pause(v))) {
            commit_flags(s, ops);
            return EXEC_RESTART;
        }
    } while (count);
    commit_flags(s, ops);
    return EXEC_OK;
}

static enum exec_result string_insn(struct soft_vcpu *v, const struct insn *in, const struct str_ops *ops)
{
    struct str s = {.v = v, .in = in, .size = in->opsize, .mask = size_mask(in->addrsize)};
    s.until_equal = in->flags & INSN_REPNE;
    if (in->flags & (INSN_REP | INSN_REPNE))
        return repeat(&s, ops);
    if (!ops->one(&s))
        return EXEC_FAULT;
    advance(&s, ops->uses, 1);
    commit_flags(&s, ops);
    return EXEC_OK;
}

#define STRING(name, ...)                                                                                              \
    enum exec_result exec_##name(struct soft_vcpu *v, const struct insn *in)                                           \
    {                                                                                                                  \
        static const struct str_ops ops = {__VA_ARGS__};                                                               \
        return string_insn(v, in, &ops);                                                                               \
    }

STRING(movs, USES_SI | USES_DI, movs_one, movs_many)
STRING(cmps, USES_SI | USES_DI | USES_FLAGS, cmps_one, cmps_many)
STRING(scas, USES_DI | USES_FLAGS, scas_one, scas_many)
STRING(lods, USES_SI, lods_one, NULL)
STRING(stos, USES_DI, stos_one, stos_many)
STRING(ins, USES_DI | USES_PORT, ins_one, NULL)
STRING(outs, USES_SI | USES_PORT, outs_one, NULL)
