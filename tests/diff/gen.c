#include "gen.h"

#include <string.h>

_Static_assert(offsetof(struct test, rflags) == T_RFLAGS && offsetof(struct test, rip) == T_RIP &&
                   offsetof(struct test, kind) == T_KIND && offsetof(struct test, r) == T_R_GPR &&
                   offsetof(struct test, r.rflags) == T_R_RFLAGS && offsetof(struct test, r.rip) == T_R_RIP &&
                   offsetof(struct test, r.vec) == T_R_VEC && offsetof(struct test, r.err) == T_R_ERR &&
                   offsetof(struct test, r.cr2) == T_R_CR2 && offsetof(struct test, data) == T_DATA &&
                   offsetof(struct test, r_data) == T_R_DATA && offsetof(struct test, fx) == T_FX &&
                   offsetof(struct test, r_fx) == T_R_FX && sizeof(struct test) == T_SIZE,
               "layout.h is what the assembly sees");

const char *group_name(unsigned number)
{
    static const char *const names[2 * GROUPS32] = {
        "alu",
        "mov",
        "shift",
        "bit",
        "muldiv",
        "stack",
        "branch",
        "string",
        "atomic",
        "misc",
        "priv",
        "sse",
        "x87",
        "seq",
        [GROUPS32 + G_ALU] = "alu32",
        [GROUPS32 + G_MOV] = "mov32",
        [GROUPS32 + G_SHIFT] = "shift32",
        [GROUPS32 + G_BIT] = "bit32",
        [GROUPS32 + G_MULDIV] = "muldiv32",
        [GROUPS32 + G_STACK_OPS] = "stack32",
        [GROUPS32 + G_BRANCH] = "branch32",
        [GROUPS32 + G_STRING] = "string32",
        [GROUPS32 + G_ATOMIC] = "atomic32",
        [GROUPS32 + G_MISC] = "misc32",
        [GROUPS32 + G_SSE] = "sse32",
        [GROUPS32 + G_X87] = "x87-32",
        [GROUPS32 + G_SEQ] = "seq32",
        [GROUPS32 + G_BCD] = "bcd32",
    };
    return number < 2 * GROUPS32 ? names[number] : NULL;
}

enum { FLAG_BITS = 0x8d5 };

void gen_init(void)
{
    shapes_init();
}

bool gen_supported(unsigned group)
{
    switch (group & (GROUPS32 - 1)) {
    case G_SSE:
        return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
    case G_BIT:
        return __builtin_cpu_supports("bmi") && __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("lzcnt");
    default:
        return true;
    }
}

static void fill(struct gen *g, enum group group)
{
    struct test *t = g->t;
    for (unsigned i = 0; i < 16; i++)
        t->gpr[i] = g->mode == CODE64 ? rnd_value(&g->rng) : (uint32_t)rnd_value(&g->rng);
    for (unsigned i = 0; i < DATA_LEN; i += 8)
        st64(t->data + i, i & 64 ? rnd_value(&g->rng) : rnd(&g->rng));
    t->rflags = 0x202 | (rnd(&g->rng) & FLAG_BITS);
    t->kind = g->mode == CODE64 ? 0 : KIND_32;
    if (group == G_SSE || group == G_X87) {
        t->kind |= KIND_FP;
        rnd_fx(&g->rng, t->fx, group == G_X87);
        if (group == G_X87) /* operands as x87 instructions like them */
            memcpy(t->data + 64, t->fx + 160, 256);
    }
}

/* Where a test starts: in the second half of its slot; the last slot of a page makes it cross into the next one. */
static uint64_t pick_rip(struct gen *g, unsigned slot)
{
    uint64_t at = CODE_VA + (uint64_t)slot * SLOT;
    if (slot % 32 == 31 && slot % BATCH != BATCH - 1)
        return at + SLOT - 1 - rnd_n(&g->rng, 14);
    return at + SLOT / 2 + rnd_n(&g->rng, 40);
}

static void restart(struct gen *g)
{
    g->t->code_len = 0;
    g->t->insns = 0;
    g->t->undefined = g->t->undefined_mid = 0;
    g->fixed = 0;
}

/* ---- single instructions ---- */

static bool try_single(struct gen *g, enum group group)
{
    struct shape s;
    restart(g);
    fill(g, group);
    g->fault = one_in(&g->rng, 24);
    if (!insn_append(g, group, &s) || !values_settle(g, &s, 0))
        return false;
    return gen_judge(g->t);
}

/* ---- sequences ---- */

static bool writes_kept(const struct shape *s, uint16_t keep)
{
    bool stack = s->in.op == OP_push || s->in.op == OP_pop || s->in.op == OP_pushf;
    for (unsigned i = 0; i < s->z.operand_count; i++) {
        const ZydisDecodedOperand *o = &s->ops[i];
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        ZydisRegister r = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, o->reg.value);
        if (ZydisRegisterGetClass(r) != ZYDIS_REGCLASS_GPR64)
            continue;
        if (stack && r == ZYDIS_REGISTER_RSP && o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
            continue;
        if (keep >> ZydisRegisterGetId(r) & 1)
            return true;
    }
    return false;
}

static bool fits_sequence(const struct gen *g, const struct shape *s)
{
    const struct seq *q = g->seq;
    const struct insn *in = &s->in;
    if (!s->known || writes_kept(s, q->keep))
        return false;
    if (in->flags & INSN_MEM &&
        (in->base != q->ptr || in->addrsize != (g->mode == CODE64 ? 8 : 4) || in->seg == SEG_GS))
        return false;
    switch (in->op) {
    case OP_ud:
    case OP_popf:
    case OP_leave:
    case OP_enter:
    case OP_clflush:
    case OP_xlat:
        return false;
    case OP_bt:
    case OP_bts:
    case OP_btr:
    case OP_btc:
        return !(in->flags & INSN_MEM && in->src.kind == OPND_REG);
    default:
        return true;
    }
}

