/* The translator's safety claims (cpu/jit/jit.h), proven of the code it makes: every block it translates, of random
 * code of every kind the decoder knows, is followed along all of its ways (jit_proof.h), and so are the thunks. What
 * the code computes is the oracle's business (tests/diff). */
#include "jit_proof.h"
#include "jit_rig.h"

#include "diff/gen.h"

enum { MOST_CODE = 64 << 10 }; /* more than a block or the thunks take */

/* ---- every translation is looked at ---- */

static struct watch {
    struct walk w;
    uint8_t *copy;        /* of the code as it was proven */
    uint32_t front, back; /* of the code's memory, after the last translation */
    uint8_t claimed[MOST_CODE / 16];
    unsigned blocks, wanted, flushes;
    uint64_t seed;
    unsigned ops[OP_COUNT]; /* operations in them */
} watch;

/* Code stays as it was proven. */
static void check_unchanged(const struct jit *j)
{
    if (watch.front)
        assert_memory_equal(j->rx, watch.copy, watch.front);
}

static void count_ops(const struct block *b, const struct ram *ram)
{
    struct insn in;
    const uint8_t *from = ram_hva(ram, block_gpa(b), 1);
    for (unsigned at = 0; at < b->bytes && !b->page2; at += in.len) {
        if (decode_insn(from + at, b->bytes - at, CODE64, &in) != DECODE_OK)
            return;
        watch.ops[in.op]++;
    }
}

static void prove(const struct jit *j, const struct block *b, uint32_t front, uint32_t back)
{
    struct proof p = {.j = j, .b = b, .claimed = watch.claimed};
    p.constants = (uintptr_t)j->rx + j->back;
    p.constants_end = (uintptr_t)j->rx + back;
    assert_true(j->front > front && j->front <= j->back && j->back <= back && back <= JIT_SIZE);
    assert_true(back - j->back <= MOST_CODE && j->front - front <= MOST_CODE);
    memset(watch.claimed, 0, sizeof watch.claimed);
    prove_block(&watch.w, &p, j->rx + front, j->front - front);
    for (uint32_t i = 0; i < (back - j->back) / 16; i++)
        assert_true(watch.claimed[i]);
}

void __real_jit_translate(struct jit *j, struct block *b, const struct ram *ram);
void __wrap_jit_translate(struct jit *j, struct block *b, const struct ram *ram);
void __wrap_jit_translate(struct jit *j, struct block *b, const struct ram *ram)
{
    uint32_t front = j->front, back = j->back;
    unsigned mode = b->key >> 52;
    if (front != watch.front || back != watch.back) { /* anew, or after a flush */
        assert_true(front == j->thunks && back == JIT_SIZE);
        check_unchanged(j);
        watch.flushes += watch.front != 0;
    }
    assert_true((mode & MODE_CODE) == CODE64 && !(mode & MODE_SINGLE) && !b->body);
    __real_jit_translate(j, b, ram);
    if (b->body) {
        prove(j, b, front, back);
        count_ops(b, ram);
        watch.blocks++;
    } else {
        assert_true(j->front == front && j->back == back);
    }
    watch.front = j->front;
    watch.back = j->back;
    memcpy(watch.copy + front, j->rx + front, j->front - front);
    if (front == j->thunks)
        memcpy(watch.copy, j->rx, front);
}

static struct jit_rig *open_rig(void)
{
    struct jit_rig *j = calloc(1, sizeof *j);
    assert_non_null(j);
    j->r = &j->rig;
    rig_init(j->r, &(struct engine_config){.jit = true, .jit_heat = 1});
    watch.front = watch.back = 0;
    return j;
}

/* ---- thunks ----
 *
 * w->stack is RSP at jit->enter, where the return address is. Blocks run FRAME below: six registers and an alignment.
 */

enum { FRAME = 56 };
static const uint8_t kept[] = {H_BX, H_BP, H_12, H_13, H_14, H_15}; /* by functions of the ABI */

struct thunk {
    const struct jit *j;
    const struct cell *saved; /* the registers of who called jit->enter, on the stack */
    struct state caller, in;  /* at jit->enter; at the thunk's beginning */
    const void *begin;
    const struct expr *called; /* what C has returned */
    unsigned returns, leaves;
};

static struct thunk *thunk_of(struct walk *w)
{
    return w->ctx;
}

