/* Private to the emitters: the translation of one block as it goes on, and the pieces it is made of.
 *
 * Flags. A guest's arithmetic flags are in the host's (`native`), in soft_vcpu.jit_flags (`saved`), in both, or, while
 * nobody will read them, in neither. jit_flags holds what LAHF and SETO made: AH is RFLAGS[7:0], AL is OF. Whoever
 * emits an instruction that spoils the host's flags says eflags_spoil() before it; flags are saved then if they are
 * still wanted. Between blocks they are saved.
 *
 * Accesses. emit_probe() turns the guest address in T_ADDR into a host address. A miss asks C for the page; if that can
 * have no TLB entry, the generic executor does the instruction as a whole and host code goes on behind it, or, at the
 * end of a block, the interpreter does. So a probe comes before anything of the instruction has happened, and one
 * instruction has any number of probes but changes nothing before the last. A probe spoils flags and T_VAL; it keeps
 * T_FLAGS.
 *
 * Scratch: T_FLAGS is also lost by eflags_load() and by eflags_spoil().
 */
#ifndef HEC_CPU_JIT_EMIT_H
#define HEC_CPU_JIT_EMIT_H

#include "cpu/jit/jit_priv.h"

struct tx;
typedef void emit_fn(struct tx *t, const struct insn *in);

/* What an instruction does to the arithmetic flags. */
enum flag_use {
    FLAGS_NONE,
    FLAGS_READ = 1, /* wants some */
    FLAGS_PART = 2, /* changes some and leaves others */
    FLAGS_SET = 4   /* changes all */
};

/* How to translate an instruction. fn NULL: the generic executor does it. */
struct how {
    emit_fn *fn;
    uint8_t flags; /* enum flag_use */
    bool faults;   /* may raise an exception; choose() knows */
    bool ends;     /* the block: nothing behind it is reached */
};

/* What to do instead: the whole instruction in C; leave before it; find the page, and without one the first of these,
 * or the second where the instruction ends the block. */
enum slow_kind { SLOW_GENERIC, SLOW_LEAVE, SLOW_REFILL };
enum { SLOW_MOST = 3 * BLOCK_MAX };

struct slow {
    uint8_t *from;   /* the jump that leads to it */
    void *resume;    /* SLOW_GENERIC, SLOW_REFILL: where to go on after the instruction */
    void *found;     /* SLOW_REFILL: where to go on with the host address */
    uint16_t access; /* SLOW_REFILL: size << 8 | enum access */
    uint16_t i;      /* instruction */
    uint8_t kind;    /* enum slow_kind */
    bool load_flags; /* SLOW_GENERIC: the code at `resume` wants them native */
};

struct tx {
    struct asm_buf a;
    struct jit *j;
    struct block *b;
    uint8_t *back; /* constants begin here (as written) */
    void *entry;   /* where the block begins (as run) */
    void *body;    /* the same behind the gate */
    unsigned n;    /* instructions that decode */
    unsigned i;    /* the one being translated */
    bool native, saved;
    bool wanted[BLOCK_MAX + 1]; /* whether the flags before an instruction are read, or shown by a fault, before they
                                   are all changed */
    unsigned slows;
    struct slow slow[SLOW_MOST];
    struct insn in[BLOCK_MAX];
    struct how how[BLOCK_MAX];
};

/* ---- choosing: one of these knows the operation, or none does ---- */
struct how how_alu(const struct insn *in);  /* emit_alu.c: add .. test, inc, dec, neg, not */
struct how how_mov(const struct insn *in);  /* emit_mov.c: moves, lea, the stack, registers among themselves */
struct how how_bit(const struct insn *in);  /* emit_bit.c: shifts, bits, multiplications */
struct how how_cond(const struct insn *in); /* emit_jump.c: setcc, cmovcc */
struct how how_flag(const struct insn *in, unsigned mode); /* emit_flag.c: pushf, cli, cld, std, clc, stc, cmc */
struct how how_jump(const struct insn *in);                /* emit_jump.c: near branches */
struct how how_lock(const struct insn *in);                /* emit_lock.c: what has LOCK, and XCHG with memory */

/* emit_alu.c, for emit_lock.c, too: the host's operation; flags in for ADC and SBB; INC, DEC, NEG or NOT with `lock` (0
 * or A_LOCK) at a register or a probed address. */
enum asm_alu alu_of(const struct insn *in);
void emit_carry_in(struct tx *t, const struct insn *in);
void emit_unary(struct tx *t, const struct insn *in, uint32_t lock, struct rm at);

static inline const struct uop *tx_uop(const struct tx *t)
{
    return &t->b->uops[t->i];
}

/* ---- flags ---- */
void eflags_spoil(struct tx *t); /* the next host instruction changes the host's flags, and not for the guest */
void eflags_load(struct tx *t);  /* make them native */
void eflags_save(struct tx *t);  /* unless they are */
void eflags_part(struct tx *t);  /* the next host instruction changes some of the guest's flags: then eflags_made() */
void eflags_made(struct tx *t);  /* the last host instruction made the guest's flags */

/* ---- registers ---- */
/* The host register that holds a guest register: its own, or `scratch` after a load. */
unsigned use_reg(struct tx *t, unsigned greg, unsigned scratch);
/* The host register to compute a guest register in, with (`load`) or without its present value; then put_reg(). */
unsigned edit_reg(struct tx *t, unsigned greg, unsigned scratch, bool load);
void put_reg(struct tx *t, unsigned greg, unsigned host);

/* The value of a register operand that is only read. AH, CH, DH and BH are copied to T_FLAGS' low byte: nothing may
 * load flags between. */
unsigned read_reg(struct tx *t, const struct opnd *o, unsigned scratch);

/* Registers and sizes that emitters may take as they are: no AH, CH, DH, BH. */
static inline bool plain_reg(const struct opnd *o)
{
    return o->kind == OPND_REG && o->reg < OPND_AH;
}

/* A memory operand that emit_address() can say. */
bool plain_mem(const struct insn *in);

/* ---- memory ---- */
/* The operand's linear address into T_ADDR. Changes no flags; loses T_VAL. */
void emit_address(struct tx *t, const struct insn *in);
/* Guest address in T_ADDR -> host address, for `size` bytes. */
void emit_probe(struct tx *t, unsigned size, enum access acc);
/* Both. */
void emit_operand(struct tx *t, const struct insn *in, unsigned size, enum access acc);
/* An operand that is only read, as the host's r/m: a register, or memory at T_ADDR behind a probe. */
struct rm emit_source(struct tx *t, const struct insn *in, const struct opnd *o);
/* Go the slow way on this condition. */
void emit_slow(struct tx *t, enum asm_cond cc, enum slow_kind kind);

/* Room for a constant, 16-byte aligned, where it is written (it runs at + a.run); the buffer may be full instead. */
void *emit_constant(struct tx *t, size_t size);

/* ---- leaving ---- */
/* To the uop `u`'s target in the same page. */
void emit_link(struct tx *t, const struct uop *u);
/* To where the block's `end` uop leads, in this page or at the next one's beginning. */
void emit_onward(struct tx *t, const struct uop *end); /* emit_jump.c */

#endif
