/* Host code followed along all of its ways at once, with expressions for values (jit_expr.h): what it may execute,
 * touch and jump to is checked at each instruction, against what is known there. Nothing is believed about how the code
 * was made.
 *
 * Code is finite ways: no loops. Where ways meet, what differs becomes a new symbol. Memory is believed to stay as it
 * is for an epoch: from one call to the next, and until ways meet that have stored different things. Guest RAM, the
 * vCPU, TLB and jump cache are different memory; that they are is what is proven here.
 */
#ifndef HEC_TESTS_JIT_WALK_H
#define HEC_TESTS_JIT_WALK_H

#include "cpu/jit/jit_priv.h"
#include "jit_expr.h"

#include <stdio.h>

#include <Zydis/Zydis.h>

/* ---- what is known at a place ---- */

enum fact_kind {
    F_ULE,     /* a <= k */
    F_LESS,    /* a < b, unsigned */
    F_EQ,      /* a == b */
    F_NONZERO, /* a */
    F_NONNEG,  /* a's upper bit is clear */
    F_HOST /* as long as the epoch lasts, a is 0 or the host address of k bytes of guest RAM; `write`: to be written */
};

struct fact {
    enum fact_kind kind;
    uint32_t depth;
    const struct expr *a, *b;
    uint64_t k;
    uint32_t epoch;
    bool write;
    const struct fact *next;
};

/* A store to the vCPU or the stack. */
struct cell {
    const struct expr *addr, *val;
    unsigned size;
    const struct cell *next;
};

enum flags_of { FLAGS_UNKNOWN, FLAGS_CMP, FLAGS_RESULT }; /* of a - b; of a result, with nothing carried */

struct flags {
    enum flags_of of;
    unsigned size;
    const struct expr *a, *b;
};

struct state {
    const struct expr *reg[16];
    const struct fact *facts;
    const struct cell *mem;
    struct flags flags;
    uint32_t epoch;
    bool changed; /* something that outlives the block, since the root */
};

/* ---- the walk ---- */

/* How code leaves. OUT_CALL comes back: the state is then as behind the call. */
enum out_kind { OUT_JUMP, OUT_CALL, OUT_RET, OUT_THROUGH_MEM, OUT_THROUGH_REG };

struct walk;

struct walk_rules {
    /* `to`: where to; OUT_THROUGH_MEM: the address of the pointer. */
    void (*out)(struct walk *w, struct state *st, enum out_kind how, const struct expr *to);
    /* Memory that is neither the stack nor guest RAM by a probe. */
    bool (*memory)(struct walk *w, struct state *st, const struct expr *addr, unsigned size, bool write);
    void (*falls_into)(struct walk *w, struct state *st, uint32_t root); /* NULL: roots are not led to */
    bool stack;                                                          /* RSP and RBP may be used */
};

struct node {
    int32_t next[2]; /* -1: none */
    uint32_t done;   /* of `next`, while ways are looked for */
    uint8_t len, mark;
    bool root;
    struct state *in;
};

struct walk {
    ZydisDecoder dec;
    struct exprs x;
    const struct walk_rules *rules;
    void *ctx;
    const uint8_t *code;
    uint32_t size;
    const struct expr *vcpu, *stack; /* what RBP and RSP mean */
    uint32_t epochs;
    struct node *node; /* [size] */
    uint8_t *length;   /* [size] of the instruction that begins there */
    uint32_t *order, n, *todo;
    uint32_t pc; /* being looked at */
    uint64_t instructions;
};

