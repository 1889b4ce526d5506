/* The built-in engine's vCPU, and the rules every part of cpu/soft keeps. Private to cpu/soft.
 *
 * Parts:   decode.c       bytes -> struct insn
 *          block.c        block cache keyed by (guest-physical page, offset, mode); code pages, self-modifying code
 *          lower.c        struct insn -> uops; uop_*.c the hot handlers; run.c the dispatcher and vcpu_run()
 *          mmu.c          page walks, soft-TLB, memory access slow paths
 *          event.c        exceptions, interrupts, IDT delivery in every mode; INIT, SIPI, NMI
 *          exec_far.c seg.c task.c   segment loads, far transfers, task switches
 *          exec_sys.c msr.c          control registers, MSRs, I/O
 *          exec_string.c exec_misc.c exec_sse*.c exec_x87.c
 *
 * Faults travel in return values. A function that can fault returns false (or EXEC_FAULT) after recording it with
 * fault_set(); nobody longjmps. Nothing architectural may have changed before the last access that can fault has
 * succeeded, so that the instruction can be restarted.
 *
 * cpu/jit makes host code of hot blocks (jit.h has the seam); only block.c knows it.
 */
#ifndef HEC_CPU_SOFT_SOFT_H
#define HEC_CPU_SOFT_SOFT_H

#include "base/bits.h"
#include "cpu/cpuid.h"
#include "cpu/engine.h"
#include "cpu/pv.h"
#include "cpu/soft/decode.h"
#include "x86/cpu.h"

struct soft_vm;
struct soft_vcpu;
struct block;
struct uop;

/* ---- results ---- */

enum exec_result {
    EXEC_OK,  /* done: RIP goes to next_rip */
    EXEC_END, /* done, RIP goes to next_rip, but the mode, mapping or interrupt state may have changed: end the block */
    EXEC_JUMP,    /* done, st.rip has been set: end the block */
    EXEC_RESTART, /* a REP iteration is done and more remain: poll, then come back to this instruction */
    EXEC_FAULT,   /* v->fault is set; st.rip is still this instruction */
    EXEC_LEAVE    /* done, RIP goes to next_rip, then leave vcpu_run() with v->run->exit as set */
};

/* An executor of the cold groups. On entry st.rip is the instruction's own address (offset in CS) and v->next_rip the
 * following one's; arithmetic flags are lazy (use flags_get()/flags_put()). */
typedef enum exec_result exec_fn(struct soft_vcpu *v, const struct insn *in);

#define OP(id, group) EXEC_DECL_##group(id)
#define EXEC_DECL_UOP(id)
#define EXEC_DECL_STR(id) exec_fn exec_##id;
#define EXEC_DECL_BCD(id) exec_fn exec_##id;
#define EXEC_DECL_FAR(id) exec_fn exec_##id;
#define EXEC_DECL_SYS(id) exec_fn exec_##id;
#define EXEC_DECL_SSE(id) exec_fn exec_##id;
#define EXEC_DECL_X87(id) exec_fn exec_##id;
#include "cpu/soft/ops.def"
#undef OP

/* ---- a pending fault ---- */

enum fault_kind {
    FAULT_EXCEPTION, /* vector, error code */
    FAULT_SOFT_INT,  /* INT n, INT3, INTO: pushes next_rip, DPL is checked */
    FAULT_SHUTDOWN,  /* triple fault */
    FAULT_DEBUG,     /* #DB as a trap or instruction breakpoint (event_raise_db): the pushed RF is as it was */
    FAULT_ICEBP      /* INT1: as FAULT_SOFT_INT, but no DPL check and EXT is set */
};

struct fault {
    uint8_t kind;
    uint8_t vector;
    bool has_error;
    uint32_t error;
};

/* ---- soft-TLB ---- */

#if HEC_HOSTILE
#define TLB_SIZE 4
#else
#define TLB_SIZE 128
#endif

/* One compare tests tag, page crossing and offset: off = gva ^ tag; hit if off <= 4096 - size. An invalid tag names a
 * page of the neighbouring slot, so no address that selects this slot can ever hit it. `host` is the page's hva. A
 * write entry exists only if PTE.D is set, the page is RAM and holds no translated code. */
struct tlb_entry {
    uint64_t tag;
    uint8_t *host;
};
#define TLB_INVALID(slot) ((1 & ~(uint64_t)(slot)) << 12)

