#include "cpu/soft/tlb.h"

#include "cpu/soft/flags.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/walk.h"

#include <stdlib.h>

#define TLB2_SETS (TLB_SIZE)
#define TLB2_USED UINT64_C(0x800) /* beside the rights, below the page number */

struct tlb2_entry {
    uint64_t tag;  /* gva of the page | enum walk_right | TLB2_USED */
    uint64_t page; /* gpa */
};

/* What v->tlbs points to, from its first member. */
struct tlb_full {
    struct tlb l1;
    struct tlb2_entry l2[TLB2_SETS][2]; /* most recent first */
    /* INVLPG drops the whole of a large page, of which both levels may hold many 4 KiB parts: slots of the first level
     * that may hold some, and whether the second may, by half of the address space. */
    uint64_t large1[2][(TLB_SIZE + 63) / 64];
    bool large2[2];
};

#define ROW4(i)                                                                                                        \
    {TLB_INVALID(i), NULL}, {TLB_INVALID(i + 1), NULL}, {TLB_INVALID(i + 2), NULL},                                    \
    {                                                                                                                  \
        TLB_INVALID(i + 3), NULL                                                                                       \
    }
#if HEC_HOSTILE
#define ROWS ROW4(0)
#else
#define ROW16 ROW4(0), ROW4(0), ROW4(0), ROW4(0)
#define ROWS  ROW16, ROW16, ROW16, ROW16, ROW16, ROW16, ROW16, ROW16
#endif

/* Nobody fills it: tlb_fill() leaves a vCPU alone whose v->tlb it is. */
static const struct tlb_bank tlb_none = {.r = {ROWS}, .w = {ROWS}};

static struct tlb_full *full(const struct soft_vcpu *v)
{
    return container_of(v->tlbs, struct tlb_full, l1);
}

/* ---- lifecycle ---- */

bool tlb_alloc(struct soft_vcpu *v)
{
    if (!v->tlbs) {
        struct tlb_full *t = aligned_alloc(64, align_up(sizeof *t, 64));
        if (!t)
            return false;
        v->tlbs = &t->l1;
        tlb_flush_all(v);
    }
    v->tlb = tlb_select(v);
    return true;
}

void tlb_free(struct soft_vcpu *v)
{
    if (v->tlbs)
        free(full(v));
    v->tlbs = NULL;
    v->tlb = tlb_select(v);
}

static bool watching_data(const struct soft_vcpu *v)
{
    uint64_t dr7 = v->st.dr[7];
    for (unsigned i = 0; dr7 & 0xff && i < 4; i++)
        if (dr7 >> (i * 2) & 3 && dr7 >> (16 + i * 4) & 1)
            return true;
    return false;
}

struct tlb_bank *tlb_select(struct soft_vcpu *v)
{
    bool user = cpl(v) == 3;
    bool align = user && v->st.rflags & RF_AC && v->st.cr0 & CR0_AM;
    if (unlikely(!v->tlbs || align || watching_data(v)))
        return (struct tlb_bank *)&tlb_none;
    return &v->tlbs->bank[user];
}

/* ---- first level ---- */

static void bank_clear(struct tlb_bank *b)
{
    for (unsigned i = 0; i < TLB_SIZE; i++)
        b->r[i].tag = b->w[i].tag = TLB_INVALID(i);
    memset(b->global, 0, sizeof b->global);
}

static bool slot_global(const struct tlb_bank *b, unsigned i)
{
    return b->global[i / 64] >> (i % 64) & 1;
}

/* A slot counts as global only if both its entries do, or one does and the other is empty. */
static void slot_mark(struct tlb_bank *b, unsigned i, const struct tlb_entry *other, bool global)
{
    if (!global)
        b->global[i / 64] &= ~BIT(i % 64);
    else if (other->tag == TLB_INVALID(i))
        b->global[i / 64] |= BIT(i % 64);
}

void tlb_fill(struct soft_vcpu *v, gva_t gva, unsigned acc, bool user, const struct walk *w, uint8_t *host)
{
    if (unlikely(v->tlb == &tlb_none || !v->tlbs))
        return;
    struct tlb_bank *b = &v->tlbs->bank[user];
    unsigned i = gva >> 12 & (TLB_SIZE - 1);
    bool write = acc & ACC_WRITE;
    if (write && (!(w->rights & WALK_D) || block_page_has_code(v->vm, w->page)))
        return;
    struct tlb_entry *e = write ? &b->w[i] : &b->r[i];
    slot_mark(b, i, write ? &b->r[i] : &b->w[i], w->rights & WALK_G);
    if (w->rights & WALK_LARGE)
        full(v)->large1[user][i / 64] |= BIT(i % 64);
    *e = (struct tlb_entry){.tag = gva & ~UINT64_C(0xfff), .host = host};
}

/* ---- second level ---- */

