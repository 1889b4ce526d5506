/* Host translations: a device's access through the tables its device table entry names, and a cache of what was found.
 * 48882, "I/O Page Tables for Host Translations" and "IOMMU Translation Lookaside Buffers".
 *
 * The cache is tagged by domain and holds what the page tables say alone; a device's own permissions are applied at
 * each use. A walk that an invalidation overtakes is used once and not kept: `iotlb_era` tells.
 */
#include "irq/amdvi_priv.h"

#define PTE_PR         BIT(0)
#define PTE_NEXT(q)    ((unsigned)bits(q, 11, 9))
#define PTE_RESERVED   (UINT64_C(0x7f) << 52)
#define NEXT_PAGE      0 /* a page of the level's own size */
#define NEXT_SIZED     7 /* a page whose size is in its address */
#define PERM(q)        ((unsigned)bits(q, 62, 61))
#define PERM_READ      1u
#define PERM_WRITE     2u
#define INT_FIRST      UINT64_C(0xfee00000)
#define INT_LAST       UINT64_C(0xfeefffff)
#define EXCL_ENABLE    BIT(0)
#define EXCL_ALLOW     BIT(1)
#define LEVEL_SHIFT(l) (12 + 9 * ((l)-1))

/* ---- the cache ---- */

void amdvi_iotlb_init(struct amdvi *a)
{
    for (unsigned s = 0; s < IOTLB_SHARDS; s++)
        pthread_mutex_init(&a->shard[s].lock, NULL);
    amdvi_iotlb_drop(a, -1, 0, UINT64_MAX);
}

void amdvi_iotlb_fini(struct amdvi *a)
{
    for (unsigned s = 0; s < IOTLB_SHARDS; s++)
        pthread_mutex_destroy(&a->shard[s].lock);
}

static bool overlaps(const struct iotlb_entry *e, uint64_t first, uint64_t last)
{
    uint64_t from = e->page << 12 & ~e->mask;
    return from <= last && (from | e->mask) >= first;
}

void amdvi_iotlb_drop(struct amdvi *a, int domain, uint64_t first, uint64_t last)
{
    atomic_fetch_add(&a->iotlb_era, 1);
    for (unsigned s = 0; s < IOTLB_SHARDS; s++) {
        struct iotlb_shard *shard = &a->shard[s];
        pthread_mutex_lock(&shard->lock);
        for (unsigned i = 0; i < IOTLB_SLOTS; i++)
            if (domain < 0 || (shard->e[i].domain == domain && overlaps(&shard->e[i], first, last)))
                shard->e[i].page = UINT64_MAX;
        pthread_mutex_unlock(&shard->lock);
    }
}

static uint64_t hash(uint16_t domain, uint64_t page)
{
    return (page ^ (uint64_t)domain << 40) * UINT64_C(0x9e3779b97f4a7c15) >> 32;
}

static bool cache_find(struct amdvi *a, uint16_t domain, uint64_t page, struct iotlb_entry *out)
{
    uint64_t h = hash(domain, page);
    struct iotlb_shard *shard = &a->shard[h % IOTLB_SHARDS];
    pthread_mutex_lock(&shard->lock);
    *out = shard->e[h / IOTLB_SHARDS % IOTLB_SLOTS];
    pthread_mutex_unlock(&shard->lock);
    return out->page == page && out->domain == domain;
}

static void cache_keep(struct amdvi *a, uint64_t era, const struct iotlb_entry *e)
{
    uint64_t h = hash(e->domain, e->page);
    struct iotlb_shard *shard = &a->shard[h % IOTLB_SHARDS];
    pthread_mutex_lock(&shard->lock);
    if (atomic_load(&a->iotlb_era) == era)
        shard->e[h / IOTLB_SHARDS % IOTLB_SLOTS] = *e;
    pthread_mutex_unlock(&shard->lock);
}

/* ---- one access ---- */

struct access {
    struct amdvi *a;
    uint16_t device;
    uint64_t iova;
    bool write;
    uint64_t dte[3];
};

