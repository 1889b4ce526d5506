/* The register file, and the unit's life. VT-d, "Register Descriptions". */
#include "irq/vtd_priv.h"

#include <errno.h>
#include <stdlib.h>

#define VERSION 0x10u /* 1.0: legacy mode */

#define CAP_ND_64K   UINT64_C(6) /* 16-bit domain ids */
#define CAP_CM       BIT(7)
#define CAP_SAGAW_39 BIT(9)
#define CAP_SAGAW_48 BIT(10)
#define CAP_LARGE    (UINT64_C(3) << 34) /* 2 MiB and 1 GiB pages */
#define CAP_PSI      BIT(39)
#define CAP_DRAIN    (UINT64_C(3) << 54)
#define CAP_PI       BIT(59)
#define ECAP_C       BIT(0) /* tables are read coherently */
#define ECAP_QI      BIT(1)
#define ECAP_IR      BIT(3)
#define ECAP_EIM     BIT(4)
#define ECAP_PT      BIT(6)
#define ECAP_SC      BIT(7)

#define G_LEVELS (VTD_G_TE | VTD_G_QIE | VTD_G_IRE | VTD_G_CFI)

#define CCMD_ICC  BIT(63)
#define IOTLB_IVT BIT(63)
#define IQA_MASK  (VTD_PAGE_MASK | 7)

static void set_capabilities(struct vtd *v)
{
    const struct vtd_config *c = &v->cfg;
    v->cap = CAP_ND_64K | CAP_LARGE | CAP_PSI | CAP_DRAIN | (uint64_t)VTD_MAMV << 48 |
             (uint64_t)(VTD_FAULTS - 1) << 40 | (uint64_t)(VTD_FRCD / 16) << 24 | (uint64_t)(c->aw_bits - 1) << 16;
    if (c->dma_translation)
        v->cap |= CAP_SAGAW_39 | (c->aw_bits == 48 ? CAP_SAGAW_48 : 0);
    if (c->caching_mode)
        v->cap |= CAP_CM;
    if (c->intremap)
        v->cap |= CAP_PI;
    v->ecap = ECAP_C | ECAP_QI | ECAP_PT | ECAP_SC | (uint64_t)(VTD_IVA / 16) << 8;
    if (c->intremap)
        v->ecap |= ECAP_IR | (c->eim ? ECAP_EIM : 0) | (uint64_t)VTD_MHMV << 20;
}

/* ---- commands ---- */

static uint32_t commands_there_are(const struct vtd *v)
{
    return VTD_G_QIE | VTD_G_SRTP | (v->cfg.dma_translation ? VTD_G_TE : 0) |
           (v->cfg.intremap ? VTD_G_IRE | VTD_G_SIRTP | VTD_G_CFI : 0);
}

/* The record index starts over once nothing can fault any more; a queue that is off has its head at 0. */
static void after_command(struct vtd *v, uint32_t was)
{
    if (!(v->gsts & (VTD_G_TE | VTD_G_IRE)))
        v->fault_next = 0;
    if (!(v->gsts & VTD_G_QIE))
        v->iqh = 0;
    else if (!(was & VTD_G_QIE))
        vtd_queue_run(v);
}

/* TE, QIE, IRE and CFI are levels. SRTP and SIRTP are one-shot: written as 1 they latch a pointer, and their status bit
 * stays. */
static void write_gcmd(struct vtd *v, uint32_t val)
{
    uint32_t was = v->gsts;
    val &= commands_there_are(v);
    v->gsts = (was & ~G_LEVELS) | val;
    if (val & VTD_G_SIRTP)
        v->irta_latched = v->irta;
    if (val & VTD_G_SRTP)
        v->root_latched = v->rtaddr;
    if (val & VTD_G_SIRTP || (was ^ v->gsts) & (VTD_G_IRE | VTD_G_CFI))
        vtd_ir_publish(v);
    if (val & VTD_G_SRTP || (was ^ v->gsts) & VTD_G_TE)
        vtd_dma_publish(v);
    trace(v->cfg.trace, TRACE_DEV, "vtd: command %08xh, status %08xh", val, v->gsts);
    after_command(v, was);
}

