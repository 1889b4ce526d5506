/* One random instruction: drawn from templates that cover every opcode the decoder knows, in every prefix column and
 * for every ModRM.reg and both kinds of ModRM operand. */
#include "gen.h"

#include <stdlib.h>
#include <string.h>

struct tmpl {
    uint8_t pfx, map, opcode, mod3, reg;
};

/* The templates of one operation. */
struct tmpls {
    unsigned op;
    struct tmpl *v;
    unsigned n;
};

struct ops {
    struct tmpls v[64];
    unsigned n;
};

struct shapes {
    ZydisDecoder dec[3];
    struct ops by_group[3][G_COUNT]; /* [enum code_size] */
};

static struct shapes *shapes(void)
{
    static struct shapes s;
    return &s;
}

/* ---- which group an operation belongs to ---- */

static const uint8_t op_group[OP_COUNT] = {
/* group + 1; 0: not tested this way */
#define A(op) [OP_##op] = G_ALU + 1
    A(add),
    A(or),
    A(adc),
    A(sbb),
    A(and),
    A(sub),
    A(xor),
    A(cmp),
    A(test),
    A(inc),
    A(dec),
    A(neg),
    A(not ),
#undef A
#define A(op) [OP_##op] = G_MOV + 1
    A(mov),
    A(xchg),
    A(movbe),
    A(movzx),
    A(movsx),
    A(lea),
    A(cbw),
    A(cwd),
    A(setcc),
    A(cmovcc),
    A(bswap),
    A(lahf),
    A(sahf),
    A(clc),
    A(stc),
    A(cmc),
    A(mov_from_seg),
    A(movnti),
    A(nop),
    A(pause),
#undef A
#define A(op) [OP_##op] = G_SHIFT + 1
    A(rol),
    A(ror),
    A(rcl),
    A(rcr),
    A(shl),
    A(shr),
    A(sar),
    A(shld),
    A(shrd),
#undef A
#define A(op) [OP_##op] = G_BIT + 1
    A(bt),
    A(bts),
    A(btr),
    A(btc),
    A(bsf),
    A(bsr),
    A(tzcnt),
    A(lzcnt),
    A(popcnt),
#undef A
#define A(op) [OP_##op] = G_MULDIV + 1
    A(mul),
    A(imul1),
    A(imul2),
    A(imul3),
    A(div),
    A(idiv),
#undef A
#define A(op) [OP_##op] = G_STACK_OPS + 1
    A(push),
    A(pop),
    A(pushf),
    A(popf),
    A(leave),
    A(enter),
    A(push_seg),
#undef A
#define A(op) [OP_##op] = G_BRANCH + 1
    A(jcc),
    A(jmp),
    A(call),
    A(ret),
    A(loop),
    A(loope),
    A(loopne),
    A(jcxz),
#undef A
#define A(op) [OP_##op] = G_STRING + 1
    A(movs),
    A(cmps),
    A(scas),
    A(lods),
    A(stos),
    A(cld),
    A(std),
    A(xlat),
#undef A
#define A(op) [OP_##op] = G_ATOMIC + 1
    A(xadd),
    A(cmpxchg),
    A(cmpxchg8b),
    A(cmpxchg16b),
#undef A
#define A(op) [OP_##op] = G_MISC + 1
    A(crc32),
    A(adcx),
    A(adox),
    A(lfence),
    A(mfence),
    A(sfence),
    A(prefetch),
    A(clflush),
    A(ud),
#undef A
#define A(op) [OP_##op] = G_PRIV + 1
    A(hlt),
    A(cli),
    A(sti),
    A(in),
    A(out),
    A(ins),
    A(outs),
    A(mov_to_cr),
    A(mov_from_cr),
    A(mov_to_dr),
    A(mov_from_dr),
    A(clts),
    A(invd),
    A(wbinvd),
    A(lgdt),
    A(lidt),
    A(lldt),
    A(ltr),
    A(lmsw),
    A(invlpg),
    A(rdmsr),
    A(wrmsr),
    A(sysexit),
    A(sysret),
#undef A
#define A(op) [OP_##op] = G_BCD + 1
    A(aaa),
    A(aas),
    A(aam),
    A(aad),
    A(daa),
    A(das),
    A(salc),
    A(bound),
    A(arpl),
    A(pusha),
    A(popa),
    A(into),
#undef A
    [OP_sse] = G_SSE + 1,
    [OP_x87] = G_X87 + 1,
};

