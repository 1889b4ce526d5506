/* VT-d: registers, faults and events, the invalidation queue, interrupt remapping and posting. DMA is in
 * test_irq_vtd_dma.c. */
#include "irq_rig.h"
#include "vtd_rig.h"

#define IRTE(vector, dest) (UINT64_C(1) | (uint64_t)(vector) << 16 | (uint64_t)(dest) << 32)

static void capabilities_follow_the_options(void **state)
{
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    assert_int_equal(rd(&r, VTD_VER), 0x10);
    uint64_t cap = rq(&r, VTD_CAP), ecap = rq(&r, VTD_ECAP);
    assert_int_equal(bits(cap, 12, 8), 6);
    assert_int_equal(bits(cap, 21, 16), 47);
    assert_int_equal(bits(cap, 33, 24) * 16, VTD_FRCD);
    assert_int_equal(bits(cap, 47, 40) + 1, VTD_FAULTS);
    assert_int_equal(bits(cap, 7, 7), 0);
    assert_int_equal(bits(cap, 59, 59), 1);
    assert_int_equal(ecap & 0x5a, 0x5a); /* QI, IR, EIM, PT */
    assert_int_equal(bits(ecap, 23, 20), 15);
    assert_int_equal(bits(ecap, 17, 8) * 16 + 8, VTD_IOTLB);
    assert_int_equal(rd(&r, VTD_CAP) | (uint64_t)rd(&r, VTD_CAP + 4) << 32, cap);
    vtd_rig_close(&r);

    struct vtd_config c = vtd_rig_config(false);
    c.intremap = c.dma_translation = false;
    c.caching_mode = true;
    c.aw_bits = 39;
    vtd_rig_open(&r, c);
    cap = rq(&r, VTD_CAP);
    assert_int_equal(bits(cap, 12, 8), 0);
    assert_int_equal(bits(cap, 7, 7), 1);
    assert_int_equal(bits(cap, 59, 59), 0);
    assert_int_equal(rq(&r, VTD_ECAP) & 0x18, 0);
    gcmd(&r, VTD_G_TE | VTD_G_IRE | VTD_G_SIRTP | VTD_G_CFI, 0); /* there are none of these */
    assert_int_equal(rd(&r, VTD_GSTS), 0);
    vtd_rig_close(&r);
}

static void what_cannot_be_is_refused(void **state)
{
    struct vtd *v;
    struct err e = {""};
    struct vtd_config c = vtd_rig_config(true);
    c.intremap = false;
    assert_true(vtd_create(&c, &v, &e) < 0);
    assert_non_null(strstr(e.msg, "intremap=on"));
    c = vtd_rig_config(true);
    c.aw_bits = 42;
    assert_true(vtd_create(&c, &v, NULL) < 0);
}

static void commands_latch_and_toggle(void **state)
{
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    wq(&r, VTD_IRTA, RIG_IRT | 0x80f);
    assert_int_equal(rq(&r, VTD_IRTA), RIG_IRT | 0x80f);
    assert_int_equal(r.v->irta_latched, 0);
    gcmd(&r, VTD_G_SIRTP, 0);
    assert_int_equal(r.v->irta_latched, RIG_IRT | 0x80f);
    assert_int_equal(rd(&r, VTD_GSTS), VTD_G_SIRTP);
    wq(&r, VTD_IRTA, 0x7000 | 0x7f0); /* reserved bits don't stick */
    assert_int_equal(rq(&r, VTD_IRTA), 0x7000);
    gcmd(&r, VTD_G_IRE, 0);
    assert_int_equal(rd(&r, VTD_GSTS), VTD_G_SIRTP | VTD_G_IRE);
    assert_int_equal(r.v->irta_latched, RIG_IRT | 0x80f);
    gcmd(&r, VTD_G_CFI, 0);
    gcmd(&r, VTD_G_QIE, 0);
    gcmd(&r, VTD_G_SRTP, 0);
    assert_int_equal(rd(&r, VTD_GSTS), VTD_G_SIRTP | VTD_G_IRE | VTD_G_CFI | VTD_G_QIE | VTD_G_SRTP);
    gcmd(&r, 0, VTD_G_CFI | VTD_G_QIE);
    assert_int_equal(rd(&r, VTD_GSTS), VTD_G_SIRTP | VTD_G_IRE | VTD_G_SRTP);
    assert_int_equal(rd(&r, VTD_GCMD), 0);
    vtd_bus_ops.write(r.v, VTD_GCMD, 2, 0); /* not a register access */
    vtd_bus_ops.write(r.v, VTD_GCMD + 2, 4, 0);
    vtd_bus_ops.write(r.v, VTD_GCMD - 4, 8, 0);
    assert_int_equal(rd(&r, VTD_GSTS), VTD_G_SIRTP | VTD_G_IRE | VTD_G_SRTP);
    vtd_reset(r.v);
    assert_int_equal(rd(&r, VTD_GSTS), 0);
    assert_int_equal(rd(&r, VTD_FECTL), VTD_EVENT_MASKED);
    vtd_rig_close(&r);
}

