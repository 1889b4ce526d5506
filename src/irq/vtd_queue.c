/* The invalidation queue. VT-d, "Queued Invalidation Interface". */
#include "irq/vtd_priv.h"

enum { DESC_CONTEXT = 1, DESC_IOTLB = 2, DESC_IEC = 4, DESC_WAIT = 5 };

#define DESC_SIZE 16

#define CONTEXT_RSVD_LO (UINT64_C(0x3fff) << 50 | UINT64_C(0x3ff) << 6)
#define IOTLB_RSVD_LO   (~UINT64_C(0xffff00ff))
#define IOTLB_RSVD_HI   (UINT64_C(0x1f) << 7)
#define IEC_SELECTIVE   BIT(4)
#define IEC_RSVD_LO     (UINT64_C(0xffff) << 48 | UINT64_C(0x3fffff) << 5)
#define WAIT_IF         BIT(4)
#define WAIT_SW         BIT(5)
#define WAIT_RSVD_LO    (UINT64_C(0x1ffffff) << 7)

struct desc {
    uint64_t lo, hi;
};

/* ---- descriptors; false: invalid ---- */

static bool do_context(struct vtd *v, struct desc d)
{
    unsigned grain = (unsigned)bits(d.lo, 5, 4);
    if (!grain || d.lo & CONTEXT_RSVD_LO || d.hi)
        return false;
    vtd_tlb_drop_context(v, grain, (uint16_t)bits(d.lo, 31, 16), (uint16_t)bits(d.lo, 47, 32),
                         (unsigned)bits(d.lo, 49, 48));
    return true;
}

static bool do_iotlb(struct vtd *v, struct desc d)
{
    unsigned grain = (unsigned)bits(d.lo, 5, 4), mask = (unsigned)bits(d.hi, 5, 0);
    if (!grain || d.lo & IOTLB_RSVD_LO || d.hi & IOTLB_RSVD_HI || (grain == VTD_GRAIN_SELECTIVE && mask > VTD_MAMV))
        return false;
    vtd_tlb_drop(v, grain, (uint16_t)bits(d.lo, 31, 16), d.hi & VTD_PAGE_MASK, mask);
    return true;
}

/* Entries are read at each delivery; what may be stale are the routes that others keep. Cookies are index + 1. */
static bool do_iec(struct vtd *v, struct desc d)
{
    uint32_t first = 0, last = UINT32_MAX;
    unsigned mask = (unsigned)bits(d.lo, 31, 27);
    if (d.lo & IEC_RSVD_LO || d.hi || !(v->ecap & BIT(3)))
        return false;
    if (d.lo & IEC_SELECTIVE) {
        if (mask > VTD_MHMV)
            return false;
        first = (uint32_t)align_down(bits(d.lo, 47, 32), BIT(mask)) + 1;
        last = first + (1u << mask) - 1;
    }
    trace(v->cfg.trace, TRACE_IRQ, "vtd: interrupt entries %xh-%xh invalidated", first ? first - 1 : 0, last - 1);
    if (v->cfg.stale.fn)
        v->cfg.stale.fn(v->cfg.stale.opaque, first, last);
    return true;
}

/* Everything before it is done already: descriptors are worked off in order. */
static bool do_wait(struct vtd *v, struct desc d)
{
    if (d.lo & WAIT_RSVD_LO || d.hi & 3)
        return false;
    if (d.lo & WAIT_SW) {
        uint32_t *status = (uint32_t *)ram_hva(v->cfg.ram, d.hi, 4);
        if (!status)
            return false;
        __atomic_store_n(status, (uint32_t)(d.lo >> 32), __ATOMIC_RELEASE);
        ram_written(v->cfg.ram, d.hi, 4);
    }
    if (d.lo & WAIT_IF && !(v->ics & VTD_ICS_IWC)) {
        v->ics |= VTD_ICS_IWC;
        vtd_event_raise(v, &v->inv);
    }
    return true;
}

static bool do_one(struct vtd *v, struct desc d)
{
    switch (d.lo & 0xf) {
    case DESC_CONTEXT:
        return do_context(v, d);
    case DESC_IOTLB:
        return do_iotlb(v, d);
    case DESC_IEC:
        return do_iec(v, d);
    case DESC_WAIT:
        return do_wait(v, d);
    default:
        return false;
    }
}

/* ---- the queue ---- */

static uint32_t queue_entries(const struct vtd *v)
{
    return 1u << (8 + (v->iqa & 7));
}

/* At an error the head stays at the descriptor, and nothing more is done until the guest has cleared IQE. The queue's
 * length bounds the loop: only the guest moves the tail, and it is waiting for the lock. */
void vtd_queue_run(struct vtd *v)
{
    uint32_t n = queue_entries(v);
    while (v->gsts & VTD_G_QIE && !(v->fsts & VTD_FSTS_IQE) && v->iqh != v->iqt) {
        const uint64_t *p =
            (const uint64_t *)ram_hva(v->cfg.ram, (v->iqa & VTD_PAGE_MASK) + (uint64_t)v->iqh * DESC_SIZE, DESC_SIZE);
        if (!p || v->iqt >= n ||
            !do_one(
                v, (struct desc){__atomic_load_n(&p[0], __ATOMIC_ACQUIRE), __atomic_load_n(&p[1], __ATOMIC_ACQUIRE)})) {
            trace(v->cfg.trace, TRACE_IRQ, "vtd: invalidation queue stopped at descriptor %u", v->iqh);
            vtd_fault_status(v, VTD_FSTS_IQE);
            return;
        }
        v->iqh = (v->iqh + 1) % n;
    }
}

void vtd_queue_write_tail(struct vtd *v, uint32_t val)
{
    v->iqt = (uint32_t)bits(val, 18, 4);
    vtd_queue_run(v);
}
