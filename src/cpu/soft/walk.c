#include "cpu/soft/walk.h"

#include "cpu/soft/mmu.h"

enum { MAX_LEVELS = 4 };

/* How one paging mode is laid out. Level 0 is the page table. */
struct walk_mode {
    uint8_t levels;
    uint8_t bits;       /* of an index, but for PAE's top level */
    uint8_t entry;      /* bytes */
    uint8_t large;      /* bitmap of levels where PS makes a leaf */
    bool pdpte;         /* the top level is PAE's: no rights, no accessed bit */
    uint64_t reserved;  /* in every entry (not PDPTEs) */
    uint64_t addr_mask; /* address bits of an entry */
    uint64_t table;     /* gpa of the top table */
};

struct walk_step {
    gpa_t gpa;
    uint64_t val;
};

uint64_t walk_phys_mask(const struct soft_vcpu *v)
{
    return BIT(v->vm->cfg.cpuid->phys_bits) - 1;
}

static struct walk_mode walk_mode(const struct soft_vcpu *v)
{
    uint64_t phys = walk_phys_mask(v);
    uint64_t nx = v->st.efer & EFER_NXE ? 0 : PTE_NX;
    if (!(v->st.cr4 & CR4_PAE))
        return (struct walk_mode){.levels = 2,
                                  .bits = 10,
                                  .entry = 4,
                                  .large = v->st.cr4 & CR4_PSE ? 2 : 0,
                                  .addr_mask = 0xfffff000,
                                  .table = v->st.cr3 & 0xfffff000};
    if (!(v->st.efer & EFER_LMA))
        return (struct walk_mode){.levels = 3,
                                  .bits = 9,
                                  .entry = 8,
                                  .large = 2,
                                  .pdpte = true,
                                  .reserved = (~phys & ~PTE_NX) | nx,
                                  .addr_mask = phys & ~UINT64_C(0xfff),
                                  .table = v->st.cr3 & 0xffffffe0};
    bool gib = v->vm->cfg.cpuid->ext1_edx & CPUID_EXT1_EDX_PDPE1GB;
    return (struct walk_mode){.levels = 4,
                              .bits = 9,
                              .entry = 8,
                              .large = gib ? 6 : 2,
                              .reserved = (~phys & (BIT(52) - 1)) | nx,
                              .addr_mask = phys & ~UINT64_C(0xfff),
                              .table = v->st.cr3 & phys & ~UINT64_C(0xfff)};
}

static uint64_t pte_load(const struct soft_vcpu *v, gpa_t gpa, unsigned size)
{
    const uint8_t *p = ram_hva(v_ram(v), gpa, size);
    return p ? guest_ld(p, size) : size_mask(size);
}

