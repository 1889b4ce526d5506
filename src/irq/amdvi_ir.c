/* Interrupt remapping. 48882, "Interrupt Remapping Tables" and "Device Table". */
#include "irq/amdvi_priv.h"

/* ---- guest memory ---- */

bool amdvi_load(const struct amdvi *a, gpa_t gpa, uint64_t *out)
{
    uint8_t *p = ram_hva(a->cfg.ram, gpa, 8);
    if (p)
        *out = atomic_load_explicit((_Atomic uint64_t *)(void *)p, memory_order_acquire);
    return p != NULL;
}

/* A guest replaces a 128-bit entry by one CMPXCHG16B; halves of two entries must never be seen together. */
static bool load128(const struct amdvi *a, gpa_t gpa, uint64_t q[2])
{
    uint8_t *p = ram_hva(a->cfg.ram, gpa, 16);
    if (!p)
        return false;
    unsigned __int128 v = __sync_val_compare_and_swap((unsigned __int128 *)(void *)p, 0, 0);
    q[0] = (uint64_t)v;
    q[1] = (uint64_t)(v >> 64);
    return true;
}

enum amdvi_dte amdvi_read_dte(const struct amdvi *a, uint16_t device, uint64_t q[3], gpa_t *at)
{
    uint64_t table = atomic_load_explicit(&a->devtab, memory_order_acquire);
    uint64_t entries = (bits(table, 8, 0) + 1) * (4096 / DTE_SIZE);
    *at = (table & ADDR_51_12) + (uint64_t)device * DTE_SIZE;
    if (device >= entries)
        return AMDVI_DTE_OUTSIDE;
    for (unsigned i = 0; i < 3; i++)
        if (!amdvi_load(a, *at + 8 * i, &q[i]))
            return AMDVI_DTE_UNREACHABLE;
    return AMDVI_DTE_OK;
}

/* ---- one request ---- */

struct request {
    struct amdvi *a;
    struct msi_msg msg;
    uint16_t device;
    unsigned flags; /* enum remap_flag */
    uint64_t control;
    uint64_t dte[3];
    struct remap_result *res;
};

static bool fail(struct request *r, enum remap_fault why, struct amdvi_event ev)
{
    ev.device = r->device;
    ev.flags |= EVT_I;
    r->res->fault = why;
    if (!(r->flags & REMAP_LOOKUP))
        amdvi_log(r->a, ev);
    return true;
}

/* An IO_PAGE_FAULT, whose logging the device's and the interrupt's entry may each suppress. */
static bool page_fault(struct request *r, enum remap_fault why, uint32_t flags, bool quiet)
{
    r->res->fault = why;
    if (quiet || r->dte[2] & DTE2_IG)
        return true;
    return fail(r, why,
                (struct amdvi_event){
                    .code = EVT_IO_PAGE_FAULT, .domain = DTE1_DOMAIN(r->dte[1]), .flags = flags, .addr = r->msg.addr});
}

static bool illegal_dte(struct request *r, uint32_t flags)
{
    return fail(r, REMAP_AMDVI_DEVICE,
                (struct amdvi_event){.code = EVT_ILLEGAL_DTE, .flags = flags, .addr = r->msg.addr});
}

static bool blocked(struct request *r, uint32_t type)
{
    return fail(r, REMAP_AMDVI_BLOCKED,
                (struct amdvi_event){.code = EVT_INVALID_DEVICE_REQUEST, .flags = type, .addr = r->msg.addr});
}

/* ---- entries ---- */

struct irte {
    uint64_t low, reserved; /* `reserved`: bits that are set and must not be */
    uint32_t dest;
    uint8_t vector;
};

#define IRTE_REMAP_EN   BIT(0)
#define IRTE_SUP_IOPF   BIT(1)
#define IRTE_TYPE(q)    ((unsigned)bits(q, 4, 2))
#define IRTE_DM         BIT(6)
#define IRTE_GUEST_MODE BIT(7) /* the guest virtual APIC is not offered: reserved */

static bool load_irte32(const struct amdvi *a, gpa_t at, struct irte *e)
{
    uint8_t *p = ram_hva(a->cfg.ram, at, 4);
    if (!p)
        return false;
    e->low = atomic_load_explicit((_Atomic uint32_t *)(void *)p, memory_order_acquire);
    e->reserved = e->low & (IRTE_GUEST_MODE | 0xff000000u);
    e->dest = (uint32_t)bits(e->low, 15, 8);
    e->vector = (uint8_t)bits(e->low, 23, 16);
    return true;
}

/* Without XTEn the destination is 8 bits wide, and what is above it is reserved. */
static bool load_irte128(const struct amdvi *a, gpa_t at, bool xt, struct irte *e)
{
    uint64_t q[2];
    if (!load128(a, at, q))
        return false;
    e->low = q[0];
    e->dest = (uint32_t)(bits(q[0], 31, 8) | bits(q[1], 63, 56) << 24);
    e->vector = (uint8_t)q[1];
    e->reserved = (q[0] & IRTE_GUEST_MODE) | q[0] >> 32 | bits(q[1], 55, 8) | (xt ? 0 : e->dest >> 8);
    return true;
}

