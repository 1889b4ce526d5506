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
        [G_MIX] = "mix",
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

void gen_fill(struct gen *g, enum group group)
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

void gen_restart(struct gen *g)
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
    gen_restart(g);
    gen_fill(g, group);
    g->fault = one_in(&g->rng, 24);
    if (!insn_append(g, group, &s) || !values_settle(g, &s, 0))
        return false;
    return gen_judge(g->t);
}

/* ---- */

static bool starts_insn(const struct test *t, unsigned n, unsigned at)
{
    for (unsigned i = 0; i < n; at -= t->insn_len[i++])
        if (!at || at < t->insn_len[i])
            return !at;
    return false;
}

/* How often the loop around the `n` instructions so far runs whose last step is `in`, the one before it `count`. 0: not
 * a loop that ends. */
static uint64_t loop_rounds(const struct test *t, const struct insn *in, const struct insn *count)
{
    if (in->op == OP_loop)
        return t->gpr[RCX];
    bool down = count->op == OP_dec || (count->op == OP_sub && count->src.kind == OPND_IMM && count->imm == 1);
    if (in->op != OP_jcc || (in->opcode & 15) != 5 || !down || count->dst.kind != OPND_REG || count->dst.reg > 15)
        return 0;
    return t->gpr[count->dst.reg] & size_mask(count->opsize);
}

struct judge {
    uint64_t undefined;
    struct insn before; /* the instruction before */
    unsigned n, skip;   /* instructions so far; where the farthest forward jump leads */
    bool looped;
};

/* A jump back. One loop, which ends, which nothing jumps into the end of, and which starts anew with every flag
 * defined: so one pass over the code sees all there is. */
static bool judge_loop(struct judge *j, const struct test *t, const struct insn *in, unsigned end)
{
    uint64_t rounds = loop_rounds(t, in, &j->before);
    unsigned last_step = end - in->len - (in->op == OP_jcc ? j->before.len : 0);
    bool ends = rounds && rounds <= MAX_ROUNDS && !j->looped && j->skip <= last_step;
    j->looped = true;
    return ends && !j->undefined && starts_insn(t, j->n, end + (unsigned)in->imm);
}

static bool judge_jump(struct judge *j, const struct test *t, const struct insn *in, unsigned end)
{
    uint64_t target = end + in->imm;
    if ((int64_t)in->imm < 0)
        return (t->group & (GROUPS32 - 1)) == G_BRANCH || judge_loop(j, t, in, end);
    if (in->op == OP_jcc && target > j->skip && target <= t->code_len)
        j->skip = (unsigned)target;
    return true;
}

/* Other jumps go forward, so one pass sees every path; flags undefined on any path count. */
bool gen_judge(struct test *t)
{
    struct judge j = {.n = 0};
    t->undefined_mid = 0;
    for (unsigned at = 0; at < t->code_len; j.n++) {
        struct shape s;
        if (j.n == MAX_INSNS || !shape_decode(code_mode(t->kind), t->code + at, t->code_len - at, &s))
            return false;
        t->insn_len[j.n] = s.in.len;
        uint64_t after = insn_undefined(&s, t, j.undefined, t->code_len == s.in.len);
        if (after == UINT64_MAX)
            return false;
        t->undefined_mid |= j.undefined;
        if (s.in.op == OP_cmps || s.in.op == OP_scas) /* SDM 2, "REP": as before on a fault; AMD's CPUs differ */
            t->undefined_mid |= FLAG_BITS;
        j.undefined = after | (at < j.skip ? j.undefined : 0);
        at += s.in.len;
        if ((s.in.op == OP_jcc || s.in.op == OP_loop) && !judge_jump(&j, t, &s.in, at))
            return false;
        j.before = s.in;
    }
    t->insns = (uint8_t)j.n;
    t->undefined = j.undefined;
    return j.n > 0;
}

void gen_test(struct test *t, unsigned group, uint64_t seed, unsigned slot)
{
    struct gen g = {.rng = {seed ^ (uint64_t)group << 56}, .t = t, .mode = group < GROUPS32 ? CODE64 : CODE32};
    enum group base = group & (GROUPS32 - 1);
    t->group = (uint8_t)group;
    t->seed = seed;
    t->rip = pick_rip(&g, slot);
    while (!(base == G_SEQ ? seq_try(&g) : base == G_MIX ? mix_try(&g) : try_single(&g, base)))
        ;
}
