/* What one host instruction does to what is known (jit_walk.h), and walk_run(), which follows code from its beginnings
 * to where it leaves. Instructions that are not in `allowed` fail the test: whoever emits a new one adds it, and says
 * here what follows from it if anything is to be known behind it. SDM 2, the instructions' own pages. */
#ifndef HEC_TESTS_JIT_STEP_H
#define HEC_TESTS_JIT_STEP_H

#include "jit_walk.h"

/* One instruction with its operands; code of ours has one in memory at most. */
struct step {
    struct walk *w;
    struct state *st;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    const struct expr *addr; /* of the operand in memory, or what LEA makes */
    enum where where;
    int mem; /* which one it is; -1: none */
};

/* ---- what may occur ---- */

static inline bool is_allowed(ZydisMnemonic name, bool stack)
{
    static const uint16_t allowed[] = {
        ZYDIS_MNEMONIC_MOV,        ZYDIS_MNEMONIC_MOVZX,  ZYDIS_MNEMONIC_MOVSX,   ZYDIS_MNEMONIC_MOVSXD,
        ZYDIS_MNEMONIC_LEA,        ZYDIS_MNEMONIC_ADD,    ZYDIS_MNEMONIC_OR,      ZYDIS_MNEMONIC_ADC,
        ZYDIS_MNEMONIC_SBB,        ZYDIS_MNEMONIC_AND,    ZYDIS_MNEMONIC_SUB,     ZYDIS_MNEMONIC_XOR,
        ZYDIS_MNEMONIC_CMP,        ZYDIS_MNEMONIC_TEST,   ZYDIS_MNEMONIC_INC,     ZYDIS_MNEMONIC_DEC,
        ZYDIS_MNEMONIC_NEG,        ZYDIS_MNEMONIC_NOT,    ZYDIS_MNEMONIC_ROL,     ZYDIS_MNEMONIC_ROR,
        ZYDIS_MNEMONIC_RCL,        ZYDIS_MNEMONIC_RCR,    ZYDIS_MNEMONIC_SHL,     ZYDIS_MNEMONIC_SHR,
        ZYDIS_MNEMONIC_SAR,        ZYDIS_MNEMONIC_SHLD,   ZYDIS_MNEMONIC_SHRD,    ZYDIS_MNEMONIC_BT,
        ZYDIS_MNEMONIC_BTS,        ZYDIS_MNEMONIC_BTR,    ZYDIS_MNEMONIC_BTC,     ZYDIS_MNEMONIC_BSF,
        ZYDIS_MNEMONIC_BSR,        ZYDIS_MNEMONIC_POPCNT, ZYDIS_MNEMONIC_IMUL,    ZYDIS_MNEMONIC_MUL,
        ZYDIS_MNEMONIC_BSWAP,      ZYDIS_MNEMONIC_CDQ,    ZYDIS_MNEMONIC_CQO,     ZYDIS_MNEMONIC_XCHG,
        ZYDIS_MNEMONIC_XADD,       ZYDIS_MNEMONIC_LAHF,   ZYDIS_MNEMONIC_CMPXCHG, ZYDIS_MNEMONIC_CMPXCHG8B,
        ZYDIS_MNEMONIC_CMPXCHG16B, ZYDIS_MNEMONIC_SAHF,   ZYDIS_MNEMONIC_MFENCE,  ZYDIS_MNEMONIC_JMP,
        ZYDIS_MNEMONIC_CALL,       ZYDIS_MNEMONIC_CLC,    ZYDIS_MNEMONIC_STC,     ZYDIS_MNEMONIC_CMC,
        ZYDIS_MNEMONIC_DIV,
    };
    if (name == ZYDIS_MNEMONIC_PUSH || name == ZYDIS_MNEMONIC_POP || name == ZYDIS_MNEMONIC_RET)
        return stack;
    for (unsigned i = 0; i < ARRAY_SIZE(allowed); i++)
        if (allowed[i] == name)
            return true;
    return false;
}

static inline bool is_conditional(const ZydisDecodedInstruction *z)
{
    bool near = z->opcode_map == ZYDIS_OPCODE_MAP_0F && (z->opcode & 0xf0) == 0x80; /* Jcc: not JRCXZ, not LOOP */
    bool kept = z->meta.category == ZYDIS_CATEGORY_SETCC || z->meta.category == ZYDIS_CATEGORY_CMOV;
    return near || kept;
}

static inline void check_kind(const struct step *s)
{
    const ZyanU64 odd =
        ZYDIS_ATTRIB_HAS_SEGMENT | ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
    bool legacy = s->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
    bool known = is_allowed(s->z.mnemonic, s->w->rules->stack) || is_conditional(&s->z);
    walk_check(s->w, known, "an instruction that has no business here");
    walk_check(s->w, legacy && s->z.address_width == 64 && !(s->z.attributes & odd), "a prefix");
}

