#include "dev_fixture.h"

#include "dev/rtc.h"

#define SEC  NS_PER_SEC
#define BASE UINT64_C(1732190399) /* 2024-11-21 11:59:59 UTC, a Thursday */

static void setup(struct fixture *f, struct rtc *r, uint64_t base, uint32_t cpus)
{
    fixture_init(f);
    const struct rtc_config c = {.ports = &f->ports,
                                 .irq = f->line,
                                 .timerq = &f->timerq,
                                 .clock = &f->clock,
                                 .base_seconds = base,
                                 .ram_low = UINT64_C(0x80000000),
                                 .ram_high = UINT64_C(0x280000000),
                                 .cpus = cpus};
    assert_int_equal(rtc_init(r, &c, &f->err), 0);
}

static void done(struct fixture *f, struct rtc *r)
{
    rtc_fini(r);
    fixture_fini(f);
}

static unsigned get(struct fixture *f, unsigned i)
{
    outb(f, 0x70, i);
    return inb(f, 0x71);
}

static void put(struct fixture *f, unsigned i, unsigned val)
{
    outb(f, 0x70, i);
    outb(f, 0x71, val);
}

static bool irq(struct fixture *f)
{
    return f->level & 1u << 4;
}

static void shows_the_base_and_moves_with_guest_time(void **state)
{
    struct fixture f;
    struct rtc r;
    setup(&f, &r, BASE, 1);
    assert_int_equal(get(&f, 0), 0x59);
    assert_int_equal(get(&f, 2), 0x59);
    assert_int_equal(get(&f, 4), 0x11);
    assert_int_equal(get(&f, 6), 5);
    assert_int_equal(get(&f, 7), 0x21);
    assert_int_equal(get(&f, 8), 0x11);
    assert_int_equal(get(&f, 9), 0x24);
    assert_int_equal(get(&f, 0x32), 0x20);
    assert_int_equal(get(&f, 0xd), 0x80);
    fixture_pass(&f, SEC);
    assert_int_equal(get(&f, 0), 0);
    assert_int_equal(get(&f, 4), 0x12);
    done(&f, &r);
}

static void formats_follow_register_b(void **state)
{
    struct fixture f;
    struct rtc r;
    setup(&f, &r, BASE + 3601, 1); /* 13:00:00 */
    put(&f, 0xb, 0x06);
    assert_int_equal(get(&f, 4), 13);
    put(&f, 0xb, 0x04);
    assert_int_equal(get(&f, 4), 0x81);
    put(&f, 0xb, 0x00);
    assert_int_equal(get(&f, 4), 0x81);
    fixture_pass(&f, 11 * 3600 * SEC);
    assert_int_equal(get(&f, 4), 0x12); /* midnight */
    done(&f, &r);
}

static void uip_leads_the_update(void **state)
{
    struct fixture f;
    struct rtc r;
    setup(&f, &r, BASE, 1);
    fixture_run_to(&f, SEC - 245000);
    assert_int_equal(get(&f, 0xa), 0x26);
    fixture_run_to(&f, SEC - 244000);
    assert_int_equal(get(&f, 0xa), 0xa6);
    fixture_run_to(&f, SEC);
    assert_int_equal(get(&f, 0xa), 0x26);
    done(&f, &r);
}

static void setting_the_time_takes_effect_as_a_whole(void **state)
{
    struct fixture f;
    struct rtc r;
    setup(&f, &r, BASE, 1); /* in November: 31 is no day of it */
    put(&f, 0xb, 0x82);
    put(&f, 7, 0x31);
    put(&f, 8, 0x12);
    put(&f, 9, 0x31);
    put(&f, 0, 0x58);
    put(&f, 2, 0x59);
    put(&f, 4, 0x23);
    fixture_pass(&f, 10 * SEC);
    assert_int_equal(get(&f, 0), 0x58); /* stands while SET */
    put(&f, 0xb, 0x02);
    assert_int_equal(get(&f, 7), 0x31);
    assert_int_equal(get(&f, 8), 0x12);
    fixture_pass(&f, 2 * SEC);
    assert_int_equal(get(&f, 0), 0);
    assert_int_equal(get(&f, 7), 1);
    assert_int_equal(get(&f, 8), 1);
    assert_int_equal(get(&f, 9), 0x32);
    done(&f, &r);
}

static void nonsense_times_are_survived(void **state)
{
    struct fixture f;
    struct rtc r;
    setup(&f, &r, BASE, 1);
    static const unsigned regs[] = {0, 2, 4, 7, 8, 9, 0x32, 1, 3, 5, 0xa, 0xb};
    for (unsigned v = 0; v < 256; v++) {
        for (unsigned i = 0; i < sizeof regs / sizeof regs[0]; i++)
            put(&f, regs[i], (v * (2 * i + 1)) & 0xff);
        fixture_pass(&f, 3 * SEC);
        for (unsigned i = 0; i < 0x80; i++)
            get(&f, i);
    }
    put(&f, 0xa, 0x26);
    put(&f, 0xb, 0x02);
    fixture_pass(&f, SEC);
    assert_true((get(&f, 8) & 0xf) <= 9);
    done(&f, &r);
}

