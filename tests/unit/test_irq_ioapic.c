/* The I/O APIC in front of a real fabric: pins, entries, remote IRR, EOI by broadcast and by register. */
#include "irq_rig.h"

#include "irq/ioapic.h"

static const uint32_t ids[] = {4, 0x12c, 0x7ffe};

struct box {
    struct rig r;
    struct remap remap;
    struct ioapic *io;
};

static void setup(struct box *b, bool ext)
{
    struct err e = {""};
    rig_init(&b->r, ids, 3, true);
    rig_enable(&b->r);
    remap_init(&b->remap, ext);
    struct ioapic_config c = {.id = 2,
                              .requester = REQUESTER_ID(0xf0f8),
                              .ext_dest_id = ext,
                              .remap = &b->remap,
                              .port = fabric_port(b->r.f)};
    assert_int_equal(ioapic_create(&c, &b->io, &e), 0);
    fabric_set_eoi(b->r.f, ioapic_eoi, b->io);
}

static void teardown(struct box *b)
{
    ioapic_destroy(b->io);
    rig_fini(&b->r);
}

static uint32_t rd(struct box *b, unsigned reg)
{
    ioapic_bus_ops.write(b->io, IOAPIC_REGSEL, 4, reg);
    return (uint32_t)ioapic_bus_ops.read(b->io, IOAPIC_WINDOW, 4);
}

static void wr(struct box *b, unsigned reg, uint32_t val)
{
    ioapic_bus_ops.write(b->io, IOAPIC_REGSEL, 4, reg);
    ioapic_bus_ops.write(b->io, IOAPIC_WINDOW, 4, val);
}

static void entry(struct box *b, unsigned pin, uint32_t dest, uint32_t low)
{
    wr(b, 0x11 + 2 * pin, (dest & 0xff) << 24 | (dest >> 8) << 17);
    wr(b, 0x10 + 2 * pin, low);
}

static void eoi(struct box *b, uint32_t cpu)
{
    rig_wr(&b->r, cpu, APIC_EOI, 0);
}

static int take(struct box *b, uint32_t cpu)
{
    int v = fabric_irq_pending(b->r.f, VCPU_IDX(cpu));
    return v < 0 ? -1 : fabric_irq_take(b->r.f, VCPU_IDX(cpu));
}

static bool remote_irr(struct box *b, unsigned pin)
{
    return rd(b, 0x10 + 2 * pin) & RTE_REMOTE_IRR;
}

static void registers(void **state)
{
    struct box b;
    setup(&b, true);
    assert_int_equal(rd(&b, 1), 0x00170020);
    assert_int_equal(rd(&b, 0), 0x02000000);
    wr(&b, 0, 0xffffffff);
    assert_int_equal(rd(&b, 0), 0x0f000000);
    wr(&b, 1, 0);
    assert_int_equal(rd(&b, 1), 0x00170020);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        assert_int_equal(rd(&b, 0x10 + 2 * pin), RTE_MASKED);
        wr(&b, 0x11 + 2 * pin, 0xffffffff);
        assert_int_equal(rd(&b, 0x11 + 2 * pin), 0xffff0000);
        wr(&b, 0x10 + 2 * pin, 0xffffffff);
        assert_int_equal(rd(&b, 0x10 + 2 * pin), 0x0001afff);
    }
    assert_int_equal(rd(&b, 0x40), 0);
    wr(&b, 0x40, 5);
    assert_int_equal(ioapic_rte(b.io, 99), 0);
    ioapic_set_pin(b.io, 24, true);
    ioapic_reset(b.io);
    assert_int_equal(rd(&b, 0), 0x02000000);
    assert_int_equal(ioapic_rte(b.io, 7), RTE_MASKED);
    teardown(&b);
    setup(&b, false);
    wr(&b, 0x11, 0xffffffff);
    assert_int_equal(rd(&b, 0x11), 0xff000000);
    teardown(&b);
}

