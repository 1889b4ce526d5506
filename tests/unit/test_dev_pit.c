#include "dev_fixture.h"

#include "dev/pit.h"

/* First ns of a tick. */
static uint64_t at_tick(uint64_t tick)
{
    return (uint64_t)(((unsigned __int128)tick * NS_PER_SEC + PIT_HZ - 1) / PIT_HZ);
}

static void setup(struct fixture *f, struct pit *p)
{
    fixture_init(f);
    const struct pit_config c = {.ports = &f->ports, .irq = f->line, .timerq = &f->timerq, .clock = &f->clock};
    assert_int_equal(pit_init(p, &c, &f->err), 0);
}

static void done(struct fixture *f, struct pit *p)
{
    pit_fini(p);
    fixture_fini(f);
}

static void program(struct fixture *f, unsigned ch, unsigned mode, unsigned count)
{
    outb(f, 0x43, ch << 6 | 0x30 | mode << 1);
    outb(f, (uint16_t)(0x40 + ch), count & 0xff);
    outb(f, (uint16_t)(0x40 + ch), count >> 8);
}

static unsigned latched(struct fixture *f, unsigned ch)
{
    outb(f, 0x43, ch << 6);
    unsigned lo = inb(f, (uint16_t)(0x40 + ch));
    return lo | inb(f, (uint16_t)(0x40 + ch)) << 8;
}

static bool out2(struct fixture *f)
{
    return inb(f, 0x61) & 0x20;
}

static unsigned status(struct fixture *f, unsigned ch)
{
    outb(f, 0x43, 0xe0 | 2u << ch);
    return inb(f, (uint16_t)(0x40 + ch));
}

static void silent_until_programmed(void **state)
{
    struct fixture f;
    struct pit p;
    setup(&f, &p);
    assert_true(timerq_next(&f.timerq) == HEC_NS_NEVER);
    assert_int_equal(status(&f, 0) & 0x40, 0x40);
    done(&f, &p);
}

static void mode_0_interrupts_once(void **state)
{
    struct fixture f;
    struct pit p;
    setup(&f, &p);
    program(&f, 0, 0, 1000);
    fixture_run_to(&f, at_tick(1001) - 1);
    assert_int_equal(f.rises[4], 0);
    assert_int_equal(latched(&f, 0), 0);
    fixture_run_to(&f, at_tick(1001));
    assert_int_equal(f.rises[4], 1);
    assert_int_equal(latched(&f, 0), 0xffff);
    assert_int_equal(status(&f, 0), 0xb0);
    fixture_run_to(&f, at_tick(500000));
    assert_int_equal(f.rises[4], 1);
    assert_true(timerq_next(&f.timerq) == HEC_NS_NEVER);
    program(&f, 0, 0, 10);
    assert_int_equal(f.level, 0);
    done(&f, &p);
}

static void mode_2_is_periodic_and_exact(void **state)
{
    struct fixture f;
    struct pit p;
    setup(&f, &p);
    program(&f, 0, 2, 11932); /* 100 Hz */
    unsigned first = f.rises[4];
    fixture_run_to(&f, at_tick(11932) - 1);
    assert_int_equal(f.rises[4], first);
    fixture_run_to(&f, at_tick(11932));
    assert_int_equal(f.rises[4], first + 1);
    fixture_run_to(&f, at_tick(UINT64_C(11932) * 1000));
    assert_int_equal(f.rises[4], first + 1000);
    fixture_run_to(&f, at_tick(UINT64_C(11932) * 1000 + 5));
    assert_int_equal(latched(&f, 0), 11932 - 5);
    done(&f, &p);
}

static void a_new_count_waits_for_the_end_of_the_period(void **state)
{
    struct fixture f;
    struct pit p;
    setup(&f, &p);
    program(&f, 0, 2, 1000);
    unsigned first = f.rises[4];
    fixture_run_to(&f, at_tick(300));
    outb(&f, 0x40, 100);
    outb(&f, 0x40, 0);
    assert_int_equal(status(&f, 0) & 0x40, 0x40);
    assert_int_equal(latched(&f, 0), 700);
    fixture_run_to(&f, at_tick(1000));
    assert_int_equal(f.rises[4], first + 1);
    assert_int_equal(status(&f, 0) & 0x40, 0);
    fixture_run_to(&f, at_tick(1200));
    assert_int_equal(f.rises[4], first + 3);
    done(&f, &p);
}

static void mode_3_is_a_square_wave(void **state)
{
    struct fixture f;
    struct pit p;
    setup(&f, &p);
    outb(&f, 0x61, 1);
    program(&f, 2, 3, 101);
    fixture_run_to(&f, at_tick(50));
    assert_true(out2(&f)); /* high for (n + 1) / 2 */
    fixture_run_to(&f, at_tick(51));
    assert_false(out2(&f));
    fixture_run_to(&f, at_tick(100));
    assert_false(out2(&f));
    fixture_run_to(&f, at_tick(101));
    assert_true(out2(&f));
    assert_int_equal(latched(&f, 2), 100);
    done(&f, &p);
}

