/* What must be true of every translated block, proven of the code itself (jit_step.h):
 *
 * - it enters only after its gate, and changes nothing if it is refused there;
 * - it writes to the vCPU only what is listed here, to guest RAM only where a write probe has just led, and nowhere
 *   else; it reads the vCPU, the soft-TLB, the jump cache, its gate, its own constants, and guest RAM behind a probe;
 * - it never touches the stack, or RBP;
 * - it leaves by a thunk with what the thunk wants, by a link of its own, or into the block that the jump cache has for
 *   the very RIP it goes to, rip_bias being that block's;
 * - what it calls is the generic executor, for an instruction of its own, or who finds a page that a probe missed.
 */
#ifndef HEC_TESTS_JIT_PROOF_H
#define HEC_TESTS_JIT_PROOF_H

#include "jit_step.h"

#include "cpu/soft/block.h"

struct proof {
    const struct jit *j;
    const struct block *b;
    uint64_t constants, constants_end; /* where the block's own are, as run */
    uint8_t *claimed;                  /* [those / 16] by what jumps and calls use them for */
    const struct expr *link;           /* R11 at the entry */
};

static inline struct proof *proof_of(struct walk *w)
{
    return w->ctx;
}

/* ---- memory ---- */

/* What blocks, or thunks, may write of the vCPU. */
static inline bool may_write_vcpu(uint64_t at, unsigned size, bool thunk)
{
#define FIELD(f)                                                                                                       \
    {                                                                                                                  \
        offsetof(struct soft_vcpu, f), sizeof(((struct soft_vcpu *)0)->f)                                              \
    }
    static const struct field {
        uint64_t at, size;
    } block[] = {FIELD(st.gpr),   FIELD(st.rflags), FIELD(jit_flags), FIELD(budget),
                 FIELD(rip_bias), FIELD(pauses),    FIELD(tmp)},
      leaving[] = {FIELD(st.gpr), FIELD(st.rip), FIELD(cur), FIELD(stop)};
#undef FIELD
    const struct field *may = thunk ? leaving : block;
    for (unsigned i = 0; i < (thunk ? ARRAY_SIZE(leaving) : ARRAY_SIZE(block)); i++)
        if (at >= may[i].at && at + size <= may[i].at + may[i].size)
            return true;
    return false;
}

/* Whether addr = the vCPU's pointer `table` + a slot's number below `slots`, times 16, + *k. The number may be known.
 */
static inline bool in_table(struct walk *w, const struct state *st, const struct expr *addr, size_t table,
                            uint64_t slots, uint64_t *k)
{
    const struct expr *rest = e_add(&w->x, addr, vcpu_word(w, st, table), ~UINT64_C(0));
    struct term t = {rest, 1};
    *k = 0;
    if (is_const(rest)) {
        *k = rest->k - rest->k % (slots * 16) + rest->k % 16;
        return true;
    }
    if (rest->kind == E_SUM) {
        if (rest->terms != 1)
            return false;
        t = rest->term[0];
        *k = rest->k;
    }
    return t.e->kind == E_AND && t.e->k * t.times == (slots - 1) * 16;
}

static inline bool reads_tlb(struct walk *w, const struct state *st, const struct expr *addr, unsigned size)
{
    uint64_t k;
    if (size != 8 || !in_table(w, st, addr, offsetof(struct soft_vcpu, tlb), TLB_SIZE, &k))
        return false;
    k -= k >= offsetof(struct tlb_bank, w) ? offsetof(struct tlb_bank, w) : offsetof(struct tlb_bank, r);
    return k == offsetof(struct tlb_entry, tag) || k == offsetof(struct tlb_entry, host);
}

static inline bool reads_jumps(struct walk *w, const struct state *st, const struct expr *addr, unsigned size)
{
    uint64_t k;
    return size == 8 && in_table(w, st, addr, offsetof(struct soft_vcpu, jump), JUMP_SLOTS, &k) &&
           (k == offsetof(struct jump_entry, rip) || k == offsetof(struct jump_entry, b));
}
_Static_assert(sizeof(struct jump_entry) == 16, "a slot's number is multiplied by this");

/* The jump cache's slot for this RIP. */
static inline const struct expr *jump_entry_of(struct walk *w, const struct state *st, const struct expr *rip)
{
    struct exprs *x = &w->x;
    const struct expr *low = e_low32(x, rip), *mixed = e_xor(x, e_shr(x, low, JUMP_BITS), low);
    return e_add(x, vcpu_word(w, st, offsetof(struct soft_vcpu, jump)), e_and(x, mixed, JUMP_SLOTS - 1), 16);
}