static void narrow_and_odd_accesses_are_harmless(void **state)
{
    struct box b;
    setup(&b, true);
    for (unsigned off = 0; off < 0x60; off++)
        for (unsigned size = 1; size <= 8; size *= 2) {
            ioapic_bus_ops.read(b.io, off, size);
            if (off != IOAPIC_WINDOW)
                ioapic_bus_ops.write(b.io, off, size, 0);
        }
    ioapic_bus_ops.write(b.io, IOAPIC_REGSEL, 1, 1);
    assert_int_equal(ioapic_bus_ops.read(b.io, IOAPIC_WINDOW + 2, 1), 0x17);
    teardown(&b);
}

static void an_edge_is_one_interrupt(void **state)
{
    struct box b;
    setup(&b, true);
    entry(&b, 14, 0x12c, 0x71);
    ioapic_set_pin(b.io, 14, true);
    assert_int_equal(take(&b, 1), 0x71);
    eoi(&b, 1);
    ioapic_set_pin(b.io, 14, true);
    assert_int_equal(take(&b, 1), -1);
    ioapic_set_pin(b.io, 14, false);
    assert_int_equal(take(&b, 1), -1);
    ioapic_set_pin(b.io, 14, true);
    assert_int_equal(take(&b, 1), 0x71);
    assert_false(remote_irr(&b, 14));
    teardown(&b);
}

static void a_masked_edge_is_lost(void **state)
{
    struct box b;
    setup(&b, true);
    entry(&b, 14, 0x12c, 0x71 | RTE_MASKED);
    ioapic_set_pin(b.io, 14, true);
    ioapic_set_pin(b.io, 14, false);
    ioapic_set_pin(b.io, 14, true);
    wr(&b, 0x10 + 28, 0x71);
    assert_int_equal(take(&b, 1), -1);
    ioapic_set_pin(b.io, 14, false);
    ioapic_set_pin(b.io, 14, true);
    assert_int_equal(take(&b, 1), 0x71);
    teardown(&b);
}

static void a_level_repeats_until_it_falls(void **state)
{
    struct box b;
    setup(&b, true);
    entry(&b, 9, 0x7ffe, 0x81 | RTE_LEVEL | RTE_LOW_ACTIVE);
    ioapic_set_pin(b.io, 9, true);
    assert_true(remote_irr(&b, 9));
    assert_int_equal(take(&b, 2), 0x81);
    ioapic_set_pin(b.io, 9, true);
    assert_int_equal(take(&b, 2), -1);
    eoi(&b, 2);
    assert_int_equal(take(&b, 2), 0x81); /* still asserted */
    ioapic_set_pin(b.io, 9, false);
    assert_true(remote_irr(&b, 9));
    eoi(&b, 2);
    assert_false(remote_irr(&b, 9));
    assert_int_equal(take(&b, 2), -1);
    teardown(&b);
}

static void masking_holds_a_level_back(void **state)
{
    struct box b;
    setup(&b, true);
    entry(&b, 9, 0x7ffe, 0x81 | RTE_LEVEL | RTE_MASKED);
    ioapic_set_pin(b.io, 9, true);
    assert_int_equal(take(&b, 2), -1);
    wr(&b, 0x10 + 18, 0x81 | RTE_LEVEL);
    assert_int_equal(take(&b, 2), 0x81);
    wr(&b, 0x10 + 18, 0x81 | RTE_LEVEL | RTE_MASKED);
    assert_true(remote_irr(&b, 9)); /* read-only for the guest */
    eoi(&b, 2);
    assert_int_equal(take(&b, 2), -1);
    wr(&b, 0x10 + 18, 0x81 | RTE_LEVEL);
    assert_int_equal(take(&b, 2), 0x81);
    ioapic_set_pin(b.io, 9, false);
    eoi(&b, 2);
    entry(&b, 9, 0x7ffe, 0x81 | RTE_LEVEL | RTE_MASKED);
    ioapic_set_pin(b.io, 9, true);
    ioapic_set_pin(b.io, 9, false);
    wr(&b, 0x10 + 18, 0x81 | RTE_LEVEL);
    assert_int_equal(take(&b, 2), -1); /* came and went while masked */
    teardown(&b);
}

