/* The uop: one guest instruction as the interpreter runs it, and how its handlers are written.
 *
 * A handler does its instruction and continues with the next uop by a tail call (HEC_THREADED: gcc -O2, no sanitizer),
 * or returns it to the loop in run.c (any other build); NEXT() is the one difference. NULL goes back to the dispatcher,
 * with v->stop saying why.
 *
 * Hot handlers keep no frame: what may call out is in the handler's _slow twin, which is the same text compiled with
 * SLOW = 1. The hot text leaves for the twin, before it has changed anything, when a TLB probe misses or the address is
 * not the plain kind (AF_SLOW).
 *
 * Registers are named by their byte offset in struct soft_vcpu: `zero` stands for a missing base or index, rip_bias is
 * the base of a RIP-relative operand (the displacement is then from the page's start), a segment's base may be the
 * index.
 */
#ifndef HEC_CPU_SOFT_UOP_H
#define HEC_CPU_SOFT_UOP_H

#include "cpu/soft/flags.h"
#include "cpu/soft/mmu.h"

#ifndef HEC_THREADED
#define HEC_THREADED 0
#endif

struct uop;
typedef const struct uop *uop_fn(struct soft_vcpu *v, const struct uop *u);

struct uop {
    uop_fn *fn;
    union {
        uint64_t imm;
        const struct insn *in;        /* cold: points into the block */
        _Atomic(struct block *) link; /* jumps: the block they lead to, once known */
    };
    int32_t disp;         /* of the memory operand; jumps: of the target, from the instruction's end */
    uint16_t base, index; /* offsets of 8-byte values */
    uint8_t dst,
        src;       /* offsets of registers (AH.. one past their word); src of jcc, setcc, cmov from memory: condition */
    uint8_t scale; /* shift; cmov from a register: condition */
    uint8_t aflags; /* enum uop_aflag */
    uint16_t off;   /* of the instruction in its page */
    uint8_t len;
    uint8_t left; /* instructions of the block from this one on */
};
_Static_assert(sizeof(struct uop) == 32, "two uops a cache line");

enum uop_aflag {
    AF_MASK32 = 1, /* the offset wraps at 4 GiB */
    AF_MASK16 = 2,
    AF_SEG = 4,  /* not flat: limits and rights are checked */
    AF_BASE = 8, /* 64-bit FS or GS with an index: add the base */
    AF_SLOW = 15,
    AF_SEG_SHIFT = 4 /* enum cpu_seg in bits 4..6, always set */
};

enum { PAUSES_MOST = 32 }; /* of one quantum: the last one leaves the vCPU */

/* v->stop: why a handler returned NULL. Except for STOP_FAULT st.rip is the next instruction's. */
enum uop_stop {
    STOP_LOOKUP, /* go on at st.rip */
    STOP_FAULT,  /* v->fault, at st.rip */
    STOP_LEAVE   /* leave vcpu_run(): run->exit is set */
};

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define COLD          __attribute__((noinline, cold))

#if HEC_THREADED
#define TAIL(u) return (u)->fn(v, (u))
/* The empty asm makes gcc advance u in place and jump through memory, instead of juggling two registers. */
#define NEXT()                                                                                                         \
    do {                                                                                                               \
        u++;                                                                                                           \
        __asm__("" : "+r"(u));                                                                                         \
        TAIL(u);                                                                                                       \
    } while (0)
#else
#define TAIL(u) return (u)
#define NEXT()  TAIL(u + 1)
#endif

/* ---- registers ---- */
#define REG(T, o) (*(T *)((char *)v + (o)))
#define R64(o)    REG(uint64_t, o)

#define LOG2_uint8_t  0
#define LOG2_uint16_t 1
#define LOG2_uint32_t 2
#define LOG2_uint64_t 3
#define SHIFT(T)      (64 - 8 * (unsigned)sizeof(T))

/* Writes of 1 and 2 bytes merge and store the whole register, so that a following read of it is forwarded. `o` is never
 * one of AH, CH, DH, BH here. */
#define PUT_uint8_t(o, x)  (R64(o) = (R64(o) & ~UINT64_C(0xff)) | (uint8_t)(x))
#define PUT_uint16_t(o, x) (R64(o) = (R64(o) & ~UINT64_C(0xffff)) | (uint16_t)(x))
#define PUT_uint32_t(o, x) (R64(o) = (uint32_t)(x))
#define PUT_uint64_t(o, x) (R64(o) = (x))

/* ---- guest RAM by host pointer ---- */
#define LD(T, p)    ((T)guest_ld((p), sizeof(T)))
#define ST(T, p, x) guest_st((p), sizeof(T), (x))