static void the_compatibility_format_passes_or_is_blocked(void **state)
{
    static const struct msi_msg compat = {0xfee05000, 0x41};
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    assert_int_equal(send_as(&r, compat, 8).fault, REMAP_OK); /* remapping is off */
    assert_int_equal(send_as(&r, handle(3), 8).form, REMAP_FORM_COMPAT);
    ir_on(&r, 15, false);
    assert_int_equal(send_as(&r, compat, 8).fault, REMAP_VTD_COMPAT_BLOCKED);
    gcmd(&r, VTD_G_CFI, 0);
    assert_int_equal(send_as(&r, compat, 8).fault, REMAP_OK);
    assert_int_equal(send_as(&r, compat, 8).irq.dest, 5);
    ir_on(&r, 15, true); /* 32-bit destinations: CFI doesn't help */
    assert_int_equal(send_as(&r, compat, 8).fault, REMAP_VTD_COMPAT_BLOCKED);
    assert_int_equal(rd(&r, VTD_FRCD + 12), 0x80000025);
    assert_int_equal(rd(&r, VTD_FRCD + 8), 8);
    gcmd(&r, 0, VTD_G_IRE);
    assert_int_equal(send_as(&r, compat, 8).fault, REMAP_OK);
    vtd_rig_close(&r);
}

static void an_entry_says_where_to(void **state)
{
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    ir_on(&r, 15, true);
    irte(&r, 0xfffe, IRTE(0x41, 0x1012c), 0);
    struct remap_result q = send_as(&r, handle(0xfffe), 0x1234);
    assert_int_equal(q.fault, REMAP_OK);
    assert_int_equal(q.form, REMAP_FORM_VTD);
    assert_int_equal(q.cookie, 0xffff);
    assert_int_equal(q.irq.dest, 0x1012c);
    assert_int_equal(q.irq.vector, 0x41);
    assert_int_equal(q.irq.mode, IRQ_FIXED);
    assert_int_equal(q.irq.dest8, 0);
    irte(&r, 7, IRTE(0x42, 0xffffffff) | 1u << 2 | 1u << 3 | 1u << 4 | 0xf00, 0); /* logical, hint, level, avail */
    q = send_as(&r, handle(7), 0);
    assert_int_equal(q.irq.dest, 0xffffffff);
    assert_int_equal(q.irq.mode, IRQ_LOWEST);
    assert_int_equal(q.irq.logical, 1);
    assert_int_equal(q.irq.level, 1);
    assert_int_equal(q.irq.assert_, 1);
    irte(&r, 7, IRTE(0x42, 5) | 4u << 5 | 1u << 4, 0);
    q = send_as(&r, handle(7), 0);
    assert_int_equal(q.irq.mode, IRQ_NMI);
    assert_int_equal(q.irq.level, 0);
    ir_on(&r, 15, false); /* 8-bit destinations are one byte up */
    irte(&r, 7, IRTE(0x42, 0xab00), 0);
    q = send_as(&r, handle(7), 0);
    assert_int_equal(q.irq.dest, 0xab);
    assert_int_equal(q.irq.dest8, 1);
    vtd_rig_close(&r);
}

static void an_io_apic_entry_is_a_handle(void **state)
{
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    ir_on(&r, 15, true);
    irte(&r, 0x9234, IRTE(0x55, 299), UINT64_C(1) << 18 | 0xa0);
    uint64_t rte = UINT64_C(0x1234) << 49 | BIT(48) | BIT(15) | BIT(11) | 0x04;
    struct remap_result q = remap_rte(&r.remap, rte, REQUESTER_ID(0xa0), REMAP_DELIVER);
    assert_int_equal(q.fault, REMAP_OK);
    assert_int_equal(q.irq.dest, 299);
    assert_int_equal(q.irq.vector, 0x55);
    assert_int_equal(q.cookie, 0x9235);
    vtd_rig_close(&r);
}

