/* The translator: messages and redirection entries, bit by bit. */
#include "irq_rig.h"

#include "irq/remap.h"

static const requester_id_t from = {0x00a0};

static struct remap_result msi(bool ext, uint64_t addr, uint32_t data)
{
    struct remap r;
    remap_init(&r, ext);
    return remap_msi(&r, (struct msi_msg){addr, data}, from, REMAP_DELIVER);
}

static void compatibility_format(void **state)
{
    struct remap_result r = msi(false, 0xfee23004, 0x00000131);
    assert_int_equal(r.fault, REMAP_OK);
    assert_int_equal(r.form, REMAP_FORM_COMPAT);
    assert_int_equal(r.irq.dest, 0x23);
    assert_int_equal(r.irq.vector, 0x31);
    assert_int_equal(r.irq.mode, IRQ_LOWEST);
    assert_int_equal(r.irq.logical, 1);
    assert_int_equal(r.irq.level, 0);
    assert_int_equal(r.irq.assert_, 1);
    assert_int_equal(r.irq.dest8, 1);
    assert_int_equal(r.irq.shorthand, IRQ_DEST);
    assert_int_equal(r.cookie, 0);
}

static void extended_destinations_reach_every_15_bit_id(void **state)
{
    for (uint32_t id = 0; id <= HEC_APIC_ID_MAX; id++) {
        uint64_t addr = 0xfee00000u | (id & 0xff) << 12 | (id >> 8) << 5;
        struct remap_result r = msi(true, addr, 0x41);
        assert_int_equal(r.fault, REMAP_OK);
        assert_int_equal(r.irq.dest, id);
        assert_int_equal(r.form, id > 0xff ? REMAP_FORM_EXT_DEST : REMAP_FORM_COMPAT);
        assert_int_equal(r.irq.dest8, id <= 0xff);
        r = msi(false, addr, 0x41); /* not promised: the bits mean nothing */
        assert_int_equal(r.irq.dest, id & 0xff);
        r = msi(true, addr | 0x10, 0x41); /* remappable format without a remapper */
        assert_int_equal(r.irq.dest, id & 0xff);
    }
}

static void entries_and_messages_agree(void **state)
{
    struct remap r;
    uint64_t seed = 0x452821e638d01377;
    remap_init(&r, true);
    for (unsigned k = 0; k < 100000; k++) {
        uint64_t rte = rig_random(&seed);
        struct remap_result a = remap_rte(&r, rte, from, REMAP_LOOKUP);
        unsigned mode = rte >> 8 & 7;
        if (mode == 3 || mode == 6) {
            assert_int_equal(a.fault, mode == 3 && !(rte & 0xff) ? REMAP_XEN_PIRQ : REMAP_BAD_MODE);
            continue;
        }
        uint32_t dest = (uint32_t)(rte >> 56);
        if (!(rte >> 48 & 1))
            dest |= (uint32_t)(rte >> 49 & 0x7f) << 8;
        assert_int_equal(a.fault, REMAP_OK);
        assert_int_equal(a.irq.dest, dest);
        assert_int_equal(a.irq.vector, rte & 0xff);
        assert_int_equal(a.irq.mode, mode);
        assert_int_equal(a.irq.logical, rte >> 11 & 1);
        assert_int_equal(a.irq.level, mode <= 1 && (rte >> 15 & 1));
        assert_int_equal(a.irq.assert_, 1);
    }
}

static void trigger_and_level(void **state)
{
    assert_int_equal(msi(true, 0xfee00000, 0xc041).irq.level, 1);
    assert_int_equal(msi(true, 0xfee00000, 0xc041).irq.assert_, 1);
    assert_int_equal(msi(true, 0xfee00000, 0x8041).irq.assert_, 0); /* a level going away */
    assert_int_equal(msi(true, 0xfee00000, 0x0041).irq.assert_, 1); /* an edge has no level */
    assert_int_equal(msi(true, 0xfee00000, 0x8441).irq.level, 0);   /* NMI is an edge */
    assert_int_equal(msi(true, 0xfee00000, 0x8541).irq.assert_, 1); /* and INIT no de-assert */
}

static void the_redirection_hint_asks_for_one(void **state)
{
    assert_int_equal(msi(true, 0xfee0000c, 0x41).irq.mode, IRQ_LOWEST);
    assert_int_equal(msi(true, 0xfee00004, 0x41).irq.mode, IRQ_FIXED);
    assert_int_equal(msi(true, 0xfee0000c, 0x441).irq.mode, IRQ_NMI);
}