static inline void walk_init(struct walk *w, uint32_t most)
{
    memset(w, 0, sizeof *w);
    ZydisDecoderInit(&w->dec, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    exprs_init(&w->x);
    w->node = malloc(most * sizeof w->node[0]);
    w->length = malloc(most);
    w->order = malloc(most * sizeof w->order[0]);
    w->todo = malloc(most * sizeof w->todo[0]);
    assert_true(w->node && w->length && w->order && w->todo);
}

static inline void walk_fini(struct walk *w)
{
    exprs_fini(&w->x);
    free(w->node);
    free(w->length);
    free(w->order);
    free(w->todo);
}

/* Something else is looked at from now on. */
static inline void walk_begin(struct walk *w, const void *code, uint32_t size, const struct walk_rules *rules,
                              void *ctx)
{
    exprs_forget(&w->x);
    w->code = code;
    w->size = size;
    w->rules = rules;
    w->ctx = ctx;
    w->vcpu = e_symbol(&w->x, ~UINT64_C(0));
    w->stack = e_symbol(&w->x, ~UINT64_C(0));
    memset(w->length, 0, size);
}

/* The instructions up to here, and why. */
static inline void walk_bad(struct walk *w, const char *why)
{
    ZydisFormatter f;
    char text[96];
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    uint32_t from = w->pc, seen = 0;
    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    for (; from && seen < 20; from--)
        seen += w->length[from - 1] != 0;
    for (uint32_t at = from; at <= w->pc; at++) {
        if (!w->length[at] || ZYAN_FAILED(ZydisDecoderDecodeFull(&w->dec, w->code + at, w->size - at, &z, ops)))
            continue;
        ZydisFormatterFormatInstruction(&f, &z, ops, z.operand_count_visible, text, sizeof text,
                                        (uintptr_t)w->code + at, NULL);
        fprintf(stderr, "  %5x  %s\n", at, text);
    }
    fail_msg("at %x: %s", w->pc, why);
}

static inline void walk_check(struct walk *w, bool ok, const char *why)
{
    if (!ok)
        walk_bad(w, why);
}

/* ---- the ways ---- */

static inline bool walk_inside(const struct walk *w, uint64_t addr)
{
    return addr - (uintptr_t)w->code < w->size;
}

/* Decode what is at `at` and where it leads inside. */
static inline void walk_decode(struct walk *w, uint32_t at)
{
    struct node *n = &w->node[at];
    ZydisDecodedInstruction z;
    w->pc = at;
    walk_check(w, ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&w->dec, NULL, w->code + at, w->size - at, &z)),
               "no instruction, or one that goes on behind the end");
    n->len = z.length;
    n->next[0] = n->next[1] = -1;
    bool relative = z.raw.imm[0].is_relative;
    uint64_t to = (uintptr_t)w->code + at + z.length + (relative ? z.raw.imm[0].value.u : 0);
    bool goes_on = z.meta.category != ZYDIS_CATEGORY_UNCOND_BR && z.meta.category != ZYDIS_CATEGORY_RET;
    if (goes_on) {
        walk_check(w, at + z.length < w->size, "falls off the end");
        n->next[0] = (int32_t)(at + z.length);
    }
    if (relative && walk_inside(w, to) && z.mnemonic != ZYDIS_MNEMONIC_CALL)
        n->next[1] = (int32_t)(to - (uintptr_t)w->code);
}

enum { MARK_NEW, MARK_OPEN, MARK_DONE };

/* All that `from` leads to, in `order`, the last first. */
static inline void walk_ways(struct walk *w, uint32_t from)
{
    uint32_t depth = 0;
    if (w->node[from].mark != MARK_NEW)
        return;
    w->todo[depth++] = from;
    while (depth) {
        uint32_t at = w->todo[depth - 1];
        struct node *n = &w->node[at];
        if (n->mark == MARK_NEW) {
            n->mark = MARK_OPEN;
            walk_decode(w, at);
        }
        if (n->done == 2) {
            n->mark = MARK_DONE;
            w->length[at] = n->len;
            w->order[w->n++] = at;
            depth--;
            continue;
        }
        int32_t next = n->next[n->done++];
        walk_check(w, next < 0 || w->node[next].mark != MARK_OPEN, "a loop");
        if (next >= 0 && w->node[next].mark == MARK_NEW)
            w->todo[depth++] = (uint32_t)next;
    }
}

/* Of all code looked at since walk_begin(): no byte is part of two instructions, and none of another one is between
 * them. Returns where the code ends. */