/* Windows on an AMD CPU: the entry has no format bit and its index in the data, as on AMD's units. */
static void windows_names_entries_as_on_amd(void **state)
{
    const requester_id_t ioapic = REQUESTER_ID(0xa0);
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    ir_on(&r, 15, true);
    irte(&r, 0x523, IRTE(0x55, 299), 0);
    uint64_t rte = UINT64_C(0xff) << 56 | BIT(15) | 0x523; /* index 523h: vector 23h, mode 5 */
    assert_int_equal(remap_rte(&r.remap, rte, ioapic, REMAP_LOOKUP).fault, REMAP_VTD_COMPAT_BLOCKED);
    r.remap.windows_amd = true;
    r.remap.ioapic = ioapic;
    struct remap_result q = remap_rte(&r.remap, rte, ioapic, REMAP_DELIVER);
    assert_int_equal(q.fault, REMAP_OK);
    assert_int_equal(q.form, REMAP_FORM_WINDOWS_AMD);
    assert_int_equal(q.irq.dest, 299);
    assert_int_equal(q.irq.vector, 0x55);
    assert_int_equal(q.cookie, 0x524);
    q = remap_rte(&r.remap, (rte & ~UINT64_C(0xff)) | 0x24, ioapic, REMAP_LOOKUP);
    assert_int_equal(q.fault, REMAP_VTD_NOT_PRESENT);
    /* a PCI function counts from 0, and its entry is nobody knows where */
    q = remap_msi(&r.remap, (struct msi_msg){0xfeeff000, 0x523}, REQUESTER_ID(8), REMAP_LOOKUP);
    assert_int_equal(q.fault, REMAP_VTD_COMPAT_BLOCKED);
    /* VT-d's own format goes on working */
    irte(&r, 0x1234, IRTE(0x56, 298), 0);
    q = remap_rte(&r.remap, UINT64_C(0x1234) << 49 | BIT(48), ioapic, REMAP_DELIVER);
    assert_int_equal(q.form, REMAP_FORM_VTD);
    assert_int_equal(q.irq.dest, 298);
    gcmd(&r, 0, VTD_G_IRE); /* and before remapping is on an entry is plain */
    q = remap_rte(&r.remap, UINT64_C(3) << 56 | 0x31, ioapic, REMAP_DELIVER);
    assert_int_equal(q.form, REMAP_FORM_COMPAT);
    assert_int_equal(q.irq.dest, 3);
    vtd_rig_close(&r);
}

static void subhandles_count_up_from_the_handle(void **state)
{
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    ir_on(&r, 7, true); /* 256 entries */
    irte(&r, 0xff, IRTE(0x61, 9), 0);
    struct msi_msg m = handle(0xf0);
    m.addr |= BIT(3);
    m.data = 0xf;
    assert_int_equal(send_as(&r, m, 0).irq.vector, 0x61);
    m.data = 0x10;
    assert_int_equal(send_as(&r, m, 0).fault, REMAP_VTD_INDEX);
    m.data = 0x1000f;
    assert_int_equal(send_as(&r, m, 0).fault, REMAP_VTD_REQUEST_RSVD);
    m.addr &= ~BIT(3); /* without SHV data says nothing */
    m.data = 0xdeadbeef;
    irte(&r, 0xf0, IRTE(0x62, 9), 0);
    assert_int_equal(send_as(&r, m, 0).irq.vector, 0x62);
    m = handle(0xffff);
    m.addr |= BIT(3);
    m.data = 0xffff; /* no wrap */
    assert_int_equal(send_as(&r, m, 0).fault, REMAP_VTD_INDEX);
    vtd_rig_close(&r);
}

static unsigned records(struct vtd_rig *r)
{
    unsigned n = 0;
    for (unsigned i = 0; i < VTD_FAULTS; i++)
        n += rd(r, VTD_FRCD + i * 16 + 12) >> 31;
    return n;
}

static void clear_faults(struct vtd_rig *r)
{
    for (unsigned i = 0; i < VTD_FAULTS; i++)
        wr(r, VTD_FRCD + i * 16 + 12, 0x80000000);
    wr(r, VTD_FSTS, 0xff);
    assert_int_equal(rd(r, VTD_FSTS), 0);
}

/* One fault: its record, the silence of a look-up, and FPD where it counts. */
static void faults_as(struct vtd_rig *r, struct msi_msg m, uint32_t index, enum remap_fault want, bool fpd_counts)
{
    clear_faults(r);
    unsigned at = r->v->fault_next;
    struct remap_result q = remap_msi(&r->remap, m, REQUESTER_ID(0xbeef), REMAP_LOOKUP);
    assert_int_equal(q.fault, want);
    assert_int_equal(q.cookie, index + 1);
    assert_int_equal(records(r), 0);
    assert_int_equal(send_as(r, m, 0xbeef).fault, want);
    assert_int_equal(records(r), 1);
    assert_int_equal(rd(r, VTD_FSTS), VTD_FSTS_PPF | at << 8);
    assert_int_equal(rq(r, VTD_FRCD + at * 16), (uint64_t)index << 48);
    assert_int_equal(rq(r, VTD_FRCD + at * 16 + 8), BIT(63) | (uint64_t)want << 32 | 0xbeef);
    clear_faults(r);
    *quad(r, RIG_IRT + (index & 0xffff) * 16u) |= 2;
    assert_int_equal(send_as(r, m, 0xbeef).fault, want);
    assert_int_equal(records(r), !fpd_counts);
    clear_faults(r);
}

