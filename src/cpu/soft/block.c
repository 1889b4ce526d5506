/* The block cache and the watch over translated code.
 *
 * Code pages. A page that holds translated code has a struct code_page whose `marked` is set; while it is, no vCPU has
 * a write TLB entry for it, so every store to it comes through block_store(). Marking stops the other workers (they are
 * the ones that may hold such entries), logs the page, and everyone drops the entries the log names before going on.
 * Each page knows which 64-byte granules have been translated; stores elsewhere on the page cost a bit test.
 *
 * Against a store racing with translation: the translator sets the granule bits, then checks that the bytes are still
 * those it has translated; the storer stores, then looks at the bits. One of them sees the other.
 *
 * Lock order: exclusive section, then `lock`. Nobody stops while holding `lock`.
 */
#include "cpu/soft/block.h"

#include "cpu/jit/jit.h"
#include "cpu/soft/event.h"
#include "cpu/soft/run.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#if HEC_HOSTILE
enum { ARENA_SIZE = 256 << 10, HASH_BITS = 5, LOG_SIZE = 4 };
#else
enum { ARENA_SIZE = 32 << 20, HASH_BITS = 16, LOG_SIZE = 64 };
#endif

#define MUCH (UINT64_C(64) << 20) /* bytes written at once, as when all RAM is cleared */

enum { IDLE_STORES = 16 }; /* stores to a page without blocks until it may be written fast again */

struct code_page {
    atomic_bool marked;         /* (a) no write TLB entries may exist */
    uint8_t idle;               /* (l) stores since the page lost its last block */
    uint32_t index;             /* (c) RAM page number */
    _Atomic uint64_t granules;  /* (a) set bit: a block covers some of these 64 bytes */
    struct block *blocks;       /* (l) valid ones that begin here */
    struct block *tails;        /* (l) straddling ones that end here; some may be dead */
    struct code_page *all_next; /* (l) */
};

struct block_cache {
    const struct ram *ram; /* (c) */
    pthread_mutex_t lock;
    uint8_t *arena;                       /* (c) */
    struct jit *jit;                      /* (c) NULL: blocks are interpreted only. Its code is behind the arena */
    uint64_t used;                        /* (l) bytes of it */
    _Atomic(struct code_page *) *page_of; /* (c) array; (a) each: by RAM page number, NULL: never held code */
    struct code_page *pages;              /* (l) all of them */
    _Atomic uint32_t generation;          /* (a) flushes so far; changed in exclusive sections only */
    _Atomic uint32_t logged;              /* (a) pages marked so far; changed in exclusive sections only */
    uint32_t log[LOG_SIZE];               /* ring of RAM page numbers; the same */
    _Atomic(struct block *) hash[1 << HASH_BITS]; /* (a) heads; blocks are added under `lock` and never leave */
};

struct block block_nowhere = {.gate = BLOCK_DEAD};

/* ---- lifecycle ---- */