/* A forward conditional jump over the next instructions; its distance is filled in when they are known. */
static bool append_jcc(struct gen *g, unsigned *patch_at)
{
    struct test *t = g->t;
    struct shape s;
    if (t->code_len + 2 > CODE_MAX - 16)
        return false;
    uint8_t *p = t->code + t->code_len;
    p[0] = 0x70 | (uint8_t)rnd_n(&g->rng, 16);
    p[1] = 0;
    if (!shape_decode(g->mode, p, 2, &s) || insn_undefined(&s, t, g->seq->undefined, false) == UINT64_MAX)
        return false;
    t->insn_len[t->insns++] = 2;
    t->code_len += 2;
    *patch_at = t->code_len - 1;
    return true;
}

static bool append_to_sequence(struct gen *g)
{
    static const uint8_t groups[] = {G_ALU,   G_ALU, G_ALU,    G_MOV,       G_MOV,    G_MOV,
                                     G_SHIFT, G_BIT, G_MULDIV, G_STACK_OPS, G_ATOMIC, G_MISC};
    struct test *t = g->t;
    struct shape s;
    unsigned at = t->code_len;
    if (!insn_append(g, groups[rnd_n(&g->rng, ARRAY_SIZE(groups))], &s))
        return false;
    uint64_t undefined = insn_undefined(&s, t, g->seq->undefined, false);
    if (fits_sequence(g, &s) && shift_ok(g, &s) && undefined != UINT64_MAX) {
        g->seq->undefined = undefined | (at < g->seq->fixed_until ? g->seq->undefined : 0);
        return true;
    }
    t->code_len = at;
    t->insns--;
    return false;
}

static void seq_registers(struct gen *g, struct seq *q)
{
    struct test *t = g->t;
    unsigned regs = g->mode == CODE64 ? 16 : 8;
    q->ptr = (uint8_t)rnd_n(&g->rng, regs);
    do
        q->index = (uint8_t)rnd_n(&g->rng, regs);
    while (q->index == q->ptr || q->index == RSP);
    q->keep = (uint16_t)(1u << q->ptr | 1u << q->index | 1u << RSP);
    t->gpr[RSP] = WINDOW_VA + 200 + rnd_n(&g->rng, 100);
    t->gpr[q->ptr] = WINDOW_VA + 100 + rnd_n(&g->rng, 250);
    t->gpr[q->index] = rnd_n(&g->rng, 8);
}

static bool try_sequence(struct gen *g)
{
    struct seq q = {.undefined = 0};
    struct test *t = g->t;
    unsigned want = 2 + rnd_n(&g->rng, MAX_INSNS - 3), patch_at = 0;
    restart(g);
    fill(g, G_SEQ);
    g->fault = false;
    g->seq = &q;
    seq_registers(g, &q);
    for (unsigned tries = 0; t->insns < want && tries < 60; tries++) {
        if (!patch_at && one_in(&g->rng, 8) && append_jcc(g, &patch_at)) {
            q.fixed_until = CODE_MAX;
            continue;
        }
        if (append_to_sequence(g) && patch_at && one_in(&g->rng, 2)) {
            t->code[patch_at] = (uint8_t)(t->code_len - patch_at - 1);
            q.fixed_until = patch_at = 0;
        }
    }
    if (patch_at)
        t->code[patch_at] = (uint8_t)(t->code_len - patch_at - 1);
    g->seq = NULL;
    return t->insns > 1 && gen_judge(t);
}

/* ---- */

/* Only forward jumps within the code occur, so one pass sees every path; flags undefined on any path count. */
bool gen_judge(struct test *t)
{
    uint64_t undefined = 0;
    unsigned skip = 0, n = 0;
    t->undefined_mid = 0;
    for (unsigned at = 0; at < t->code_len; n++) {
        struct shape s;
        if (n == MAX_INSNS || !shape_decode(code_mode(t->kind), t->code + at, t->code_len - at, &s))
            return false;
        t->insn_len[n] = s.in.len;
        uint64_t after = insn_undefined(&s, t, undefined, t->code_len == s.in.len);
        if (after == UINT64_MAX)
            return false;
        t->undefined_mid |= undefined;
        if (s.in.op == OP_cmps || s.in.op == OP_scas) /* SDM 2, "REP": as before on a fault; AMD's CPUs differ */
            t->undefined_mid |= FLAG_BITS;
        undefined = after | (at < skip ? undefined : 0);
        at += s.in.len;
        if (s.in.op == OP_jcc && at + s.in.imm > skip && at + s.in.imm <= t->code_len)
            skip = at + (unsigned)s.in.imm;
    }
    t->insns = (uint8_t)n;
    t->undefined = undefined;
    return n > 0;
}

void gen_test(struct test *t, unsigned group, uint64_t seed, unsigned slot)
{
    struct gen g = {.rng = {seed ^ (uint64_t)group << 56}, .t = t, .mode = group < GROUPS32 ? CODE64 : CODE32};
    enum group base = group & (GROUPS32 - 1);
    t->group = (uint8_t)group;
    t->seed = seed;
    t->rip = pick_rip(&g, slot);
    while (!(base == G_SEQ ? try_sequence(&g) : try_single(&g, base)))
        ;
}
