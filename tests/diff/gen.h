/* Private to the generator: gen.c (tests), gen_insn.c (one instruction), gen_values.c (what registers and memory hold).
 */
#ifndef DIFF_GEN_H
#define DIFF_GEN_H

#include "oracle.h"

#include <Zydis/Zydis.h>

struct rng {
    uint64_t s;
};

uint64_t rnd(struct rng *r);
/* 0 .. n-1 */
static inline unsigned rnd_n(struct rng *r, unsigned n)
{
    return (unsigned)((rnd(r) >> 32) * n >> 32);
}
static inline bool one_in(struct rng *r, unsigned n)
{
    return rnd_n(r, n) == 0;
}
/* Numbers as bugs like them: random, small, around powers of two, all ones. */
uint64_t rnd_value(struct rng *r);
void rnd_fx(struct rng *r, uint8_t fx[512], bool x87);

/* An instruction as both decoders see it. */
struct shape {
    struct insn in;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    bool known; /* Zydis knows it */
};

/* What a sequence must keep its hands off, and what it knows. */
struct seq {
    uint16_t keep;        /* registers that no instruction may write */
    uint8_t ptr, index;   /* the only registers memory operands may be made of */
    uint64_t undefined;   /* flags undefined so far */
    unsigned fixed_until; /* offset up to which a jump may skip: nothing is certainly defined before it */
    /* G_MIX */
    bool mix, sse;       /* operands may be made of RSP, too; SSE instructions are welcome */
    bool wild;           /* the pointer is at the end of the canonical addresses */
    unsigned stack_left; /* how many more may move RSP */
};

struct gen {
    struct rng rng;
    struct test *t;
    unsigned mode;   /* enum code_size */
    uint16_t fixed;  /* registers whose value is already decided */
    bool fault;      /* an operand shall lie where it faults */
    struct seq *seq; /* NULL: a single instruction */
};

/* ---- gen.c ---- */
void gen_restart(struct gen *g);
/* Random registers, flags and memory. */
void gen_fill(struct gen *g, enum group group);

/* ---- gen_seq.c ---- */
/* False: try again. */
bool seq_try(struct gen *g);
bool mix_try(struct gen *g);

/* ---- gen_insn.c ---- */
void shapes_init(void);
bool shape_decode(unsigned mode, const uint8_t *code, unsigned avail, struct shape *s);
enum group shape_group(const struct shape *s);
/* Append a random instruction of `group` to the test's code. False: try again. */
bool insn_append(struct gen *g, enum group group, struct shape *s);
/* The same, of one operation of the group. */
bool insn_append_op(struct gen *g, enum group group, unsigned op, struct shape *s);
/* Flags undefined after it, given those before; UINT64_MAX: it depends on an undefined one. */
uint64_t insn_undefined(const struct shape *s, const struct test *t, uint64_t before, bool single);

/* ---- gen_values.c ---- */
/* Put memory operands where they may be, and give the instruction's inputs interesting values. False: try again. */
bool values_settle(struct gen *g, struct shape *s, unsigned at);
/* Whether the result of a double shift is defined. */
bool shift_ok(const struct gen *g, const struct shape *s);

#endif