static bool sse_in_model(const struct shape *s)
{
    switch (s->z.meta.isa_set) {
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_SSEMXCSR:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_SHA:
    case ZYDIS_ISA_SET_FXSAVE:
    case ZYDIS_ISA_SET_FXSAVE64:
        return true;
    default:
        return false;
    }
}

/* Instructions whose outcome is not the instruction set's alone: FXSAVE and FNSTENV store the last instruction's
 * address, which each maker keeps in its own way; 66 before a near branch counts on AMD's CPUs only; 0F 0D with a
 * register is a NOP on Intel's only; PUSH of a segment register with 32 bits leaves the upper half alone on Intel's
 * only; XCHG r8, rAX with F3 is PAUSE on some; F2 and F3 choose between LOOPE and LOOPNE on AMD's. */
static bool outcome_varies(const struct shape *s)
{
    const struct insn *in = &s->in;
    unsigned reg = in->reg & 7;
    bool mem = in->flags & INSN_MEM;
    if (op_group[in->op] == G_BRANCH + 1)
        return in->flags & INSN_OPSIZE || ((in->op == OP_loope || in->op == OP_loopne) && in->prefix);
    if (in->op == OP_push_seg)
        return in->opsize == 4;
    if (in->op == OP_movsx && in->map == 0)
        return in->opsize == 2; /* MOVSXD r16: reads 16 or 32 bits */
    if (in->op == OP_nop)
        return in->map == 1 && in->opcode == 0x0d;
    if (in->op == OP_xchg)
        return in->opcode == 0x90 && in->prefix == 2;
    if (in->op == OP_sse)
        return in->map == 1 && in->opcode == 0xae && mem && reg == 0;
    if (in->op == OP_x87)
        return mem && ((in->opcode == 0xd9 && reg == 6) || (in->opcode == 0xdd && reg == 6));
    return false;
}

enum group shape_group(const struct shape *s)
{
    unsigned g = op_group[s->in.op];
    if (!g || outcome_varies(s) || (s->in.op == OP_bswap && s->in.opsize == 2))
        return G_COUNT;
    if (s->known && s->in.op == OP_sse && !sse_in_model(s))
        return G_COUNT;
    if (!s->known && s->in.op != OP_sse)
        return G_COUNT;
    if (s->in.flags & INSN_LOCK)
        return G_ATOMIC;
    if (s->in.op == OP_xchg && s->in.flags & INSN_MEM)
        return G_ATOMIC;
    return g - 1;
}

bool shape_decode(unsigned mode, const uint8_t *code, unsigned avail, struct shape *s)
{
    if (decode_insn(code, avail, mode, &s->in) != DECODE_OK)
        return false;
    s->known = ZYAN_SUCCESS(ZydisDecoderDecodeFull(&shapes()->dec[mode], code, avail, &s->z, s->ops));
    return !s->known || s->z.length == s->in.len;
}

/* ---- templates ---- */

static const char *const map_bytes[] = {"", "\x0f", "\x0f\x38", "\x0f\x3a"};
static const uint8_t pfx_bytes[] = {0, 0x66, 0xf3, 0xf2};

static unsigned put_opcode(uint8_t *p, const struct tmpl *m)
{
    size_t n = strlen(map_bytes[m->map]);
    memcpy(p, map_bytes[m->map], n);
    p[n] = m->opcode;
    return (unsigned)n + 1;
}

static struct tmpls *templates_of(struct ops *ops, unsigned op)
{
    for (unsigned i = 0; i < ops->n; i++)
        if (ops->v[i].op == op)
            return &ops->v[i];
    ops->v[ops->n].op = op;
    return &ops->v[ops->n++];
}

static void add_template(unsigned mode, enum group g, unsigned op, const struct tmpl *m)
{
    struct tmpls *l = templates_of(&shapes()->by_group[mode][g], op);
    if (!(l->n & (l->n - 1)))
        l->v = realloc(l->v, sizeof *m * (l->n ? l->n * 2 : 1));
    l->v[l->n++] = *m;
}

