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
            assert_int_equal(a.fault, REMAP_BAD_MODE);
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
        cmocka_unit_test(delivery_through_a_port),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