static void gate_2_holds_mode_0_and_triggers_mode_1(void **state)
{
    struct fixture f;
    struct pit p;
    setup(&f, &p);
    program(&f, 2, 0, 100); /* gate low: stands */
    fixture_run_to(&f, at_tick(1000));
    assert_int_equal(latched(&f, 2), 100);
    outb(&f, 0x61, 1);
    fixture_run_to(&f, at_tick(1040));
    outb(&f, 0x61, 0);
    fixture_run_to(&f, at_tick(2000));
    assert_int_equal(latched(&f, 2), 60);
    assert_false(out2(&f));
    outb(&f, 0x61, 1);
    fixture_run_to(&f, at_tick(2061));
    assert_true(out2(&f));

    program(&f, 2, 1, 50);
    fixture_run_to(&f, at_tick(3000));
    assert_true(out2(&f));
    outb(&f, 0x61, 0);
    outb(&f, 0x61, 1);
    assert_false(out2(&f));
    fixture_run_to(&f, at_tick(3030));
    outb(&f, 0x61, 0);
    outb(&f, 0x61, 1); /* retriggered */
    fixture_run_to(&f, at_tick(3079));
    assert_false(out2(&f));
    fixture_run_to(&f, at_tick(3080));
    assert_true(out2(&f));
    done(&f, &p);
}

static void strobes_are_one_tick_low(void **state)
{
    for (unsigned mode = 4; mode <= 5; mode++) {
        struct fixture f;
        struct pit p;
        setup(&f, &p);
        outb(&f, 0x61, mode == 4);
        program(&f, 2, mode, 20);
        outb(&f, 0x61, 1);
        fixture_run_to(&f, at_tick(19));
        assert_true(out2(&f));
        fixture_run_to(&f, at_tick(20));
        assert_false(out2(&f));
        fixture_run_to(&f, at_tick(21));
        assert_true(out2(&f));
        done(&f, &p);
    }
}

static void latches_hold_until_read_and_bcd_counts_in_tens(void **state)
{
    struct fixture f;
    struct pit p;
    setup(&f, &p);
    outb(&f, 0x43, 0x35); /* channel 0, both bytes, mode 2, BCD */
    outb(&f, 0x40, 0x00);
    outb(&f, 0x40, 0x10);
    fixture_run_to(&f, at_tick(1));
    outb(&f, 0x43, 0x00);
    fixture_run_to(&f, at_tick(500));
    outb(&f, 0x43, 0x00);
    assert_int_equal(inb(&f, 0x40), 0x99);
    assert_int_equal(inb(&f, 0x40), 0x09);
    assert_int_equal(latched(&f, 0), 0x500);
    /* Status comes before the count when both are latched. */
    outb(&f, 0x43, 0xc2);
    assert_int_equal(inb(&f, 0x40), 0xb5);
    assert_int_equal(inb(&f, 0x40), 0x00);
    assert_int_equal(inb(&f, 0x40), 0x05);
    done(&f, &p);
}

static void any_bytes_are_survived(void **state)
{
    struct fixture f;
    struct pit p;
    setup(&f, &p);
    uint32_t x = 12345;
    for (unsigned i = 0; i < 200000; i++) {
        x = x * 1103515245 + 12345;
        uint16_t port = (uint16_t)((x >> 8) % 5 ? 0x40 + (x >> 12) % 4 : 0x61);
        if (x >> 30 & 1)
            outb(&f, port, x >> 16 & 0xff);
        else
            inb(&f, port);
        if (x >> 29 & 1)
            guest_clock_reach(&f.clock, guest_clock_now(&f.clock) + (x >> 20));
        timerq_run(&f.timerq, guest_clock_now(&f.clock));
    }
    program(&f, 0, 0, 10);
    unsigned before = f.rises[4];
    fixture_pass(&f, at_tick(12));
    assert_int_equal(f.rises[4], before + 1);
    done(&f, &p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silent_until_programmed),
        cmocka_unit_test(mode_0_interrupts_once),
        cmocka_unit_test(mode_2_is_periodic_and_exact),
        cmocka_unit_test(a_new_count_waits_for_the_end_of_the_period),
        cmocka_unit_test(mode_3_is_a_square_wave),
        cmocka_unit_test(gate_2_holds_mode_0_and_triggers_mode_1),
        cmocka_unit_test(strobes_are_one_tick_low),
        cmocka_unit_test(latches_hold_until_read_and_bcd_counts_in_tens),
        cmocka_unit_test(any_bytes_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
