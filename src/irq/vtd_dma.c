/* DMA translation in legacy mode, with a cache of translations. VT-d, "DMA Remapping" and "Caching Translation
 * Information".
 *
 * The cache is read without a lock. An entry is stored only if no invalidation came since its walk began, so what an
 * invalidation has dropped does not come back.
 */
#include "irq/vtd_priv.h"

enum dma_fault {
    DMA_OK = 0,
    DMA_ROOT_NOT_PRESENT = 1,
    DMA_CONTEXT_NOT_PRESENT = 2,
    DMA_CONTEXT_INVALID = 3,
    DMA_BEYOND_WIDTH = 4,
    DMA_WRITE_DENIED = 5,
    DMA_READ_DENIED = 6,
    DMA_NEXT_TABLE = 7,
    DMA_ROOT_TABLE = 8,
    DMA_CONTEXT_TABLE = 9,
    DMA_ROOT_RSVD = 0xa,
    DMA_CONTEXT_RSVD = 0xb,
    DMA_PAGE_RSVD = 0xc
};

#define ENTRY_P         BIT(0)
#define ROOT_RSVD       UINT64_C(0xffe)
#define CONTEXT_FPD     BIT(1)
#define CONTEXT_LO_RSVD UINT64_C(0xff0)
#define CONTEXT_HI_RSVD (~UINT64_C(0xffffff) | BIT(7))
#define PTE_R           BIT(0)
#define PTE_W           BIT(1)
#define PTE_PS          BIT(7)

enum { TT_PAGES = 0, TT_PASS = 2 };

/* The value of a cached translation: page number, domain, rights, level of the leaf. */
#define TLB_VALID    BIT(63)
#define TLB_PAGE(t)  bits(t, 35, 0)
#define TLB_SID(t)   ((uint16_t)bits(t, 51, 36))
#define VAL_GPA(v)   (bits(v, 39, 0) << 12)
#define VAL_DID(v)   ((uint16_t)bits(v, 55, 40))
#define VAL_R        BIT(56)
#define VAL_W        BIT(57)
#define VAL_LEVEL(v) ((unsigned)bits(v, 59, 58))

struct walk {
    struct vtd *v;
    uint16_t rid;
    uint64_t iova;
    bool write;
    bool quiet;      /* the context entry's FPD */
    uint64_t lo, hi; /* the context entry */
    uint64_t val;    /* what to cache */
};

static bool read_quads(const struct vtd *v, gpa_t at, unsigned n, uint64_t *out)
{
    const uint64_t *p = (const uint64_t *)ram_hva(v->cfg.ram, at, 8 * n);
    if (!p)
        return false;
    for (unsigned i = 0; i < n; i++)
        out[i] = __atomic_load_n(&p[i], __ATOMIC_ACQUIRE);
    return true;
}

/* Address bits that no guest-physical address has. */
static uint64_t address_rsvd(const struct vtd *v)
{
    return ~(BIT(v->cfg.phys_bits) - 1) & (BIT(52) - 1);
}

/* VT-d, "Root Entry" and "Context Entry". */
static enum dma_fault find_context(struct walk *w, uint64_t root)
{
    uint64_t re[2], ce[2];
    if (!read_quads(w->v, (root & VTD_PAGE_MASK) + (w->rid >> 8) * 16u, 2, re))
        return DMA_ROOT_TABLE;
    if (!(re[0] & ENTRY_P))
        return DMA_ROOT_NOT_PRESENT;
    if (re[0] & (ROOT_RSVD | address_rsvd(w->v)) || re[1])
        return DMA_ROOT_RSVD;
    if (!read_quads(w->v, (re[0] & VTD_PAGE_MASK) + (w->rid & 0xff) * 16u, 2, ce))
        return DMA_CONTEXT_TABLE;
    w->quiet = ce[0] & CONTEXT_FPD;
    if (!(ce[0] & ENTRY_P))
        return DMA_CONTEXT_NOT_PRESENT;
    if (ce[0] & (CONTEXT_LO_RSVD | address_rsvd(w->v)) || ce[1] & CONTEXT_HI_RSVD)
        return DMA_CONTEXT_RSVD;
    w->lo = ce[0];
    w->hi = ce[1];
    return DMA_OK;
}

