/* An Intel VT-d remapping unit: interrupt remapping and posting, queued and register-based invalidation, fault records,
 * legacy-mode DMA translation. VT-d = "Intel Virtualization Technology for Directed I/O, Architecture Specification".
 *
 * A delivery reads one atomic word of the unit's state and the table entry itself, which is never cached: an
 * invalidation of the interrupt entry cache has nothing to drop here, it only tells `stale`, where somebody keeps
 * routes that look-ups gave him. Registers, the queue and the fault records are behind one lock that deliveries take
 * only to log a fault.
 */
#ifndef HEC_IRQ_VTD_H
#define HEC_IRQ_VTD_H

#include "base/err.h"
#include "base/trace.h"
#include "irq/irq_msg.h"
#include "irq/remap.h"
#include "mem/bus.h"
#include "mem/ram.h"

#define VTD_GPA    UINT64_C(0xfed90000)
#define VTD_SIZE   UINT64_C(0x1000)
#define VTD_FAULTS 8 /* fault recording registers */

struct vtd;

struct vtd_config {
    bool intremap;        /* ECAP.IR, and posting with it */
    bool eim;             /* ECAP.EIM: 32-bit destinations; only with intremap */
    bool caching_mode;    /* CAP.CM */
    bool dma_translation; /* off: CAP.SAGAW is 0 and GCMD.TE does nothing */
    uint8_t aw_bits;      /* width of DMA addresses, 39 or 48 */
    uint8_t phys_bits;    /* width of guest-physical addresses, 39 .. 52 */
    bool scoped;          /* only `scope` is behind the unit: others' messages and accesses pass untouched */
    requester_id_t scope;
    const struct ram *ram;     /* borrowed */
    struct irq_port port;      /* takes the unit's own interrupts */
    struct remap_stale stale;  /* may be empty; called under the unit's lock, must not touch the unit's registers */
    const struct trace *trace; /* borrowed, may be NULL */
};

/* Where a device's access goes. Valid until the page is invalidated; an access already under way may still finish. */
struct vtd_page {
    gpa_t gpa;
    uint64_t len; /* bytes from there on that the same look-up speaks for */
    bool write;   /* writing is allowed too */
};

/* ---- lifecycle ---- */
/* -EINVAL: eim without intremap, or a width that is none of these; -ENOMEM. */
int vtd_create(const struct vtd_config *c, struct vtd **out, struct err *e);
void vtd_destroy(struct vtd *v);
/* Everything off, no fault recorded. No vCPU runs. */
void vtd_reset(struct vtd *v);

/* ---- any thread (inside the epoch) ---- */
/* The translator's step: true if this unit has the last word on `msg` (an interrupt in `res`, a fault, or a posted
 * interrupt), false if the message passes untouched. Faults are recorded unless `flags` says look-up. VT-d, "Interrupt
 * Remapping". */
bool vtd_remap(struct vtd *v, struct msi_msg msg, requester_id_t from, unsigned flags, struct remap_result *res);
/* Translate one access of a device. `iova` is no interrupt address (FEExxxxxh): those writes are messages. False: the
 * access is blocked and the fault recorded. VT-d, "DMA Remapping", legacy mode. */
bool vtd_translate(struct vtd *v, requester_id_t from, uint64_t iova, bool write, struct vtd_page *out);
/* MMIO at VTD_GPA, VTD_SIZE bytes; `dev` is the struct vtd. 32 and 64-bit accesses, aligned; others read as parts and
 * write nothing. VT-d, "Register Descriptions". */
extern const struct bus_ops vtd_bus_ops;

#endif