/* ---- memory operands ---- */
/* Address of the operand in the plain case. */
#define EA_FLAT() (R64(u->base) + (R64(u->index) << u->scale) + (uint64_t)(int64_t)u->disp)
/* In every case; into v->tmp. False: v->fault. Slow twins only. */
bool uop_address(struct soft_vcpu *v, const struct uop *u, unsigned size, unsigned acc);
/* A load by linear address into v->tmp, counting block_left; false: v->fault. */
bool uop_load_slow(struct soft_vcpu *v, const struct uop *u, gva_t gva, unsigned size);
bool uop_store_slow(struct soft_vcpu *v, const struct uop *u, gva_t gva, unsigned size, uint64_t val);
/* As uop_load_slow(), but checks for the right to write first: the first half of a read-modify-write. */
bool uop_rmw_slow(struct soft_vcpu *v, const struct uop *u, gva_t gva, unsigned size);

/* ---- ways back to the dispatcher ---- */
/* v->fault at this instruction. */
const struct uop *uop_fault(struct soft_vcpu *v, const struct uop *u);
/* The same after a failed memory operand: a non-canonical stack address is #SS(0). */
const struct uop *uop_mem_fault(struct soft_vcpu *v, const struct uop *u);
/* The same after a failed push or pop of 64-bit code. */
const struct uop *uop_stack_fault(struct soft_vcpu *v, const struct uop *u);
/* This instruction is done and was the block's last: a store hit the block itself. */
const struct uop *uop_done(struct soft_vcpu *v, const struct uop *u);
/* At `rip` a new block starts; this instruction (done) ends the old one. */
const struct uop *uop_goto(struct soft_vcpu *v, uint64_t rip);
/* Fold the lazy flags and do this uop again: for handlers that meet a kind they don't read themselves. */
const struct uop *uop_fold(struct soft_vcpu *v, const struct uop *u);
/* A jump whose link can't be entered: unknown, dead, out of budget, or somebody wants attention. */
const struct uop *uop_link_slow(struct soft_vcpu *v, const struct uop *u);

/* Do `u`'s instruction, decoded as `in`, by its generic executor. False: the block is left as a handler that returns
 * NULL leaves it. */
bool uop_execute(struct soft_vcpu *v, const struct uop *u, const struct insn *in);

/* RIP has 32 bits outside 64-bit mode (past the segment's limit the fetch says #GP). */
static inline uint64_t rip_wrap(const struct soft_vcpu *v, uint64_t rip)
{
    return (v->mode & MODE_CODE) == CODE64 ? rip : (uint32_t)rip;
}

static inline uint64_t uop_rip(const struct soft_vcpu *v, const struct uop *u)
{
    return rip_wrap(v, v->rip_bias + u->off);
}

