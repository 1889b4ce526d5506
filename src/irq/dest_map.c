#include "irq/dest_map.h"

#include <string.h>

static dest_word_t word_at(const _Atomic dest_word_t *words, uint32_t i)
{
    return atomic_load_explicit(&words[i], memory_order_acquire);
}

dest_word_t dest_word_of(const struct lapic *l)
{
    uint8_t model = l->dfr >> 28 == 0xf ? DEST_FLAT : l->dfr >> 28 == 0 ? DEST_CLUSTER : DEST_NO_MODEL;
    return dest_word(l->id, l->mode, l->xid, (uint8_t)(l->ldr >> 24), model) | (l->id8 ? DEST_WORD_8BIT : 0);
}

/* How strong an APIC's claim to a physical ID is; 0: none. The strongest wins, the lowest index among equals. */
static unsigned claim(dest_word_t w, uint32_t dest)
{
    uint32_t id = dest_word_id(w);
    switch (dest_word_mode(w)) {
    case LAPIC_X2APIC:
        return id == dest ? 3 : 0;
    case LAPIC_XAPIC:
        if (id > 0xff && id == dest)
            return 3;
        return dest_word_xid(w) == dest ? (id <= 0xff ? 2 : 1) : 0;
    default:
        return 0;
    }
}

size_t dest_map_size(uint32_t max_id)
{
    uint32_t slots = (max_id < 0xff ? 0xff : max_id) + 1;
    return sizeof(struct dest_map) + slots * sizeof(uint32_t);
}

/* One ID an APIC, and every claim counts. */
static void map_physical8(struct dest_map *m, uint32_t i, dest_word_t w)
{
    bool wide = dest_word_mode(w) == LAPIC_X2APIC;
    uint32_t id = wide ? dest_word_id(w) : dest_word_xid(w);
    m->aliased |= m->phys[id] != DEST_NOBODY || (!wide && dest_word_id(w) > 0xff);
    m->phys[id] = m->phys[id] == DEST_NOBODY ? i : DEST_SEVERAL;
}

static void map_physical(struct dest_map *m, uint8_t strength[256], uint32_t i, dest_word_t w)
{
    uint32_t id = dest_word_id(w);
    if (w & DEST_WORD_8BIT) {
        map_physical8(m, i, w);
        return;
    }
    if (id > 0xff)
        m->phys[id] = i;
    uint32_t low = dest_word_mode(w) == LAPIC_X2APIC ? id : dest_word_xid(w);
    if (low > 0xff)
        return;
    unsigned c = claim(w, low);
    if (c > strength[low]) {
        strength[low] = (uint8_t)c;
        m->phys[low] = i;
    }
}

/* The table's place for an xAPIC's logical ID, or NULL if it is not one bit of one cluster. */
static uint32_t *logical_place(struct dest_map *m, dest_word_t w)
{
    unsigned ldr = dest_word_ldr(w);
    if (dest_word_model(w) == DEST_FLAT)
        return ldr & (ldr - 1) ? NULL : &m->flat[__builtin_ctz(ldr)];
    unsigned bits4 = ldr & 0xf;
    if (!bits4 || bits4 & (bits4 - 1))
        return NULL;
    return &m->cluster[ldr >> 4][__builtin_ctz(bits4)];
}

static void map_logical(struct dest_map *m, uint32_t i, dest_word_t w)
{
    if (!dest_word_ldr(w) || m->xlogical == DEST_XL_SCAN || dest_word_model(w) == DEST_NO_MODEL)
        return;
    uint32_t kind = dest_word_model(w) == DEST_FLAT ? DEST_XL_FLAT : DEST_XL_CLUSTER;
    uint32_t *place = logical_place(m, w);
    if ((m->xlogical != DEST_XL_NONE && m->xlogical != kind) || !place || *place != DEST_NOBODY) {
        m->xlogical = DEST_XL_SCAN;
        return;
    }
    m->xlogical = kind;
    *place = i;
}

void dest_map_build(struct dest_map *m, uint32_t max_id, const _Atomic dest_word_t *words, uint32_t n)
{
    uint8_t strength[256] = {0};
    memset(m, 0xff, dest_map_size(max_id));
    m->slots = (max_id < 0xff ? 0xff : max_id) + 1;
    m->n_xapic = m->n_x2apic = 0;
    m->aliased = m->id_modified = false;
    m->xlogical = DEST_XL_NONE;
    for (uint32_t i = 0; i < n; i++) {
        dest_word_t w = word_at(words, i);
        uint8_t mode = dest_word_mode(w);
        if (mode == LAPIC_DISABLED)
            continue;
        map_physical(m, strength, i, w);
        m->id_modified |= dest_word_id_modified(w);
        if (mode == LAPIC_X2APIC) {
            m->n_x2apic++;
        } else {
            m->n_xapic++;
            map_logical(m, i, w);
        }
    }
}

