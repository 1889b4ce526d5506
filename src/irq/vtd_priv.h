/* Inside of the VT-d unit; one theme a file: vtd_regs.c (registers), vtd_fault.c (fault records and the unit's own
 * interrupts), vtd_queue.c (invalidation queue), vtd_ir.c (interrupt remapping), vtd_dma.c (DMA translation). */
#ifndef HEC_IRQ_VTD_PRIV_H
#define HEC_IRQ_VTD_PRIV_H

#include "base/bits.h"
#include "irq/vtd.h"

#include <pthread.h>
#include <stdatomic.h>

/* Register offsets. VT-d, "Register Location". */
enum {
    VTD_VER = 0x00,
    VTD_CAP = 0x08,
    VTD_ECAP = 0x10,
    VTD_GCMD = 0x18,
    VTD_GSTS = 0x1c,
    VTD_RTADDR = 0x20,
    VTD_CCMD = 0x28,
    VTD_FSTS = 0x34,
    VTD_FECTL = 0x38,
    VTD_FEDATA = 0x3c,
    VTD_FEADDR = 0x40,
    VTD_FEUADDR = 0x44,
    VTD_IQH = 0x80,
    VTD_IQT = 0x88,
    VTD_IQA = 0x90,
    VTD_ICS = 0x9c,
    VTD_IECTL = 0xa0,
    VTD_IEDATA = 0xa4,
    VTD_IEADDR = 0xa8,
    VTD_IEUADDR = 0xac,
    VTD_IRTA = 0xb8,
    VTD_IVA = 0xf0,
    VTD_IOTLB = 0xf8,
    VTD_FRCD = 0x220
};

/* GCMD and GSTS. */
#define VTD_G_TE    (1u << 31)
#define VTD_G_SRTP  (1u << 30)
#define VTD_G_QIE   (1u << 26)
#define VTD_G_IRE   (1u << 25)
#define VTD_G_SIRTP (1u << 24)
#define VTD_G_CFI   (1u << 23)

#define VTD_FSTS_PFO (1u << 0)
#define VTD_FSTS_PPF (1u << 1)
#define VTD_FSTS_IQE (1u << 4)

#define VTD_EVENT_MASKED  (1u << 31)
#define VTD_EVENT_PENDING (1u << 30)

#define VTD_ICS_IWC 1u

#define VTD_IRTA_EIME BIT(11)
#define VTD_IRTA_SIZE UINT64_C(0xf)

/* The word deliveries read: the latched IRTA, and in bits that IRTA has no use for what GSTS says. */
#define VTD_IR_ON     BIT(4)
#define VTD_IR_CFI    BIT(5)
#define VTD_ROOT_ON   BIT(0) /* the like of RTADDR */
#define VTD_PAGE_MASK (~UINT64_C(0xfff))

#define VTD_MAMV        18 /* largest address mask of a page-selective invalidation */
#define VTD_MHMV        15 /* largest index mask */
#define VTD_TLB_ENTRIES 1024

/* One of the unit's two interrupts: registers of the fault event or of the invalidation event. */
struct vtd_event {
    uint32_t ctl, data, addr, uaddr; /* (l) */
};

/* A cached translation. The first word is xored with a scattered second, so that a torn pair is a miss and not a wrong
 * page. */
struct vtd_tlb_entry {
    _Atomic uint64_t tag, val; /* (a) written under `lock` */
};

/* What an invalidation names; `grain` as the registers and descriptors number it. */
enum vtd_grain { VTD_GRAIN_GLOBAL = 1, VTD_GRAIN_DOMAIN = 2, VTD_GRAIN_SELECTIVE = 3 };

struct vtd {
    struct vtd_config cfg;  /* (c) */
    uint64_t cap, ecap;     /* (c) */
    _Atomic uint64_t ir;    /* (a) written under `lock` */
    _Atomic uint64_t root;  /* (a) written under `lock` */
    _Atomic uint64_t drops; /* (a) invalidations of the IOTLB so far; written under `lock` */
    struct vtd_tlb_entry tlb[VTD_TLB_ENTRIES];

    pthread_mutex_t lock;
    uint32_t gsts;                    /* (l) */
    uint64_t irta, rtaddr;            /* (l) as written; in force once SIRTP or SRTP latched them */
    uint64_t irta_latched;            /* (l) */
    uint64_t root_latched;            /* (l) */
    uint64_t ccmd, iva, iotlb;        /* (l) */
    uint64_t iqa;                     /* (l) */
    uint32_t iqh, iqt;                /* (l) descriptor numbers */
    uint32_t fsts, ics;               /* (l) */
    struct vtd_event fault, inv;      /* (l) */
    uint64_t frcd[VTD_FAULTS][2];     /* (l) */
    unsigned fault_next, fault_first; /* (l) record to be written next; FSTS.FRI */
};

/* Bits of a requester id that count under a function mask or SQ of 0 .. 3. */
static inline uint16_t vtd_rid_mask(unsigned fm)
{
    static const uint16_t mask[4] = {0xffff, 0xfffb, 0xfff9, 0xfff8};
    return mask[fm & 3];
}

static inline bool vtd_serves(const struct vtd *v, requester_id_t from)
{
    return !v->cfg.scoped || from.rid == v->cfg.scope.rid;
}

/* ---- vtd_fault.c ---- */
/* Record a fault. `info` is the upper part of the record's first word, bits 63:12; takes the lock. */
void vtd_fault_log(struct vtd *v, unsigned reason, requester_id_t from, uint64_t info, bool read);
/* Lock held: set a bit of FSTS, and send the fault event if it is the first. */
void vtd_fault_status(struct vtd *v, uint32_t bit);
/* Lock held: what the guest writes. */
void vtd_fault_write_status(struct vtd *v, uint32_t val);
void vtd_fault_write_record(struct vtd *v, unsigned record, uint32_t val);
uint32_t vtd_fault_read_status(const struct vtd *v);
void vtd_event_raise(struct vtd *v, struct vtd_event *ev);
void vtd_event_write(struct vtd *v, struct vtd_event *ev, unsigned reg, uint32_t val);

/* ---- vtd_queue.c; lock held ---- */
void vtd_queue_write_tail(struct vtd *v, uint32_t val);
void vtd_queue_run(struct vtd *v);

/* ---- vtd_ir.c ---- */
void vtd_ir_publish(struct vtd *v); /* lock held: gsts or the latched table changed */

/* ---- vtd_dma.c; lock held ---- */
void vtd_dma_publish(struct vtd *v);
void vtd_tlb_drop(struct vtd *v, enum vtd_grain grain, uint16_t domain, uint64_t addr, unsigned mask);
void vtd_tlb_drop_context(struct vtd *v, enum vtd_grain grain, uint16_t domain, uint16_t source, unsigned fm);

#endif