static enum amdvi_dma_result fail(const struct access *x, enum amdvi_event_code code, uint32_t flags, uint64_t addr)
{
    bool has_domain = code == EVT_IO_PAGE_FAULT || code == EVT_PAGETAB_HW;
    amdvi_log(x->a, (struct amdvi_event){.code = code,
                                         .device = x->device,
                                         .domain = has_domain ? DTE1_DOMAIN(x->dte[1]) : 0,
                                         .flags = flags | (x->write ? EVT_RW : 0),
                                         .addr = addr});
    return AMDVI_DMA_BLOCKED;
}

/* DTE.SE: one fault is logged, the next after INVALIDATE_DEVTAB_ENTRY. */
static bool logged_before(const struct access *x)
{
    uint64_t *word = &x->a->logged_once[x->device / 64], bit = BIT(x->device % 64);
    pthread_mutex_lock(&x->a->lock);
    bool before = (*word & bit) != 0;
    *word |= bit;
    pthread_mutex_unlock(&x->a->lock);
    return before;
}

static enum amdvi_dma_result page_fault(const struct access *x, uint32_t flags)
{
    if (x->dte[1] & DTE1_SA || (x->dte[1] & DTE1_SE && logged_before(x)))
        return AMDVI_DMA_BLOCKED;
    return fail(x, EVT_IO_PAGE_FAULT, flags, x->iova);
}

/* ---- the walk ---- */

struct walk {
    const struct access *x;
    enum amdvi_dma_result result; /* valid when step() is over */
    unsigned level, perm;
    gpa_t table;
    uint64_t gpa, mask; /* of the page found, and its bytes less 1 */
};

static bool over(struct walk *w, enum amdvi_dma_result result)
{
    w->result = result;
    return false;
}

static bool found(struct walk *w, uint64_t pte, unsigned shift)
{
    w->mask = shift >= 64 ? UINT64_MAX : BIT(shift) - 1;
    w->gpa = pte & ADDR_51_12 & ~w->mask;
    return over(w, AMDVI_DMA_OK);
}

/* The size of a page with next level 7: the lowest clear address bit n from 12 up says 2^(n+1) bytes, which must be
 * more than a page of this level and less than one of the next. */
static bool found_sized(struct walk *w, uint64_t pte)
{
    unsigned low = (unsigned)__builtin_ctzll(~(pte >> 12)) + 13;
    if (low <= LEVEL_SHIFT(w->level) || low >= LEVEL_SHIFT(w->level + 1))
        return over(w, page_fault(w->x, EVT_PR));
    return found(w, pte, low);
}

/* Levels may be skipped where the address has only zeros for them. */
static bool descend(struct walk *w, uint64_t pte, unsigned next)
{
    if (next >= w->level)
        return over(w, page_fault(w->x, EVT_PR));
    if (next + 1 < w->level && bits(w->x->iova, LEVEL_SHIFT(w->level) - 1, LEVEL_SHIFT(next + 1)))
        return over(w, page_fault(w->x, 0));
    w->table = pte & ADDR_51_12;
    w->level = next;
    return true;
}

/* One table entry. False: the walk is over. */
static bool step(struct walk *w)
{
    gpa_t at = w->table + (w->x->iova >> LEVEL_SHIFT(w->level) & 0x1ff) * 8;
    uint64_t pte;
    if (!amdvi_load(w->x->a, at, &pte))
        return over(w, fail(w->x, EVT_PAGETAB_HW, EVT_MASTER, at));
    if (!(pte & PTE_PR))
        return over(w, page_fault(w->x, 0));
    if (pte & PTE_RESERVED)
        return over(w, page_fault(w->x, EVT_PR | EVT_RZ));
    w->perm &= PERM(pte);
    switch (PTE_NEXT(pte)) {
    case NEXT_PAGE:
        return found(w, pte, LEVEL_SHIFT(w->level));
    case NEXT_SIZED:
        return found_sized(w, pte);
    default:
        return descend(w, pte, PTE_NEXT(pte));
    }
}