static void every_fault_is_recorded(void **state)
{
    struct vtd_rig r;
    struct msi_msg m = handle(5);
    vtd_rig_open(&r, vtd_rig_config(true));
    ir_on(&r, 7, true);
    m.addr |= BIT(3);
    m.data = 0x80000000;
    faults_as(&r, m, 5, REMAP_VTD_REQUEST_RSVD, false);
    faults_as(&r, handle(0x100), 0x100, REMAP_VTD_INDEX, false);
    faults_as(&r, handle(6), 6, REMAP_VTD_NOT_PRESENT, true);
    irte(&r, 7, IRTE(0x41, 3) | BIT(12), 0);
    faults_as(&r, handle(7), 7, REMAP_VTD_ENTRY_RSVD, true);
    irte(&r, 8, IRTE(0x41, 3), UINT64_C(1) << 18 | 0xbeee);
    faults_as(&r, handle(8), 8, REMAP_VTD_SOURCE, true);
    irte(&r, 9, IRTE(0x41, 3), UINT64_C(3) << 18);
    faults_as(&r, handle(9), 9, REMAP_VTD_SOURCE, true);
    irte(&r, 10, 1 | BIT(15) | (NOWHERE >> 6) << 38, NOWHERE >> 32 << 32);
    faults_as(&r, handle(10), 10, REMAP_VTD_DESCRIPTOR, true);
    irte(&r, 11, 1 | BIT(15) | (uint64_t)RIG_PD >> 6 << 38, 0);
    *quad(&r, RIG_PD + 32) = BIT(2);
    faults_as(&r, handle(11), 11, REMAP_VTD_DESCRIPTOR_RSVD, true);
    wq(&r, VTD_IRTA, NOWHERE | 0x807);
    gcmd(&r, VTD_G_SIRTP, 0);
    faults_as(&r, handle(12), 12, REMAP_VTD_TABLE, false);
    vtd_rig_close(&r);
}

static void reserved_bits_of_entries(void **state)
{
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    for (unsigned eime = 0; eime < 2; eime++) {
        ir_on(&r, 15, eime);
        for (unsigned bit = 0; bit < 128; bit++) {
            uint64_t lo = IRTE(0x41, 0) | (bit < 64 ? BIT(bit) : 0), hi = bit >= 64 ? BIT(bit - 64) : 0;
            if (bit == 15 || bit == 82 || bit == 83)
                continue; /* IM and SVT have tests of their own */
            bool rsvd = (bit >= 12 && bit <= 14) || (bit >= 24 && bit <= 31) || bit >= 84;
            rsvd |= !eime && ((bit >= 32 && bit <= 39) || (bit >= 48 && bit <= 63));
            irte(&r, 3, lo, hi);
            assert_int_equal(send_as(&r, handle(3), 0).fault == REMAP_VTD_ENTRY_RSVD, rsvd);
            bool posted_rsvd = (bit >= 2 && bit <= 7) || bit == 12 || bit == 13 || (bit >= 24 && bit <= 37) ||
                               (bit >= 84 && bit <= 95);
            irte(&r, 3, (lo & ~IRTE(0xff, 0)) | 1 | BIT(15), hi);
            assert_int_equal(send_as(&r, handle(3), 0).fault == REMAP_VTD_ENTRY_RSVD, posted_rsvd);
        }
        for (unsigned mode = 0; mode < 8; mode++) {
            irte(&r, 3, IRTE(0x41, 0) | mode << 5, 0);
            assert_int_equal(send_as(&r, handle(3), 0).fault, mode == 3 || mode == 6 ? REMAP_VTD_ENTRY_RSVD : REMAP_OK);
        }
    }
    vtd_rig_close(&r);
}

static bool may_use(unsigned svt, unsigned sq, unsigned sid, unsigned rid)
{
    switch (svt) {
    case 0:
        return true;
    case 1: /* bus and device as they are; the function by SQ: all, but bit 2, but bits 2:1, not at all */
        return sid >> 3 == rid >> 3 && (sq == 3 || ((sid ^ rid) & (sq == 0 ? 7 : sq == 1 ? 3 : 1)) == 0);
    case 2:
        return rid >> 8 >= sid >> 8 && rid >> 8 <= (sid & 0xff);
    default:
        return false;
    }
}

static void senders_are_checked(void **state)
{
    static const uint16_t sids[] = {0, 0x00a0, 0x00a7, 0x2040, 0x4020, 0x2020, 0xffff, 0x00ff, 0xff00};
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    ir_on(&r, 15, true);
    for (unsigned k = 0; k < ARRAY_SIZE(sids) * 16; k++) {
        unsigned sid = sids[k / 16], sq = k & 3, svt = k >> 2 & 3;
        irte(&r, 3, IRTE(0x41, 0x101) | 2, (uint64_t)svt << 18 | (uint64_t)sq << 16 | sid);
        for (unsigned rid = 0; rid < 0x10000; rid += 1 + (rid > 0x200 && rid < 0xfe00 ? 37 : 0)) {
            enum remap_fault f = send_as(&r, handle(3), rid).fault;
            assert_int_equal(f, may_use(svt, sq, sid, rid) ? REMAP_OK : REMAP_VTD_SOURCE);
        }
    }
    vtd_rig_close(&r);
}