/* If `b` is what the jump cache has for an RIP: that RIP. */
static inline const struct expr *found_by(struct walk *w, const struct state *st, const struct expr *b)
{
    struct exprs *x = &w->x;
    if (b->kind != E_LOAD || b->k != 8 || b->epoch != st->epoch)
        return NULL;
    const struct expr *entry = e_plus(x, b->a, -offsetof(struct jump_entry, b));
    const struct expr *rip = e_load(x, e_plus(x, entry, offsetof(struct jump_entry, rip)), 8, st->epoch);
    for (const struct fact *f = st->facts; f; f = f->next) {
        const struct expr *other = f->kind != F_EQ ? NULL : f->a == rip ? f->b : f->b == rip ? f->a : NULL;
        if (other && jump_entry_of(w, st, other) == entry)
            return other;
    }
    return NULL;
}

static inline bool reads_found_block(struct walk *w, const struct state *st, const struct expr *addr, unsigned size)
{
    const struct expr *b = e_plus(&w->x, addr, -offsetof(struct block, code));
    return size == 8 && found_by(w, st, b);
}

static inline bool block_memory(struct walk *w, struct state *st, const struct expr *addr, unsigned size, bool write)
{
    const struct proof *p = proof_of(w);
    uint64_t k;
    if (is_plus(addr, w->vcpu, &k))
        return k + size <= sizeof(struct soft_vcpu) && (!write || may_write_vcpu(k, size, false));
    if (write)
        return false;
    if (is_const(addr))
        return (addr->k == (uintptr_t)&p->b->gate && size == 8) ||
               (addr->k >= p->constants && addr->k + size <= p->constants_end);
    return reads_tlb(w, st, addr, size) || reads_jumps(w, st, addr, size) || reads_found_block(w, st, addr, size);
}

/* ---- constants ---- */

/* Nobody else's, and wholly the block's. */
static inline const void *proof_claim(struct walk *w, const struct expr *e, size_t size)
{
    struct proof *p = proof_of(w);
    walk_check(w, is_const(e) && e->k >= p->constants && e->k + size <= p->constants_end && e->k % 16 == 0,
               "a constant that is not the block's own");
    for (uint64_t at = e->k; at < e->k + size; at += 16) {
        uint8_t *c = &p->claimed[(at - p->constants) / 16];
        walk_check(w, !*c, "a constant that is another one's, too");
        *c = 1;
    }
    const void *found;
    memcpy(&found, &e->k, sizeof found);
    return found;
}

/* Its uops, and the end behind them. */
static inline bool is_uop(const struct block *b, const struct uop *u)
{
    return u >= b->uops && u <= b->uops + b->n && ((uintptr_t)u - (uintptr_t)b->uops) % sizeof *u == 0;
}

static inline void check_link(struct walk *w, const struct state *st)
{
    const struct proof *p = proof_of(w);
    const struct jit_link *l = proof_claim(w, st->reg[T_VAL], sizeof *l);
    walk_check(w, l->b == p->b && is_uop(p->b, l->u) && l->code == p->j->unlinked, "a link that is not of this block");
}

static inline void check_site(struct walk *w, const struct state *st)
{
    const struct proof *p = proof_of(w);
    const struct jit_site *s = proof_claim(w, st->reg[T_FLAGS], sizeof *s);
    walk_check(w, s->b == p->b && is_uop(p->b, s->u) && s->u < p->b->uops + p->b->n && s->in.len == s->u->len,
               "a site that is not of this block");
}

/* ---- ways out ---- */

static inline bool is_pointer(const struct expr *e, const void *p)
{
    return is_const(e) && e->k == (uintptr_t)p;
}

/* BACK_FIRST or BACK_UOP in RAX. */
static inline bool is_way_back(const struct block *b, const struct expr *e)
{
    uint64_t k = e->k - (e->k & BACK_MASK);
    const struct uop *u;
    memcpy(&u, &k, sizeof u);
    return is_const(e) && is_uop(b, u) && (e->k & BACK_MASK) == (u == b->uops ? BACK_FIRST : BACK_UOP);
}

static inline void leaves_by_thunk(struct walk *w, struct state *st, const struct expr *to)
{
    const struct proof *p = proof_of(w);
    if (is_pointer(to, p->j->leave_uop)) {
        walk_check(w, is_pointer(st->reg[T_ADDR], p->b) && is_way_back(p->b, st->reg[T_FLAGS]),
                   "leaves for a uop that is not the block's");
    } else if (is_pointer(to, p->j->refuse)) {
        walk_check(w, is_pointer(st->reg[T_ADDR], p->b) && st->reg[T_VAL] == p->link && !st->changed,
                   "refuses another block, or too late");
    } else {
        walk_check(w, is_pointer(to, p->j->go_rip), "jumps to nobody");
    }
}

static inline void leaves_for_block(struct walk *w, struct state *st, const struct expr *to)
{
    const struct expr *b = st->reg[T_ADDR], *rip = found_by(w, st, b);
    walk_check(w, rip && e_plus(&w->x, b, offsetof(struct block, code)) == to, "jumps through memory");
    walk_check(w, st->reg[T_VAL] == e_const(&w->x, 0), "no link leads there");
    walk_check(w,
               walk_load(w, st, e_plus(&w->x, w->vcpu, offsetof(struct soft_vcpu, rip_bias)), 8) ==
                   e_and(&w->x, rip, ~UINT64_C(0xfff)),
               "rip_bias is another page's");
}