bool tlb2_find(const struct soft_vcpu *v, gva_t gva, unsigned acc, bool user, struct walk *w)
{
    if (unlikely(!v->tlbs))
        return false;
    const struct tlb2_entry *set = full(v)->l2[gva >> 12 & (TLB2_SETS - 1)];
    for (unsigned way = 0; way < 2; way++) {
        uint64_t diff = set[way].tag ^ (gva & ~UINT64_C(0xfff));
        if (diff & ~UINT64_C(0x7ff) & ~TLB2_USED || !(diff & TLB2_USED))
            continue;
        w->page = set[way].page;
        w->rights = diff & 0x7ff;
        return walk_allows(v, w->rights, acc, user) && (!(acc & ACC_WRITE) || w->rights & WALK_D);
    }
    return false;
}

void tlb2_fill(struct soft_vcpu *v, gva_t gva, const struct walk *w)
{
    if (unlikely(!v->tlbs))
        return;
    struct tlb2_entry *set = full(v)->l2[gva >> 12 & (TLB2_SETS - 1)];
    uint64_t page = gva & ~UINT64_C(0xfff);
    if ((set[0].tag & ~UINT64_C(0xfff)) != page || !(set[0].tag & TLB2_USED))
        set[1] = set[0];
    set[0] = (struct tlb2_entry){.tag = page | TLB2_USED | w->rights, .page = w->page};
    if (w->rights & WALK_LARGE)
        full(v)->large2[gva >> 63] = true;
}

static bool same(uint64_t tag, gva_t gva, unsigned shift)
{
    return tag >> shift == gva >> shift;
}

static void slot_drop(struct tlb_bank *b, unsigned i, gva_t gva, unsigned shift)
{
    if (same(b->r[i].tag, gva, shift))
        b->r[i].tag = TLB_INVALID(i);
    if (same(b->w[i].tag, gva, shift))
        b->w[i].tag = TLB_INVALID(i);
}

/* Parts of large pages go by the gigabyte: more than was asked for, never less. */
static void large_drop(struct tlb_full *t, gva_t gva)
{
    for (unsigned user = 0; user < 2; user++)
        for (unsigned word = 0; word < ARRAY_SIZE(t->large1[0]); word++)
            for (uint64_t m = t->large1[user][word]; m; m &= m - 1)
                slot_drop(&t->l1.bank[user], word * 64 + (unsigned)__builtin_ctzll(m), gva, 30);
    for (unsigned i = 0; t->large2[gva >> 63] && i < TLB2_SETS * 2; i++) {
        struct tlb2_entry *e = &t->l2[i / 2][i % 2];
        if (e->tag & WALK_LARGE && same(e->tag, gva, 30))
            e->tag = 0;
    }
}

static void tlb2_drop(struct tlb_full *t, gva_t gva)
{
    struct tlb2_entry *set = t->l2[gva >> 12 & (TLB2_SETS - 1)];
    for (unsigned way = 0; way < 2; way++)
        if (same(set[way].tag, gva, 12))
            set[way].tag = 0;
}

/* ---- upkeep ---- */

void tlb_flush_all(struct soft_vcpu *v)
{
    block_jumps_flush(v);
    if (!v->tlbs)
        return;
    bank_clear(&v->tlbs->bank[0]);
    bank_clear(&v->tlbs->bank[1]);
    struct tlb_full *t = full(v);
    memset(t->l2, 0, sizeof t->l2);
    memset(t->large1, 0, sizeof t->large1);
    memset(t->large2, 0, sizeof t->large2);
}

void tlb_flush_nonglobal(struct soft_vcpu *v)
{
    block_jumps_flush_nonglobal(v);
    if (!v->tlbs)
        return;
    struct tlb_bank *b = &v->tlbs->bank[0];
    for (unsigned i = 0; i < TLB_SIZE; i++)
        if (!slot_global(b, i))
            b->r[i].tag = b->w[i].tag = TLB_INVALID(i);
    bank_clear(&v->tlbs->bank[1]);
    struct tlb_full *t = full(v);
    memset(t->large1[1], 0, sizeof t->large1[1]);
    for (unsigned set = 0; set < TLB2_SETS; set++)
        for (unsigned way = 0; way < 2; way++)
            if (!(t->l2[set][way].tag & WALK_G))
                t->l2[set][way].tag = 0;
}

void tlb_flush_page(struct soft_vcpu *v, gva_t gva)
{
    block_jumps_flush(v);
    if (!v->tlbs)
        return;
    struct tlb_full *t = full(v);
    unsigned i = gva >> 12 & (TLB_SIZE - 1);
    slot_drop(&t->l1.bank[0], i, gva, 12);
    slot_drop(&t->l1.bank[1], i, gva, 12);
    tlb2_drop(t, gva);
    large_drop(t, gva);
}

void tlb_drop_write(struct soft_vcpu *v, const uint8_t *host_page)
{
    if (!v->tlbs)
        return;
    for (unsigned user = 0; user < 2; user++)
        for (unsigned i = 0; i < TLB_SIZE; i++) {
            struct tlb_entry *e = &v->tlbs->bank[user].w[i];
            if (!host_page || e->host == host_page)
                e->tag = TLB_INVALID(i);
        }
}