static void only_the_scope_is_served(void **state)
{
    struct vtd_rig r;
    struct vtd_config c = vtd_rig_config(true);
    c.scoped = true;
    c.scope = REQUESTER_ID(0xa0);
    vtd_rig_open(&r, c);
    ir_on(&r, 15, true);
    assert_int_equal(send_as(&r, handle(3), 0xa0).fault, REMAP_VTD_NOT_PRESENT);
    assert_int_equal(send_as(&r, (struct msi_msg){0xfee05000, 0x41}, 0xa0).fault, REMAP_VTD_COMPAT_BLOCKED);
    assert_int_equal(send_as(&r, (struct msi_msg){0xfee05000, 0x41}, 0xa1).fault, REMAP_OK);
    vtd_rig_close(&r);
}

/* ---- posting ---- */

static void posting_notes_and_notifies_once(void **state)
{
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    ir_on(&r, 15, true);
    uint64_t *pd = quad(&r, RIG_PD), lo = 1 | BIT(15) | (uint64_t)RIG_PD >> 6 << 38;
    pd[4] = UINT64_C(0x12c) << 32 | 0xf2 << 16;
    irte(&r, 20, lo | 0x41 << 16, 0);
    irte(&r, 21, lo | 0xfe << 16, 0);
    struct remap_result q = remap_msi(&r.remap, handle(20), REQUESTER_ID(1), REMAP_LOOKUP);
    assert_int_equal(q.fault, REMAP_POSTED);
    assert_int_equal(pd[1], 0);
    q = send_as(&r, handle(20), 1);
    assert_int_equal(q.fault, REMAP_OK);
    assert_int_equal(q.irq.dest, 0x12c);
    assert_int_equal(q.irq.vector, 0xf2);
    assert_int_equal(q.irq.mode, IRQ_FIXED);
    assert_int_equal(q.irq.level, 0);
    assert_int_equal(pd[1], BIT(1));
    assert_int_equal(pd[4] & 3, 1);
    q = send_as(&r, handle(21), 1); /* somebody has been told already */
    assert_int_equal(q.fault, REMAP_POSTED);
    assert_int_equal(pd[3], BIT(62));
    struct irq_port port = {.deliver = vtd_rig_deliver, .opaque = &r};
    assert_int_equal(remap_deliver_msi(&r.remap, port, handle(21), REQUESTER_ID(1)), 1);
    assert_int_equal(r.delivered, 0);
    pd[4] = (pd[4] & ~UINT64_C(1)) | 2; /* suppressed */
    assert_int_equal(send_as(&r, handle(20), 1).fault, REMAP_POSTED);
    assert_int_equal(pd[4] & 3, 2);
    irte(&r, 20, lo | 0x41 << 16 | BIT(14), 0); /* but urgent */
    assert_int_equal(send_as(&r, handle(20), 1).fault, REMAP_OK);
    assert_int_equal(pd[4] & 3, 3);
    ir_on(&r, 15, false);
    pd[4] = UINT64_C(0x3400) << 32 | 0xf2 << 16;
    assert_int_equal(send_as(&r, handle(20), 1).irq.dest, 0x34);
    pd[4] = UINT64_C(0x10034) << 32 | 0xf2 << 16;
    assert_int_equal(send_as(&r, handle(20), 1).fault, REMAP_VTD_DESCRIPTOR_RSVD);
    vtd_rig_close(&r);
}

/* ---- fault status and events ---- */

static void faults_overflow_once_and_call_once(void **state)
{
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    ir_on(&r, 15, true);
    wr(&r, VTD_FEDATA, 0x4042);
    wr(&r, VTD_FEADDR, 0xfee2c000);
    wr(&r, VTD_FEUADDR, 0x100);
    send_as(&r, handle(0), 1);
    assert_int_equal(r.delivered, 0);
    assert_int_equal(rd(&r, VTD_FECTL), VTD_EVENT_MASKED | VTD_EVENT_PENDING);
    wr(&r, VTD_FECTL, 0);
    assert_int_equal(r.delivered, 1);
    assert_int_equal(r.last.dest, 0x12c);
    assert_int_equal(r.last.vector, 0x42);
    assert_int_equal(rd(&r, VTD_FECTL), 0);
    for (unsigned i = 1; i < VTD_FAULTS; i++)
        send_as(&r, handle(i), 1);
    assert_int_equal(rd(&r, VTD_FSTS), VTD_FSTS_PPF);
    send_as(&r, handle(100), 1);
    assert_int_equal(rd(&r, VTD_FSTS), VTD_FSTS_PPF | VTD_FSTS_PFO);
    assert_int_equal(r.delivered, 1);
    wr(&r, VTD_FRCD + 12, 0x80000000); /* room, but the overflow has not been seen */
    send_as(&r, handle(101), 1);
    assert_int_equal(records(&r), VTD_FAULTS - 1);
    wr(&r, VTD_FSTS, VTD_FSTS_PFO);
    send_as(&r, handle(102), 1);
    assert_int_equal(rq(&r, VTD_FRCD), UINT64_C(102) << 48);
    assert_int_equal(rd(&r, VTD_FSTS), VTD_FSTS_PPF);
    wr(&r, VTD_FSTS, VTD_FSTS_PPF); /* not his to clear */
    assert_int_equal(rd(&r, VTD_FSTS), VTD_FSTS_PPF);
    clear_faults(&r);
    send_as(&r, handle(103), 1);
    assert_int_equal(r.delivered, 2);
    assert_int_equal(rd(&r, VTD_FSTS), VTD_FSTS_PPF | 1u << 8);
    vtd_rig_close(&r);
}