static void *reserve(uint64_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static uint64_t page_table_size(const struct ram *ram)
{
    return ram_pages(ram) * sizeof(struct code_page *);
}

int block_cache_create(const struct ram *ram, bool jit, uint32_t heat, struct block_cache **out, struct err *e)
{
    struct block_cache *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(e, -ENOMEM, "out of memory for the block cache");
    c->ram = ram;
    pthread_mutex_init(&c->lock, NULL);
    c->arena = reserve(ARENA_SIZE + JIT_SIZE);
    c->page_of = reserve(page_table_size(ram));
    int rc = c->arena && c->page_of
                 ? 0
                 : err_set(e, -ENOMEM, "no address space for the block cache: raise the limit (ulimit -v)");
    if (!rc && jit && jit_host_can())
        rc = jit_create(c->arena + ARENA_SIZE, heat, &c->jit, e);
    if (rc)
        block_cache_destroy(c);
    else
        *out = c;
    return rc;
}

struct jit *block_jit(const struct block_cache *c)
{
    return c->jit;
}

void block_cache_destroy(struct block_cache *c)
{
    if (!c)
        return;
    jit_destroy(c->jit);
    if (c->arena)
        munmap(c->arena, ARENA_SIZE + JIT_SIZE);
    if (c->page_of)
        munmap((void *)c->page_of, page_table_size(c->ram));
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* ---- the jump cache ---- */

static void bank_clear(struct jump_bank *k)
{
    for (unsigned i = 0; i < JUMP_SLOTS; i++)
        k->jump[i].rip = JUMP_EMPTY(i);
    for (unsigned i = 0; i < FETCH_SLOTS; i++)
        k->fetch[i].page = FETCH_EMPTY;
    k->used = false;
}

static void bank_flush(struct jump_bank *k)
{
    if (k->used)
        bank_clear(k);
}

static struct jump_bank *bank_of(const struct soft_vcpu *v)
{
    return &v->jumps->bank[v->mode & MODE_USER ? 1 : 0];
}

struct jump_entry *jump_select(struct soft_vcpu *v)
{
    if (!v->jumps)
        return NULL;
    struct jump_bank *k = bank_of(v);
    if (k->mode != v->mode) {
        bank_clear(k);
        k->mode = v->mode;
    }
    return k->jump;
}

void block_jumps_flush(struct soft_vcpu *v)
{
    v->fetch_local = false;
    if (!v->jumps)
        return;
    bank_flush(&v->jumps->bank[0]);
    bank_flush(&v->jumps->bank[1]);
}

void block_jumps_flush_nonglobal(struct soft_vcpu *v)
{
    if (v->fetch_local)
        block_jumps_flush(v);
    else if (v->jumps)
        bank_flush(&v->jumps->bank[1]);
}

bool block_jumps_alloc(struct soft_vcpu *v)
{
    if (!v->jumps) {
        struct jump_cache *j = malloc(sizeof *j);
        if (!j)
            return false;
        j->bank[0].used = j->bank[1].used = false;
        j->bank[0].mode = j->bank[1].mode = MODE_NONE;
        j->scratch.block = (struct block){.page = NULL};
        v->jumps = j;
    }
    v->jump = jump_select(v);
    return true;
}

void block_jumps_free(struct soft_vcpu *v)
{
    free(v->jumps);
    v->jumps = NULL;
    v->jump = NULL;
}

/* ---- arena ---- */

/* 16-byte aligned, zeroed by whoever uses it. NULL: full. */
static void *arena_take(struct block_cache *c, uint64_t size)
{
    size = align_up(size, 32);
    if (size > ARENA_SIZE - c->used)
        return NULL;
    void *p = c->arena + c->used;
    c->used += size;
    return p;
}

/* The caller has the machine to itself and nobody is in the middle of a block. */
static void flush(struct block_cache *c)
{
    pthread_mutex_lock(&c->lock); /* against block_dma_write(), which nobody stops */
    for (unsigned i = 0; i < 1u << HASH_BITS; i++)
        atomic_store_explicit(&c->hash[i], NULL, memory_order_relaxed);
    for (struct code_page *p = c->pages; p; p = p->all_next)
        atomic_store_explicit(&c->page_of[p->index], NULL, memory_order_relaxed);
    c->pages = NULL;
    c->used = 0;
    if (c->jit)
        jit_flush(c->jit);
    atomic_fetch_add_explicit(&c->generation, 1, memory_order_release);
    pthread_mutex_unlock(&c->lock);
}

uint32_t block_generation(const struct soft_vm *vm)
{
    return atomic_load_explicit(&vm->blocks->generation, memory_order_acquire);
}

/* ---- code pages ---- */

static struct code_page *code_page(const struct block_cache *c, gpa_t gpa)
{
    return atomic_load_explicit(&c->page_of[ram_page_index(c->ram, gpa)], memory_order_acquire);
}

static bool marked(const struct code_page *p)
{
    return p && atomic_load_explicit(&p->marked, memory_order_acquire);
}

bool block_page_has_code(const struct soft_vm *vm, gpa_t gpa)
{
    return marked(code_page(vm->blocks, gpa));
}

static void *page_hva(const struct block_cache *c, uint32_t index)
{
    uint64_t at = (uint64_t)index * RAM_PAGE;
    return at < c->ram->low_size ? c->ram->low + at : c->ram->high + (at - c->ram->low_size);
}

/* Under `lock`. NULL: the arena is full. */
static struct code_page *code_page_make(struct block_cache *c, gpa_t gpa)
{
    struct code_page *p = code_page(c, gpa);
    if (p)
        return p;
    p = arena_take(c, sizeof *p);
    if (!p)
        return NULL;
    memset(p, 0, sizeof *p);
    p->index = (uint32_t)ram_page_index(c->ram, gpa);
    p->all_next = c->pages;
    c->pages = p;
    atomic_store_explicit(&c->page_of[p->index], p, memory_order_release);
    return p;
}

/* The caller has the machine to itself. False: the arena is full. */
static bool mark(struct block_cache *c, gpa_t gpa)
{
    pthread_mutex_lock(&c->lock);
    struct code_page *p = code_page_make(c, gpa);
    if (p && !marked(p)) {
        uint32_t n = atomic_load_explicit(&c->logged, memory_order_relaxed);
        p->idle = 0;
        atomic_store_explicit(&p->marked, true, memory_order_seq_cst);
        c->log[n % LOG_SIZE] = p->index;
        atomic_store_explicit(&c->logged, n + 1, memory_order_release);
    }
    pthread_mutex_unlock(&c->lock);
    return p != NULL;
}

void block_catch_up(struct soft_vcpu *v)
{
    const struct block_cache *c = v->vm->blocks;
    uint32_t n = atomic_load_explicit(&c->logged, memory_order_acquire);
    if (n - v->wprot_seen > LOG_SIZE / 2) {
        tlb_drop_write(v, NULL);
    } else {
        for (uint32_t i = v->wprot_seen; i != n; i++)
            tlb_drop_write(v, page_hva(c, c->log[i % LOG_SIZE]));
    }
    v->wprot_seen = n;
    uint32_t gen = block_generation(v->vm);
    if (gen != v->cache_gen) {
        v->cache_gen = gen;
        v->patch = NULL;
        block_jumps_flush(v);
    }
}

/* ---- invalidation ---- */

static uint64_t granule_mask(uint64_t off, uint64_t len)
{
    return bits(~UINT64_C(0), (unsigned)((off + len - 1) / 64), (unsigned)(off / 64)) << (off / 64);
}

static void kill(struct block *b, struct soft_vcpu *v)
{
    atomic_store_explicit(&b->gate, BLOCK_DEAD, memory_order_release);
    if (v && b == v->cur)
        v->smc = true;
}

/* Under `lock`. */
static void kill_blocks(struct code_page *p, struct soft_vcpu *v)
{
    for (struct block *b = p->blocks; b; b = b->page_next)
        kill(b, v);
    for (struct block *b = p->tails; b; b = b->page2_next)
        kill(b, v);
    p->blocks = p->tails = NULL;
    atomic_store_explicit(&p->granules, 0, memory_order_seq_cst);
    p->idle = 0;
}

/* A store to a marked page that hit no code. After enough of them the page is data again. */
static void idle_store(struct block_cache *c, struct code_page *p)
{
    pthread_mutex_lock(&c->lock);
    if (!p->blocks && !p->tails && ++p->idle >= IDLE_STORES)
        atomic_store_explicit(&p->marked, false, memory_order_release);
    pthread_mutex_unlock(&c->lock);
}

static void stored(struct block_cache *c, struct soft_vcpu *v, gpa_t gpa, uint64_t len)
{
    struct code_page *p = code_page(c, gpa);
    if (!marked(p))
        return;
    atomic_thread_fence(memory_order_seq_cst); /* the bytes before the bits */
    uint64_t granules = atomic_load_explicit(&p->granules, memory_order_relaxed);
    if (!granules) {
        idle_store(c, p);
    } else if (granules & granule_mask(gpa & 0xfff, len)) {
        pthread_mutex_lock(&c->lock);
        kill_blocks(p, v);
        pthread_mutex_unlock(&c->lock);
    }
}

void block_store(struct soft_vcpu *v, gpa_t gpa, unsigned len)
{
    stored(v->vm->blocks, v, gpa, len);
}

/* Without the lock. A flush, which does not stop this thread, may hand the page's record out anew meanwhile: then what
 * is read is nonsense, but the old blocks are gone, and new ones are made of the bytes that are there now. */
GUEST_RACY static bool holds_code(const struct code_page *p, uint64_t granules)
{
    return marked(p) && atomic_load_explicit(&p->granules, memory_order_relaxed) & granules;
}

/* Under the lock no flush takes the page's record away. */
static void dma_write_code(struct block_cache *c, gpa_t gpa, uint64_t granules)
{
    pthread_mutex_lock(&c->lock);
    struct code_page *p = code_page(c, gpa);
    if (holds_code(p, granules))
        kill_blocks(p, NULL);
    pthread_mutex_unlock(&c->lock);
}

static gpa_t page_gpa(const struct ram *r, uint32_t index)
{
    gpa_t at = index * RAM_PAGE;
    return at < r->low_size ? at : at - r->low_size + RAM_HIGH_GPA;
}

/* Pages with code are far fewer than those written. What else is on them goes too. */
static void dma_write_much(struct block_cache *c, gpa_t gpa, uint64_t len)
{
    pthread_mutex_lock(&c->lock);
    for (struct code_page *p = c->pages; p; p = p->all_next) {
        gpa_t at = page_gpa(c->ram, p->index);
        if (at + RAM_PAGE > gpa && at < gpa + len && holds_code(p, ~UINT64_C(0)))
            kill_blocks(p, NULL);
    }
    pthread_mutex_unlock(&c->lock);
}

/* The common case, a page without code where the bytes are, takes no lock. */
void block_dma_write(struct soft_vm *vm, gpa_t gpa, uint64_t len)
{
    struct block_cache *c = vm->blocks;
    atomic_thread_fence(memory_order_seq_cst); /* the bytes before the marks and the bits */
    if (len >= MUCH) {
        dma_write_much(c, gpa, len);
        return;
    }
    while (len && ram_hva(c->ram, gpa, 1)) {
        uint64_t n = min_u64(len, RAM_PAGE - (gpa & 0xfff)), granules = granule_mask(gpa & 0xfff, n);
        if (unlikely(holds_code(code_page(c, gpa), granules)))
            dma_write_code(c, gpa, granules);
        gpa += n;
        len -= n;
    }
}

/* ---- look-up ---- */

static uint64_t key_of(gpa_t gpa, unsigned mode)
{
    return gpa | (uint64_t)mode << 52;
}

static unsigned hash_of(uint64_t key)
{
    return (unsigned)(key * UINT64_C(0x9e3779b97f4a7c15) >> (64 - HASH_BITS));
}

static struct block *cached(const struct block_cache *c, uint64_t key)
{
    struct block *b = atomic_load_explicit(&c->hash[hash_of(key)], memory_order_acquire);
    while (b && !(b->key == key && block_alive(b)))
        b = atomic_load_explicit(&b->next, memory_order_acquire);
    return b;
}

/* ---- translation ---- */

GUEST_RACY static bool same_bytes(const uint8_t *a, const uint8_t *b, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (a[i] != *(const volatile uint8_t *)(b + i))
            return false;
    return true;
}

/* Move the draft into `b`, its cold instructions behind its uops. */
static void settle(struct block *b, const struct block_draft *d, uint64_t key, struct insn *insns)
{
    memcpy(b->uops, d->uop, d->uops * sizeof d->uop[0]);
    memcpy(insns, d->insn, d->insns * sizeof d->insn[0]);
    for (unsigned i = 0; i < d->uops; i++)
        if (b->uops[i].fn == op_cold)
            b->uops[i].in = insns + (b->uops[i].in - d->insn);
    b->key = key;
    b->n = (uint16_t)d->n;
    b->bytes = (uint16_t)d->bytes;
    atomic_store_explicit(&b->gate, d->n, memory_order_relaxed);
}

/* Under `lock`: take dead blocks out of a chain, or self-modifying code would make it ever longer. A look-up that
 * stands on one of them finds its way: the block and its `next` stay. */
static void prune(_Atomic(struct block *) *at)
{
    for (struct block *b; (b = atomic_load_explicit(at, memory_order_relaxed));)
        if (block_alive(b))
            at = &b->next;
        else
            atomic_store_explicit(at, atomic_load_explicit(&b->next, memory_order_relaxed), memory_order_release);
}

/* Where a straddling instruction ends. */
struct tail {
    struct code_page *page;
    gpa_t gpa;
};

/* Under `lock`, the pages marked. A block is whole before it is published: look-ups take no lock. NULL: the arena is
 * full.
 */
static struct block *insert(struct block_cache *c, struct code_page *p, uint64_t key, const struct block_draft *d,
                            struct tail tail)
{
    uint64_t uops = d->uops * sizeof(struct uop);
    struct block *b = arena_take(c, sizeof *b + uops + d->insns * sizeof(struct insn));
    if (!b)
        return NULL;
    settle(b, d, key, (struct insn *)((uint8_t *)b->uops + uops));
    b->page = p;
    b->page_next = p->blocks;
    p->blocks = b;
    b->page2 = tail.page;
    b->gpa2 = tail.gpa;
    if (tail.page) {
        b->page2_next = tail.page->tails;
        tail.page->tails = b;
    }
    if (c->jit)
        jit_watch(c->jit, b);
    _Atomic(struct block *) *head = &c->hash[hash_of(key)];
    prune(head);
    atomic_store_explicit(&b->next, atomic_load_explicit(head, memory_order_relaxed), memory_order_relaxed);
    atomic_store_explicit(head, b, memory_order_release);
    return b;
}

enum made { MADE, MADE_UNMARKED, MADE_FULL, MADE_STRADDLES };

/* Under `lock`. */
static enum made make(struct block_cache *c, gpa_t gpa, unsigned mode, struct block **out)
{
    uint8_t bytes[BLOCK_MAX * 15];
    struct block_draft d;
    const uint8_t *from = ram_hva(c->ram, gpa, 1);
    unsigned off = gpa & 0xfff, avail = 4096 - off < sizeof bytes ? 4096 - off : sizeof bytes;
    struct code_page *p = code_page(c, gpa);
    uint64_t key = key_of(gpa, mode);
    if (!marked(p))
        return MADE_UNMARKED;
    if ((*out = cached(c, key)))
        return MADE;
    if (c->jit && jit_full(c->jit))
        return MADE_FULL;
    do {
        guest_copy(bytes, from, avail);
        lower_block(&d, bytes, avail, off, mode, BLOCK_MAX);
        if (d.straddles)
            return MADE_STRADDLES;
        atomic_fetch_or_explicit(&p->granules, granule_mask(off, d.bytes), memory_order_seq_cst);
        atomic_thread_fence(memory_order_seq_cst);
    } while (!same_bytes(bytes, from, d.bytes));
    *out = insert(c, p, key, &d, (struct tail){.page = NULL});
    return *out ? MADE : MADE_FULL;
}

/* Stop the others and make the page a code page, emptying the cache if it is full. False: it can't be emptied now. */
static bool make_code_page(struct soft_vcpu *v, gpa_t gpa, bool full)
{
    struct block_cache *c = v->vm->blocks;
    bool quiet = excl_begin_boundary(v), ok = true;
    if (full && (ok = quiet))
        flush(c);
    if (ok && !mark(c, gpa)) {
        ok = quiet;
        if (ok) {
            flush(c);
            mark(c, gpa);
        }
    }
    block_catch_up(v); /* with its own flush: the pending link and the jump cache point into the old arena */
    excl_end(v);
    return ok;
}

/* ---- blocks that are not cached ---- */

/* Bytes at RIP for one instruction, from RAM or wherever the bus leads, up to the first that can't be fetched. That
 * one's fault is in v->fault. */
static unsigned fetch_bytes(struct soft_vcpu *v, gva_t lin, uint64_t most, uint8_t *out)
{
    gpa_t gpa = 0;
    unsigned n;
    for (n = 0; n < 15 && n < most; n++, lin++) {
        if ((n == 0 || !(lin & 0xfff)) && !lin_fetch(v, lin, &gpa))
            break;
        const uint8_t *p = ram_hva(v_ram(v), gpa, 1);
        if (p)
            guest_copy(out + n, p, 1);
        else
            out[n] = (uint8_t)bus_read(v->vm->cfg.mmio, gpa, 1);
        gpa++;
    }
    return n;
}

/* Under `lock`. The straddling instruction at `gpa`, whose end is on the page at `gpa2`. */
static enum made make_straddler(struct block_cache *c, gpa_t gpa, gpa_t gpa2, unsigned mode, struct block **out)
{
    uint8_t bytes[15];
    struct block_draft d;
    struct code_page *p = code_page(c, gpa), *p2 = code_page(c, gpa2);
    const uint8_t *from = ram_hva(c->ram, gpa, 1), *from2 = ram_hva(c->ram, gpa2, 1);
    unsigned off = gpa & 0xfff, first = 4096 - off;
    uint64_t key = key_of(gpa, mode);
    if (!marked(p) || !marked(p2))
        return MADE_UNMARKED;
    if ((*out = cached(c, key)))
        return MADE;
    atomic_fetch_or_explicit(&p->granules, granule_mask(off, first), memory_order_seq_cst);
    atomic_fetch_or_explicit(&p2->granules, granule_mask(0, sizeof bytes - first), memory_order_seq_cst);
    atomic_thread_fence(memory_order_seq_cst);
    guest_copy(bytes, from, first);
    guest_copy(bytes + first, from2, sizeof bytes - first);
    lower_block(&d, bytes, sizeof bytes, off, mode, 1);
    if (d.bytes <= first)
        return MADE_STRADDLES; /* it was changed meanwhile and does not straddle any more: the next try will see */
    *out = insert(c, p, key, &d, (struct tail){.page = p2, .gpa = gpa2});
    return *out ? MADE : MADE_FULL;
}

static bool fetch_page(struct soft_vcpu *v, gva_t lin, gpa_t *gpa);

/* The same, pages marked as need be. NULL: use a scratch block. */
static struct block *get_straddler(struct soft_vcpu *v, gva_t lin, gpa_t gpa)
{
    struct block_cache *c = v->vm->blocks;
    struct block *b;
    gpa_t gpa2;
    if (!(v->mode & MODE_FLAT) || !fetch_page(v, (lin | 0xfff) + 1, &gpa2) || !ram_hva(c->ram, gpa2, 1))
        return NULL;
    for (;;) {
        pthread_mutex_lock(&c->lock);
        enum made m = make_straddler(c, gpa, gpa2, v->mode, &b);
        pthread_mutex_unlock(&c->lock);
        if (m == MADE)
            return b->page2 ? b : NULL;
        if (m == MADE_STRADDLES)
            return NULL;
        gpa_t unmarked = block_page_has_code(v->vm, gpa) ? gpa2 : gpa;
        if (!make_code_page(v, unmarked, m == MADE_FULL))
            return NULL;
    }
}

/* Whether the mapping leads where the straddling block's second half was translated. */
static bool leads_on(struct soft_vcpu *v, gva_t lin, const struct block *b)
{
    gpa_t gpa2;
    return fetch_page(v, (lin | 0xfff) + 1, &gpa2) && gpa2 == b->gpa2;
}

/* How many bytes lie between RIP and the end of the code segment. */
static uint64_t room_in_segment(const struct soft_vcpu *v)
{
    if (v->mode & MODE_FLAT)
        return UINT64_MAX;
    uint64_t limit = v->st.seg[SEG_CS].limit;
    return v->st.rip > limit ? 0 : limit - v->st.rip + 1;
}

/* The instruction at RIP, fetched anew each time: it straddles pages, lies outside RAM, or the cache is unusable. */
static struct block *scratch_block(struct soft_vcpu *v, gva_t lin)
{
    struct jump_cache *j = v->jumps;
    struct block_draft d;
    uint8_t bytes[15];
    fault_set(v, VEC_GP, true, 0); /* past the segment's end, unless a page says otherwise */
    unsigned n = fetch_bytes(v, lin, room_in_segment(v), bytes);
    lower_block(&d, bytes, n, lin & 0xfff, v->mode | MODE_SINGLE, 1);
    if (d.straddles || !d.n)
        return NULL;
    settle(&j->scratch.block, &d, key_of(0, v->mode), &j->insn);
    return &j->scratch.block;
}

/* ---- finding ---- */

static bool fetch_page(struct soft_vcpu *v, gva_t lin, gpa_t *gpa)
{
    gva_t page = lin & ~UINT64_C(0xfff);
    struct jump_bank *k = bank_of(v);
    struct fetch_entry *f = &k->fetch[lin >> 12 & (FETCH_SLOTS - 1)];
    if (f->page != page) {
        f->page = FETCH_EMPTY;
        if (!lin_fetch(v, page, &f->gpa)) {
            if (v->fault.vector == VEC_PF)
                v->st.cr2 = lin; /* the first byte fetched, not the page */
            return false;
        }
        f->page = page;
        k->used = true;
    }
    *gpa = f->gpa | (lin & 0xfff);
    return true;
}

/* The cached block at `gpa`, made if need be; NULL: use a scratch block. */
static struct block *get(struct soft_vcpu *v, gva_t lin, gpa_t gpa)
{
    struct block_cache *c = v->vm->blocks;
    struct block *b = cached(c, key_of(gpa, v->mode));
    if (b && unlikely(b->page2) && !leads_on(v, lin, b))
        return NULL;
    if (b || !ram_hva(c->ram, gpa, 1))
        return b;
    for (;;) {
        pthread_mutex_lock(&c->lock);
        enum made m = make(c, gpa, v->mode, &b);
        pthread_mutex_unlock(&c->lock);
        if (m == MADE)
            return b->page2 ? NULL : b;
        if (m == MADE_STRADDLES)
            return get_straddler(v, lin, gpa);
        if (!make_code_page(v, gpa, m == MADE_FULL))
            return NULL;
    }
}

struct block *block_find(struct soft_vcpu *v)
{
    uint64_t rip = v->st.rip, lin = rip;
    struct jump_entry *e = &v->jump[jump_slot(rip)];
    gpa_t gpa;
    bool flat = v->mode & MODE_FLAT, keep = flat && !(v->mode & MODE_SINGLE);
    if (!flat)
        lin = (uint32_t)(rip + v->st.seg[SEG_CS].base);
    v->rip_bias = rip - (lin & 0xfff);
    if (keep && e->rip == rip && block_alive(e->b))
        return e->b;
    if (!fetch_page(v, lin, &gpa))
        return NULL;
    struct block *b = get(v, lin, gpa);
    if (b && !flat && b->bytes > room_in_segment(v))
        b = NULL;
    if (!b)
        return scratch_block(v, lin);
    if (keep) {
        *e = (struct jump_entry){.rip = rip, .b = b};
        bank_of(v)->used = true;
    }
    return b;
}
