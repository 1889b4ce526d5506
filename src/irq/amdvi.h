/* The AMD I/O virtualization unit (AMD-Vi): device table, command buffer, event log, interrupt remapping and host page
 * tables. AMD I/O Virtualization Technology (IOMMU) Specification, publication 48882.
 *
 * What it offers is in amdvi_efr() and amdvi_efr2(): interrupt tables of up to 2048 entries of 32 or 128 bits, x2APIC
 * destinations, host tables of up to six levels. No guest translation, no page requests, no guest virtual APIC.
 *
 * Nothing of the interrupt tables is cached: a look-up reads the device's entry and the interrupt's entry from guest
 * memory, in one atomic access each, so that invalidations have no delivery to wait for. Routes that others hold
 * (struct remap_result's cookie) are named stale by the `stale` hook. Host translations are cached (amdvi_dma.c).
 *
 * Delivery takes no lock unless it faults; then it writes the event log under the unit's lock. Lock order: callers'
 * (an I/O APIC's, the PCI host's) before the unit's before the APICs'.
 */
#ifndef HEC_IRQ_AMDVI_H
#define HEC_IRQ_AMDVI_H

#include "base/err.h"
#include "base/trace.h"
#include "irq/remap.h"
#include "mem/bus.h"
#include "mem/ram.h"

#define AMDVI_GPA    UINT64_C(0xfed80000)
#define AMDVI_SIZE   UINT64_C(0x4000)
#define AMDVI_RID    0x02 /* 00:00.2, where AMD's machines have it */
#define AMDVI_LEVELS 6    /* of host page tables */

struct amdvi;

struct amdvi_config {
    bool intremap;            /* off: interrupts pass as if no device had an interrupt table */
    bool xt;                  /* EFR says XTSup: 32-bit destinations, once the guest sets XTEN */
    bool dma_translation;     /* off: EFR HATS = 11b, no host page tables */
    requester_id_t requester; /* the unit's own PCI function */
    bool scoped;              /* only `scope` is behind the unit: others' messages and accesses pass untouched */
    requester_id_t scope;
    const struct ram *ram;     /* borrowed: all that its tables can be in */
    const struct remap *remap; /* borrowed: its own MSI's way */
    struct irq_port port;
    struct remap_stale stale;  /* told of invalidated routes, under the unit's lock; fn NULL: nobody holds any */
    const struct trace *trace; /* borrowed, may be NULL */
};

/* What the unit is able to, as its registers and the IVRS table say it. 48882, "IOMMU Extended Feature Register". */
uint64_t amdvi_efr(bool xt, bool dma_translation);
uint64_t amdvi_efr2(void);

/* ---- lifecycle ---- */
int amdvi_create(const struct amdvi_config *c, struct amdvi **out, struct err *e);
void amdvi_destroy(struct amdvi *a);
/* Everything off, translations forgotten. No vCPU runs. */
void amdvi_reset(struct amdvi *a);

/* ---- any thread (inside the epoch) ---- */
/* MMIO at AMDVI_GPA, AMDVI_SIZE bytes; `dev` is the struct amdvi. */
extern const struct bus_ops amdvi_bus_ops;
/* Translate a message to FEExxxxxh. True: `res` has the interrupt or the fault. False: the unit lets it pass unchanged.
 * 48882, "Interrupt Remapping". Only for remap.c. */
bool amdvi_remap(struct amdvi *a, struct msi_msg msg, requester_id_t from, unsigned flags, struct remap_result *res);
/* What the unit's own MSI capability says now; it sends event interrupts by it unless IntCapXTEn is set. */
void amdvi_set_msi(struct amdvi *a, bool enabled, struct msi_msg msg);

enum amdvi_dma_result {
    AMDVI_DMA_OK,
    AMDVI_DMA_BLOCKED,  /* target abort; logged if the tables want it */
    AMDVI_DMA_INTERRUPT /* a write to FEExxxxxh: the caller sends it through the translator */
};

/* Where `from`'s access to `iova` goes: `*gpa`, and for how many bytes from there (`*len`, within one page or one
 * untranslated range). 48882, "I/O Page Tables for Host Translations". */
enum amdvi_dma_result amdvi_dma(struct amdvi *a, requester_id_t from, uint64_t iova, bool write, gpa_t *gpa,
                                uint64_t *len);

/* ---- cookies ---- */
/* Bit 31, the device's id at 26:11, the table index at 10:0. */
static inline uint32_t amdvi_cookie(requester_id_t dev, uint32_t index)
{
    return UINT32_C(1) << 31 | (uint32_t)dev.rid << 11 | index;
}

#endif