static void what_is_no_interrupt_is_a_fault(void **state)
{
    assert_int_equal(msi(true, 0xfed00000, 0x41).fault, REMAP_NOT_INTERRUPT);
    assert_int_equal(msi(true, 0, 0x41).fault, REMAP_NOT_INTERRUPT);
    assert_int_equal(msi(true, 0x1fee01000, 0x41).fault, REMAP_HIGH_ADDRESS);
    assert_int_equal(msi(true, 0xfee00000, 0x341).fault, REMAP_BAD_MODE);
    assert_int_equal(msi(true, 0xfee00000, 0x641).fault, REMAP_BAD_MODE);
}

static void kvm_users_put_high_bits_at_40(void **state)
{
    struct remap r;
    remap_init(&r, true);
    for (uint32_t id = 0; id <= HEC_APIC_ID_MAX; id += 77) {
        uint64_t addr = 0xfee00000u | (id & 0xff) << 12 | (uint64_t)(id >> 8) << 40;
        struct remap_result a = remap_msi(&r, (struct msi_msg){addr, 0x41}, from, REMAP_ADDR_HI);
        assert_int_equal(a.fault, REMAP_OK);
        assert_int_equal(a.form, REMAP_FORM_ADDR_HI);
        assert_int_equal(a.irq.dest, id);
    }
    /* -EINVAL from KVM_SET_GSI_ROUTING; here the one message faults */
    struct remap_result bad = remap_msi(&r, (struct msi_msg){0x1fee01000, 0x41}, from, REMAP_ADDR_HI);
    assert_int_equal(bad.fault, REMAP_HIGH_ADDRESS);
    /* bits 11:5 say nothing in this form */
    assert_int_equal(remap_msi(&r, (struct msi_msg){0xfee2c020, 0x41}, from, REMAP_ADDR_HI).irq.dest, 0x2c);
    assert_int_equal(remap_msi(&r, (struct msi_msg){0xfee2c000, 0x341}, from, REMAP_ADDR_HI).fault, REMAP_BAD_MODE);
    assert_int_equal(remap_msi(&r, (struct msi_msg){0xfed2c000, 0x41}, from, REMAP_ADDR_HI).fault, REMAP_NOT_INTERRUPT);
    /* and only callers that have it may use it */
    assert_int_equal(msi(true, UINT64_C(0x100fee2c000), 0x41).fault, REMAP_HIGH_ADDRESS);
}

static void windows_puts_high_bits_at_32(void **state)
{
    struct remap r;
    remap_init(&r, true);
    assert_false(remap_claims(&r, 0x1fee01000));
    assert_true(remap_claims(&r, 0xfee01000));
    r.windows_high = true;
    struct remap_result a = remap_msi(&r, (struct msi_msg){0x1fee01000, 0x41}, from, REMAP_DELIVER);
    assert_int_equal(a.fault, REMAP_OK);
    assert_int_equal(a.form, REMAP_FORM_WINDOWS_HIGH);
    assert_int_equal(a.irq.dest, 0x101);
    assert_int_equal(a.irq.dest8, 0);
    for (uint32_t id = 256; id <= HEC_APIC_ID_MAX; id += 91) {
        uint64_t addr = 0xfee00000u | (id & 0xff) << 12 | (uint64_t)(id >> 8) << 32;
        assert_true(remap_claims(&r, addr));
        assert_int_equal(remap_msi(&r, (struct msi_msg){addr, 0x41}, from, REMAP_DELIVER).irq.dest, id);
        assert_int_equal(msi(true, addr, 0x41).fault, REMAP_HIGH_ADDRESS); /* not offered */
    }
    assert_int_equal(remap_msi(&r, (struct msi_msg){0xfee2c020, 0x41}, from, 0).form, REMAP_FORM_EXT_DEST);
    assert_int_equal(remap_msi(&r, (struct msi_msg){BIT(56) | 0xfee01000, 0x41}, from, 0).fault, REMAP_HIGH_ADDRESS);
    assert_false(remap_claims(&r, BIT(56) | 0xfee01000));
    assert_false(remap_claims(&r, 0x1fed01000));
}