/* A handler and its slow twin. The body uses LOAD and friends, and `u`, `v`. */
#define HANDLER(name) const struct uop *name(struct soft_vcpu *v, const struct uop *u)
#define MEM_HANDLER(name, ...)                                                                                         \
    COLD static HANDLER(name##_slow)                                                                                   \
    {                                                                                                                  \
        enum { SLOW = 1 };                                                                                             \
        uop_fn *const slow = NULL;                                                                                     \
        (void)slow;                                                                                                    \
        __VA_ARGS__                                                                                                    \
    }                                                                                                                  \
    static HANDLER(name)                                                                                               \
    {                                                                                                                  \
        enum { SLOW = 0 };                                                                                             \
        uop_fn *const slow = name##_slow;                                                                              \
        __VA_ARGS__                                                                                                    \
    }

#define ADDRESS(gva, size, acc)                                                                                        \
    gva_t gva;                                                                                                         \
    if (!SLOW) {                                                                                                       \
        if (unlikely(u->aflags & AF_SLOW))                                                                             \
            return slow(v, u);                                                                                         \
        gva = EA_FLAT();                                                                                               \
    } else {                                                                                                           \
        if (!uop_address(v, u, size, acc))                                                                             \
            return uop_fault(v, u);                                                                                    \
        gva = v->tmp;                                                                                                  \
    }

/* One compare; the host address is only formed on a hit. */
#define PROBE(e, off, bank, gva)                                                                                       \
    const struct tlb_entry *e = &v->tlb->bank[(gva) >> 12 & (TLB_SIZE - 1)];                                           \
    const uint64_t off = (gva) ^ e->tag
#define HIT(off, T) likely((off) <= 4096 - sizeof(T))

#define LOAD_AT(T, x, gva)                                                                                             \
    T x;                                                                                                               \
    {                                                                                                                  \
        PROBE(e_, off_, r, gva);                                                                                       \
        if (HIT(off_, T)) {                                                                                            \
            x = LD(T, e_->host + off_);                                                                                \
        } else {                                                                                                       \
            if (!SLOW)                                                                                                 \
                return slow(v, u);                                                                                     \
            if (!uop_load_slow(v, u, gva, sizeof(T)))                                                                  \
                return uop_mem_fault(v, u);                                                                            \
            x = (T)v->tmp;                                                                                             \
        }                                                                                                              \
    }

#define LOAD(T, x)                                                                                                     \
    ADDRESS(gva_, sizeof(T), ACC_READ)                                                                                 \
    LOAD_AT(T, x, gva_)

#define STORE_AT(T, gva, x)                                                                                            \
    {                                                                                                                  \
        PROBE(e_, off_, w, gva);                                                                                       \
        if (HIT(off_, T)) {                                                                                            \
            ST(T, e_->host + off_, x);                                                                                 \
        } else {                                                                                                       \
            if (!SLOW)                                                                                                 \
                return slow(v, u);                                                                                     \
            if (!uop_store_slow(v, u, gva, sizeof(T), x))                                                              \
                return uop_mem_fault(v, u);                                                                            \
        }                                                                                                              \
    }

#define STORE(T, x)                                                                                                    \
    ADDRESS(gva_, sizeof(T), ACC_WRITE)                                                                                \
    STORE_AT(T, gva_, x)

/* Read-modify-write: RMW_LOAD declares `x`; RMW_STORE can't fault. */
#define RMW_LOAD(T, x)                                                                                                 \
    ADDRESS(gva_, sizeof(T), ACC_WRITE)                                                                                \
    T x;                                                                                                               \
    PROBE(rmw_e_, rmw_off_, w, gva_);                                                                                  \
    uint8_t *rmw_ = NULL;                                                                                              \
    if (HIT(rmw_off_, T)) {                                                                                            \
        rmw_ = rmw_e_->host + rmw_off_;                                                                                \
        x = LD(T, rmw_);                                                                                               \
    } else {                                                                                                           \
        if (!SLOW)                                                                                                     \
            return slow(v, u);                                                                                         \
        if (!uop_rmw_slow(v, u, gva_, sizeof(T)))                                                                      \
            return uop_mem_fault(v, u);                                                                                \
        x = (T)v->tmp;                                                                                                 \
    }

#define RMW_STORE(T, x)                                                                                                \
    if (!SLOW || rmw_)                                                                                                 \
        ST(T, rmw_, x);                                                                                                \
    else if (!uop_store_slow(v, u, gva_, sizeof(T), x))                                                                \
        return uop_mem_fault(v, u);

/* After a store: it may have hit this very block (only the slow way leads to pages with code). */
#define NEXT_STORED()                                                                                                  \
    if (SLOW && unlikely(v->smc))                                                                                      \
        return uop_done(v, u);                                                                                         \
    NEXT()

/* ---- the jump cache: linear RIP -> block, for supervisor and for user code ---- */
#if HEC_HOSTILE
#define JUMP_BITS 2
#else
#define JUMP_BITS 10
#endif
#define JUMP_SLOTS (1 << JUMP_BITS)

/* An empty entry holds an RIP of another slot, so no RIP that selects this one ever finds it. */
struct jump_entry {
    uint64_t rip;
    struct block *b;
};
#define JUMP_EMPTY(slot) ((slot) ^ 1)

static inline unsigned jump_slot(uint64_t rip)
{
    return (unsigned)(rip ^ rip >> JUMP_BITS) & (JUMP_SLOTS - 1);
}

/* ---- tables: the handler of an operation, form and size (log2), or NULL: the generic executor does it ---- */
enum uop_form { FORM_RR, FORM_RI, FORM_RM, FORM_MR, FORM_MI, FORM_COUNT };

uop_fn *uop_alu(unsigned op, enum uop_form form, unsigned log2); /* uop_alu.c */
uop_fn *uop_unary(unsigned op, bool mem, unsigned log2);         /* inc dec neg not */
uop_fn *uop_fused(unsigned op, enum uop_form form, unsigned log2,
                  unsigned cond);                                 /* uop_fuse.c: with the jcc after it */
uop_fn *uop_mov(enum uop_form form, unsigned log2, bool indexed); /* uop_mov.c */
uop_fn *uop_extend(bool sign, bool mem, unsigned from, unsigned to);
uop_fn *uop_shift(unsigned op, bool by_cl, unsigned log2);          /* uop_bit.c: on a register */
uop_fn *uop_bits(unsigned op, enum uop_form form, unsigned log2);   /* bt.. bsf.. popcnt, imul, on registers */
uop_fn *uop_misc(unsigned op, bool mem, unsigned log2);             /* uop_mov.c: lea push pop xchg cbw cwd bswap .. */
uop_fn *uop_locked(unsigned op, enum uop_form form, unsigned log2); /* uop_atomic.c */
uop_fn *uop_cond(unsigned op, bool mem, unsigned log2, unsigned cond); /* uop_jump.c: jcc setcc cmovcc */

uop_fn op_nop, op_pause, op_cold, op_bad, op_end, op_jmp, op_jmp_far, op_jmp_reg, op_jmp_mem, op_call, op_call_reg,
    op_call_mem, op_ret, op_ret_imm;

/* Executor of any operation. */
exec_fn *exec_of(unsigned op);

#endif