static const struct expr *vcpu_field(struct walk *w, size_t offset)
{
    return e_plus(&w->x, w->vcpu, offset);
}

static const struct expr *frame(struct walk *w, uint64_t below)
{
    return e_plus(&w->x, w->stack, -below);
}

static bool thunk_memory(struct walk *w, struct state *st, const struct expr *addr, unsigned size, bool write)
{
    uint64_t k;
    return is_plus(addr, w->vcpu, &k) && k + size <= sizeof(struct soft_vcpu) &&
           (!write || may_write_vcpu(k, size, true));
}

/* Guest registers are in host registers, and those of `st` are what the vCPU's struct has (`spilled`), or came from it
 * in this epoch. */
static void check_guest_registers(struct walk *w, struct state *st, const struct state *regs, bool spilled)
{
    for (unsigned r = 0; r < 16; r++) {
        const struct expr *at = vcpu_field(w, r * 8);
        if (host_of(r) == H_NONE)
            continue;
        const struct expr *in_memory = spilled ? walk_load(w, st, at, 8) : e_load(&w->x, at, 8, st->epoch);
        walk_check(w, in_memory == regs->reg[host_of(r)], "a guest register is lost");
    }
}

/* jit->enter gets into a block. */
static void check_entered(struct walk *w, struct state *st, const struct expr *to)
{
    struct thunk *t = thunk_of(w);
    walk_check(w, t->begin == (void *)t->j->rx, "a jump through a register");
    walk_check(w, to == t->caller.reg[H_SI] && st->reg[H_VCPU] == w->vcpu && st->reg[H_SP] == frame(w, FRAME),
               "enters with something else");
    check_guest_registers(w, st, st, false);
    t->saved = st->mem;
    for (unsigned i = 0; i < ARRAY_SIZE(kept); i++) {
        const struct cell *c = t->saved;
        while (c && c->val != t->caller.reg[kept[i]])
            c = c->next;
        walk_check(w, c != NULL, "a register is not saved");
    }
    t->leaves++;
}

/* Back to who called jit->enter. */
static void check_left(struct walk *w, struct state *st)
{
    for (unsigned i = 0; i < ARRAY_SIZE(kept); i++)
        walk_check(w, st->reg[kept[i]] == thunk_of(w)->caller.reg[kept[i]], "a register is not restored");
}

static void check_unspoilt(struct walk *w, struct state *st)
{
    const struct thunk *t = thunk_of(w);
    for (unsigned r = 0; r < 16; r++)
        walk_check(w, host_of(r) == H_NONE || st->reg[host_of(r)] == t->in.reg[host_of(r)], "changes a guest register");
}

static void check_refilled(struct walk *w, struct state *st)
{
    const struct expr *host = thunk_of(w)->called;
    bool zf = st->flags.of == FLAGS_RESULT && st->flags.a == host && st->flags.size == 8;
    check_unspoilt(w, st);
    walk_check(w, host && st->reg[T_ADDR] == host && zf, "returns something else");
}

static void thunk_returns(struct walk *w, struct state *st)
{
    struct thunk *t = thunk_of(w);
    t->returns++;
    if (t->begin == t->j->leave) {
        walk_check(w, st->reg[H_SP] == w->stack && st->reg[H_AX] == t->in.reg[H_AX], "returns something else");
        check_left(w, st);
        check_guest_registers(w, st, &t->in, true);
    } else if (t->begin == t->j->generic && st->reg[H_SP] == w->stack) {
        walk_check(w, st->reg[H_AX] == e_const(&w->x, 0), "returns a uop");
        check_left(w, st);
    } else if (t->begin == t->j->generic || t->begin == t->j->refill) {
        walk_check(w, st->reg[H_SP] == frame(w, FRAME + 8) && st->reg[H_VCPU] == w->vcpu, "returns elsewhere");
        if (t->begin == t->j->generic)
            check_guest_registers(w, st, st, false);
        else
            check_refilled(w, st);
    }
}

/* C is called as the ABI wants it. Behind the call there are the registers it keeps, and the stack. */
static void check_call(struct walk *w, struct state *st)
{
    struct state before = *st;
    uint64_t depth = 0;
    walk_check(w, is_plus(st->reg[H_SP], w->stack, &depth) && (depth + 8) % 16 == 0, "RSP is not aligned");
    walk_check(w, st->reg[H_DI] == w->vcpu, "for another vCPU");
    walk_keep_stack(w, &before);
    generic_returns(w, st);
    for (unsigned i = 0; i < ARRAY_SIZE(kept); i++)
        st->reg[kept[i]] = before.reg[kept[i]];
    st->mem = before.mem;
}