/* Register-based invalidation. The granularity done is the one asked for; 0 is reserved and does nothing. */
static void write_ccmd(struct vtd *v, uint32_t high)
{
    unsigned grain = high >> 29 & 3;
    v->ccmd = (uint32_t)v->ccmd | (uint64_t)high << 32;
    if (!(v->ccmd & CCMD_ICC))
        return;
    if (grain)
        vtd_tlb_drop_context(v, grain, (uint16_t)v->ccmd, (uint16_t)bits(v->ccmd, 31, 16),
                             (unsigned)bits(v->ccmd, 33, 32));
    v->ccmd = (v->ccmd & ~(CCMD_ICC | UINT64_C(3) << 59)) | (uint64_t)grain << 59;
}

static void write_iotlb(struct vtd *v, uint32_t high)
{
    unsigned grain = high >> 28 & 3, mask = (unsigned)bits(v->iva, 5, 0);
    v->iotlb = (uint64_t)high << 32;
    if (!(v->iotlb & IOTLB_IVT))
        return;
    if (grain == VTD_GRAIN_SELECTIVE && mask > VTD_MAMV)
        grain = VTD_GRAIN_DOMAIN;
    if (grain)
        vtd_tlb_drop(v, grain, (uint16_t)bits(v->iotlb, 47, 32), v->iva & VTD_PAGE_MASK, mask);
    v->iotlb = (v->iotlb & ~(IOTLB_IVT | UINT64_C(3) << 57)) | (uint64_t)grain << 57;
}

/* ---- access ---- */

static void set_half(uint64_t *reg, bool high, uint32_t val, uint64_t writable)
{
    uint64_t mask = writable & (high ? UINT64_C(0xffffffff) << 32 : UINT64_C(0xffffffff));
    *reg = (*reg & ~mask) | ((uint64_t)val << (high ? 32 : 0) & mask);
}

static void write_ics(struct vtd *v, uint32_t val)
{
    v->ics &= ~(val & VTD_ICS_IWC);
    if (!v->ics)
        v->inv.ctl &= ~VTD_EVENT_PENDING;
}

static uint64_t irta_writable(const struct vtd *v)
{
    return v->cfg.intremap ? VTD_PAGE_MASK | VTD_IRTA_SIZE | (v->cfg.eim ? VTD_IRTA_EIME : 0) : 0;
}

static void write_record(struct vtd *v, uint64_t off, uint32_t val)
{
    uint64_t at = off - VTD_FRCD;
    if (off >= VTD_FRCD && at < VTD_FAULTS * 16 && at % 16 == 12)
        vtd_fault_write_record(v, (unsigned)(at / 16), val);
}

/* Register switch. A 64-bit write comes as its low and then its high half, and the commands of 64-bit registers are in
 * the high one. */
static void write32(struct vtd *v, uint64_t off, uint32_t val)
{
    bool high = off & 4;
    switch (off) {
    case VTD_GCMD:
        write_gcmd(v, val);
        break;
    case VTD_RTADDR:
    case VTD_RTADDR + 4:
        set_half(&v->rtaddr, high, val, VTD_PAGE_MASK);
        break;
    case VTD_CCMD:
        set_half(&v->ccmd, high, val, UINT64_C(0xffffffff));
        break;
    case VTD_CCMD + 4:
        write_ccmd(v, val);
        break;
    case VTD_FSTS:
        vtd_fault_write_status(v, val);
        break;
    case VTD_FECTL:
    case VTD_FEDATA:
    case VTD_FEADDR:
    case VTD_FEUADDR:
        vtd_event_write(v, &v->fault, (unsigned)(off - VTD_FECTL) / 4, val);
        break;
    case VTD_IQT:
        vtd_queue_write_tail(v, val);
        break;
    case VTD_IQA:
    case VTD_IQA + 4:
        set_half(&v->iqa, high, val, IQA_MASK);
        break;
    case VTD_ICS:
        write_ics(v, val);
        break;
    case VTD_IECTL:
    case VTD_IEDATA:
    case VTD_IEADDR:
    case VTD_IEUADDR:
        vtd_event_write(v, &v->inv, (unsigned)(off - VTD_IECTL) / 4, val);
        break;
    case VTD_IRTA:
    case VTD_IRTA + 4:
        set_half(&v->irta, high, val, irta_writable(v));
        break;
    case VTD_IVA:
    case VTD_IVA + 4:
        set_half(&v->iva, high, val, ~UINT64_C(0xf80));
        break;
    case VTD_IOTLB + 4:
        write_iotlb(v, val);
        break;
    default:
        write_record(v, off, val);
    }
}