/* Level-triggered messages stay so: the trigger mode is the message's, not the entry's. */
static bool use_irte(struct request *r, const struct irte *e, uint32_t index, bool xt)
{
    bool quiet = e->low & IRTE_SUP_IOPF, level = r->msg.data & 0x8000;
    if (!(e->low & IRTE_REMAP_EN))
        return page_fault(r, REMAP_AMDVI_NOT_PRESENT, 0, quiet);
    if (e->reserved)
        return page_fault(r, REMAP_AMDVI_RESERVED, EVT_PR | EVT_RZ, quiet);
    if (IRTE_TYPE(e->low) > IRQ_LOWEST)
        return page_fault(r, REMAP_AMDVI_RESERVED, EVT_PR, quiet);
    r->res->fault = REMAP_OK;
    r->res->cookie = amdvi_cookie(REQUESTER_ID(r->device), index);
    r->res->irq = (struct irq){.dest = e->dest,
                               .vector = e->vector,
                               .mode = (uint8_t)IRTE_TYPE(e->low),
                               .logical = (e->low & IRTE_DM) != 0,
                               .level = level,
                               .assert_ = !level || r->msg.data & 0x4000,
                               .dest8 = !xt};
    return true;
}

static bool through_table(struct request *r, uint32_t index)
{
    bool ga = r->control & CTL_GA_EN, xt = amdvi_xt_on(r->a, r->control);
    unsigned len = DTE2_LEN(r->dte[2]);
    gpa_t at = DTE2_ROOT(r->dte[2]) + (uint64_t)index * (ga ? 16 : 4);
    struct irte e;
    if (len > DTE2_LEN_MAX)
        return illegal_dte(r, 0);
    if (index >> len)
        return page_fault(r, REMAP_AMDVI_INDEX, 0, false);
    if (!(ga ? load_irte128(r->a, at, xt, &e) : load_irte32(r->a, at, &e)))
        return fail(r, REMAP_AMDVI_UNREACHABLE,
                    (struct amdvi_event){
                        .code = EVT_PAGETAB_HW, .domain = DTE1_DOMAIN(r->dte[1]), .flags = EVT_MASTER, .addr = at});
    return use_irte(r, &e, index, xt);
}

/* ---- the device's entry ---- */

static bool remap_or_pass(struct request *r, uint32_t index)
{
    switch (DTE2_INT_CTL(r->dte[2])) {
    case INT_CTL_ABORT:
        return blocked(r, EVT_INT_BLOCKED);
    case INT_CTL_PASS:
        return false;
    case INT_CTL_REMAP:
        return through_table(r, index);
    default:
        return illegal_dte(r, 0);
    }
}

static bool pass_if(struct request *r, uint64_t pass)
{
    return r->dte[2] & pass ? false : blocked(r, EVT_INT_BLOCKED);
}

/* The delivery mode field picks the rule, and its lowest bit is bit 8 of the index. A unit in 2K mode takes a message
 * with the destination mode bit set for nothing but an index of eleven bits. */
static bool by_kind(struct request *r)
{
    if ((r->control & CTL_NUM_INT) == CTL_NUM_INT_2K && r->msg.addr & BIT(2))
        return remap_or_pass(r, (uint32_t)bits(r->msg.data, 10, 0));
    switch (bits(r->msg.data, 10, 8)) {
    case IRQ_FIXED:
    case IRQ_LOWEST:
        return remap_or_pass(r, (uint32_t)bits(r->msg.data, 8, 0));
    case IRQ_NMI:
        return pass_if(r, DTE2_NMI_PASS);
    case IRQ_INIT:
        return pass_if(r, DTE2_INIT_PASS);
    case IRQ_EXTINT:
        return pass_if(r, DTE2_EXT_PASS);
    default: /* SMIs come from no device, the rest from nobody */
        return blocked(r, EVT_INT_KIND);
    }
}

bool amdvi_remap(struct amdvi *a, struct msi_msg msg, requester_id_t from, unsigned flags, struct remap_result *res)
{
    struct request r = {.a = a, .msg = msg, .device = from.rid, .flags = flags, .res = res};
    gpa_t at;
    r.control = atomic_load_explicit(&a->control, memory_order_acquire);
    if (!a->cfg.intremap || !(r.control & CTL_IOMMU_EN) || from.rid == a->cfg.requester.rid || !amdvi_serves(a, from))
        return false;
    *res = (struct remap_result){.form = REMAP_FORM_AMDVI};
    switch (amdvi_read_dte(a, from.rid, r.dte, &at)) {
    case AMDVI_DTE_OUTSIDE:
        r.dte[1] = r.dte[2] = 0;
        return page_fault(&r, REMAP_AMDVI_DEVICE, 0, false);
    case AMDVI_DTE_UNREACHABLE:
        return fail(&r, REMAP_AMDVI_UNREACHABLE,
                    (struct amdvi_event){.code = EVT_DEVTAB_HW, .flags = EVT_MASTER, .addr = at});
    case AMDVI_DTE_OK:
        break;
    }
    if (!(r.dte[2] & DTE2_IV))
        return false;
    if (r.dte[2] & DTE2_RESERVED)
        return illegal_dte(&r, EVT_RZ);
    return by_kind(&r);
}