static void thunk_calls(struct walk *w, struct state *st, const struct expr *to)
{
    struct thunk *t = thunk_of(w);
    bool (*generic)(struct soft_vcpu *, const struct jit_site *) = jit_generic;
    uint8_t *(*refill)(struct soft_vcpu *, gva_t, unsigned) = jit_refill;
    uint64_t generic_at, refill_at;
    memcpy(&generic_at, &generic, 8);
    memcpy(&refill_at, &refill, 8);
    if (t->begin == t->j->generic) {
        walk_check(w, to == e_const(&w->x, generic_at) && st->reg[H_SI] == t->in.reg[T_FLAGS], "calls somebody else");
        check_guest_registers(w, st, &t->in, true);
    } else {
        walk_check(w, to == e_const(&w->x, refill_at) && t->begin == t->j->refill, "calls somebody else");
        walk_check(w, st->reg[H_SI] == t->in.reg[T_ADDR] && st->reg[H_DX] == e_low32(&w->x, t->in.reg[T_FLAGS]),
                   "with something else");
    }
    check_call(w, st);
    t->called = st->reg[H_AX];
}

static void thunk_out(struct walk *w, struct state *st, enum out_kind how, const struct expr *to)
{
    switch (how) {
    case OUT_RET:
        thunk_returns(w, st);
        break;
    case OUT_CALL:
        thunk_calls(w, st, to);
        break;
    case OUT_THROUGH_REG:
        check_entered(w, st, to);
        break;
    default:
        walk_bad(w, "jumps away");
    }
}

static const struct expr *field_now(struct walk *w, struct state *st, size_t offset, unsigned size)
{
    return walk_load(w, st, vcpu_field(w, offset), size);
}

/* What goes back, by which thunk. */
static const struct expr *way_back(struct walk *w, struct state *st)
{
    const struct thunk *t = thunk_of(w);
    const struct expr *link = t->in.reg[T_VAL], *block = t->in.reg[T_ADDR], *zero = e_const(&w->x, 0);
    if (t->begin == t->j->leave_uop)
        return field_now(w, st, offsetof(struct soft_vcpu, cur), 8) == block ? t->in.reg[T_FLAGS] : NULL;
    if (t->begin == t->j->unlinked)
        return e_plus(&w->x, link, BACK_LINK);
    if (t->begin == t->j->untranslated)
        return e_plus(&w->x, block, BACK_BLOCK);
    if (t->begin == t->j->refuse)
        return fact_equal(st, link, zero) ? e_plus(&w->x, block, BACK_REFUSED) : e_plus(&w->x, link, BACK_LINK_REFUSED);
    return field_now(w, st, offsetof(struct soft_vcpu, st.rip), 8) == t->in.reg[T_FLAGS] ? zero : NULL; /* go_rip */
}

/* A thunk goes on at jit->leave. */
static void thunk_falls_into(struct walk *w, struct state *st, uint32_t root)
{
    struct thunk *t = thunk_of(w);
    walk_check(w, st->reg[H_AX] == way_back(w, st), "something else goes back");
    check_unspoilt(w, st);
    walk_check(w, st->reg[H_SP] == frame(w, FRAME) && st->reg[H_VCPU] == w->vcpu, "RSP or RBP");
    t->leaves++;
}

static uint32_t offset_of(const struct jit *j, const void *p)
{
    return (uint32_t)((const uint8_t *)p - j->rx);
}

static void walk_thunk(struct walk *w, struct thunk *t, const void *begin)
{
    bool called = begin == t->j->generic || begin == t->j->refill;
    bool whole = begin == t->j->leave || called || begin == t->j->rx; /* or as far as jit->leave */
    struct root roots[2] = {{.at = offset_of(t->j, begin)}, {.at = offset_of(t->j, t->j->leave)}};
    t->begin = begin;
    t->called = NULL;
    t->returns = t->leaves = 0;
    for (unsigned i = 0; i < 2; i++) {
        block_state(w, &roots[i].st);
        roots[i].st.reg[H_SP] = frame(w, FRAME + (called ? 8 : 0));
        roots[i].st.mem = t->saved;
    }
    if (begin == t->j->rx)
        roots[0].st = t->caller;
    t->in = roots[0].st;
    walk_run(w, roots, whole ? 1 : 2);
}