static bool match_xlogical(dest_word_t w, uint32_t dest)
{
    unsigned ldr = dest_word_ldr(w);
    if (dest > 0xff)
        return false;
    if (dest_word_model(w) == DEST_FLAT)
        return (ldr & dest) != 0;
    return dest_word_model(w) == DEST_CLUSTER && ldr >> 4 == dest >> 4 && (ldr & dest & 0xf) != 0;
}

bool dest_match(dest_word_t w, struct irq irq)
{
    uint32_t id = dest_word_id(w);
    switch (dest_word_mode(w)) {
    case LAPIC_X2APIC:
        if (irq.dest == APIC_BROADCAST32 || (irq.dest == APIC_BROADCAST8 && irq.dest8 == IRQ_DEST8_ALL))
            return true;
        if (!irq.logical)
            return irq.dest == id;
        return irq.dest >> 16 == id >> 4 && (irq.dest >> (id & 15) & 1);
    case LAPIC_XAPIC:
        if (irq.dest == APIC_BROADCAST8 && irq.dest8)
            return true;
        if (!irq.logical)
            return w & DEST_WORD_8BIT && irq.dest == dest_word_xid(w);
        return match_xlogical(w, irq.dest);
    default:
        return false;
    }
}

static void set_add(struct dest_set *set, uint32_t idx)
{
    uint32_t at = set->n++;
    for (; at > 0 && set->idx[at - 1] > idx; at--)
        set->idx[at] = set->idx[at - 1];
    set->idx[at] = idx;
}

static uint32_t find_physical(const _Atomic dest_word_t *words, uint32_t n, uint32_t dest)
{
    uint32_t found = DEST_NOBODY;
    unsigned best = 0;
    if (n && word_at(words, 0) & DEST_WORD_8BIT)
        return DEST_SEVERAL;
    for (uint32_t i = 0; i < n && best < 3; i++) {
        unsigned c = claim(word_at(words, i), dest);
        if (c > best) {
            best = c;
            found = i;
        }
    }
    return found;
}

/* x2APIC logical IDs follow from the IDs, so that the physical slots serve. */
static void add_x2logical(const struct dest_map *m, const _Atomic dest_word_t *words, struct irq irq,
                          struct dest_set *set)
{
    for (uint32_t left = irq.dest & 0xffff; left; left &= left - 1) {
        uint32_t id = (irq.dest >> 16) << 4 | (uint32_t)__builtin_ctz(left);
        uint32_t i = dest_map_physical(m, id);
        if (i == DEST_SEVERAL)
            set->scan = true;
        if (i >= DEST_SEVERAL)
            continue;
        dest_word_t w = word_at(words, i);
        if (dest_word_mode(w) == LAPIC_X2APIC && dest_word_id(w) == id)
            set_add(set, i);
    }
}

static void add_xlogical(const struct dest_map *m, uint32_t dest, struct dest_set *set)
{
    const uint32_t *table = m->flat;
    uint32_t left = dest;
    if (m->xlogical == DEST_XL_CLUSTER) {
        table = m->cluster[dest >> 4];
        left &= 0xf;
    }
    for (; left; left &= left - 1) {
        uint32_t i = table[__builtin_ctz(left)];
        if (i != DEST_NOBODY)
            set_add(set, i);
    }
}

void dest_find(const struct dest_map *m, const _Atomic dest_word_t *words, uint32_t n, struct irq irq,
               struct dest_set *set)
{
    set->scan = false;
    set->n = 0;
    bool to_all8 = irq.dest == APIC_BROADCAST8 && irq.dest8 && (!m || m->n_xapic || irq.dest8 == IRQ_DEST8_ALL);
    if (irq.dest == APIC_BROADCAST32 || to_all8) {
        set->scan = true;
    } else if (!irq.logical) {
        uint32_t i = m ? dest_map_physical(m, irq.dest) : find_physical(words, n, irq.dest);
        set->scan = i == DEST_SEVERAL;
        if (i < DEST_SEVERAL)
            set_add(set, i);
    } else if (!m || (m->xlogical == DEST_XL_SCAN && irq.dest <= 0xff)) {
        set->scan = true;
    } else {
        if (m->n_x2apic)
            add_x2logical(m, words, irq, set);
        if (m->xlogical != DEST_XL_NONE && irq.dest <= 0xff)
            add_xlogical(m, irq.dest, set);
    }
}