/* ---- registers ---- */

static inline unsigned host_id(const struct step *s, ZydisRegister r)
{
    ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);
    walk_check(s->w, ZydisRegisterGetClass(whole) == ZYDIS_REGCLASS_GPR64, "a register of another kind");
    return (unsigned)ZydisRegisterGetId(whole);
}

static inline bool is_general(const ZydisDecodedOperand *o)
{
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(o->reg.value) != ZYDIS_REGCLASS_FLAGS &&
           ZydisRegisterGetClass(o->reg.value) != ZYDIS_REGCLASS_IP;
}

/* RSP and RBP are nobody's but the thunks'; as a base of addresses anybody's, which the address then shows. */
static inline void check_registers(const struct step *s)
{
    for (unsigned i = 0; i < s->z.operand_count && !s->w->rules->stack; i++)
        if (is_general(&s->ops[i]) && s->z.mnemonic != ZYDIS_MNEMONIC_CALL) {
            unsigned r = host_id(s, s->ops[i].reg.value);
            walk_check(s->w, r != H_SP && r != H_BP, "RSP or RBP");
        }
}

static inline const struct expr *read_register(const struct step *s, ZydisRegister r)
{
    bool high = r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH;
    unsigned bits = ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, r);
    const struct expr *e = s->st->reg[host_id(s, r)];
    if (high)
        return e_symbol(&s->w->x, 0xff);
    return bits == 64 ? e : bits == 32 ? e_low32(&s->w->x, e) : e_and(&s->w->x, e, size_max(bits / 8));
}

static inline void write_register(const struct step *s, ZydisRegister r, const struct expr *val)
{
    unsigned bits = ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, r);
    struct exprs *x = &s->w->x;
    s->st->reg[host_id(s, r)] = bits == 64 ? val : bits == 32 ? e_low32(x, val) : walk_fresh(s->w);
}

/* ---- memory ---- */

static inline const struct expr *address_part(const struct step *s, ZydisRegister r)
{
    if (r == ZYDIS_REGISTER_NONE)
        return e_const(&s->w->x, 0);
    if (r == ZYDIS_REGISTER_RIP)
        return e_pointer(&s->w->x, s->w->code + s->w->pc + s->z.length);
    walk_check(s->w, s->w->rules->stack || host_id(s, r) != H_SP, "RSP");
    return s->st->reg[host_id(s, r)];
}

static inline const struct expr *address_of_operand(const struct step *s, const ZydisDecodedOperand *o)
{
    struct exprs *x = &s->w->x;
    const struct expr *e = e_plus(x, address_part(s, o->mem.base), (uint64_t)o->mem.disp.value);
    return o->mem.index == ZYDIS_REGISTER_NONE ? e : e_add(x, e, address_part(s, o->mem.index), o->mem.scale);
}

/* Atomic ones must not be split, and CMPXCHG16B faults if they are. */
static inline bool must_be_aligned(const struct step *s)
{
    return s->z.attributes & ZYDIS_ATTRIB_HAS_LOCK || s->z.mnemonic == ZYDIS_MNEMONIC_XCHG ||
           s->z.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B;
}