static uint64_t pair(uint32_t low, uint32_t high)
{
    return low | (uint64_t)high << 32;
}

static uint64_t read_record(const struct vtd *v, uint64_t off)
{
    uint64_t at = off - VTD_FRCD;
    return off >= VTD_FRCD && at < VTD_FAULTS * 16 ? v->frcd[at / 16][at / 8 & 1] : 0;
}

/* Register switch, by aligned quads. What is write-only or not there reads 0. */
static uint64_t read64(const struct vtd *v, uint64_t off)
{
    switch (off) {
    case VTD_VER:
        return VERSION;
    case VTD_CAP:
        return v->cap;
    case VTD_ECAP:
        return v->ecap;
    case VTD_GCMD:
        return pair(0, v->gsts);
    case VTD_RTADDR:
        return v->rtaddr;
    case VTD_CCMD:
        return v->ccmd;
    case VTD_FSTS - 4:
        return pair(0, vtd_fault_read_status(v));
    case VTD_FECTL:
        return pair(v->fault.ctl, v->fault.data);
    case VTD_FEADDR:
        return pair(v->fault.addr, v->fault.uaddr);
    case VTD_IQH:
        return (uint64_t)v->iqh << 4;
    case VTD_IQT:
        return (uint64_t)v->iqt << 4;
    case VTD_IQA:
        return v->iqa;
    case VTD_ICS - 4:
        return pair(0, v->ics);
    case VTD_IECTL:
        return pair(v->inv.ctl, v->inv.data);
    case VTD_IEADDR:
        return pair(v->inv.addr, v->inv.uaddr);
    case VTD_IRTA:
        return v->irta;
    case VTD_IOTLB:
        return v->iotlb;
    default:
        return read_record(v, off);
    }
}

static uint64_t mmio_read(void *dev, uint64_t off, unsigned size)
{
    struct vtd *v = dev;
    pthread_mutex_lock(&v->lock);
    uint64_t val = read64(v, off & ~UINT64_C(7));
    pthread_mutex_unlock(&v->lock);
    return val >> (off & 7) * 8 & size_mask(size);
}

static void mmio_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct vtd *v = dev;
    if (size < 4 || off % size)
        return;
    pthread_mutex_lock(&v->lock);
    write32(v, off, (uint32_t)val);
    if (size == 8)
        write32(v, off + 4, (uint32_t)(val >> 32));
    pthread_mutex_unlock(&v->lock);
}

const struct bus_ops vtd_bus_ops = {.read = mmio_read, .write = mmio_write};

/* ---- lifecycle ---- */

int vtd_create(const struct vtd_config *c, struct vtd **out, struct err *e)
{
    if ((c->aw_bits != 39 && c->aw_bits != 48) || c->phys_bits < 39 || c->phys_bits > 52)
        return err_set(e, -EINVAL, "VT-d unit: DMA addresses of %u bits: 39 and 48 are possible", c->aw_bits);
    if (c->eim && !c->intremap)
        return err_set(e, -EINVAL, "VT-d unit: 32-bit destinations (eim=on) need intremap=on");
    struct vtd *v = calloc(1, sizeof *v);
    if (!v)
        return err_set(e, -ENOMEM, "no memory for a VT-d unit");
    v->cfg = *c;
    set_capabilities(v);
    pthread_mutex_init(&v->lock, NULL);
    vtd_reset(v);
    *out = v;
    return 0;
}

void vtd_destroy(struct vtd *v)
{
    if (!v)
        return;
    pthread_mutex_destroy(&v->lock);
    free(v);
}

void vtd_reset(struct vtd *v)
{
    pthread_mutex_lock(&v->lock);
    v->gsts = 0;
    v->irta = v->rtaddr = v->irta_latched = v->root_latched = 0;
    v->ccmd = v->iva = v->iotlb = v->iqa = 0;
    v->iqh = v->iqt = v->fsts = v->ics = 0;
    v->fault = v->inv = (struct vtd_event){.ctl = VTD_EVENT_MASKED};
    memset(v->frcd, 0, sizeof v->frcd);
    v->fault_next = v->fault_first = 0;
    vtd_ir_publish(v);
    vtd_dma_publish(v);
    pthread_mutex_unlock(&v->lock);
}
