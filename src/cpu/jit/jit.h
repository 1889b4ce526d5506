/* The built-in engine's translator: blocks of 64-bit code that run often become host code. SDM 2, "Instruction Set
 * Reference": host and guest have the same instructions, so most of them are said again with other registers.
 *
 * The seam. A block that may be translated is made with jit_watch(): its first uop counts executions, and at
 * `heat` the block is translated; from then on the first uop enters host code. Host code goes from block to block by
 * itself and comes back with the uop the interpreter is to go on with, or with NULL and v->stop as every handler does.
 * At each such point the vCPU is as the interpreter would have left it, but for flags that the instruction set leaves
 * undefined.
 *
 * What host code may touch: the vCPU's struct, guest RAM through the soft-TLB (an access without a probe does not
 * exist), the jump cache, and its own constants. Code is written through one mapping and executed through another; no
 * page is ever both writable and executable.
 */
#ifndef HEC_CPU_JIT_JIT_H
#define HEC_CPU_JIT_JIT_H

#include "cpu/soft/block.h"

struct jit;

/* Address space that jit_create() fills with code: directly behind what RIP-relative code must reach. */
#if HEC_HOSTILE
enum { JIT_SIZE = 512 << 10 };
#else
enum { JIT_SIZE = 64 << 20 };
#endif

/* ---- lifecycle ---- */

/* Whether this host's CPU has what translated code is made of: x86-64-v2's CMPXCHG16B, POPCNT and LAHF. */
bool jit_host_can(void);
/* `at`: JIT_SIZE bytes of address space, replaced by executable pages; blocks lie within 2 GiB of it. `heat`:
 * executions that make a block hot, 0: the default. -errno: no memory for code, or the host forbids executing it. */
int jit_create(void *at, uint32_t heat, struct jit **out, struct err *e);
void jit_destroy(struct jit *j); /* NULL is fine; the address space stays the caller's */

/* ---- any thread ---- */

/* `b` is being made and nobody knows it yet: count its executions, if it is a block that can be translated. */
void jit_watch(struct jit *j, struct block *b);
/* No room for more code: the cache wants a flush. */
bool jit_full(const struct jit *j);

/* ---- the caller has the machine to itself, and nobody is in the middle of a block ---- */

/* All blocks are gone: forget all code. */
void jit_flush(struct jit *j);

#endif