static bool pirq_resolve(void *opaque, uint32_t pirq, struct irq *out)
{
    *(uint32_t *)opaque = pirq;
    *out = (struct irq){.dest = 0x12c, .vector = 0xf3, .assert_ = 1};
    return pirq != 99;
}

static void xen_pirqs_are_recognised(void **state)
{
    struct remap r;
    uint32_t pirq = 0;
    remap_init(&r, true);
    struct msi_msg m = {UINT64_C(0x100fee55000), 0x4300}; /* as Linux composes PIRQ 155h */
    struct remap_result a = remap_msi(&r, m, from, REMAP_DELIVER);
    assert_int_equal(a.fault, REMAP_XEN_PIRQ);
    assert_int_equal(a.form, REMAP_FORM_XEN_PIRQ);
    assert_int_equal(msi(true, 0xfee55000, 0x4300).fault, REMAP_XEN_PIRQ);
    assert_int_equal(msi(true, 0xfee55000, 0x4000).fault, REMAP_OK); /* an illegal vector is the APIC's to refuse */
    assert_int_equal(msi(true, 0xfee55000, 0x4301).fault, REMAP_BAD_MODE);
    r.pirq = (struct remap_pirq){pirq_resolve, &pirq};
    a = remap_msi(&r, m, from, REMAP_DELIVER);
    assert_int_equal(a.fault, REMAP_OK);
    assert_int_equal(pirq, 0x155);
    assert_int_equal(a.irq.dest, 0x12c);
    assert_int_equal(a.irq.vector, 0xf3);
    a = remap_msi(&r, (struct msi_msg){0xfee07000, 0}, from, REMAP_DELIVER);
    assert_int_equal(a.form, REMAP_FORM_XEN_PIRQ);
    assert_int_equal(pirq, 7);
    a = remap_msi(&r, (struct msi_msg){0xfee63000, 0x300}, from, REMAP_DELIVER); /* 99: nobody's */
    assert_int_equal(a.fault, REMAP_XEN_PIRQ);
}

static void the_quirk_marks_ff(void **state)
{
    struct remap r;
    remap_init(&r, true);
    assert_int_equal(remap_msi(&r, (struct msi_msg){0xfeeff000, 0x41}, from, 0).irq.dest8, IRQ_DEST8);
    r.broadcast_quirk = true;
    assert_int_equal(remap_msi(&r, (struct msi_msg){0xfeeff000, 0x41}, from, 0).irq.dest8, IRQ_DEST8_ALL);
    assert_int_equal(remap_msi(&r, (struct msi_msg){0xfeefe000, 0x41}, from, 0).irq.dest8, IRQ_DEST8);
    assert_int_equal(remap_msi(&r, (struct msi_msg){0xfeeff020, 0x41}, from, 0).irq.dest8, IRQ_DEST32);
}

static void delivery_through_a_port(void **state)
{
    static const uint32_t ids[] = {2, 0x12c, 32767};
    struct rig r;
    struct remap rm;
    remap_init(&rm, true);
    rig_init(&r, ids, 3, true);
    rig_enable(&r);
    struct irq_port p = fabric_port(r.f);
    assert_int_equal(remap_deliver_msi(&rm, p, (struct msi_msg){0xfee2c020, 0x55}, from), 1);
    assert_true(rig_got(&r, 1, 0x55));
    assert_int_equal(remap_deliver_msi(&rm, p, (struct msi_msg){0xfeefffe0, 0x56}, from), 1);
    assert_true(rig_got(&r, 2, 0x56));
    assert_int_equal(remap_deliver_msi(&rm, p, (struct msi_msg){0xfee2c000, 0x55}, from), 0);
    assert_int_equal(remap_deliver_msi(&rm, p, (struct msi_msg){0xfed2c020, 0x55}, from), 0);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compatibility_format),
        cmocka_unit_test(extended_destinations_reach_every_15_bit_id),
        cmocka_unit_test(entries_and_messages_agree),
        cmocka_unit_test(trigger_and_level),
        cmocka_unit_test(the_redirection_hint_asks_for_one),
        cmocka_unit_test(what_is_no_interrupt_is_a_fault),
        cmocka_unit_test(kvm_users_put_high_bits_at_40),
        cmocka_unit_test(windows_puts_high_bits_at_32),
        cmocka_unit_test(xen_pirqs_are_recognised),
        cmocka_unit_test(the_quirk_marks_ff),
        cmocka_unit_test(delivery_through_a_port),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