/* A host register is one guest register's, and none of those are that translations need themselves. */
static void registers_are_nobody_elses(void **state)
{
    unsigned taken = BIT(H_SP) | BIT(H_VCPU) | BIT(T_FLAGS) | BIT(T_ADDR) | BIT(T_VAL);
    for (unsigned r = 0; r < 16; r++) {
        if (host_of(r) == H_NONE)
            continue;
        assert_false(taken >> host_of(r) & 1);
        taken |= BIT(host_of(r));
    }
}

static void thunks_keep_their_contracts(void **state)
{
    static const struct walk_rules rules = {thunk_out, thunk_memory, thunk_falls_into, true};
    struct jit_rig *r = open_rig();
    const struct jit *j = ((struct soft_vm *)r->r->vm)->jit;
    const void *const simple[] = {j->leave_uop, j->unlinked, j->untranslated, j->refuse, j->go_rip};
    struct walk *w = &watch.w;
    struct thunk t = {.j = j};
    walk_begin(w, j->rx, j->thunks, &rules, &t);
    state_init(w, &t.caller);
    w->vcpu = t.caller.reg[H_DI];
    t.caller.reg[H_SP] = w->stack;
    walk_thunk(w, &t, j->rx);
    assert_true(t.leaves == 1 && !t.returns);
    walk_thunk(w, &t, j->leave);
    assert_int_equal(t.returns, 1);
    walk_thunk(w, &t, j->generic);
    assert_int_equal(t.returns, 2);
    walk_thunk(w, &t, j->refill);
    assert_int_equal(t.returns, 1);
    for (unsigned i = 0; i < ARRAY_SIZE(simple); i++) {
        walk_thunk(w, &t, simple[i]);
        assert_true(t.leaves >= 1);
    }
    assert_int_equal(align_up(walk_seamless(w), 64), j->thunks); /* nothing else is there */
    jit_free(r);
}

/* ---- random code ---- */

enum { PAGES = 4, CODE_BYTES = PAGES * 4096, STARTS = 1024 };

struct maker {
    struct gen g;
    struct test t;
    struct rig_starts {
        uint16_t at[STARTS];
        unsigned n;
    } starts;
};

/* Groups, the often translated ones more often. */
static enum group pick_group(struct maker *m)
{
    static const uint8_t often[] = {G_ALU, G_MOV, G_SHIFT, G_BIT, G_MULDIV, G_STACK_OPS, G_ATOMIC};
    static const uint8_t all[] = {G_ALU,    G_MOV,    G_SHIFT, G_BIT,  G_MULDIV, G_STACK_OPS, G_BRANCH,
                                  G_STRING, G_ATOMIC, G_MISC,  G_PRIV, G_SSE,    G_X87};
    return one_in(&m->g.rng, 4) ? all[rnd_n(&m->g.rng, ARRAY_SIZE(all))] : often[rnd_n(&m->g.rng, ARRAY_SIZE(often))];
}

/* One instruction, perhaps with FS or GS. Returns its length. */
static unsigned make_insn(struct maker *m, uint8_t *to)
{
    static const uint8_t segment[] = {0x64, 0x65};
    struct shape s;
    m->t.code_len = m->t.insns = 0;
    while (!insn_append(&m->g, pick_group(m), &s))
        ;
    unsigned n = 0;
    if (s.in.flags & INSN_MEM && s.in.len < 15 && one_in(&m->g.rng, 8))
        to[n++] = segment[rnd_n(&m->g.rng, 2)];
    memcpy(to + n, m->t.code, s.in.len);
    return n + s.in.len;
}

static void make_code(struct maker *m, uint8_t *code)
{
    unsigned at = 0, skip = 0;
    m->starts.n = 0;
    while (at < CODE_BYTES - 16) {
        if (!skip-- && m->starts.n < STARTS) {
            m->starts.at[m->starts.n++] = (uint16_t)at;
            skip = rnd_n(&m->g.rng, 24);
        }
        at += make_insn(m, code + at);
    }
}

/* Registers that lead somewhere often enough for hosts' instructions to run, too. */
static void make_registers(struct maker *m, struct cpu_state *st)
{
    for (unsigned i = 0; i < 16; i++)
        st->gpr[i] = one_in(&m->g.rng, 4) ? rnd(&m->g.rng) : J_DATA + rnd_n(&m->g.rng, 0x8000);
    st->gpr[RSP] = RIG_STACK - 64;
    st->seg[SEG_GS].base = st->seg[SEG_FS].base = J_DATA;
}

