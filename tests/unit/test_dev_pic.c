#include "dev_fixture.h"

#include "dev/pic.h"

struct intr {
    bool level;
    unsigned changes;
};

static void output(void *opaque, bool level)
{
    struct intr *i = opaque;
    i->level = level;
    i->changes++;
}

static void setup(struct fixture *f, struct pic *p, struct intr *i)
{
    fixture_init(f);
    *i = (struct intr){.level = false};
    const struct pic_config c = {.ports = &f->ports, .output = output, .output_opaque = i};
    assert_int_equal(pic_init(p, &c, &f->err), 0);
}

static void done(struct fixture *f, struct pic *p)
{
    pic_fini(p);
    fixture_fini(f);
}

/* Vectors 20h and 28h, nothing masked. */
static void initialise(struct fixture *f, unsigned icw4)
{
    static const uint16_t port[2] = {0x20, 0xa0};
    for (unsigned i = 0; i < 2; i++) {
        outb(f, port[i], 0x11);
        outb(f, (uint16_t)(port[i] + 1), 0x20 + 8 * i);
        outb(f, (uint16_t)(port[i] + 1), i ? 2 : 4);
        outb(f, (uint16_t)(port[i] + 1), icw4);
        outb(f, (uint16_t)(port[i] + 1), 0);
    }
}

static unsigned isr(struct fixture *f, uint16_t port)
{
    outb(f, port, 0x0b);
    return inb(f, port);
}

static unsigned irr(struct fixture *f, uint16_t port)
{
    outb(f, port, 0x0a);
    return inb(f, port);
}

static void pulse(struct pic *p, unsigned irq)
{
    pic_set_irq(p, irq, false);
    pic_set_irq(p, irq, true);
}

static void bios_state_is_masked_at_08_and_70(void **state)
{
    struct fixture f;
    struct pic p;
    struct intr i;
    setup(&f, &p, &i);
    assert_int_equal(inb(&f, 0x21), 0xff);
    assert_int_equal(inb(&f, 0xa1), 0xff);
    pulse(&p, 1);
    pulse(&p, 12);
    assert_false(i.level);
    outb(&f, 0x21, 0xfd);
    assert_true(i.level);
    assert_int_equal(pic_ack(&p), 0x09);
    outb(&f, 0x20, 0x20);
    outb(&f, 0xa1, 0xef);
    assert_false(i.level);
    outb(&f, 0x21, 0xfb);
    assert_true(i.level);
    assert_int_equal(pic_ack(&p), 0x74);
    done(&f, &p);
}

static void higher_priority_nests_lower_waits(void **state)
{
    struct fixture f;
    struct pic p;
    struct intr i;
    setup(&f, &p, &i);
    initialise(&f, 1);
    pulse(&p, 4);
    assert_int_equal(pic_ack(&p), 0x24);
    assert_false(i.level);
    pulse(&p, 6);
    assert_false(i.level);
    pulse(&p, 3);
    assert_true(i.level);
    assert_int_equal(pic_ack(&p), 0x23);
    assert_int_equal(isr(&f, 0x20), 0x18);
    assert_int_equal(irr(&f, 0x20), 0x40);
    outb(&f, 0x20, 0x20);
    assert_int_equal(isr(&f, 0x20), 0x10);
    assert_false(i.level);
    outb(&f, 0x20, 0x64); /* specific EOI of 4 */
    assert_true(i.level);
    assert_int_equal(pic_ack(&p), 0x26);
    done(&f, &p);
}

static void the_slave_sits_between_1_and_3(void **state)
{
    struct fixture f;
    struct pic p;
    struct intr i;
    setup(&f, &p, &i);
    initialise(&f, 1);
    pulse(&p, 3);
    pulse(&p, 14);
    pulse(&p, 8);
    assert_int_equal(pic_ack(&p), 0x28);
    outb(&f, 0xa0, 0x20);
    outb(&f, 0x20, 0x20);
    assert_int_equal(pic_ack(&p), 0x2e);
    assert_int_equal(isr(&f, 0xa0), 0x40);
    assert_int_equal(isr(&f, 0x20), 0x04);
    outb(&f, 0xa0, 0x20);
    outb(&f, 0x20, 0x20);
    assert_int_equal(pic_ack(&p), 0x23);
    done(&f, &p);
}