static void a_pending_event_goes_with_its_reason(void **state)
{
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    ir_on(&r, 15, true);
    wr(&r, VTD_FEADDR, 0xfee01000);
    send_as(&r, handle(0), 1);
    assert_int_equal(rd(&r, VTD_FECTL), VTD_EVENT_MASKED | VTD_EVENT_PENDING);
    clear_faults(&r);
    assert_int_equal(rd(&r, VTD_FECTL), VTD_EVENT_MASKED);
    wr(&r, VTD_FECTL, 0);
    assert_int_equal(r.delivered, 0);
    wr(&r, VTD_FEADDR, 0x1000); /* an event to nowhere */
    send_as(&r, handle(0), 1);
    assert_int_equal(r.delivered, 0);
    gcmd(&r, 0, VTD_G_IRE); /* the record index starts over */
    assert_int_equal(r.v->fault_next, 0);
    vtd_rig_close(&r);
}

static void upper_addresses_need_wide_destinations(void **state)
{
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(false));
    wr(&r, VTD_FEUADDR, 0x100);
    wr(&r, VTD_IEUADDR, 0x100);
    wq(&r, VTD_IRTA, RIG_IRT | 0x80f);
    assert_int_equal(rd(&r, VTD_FEUADDR) | rd(&r, VTD_IEUADDR), 0);
    assert_int_equal(rq(&r, VTD_IRTA), RIG_IRT | 0xf);
    vtd_rig_close(&r);
}

/* ---- the queue ---- */

#define WAIT_STATUS(val) (UINT64_C(5) | BIT(5) | (uint64_t)(val) << 32)

static void waits_write_their_status(void **state)
{
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    queue_on(&r);
    for (uint32_t i = 1; i <= 1000; i++) { /* round the ring several times */
        submit(&r, WAIT_STATUS(i), RIG_STATUS);
        assert_int_equal(*(uint32_t *)quad(&r, RIG_STATUS), i);
        assert_int_equal(rq(&r, VTD_IQH), rq(&r, VTD_IQT));
    }
    assert_int_equal(rd(&r, VTD_FSTS), 0);
    gcmd(&r, 0, VTD_G_QIE);
    assert_int_equal(rq(&r, VTD_IQH), 0);
    vtd_rig_close(&r);
}

static void what_is_queued_before_waits_for_enabling(void **state)
{
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    wq(&r, VTD_IQA, RIG_QUEUE);
    submit(&r, WAIT_STATUS(7), RIG_STATUS);
    assert_int_equal(*quad(&r, RIG_STATUS), 0);
    gcmd(&r, VTD_G_QIE, 0);
    assert_int_equal(*quad(&r, RIG_STATUS), 7);
    vtd_rig_close(&r);
}

static void the_completion_interrupt(void **state)
{
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    queue_on(&r);
    wr(&r, VTD_IEDATA, 0x77);
    wr(&r, VTD_IEADDR, 0xfee07000);
    wr(&r, VTD_IECTL, 0);
    submit(&r, 5 | BIT(4), 0);
    assert_int_equal(r.delivered, 1);
    assert_int_equal(r.last.vector, 0x77);
    assert_int_equal(r.last.dest, 7);
    assert_int_equal(rd(&r, VTD_ICS), 1);
    submit(&r, 5 | BIT(4), 0); /* the first one has not been seen */
    assert_int_equal(r.delivered, 1);
    wr(&r, VTD_ICS, 1);
    assert_int_equal(rd(&r, VTD_ICS), 0);
    wr(&r, VTD_IECTL, VTD_EVENT_MASKED);
    submit(&r, 5 | BIT(4), 0);
    assert_int_equal(rd(&r, VTD_IECTL), VTD_EVENT_MASKED | VTD_EVENT_PENDING);
    wr(&r, VTD_ICS, 1);
    assert_int_equal(rd(&r, VTD_IECTL), VTD_EVENT_MASKED);
    vtd_rig_close(&r);
}