static inline uint32_t walk_seamless(struct walk *w)
{
    uint32_t end = 0;
    for (uint32_t at = 0; at < w->size; at++) {
        w->pc = at;
        walk_check(w, !w->length[at] || at == end, "inside another instruction, or behind bytes that are none");
        if (w->length[at])
            end = at + w->length[at];
    }
    return end;
}

/* ---- states ---- */

static inline const struct expr *walk_fresh(struct walk *w)
{
    return e_symbol(&w->x, ~UINT64_C(0));
}

static inline void state_init(struct walk *w, struct state *st)
{
    memset(st, 0, sizeof *st);
    for (unsigned i = 0; i < 16; i++)
        st->reg[i] = walk_fresh(w);
    st->epoch = ++w->epochs;
}

static inline const struct fact *facts_common(const struct fact *a, const struct fact *b)
{
    while (a != b) {
        uint32_t da = a ? a->depth : 0, db = b ? b->depth : 0;
        if (da >= db)
            a = a->next;
        if (db >= da)
            b = b->next;
    }
    return a;
}

/* ---- facts ---- */

static inline void fact_add(struct walk *w, struct state *st, struct fact f)
{
    struct fact *p = exprs_take(&w->x, sizeof *p);
    *p = f;
    p->next = st->facts;
    p->depth = st->facts ? st->facts->depth + 1 : 1;
    st->facts = p;
}

/* The least k for which a <= k is known. */
static inline uint64_t fact_most(const struct state *st, const struct expr *a)
{
    uint64_t most = a->max;
    for (const struct fact *f = st->facts; f; f = f->next)
        if (f->kind == F_ULE && f->a == a && f->k < most)
            most = f->k;
    return most;
}

static inline bool fact_equal(const struct state *st, const struct expr *a, const struct expr *b)
{
    for (const struct fact *f = st->facts; f; f = f->next)
        if (f->kind == F_EQ && ((f->a == a && f->b == b) || (f->a == b && f->b == a)))
            return true;
    return a == b;
}

static inline bool fact_of(const struct state *st, enum fact_kind kind, const struct expr *a, const struct expr *b)
{
    for (const struct fact *f = st->facts; f; f = f->next)
        if (f->kind == kind && f->a == a && f->b == b)
            return true;
    return false;
}

/* What a conditional jump tells, on the way it takes or doesn't. */
static inline void branch_facts(struct walk *w, struct state *st, ZydisMnemonic name, bool taken)
{
    const struct flags *f = &st->flags;
    const struct expr *b = f->of == FLAGS_RESULT ? e_const(&w->x, 0) : f->b;
    if (f->of == FLAGS_UNKNOWN)
        return;
    if (name == (taken ? ZYDIS_MNEMONIC_JZ : ZYDIS_MNEMONIC_JNZ))
        fact_add(w, st, (struct fact){.kind = F_EQ, .a = f->a, .b = b});
    if (name == (taken ? ZYDIS_MNEMONIC_JNZ : ZYDIS_MNEMONIC_JZ) && f->of == FLAGS_RESULT)
        fact_add(w, st, (struct fact){.kind = F_NONZERO, .a = f->a});
    if (name == (taken ? ZYDIS_MNEMONIC_JB : ZYDIS_MNEMONIC_JNB))
        fact_add(w, st, (struct fact){.kind = F_LESS, .a = f->a, .b = b});
    if (name == (taken ? ZYDIS_MNEMONIC_JNS : ZYDIS_MNEMONIC_JS) && f->size == 8)
        fact_add(w, st, (struct fact){.kind = F_NONNEG, .a = e_add(&w->x, f->a, b, ~UINT64_C(0))});
    if (name == (taken ? ZYDIS_MNEMONIC_JBE : ZYDIS_MNEMONIC_JNBE) && is_const(b))
        fact_add(w, st, (struct fact){.kind = F_ULE, .a = f->a, .k = b->k});
}

/* ---- the soft-TLB: struct tlb_entry's rule ---- */

