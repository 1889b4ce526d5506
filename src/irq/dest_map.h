/* From a destination to the APICs it names. A map is an immutable snapshot of who has which ID in which mode, built
 * from one word an APIC; without a map the words themselves are searched, with the same answer.
 *
 * Physical: an APIC answers to its 32-bit ID in x2APIC mode, and also in xAPIC mode when that ID is past FFh, so that a
 * CPU that has not yet been started can be woken by its full ID. In xAPIC mode it answers to its xAPIC ID too; where
 * several claim one 8-bit ID, the order is: an x2APIC's own; then xAPIC-mode APICs whose ID fits 8 bits; then the
 * truncated IDs of the others; in each the lowest vCPU index. (That is KVM with 32-bit IDs, on machines whose IDs
 * ascend; here no order of CPUs lets a truncated ID hide a real one.) Broadcast: FFFFFFFFh is every APIC in x2APIC
 * mode; FFh from an 8-bit field is every one in xAPIC mode (and the x2APIC whose ID it is; with the broadcast quirk
 * every x2APIC, see enum irq_dest8). An APIC whose word says DEST_WORD_8BIT has, in xAPIC mode, its 8-bit ID alone, and
 * nobody hides anybody: all that claim one ID receive, as on hardware (SDM 3A, "Local APIC ID"). Logical: SDM 3A,
 * "Logical Destination Mode in xAPIC Mode" and "... in x2APIC Mode", each by its own receivers.
 */
#ifndef HEC_IRQ_DEST_MAP_H
#define HEC_IRQ_DEST_MAP_H

#include "base/epoch.h"
#include "irq/irq_msg.h"
#include "irq/lapic.h"

/* What one APIC answers to, in one word, so that readers need no lock. */
typedef uint64_t dest_word_t;

enum dest_model { DEST_FLAT = 0, DEST_CLUSTER = 1, DEST_NO_MODEL = 2 };

static inline dest_word_t dest_word(apic_id_t id, uint8_t mode, uint8_t xid, uint8_t ldr, uint8_t model)
{
    return id.id | (uint64_t)xid << 32 | (uint64_t)ldr << 40 | (uint64_t)mode << 48 | (uint64_t)model << 50;
}

#define DEST_WORD_8BIT BIT(52) /* in xAPIC mode the APIC does not answer to its 32-bit ID */

static inline uint32_t dest_word_id(dest_word_t w)
{
    return (uint32_t)w;
}

static inline uint8_t dest_word_xid(dest_word_t w)
{
    return (uint8_t)(w >> 32);
}

static inline uint8_t dest_word_ldr(dest_word_t w)
{
    return (uint8_t)(w >> 40);
}

static inline uint8_t dest_word_mode(dest_word_t w)
{
    return w >> 48 & 3;
}

static inline uint8_t dest_word_model(dest_word_t w)
{
    return w >> 50 & 3;
}

/* The word of an APIC as it is now. Owner's thread. */
dest_word_t dest_word_of(const struct lapic *l);

#define DEST_NOBODY  UINT32_MAX
#define DEST_SEVERAL (UINT32_MAX - 1) /* in a map's slot: search the words */

enum dest_xlogical {
    DEST_XL_NONE,    /* no APIC in xAPIC mode has a logical ID */
    DEST_XL_FLAT,    /* all flat, one bit each, no two the same */
    DEST_XL_CLUSTER, /* all cluster, likewise */
    DEST_XL_SCAN     /* anything else: search the words */
};

struct dest_map {
    struct epoch_node retired;  /* for whoever publishes the map */
    uint32_t n_xapic, n_x2apic; /* APICs in each mode */
    bool id_modified;           /* an xAPIC ID is not the low byte of the APIC's own */
    uint32_t xlogical;          /* enum dest_xlogical */
    uint32_t flat[8];           /* vCPU index by LDR bit */
    uint32_t cluster[16][4];
    bool aliased; /* DEST_WORD_8BIT: an ID has several owners, or an owner that the map's index by ID names otherwise */
    uint32_t slots;  /* length of phys */
    uint32_t phys[]; /* vCPU index by physical ID, DEST_NOBODY or DEST_SEVERAL */
};

/* Whom a destination names: a short list of vCPU indices, ascending, or "those whose word matches". */
#define DEST_LIST_MAX 24
struct dest_set {
    bool scan; /* ask dest_match() of every word */
    uint32_t n;
    uint32_t idx[DEST_LIST_MAX];
};

/* ---- any thread ---- */
/* Bytes of a map for IDs up to `max_id`. */
size_t dest_map_size(uint32_t max_id);
/* Fill `m` (dest_map_size(max_id) bytes) from `n` words. O(n + max_id). */
void dest_map_build(struct dest_map *m, uint32_t max_id, const _Atomic dest_word_t *words, uint32_t n);

static inline uint32_t dest_map_physical(const struct dest_map *m, uint32_t dest)
{
    return dest < m->slots ? m->phys[dest] : DEST_NOBODY;
}

/* In xAPIC mode, with an ID of the guest's choice. The low byte of a 32-bit ID is no choice. */
static inline bool dest_word_id_modified(dest_word_t w)
{
    return dest_word_mode(w) == LAPIC_XAPIC && dest_word_xid(w) != (uint8_t)dest_word_id(w);
}

/* Everyone `irq` (shorthand IRQ_DEST) is for. `m` may be NULL: then by the words alone. */
void dest_find(const struct dest_map *m, const _Atomic dest_word_t *words, uint32_t n, struct irq irq,
               struct dest_set *set);
/* Whether an APIC is among the receivers of a destination for which dest_find() says `scan`. */
bool dest_match(dest_word_t w, struct irq irq);

/* True if the physical destination names at most one APIC. */
static inline bool dest_is_single(struct irq irq)
{
    return !irq.logical && irq.dest != APIC_BROADCAST32 && !(irq.dest == APIC_BROADCAST8 && irq.dest8);
}

#endif
