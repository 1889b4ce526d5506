/* A VT-d unit whose guest and whose tables are the fuzzer's: any registers, any descriptors, entries, page tables and
 * descriptors in RAM, any messages. Invariants: a look-up changes nothing and says what a delivery says; no destination
 * is wider than the mode; what is off stays off; the head is inside the queue. */
#include "irq_fuzz.h"

#include "irq/vtd_priv.h"

#define RAM_SIZE 0x20000

struct box {
    struct ram ram;
    struct vtd *v;
    struct remap remap;
    unsigned delivered, stale;
};

static int deliver(void *opaque, struct irq irq)
{
    ensure(irq.shorthand == IRQ_DEST && irq.mode < 8 && irq.mode != IRQ_STARTUP && irq.mode != IRQ_REMRD);
    ((struct box *)opaque)->delivered++;
    return 1;
}

static void stale(void *opaque, uint32_t first, uint32_t last)
{
    ensure(first <= last && (last <= 0x10000 || last == UINT32_MAX));
    ((struct box *)opaque)->stale++;
}

static void check_result(const struct box *b, struct remap_result q, requester_id_t from)
{
    uint64_t ir = atomic_load(&b->v->ir);
    ensure(ir & VTD_IR_ON || q.form != REMAP_FORM_VTD);
    if (q.fault)
        return;
    ensure(q.irq.mode < 8 && q.irq.mode != IRQ_STARTUP && q.irq.mode != IRQ_REMRD);
    ensure(!q.irq.level || q.irq.mode <= IRQ_LOWEST);
    if (q.form == REMAP_FORM_VTD && !(ir & VTD_IRTA_EIME))
        ensure(q.irq.dest <= 0xff && q.irq.dest8);
    if (q.form == REMAP_FORM_COMPAT && ir & VTD_IR_ON && vtd_serves(b->v, from))
        ensure(ir & VTD_IR_CFI && !(ir & VTD_IRTA_EIME));
}

static void message(struct box *b, struct script *s)
{
    requester_id_t from = REQUESTER_ID(script_get(s, 2));
    struct msi_msg m = {0xfee00000u | (script_get(s, 3) & 0xfffff), (uint32_t)script_get(s, 4)};
    uint64_t f[VTD_FAULTS][2], first = (uint64_t)b->v->fsts << 32 | b->v->fault_next;
    memcpy(f, b->v->frcd, sizeof f);
    struct remap_result look = remap_msi(&b->remap, m, from, REMAP_LOOKUP);
    ensure(!memcmp(f, b->v->frcd, sizeof f) && first == ((uint64_t)b->v->fsts << 32 | b->v->fault_next));
    struct remap_result q = remap_msi(&b->remap, m, from, REMAP_DELIVER);
    check_result(b, q, from);
    ensure(q.cookie == look.cookie && q.form == look.form);
    if (look.fault == REMAP_POSTED)
        ensure(q.fault == REMAP_POSTED || q.fault == REMAP_OK);
    else
        ensure(q.fault == look.fault && !memcmp(&q.irq, &look.irq, sizeof q.irq));
}

static void access_page(struct box *b, struct script *s)
{
    struct vtd_page p = {0}, again = {0};
    requester_id_t from = REQUESTER_ID(script_get(s, 1));
    uint64_t iova = script_get(s, 7);
    bool write = iova >> 55;
    bool ok = vtd_translate(b->v, from, iova, write, &p);
    ensure(ok == vtd_translate(b->v, from, iova, write, &again));
    ensure(!ok || (p.gpa == again.gpa && (p.gpa & 0xfff) == (iova & 0xfff) && (p.write || !write)));
    ensure(ok || atomic_load(&b->v->root) & VTD_ROOT_ON);
}

static void fill(struct box *b, struct script *s)
{
    uint64_t at = script_get(s, 2) * 8 % RAM_SIZE;
    for (unsigned n = (unsigned)script_get(s, 1) & 7; n-- && at < RAM_SIZE; at += 8)
        st64(ram_hva(&b->ram, at, 8), script_get(s, 8));
}