static void directed_eoi_and_turning_to_edge_end_a_level(void **state)
{
    struct box b;
    setup(&b, true);
    rig_wr(&b.r, 1, APIC_SVR, 0x1ff | APIC_SVR_DIRECTED_EOI);
    entry(&b, 5, 0x12c, 0x91 | RTE_LEVEL);
    ioapic_set_pin(b.io, 5, true);
    assert_int_equal(take(&b, 1), 0x91);
    eoi(&b, 1);
    assert_true(remote_irr(&b, 5)); /* no broadcast */
    assert_int_equal(take(&b, 1), -1);
    ioapic_bus_ops.write(b.io, IOAPIC_EOI, 4, 0x92);
    assert_int_equal(take(&b, 1), -1);
    ioapic_bus_ops.write(b.io, IOAPIC_EOI, 4, 0x91);
    assert_int_equal(take(&b, 1), 0x91);
    ioapic_set_pin(b.io, 5, false);
    wr(&b, 0x10 + 10, 0x91 | RTE_MASKED);
    assert_false(remote_irr(&b, 5));
    teardown(&b);
}

static void a_level_nobody_takes_is_tried_again(void **state)
{
    struct box b;
    setup(&b, true);
    rig_wr(&b.r, 1, APIC_SVR, 0xff);
    entry(&b, 5, 0x12c, 0x91 | RTE_LEVEL);
    ioapic_set_pin(b.io, 5, true);
    assert_false(remote_irr(&b, 5));
    rig_wr(&b.r, 1, APIC_SVR, 0x1ff);
    wr(&b, 0x10 + 10, 0x91 | RTE_LEVEL);
    assert_int_equal(take(&b, 1), 0x91);
    teardown(&b);
}

static void two_level_pins_share_a_vector(void **state)
{
    struct box b;
    setup(&b, true);
    entry(&b, 16, 0x12c, 0xa1 | RTE_LEVEL);
    entry(&b, 17, 0x12c, 0xa1 | RTE_LEVEL);
    ioapic_set_pin(b.io, 16, true);
    ioapic_set_pin(b.io, 17, true);
    assert_int_equal(take(&b, 1), 0xa1);
    ioapic_set_pin(b.io, 16, false);
    eoi(&b, 1);
    assert_false(remote_irr(&b, 16));
    assert_int_equal(take(&b, 1), 0xa1);
    ioapic_set_pin(b.io, 17, false);
    eoi(&b, 1);
    assert_int_equal(take(&b, 1), -1);
    teardown(&b);
}

static void an_edge_entry_clears_the_trigger_mode(void **state)
{
    struct box b;
    setup(&b, true);
    entry(&b, 16, 0x12c, 0xa1 | RTE_LEVEL);
    ioapic_set_pin(b.io, 16, true);
    assert_int_equal(rig_rd(&b.r, 1, APIC_TMR + 5), 2);
    take(&b, 1);
    ioapic_set_pin(b.io, 16, false);
    eoi(&b, 1);
    entry(&b, 16, 0x12c, 0xa1);
    ioapic_set_pin(b.io, 16, true);
    assert_int_equal(take(&b, 1), 0xa1);
    assert_int_equal(rig_rd(&b.r, 1, APIC_TMR + 5), 0);
    teardown(&b);
}

static void nmi_through_a_pin_is_an_edge(void **state)
{
    struct box b;
    uint8_t page;
    setup(&b, true);
    entry(&b, 3, 0x12c, 0x400 | RTE_LEVEL);
    ioapic_set_pin(b.io, 3, true);
    ioapic_set_pin(b.io, 3, true);
    assert_int_equal(fabric_events_take(b.r.f, VCPU_IDX(1), &page), FABRIC_EV_NMI);
    assert_int_equal(fabric_events_take(b.r.f, VCPU_IDX(1), &page), 0);
    assert_false(remote_irr(&b, 3));
    teardown(&b);
}

