/* The native oracle: random instructions run on the host's CPU and in the interpreter, and everything the instruction
 * set defines about the outcome must be equal.
 *
 * A test is up to CODE_MAX bytes of code with a register file, flags, and two stretches of memory. It ends in INT3 or
 * in the first exception; both are outcomes to compare. Tests go in batches: a child process runs them natively
 * (native.c), the guest's little kernel (guest.S) runs them in the engine, through the public engine interface only
 * (guest.c).
 *
 * What the manuals leave undefined is masked: flags by Zydis' tables (gen.c), the rest by not generating it.
 */
#ifndef DIFF_ORACLE_H
#define DIFF_ORACLE_H

#include "layout.h"

#include "base/bits.h"
#include "cpu/soft/decode.h"
#include "cpu/state.h"

#include <stdio.h>

enum group {
    G_ALU,
    G_MOV,
    G_SHIFT,
    G_BIT,
    G_MULDIV,
    G_STACK_OPS,
    G_BRANCH,
    G_STRING,
    G_ATOMIC,
    G_MISC,
    G_PRIV,
    G_SSE,
    G_X87,
    G_SEQ,
    G_BCD, /* what exists in 32-bit code only */
    G_MIX, /* 64-bit code only */
    G_COUNT
};

enum { GROUPS32 = 32 }; /* a group's number + GROUPS32: the same in 32-bit code */

/* NULL: no such group. */
const char *group_name(unsigned number);

static inline unsigned code_mode(uint32_t kind)
{
    return kind & KIND_32 ? CODE32 : CODE64;
}

enum { RF_CF_BIT = 1 };
enum { DATA_LEN = WINDOW_LEN + TAIL_LEN, MAX_INSNS = 12, MAX_ROUNDS = 4, VEC_HANG = 255, VEC_DIED = 254 };

struct outcome {
    uint64_t gpr[16];
    uint64_t rflags, rip, vec, err, cr2;
};

struct test {
    uint64_t gpr[16];
    uint64_t rflags, rip;
    uint32_t kind; /* KIND_* */
    uint32_t code_len;
    uint64_t undefined; /* flags that may differ */
    struct outcome r;
    uint64_t undefined_mid;                   /* flags that may differ if the test ended before its last instruction */
    uint8_t data[DATA_LEN], r_data[DATA_LEN]; /* window, tail */
    uint8_t fx[512], r_fx[512];               /* FXSAVE images */
    uint8_t code[64];
    uint8_t insn_len[MAX_INSNS], insns;
    uint8_t group;
    uint8_t pad1[2];
    uint64_t seed;
    uint8_t pad2[T_SIZE - 2600];
} __attribute__((aligned(64)));

/* What a test leaves behind, on either side. */
struct result {
    struct outcome r;
    uint8_t data[DATA_LEN];
    uint8_t fx[512];
};

/* ---- gen.c ---- */
void gen_init(void);
/* A test of `group` (+ GROUPS32), wholly determined by `seed`; `slot` says where its code will stand. */
void gen_test(struct test *t, unsigned group, uint64_t seed, unsigned slot);
/* Set t->undefined, t->kind from the code. False: not a test we could judge (used by the minimiser and the corpus). */
bool gen_judge(struct test *t);
/* Groups the host's CPU cannot run (no such extension). */
bool gen_supported(unsigned group);

/* ---- native.c ---- */
struct native;
int native_open(struct native **out);
void native_close(struct native *n);
/* The child's view of the tests; the caller fills it, native_start() runs it, native_wait() has the outcomes in it. */
struct test *native_tests(struct native *n);
void native_start(struct native *n, unsigned count);
void native_wait(struct native *n);

/* ---- guest.c ---- */
struct guest;
/* `heat`: translate what has run so often (1: at once); 0: interpret. */
int guest_open(struct guest **out, uint32_t heat);
void guest_close(struct guest *g);
/* Run `count` tests; outcomes go to `out`. */
void guest_run(struct guest *g, const struct test *tests, unsigned count, struct result *out);

/* ---- check.c ---- */
/* Compare; on a difference prints to `to` (may be NULL) and returns false. `nat` holds the native outcome. */
bool check_equal(const struct test *nat, const struct result *guest, FILE *to);
void check_disassemble(const struct test *t, FILE *to);
int corpus_write(const char *path, const struct test *t);
/* Returns false at the end of the file or on a malformed one (said on stderr). */
bool corpus_read(const char *path, struct test *t);

/* Code address of a test in `slot` (0 .. CODE_LEN / SLOT - 1). */
uint64_t slot_rip(const struct test *t, unsigned slot);

#endif