struct tlb_bank {
    struct tlb_entry r[TLB_SIZE], w[TLB_SIZE];
    uint64_t global[(TLB_SIZE + 63) / 64]; /* slots that hold nothing but pages whose PTE has G (with CR4.PGE) */
};

struct tlb {
    struct tlb_bank bank[2]; /* 0 supervisor, 1 user; the code's CPL chooses */
};

/* ---- the vCPU ---- */

/* What a block's meaning depends on besides its bytes: the block key's mode bits. */
enum mode_bits {
    MODE_CODE = 3,       /* enum code_size */
    MODE_SS32 = 1u << 2, /* stack size 32 (SS.B); never in 64-bit code, which ignores it */
    MODE_USER = 1u << 3, /* CPL 3 */
    MODE_FLAT = 1u << 4, /* 64-bit, or every one of CS/DS/ES/SS is base 0, limit 4G, usable, writable where data */
    MODE_PE = 1u << 5,
    MODE_V86 = 1u << 6,
    MODE_SINGLE = 1u << 7 /* the block holds one instruction: TF, debug breakpoints, interrupt shadow */
};

/* What a hand-over found on its way to the CPU already (struct cpu_apic): the next vcpu_run() delivers it. */
struct handed {
    bool exception, has_error, injected;
    uint8_t exception_vector, injected_vector;
    uint32_t error;
};

struct soft_vcpu {
    struct cpu_state st; /* (v) first: gpr[] is at offset 0 */
    uint64_t zero;       /* (v) always 0: what a missing base or index register reads */

    /* Lazy arithmetic flags: flags_get() folds them into rflags. cc_op == CC_RFLAGS: st.rflags has them. */
    uint64_t cc_dst, cc_src; /* (v) */
    uint32_t cc_op;          /* (v) enum cc_kind of flags.h, and log2 of the size << 8 */

    uint16_t jit_flags; /* (v) while host code runs, the arithmetic flags: RFLAGS[7:0] << 8 | OF (cpu/jit/emit.h) */

    uint32_t mode;           /* (v) enum mode_bits, kept by mode_update() */
    struct tlb_bank *tlb;    /* (v) tlb_select(v): the CPL's bank, or one that never hits */
    int64_t budget;          /* (v) instructions left in the time slice; the current block's are already taken off */
    uint64_t rip_bias;       /* (v) RIP of an instruction in the current block = rip_bias + its offset in the page */
    struct jump_entry *jump; /* (v) jump_select(v): the CPL's half of the jump cache */
    struct block *cur;       /* (v) block being executed */
    uint64_t next_rip;       /* (v) for executors */
    bool smc;                /* (v) a store hit translated code: end the block after this instruction */
    bool irq_waiting; /* (v) event_service() left an interrupt pending because IF = 0 or in a shadow: whoever sets
                         IF calls attn_self() then */

    _Atomic uint32_t attn; /* (a) enum cpu_attn */

    struct fault fault;       /* (v) */
    struct tlb *tlbs;         /* (v) allocated at first run, given back by trim */
    struct jump_cache *jumps; /* (v) the same; block.c's */
    uint32_t wprot_seen;      /* (v) how much of the code-page log has been applied to the write entries */
    uint32_t pauses;          /* (v) PAUSEs in this quantum */
    uint32_t db_hits;         /* (v) data and I/O breakpoints this instruction met, as DR6[3:0]: raise #DB after it */

    uint64_t entry_now;   /* (v) guest ns at vcpu_run() */
    int64_t entry_budget; /* (v) budget at vcpu_run(): executed = entry_budget - reserve - budget - block_left */
    int64_t reserve;      /* (v) the part of the budget behind the time slice's end */
    uint32_t block_left;  /* (v) instructions of the current block not yet executed, while a slow path runs */
    bool fetch_local;     /* (v) supervisor code was fetched from a page that is not global since jumps were flushed */
    uint32_t cache_gen;   /* (v) generation of the block cache that the jump cache was filled from */
    uint64_t tmp;         /* (v) a slow path's result, so that handlers take no address of a local */
    uint8_t stop;         /* (v) run.c: why the handlers came back to the dispatcher */
    const struct uop *patch; /* (v) run.c: the jump that wants to be linked to the block found next, or NULL */
    struct cpu_run *run;     /* (v) while in vcpu_run() */