static inline const struct expr *vcpu_word(struct walk *w, const struct state *st, size_t offset)
{
    return e_load(&w->x, e_plus(&w->x, w->vcpu, offset), 8, st->epoch);
}

/* The slot of a guest address. */
static inline const struct expr *tlb_slot(struct walk *w, const struct state *st, const struct expr *gva)
{
    const struct expr *n = e_and(&w->x, e_shr(&w->x, e_low32(&w->x, gva), 8), (TLB_SIZE - 1) << 4);
    _Static_assert(sizeof(struct tlb_entry) == 16, "a slot's number is multiplied by this");
    return e_add(&w->x, vcpu_word(w, st, offsetof(struct soft_vcpu, tlb)), n, 1);
}

/* Whether `off` is a guest address XORed with the tag of its own slot in this bank, and `host` that slot's page. */
static inline bool is_probe(struct walk *w, const struct state *st, size_t bank, const struct expr *off,
                            const struct expr *host)
{
    if (off->kind != E_XOR || host->kind != E_LOAD || host->k != 8 || host->epoch != st->epoch)
        return false;
    const struct expr *slot = e_plus(&w->x, host->a, -(bank + offsetof(struct tlb_entry, host)));
    const struct expr *at = e_plus(&w->x, slot, bank + offsetof(struct tlb_entry, tag));
    const struct expr *tag = e_load(&w->x, at, 8, st->epoch);
    return (off->a == tag && tlb_slot(w, st, off->b) == slot) || (off->b == tag && tlb_slot(w, st, off->a) == slot);
}

/* Host addresses of guest RAM: how many bytes from there on may be accessed. */
struct host {
    uint64_t size; /* 0: none */
    bool write;
};

static inline struct host probed_in(struct walk *w, const struct state *st, bool write, const struct expr *off,
                                    const struct expr *host)
{
    uint64_t most = fact_most(st, off);
    size_t bank = write ? offsetof(struct tlb_bank, w) : offsetof(struct tlb_bank, r);
    if (most >= 4096 || !is_probe(w, st, bank, off, host))
        return (struct host){.size = 0};
    return (struct host){4096 - most, write};
}

/* What a probe of the TLB says about its result, or F_HOST. */
static inline struct host walk_host(struct walk *w, const struct state *st, const struct expr *e)
{
    const struct expr *a, *b;
    struct host h = {.size = 0};
    for (const struct fact *f = st->facts; f && e->kind == E_SYMBOL; f = f->next)
        if (f->kind == F_HOST && f->a == e && f->epoch == st->epoch && fact_of(st, F_NONZERO, e, NULL))
            return (struct host){f->k, f->write};
    if (!is_pair(e, &a, &b) || e->k)
        return h;
    for (unsigned i = 0; i < 4 && !h.size; i++)
        h = probed_in(w, st, i & 1, i & 2 ? b : a, i & 2 ? a : b);
    return h;
}

static inline bool walk_probed(struct walk *w, const struct state *st, const struct expr *addr, unsigned size,
                               bool write)
{
    struct host h = walk_host(w, st, addr);
    return size <= h.size && (h.write || !write);
}

/* ---- where ways meet ---- */

static inline void host_add(struct walk *w, struct state *st, const struct expr *e, struct host h)
{
    fact_add(w, st, (struct fact){.kind = F_HOST, .a = e, .k = h.size, .epoch = st->epoch, .write = h.write});
}

/* A register that differs: a new symbol, a host address if it is one on both ways. */
static inline struct host host_meet(struct walk *w, const struct state *x, const struct state *y, unsigned i)
{
    struct host a = walk_host(w, x, x->reg[i]), b = {.size = 0};
    if (a.size)
        b = walk_host(w, y, y->reg[i]);
    return (struct host){min_u64(a.size, b.size), a.write && b.write};
}