static void try_template(unsigned mode, struct tmpl m)
{
    uint8_t b[24] = {0};
    struct shape s, plain;
    unsigned n = 0;
    if (m.pfx)
        b[n++] = pfx_bytes[m.pfx];
    n += put_opcode(b + n, &m);
    b[n] = (uint8_t)(m.mod3 * 0xc0 | m.reg << 3);
    if (!shape_decode(mode, b, 15, &s) || shape_group(&s) == G_COUNT || s.in.opcode != m.opcode || s.in.map != m.map)
        return; /* no opcode but a prefix, or a prefix of the next map */
    if (!(s.in.flags & INSN_MODRM) && (m.mod3 || m.reg))
        return;
    /* F2 and F3 that mean nothing come as random extra prefixes. */
    if (m.pfx >= 2 && s.in.op != OP_sse && shape_group(&s) != G_STRING && shape_decode(mode, b + 1, 14, &plain) &&
        plain.in.op == s.in.op)
        return;
    add_template(mode, shape_group(&s), s.in.op, &m);
    if (shape_group(&s) == G_ALU || shape_group(&s) == G_BIT) {
        uint8_t locked[24] = {0xf0};
        memcpy(locked + 1, b, 20);
        if (shape_decode(mode, locked, 15, &s))
            add_template(mode, G_ATOMIC, s.in.op, &m);
    }
}