/* What runs destroys tables, which are made again now and then, and registers. */
static void run_code(struct jit_rig *j, struct maker *m)
{
    struct engine_vcpu *v = (struct engine_vcpu *)j->r->v;
    unsigned level = rnd_n(&m->g.rng, 2) * 3;
    struct cpu_state reset, st;
    uint8_t code[CODE_BYTES] = {0};
    make_code(m, code);
    cpu_state_reset(&reset, true);
    for (unsigned i = 0; i < m->starts.n; i++) {
        struct cpu_run c = {.budget = 150};
        if (i % 64 == 0) {
            engine_soft.set_state(v, &reset);
            jit_long(j, level);
            jit_load_bytes(j, J_CODE, (const char *)code, sizeof code);
            engine_soft.get_state(v, &st);
        }
        make_registers(m, &st);
        st.rip = J_CODE + m->starts.at[i];
        engine_soft.set_state(v, &st);
        engine_soft.vcpu_run(v, &c);
    }
}

/* ---- tests ---- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || HEC_HOSTILE
enum { PROVEN = 4000 };
#else
enum { PROVEN = 30000 };
#endif

/* What emitters do themselves. */
static void check_ops(void)
{
    static const uint16_t ops[] = {
        OP_add,    OP_or,     OP_adc,   OP_sbb,     OP_and,       OP_sub,        OP_xor,      OP_cmp,   OP_test,
        OP_inc,    OP_dec,    OP_neg,   OP_not,     OP_mov,       OP_movnti,     OP_movzx,    OP_movsx, OP_lea,
        OP_push,   OP_pop,    OP_leave, OP_xchg,    OP_bswap,     OP_cbw,        OP_cwd,      OP_nop,   OP_lfence,
        OP_sfence, OP_mfence, OP_pause, OP_rol,     OP_ror,       OP_rcl,        OP_rcr,      OP_shl,   OP_shr,
        OP_sar,    OP_shld,   OP_shrd,  OP_bt,      OP_bts,       OP_btr,        OP_btc,      OP_bsf,   OP_bsr,
        OP_popcnt, OP_imul1,  OP_imul2, OP_imul3,   OP_mul,       OP_setcc,      OP_cmovcc,   OP_jcc,   OP_jmp,
        OP_call,   OP_ret,    OP_xadd,  OP_cmpxchg, OP_cmpxchg8b, OP_cmpxchg16b, OP_prefetch, OP_div,   OP_pushf,
        OP_cli,    OP_cld,    OP_std,   OP_clc,     OP_stc,       OP_cmc,
    };
    for (unsigned i = 0; i < ARRAY_SIZE(ops); i++)
        if (watch.ops[ops[i]] < PROVEN / 500)
            fail_msg("operation %u: only %u in all blocks", ops[i], watch.ops[ops[i]]);
}

static void blocks_do_what_they_may(void **state)
{
    struct jit_rig *j = open_rig();
    struct maker *m = aligned_alloc(64, sizeof *m);
    assert_non_null(m);
    memset(m, 0, sizeof *m);
    m->g = (struct gen){.rng = {watch.seed}, .t = &m->t, .mode = CODE64};
    gen_init();
    while (watch.blocks < watch.wanted)
        run_code(j, m);
    check_unchanged(((struct soft_vm *)j->r->vm)->jit);
    check_ops();
    print_message("%u blocks, %llu host instructions, %u flushes\n", watch.blocks,
                  (unsigned long long)watch.w.instructions, watch.flushes);
    free(m);
    jit_free(j);
}

static int setup(void **state)
{
    walk_init(&watch.w, MOST_CODE);
    watch.copy = malloc(JIT_SIZE);
    return watch.copy ? 0 : -1;
}

static int teardown(void **state)
{
    walk_fini(&watch.w);
    free(watch.copy);
    return 0;
}

/* test_cpu_jit_verify [SEED [BLOCKS]] */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registers_are_nobody_elses),
        cmocka_unit_test(thunks_keep_their_contracts),
        cmocka_unit_test(blocks_do_what_they_may),
    };
    watch.seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 0x5eed;
    watch.wanted = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : PROVEN;
    return cmocka_run_group_tests(tests, setup, teardown);
}
