#include "dev_fixture.h"

#include "dev/testdev.h"

struct flushed {
    gpa_t gpa;
    unsigned n;
};

static void on_flush(void *opaque, gpa_t gpa)
{
    struct flushed *fl = opaque;
    fl->gpa = gpa;
    fl->n++;
}

static void setup(struct fixture *f, struct testdev *t, struct flushed *fl)
{
    fixture_init(f);
    *fl = (struct flushed){.n = 0};
    const struct testdev_config c = {
        .ports = &f->ports, .mmio = &f->mmio, .irq = f->line, .flush_page = on_flush, .flush_opaque = fl};
    assert_int_equal(testdev_init(t, &c, &f->err), 0);
}

static void the_latch_is_one_in_every_width(void **state)
{
    struct fixture f;
    struct testdev t;
    struct flushed fl;
    setup(&f, &t, &fl);
    outl(&f, 0xe0, 0x12345678);
    assert_int_equal(inl(&f, 0xe0), 0x12345678);
    assert_int_equal(inb(&f, 0xe1), 0x56);
    assert_int_equal(bus_read(&f.ports, 0xe2, 2), 0x1234);
    assert_int_equal(inl(&f, 0xe8), 0x12345678);
    outb(&f, 0xeb, 0xff);
    bus_write(&f.ports, 0xe0, 2, 0xaaaa);
    assert_int_equal(inl(&f, 0xe0), 0xff34aaaa);
    outl(&f, 0xe4, 0x7000);
    assert_int_equal(fl.n, 1);
    assert_int_equal(fl.gpa, 0x7000);
    assert_int_equal(inl(&f, 0xe0), 0xff34aaaa);
    testdev_fini(&t);
    fixture_fini(&f);
}

static void ports_drive_gsis(void **state)
{
    struct fixture f;
    struct testdev t;
    struct flushed fl;
    setup(&f, &t, &fl);
    for (unsigned gsi = 0; gsi < TESTDEV_GSIS; gsi++) {
        outb(&f, (uint16_t)(0x2000 + gsi), 0x80);
        assert_int_equal(f.level, 1u << gsi);
        assert_int_equal(inb(&f, (uint16_t)(0x2000 + gsi)), 1);
        outb(&f, (uint16_t)(0x2000 + gsi), 0);
        assert_int_equal(f.level, 0);
    }
    outb(&f, 0x2018, 1);
    assert_int_equal(f.level, 0);
    outl(&f, 0x2005, 1);
    testdev_reset(&t);
    assert_int_equal(f.level, 0);
    testdev_fini(&t);
    fixture_fini(&f);
}

static void memory_behind_mmio_keeps_what_it_is_given(void **state)
{
    struct fixture f;
    struct testdev t;
    struct flushed fl;
    setup(&f, &t, &fl);
    bus_write(&f.mmio, TESTDEV_MMIO + 0x10, 8, UINT64_C(0x1122334455667788));
    assert_true(bus_read(&f.mmio, TESTDEV_MMIO + 0x13, 4) == 0x22334455);
    bus_write(&f.mmio, TESTDEV_MMIO + 0xffff, 8, 0x99); /* only the first byte is inside */
    assert_int_equal(bus_read(&f.mmio, TESTDEV_MMIO + 0xffff, 1), 0x99);
    assert_true(bus_read(&f.mmio, TESTDEV_MMIO + 0xffff, 4) == 0xffffff99);
    testdev_fini(&t);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_latch_is_one_in_every_width),
        cmocka_unit_test(ports_drive_gsis),
        cmocka_unit_test(memory_behind_mmio_keeps_what_it_is_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