static void set_pin(void *io, unsigned gsi, bool level)
{
    ioapic_set_pin(io, gsi, level);
}

static void lines_are_pins(void **state)
{
    struct box b;
    setup(&b, true);
    struct irq_line line = {set_pin, b.io, 4};
    entry(&b, 4, 0x7ffe, 0x34);
    irq_line_set(&line, true);
    assert_int_equal(take(&b, 2), 0x34);
    teardown(&b);
}

/* ---- a port that wants to know pins ---- */

struct listener {
    struct irq pin[IOAPIC_PINS];
    bool known[IOAPIC_PINS];
    unsigned calls, delivered, unannounced;
};

static void hear_pin(void *opaque, unsigned pin, const struct irq *irq)
{
    struct listener *l = opaque;
    l->calls++;
    l->known[pin] = irq != NULL;
    if (irq)
        l->pin[pin] = *irq;
}

static int hear_irq(void *opaque, struct irq irq)
{
    struct listener *l = opaque;
    bool known = false;
    for (unsigned i = 0; i < IOAPIC_PINS; i++)
        known |= l->known[i] && l->pin[i].vector == irq.vector && l->pin[i].dest == irq.dest;
    l->delivered++;
    l->unannounced += irq.level && !known;
    return 1;
}

static void set_entry(struct ioapic *io, unsigned pin, uint32_t low)
{
    ioapic_bus_ops.write(io, IOAPIC_REGSEL, 4, 0x10 + 2 * pin);
    ioapic_bus_ops.write(io, IOAPIC_WINDOW, 4, low);
}

/* Levels are announced before they go out, as they go out; edges never; what a pin sent holds past its mask. */
static void pins_are_announced(void **state)
{
    struct listener l = {.calls = 0};
    struct remap remap;
    struct ioapic *io;
    struct err e = {""};
    remap_init(&remap, true);
    struct ioapic_config c = {.requester = REQUESTER_ID(0xf0f8),
                              .ext_dest_id = true,
                              .remap = &remap,
                              .port = {.deliver = hear_irq, .pin = hear_pin, .opaque = &l}};
    assert_int_equal(ioapic_create(&c, &io, &e), 0);
    set_entry(io, 5, 0x41); /* edge */
    ioapic_set_pin(io, 5, true);
    assert_int_equal(l.delivered, 1);
    assert_false(l.known[5]);
    set_entry(io, 9, 0x8042);
    assert_false(l.known[9]);
    ioapic_set_pin(io, 9, true);
    assert_true(l.known[9]);
    assert_int_equal(l.pin[9].vector, 0x42);
    set_entry(io, 9, 0x18042); /* masked while in service */
    assert_true(l.known[9]);
    set_entry(io, 9, 0x8043);
    ioapic_eoi(io, 0x43);
    assert_int_equal(l.pin[9].vector, 0x43);
    set_entry(io, 9, 0x10043); /* edge, to end it */
    assert_false(l.known[9]);
    set_entry(io, 9, 0x8044);
    assert_true(l.known[9]);
    ioapic_reset(io);
    assert_false(l.known[9]);
    assert_int_equal(l.delivered, 4);
    assert_int_equal(l.unannounced, 0);
    ioapic_destroy(io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registers),
        cmocka_unit_test(pins_are_announced),
        cmocka_unit_test(narrow_and_odd_accesses_are_harmless),
        cmocka_unit_test(an_edge_is_one_interrupt),
        cmocka_unit_test(a_masked_edge_is_lost),
        cmocka_unit_test(a_level_repeats_until_it_falls),
        cmocka_unit_test(masking_holds_a_level_back),
        cmocka_unit_test(directed_eoi_and_turning_to_edge_end_a_level),
        cmocka_unit_test(a_level_nobody_takes_is_tried_again),
        cmocka_unit_test(two_level_pins_share_a_vector),
        cmocka_unit_test(an_edge_entry_clears_the_trigger_mode),
        cmocka_unit_test(nmi_through_a_pin_is_an_edge),
        cmocka_unit_test(lines_are_pins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