    uint64_t tpause_until; /* (v) guest ns, 0: not in TPAUSE */
    struct handed handed;  /* (v) */
    uint64_t rng;          /* (v) RDRAND state in deterministic mode */
    uint8_t x87;           /* (v) enum x87_where: where the x87 registers are (fpu.h) */

    struct soft_vm *vm; /* (c) */
    vcpu_idx_t idx;     /* (c) */
    apic_id_t id;       /* (c) */
};

/* Code-page bookkeeping shared by mmu.c and block.c: one byte a RAM page would waste 16 GiB machines' time; it is one
 * bitmap of 64 granules of 64 bytes, allocated with the page's first block. */
struct soft_vm {
    struct engine_config cfg;   /* (c) */
    struct soft_vcpu *vcpu;     /* (c) [cfg.vcpus] */
    struct block_cache *blocks; /* (c) block.c */
    struct jit *jit;            /* (c) theirs; NULL: none */
    struct excl *excl;          /* (c) run.c: stopping the other workers */
};

static inline struct ram *v_ram(const struct soft_vcpu *v)
{
    return v->vm->cfg.ram;
}

static inline unsigned cpl(const struct soft_vcpu *v)
{
    return v->st.seg[SEG_SS].attr >> SEGA_DPL_SHIFT & 3;
}

/* CPL is SS.DPL (as in VMX): real mode has 0 there, virtual-8086 mode 3. Whoever loads SS keeps that true. */

/* Ask for event_service() (and a new time slice) at the next block boundary. Whoever makes an event deliverable that
 * was not, calls it: STI, POPF or IRET with irq_waiting, IRET that unblocks NMIs, any APIC register or TSC-deadline
 * write. */
static inline void attn_self(struct soft_vcpu *v)
{
    atomic_fetch_or_explicit(&v->attn, ATTN_IRQ, memory_order_relaxed);
}

/* ---- faults ---- */

static inline void fault_set(struct soft_vcpu *v, unsigned vector, bool has_error, uint32_t error)
{
    v->fault =
        (struct fault){.kind = FAULT_EXCEPTION, .vector = (uint8_t)vector, .has_error = has_error, .error = error};
}

static inline enum exec_result exec_fault(struct soft_vcpu *v, unsigned vector)
{
    fault_set(v, vector, false, 0);
    return EXEC_FAULT;
}

static inline enum exec_result exec_fault_err(struct soft_vcpu *v, unsigned vector, uint32_t error)
{
    fault_set(v, vector, true, error);
    return EXEC_FAULT;
}

/* ---- run.c ---- */

/* Guest ns now, exact to the instruction (virtual time) or from the host clock. */
uint64_t soft_now(struct soft_vcpu *v);
/* As soft_now(), but never earlier than any time another vCPU or a device has seen: what RDTSC and device accesses use.
 */
uint64_t soft_now_shared(struct soft_vcpu *v);
/* Recompute v->mode and v->tlb (tlb_select()) after CR0, EFER, RFLAGS.VM, TF or AC, DR7, CS, SS, DS or ES changed. */
void mode_update(struct soft_vcpu *v);
/* Stop every other worker at its next block boundary, and let them go on. Never called while holding a lock another
 * worker may want. Nests not. */
void excl_begin(struct soft_vcpu *v);
void excl_end(struct soft_vcpu *v);

/* ---- block.c ---- */

/* A store of `len` bytes at `gpa` to a page that holds translated code has been done: drop what it hit; sets v->smc if
 * the current block is among it. */
void block_store(struct soft_vcpu *v, gpa_t gpa, unsigned len);
/* Whether the RAM page holds translated code (then no write TLB entry may exist for it). */
bool block_page_has_code(const struct soft_vm *vm, gpa_t gpa);
/* RAM was written behind the vCPUs' back (DMA, loader). Any thread. */
void block_dma_write(struct soft_vm *vm, gpa_t gpa, uint64_t len);
/* Forget the vCPU's jump cache (its mapping changed), or only what MOV CR3 changes: all but global pages. */
void block_jumps_flush(struct soft_vcpu *v);
void block_jumps_flush_nonglobal(struct soft_vcpu *v);
/* mode_update()'s value for v->jump; NULL before block_jumps_alloc(). A mode other than the half's last one empties it.
 */
struct jump_entry *jump_select(struct soft_vcpu *v);

#endif
