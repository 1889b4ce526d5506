/* Private to cpu/jit: the code's memory, the register map, and what generated code and C say to each other. */
#ifndef HEC_CPU_JIT_JIT_PRIV_H
#define HEC_CPU_JIT_JIT_PRIV_H

#include "cpu/jit/asm.h"
#include "cpu/jit/jit.h"

#include <pthread.h>

/* Host code is led to another vCPU's blocks by the links it reads, which ThreadSanitizer doesn't see: so it is told. */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define LINKED(j)   __tsan_release(j)
#define FOLLOWED(j) __tsan_acquire(j)
#else
#define LINKED(j)   (void)(j)
#define FOLLOWED(j) (void)(j)
#endif

/* ---- registers ----
 *
 * RBP is the vCPU. RAX, R10 and R11 are scratch, RSP is the host's own stack. Eleven guest registers live in host
 * registers all through translated code, RCX, RDX and RBX in their own, for the instructions that imply them. The
 * others stay in the vCPU's struct. Flags: see emit.h.
 */
enum { H_VCPU = H_BP, T_FLAGS = H_AX, T_ADDR = H_10, T_VAL = H_11 };

/* The host register of a guest register; H_NONE: it stays in memory. */
static inline unsigned host_of(unsigned greg)
{
    static const uint8_t map[16] = {
        [RAX] = H_15, [RCX] = H_CX, [RDX] = H_DX,   [RBX] = H_BX,  [RSP] = H_14,   [RBP] = H_9,
        [RSI] = H_SI, [RDI] = H_DI, [R8] = H_8,     [R9] = H_NONE, [R10] = H_NONE, [R11] = H_NONE,
        [R12] = H_12, [R13] = H_13, [R14] = H_NONE, [R15] = H_NONE};
    return map[greg];
}

/* A field of the vCPU as an operand of host code. */
static inline struct rm vcpu_at(size_t offset)
{
    return rm_mem(H_VCPU, (int32_t)offset);
}
#define VCPU(field) vcpu_at(offsetof(struct soft_vcpu, field))
#define GPR(greg)   vcpu_at((greg) * sizeof(uint64_t))

/* ---- the code's memory: code from the front, constants and links from the back ---- */

/* How one block leads to another in the same page. Host code jumps to `code`: at first a thunk, later the other block.
 */
struct jit_link {
    void *code;          /* (a) */
    const struct uop *u; /* (c) the jump, in block `b` */
    struct block *b;
};

/* An instruction that C may be asked to do: every one that can't be done in place, or not always. */
struct jit_site {
    const struct uop *u;
    struct block *b;
    struct insn in;
};

/* How host code came back: the low bits of what it returns; above them a pointer. */
enum jit_back {
    BACK_UOP,          /* struct uop: go on with it (v->cur is its block); NULL: v->stop says why */
    BACK_FIRST,        /* the same, but it is a block's first, whose own handler enters host code again */
    BACK_LINK,         /* struct jit_link that leads nowhere yet */
    BACK_LINK_REFUSED, /* struct jit_link to a block that would not be entered */
    BACK_BLOCK,        /* struct block that is not translated; rip_bias is its own */
    BACK_REFUSED,      /* struct block that would not be entered; rip_bias is its own */
    BACK_MASK = 7
};

struct jit {
    pthread_mutex_t lock;
    uint8_t *rx, *rw;                                    /* (c) the same memory: for running, for writing */
    uint32_t heat;                                       /* (c) */
    uint32_t front;                                      /* (l) bytes of code */
    uint32_t back;                                       /* (l) where constants begin */
    uint32_t thunks;                                     /* (c) bytes of code that belong to no block */
    _Atomic bool full;                                   /* (a) */
    uintptr_t (*enter)(struct soft_vcpu *v, void *body); /* (c) */
    /* (c) thunks, as jumped to by blocks */
    void *leave;        /* RAX: what to return */
    void *leave_uop;    /* RAX: uop, R10: its block */
    void *go_rip;       /* RAX: RIP of a block that the jump cache does not know; this one is done */
    void *refuse;       /* R10: block, R11: the link that led to it or 0 */
    void *unlinked;     /* R11: link */
    void *untranslated; /* R10: block */
    void *generic;      /* called; RAX: site */
    void *refill; /* called. T_ADDR: guest address, EAX: size << 8 | enum access. T_ADDR: host address; ZF: there is
                     none */
};

/* thunk.c: fill in the thunks; the memory is empty. False: no room. */
bool jit_make_thunks(struct jit *j);
/* translate.c: the host code of a block, or nothing if there is no room (`full` is set). Under the lock. */
void jit_translate(struct jit *j, struct block *b, const struct ram *ram);

/* ---- glue.c: called by host code ---- */

/* The host address of a guest address that a probe missed (`how`: size << 8 | enum access), or NULL: jit_generic() then
 * does the instruction. Changes no register. */
uint8_t *jit_refill(struct soft_vcpu *v, gva_t gva, unsigned how);
/* Do the site's instruction. False: the block is left, v->stop is set. */
bool jit_generic(struct soft_vcpu *v, const struct jit_site *s);

uop_fn op_heat, op_jit;

#endif