void shapes_init(void)
{
    static const ZydisDecoderMode off[] = {ZYDIS_DECODER_MODE_MPX, ZYDIS_DECODER_MODE_CET, ZYDIS_DECODER_MODE_KNC};
    ZydisDecoder *dec = shapes()->dec;
    ZydisDecoderInit(&dec[CODE64], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderInit(&dec[CODE32], ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
    for (unsigned i = 0; i < ARRAY_SIZE(off); i++) {
        ZydisDecoderEnableMode(&dec[CODE32], off[i], ZYAN_FALSE);
        ZydisDecoderEnableMode(&dec[CODE64], off[i], ZYAN_FALSE);
    }
    for (unsigned i = 0; i < 4u << 8 << 2 << 4; i++) {
        struct tmpl m = {.map = (uint8_t)(i >> 14),
                         .opcode = (uint8_t)(i >> 6),
                         .pfx = i >> 4 & 3,
                         .mod3 = i >> 3 & 1,
                         .reg = i & 7};
        try_template(CODE32, m);
        try_template(CODE64, m);
    }
}

/* ---- emitting ---- */

struct emit {
    uint8_t b[40];
    unsigned n;
};

static void byte(struct emit *e, unsigned b)
{
    e->b[e->n++] = (uint8_t)b;
}

static void prefixes(struct gen *g, struct emit *e, const struct tmpl *m, enum group group)
{
    bool mem = !m->mod3;
    if (group == G_ATOMIC && (m->map == 0 || !one_in(&g->rng, 3)) && mem)
        byte(e, 0xf0);
    if (one_in(&g->rng, 12) && !g->seq)
        byte(e, 0x67);
    if (one_in(&g->rng, 16) && mem)
        byte(e, g->mode == CODE64 ? 0x65 : "\x2e\x36\x3e\x26"[rnd_n(&g->rng, 4)]);
    if (one_in(&g->rng, 40))
        byte(e, "\x2e\x36\x3e\x26\x66\xf2\xf3\x48"[rnd_n(&g->rng, g->mode == CODE64 ? 8 : 7)]);
    if (m->pfx)
        byte(e, pfx_bytes[m->pfx]);
    if (m->pfx >= 2 && one_in(&g->rng, 4))
        byte(e, 0x66);
    if (group == G_STRING && one_in(&g->rng, 3))
        byte(e, 0xf3);
}

/* A memory operand of a sequence: pointer, or pointer and index. */
static void seq_modrm(struct gen *g, struct emit *e, const struct tmpl *m, unsigned *rex)
{
    const struct seq *q = g->seq;
    unsigned ptr = q->mix && one_in(&g->rng, 4) ? RSP : q->ptr;
    *rex &= ~3u;
    *rex |= ptr >> 3 | (q->index >> 3) << 1;
    if (one_in(&g->rng, 2) || (ptr & 7) == RSP) {
        byte(e, 0x44 | m->reg << 3);
        byte(e, (rnd_n(&g->rng, 4) << 6) | (q->index & 7) << 3 | (ptr & 7));
    } else {
        byte(e, 0x40 | m->reg << 3 | (ptr & 7));
    }
    byte(e, rnd_n(&g->rng, 64) - 32);
}

static void any_modrm(struct gen *g, struct emit *e, const struct tmpl *m)
{
    unsigned mod = m->mod3 ? 3 : rnd_n(&g->rng, 3);
    byte(e, mod << 6 | m->reg << 3 | rnd_n(&g->rng, 8));
}

static bool has_modrm(unsigned mode, const struct tmpl *m, unsigned pfx)
{
    uint8_t b[24] = {0};
    struct shape s;
    unsigned n = pfx ? 1 : 0;
    b[0] = pfx_bytes[pfx];
    n += put_opcode(b + n, m);
    b[n] = (uint8_t)(m->mod3 * 0xc0 | m->reg << 3);
    return decode_insn(b, 15, mode, &s.in) == DECODE_OK && s.in.flags & INSN_MODRM;
}

static void emit(struct gen *g, struct emit *e, const struct tmpl *m, enum group group)
{
    unsigned plain = g->seq && g->seq->mix ? 2 : 4; /* AH and its like need it */
    unsigned rex = one_in(&g->rng, plain) || g->mode != CODE64 ? 0 : 0x40 | rnd_n(&g->rng, 16);
    bool modrm = has_modrm(g->mode, m, m->pfx);
    struct emit tail = {.n = 0};
    if (modrm && g->seq && !m->mod3)
        seq_modrm(g, &tail, m, &rex);
    else if (modrm)
        any_modrm(g, &tail, m);
    prefixes(g, e, m, group);
    if (rex)
        byte(e, rex | 0x40);
    e->n += put_opcode(e->b + e->n, m);
    memcpy(e->b + e->n, tail.b, tail.n);
    e->n += tail.n;
    uint64_t rest = rnd(&g->rng);
    if (one_in(&g->rng, 3))
        rest = rnd_value(&g->rng);
    st64(e->b + e->n, rest);
    st64(e->b + e->n + 8, rnd(&g->rng));
}

static bool append(struct gen *g, enum group group, const struct tmpls *l, struct shape *s)
{
    struct emit e = {.n = 0};
    struct test *t = g->t;
    const struct tmpl *m = &l->v[rnd_n(&g->rng, l->n)];
    if (g->seq && g->seq->mix && m->pfx == 1 && group != G_SSE && !one_in(&g->rng, 3))
        return false; /* or half of all operands would have 16 bits */
    emit(g, &e, m, group);
    if (!shape_decode(g->mode, e.b, 15, s) || shape_group(s) != group || t->code_len + s->in.len > CODE_MAX)
        return false;
    if (!s->known && !one_in(&g->rng, 12))
        return false; /* #UD, most likely */
    if (s->in.flags & INSN_MEM && (s->in.seg == SEG_FS || (s->in.seg == SEG_GS && g->mode != CODE64)))
        return false; /* natively FS is the C library's; 32-bit code can't use a null GS */
    memcpy(t->code + t->code_len, e.b, s->in.len);
    t->insn_len[t->insns++] = s->in.len;
    t->code_len += s->in.len;
    return true;
}

bool insn_append(struct gen *g, enum group group, struct shape *s)
{
    const struct ops *ops = &shapes()->by_group[g->mode][group];
    return ops->n && append(g, group, &ops->v[rnd_n(&g->rng, ops->n)], s);
}

bool insn_append_op(struct gen *g, enum group group, unsigned op, struct shape *s)
{
    const struct ops *ops = &shapes()->by_group[g->mode][group];
    for (unsigned i = 0; i < ops->n; i++)
        if (ops->v[i].op == op)
            return append(g, group, &ops->v[i], s);
    return false;
}

/* ---- flags ---- */

static bool keeps_flags_if_zero(const struct insn *in)
{
    return in->op >= OP_rol && in->op <= OP_shrd;
}

/* CF of an 8- or 16-bit shift by at least the operand's size. */
static uint64_t shifted_out(const struct insn *in, const struct test *t, bool single)
{
    if (in->op != OP_shl && in->op != OP_shr && in->op != OP_shld && in->op != OP_shrd)
        return 0;
    if (in->opsize > 2)
        return 0;
    const struct opnd *c = in->src2.kind ? &in->src2 : &in->src;
    unsigned count = (c->kind == OPND_IMM ? in->imm : single ? t->gpr[RCX] : 31) & 31;
    return count >= in->opsize * 8u ? RF_CF_BIT : 0;
}

uint64_t insn_undefined(const struct shape *s, const struct test *t, uint64_t before, bool single)
{
    const ZydisAccessedFlags *f = s->known ? s->z.cpu_flags : NULL;
    if (!f)
        return before;
    if (f->tested & before)
        return UINT64_MAX;
    uint64_t after = before;
    if (!keeps_flags_if_zero(&s->in))
        after &= ~(uint64_t)(f->modified | f->set_0 | f->set_1);
    return after | f->undefined | shifted_out(&s->in, t, single);
}