static uint64_t cached(const struct walk *w, uint64_t gpa, uint64_t rights, unsigned level)
{
    return bits(gpa, 51, 12) | bits(w->hi, 23, 8) << 40 | (rights & PTE_R ? VAL_R : 0) | (rights & PTE_W ? VAL_W : 0) |
           (uint64_t)level << 58;
}

static bool is_leaf(uint64_t pte, unsigned level)
{
    return level == 0 || (pte & PTE_PS && level <= 2);
}

/* What no entry may have set: address bits there are none of; PS where pages are not that large; the low address bits
 * of a large page. */
static bool pte_reserved(const struct walk *w, uint64_t pte, unsigned level)
{
    uint64_t rsvd = address_rsvd(w->v);
    if (level > 2)
        rsvd |= PTE_PS;
    else if (level && pte & PTE_PS)
        rsvd |= (BIT(12 + 9 * level) - 1) & VTD_PAGE_MASK;
    return pte & rsvd;
}

/* VT-d, "Second-Level Translation": rights are those all levels grant. */
static enum dma_fault walk_pages(struct walk *w, unsigned levels)
{
    uint64_t table = w->lo & VTD_PAGE_MASK & (BIT(52) - 1), rights = PTE_R | PTE_W, pte = 0;
    for (unsigned level = levels - 1;; level--) {
        if (!read_quads(w->v, table + bits(w->iova, 20 + 9 * level, 12 + 9 * level) * 8, 1, &pte))
            return DMA_NEXT_TABLE;
        rights &= pte;
        if (!(rights & (w->write ? PTE_W : PTE_R)))
            return w->write ? DMA_WRITE_DENIED : DMA_READ_DENIED;
        if (pte_reserved(w, pte, level))
            return DMA_PAGE_RSVD;
        table = pte & VTD_PAGE_MASK & (BIT(52) - 1);
        if (is_leaf(pte, level)) {
            uint64_t inside = (BIT(12 + 9 * level) - 1) & w->iova;
            w->val = cached(w, table | inside, rights, level);
            return DMA_OK;
        }
    }
}

static enum dma_fault walk(struct walk *w, uint64_t root)
{
    enum dma_fault f = find_context(w, root);
    if (f)
        return f;
    unsigned type = (unsigned)bits(w->lo, 3, 2), aw = (unsigned)bits(w->hi, 2, 0);
    unsigned width = aw == 1 ? 39 : aw == 2 && w->v->cfg.aw_bits == 48 ? 48 : 0;
    if (!width || (type != TT_PAGES && type != TT_PASS))
        return DMA_CONTEXT_INVALID;
    if (w->iova >> width)
        return DMA_BEYOND_WIDTH;
    if (type == TT_PAGES)
        return walk_pages(w, (width - 12) / 9);
    w->val = cached(w, w->iova, PTE_R | PTE_W, 0);
    return DMA_OK;
}

/* ---- the cache ---- */

static uint64_t tag_of(uint16_t rid, uint64_t iova)
{
    return TLB_VALID | (uint64_t)rid << 36 | bits(iova, 47, 12);
}

static struct vtd_tlb_entry *slot_of(struct vtd *v, uint64_t tag)
{
    return &v->tlb[(tag * UINT64_C(0x9e3779b97f4a7c15)) >> 54];
}

/* What the first word is xored with: scattered, so that values of two entries don't pass for one another. */
static uint64_t scatter(uint64_t val)
{
    return val * UINT64_C(0xd6e8feb86659fd93);
}

static bool tlb_find(struct vtd *v, uint64_t tag, uint64_t *val)
{
    struct vtd_tlb_entry *t = slot_of(v, tag);
    *val = atomic_load_explicit(&t->val, memory_order_acquire);
    return (atomic_load_explicit(&t->tag, memory_order_acquire) ^ scatter(*val)) == tag;
}

static void tlb_set(struct vtd_tlb_entry *t, uint64_t tag, uint64_t val)
{
    atomic_store_explicit(&t->val, val, memory_order_release);
    atomic_store_explicit(&t->tag, tag ^ scatter(val), memory_order_release);
}