static void a_bad_descriptor_stops_the_queue(void **state)
{
    static const uint64_t bad[][2] = {
        {0, 0},
        {3, 0}, /* device TLB: there is none */
        {6, 0},
        {15, 0},
        {1, 0}, /* no granularity */
        {1 | 1u << 4, 1},
        {1 | 1u << 4 | 1u << 6, 0},
        {2, 0},
        {2 | 3u << 4, VTD_MAMV + 1},
        {2 | 1u << 4, 1u << 7},
        {2 | 1u << 4 | 1u << 8, 0},
        {4 | 1u << 5, 0},
        {4, 1},
        {4 | 1u << 4 | UINT64_C(16) << 27, 0}, /* wider than MHMV */
        {5 | 1u << 7, 0},
        {5 | 1u << 5, RIG_STATUS + 2},
        {5 | 1u << 5, NOWHERE},
    };
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    queue_on(&r);
    wr(&r, VTD_FEADDR, 0xfee01000);
    wr(&r, VTD_FECTL, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        uint32_t at = r.tail;
        *quad(&r, RIG_STATUS) = 0;
        submit(&r, bad[i][0], bad[i][1]);
        submit(&r, WAIT_STATUS(9), RIG_STATUS);
        if (rd(&r, VTD_FSTS) != VTD_FSTS_IQE)
            fail_msg("descriptor %u was taken", i);
        assert_int_equal(rq(&r, VTD_IQH), at << 4);
        assert_int_equal(*quad(&r, RIG_STATUS), 0);
        assert_int_equal(r.delivered, i + 1);
        *quad(&r, RIG_QUEUE + at * 16) = 5; /* repaired: it goes on */
        *quad(&r, RIG_QUEUE + at * 16 + 8) = 0;
        wr(&r, VTD_FSTS, VTD_FSTS_IQE);
        assert_int_equal(*quad(&r, RIG_STATUS), 9);
        assert_int_equal(rd(&r, VTD_FSTS), 0);
    }
    vtd_rig_close(&r);
}

static void a_bad_queue_stops_too(void **state)
{
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    queue_on(&r);
    for (unsigned i = 0; i < 256; i++)
        *quad(&r, RIG_QUEUE + i * 16) = 5;
    wq(&r, VTD_IQT, 256 << 4); /* past the end of 256, though all of them are good */
    assert_int_equal(rd(&r, VTD_FSTS), VTD_FSTS_IQE);
    assert_int_equal(rq(&r, VTD_IQH), 0);
    vtd_reset(r.v);
    wq(&r, VTD_IQA, NOWHERE);
    gcmd(&r, VTD_G_QIE, 0);
    wq(&r, VTD_IQT, 1 << 4);
    assert_int_equal(rd(&r, VTD_FSTS), VTD_FSTS_IQE);
    assert_int_equal(rq(&r, VTD_IQH), 0);
    vtd_rig_close(&r);
}

static void invalidations_name_the_routes_they_stale(void **state)
{
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    ir_on(&r, 15, true);
    assert_int_equal(r.stale_first, 0); /* with the unit itself every route may change */
    assert_int_equal(r.stale_last, UINT32_MAX);
    queue_on(&r);
    irte(&r, 0x1236, IRTE(0x41, 1), 0);
    uint32_t cookie = send_as(&r, handle(0x1236), 0).cookie;
    submit(&r, 4 | BIT(4) | UINT64_C(2) << 27 | UINT64_C(0x1235) << 32, 0);
    assert_int_equal(r.stale_first, 0x1234 + 1);
    assert_int_equal(r.stale_last, 0x1237 + 1);
    assert_in_range(cookie, r.stale_first, r.stale_last);
    submit(&r, 4 | BIT(4) | UINT64_C(0x1236) << 32, 0);
    assert_int_equal(r.stale_first, cookie);
    assert_int_equal(r.stale_last, cookie);
    submit(&r, 4, 0);
    assert_int_equal(r.stale_last, UINT32_MAX);
    unsigned before = r.stale;
    gcmd(&r, 0, VTD_G_IRE);
    assert_int_equal(r.stale, before + 1);
    vtd_rig_close(&r);
}

/* ---- through the fabric ---- */

static void a_remapped_message_reaches_an_id_past_255(void **state)
{
    static const uint32_t ids[] = {2, 0x12c, 32767};
    struct vtd_rig v;
    struct rig r;
    vtd_rig_open(&v, vtd_rig_config(true));
    rig_init(&r, ids, 3, true);
    rig_enable(&r);
    ir_on(&v, 15, true);
    for (unsigned i = 0; i < 3; i++) {
        irte(&v, 40 + i, IRTE(0x60 + i, ids[i]), 0);
        assert_int_equal(remap_deliver_msi(&v.remap, fabric_port(r.f), handle(40 + i), REQUESTER_ID(8)), 1);
        assert_true(rig_got(&r, i, (uint8_t)(0x60 + i)));
    }
    irte(&v, 43, IRTE(0x70, 0x121000) | BIT(2), 0); /* cluster 12h, member 12 */
    assert_int_equal(remap_deliver_msi(&v.remap, fabric_port(r.f), handle(43), REQUESTER_ID(8)), 1);
    assert_true(rig_got(&r, 1, 0x70));
    assert_int_equal(remap_deliver_msi(&v.remap, fabric_port(r.f), handle(44), REQUESTER_ID(8)), 0);
    rig_fini(&r);
    vtd_rig_close(&v);
}

