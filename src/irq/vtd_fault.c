/* Fault records, and the two interrupts of the unit's own. VT-d, "Non-Recoverable Fault Reporting" and "Fault Event
 * Interrupts". */
#include "irq/vtd_priv.h"
#include "irq/way.h"

#define RECORD_F    BIT(63) /* upper quad */
#define RECORD_READ BIT(62)
#define FSTS_SERVED (VTD_FSTS_PFO | VTD_FSTS_PPF | VTD_FSTS_IQE)

enum { EVENT_CTL, EVENT_DATA, EVENT_ADDR, EVENT_UADDR };

/* ---- events ---- */

static void send(struct vtd *v, const struct vtd_event *ev)
{
    struct msi_msg msg = {.addr = (uint64_t)ev->uaddr << 32 | ev->addr, .data = ev->data};
    struct remap_result res = remap_unit_msi(msg);
    res.irq.way = way_from_unit(v->cfg.trace, ev == &v->fault ? "VT-d fault event" : "VT-d invalidation event");
    way_route(v->cfg.trace, res.irq.way, msg, &res);
    int taken = res.fault == REMAP_OK ? v->cfg.port.deliver(v->cfg.port.opaque, res.irq) : 0;
    way_end(v->cfg.trace, res.irq.way, taken);
}

void vtd_event_raise(struct vtd *v, struct vtd_event *ev)
{
    if (ev->ctl & VTD_EVENT_MASKED)
        ev->ctl |= VTD_EVENT_PENDING;
    else
        send(v, ev);
}

/* The upper address only exists where destinations are wider than 8 bits. */
void vtd_event_write(struct vtd *v, struct vtd_event *ev, unsigned reg, uint32_t val)
{
    switch (reg) {
    case EVENT_CTL:
        ev->ctl = (ev->ctl & VTD_EVENT_PENDING) | (val & VTD_EVENT_MASKED);
        if (ev->ctl == VTD_EVENT_PENDING) {
            ev->ctl = 0;
            send(v, ev);
        }
        break;
    case EVENT_DATA:
        ev->data = val & 0xffff;
        break;
    case EVENT_ADDR:
        ev->addr = val & ~3u;
        break;
    default:
        ev->uaddr = v->cfg.eim ? val : 0;
    }
}

/* ---- status ---- */

/* Only the first reason to call sends an event: the guest's handler looks at all there is. */
void vtd_fault_status(struct vtd *v, uint32_t bit)
{
    bool first = !(v->fsts & FSTS_SERVED);
    v->fsts |= bit;
    if (first)
        vtd_event_raise(v, &v->fault);
}

static void status_cleared(struct vtd *v)
{
    if (!(v->fsts & FSTS_SERVED))
        v->fault.ctl &= ~VTD_EVENT_PENDING;
}

uint32_t vtd_fault_read_status(const struct vtd *v)
{
    return v->fsts | (v->fsts & VTD_FSTS_PPF ? v->fault_first << 8 : 0);
}

/* Bits are cleared by writing 1; PPF only follows the records. A queue that stopped at an error goes on. */
void vtd_fault_write_status(struct vtd *v, uint32_t val)
{
    v->fsts &= ~(val & (VTD_FSTS_PFO | VTD_FSTS_IQE));
    status_cleared(v);
    if (val & VTD_FSTS_IQE)
        vtd_queue_run(v);
}

/* ---- records ---- */

/* `val` goes to a record's highest word: its F bit is cleared by writing 1. */
void vtd_fault_write_record(struct vtd *v, unsigned record, uint32_t val)
{
    if (val >> 31)
        v->frcd[record][1] &= ~RECORD_F;
    for (unsigned i = 0; i < VTD_FAULTS; i++)
        if (v->frcd[i][1] & RECORD_F)
            return;
    v->fsts &= ~VTD_FSTS_PPF;
    status_cleared(v);
}

/* VT-d, "Primary Fault Logging": after an overflow nothing is recorded until the guest has seen it. */
static void record(struct vtd *v, uint64_t info, uint64_t what)
{
    unsigned n = v->fault_next;
    if (v->fsts & VTD_FSTS_PFO)
        return;
    if (v->frcd[n][1] & RECORD_F) {
        vtd_fault_status(v, VTD_FSTS_PFO);
        return;
    }
    v->frcd[n][0] = info & VTD_PAGE_MASK;
    v->frcd[n][1] = what | RECORD_F;
    v->fault_next = (n + 1) % VTD_FAULTS;
    if (!(v->fsts & VTD_FSTS_PPF))
        v->fault_first = n;
    vtd_fault_status(v, VTD_FSTS_PPF);
}

void vtd_fault_log(struct vtd *v, unsigned reason, requester_id_t from, uint64_t info, bool read)
{
    pthread_mutex_lock(&v->lock);
    record(v, info, (uint64_t)reason << 32 | from.rid | (read ? RECORD_READ : 0));
    pthread_mutex_unlock(&v->lock);
}
