/* Interrupt remapping and posting. VT-d, "Interrupt Remapping" and "Interrupt Posting". */
#include "irq/vtd_priv.h"

/* Message address, remappable format. */
#define MSG_FORMAT BIT(4)
#define MSG_SHV    BIT(3)
#define MSG_INDEX  BIT(2) /* handle bit 15 */

/* Low quad of an entry. */
#define IRTE_P    BIT(0)
#define IRTE_FPD  BIT(1)
#define IRTE_DM   BIT(2)
#define IRTE_RH   BIT(3)
#define IRTE_TM   BIT(4)
#define IRTE_URG  BIT(14)
#define IRTE_IM   BIT(15)
#define IRTE_RSVD (UINT64_C(7) << 12 | UINT64_C(0xff) << 24)
/* An 8-bit destination is in bits 47:40; the rest of the field is reserved then. */
#define IRTE_DEST8_RSVD  (UINT64_C(0xffff) << 48 | UINT64_C(0xff) << 32)
#define IRTE_POSTED_RSVD (UINT64_C(0x3f) << 2 | UINT64_C(3) << 12 | UINT64_C(0x3fff) << 24)
#define IRTE_HI_RSVD     (~UINT64_C(0xfffff))
#define IRTE_HI_PDA_RSVD (UINT64_C(0xfff) << 20)
#define IRTE_MODE(lo)    ((unsigned)bits(lo, 7, 5))
#define IRTE_VECTOR(lo)  ((uint8_t)bits(lo, 23, 16))
#define IRTE_SID(hi)     ((uint16_t)(hi))
#define IRTE_SQ(hi)      ((unsigned)bits(hi, 17, 16))
#define IRTE_SVT(hi)     ((unsigned)bits(hi, 19, 18))
#define MODE_RESERVED    ((1u << 3) | (1u << 6))
#define PD_SIZE          64
#define PD_CONTROL       32 /* byte offset of the quad with ON, SN, NV and NDST */
#define PD_ON            BIT(0)
#define PD_SN            BIT(1)
#define PD_RSVD          (UINT64_C(0x3fff) << 2 | UINT64_C(0xff) << 24)
#define PD_NDST8_RSVD    (UINT64_C(0xffff) << 48 | UINT64_C(0xff) << 32)
#define PD_NV(c)         ((uint8_t)bits(c, 23, 16))
#define PD_NDST(c, eim)  ((uint32_t)((eim) ? (c) >> 32 : bits(c, 47, 40)))

/* One message on its way through. */
struct request {
    struct vtd *v;
    requester_id_t from;
    unsigned flags;
    uint64_t ir; /* the unit's state when the message came */
    uint32_t index;
    uint64_t lo, hi; /* the entry */
    struct remap_result *res;
};

void vtd_ir_publish(struct vtd *v)
{
    uint64_t w = v->irta_latched;
    if (v->gsts & VTD_G_IRE)
        w |= VTD_IR_ON;
    if (v->gsts & VTD_G_CFI)
        w |= VTD_IR_CFI;
    atomic_store_explicit(&v->ir, w, memory_order_release);
    if (v->cfg.stale.fn)
        v->cfg.stale.fn(v->cfg.stale.opaque, 0, UINT32_MAX);
}

/* ---- faults ---- */

static bool block(struct request *q, enum remap_fault reason, uint64_t info)
{
    q->res->fault = reason;
    trace(q->v->cfg.trace, TRACE_IRQ, "vtd: requester %04xh index %xh blocked: fault %xh%s", q->from.rid, q->index,
          reason, q->flags & REMAP_LOOKUP ? " (look-up)" : "");
    if (!(q->flags & REMAP_LOOKUP))
        vtd_fault_log(q->v, reason, q->from, info, false);
    return true;
}

/* Faults before there is an entry to ask: always recorded. */
static bool block_request(struct request *q, enum remap_fault reason)
{
    return block(q, reason, (uint64_t)q->index << 48);
}

/* Faults that the entry's FPD keeps out of the records. */
static bool block_entry(struct request *q, enum remap_fault reason)
{
    if (q->lo & IRTE_FPD)
        q->flags |= REMAP_LOOKUP;
    return block_request(q, reason);
}

/* ---- the entry ---- */

static bool find_index(struct request *q, struct msi_msg msg)
{
    q->index = (uint32_t)(bits(msg.addr, 19, 5) | (msg.addr & MSG_INDEX ? 0x8000 : 0));
    if (msg.addr & MSG_SHV)
        q->index += msg.data & 0xffff;
    return !(msg.addr & MSG_SHV) || !(msg.data >> 16);
}

/* Both quads as they were at one moment: guests change a present entry by one 16-byte or two 8-byte stores. An entry
 * that keeps changing is taken as it is then read. */
static bool read_entry(struct request *q)
{
    gpa_t at = (q->ir & VTD_PAGE_MASK) + (uint64_t)q->index * 16;
    const uint64_t *p = (const uint64_t *)ram_hva(q->v->cfg.ram, at, 16);
    if (!p)
        return false;
    q->lo = __atomic_load_n(&p[0], __ATOMIC_ACQUIRE);
    for (unsigned tries = 0; tries < 16; tries++) {
        q->hi = __atomic_load_n(&p[1], __ATOMIC_ACQUIRE);
        uint64_t again = __atomic_load_n(&p[0], __ATOMIC_ACQUIRE);
        if (again == q->lo)
            break;
        q->lo = again;
    }
    return true;
}