/* ---- random entries against a second opinion ---- */

struct opinion {
    unsigned fault;
    uint32_t dest;
    unsigned vector, mode, logical, level;
};

/* The entry as bit fields, in the order the specification's figure has them. */
union entry {
    struct {
        uint64_t p : 1, fpd : 1, dm : 1, rh : 1, tm : 1, dlm : 3, avail : 4, r1 : 3, im : 1, vector : 8, r2 : 8,
            dst : 32;
        uint64_t sid : 16, sq : 2, svt : 2, r3 : 44;
    } f;
    uint64_t quad[2];
};

static struct opinion second_opinion(union entry e, bool eime, unsigned rid)
{
    struct opinion o = {0};
    if (!e.f.p)
        return o.fault = 0x22, o;
    if (e.f.r1 || e.f.r2 || e.f.r3 || e.f.dlm == 3 || e.f.dlm == 6)
        return o.fault = 0x24, o;
    if (!eime && (e.f.dst >> 16 || e.f.dst & 0xff))
        return o.fault = 0x24, o;
    if (!may_use(e.f.svt, e.f.sq, e.f.sid, rid))
        return o.fault = 0x26, o;
    o.dest = eime ? (uint32_t)e.f.dst : e.f.dst >> 8 & 0xff;
    o.vector = e.f.vector;
    o.mode = e.f.dlm == 0 && e.f.rh ? 1 : (unsigned)e.f.dlm;
    o.logical = e.f.dm;
    o.level = e.f.tm && e.f.dlm < 2;
    return o;
}

static void random_entries_mean_what_the_figure_says(void **state)
{
    uint64_t seed = 0x9b05688c2b3e6c1f;
    unsigned good = 0;
    struct vtd_rig r;
    vtd_rig_open(&r, vtd_rig_config(true));
    for (unsigned k = 0; k < 200000; k++) {
        bool eime = k & 1;
        unsigned rid = rig_below(&seed, 0x10000), index = rig_below(&seed, 0x10000);
        union entry e = {.quad = {rig_random(&seed), rig_random(&seed)}};
        if (k % 1000 < 2)
            ir_on(&r, 15, eime), assert_int_equal(rd(&r, VTD_GSTS) & VTD_G_IRE, VTD_G_IRE);
        eime = r.v->irta_latched & VTD_IRTA_EIME;
        e.f.im = 0;
        if (rig_below(&seed, 8)) { /* mostly legal */
            e.f.p = 1;
            e.f.r1 = e.f.r2 = e.f.r3 = 0;
            e.f.sid = rig_below(&seed, 2) ? rid : e.f.sid;
            if (!eime)
                e.f.dst = e.f.dst & 0xff00;
        }
        irte(&r, index, e.quad[0], e.quad[1]);
        struct remap_result got = send_as(&r, handle(index), rid);
        struct opinion want = second_opinion(e, eime, rid);
        assert_int_equal(got.fault, want.fault);
        assert_int_equal(got.cookie, index + 1);
        if (got.fault)
            continue;
        good++;
        assert_int_equal(got.irq.dest, want.dest);
        assert_int_equal(got.irq.vector, want.vector);
        assert_int_equal(got.irq.mode, want.mode);
        assert_int_equal(got.irq.logical, want.logical);
        assert_int_equal(got.irq.level, want.level);
        assert_int_equal(got.irq.dest8, !eime);
    }
    assert_true(good > 20000);
    vtd_rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(capabilities_follow_the_options),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(commands_latch_and_toggle),
        cmocka_unit_test(the_compatibility_format_passes_or_is_blocked),
        cmocka_unit_test(an_entry_says_where_to),
        cmocka_unit_test(an_io_apic_entry_is_a_handle),
        cmocka_unit_test(windows_names_entries_as_on_amd),
        cmocka_unit_test(subhandles_count_up_from_the_handle),
        cmocka_unit_test(every_fault_is_recorded),
        cmocka_unit_test(reserved_bits_of_entries),
        cmocka_unit_test(senders_are_checked),
        cmocka_unit_test(only_the_scope_is_served),
        cmocka_unit_test(posting_notes_and_notifies_once),
        cmocka_unit_test(faults_overflow_once_and_call_once),
        cmocka_unit_test(a_pending_event_goes_with_its_reason),
        cmocka_unit_test(upper_addresses_need_wide_destinations),
        cmocka_unit_test(waits_write_their_status),
        cmocka_unit_test(what_is_queued_before_waits_for_enabling),
        cmocka_unit_test(the_completion_interrupt),
        cmocka_unit_test(a_bad_descriptor_stops_the_queue),
        cmocka_unit_test(a_bad_queue_stops_too),
        cmocka_unit_test(invalidations_name_the_routes_they_stale),
        cmocka_unit_test(a_remapped_message_reaches_an_id_past_255),
        cmocka_unit_test(random_entries_mean_what_the_figure_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
