/* Blocks: translated runs of instructions within one page, and the cache every vCPU shares. Private to block.c,
 * lower.c, run.c and the uop handlers.
 *
 * A block's key is (guest-physical address, mode bits), so it holds no linear address and serves every mapping and
 * every vCPU. Its end is decided by the bytes alone (a branch, the page's end, BLOCK_MAX instructions, a
 * page-straddling instruction), never by what the cache holds: the same instructions make the same blocks in every run.
 *
 * Memory: an arena that is emptied as a whole, inside an exclusive section, when no vCPU is in the middle of a block.
 * An invalidated block stays where it is until then; its `gate` keeps everyone out.
 */
#ifndef HEC_CPU_SOFT_BLOCK_H
#define HEC_CPU_SOFT_BLOCK_H

#include "cpu/soft/decode.h"
#include "cpu/soft/uop.h"

enum { BLOCK_MAX = 64 };             /* instructions; uop.left is a byte */
enum { BLOCK_UOPS = BLOCK_MAX + 2 }; /* and the end */
#define BLOCK_DEAD (INT64_MAX / 2)

struct code_page;

struct block {
    _Atomic int64_t gate; /* (a) instructions, so `budget - gate` is what entering leaves; BLOCK_DEAD: invalid */
    uint64_t key;         /* (c) gpa of the first byte | mode << 52 */
    _Atomic(struct block *) next; /* (a) of the hash chain */
    struct block *page_next;      /* (l) of the page's list */
    struct code_page *page;       /* (c) NULL: not cached, in a vCPU's scratch space */
    struct code_page *page2;      /* (c) where its one instruction ends, if that crosses the page's end; else NULL */
    struct block *page2_next;     /* (l) of that page's list */
    gpa_t gpa2;                   /* (c) of that page */
    uint16_t n;                   /* (c) instructions */
    uint16_t bytes;               /* (c) */
    _Atomic uint32_t heat;        /* (a) executions, while they are counted */
    uop_fn *first; /* (c) the first uop's handler, while another one in its place counts or enters host code */
    void *code;    /* (a) where host code enters: its own once it is translated. Without a translator: unused */
    void *body;    /* (a) the same behind the gate's check; NULL: not translated */
    struct uop uops[];
};

static inline bool block_alive(const struct block *b)
{
    return atomic_load_explicit(&b->gate, memory_order_acquire) != BLOCK_DEAD;
}

static inline gpa_t block_gpa(const struct block *b)
{
    return b->key & (BIT(52) - 1);
}

#if HEC_HOSTILE
enum { FETCH_SLOTS = 2 };
#else
enum { FETCH_SLOTS = 16 };
#endif

/* One privilege's jumps and instruction-side translations. Until a mode has been chosen (jump_select()), nothing in it
 * has been written: CPUs that never run user code don't pay for its half. */
struct jump_bank {
    uint32_t mode; /* all are of this mode; MODE_NONE: none yet */
    bool used;     /* not all are empty */
    struct jump_entry jump[JUMP_SLOTS];
    struct fetch_entry {
        gva_t page; /* FETCH_EMPTY: none */
        gpa_t gpa;
    } fetch[FETCH_SLOTS];
};
#define FETCH_EMPTY UINT64_C(1)
#define MODE_NONE   UINT32_MAX

/* The per-vCPU half of the cache. */
struct jump_cache {
    struct jump_bank bank[2]; /* supervisor, user */
    struct insn insn;         /* of the scratch block */
    union {
        struct block block; /* a block that is not cached */
        uint8_t room[sizeof(struct block) + 3 * sizeof(struct uop)];
    } scratch;
};

/* Where jumps lead that have not been taken yet: nobody can enter it. */
extern struct block block_nowhere;

/* What lowering produces before the block has its place. */
struct block_draft {
    struct uop uop[BLOCK_UOPS];
    struct insn insn[BLOCK_MAX]; /* those that cold uops need; uop.in points here until they are moved */
    unsigned uops, insns, n, bytes;
    bool straddles; /* the first instruction crosses the page's end: nothing was lowered */
};

/* ---- lower.c ---- */
/* Lower the instructions at bytes[0..avail), which end at the page's end, at page offset `off`. Undecodable ones become
 * a uop that raises their fault. At most `most` (up to BLOCK_MAX) instructions, and with MODE_SINGLE one. */
void lower_block(struct block_draft *d, const uint8_t *bytes, unsigned avail, unsigned off, unsigned mode,
                 unsigned most);

/* ---- block.c: lifecycle ---- */
/* `jit`: with a translator, which takes blocks that ran `heat` times (jit_create()), if the
 * host's CPU has what that needs. */
int block_cache_create(const struct ram *ram, bool jit, uint32_t heat, struct block_cache **out, struct err *e);
struct jit *block_jit(const struct block_cache *c); /* NULL: none */
void block_cache_destroy(struct block_cache *c);
bool block_jumps_alloc(struct soft_vcpu *v); /* false: out of host memory */
void block_jumps_free(struct soft_vcpu *v);

/* ---- block.c: the owning vCPU's thread only ---- */
/* The block at st.rip in v->mode, with rip_bias set and the jump cache filled; at a block boundary. NULL: v->fault. May
 * stop the machine for a moment, and may empty the cache. */
struct block *block_find(struct soft_vcpu *v);
/* Apply what happened to the cache while this vCPU was stopped or not running: new code pages, a flush. */
void block_catch_up(struct soft_vcpu *v);
/* Number of flushes so far: pointers into the cache are good while it stays the same. */
uint32_t block_generation(const struct soft_vm *vm);

#endif
