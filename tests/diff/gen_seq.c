/* Sequences: a dozen instructions that work on one another's registers, memory and flags. G_SEQ takes them as they
 * come; G_MIX is made to find out who keeps flags or registers elsewhere than where they belong: flags used far from
 * where they were made, across loads and stores, in loops, and when something faults in the middle. */
#include "gen.h"

#include <string.h>

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

/* Not, besides: MASKMOVDQU (RDI), SHA's and MXCSR's instructions, which CPUs do differently, and operands that are
 * neither aligned nor canonical. */
static bool fits_mix(const struct seq *q, const struct shape *s)
{
    const struct insn *in = &s->in;
    if (in->op == OP_cmpxchg16b)
        return !q->wild;
    if (in->op != OP_sse)
        return true;
    bool mxcsr = in->map == 1 && in->opcode == 0xae, maskmov = in->map == 1 && in->opcode == 0xf7;
    return !mxcsr && !maskmov && s->z.meta.isa_set != ZYDIS_ISA_SET_SHA && !(q->wild && in->flags & INSN_MEM);
}

static bool fits_sequence(const struct gen *g, const struct shape *s)
{
    const struct seq *q = g->seq;
    const struct insn *in = &s->in;
    bool pointer = in->base == q->ptr || (q->mix && in->base == RSP);
    if (!s->known || writes_kept(s, q->keep))
        return false;
    if (in->flags & INSN_MEM && (!pointer || in->addrsize != (g->mode == CODE64 ? 8 : 4) || in->seg == SEG_GS))
        return false;
    if (q->mix && !fits_mix(q, s))
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

/* The instruction that has been appended last, at `at`: keep it or take it away again. */
static bool keep_last(struct gen *g, const struct shape *s, unsigned at)
{
    struct test *t = g->t;
    uint64_t undefined = insn_undefined(s, t, g->seq->undefined, false);
    if (fits_sequence(g, s) && shift_ok(g, s) && undefined != UINT64_MAX) {
        g->seq->undefined = undefined | (at < g->seq->fixed_until ? g->seq->undefined : 0);
        return true;
    }
    t->code_len = at;
    t->insns--;
    return false;
}

static bool append_to_sequence(struct gen *g)
{
    static const uint8_t groups[] = {G_ALU,   G_ALU, G_ALU,    G_MOV,       G_MOV,    G_MOV,
                                     G_SHIFT, G_BIT, G_MULDIV, G_STACK_OPS, G_ATOMIC, G_MISC};
    struct shape s;
    unsigned at = g->t->code_len;
    return insn_append(g, groups[rnd_n(&g->rng, ARRAY_SIZE(groups))], &s) && keep_last(g, &s, at);
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

bool seq_try(struct gen *g)
{
    struct seq q = {.undefined = 0};
    struct test *t = g->t;
    unsigned want = 2 + rnd_n(&g->rng, MAX_INSNS - 3), patch_at = 0;
    gen_restart(g);
    gen_fill(g, G_SEQ);
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

/* ---- G_MIX ---- */

static bool append_mixed(struct gen *g, enum group group, unsigned op)
{
    struct shape s;
    unsigned at = g->t->code_len;
    if (group == G_STACK_OPS && !g->seq->stack_left)
        return false;
    bool made = op != OP_COUNT ? insn_append_op(g, group, op, &s) : insn_append(g, group, &s);
    if (!made || !keep_last(g, &s, at))
        return false;
    g->seq->stack_left -= group == G_STACK_OPS;
    return true;
}

/* What makes flags, what uses them, and what comes in between. */
static bool append_mix(struct gen *g)
{
    static const struct {
        uint8_t group;
        uint16_t op;
    } users[] = {{G_MOV, OP_setcc},  {G_MOV, OP_setcc},  {G_MOV, OP_cmovcc},      {G_MOV, OP_cmovcc},
                 {G_ALU, OP_adc},    {G_ALU, OP_sbb},    {G_SHIFT, OP_rcl},       {G_SHIFT, OP_rcr},
                 {G_ALU, OP_inc},    {G_ALU, OP_dec},    {G_STACK_OPS, OP_pushf}, {G_STACK_OPS, OP_pushf},
                 {G_MOV, OP_lahf},   {G_MOV, OP_sahf},   {G_MOV, OP_cmc},         {G_MOV, OP_clc},
                 {G_STRING, OP_std}, {G_STRING, OP_cld}, {G_MISC, OP_adcx},       {G_MISC, OP_adox},
                 {G_SHIFT, OP_rol},  {G_SHIFT, OP_shl}};
    static const uint8_t makers[] = {G_ALU, G_ALU, G_ALU, G_ALU, G_SHIFT, G_SHIFT, G_BIT, G_MULDIV, G_ATOMIC, G_MISC};
    unsigned kind = rnd_n(&g->rng, 20);
    if (kind < 6)
        return append_mixed(g, makers[rnd_n(&g->rng, ARRAY_SIZE(makers))], OP_COUNT);
    if (kind < 12) {
        unsigned i = rnd_n(&g->rng, ARRAY_SIZE(users));
        return append_mixed(g, users[i].group, users[i].op);
    }
    if (kind < 15)
        return append_mixed(g, G_MOV, OP_mov);
    if (kind < 17)
        return append_mixed(g, G_STACK_OPS, one_in(&g->rng, 2) ? OP_push : OP_pop);
    if (kind < 18 && g->seq->sse)
        return append_mixed(g, G_SSE, OP_COUNT);
    return append_mixed(g, G_MOV, OP_COUNT);
}

/* Where the pointers point, so that what is reached in `rounds` lies in memory that is compared; or so that it faults,
 * at once or after a while. */
static void mix_registers(struct gen *g, struct seq *q, unsigned rounds, int step)
{
    struct test *t = g->t;
    struct rng *r = &g->rng;
    seq_registers(g, q);
    t->gpr[RSP] = WINDOW_VA + 200 + rnd_n(r, 200);
    if (one_in(r, 4))
        t->gpr[RSP] = TAIL_VA + TAIL_LEN - rnd_n(r, 4) * 8;
    t->gpr[q->ptr] = WINDOW_VA + (rounds ? 160 + rnd_n(r, 90) : 100 + rnd_n(r, 250));
    if (step >= 0 && one_in(r, 5))
        t->gpr[q->ptr] = TAIL_VA + 32 + rnd_n(r, 30);
    else if (one_in(r, 24))
        t->gpr[q->ptr] = 0x18000000;
    else if (one_in(r, 24))
        q->wild = true;
    if (q->wild)
        t->gpr[q->ptr] = UINT64_C(0x800000000000) - rnd_n(r, 64);
}

static bool append_bytes(struct gen *g, const uint8_t *bytes, unsigned n)
{
    struct test *t = g->t;
    struct shape s;
    if (t->code_len + n > CODE_MAX || t->insns == MAX_INSNS || !shape_decode(g->mode, bytes, n, &s))
        return false;
    g->seq->undefined = insn_undefined(&s, t, g->seq->undefined, false);
    memcpy(t->code + t->code_len, bytes, n);
    t->code_len += n;
    t->insn_len[t->insns++] = (uint8_t)n;
    return g->seq->undefined != UINT64_MAX;
}

/* SUB $1 or DEC of the counter, JNZ; or LOOP. Back to an instruction among the first. */
static bool append_loop(struct gen *g, unsigned counter)
{
    struct test *t = g->t;
    struct rng *r = &g->rng;
    unsigned back = 0, rex = 0x40 | (one_in(r, 2) ? 8 : 0) | counter >> 3;
    for (unsigned i = rnd_n(r, 3); i-- > 0 && i < t->insns;)
        back += t->insn_len[i];
    const uint8_t sub[] = {(uint8_t)rex, 0x83, (uint8_t)(0xe8 | (counter & 7)), 1};
    const uint8_t dec[] = {(uint8_t)rex, 0xff, (uint8_t)(0xc8 | (counter & 7))};
    bool loop = counter == RCX && !g->seq->undefined && one_in(r, 2);
    if (!loop && !(one_in(r, 2) ? append_bytes(g, sub, sizeof sub) : append_bytes(g, dec, sizeof dec)))
        return false;
    const uint8_t jump[] = {loop ? 0xe2 : 0x75, (uint8_t)(back - t->code_len - 2)};
    return append_bytes(g, jump, sizeof jump);
}

static bool append_step(struct gen *g, int step)
{
    unsigned p = g->seq->ptr, n = 0;
    uint8_t lea[5];
    lea[n++] = (uint8_t)(0x48 | p >> 3 | (p >> 3) << 2);
    lea[n++] = 0x8d;
    lea[n++] = (uint8_t)(0x40 | (p & 7) << 3 | (p & 7));
    if ((p & 7) == RSP)
        lea[n++] = 0x24;
    lea[n++] = (uint8_t)step;
    return append_bytes(g, lea, n);
}

/* The counter of a loop of 2 to MAX_ROUNDS rounds; RCX a bit more often than others, for LOOP. */
static unsigned pick_counter(struct gen *g, struct seq *q, unsigned rounds)
{
    unsigned counter = RCX;
    while (q->keep >> counter & 1 || !one_in(&g->rng, 8))
        counter = rnd_n(&g->rng, 16);
    q->keep |= (uint16_t)(1u << counter);
    g->t->gpr[counter] = rounds;
    return counter;
}

static void mix_body(struct gen *g, struct seq *q, unsigned want, unsigned room)
{
    struct test *t = g->t;
    unsigned patch_at = 0;
    for (unsigned tries = 0; t->insns < want && t->code_len < room && tries < 100; tries++) {
        if (!patch_at && one_in(&g->rng, 6) && append_jcc(g, &patch_at)) {
            q->fixed_until = CODE_MAX;
            continue;
        }
        if (append_mix(g) && patch_at && one_in(&g->rng, 3)) {
            t->code[patch_at] = (uint8_t)(t->code_len - patch_at - 1);
            q->fixed_until = patch_at = 0;
        }
    }
    if (patch_at)
        t->code[patch_at] = (uint8_t)(t->code_len - patch_at - 1);
    q->fixed_until = 0;
}

static void mix_fp(struct gen *g)
{
    g->t->kind |= KIND_FP;
    rnd_fx(&g->rng, g->t->fx, false);
    st32(g->t->fx + 24, 0x1f80);
}

bool mix_try(struct gen *g)
{
    struct rng *r = &g->rng;
    struct seq q = {.mix = true, .sse = one_in(r, 4), .stack_left = 4};
    unsigned rounds = one_in(r, 2) ? 2 + rnd_n(r, MAX_ROUNDS - 1) : 0, counter = 0;
    int step = rounds && one_in(r, 2) ? (int)rnd_n(r, 48) - 24 : 0;
    gen_restart(g);
    gen_fill(g, G_MIX);
    if (q.sse && gen_supported(G_SSE))
        mix_fp(g);
    else
        q.sse = false;
    g->fault = false;
    g->seq = &q;
    mix_registers(g, &q, rounds, step);
    if (rounds)
        counter = pick_counter(g, &q, rounds);
    mix_body(g, &q, MAX_INSNS - (rounds ? 3 : 0), rounds ? CODE_MAX - 20 : CODE_MAX);
    bool ok = g->t->insns > 2;
    if (rounds)
        ok = ok && (!step || append_step(g, step)) && append_loop(g, counter);
    g->seq = NULL;
    return ok && gen_judge(g->t);
}