static void tlb_store(struct vtd *v, uint64_t tag, uint64_t val, uint64_t drops)
{
    pthread_mutex_lock(&v->lock);
    if (atomic_load_explicit(&v->drops, memory_order_relaxed) == drops)
        tlb_set(slot_of(v, tag), tag, val);
    pthread_mutex_unlock(&v->lock);
}

struct tlb_filter {
    enum vtd_grain grain;
    bool context;
    uint16_t domain, source, source_mask;
    uint64_t page;
    unsigned shift;
};

/* A page-selective invalidation drops all of a large page it touches. */
static bool filter_hits(const struct tlb_filter *f, uint64_t tag, uint64_t val)
{
    if (f->grain != VTD_GRAIN_GLOBAL && VAL_DID(val) != f->domain)
        return false;
    if (f->grain != VTD_GRAIN_SELECTIVE)
        return true;
    if (f->context)
        return !((TLB_SID(tag) ^ f->source) & f->source_mask);
    unsigned large = 9 * VAL_LEVEL(val), shift = f->shift > large ? f->shift : large;
    return TLB_PAGE(tag) >> shift == f->page >> shift;
}

static void tlb_filter(struct vtd *v, const struct tlb_filter *f)
{
    atomic_fetch_add_explicit(&v->drops, 1, memory_order_acq_rel);
    for (unsigned i = 0; i < VTD_TLB_ENTRIES; i++) {
        uint64_t val = atomic_load_explicit(&v->tlb[i].val, memory_order_relaxed);
        uint64_t tag = atomic_load_explicit(&v->tlb[i].tag, memory_order_relaxed) ^ scatter(val);
        if (tag & TLB_VALID && filter_hits(f, tag, val))
            tlb_set(&v->tlb[i], 0, 0);
    }
}

void vtd_tlb_drop(struct vtd *v, enum vtd_grain grain, uint16_t domain, uint64_t addr, unsigned mask)
{
    tlb_filter(v, &(struct tlb_filter){.grain = grain, .domain = domain, .page = bits(addr, 47, 12), .shift = mask});
}

void vtd_tlb_drop_context(struct vtd *v, enum vtd_grain grain, uint16_t domain, uint16_t source, unsigned fm)
{
    tlb_filter(
        v, &(struct tlb_filter){
               .grain = grain, .context = true, .domain = domain, .source = source, .source_mask = vtd_rid_mask(fm)});
}

void vtd_dma_publish(struct vtd *v)
{
    atomic_store_explicit(&v->root, v->root_latched | (v->gsts & VTD_G_TE ? VTD_ROOT_ON : 0), memory_order_release);
    vtd_tlb_drop(v, VTD_GRAIN_GLOBAL, 0, 0, 0);
}

/* ---- translation ---- */

static bool answer(uint64_t val, uint64_t iova, struct vtd_page *out)
{
    uint64_t size = BIT(12 + 9 * VAL_LEVEL(val));
    *out = (struct vtd_page){
        .gpa = VAL_GPA(val) | (iova & 0xfff), .len = size - (iova & (size - 1)), .write = val & VAL_W};
    return true;
}

bool vtd_translate(struct vtd *v, requester_id_t from, uint64_t iova, bool write, struct vtd_page *out)
{
    uint64_t drops = atomic_load_explicit(&v->drops, memory_order_acquire);
    uint64_t root = atomic_load_explicit(&v->root, memory_order_acquire), val;
    if (!(root & VTD_ROOT_ON) || !vtd_serves(v, from)) {
        *out = (struct vtd_page){.gpa = iova, .len = UINT64_MAX - iova, .write = true};
        return true;
    }
    uint64_t tag = tag_of(from.rid, iova);
    if (!(iova >> 48) && tlb_find(v, tag, &val) && val & (write ? VAL_W : VAL_R))
        return answer(val, iova, out);
    struct walk w = {.v = v, .rid = from.rid, .iova = iova, .write = write};
    enum dma_fault f = walk(&w, root);
    if (!f) {
        tlb_store(v, tag, w.val, drops);
        return answer(w.val, iova, out);
    }
    trace(v->cfg.trace, TRACE_DEV, "vtd: requester %04xh %s of %llxh blocked: fault %xh", from.rid,
          write ? "write" : "read", (unsigned long long)iova, f);
    if (!w.quiet)
        vtd_fault_log(v, f, from, iova, !write);
    return false;
}