/* False: the entry no longer is `old`. */
static bool pte_set(struct soft_vcpu *v, gpa_t gpa, unsigned size, uint64_t old, uint64_t set)
{
    uint8_t *p = ram_hva(v_ram(v), gpa, size);
    if (!p)
        return true;
    bool done;
    if (size == 4) {
        uint32_t expect = (uint32_t)old;
        done = __atomic_compare_exchange_n((uint32_t *)(void *)p, &expect, (uint32_t)(old | set), false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    } else {
        done = __atomic_compare_exchange_n((uint64_t *)(void *)p, &old, old | set, false, __ATOMIC_SEQ_CST,
                                           __ATOMIC_SEQ_CST);
    }
    if (done && unlikely(block_page_has_code(v->vm, gpa)))
        block_store(v, gpa, size);
    return done;
}

static uint64_t pdpte_reserved(const struct soft_vcpu *v)
{
    return ~walk_phys_mask(v) | 0x1e6;
}

bool walk_pdptes_valid(const struct soft_vcpu *v, uint64_t cr3)
{
    for (unsigned i = 0; i < 4; i++) {
        uint64_t e = pte_load(v, (cr3 & 0xffffffe0) + i * 8, 8);
        if (e & PTE_P && e & pdpte_reserved(v))
            return false;
    }
    return true;
}

bool walk_allows(const struct soft_vcpu *v, uint32_t rights, unsigned acc, bool user)
{
    if (user && !(rights & WALK_U))
        return false;
    if (acc & ACC_WRITE)
        return rights & WALK_W || (!user && !(v->st.cr0 & CR0_WP));
    if (acc & ACC_EXEC)
        return !(rights & WALK_NX) && (user || !(rights & WALK_U) || !(v->st.cr4 & CR4_SMEP));
    return true;
}

static uint64_t walk_reserved(const struct soft_vcpu *v, const struct walk_mode *m, unsigned level, bool leaf)
{
    if (m->pdpte && level == 2)
        return pdpte_reserved(v);
    if (!level)
        return m->reserved;
    if (leaf)
        return m->reserved | (BIT(12 + level * m->bits) - BIT(13));
    /* PS where it makes no leaf is reserved in 4-level tables, and ignored in a 32-bit one without CR4.PSE. */
    return m->levels == 4 ? m->reserved | PTE_PS : m->reserved;
}

/* Follow the tables to the leaf; fills step[level] and returns the leaf's level, or -1 with the error's P and R bits.
 */
static int walk_down(const struct soft_vcpu *v, const struct walk_mode *m, gva_t gva, struct walk_step *step,
                     uint32_t *rights, uint32_t *error)
{
    uint64_t table = m->table;
    *rights = WALK_W | WALK_U;
    for (int level = m->levels - 1;; level--) {
        bool top = m->pdpte && level == 2;
        uint64_t index = gva >> (12 + level * m->bits) & (top ? 3 : BIT(m->bits) - 1);
        step[level].gpa = table + index * m->entry;
        uint64_t e = step[level].val = pte_load(v, step[level].gpa, m->entry);
        bool leaf = level == 0 || (e & PTE_PS && m->large >> level & 1);
        *error = e & PTE_P;
        if (!*error)
            return -1;
        if (e & walk_reserved(v, m, (unsigned)level, leaf)) {
            *error |= PF_R;
            return -1;
        }
        if (!top) {
            *rights &= (e & PTE_W ? WALK_W : 0) | (e & PTE_U ? WALK_U : 0) | WALK_NX;
            *rights |= e & PTE_NX ? WALK_NX : 0;
        }
        if (leaf)
            return level;
        table = e & m->addr_mask;
    }
}

/* Set what the access sets. False: an entry changed meanwhile. */
static bool walk_mark(struct soft_vcpu *v, const struct walk_mode *m, const struct walk_step *step, int leaf,
                      bool write)
{
    for (int level = m->levels - 1; level >= leaf; level--) {
        if (m->pdpte && level == 2)
            continue;
        uint64_t want = PTE_A | (level == leaf && write ? PTE_D : 0);
        if ((step[level].val & want) != want && !pte_set(v, step[level].gpa, m->entry, step[level].val, want))
            return false;
    }
    return true;
}

bool walk_page(struct soft_vcpu *v, gva_t gva, unsigned acc, bool user, struct walk *out, uint32_t *error)
{
    struct walk_mode m = walk_mode(v);
    struct walk_step step[MAX_LEVELS];
    bool write = acc & ACC_WRITE;
    uint32_t kind = (write ? PF_W : 0) | (user ? PF_U : 0);
    if (acc & ACC_EXEC && ((v->st.cr4 & CR4_PAE && v->st.efer & EFER_NXE) || v->st.cr4 & CR4_SMEP))
        kind |= PF_I;
    for (;;) {
        uint32_t rights;
        int leaf = walk_down(v, &m, gva, step, &rights, error);
        *error |= kind;
        if (leaf < 0)
            return false;
        if (!walk_allows(v, rights, acc, user))
            return false;
        if (!walk_mark(v, &m, step, leaf, write))
            continue;
        uint64_t e = step[leaf].val, inside = BIT(12 + leaf * m.bits) - 1;
        out->page = ((e & m.addr_mask & ~inside) | (gva & inside)) & ~UINT64_C(0xfff);
        out->rights = rights | (write || e & PTE_D ? WALK_D : 0) | (leaf ? WALK_LARGE : 0) |
                      (e & PTE_G && v->st.cr4 & CR4_PGE ? WALK_G : 0);
        return true;
    }
}