static inline void check_memory(struct step *s, unsigned i)
{
    const ZydisDecodedOperand *o = &s->ops[i];
    unsigned size = o->size / 8;
    bool bits = s->z.mnemonic >= ZYDIS_MNEMONIC_BT && s->z.mnemonic <= ZYDIS_MNEMONIC_BTS;
    walk_check(s->w, s->mem < 0, "two operands in memory");
    s->mem = (int)i;
    s->addr = address_of_operand(s, o);
    if (o->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
        return;
    walk_check(s->w, o->mem.type == ZYDIS_MEMOP_TYPE_MEM && size, "an operand of another kind");
    walk_check(s->w, !bits || s->ops[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE, "a bit anywhere around the operand");
    s->where = walk_access(s->w, s->st, s->addr, size, o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
    if (s->where == AT_GUEST && size > 1 && must_be_aligned(s)) {
        const struct expr *low = e_and(&s->w->x, s->addr, size - 1);
        walk_check(s->w, fact_equal(s->st, low, e_const(&s->w->x, 0)), "an atomic access that may be split");
    }
}
_Static_assert(ZYDIS_MNEMONIC_BTS == ZYDIS_MNEMONIC_BT + 3, "BT, BTC, BTR, BTS");

/* ---- operands ---- */

static inline const struct expr *read_operand(const struct step *s, unsigned i)
{
    const ZydisDecodedOperand *o = &s->ops[i];
    struct exprs *x = &s->w->x;
    unsigned size = s->ops[0].size / 8;
    switch (o->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        return read_register(s, o->reg.value);
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        return e_const(x, o->imm.value.u & size_max(size));
    case ZYDIS_OPERAND_TYPE_MEMORY:
        return s->where == AT_GUEST ? e_symbol(x, size_max(o->size / 8)) : walk_load(s->w, s->st, s->addr, o->size / 8);
    default:
        walk_bad(s->w, "an operand of another kind");
        return NULL;
    }
}

static inline void write_operand(const struct step *s, unsigned i, const struct expr *val)
{
    const ZydisDecodedOperand *o = &s->ops[i];
    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && s->where != AT_GUEST)
        walk_store(s->w, s->st, s->addr, o->size / 8, o->size == 64 ? val : e_symbol(&s->w->x, size_max(o->size / 8)));
    else if (is_general(o))
        write_register(s, o->reg.value, val);
}

static inline const struct expr *e_and_any(struct exprs *x, const struct expr *a, const struct expr *b)
{
    return a == b ? a : is_const(b) ? e_and(x, a, b->k) : e_symbol(x, a->max < b->max ? a->max : b->max);
}

/* What instructions make of two operands, if anybody needs to know. */
static inline const struct expr *result_of(const struct step *s, const struct expr *a, const struct expr *b)
{
    struct exprs *x = &s->w->x;
    switch (s->z.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVZX:
        return b;
    case ZYDIS_MNEMONIC_LEA:
        return s->addr;
    case ZYDIS_MNEMONIC_ADD:
        return e_add(x, a, b, 1);
    case ZYDIS_MNEMONIC_SUB:
        return e_add(x, a, b, ~UINT64_C(0));
    case ZYDIS_MNEMONIC_XOR:
        return e_xor(x, a, b);
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_TEST:
        return e_and_any(x, a, b);
    case ZYDIS_MNEMONIC_SHR:
        return is_const(b) ? e_shr(x, a, b->k & (s->z.operand_width == 64 ? 63 : 31)) : walk_fresh(s->w);
    case ZYDIS_MNEMONIC_SHL:
        return is_const(b) ? e_times(x, a, UINT64_C(1) << (b->k & (s->z.operand_width == 64 ? 63 : 31)))
                           : walk_fresh(s->w);
    default:
        return walk_fresh(s->w);
    }
}

static inline void set_flags(const struct step *s, const struct expr *a, const struct expr *b, const struct expr *res)
{
    struct flags f = {.of = FLAGS_UNKNOWN, .size = s->ops[0].size / 8};
    const ZydisAccessedFlags *z = s->z.cpu_flags;
    if (!z || !(z->modified | z->set_0 | z->set_1 | z->undefined))
        return;
    if (s->z.mnemonic == ZYDIS_MNEMONIC_CMP || s->z.mnemonic == ZYDIS_MNEMONIC_SUB)
        f = (struct flags){FLAGS_CMP, f.size, a, b};
    else if (s->z.mnemonic == ZYDIS_MNEMONIC_TEST || s->z.mnemonic == ZYDIS_MNEMONIC_AND)
        f = (struct flags){FLAGS_RESULT, f.size, res, NULL};
    s->st->flags = f;
}

/* DIV raises no #DE if the upper half of what it divides is below the divisor, which doesn't change meanwhile. */
static inline void check_division(const struct step *s)
{
    unsigned size = s->z.operand_width;
    walk_check(s->w, size >= 32 && s->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER, "a division of another kind");
    const struct expr *by = read_operand(s, 0);
    const struct expr *upper = read_register(s, size == 64 ? ZYDIS_REGISTER_RDX : ZYDIS_REGISTER_EDX);
    walk_check(s->w, fact_of(s->st, F_LESS, upper, by), "a division that may fault");
}

/* Anything but control. */
static inline void compute(const struct step *s)
{
    const struct expr *a = NULL, *b = NULL, *res;
    bool two = s->z.operand_count_visible == 2;
    if (s->z.mnemonic == ZYDIS_MNEMONIC_DIV)
        check_division(s);
    if (two && s->ops[0].type != ZYDIS_OPERAND_TYPE_UNUSED && s->z.mnemonic != ZYDIS_MNEMONIC_LEA) {
        a = read_operand(s, 0);
        b = read_operand(s, 1);
    }
    res = two && (a || s->z.mnemonic == ZYDIS_MNEMONIC_LEA) ? result_of(s, a, b) : walk_fresh(s->w);
    set_flags(s, a, b, res);
    for (unsigned i = 0; i < s->z.operand_count; i++)
        if (s->ops[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
            write_operand(s, i, i ? walk_fresh(s->w) : res);
}

/* ---- control ---- */

static inline void goes_to(struct walk *w, int32_t at, struct state *st)
{
    if (w->node[at].root && w->rules->falls_into)
        w->rules->falls_into(w, st, (uint32_t)at);
    walk_to(w, (uint32_t)at, st);
}

static inline void jump(struct step *s, bool conditional)
{
    struct walk *w = s->w;
    const struct node *n = &w->node[w->pc];
    const ZydisDecodedOperand *o = &s->ops[0];
    struct state st = *s->st;
    if (conditional)
        branch_facts(w, &st, s->z.mnemonic, true);
    if (n->next[1] >= 0)
        goes_to(w, n->next[1], &st);
    else if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        w->rules->out(w, &st, OUT_JUMP, e_pointer(&w->x, w->code + w->pc + s->z.length + o->imm.value.s));
    else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
        w->rules->out(w, &st, OUT_THROUGH_MEM, s->addr);
    else
        w->rules->out(w, &st, OUT_THROUGH_REG, read_operand(s, 0));
    if (conditional)
        branch_facts(w, s->st, s->z.mnemonic, false);
}

static inline void call(struct step *s)
{
    const ZydisDecodedOperand *o = &s->ops[0];
    struct exprs *x = &s->w->x;
    walk_check(s->w, o->type != ZYDIS_OPERAND_TYPE_MEMORY, "a call through memory");
    bool near = o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    s->w->rules->out(s->w, s->st, OUT_CALL,
                     near ? e_pointer(x, s->w->code + s->w->pc + s->z.length + o->imm.value.s) : read_operand(s, 0));
}

static inline void push(struct step *s)
{
    struct walk *w = s->w;
    const struct expr *val = read_operand(s, 0);
    s->st->reg[H_SP] = e_plus(&w->x, s->st->reg[H_SP], (uint64_t)-8);
    walk_access(w, s->st, s->st->reg[H_SP], 8, true);
    walk_store(w, s->st, s->st->reg[H_SP], 8, val);
}

static inline void pop(struct step *s)
{
    struct walk *w = s->w;
    const struct expr *at = s->st->reg[H_SP];
    walk_access(w, s->st, at, 8, false);
    write_register(s, s->ops[0].reg.value, walk_load(w, s->st, at, 8));
    s->st->reg[H_SP] = e_plus(&w->x, at, 8);
}

/* PUSH, POP, RET and CALL: what they do to the stack is not an operand here. */
static inline bool implies_stack(const struct step *s)
{
    return s->z.mnemonic == ZYDIS_MNEMONIC_PUSH || s->z.mnemonic == ZYDIS_MNEMONIC_POP ||
           s->z.mnemonic == ZYDIS_MNEMONIC_RET || s->z.mnemonic == ZYDIS_MNEMONIC_CALL;
}

static inline void walk_control(struct step *s)
{
    switch (s->z.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        push(s);
        break;
    case ZYDIS_MNEMONIC_POP:
        pop(s);
        break;
    case ZYDIS_MNEMONIC_CALL:
        call(s);
        break;
    case ZYDIS_MNEMONIC_RET:
        walk_check(s->w, s->z.operand_count_visible == 0, "RET with an operand");
        s->w->rules->out(s->w, s->st, OUT_RET, NULL);
        break;
    default:
        jump(s, s->z.meta.category == ZYDIS_CATEGORY_COND_BR);
    }
}

/* The instruction at w->pc, with all ways on. */
static inline void walk_step(struct walk *w, struct state *st)
{
    struct step s = {.w = w, .st = st, .mem = -1};
    const struct node *n = &w->node[w->pc];
    ZydisDecoderDecodeFull(&w->dec, w->code + w->pc, n->len, &s.z, s.ops);
    check_kind(&s);
    check_registers(&s);
    for (unsigned i = 0; i < s.z.operand_count && !implies_stack(&s); i++)
        if (s.ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            check_memory(&s, i);
    bool jumps = s.z.meta.category == ZYDIS_CATEGORY_COND_BR || s.z.meta.category == ZYDIS_CATEGORY_UNCOND_BR;
    if (jumps || implies_stack(&s))
        walk_control(&s);
    else
        compute(&s);
    if (n->next[0] >= 0)
        goes_to(w, n->next[0], st);
    w->instructions++;
}

/* ---- all of it ---- */

struct root {
    uint32_t at;
    struct state st;
};

/* Code that is entered at the roots, of what walk_begin() has named. */
static inline void walk_run(struct walk *w, struct root *roots, unsigned n)
{
    w->n = 0;
    memset(w->node, 0, w->size * sizeof w->node[0]);
    for (unsigned i = 0; i < n; i++)
        walk_ways(w, roots[i].at);
    for (unsigned i = 0; i < n; i++) {
        w->node[roots[i].at].root = true;
        walk_to(w, roots[i].at, &roots[i].st);
    }
    for (uint32_t i = w->n; i-- > 0;) {
        w->pc = w->order[i];
        walk_step(w, w->node[w->pc].in);
    }
}

#endif