/* What `domain`'s tables say of the page; permissions are not yet judged. */
static enum amdvi_dma_result look_up(const struct access *x, struct iotlb_entry *e)
{
    uint64_t era = atomic_load(&x->a->iotlb_era);
    struct walk w = {
        .x = x, .level = DTE0_MODE(x->dte[0]), .perm = PERM_READ | PERM_WRITE, .table = x->dte[0] & ADDR_51_12};
    if (w.level < AMDVI_LEVELS && x->iova >> LEVEL_SHIFT(w.level + 1))
        return page_fault(x, 0);
    while (step(&w))
        ;
    if (w.result != AMDVI_DMA_OK)
        return w.result;
    *e = (struct iotlb_entry){.page = x->iova >> 12,
                              .gpa = w.gpa | (x->iova & w.mask & ~UINT64_C(0xfff)),
                              .mask = w.mask,
                              .domain = DTE1_DOMAIN(x->dte[1]),
                              .perm = (uint8_t)w.perm};
    cache_keep(x->a, era, e);
    return AMDVI_DMA_OK;
}

static unsigned wanted(const struct access *x)
{
    return x->write ? PERM_WRITE : PERM_READ;
}

/* ---- the device's entry ---- */

static enum amdvi_dma_result untranslated(const struct access *x, gpa_t *gpa, uint64_t *len)
{
    *gpa = x->iova;
    *len = UINT64_MAX - x->iova;
    return AMDVI_DMA_OK;
}

static enum amdvi_dma_result translated(const struct access *x, gpa_t *gpa, uint64_t *len)
{
    struct iotlb_entry e;
    if (!(PERM(x->dte[0]) & wanted(x)))
        return page_fault(x, EVT_PR | EVT_PE);
    if (DTE0_MODE(x->dte[0]) == 0)
        return untranslated(x, gpa, len);
    /* A permission that lacks may have been added since: only a walk refuses. */
    if (!cache_find(x->a, DTE1_DOMAIN(x->dte[1]), x->iova >> 12, &e) || !(e.perm & wanted(x))) {
        enum amdvi_dma_result res = look_up(x, &e);
        if (res != AMDVI_DMA_OK)
            return res;
    }
    if (!(e.perm & wanted(x)))
        return page_fault(x, EVT_PR | EVT_PE);
    *gpa = e.gpa | (x->iova & 0xfff);
    *len = 4096 - (x->iova & 0xfff);
    return AMDVI_DMA_OK;
}

static bool excluded(const struct access *x)
{
    uint64_t base = atomic_load_explicit(&x->a->excl_base, memory_order_acquire);
    uint64_t limit = atomic_load_explicit(&x->a->excl_limit, memory_order_acquire);
    return base & EXCL_ENABLE && (base & EXCL_ALLOW || x->dte[1] & DTE1_EX) && x->iova >= (base & ADDR_51_12) &&
           x->iova <= (limit | 0xfff);
}

static enum amdvi_dma_result by_entry(const struct access *x, gpa_t *gpa, uint64_t *len)
{
    unsigned levels = x->a->cfg.dma_translation ? AMDVI_LEVELS : 0;
    if (!(x->dte[0] & DTE0_V) || excluded(x))
        return untranslated(x, gpa, len);
    if (x->dte[0] & DTE0_RESERVED)
        return fail(x, EVT_ILLEGAL_DTE, EVT_RZ, x->iova);
    if (!(x->dte[0] & DTE0_TV))
        return page_fault(x, 0);
    if (DTE0_MODE(x->dte[0]) > levels)
        return fail(x, EVT_ILLEGAL_DTE, 0, x->iova);
    return translated(x, gpa, len);
}

enum amdvi_dma_result amdvi_dma(struct amdvi *a, requester_id_t from, uint64_t iova, bool write, gpa_t *gpa,
                                uint64_t *len)
{
    struct access x = {.a = a, .device = from.rid, .iova = iova, .write = write};
    gpa_t at;
    if (iova >= INT_FIRST && iova <= INT_LAST && write)
        return AMDVI_DMA_INTERRUPT;
    if (!(atomic_load_explicit(&a->control, memory_order_acquire) & CTL_IOMMU_EN) || !amdvi_serves(a, from))
        return untranslated(&x, gpa, len);
    if (iova >= INT_FIRST && iova <= INT_LAST)
        return fail(&x, EVT_INVALID_DEVICE_REQUEST, EVT_READ_INT, iova);
    switch (amdvi_read_dte(a, from.rid, x.dte, &at)) {
    case AMDVI_DTE_OUTSIDE:
        return page_fault(&x, 0);
    case AMDVI_DTE_UNREACHABLE:
        return fail(&x, EVT_DEVTAB_HW, EVT_MASTER, at);
    default:
        return by_entry(&x, gpa, len);
    }
}