/* Destinations are 8 bits wide unless EIME. Two delivery modes are reserved encodings. */
static bool reserved_bits_set(const struct request *q)
{
    if (q->lo & IRTE_IM)
        return q->lo & IRTE_POSTED_RSVD || q->hi & IRTE_HI_PDA_RSVD;
    return q->lo & IRTE_RSVD || q->hi & IRTE_HI_RSVD || (!(q->ir & VTD_IRTA_EIME) && q->lo & IRTE_DEST8_RSVD) ||
           MODE_RESERVED >> IRTE_MODE(q->lo) & 1;
}

/* VT-d, "Interrupt Remapping Table Entry", fields SVT, SQ and SID. In the bus range the first bus is SID[15:8]. */
static bool source_is_good(const struct request *q)
{
    uint16_t sid = IRTE_SID(q->hi), mask = vtd_rid_mask(IRTE_SQ(q->hi));
    unsigned bus = q->from.rid >> 8;
    switch (IRTE_SVT(q->hi)) {
    case 0:
        return true;
    case 1:
        return !((q->from.rid ^ sid) & mask);
    case 2:
        return bus >= sid >> 8 && bus <= (sid & 0xffu);
    default:
        return false;
    }
}

/* ---- what it says ---- */

/* SMI, NMI, INIT and ExtINT are edges; the redirection hint asks for one receiver. As for messages without a table. */
static bool remapped(struct request *q)
{
    bool eim = q->ir & VTD_IRTA_EIME;
    unsigned mode = IRTE_MODE(q->lo);
    if (mode == IRQ_FIXED && q->lo & IRTE_RH)
        mode = IRQ_LOWEST;
    q->res->irq = (struct irq){.dest = (uint32_t)(eim ? q->lo >> 32 : bits(q->lo, 47, 40)),
                               .vector = IRTE_VECTOR(q->lo),
                               .mode = (uint8_t)mode,
                               .logical = (q->lo & IRTE_DM) != 0,
                               .level = mode <= IRQ_LOWEST && q->lo & IRTE_TM,
                               .assert_ = 1,
                               .dest8 = !eim};
    return true;
}

/* Note the vector, then take the right to notify: ON goes from 0 to 1 in one step, by exactly one poster. */
static bool post(uint64_t *pd, unsigned vector, bool urgent, uint64_t *control)
{
    uint64_t c;
    __atomic_fetch_or(&pd[vector >> 6], BIT(vector & 63), __ATOMIC_SEQ_CST);
    do {
        c = __atomic_load_n(&pd[PD_CONTROL / 8], __ATOMIC_SEQ_CST);
        if (c & PD_ON || (c & PD_SN && !urgent))
            return false;
    } while (
        !__atomic_compare_exchange_n(&pd[PD_CONTROL / 8], &c, c | PD_ON, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    *control = c;
    return true;
}

/* VT-d, "Interrupt-Posting Hardware Operation". */
static bool posted(struct request *q)
{
    bool eim = q->ir & VTD_IRTA_EIME;
    gpa_t at = bits(q->lo, 63, 38) << 6 | q->hi >> 32 << 32;
    uint64_t *pd = (uint64_t *)ram_hva(q->v->cfg.ram, at, PD_SIZE), control;
    if (!pd)
        return block_entry(q, REMAP_VTD_DESCRIPTOR);
    control = __atomic_load_n(&pd[PD_CONTROL / 8], __ATOMIC_RELAXED);
    if (control & PD_RSVD || (!eim && control & PD_NDST8_RSVD))
        return block_entry(q, REMAP_VTD_DESCRIPTOR_RSVD);
    q->res->fault = REMAP_POSTED;
    if (q->flags & REMAP_LOOKUP)
        return true;
    bool notify = post(pd, IRTE_VECTOR(q->lo), q->lo & IRTE_URG, &control);
    ram_written(q->v->cfg.ram, at, PD_SIZE);
    if (!notify)
        return true;
    q->res->fault = REMAP_OK;
    q->res->irq = (struct irq){.dest = PD_NDST(control, eim), .vector = PD_NV(control), .assert_ = 1, .dest8 = !eim};
    return true;
}

static bool remap_indexed(struct request *q, struct msi_msg msg)
{
    bool good = find_index(q, msg);
    q->res->cookie = q->index + 1;
    if (!good)
        return block_request(q, REMAP_VTD_REQUEST_RSVD);
    if (q->index >> ((q->ir & VTD_IRTA_SIZE) + 1))
        return block_request(q, REMAP_VTD_INDEX);
    if (!read_entry(q))
        return block_request(q, REMAP_VTD_TABLE);
    if (!(q->lo & IRTE_P))
        return block_entry(q, REMAP_VTD_NOT_PRESENT);
    if (reserved_bits_set(q))
        return block_entry(q, REMAP_VTD_ENTRY_RSVD);
    if (!source_is_good(q))
        return block_entry(q, REMAP_VTD_SOURCE);
    return q->lo & IRTE_IM ? posted(q) : remapped(q);
}

/* VT-d, "Interrupt-Remapping Hardware Operation": with 32-bit destinations the compatibility format is always blocked,
 * without them CFI lets it pass. */
bool vtd_remap(struct vtd *v, struct msi_msg msg, requester_id_t from, unsigned flags, struct remap_result *res)
{
    struct request q = {.v = v, .from = from, .flags = flags, .res = res};
    q.ir = atomic_load_explicit(&v->ir, memory_order_acquire);
    if (!(q.ir & VTD_IR_ON) || !vtd_serves(v, from))
        return false;
    if (msg.addr & MSG_FORMAT) {
        res->form = REMAP_FORM_VTD;
        return remap_indexed(&q, msg);
    }
    if (q.ir & VTD_IR_CFI && !(q.ir & VTD_IRTA_EIME))
        return false;
    return block(&q, REMAP_VTD_COMPAT_BLOCKED, 0);
}