static void check_unit(const struct box *b)
{
    const struct vtd *v = b->v;
    bool pending = false;
    for (unsigned i = 0; i < VTD_FAULTS; i++)
        pending |= v->frcd[i][1] >> 63;
    ensure(pending == !!(v->fsts & VTD_FSTS_PPF));
    ensure(v->fault_next < VTD_FAULTS && v->fault_first < VTD_FAULTS);
    ensure(v->iqh < 1u << 15 && v->iqt < 1u << 15);
    ensure(v->gsts & VTD_G_QIE || !v->iqh);
    ensure(!(v->fault.ctl & VTD_EVENT_PENDING) || v->fault.ctl & VTD_EVENT_MASKED);
    ensure(!(v->inv.ctl & VTD_EVENT_PENDING) || v->inv.ctl & VTD_EVENT_MASKED);
    ensure(!(v->gsts & VTD_G_TE) || v->cfg.dma_translation);
    ensure(!(v->gsts & (VTD_G_IRE | VTD_G_SIRTP | VTD_G_CFI)) || v->cfg.intremap);
    ensure(v->cfg.eim || !(v->irta & VTD_IRTA_EIME));
}

static void step(struct box *b, struct script *s)
{
    static const uint16_t regs[32] = {
        VTD_GCMD,      VTD_GCMD,      VTD_GCMD,       VTD_RTADDR, VTD_RTADDR + 4, VTD_CCMD,   VTD_CCMD + 4,
        VTD_FSTS,      VTD_FECTL,     VTD_FEDATA,     VTD_FEADDR, VTD_FEUADDR,    VTD_IQT,    VTD_IQT,
        VTD_IQT,       VTD_IQA,       VTD_IQA + 4,    VTD_ICS,    VTD_IECTL,      VTD_IEDATA, VTD_IEADDR,
        VTD_IEUADDR,   VTD_IRTA,      VTD_IRTA + 4,   VTD_IVA,    VTD_IVA + 4,    VTD_IOTLB,  VTD_IOTLB + 4,
        VTD_FRCD + 12, VTD_FRCD + 28, VTD_FRCD + 124, VTD_IQH};
    uint8_t op = (uint8_t)script_get(s, 1);
    switch (op & 7) {
    case 0:
    case 1:
        vtd_bus_ops.write(b->v, regs[op >> 3], 4, script_get(s, 4));
        break;
    case 2:
        vtd_bus_ops.write(b->v, script_get(s, 2) % VTD_SIZE & ~UINT64_C(7), 8, script_get(s, 8));
        break;
    case 3:
        vtd_bus_ops.read(b->v, script_get(s, 2) % (VTD_SIZE - 8), 1u << (op >> 3 & 3));
        break;
    case 4:
        access_page(b, s);
        break;
    case 5:
        fill(b, s);
        break;
    default:
        message(b, s);
    }
    check_unit(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {data, size};
    struct box b = {.delivered = 0};
    uint8_t options = (uint8_t)script_get(&s, 1);
    struct vtd_config c = {.intremap = options & 1,
                           .eim = (options & 3) == 3,
                           .caching_mode = options & 4,
                           .dma_translation = options & 8,
                           .aw_bits = options & 16 ? 48 : 39,
                           .phys_bits = 46,
                           .scoped = options & 32,
                           .scope = REQUESTER_ID(0xa0),
                           .ram = &b.ram,
                           .port = {.deliver = deliver, .opaque = &b},
                           .stale = {stale, &b}};
    ensure(ram_init(&b.ram, RAM_SIZE, NULL) == 0);
    ensure(vtd_create(&c, &b.v, NULL) == 0);
    remap_init(&b.remap, false);
    b.remap.vtd = b.v;
    while (s.left)
        step(&b, &s);
    vtd_destroy(b.v);
    ram_fini(&b.ram);
    return 0;
}
