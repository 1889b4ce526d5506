/* The event log and the interrupt that says so. 48882, "Event Logging" and "IOMMU Interrupt Support". */
#include "irq/amdvi_priv.h"
#include "irq/way.h"

/* ---- the interrupt ---- */

/* 48882, "XT IOMMU General Interrupt Control Register". */
static struct irq xt_irq(uint64_t r)
{
    return (struct irq){.dest = (uint32_t)(bits(r, 31, 8) | bits(r, 63, 56) << 24),
                        .vector = (uint8_t)bits(r, 39, 32),
                        .mode = r & BIT(40) ? IRQ_LOWEST : IRQ_FIXED,
                        .logical = (r & BIT(2)) != 0,
                        .assert_ = 1};
}

static void send_xt(struct amdvi *a)
{
    struct irq irq = xt_irq(a->xt_int[0]);
    irq.way = way_from_unit(a->cfg.trace, "AMD-Vi event");
    way_end(a->cfg.trace, irq.way, a->cfg.port.deliver(a->cfg.port.opaque, irq));
}

/* The unit does not remap itself, so neither way can fault into the log again. */
static void send(struct amdvi *a)
{
    if (a->cfg.xt && atomic_load_explicit(&a->control, memory_order_relaxed) & CTL_INTCAPXT_EN)
        send_xt(a);
    else if (a->msi_enabled)
        remap_deliver_msi(a->cfg.remap, a->cfg.port, a->msi, a->cfg.requester);
}

void amdvi_lines_changed(struct amdvi *a)
{
    uint64_t control = atomic_load_explicit(&a->control, memory_order_relaxed), want = 0;
    if (control & CTL_EVT_INT_EN)
        want |= a->status & (ST_EVT_INT | ST_EVT_OVERFLOW);
    if (control & CTL_COM_WAIT_EN)
        want |= a->status & ST_COM_WAIT;
    bool risen = want & ~a->lines;
    a->lines = want;
    if (risen)
        send(a);
}

void amdvi_set_msi(struct amdvi *a, bool enabled, struct msi_msg msg)
{
    pthread_mutex_lock(&a->lock);
    a->msi_enabled = enabled;
    a->msi = msg;
    pthread_mutex_unlock(&a->lock);
}

/* ---- the log ---- */

/* 48882, "ILLEGAL_DEV_TABLE_ENTRY Event" and those after it: they differ in which fields are there, not where. */
static void encode(const struct amdvi_event *ev, uint64_t q[2])
{
    uint32_t high = (uint32_t)ev->code << 28 | ev->flags | ev->domain;
    q[0] = ev->device | (uint64_t)high << 32;
    q[1] = ev->addr;
}

/* One entry stays free, so that a full log is told from an empty one. */
void amdvi_log_locked(struct amdvi *a, struct amdvi_event ev)
{
    uint64_t q[2], size = amdvi_buffer_size(a->evt_base), tail = a->evt_tail & (size - 1), next;
    trace(a->cfg.trace, TRACE_IRQ, "amdvi: event %u device %04xh flags %07xh address %llxh", ev.code, ev.device,
          ev.flags, (unsigned long long)ev.addr);
    if (!(a->status & ST_EVT_RUN))
        return;
    next = (tail + 16) & (size - 1);
    if (next == (a->evt_head & (size - 1))) {
        a->status = (a->status | ST_EVT_OVERFLOW) & ~ST_EVT_RUN;
    } else {
        gpa_t at = (a->evt_base & ADDR_51_12) + tail;
        uint8_t *p = ram_hva(a->cfg.ram, at, 16);
        if (!p)
            return;
        encode(&ev, q);
        atomic_store_explicit((_Atomic uint64_t *)(void *)(p + 8), q[1], memory_order_relaxed);
        atomic_store_explicit((_Atomic uint64_t *)(void *)p, q[0], memory_order_release);
        ram_written(a->cfg.ram, at, 16);
        a->evt_tail = next;
        a->status |= ST_EVT_INT;
    }
    amdvi_lines_changed(a);
}

void amdvi_log(struct amdvi *a, struct amdvi_event ev)
{
    pthread_mutex_lock(&a->lock);
    amdvi_log_locked(a, ev);
    pthread_mutex_unlock(&a->lock);
}