static void requests_that_go_away_are_spurious(void **state)
{
    struct fixture f;
    struct pic p;
    struct intr i;
    setup(&f, &p, &i);
    initialise(&f, 1);
    pulse(&p, 5);
    pic_set_irq(&p, 5, false);
    assert_false(i.level);
    assert_int_equal(pic_ack(&p), 0x27);
    assert_int_equal(isr(&f, 0x20), 0);
    pulse(&p, 10);
    outb(&f, 0x21, 0x04); /* masked while the slave still asks */
    assert_int_equal(pic_ack(&p), 0x27);
    outb(&f, 0x21, 0);
    assert_int_equal(pic_ack(&p), 0x2a);
    done(&f, &p);
}

static void a_level_asks_again_until_it_falls(void **state)
{
    struct fixture f;
    struct pic p;
    struct intr i;
    setup(&f, &p, &i);
    initialise(&f, 1);
    outb(&f, 0x4d0, 0xff);
    outb(&f, 0x4d1, 0xff);
    assert_int_equal(inb(&f, 0x4d0), 0xf8);
    assert_int_equal(inb(&f, 0x4d1), 0xde);
    pic_set_irq(&p, 11, true);
    assert_int_equal(pic_ack(&p), 0x2b);
    outb(&f, 0xa0, 0x20);
    outb(&f, 0x20, 0x20);
    assert_true(i.level);
    assert_int_equal(pic_ack(&p), 0x2b);
    pic_set_irq(&p, 11, false);
    outb(&f, 0xa0, 0x20);
    outb(&f, 0x20, 0x20);
    assert_false(i.level);
    /* An edge asks once. */
    pulse(&p, 1);
    assert_int_equal(pic_ack(&p), 0x21);
    outb(&f, 0x20, 0x20);
    assert_false(i.level);
    done(&f, &p);
}

static void automatic_eoi_and_rotation(void **state)
{
    struct fixture f;
    struct pic p;
    struct intr i;
    setup(&f, &p, &i);
    initialise(&f, 3);
    pulse(&p, 4);
    assert_int_equal(pic_ack(&p), 0x24);
    assert_int_equal(isr(&f, 0x20), 0);
    initialise(&f, 1);
    pulse(&p, 4);
    assert_int_equal(pic_ack(&p), 0x24);
    outb(&f, 0x20, 0xa0); /* rotate on EOI: 4 is lowest now */
    pulse(&p, 4);
    pulse(&p, 6);
    pulse(&p, 1);
    assert_int_equal(pic_ack(&p), 0x26);
    outb(&f, 0x20, 0x20);
    assert_int_equal(pic_ack(&p), 0x21);
    outb(&f, 0x20, 0x20);
    assert_int_equal(pic_ack(&p), 0x24);
    outb(&f, 0x20, 0x20);
    outb(&f, 0x20, 0xc7); /* priorities as they were */
    pulse(&p, 6);
    pulse(&p, 1);
    assert_int_equal(pic_ack(&p), 0x21);
    done(&f, &p);
}

static void special_mask_lets_lower_ones_through(void **state)
{
    struct fixture f;
    struct pic p;
    struct intr i;
    setup(&f, &p, &i);
    initialise(&f, 1);
    pulse(&p, 3);
    assert_int_equal(pic_ack(&p), 0x23);
    pulse(&p, 6);
    assert_false(i.level);
    outb(&f, 0x21, 0x08);
    assert_false(i.level);
    outb(&f, 0x20, 0x68);
    assert_true(i.level);
    assert_int_equal(pic_ack(&p), 0x26);
    outb(&f, 0x20, 0x20); /* not the masked 3 */
    assert_int_equal(isr(&f, 0x20), 0x08);
    done(&f, &p);
}

static void polling_acknowledges(void **state)
{
    struct fixture f;
    struct pic p;
    struct intr i;
    setup(&f, &p, &i);
    initialise(&f, 1);
    outb(&f, 0x20, 0x0c);
    assert_int_equal(inb(&f, 0x20) & 0x80, 0);
    pulse(&p, 5);
    outb(&f, 0x20, 0x0c);
    assert_int_equal(inb(&f, 0x20), 0x85);
    assert_int_equal(isr(&f, 0x20), 0x20);
    assert_false(i.level);
    done(&f, &p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bios_state_is_masked_at_08_and_70),    cmocka_unit_test(higher_priority_nests_lower_waits),
        cmocka_unit_test(the_slave_sits_between_1_and_3),       cmocka_unit_test(requests_that_go_away_are_spurious),
        cmocka_unit_test(a_level_asks_again_until_it_falls),    cmocka_unit_test(automatic_eoi_and_rotation),
        cmocka_unit_test(special_mask_lets_lower_ones_through), cmocka_unit_test(polling_acknowledges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