static void update_interrupts_once_a_second_until_acknowledged(void **state)
{
    struct fixture f;
    struct rtc r;
    setup(&f, &r, BASE, 1);
    fixture_run_to(&f, SEC / 2);
    put(&f, 0xb, 0x12);
    fixture_run_to(&f, SEC - 1);
    assert_false(irq(&f));
    fixture_run_to(&f, SEC);
    assert_true(irq(&f));
    assert_true(timerq_next(&f.timerq) == HEC_NS_NEVER);
    assert_int_equal(get(&f, 0xc) & 0x90, 0x90);
    assert_false(irq(&f));
    assert_int_equal(get(&f, 0xc), 0);
    fixture_run_to(&f, 2 * SEC);
    assert_int_equal(f.rises[4], 2);
    done(&f, &r);
}

static void periodic_interrupt_has_the_rate_of_register_a(void **state)
{
    static const unsigned hz[16] = {0, 256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2};
    for (unsigned rate = 1; rate < 16; rate++) {
        struct fixture f;
        struct rtc r;
        setup(&f, &r, BASE, 1);
        put(&f, 0xa, 0x20 | rate);
        put(&f, 0xb, 0x42);
        unsigned n = 0;
        while (timerq_next(&f.timerq) <= SEC) {
            fixture_run_to(&f, timerq_next(&f.timerq));
            assert_true(irq(&f));
            assert_int_equal(get(&f, 0xc) & 0xc0, 0xc0);
            n++;
        }
        assert_int_equal(n, hz[rate]);
        done(&f, &r);
    }
}

static void alarm_fires_on_its_second_with_wildcards(void **state)
{
    struct fixture f;
    struct rtc r;
    setup(&f, &r, BASE, 1); /* 11:59:59 */
    put(&f, 1, 0x30);
    put(&f, 3, 0xff);
    put(&f, 5, 0x13);
    put(&f, 0xb, 0x22);
    fixture_run_to(&f, (3601 + 30) * SEC - 1);
    assert_false(irq(&f));
    fixture_run_to(&f, (3601 + 30) * SEC);
    assert_true(irq(&f));
    assert_int_equal(get(&f, 0xc) & 0xa0, 0xa0);
    fixture_run_to(&f, (3601 + 90) * SEC);
    assert_int_equal(f.rises[4], 2);
    put(&f, 0xb, 0x02);
    get(&f, 0xc);
    fixture_run_to(&f, (3601 + 150) * SEC);
    assert_int_equal(get(&f, 0xc) & 0x20, 0x20); /* the flag without the interrupt */
    put(&f, 5, 0x77);                            /* never */
    put(&f, 0xb, 0x22);
    assert_true(timerq_next(&f.timerq) == HEC_NS_NEVER);
    done(&f, &r);
}

static void cmos_tells_sizes_and_cpus(void **state)
{
    static const struct {
        uint32_t cpus;
        unsigned byte;
    } c[] = {{1, 0}, {2, 1}, {255, 254}, {256, 255}, {257, 0}, {8192, 0}};
    for (unsigned i = 0; i < sizeof c / sizeof c[0]; i++) {
        struct fixture f;
        struct rtc r;
        setup(&f, &r, BASE, c[i].cpus);
        assert_int_equal(get(&f, 0x5f), c[i].byte);
        done(&f, &r);
    }
    struct fixture f;
    struct rtc r;
    setup(&f, &r, BASE, 3);
    assert_int_equal(get(&f, 0x34) | get(&f, 0x35) << 8, 0x7f00);
    assert_int_equal(get(&f, 0x5b) | get(&f, 0x5c) << 8 | get(&f, 0x5d) << 16, 0x28000);
    put(&f, 0x7f, 0xaa);
    assert_int_equal(get(&f, 0xff), 0xaa); /* bit 7 is the NMI mask */
    assert_true(rtc_nmi_masked(&r));
    get(&f, 0);
    assert_false(rtc_nmi_masked(&r));
    rtc_reset(&r);
    assert_int_equal(get(&f, 0x7f), 0xaa);
    done(&f, &r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shows_the_base_and_moves_with_guest_time),
        cmocka_unit_test(formats_follow_register_b),
        cmocka_unit_test(uip_leads_the_update),
        cmocka_unit_test(setting_the_time_takes_effect_as_a_whole),
        cmocka_unit_test(nonsense_times_are_survived),
        cmocka_unit_test(update_interrupts_once_a_second_until_acknowledged),
        cmocka_unit_test(periodic_interrupt_has_the_rate_of_register_a),
        cmocka_unit_test(alarm_fires_on_its_second_with_wildcards),
        cmocka_unit_test(cmos_tells_sizes_and_cpus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