/* `into` becomes what is true on both ways. */
static inline void state_meet(struct walk *w, struct state *into, const struct state *st)
{
    struct host h[16] = {{.size = 0}};
    for (unsigned i = 0; i < 16; i++)
        if (into->reg[i] != st->reg[i])
            h[i] = host_meet(w, into, st, i);
    into->facts = facts_common(into->facts, st->facts);
    if (into->mem != st->mem || into->epoch != st->epoch) {
        into->mem = NULL;
        into->epoch = ++w->epochs;
    }
    for (unsigned i = 0; i < 16; i++) {
        if (into->reg[i] == st->reg[i])
            continue;
        into->reg[i] = walk_fresh(w);
        if (h[i].size) {
            host_add(w, into, into->reg[i], h[i]);
            fact_add(w, into, (struct fact){.kind = F_NONZERO, .a = into->reg[i]});
        }
    }
    if (memcmp(&into->flags, &st->flags, sizeof st->flags))
        into->flags.of = FLAGS_UNKNOWN;
    into->changed |= st->changed;
}

/* Control goes on at `at` with `st`. */
static inline void walk_to(struct walk *w, uint32_t at, const struct state *st)
{
    struct node *n = &w->node[at];
    if (n->in) {
        state_meet(w, n->in, st);
    } else {
        n->in = exprs_take(&w->x, sizeof *n->in);
        *n->in = *st;
    }
}

/* ---- memory ---- */

static inline bool overlap(uint64_t a, unsigned a_size, uint64_t b, unsigned b_size)
{
    return a < b + b_size && b < a + a_size;
}

/* Addresses in `mem` are those of one vCPU and one stack, plus constants. */
static inline bool cells_clash(const struct cell *c, const struct expr *addr, unsigned size)
{
    const struct expr *base = addr->kind == E_SUM && addr->terms == 1 ? addr->term[0].e : addr;
    uint64_t k = addr == base ? 0 : addr->k, at;
    return is_plus(c->addr, base, &at) && overlap(at, c->size, k, size);
}

static inline const struct expr *walk_load(struct walk *w, struct state *st, const struct expr *addr, unsigned size)
{
    for (const struct cell *c = st->mem; c; c = c->next)
        if (c->addr == addr && c->size == size)
            return c->val;
        else if (cells_clash(c, addr, size))
            return e_symbol(&w->x, size_max(size));
    return e_load(&w->x, addr, size, st->epoch);
}

static inline void walk_store(struct walk *w, struct state *st, const struct expr *addr, unsigned size,
                              const struct expr *val)
{
    struct cell *c = exprs_take(&w->x, sizeof *c);
    *c = (struct cell){.addr = addr, .val = val, .size = size, .next = st->mem};
    st->mem = c;
    st->changed = true;
}

/* Of what is known to be stored, what is on the stack: behind a call. */
static inline void walk_keep_stack(struct walk *w, struct state *st)
{
    const struct cell *cells[64];
    unsigned n = 0;
    uint64_t k;
    for (const struct cell *c = st->mem; c; c = c->next)
        if (is_plus(c->addr, w->stack, &k) && n < ARRAY_SIZE(cells))
            cells[n++] = c;
    st->mem = NULL;
    while (n--)
        walk_store(w, st, cells[n]->addr, cells[n]->size, cells[n]->val);
}

enum where { AT_GUEST, AT_STACK, AT_OTHER };

static inline enum where walk_access(struct walk *w, struct state *st, const struct expr *addr, unsigned size,
                                     bool write)
{
    uint64_t k;
    if (is_plus(addr, w->stack, &k)) {
        uint64_t top = 0;
        walk_check(w, w->rules->stack && is_plus(st->reg[H_SP], w->stack, &top), "the stack");
        walk_check(w, (int64_t)k >= (int64_t)top && (int64_t)(k + size) <= (write ? 0 : 8), "outside of its frame");
        return AT_STACK;
    }
    if (walk_probed(w, st, addr, size, write)) {
        st->changed |= write;
        return AT_GUEST;
    }
    walk_check(w, w->rules->memory(w, st, addr, size, write), "memory that is nobody's, or without a probe");
    return AT_OTHER;
}

#endif