/* Behind a call to the generic executor: registers are those of the vCPU, memory is what it is. */
static inline void generic_returns(struct walk *w, struct state *st)
{
    for (unsigned i = 0; i < 16; i++)
        if (i != H_SP && i != H_VCPU)
            st->reg[i] = walk_fresh(w);
    st->mem = NULL;
    st->epoch = ++w->epochs;
    st->flags.of = FLAGS_UNKNOWN;
    st->changed = true;
}

/* Behind a call for a page: R10 is its host address or 0, as ZF says. */
static inline void refill_returns(struct walk *w, struct state *st)
{
    const struct expr *how = st->reg[T_FLAGS], *host = walk_fresh(w);
    uint64_t size = how->k >> 8, acc = how->k & 0xff;
    walk_check(w, is_const(how) && size - 1 < 16 && acc <= ACC_WRITE, "an access of another kind");
    st->reg[T_FLAGS] = walk_fresh(w);
    st->reg[T_VAL] = walk_fresh(w);
    st->reg[T_ADDR] = host;
    st->mem = NULL;
    st->epoch = ++w->epochs;
    st->flags = (struct flags){FLAGS_RESULT, 8, host, NULL};
    host_add(w, st, host, (struct host){size, acc == ACC_WRITE});
}

static inline void block_calls(struct walk *w, struct state *st, const struct expr *to)
{
    const struct proof *p = proof_of(w);
    if (is_pointer(to, p->j->refill)) {
        refill_returns(w, st);
        return;
    }
    walk_check(w, is_pointer(to, p->j->generic), "calls somebody else");
    check_site(w, st);
    generic_returns(w, st);
}

static inline void block_out(struct walk *w, struct state *st, enum out_kind how, const struct expr *to)
{
    switch (how) {
    case OUT_JUMP:
        leaves_by_thunk(w, st, to);
        break;
    case OUT_CALL:
        block_calls(w, st, to);
        break;
    case OUT_THROUGH_MEM:
        if (is_const(to)) {
            walk_check(w, e_plus(&w->x, st->reg[T_VAL], offsetof(struct jit_link, code)) == to, "jumps by no link");
            check_link(w, st);
        } else {
            leaves_for_block(w, st, to);
        }
        break;
    default:
        walk_bad(w, "jumps by a register, or returns");
    }
}

/* From the entry into the body: the gate lets the block in, nobody wants attention, and the budget is paid. */
static inline void block_falls_into(struct walk *w, struct state *st, uint32_t root)
{
    struct exprs *x = &w->x;
    struct state before = {.epoch = st->epoch};
    const struct expr *gate = e_load(x, e_pointer(x, &proof_of(w)->b->gate), 8, st->epoch);
    const struct expr *budget = e_plus(x, w->vcpu, offsetof(struct soft_vcpu, budget));
    const struct expr *attn = e_load(x, e_plus(x, w->vcpu, offsetof(struct soft_vcpu, attn)), 4, st->epoch);
    const struct expr *left = e_add(x, walk_load(w, &before, budget, 8), gate, ~UINT64_C(0));
    walk_check(w, fact_of(st, F_NONNEG, left, NULL), "dead blocks or those too long are let in");
    walk_check(w, fact_equal(st, attn, e_const(x, 0)), "attention is not given");
    walk_check(w, st->mem && !st->mem->next && st->mem->addr == budget && st->mem->val == left,
               "the budget is not paid");
}

/* ---- a block ---- */

static inline const struct walk_rules *block_rules(void)
{
    static const struct walk_rules rules = {block_out, block_memory, block_falls_into, false};
    return &rules;
}

static inline void block_state(struct walk *w, struct state *st)
{
    state_init(w, st);
    st->reg[H_VCPU] = w->vcpu;
    st->reg[H_SP] = w->stack;
}

/* Of the code at `code` that j has just made of `b`, `size` bytes with what fills up the last 16. */
static inline void prove_block(struct walk *w, struct proof *p, const uint8_t *code, uint32_t size)
{
    struct root roots[2] = {{.at = (uint32_t)((uint8_t *)p->b->code - code)},
                            {.at = (uint32_t)((uint8_t *)p->b->body - code)}};
    walk_begin(w, code, size, block_rules(), p);
    assert_true(roots[0].at == 0 && roots[1].at < size);
    for (unsigned i = 0; i < 2; i++)
        block_state(w, &roots[i].st);
    p->link = roots[0].st.reg[T_VAL];
    walk_run(w, roots, 2);
    assert_int_equal(align_up(walk_seamless(w), 16), size);
}

#endif
