#include "dev_fixture.h"

#include "dev/pm.h"

static void setup(struct fixture *f, struct pm *p, bool narrow)
{
    fixture_init(f);
    const struct pm_config c = {.ports = &f->ports,
                                .sci = {fixture_set, f, PM_SCI_GSI},
                                .timerq = &f->timerq,
                                .clock = &f->clock,
                                .control = &f->control,
                                .timer_24bit = narrow};
    assert_int_equal(pm_init(p, &c, &f->err), 0);
}

static void done(struct fixture *f, struct pm *p)
{
    pm_fini(p);
    fixture_fini(f);
}

static unsigned inw(struct fixture *f, uint16_t port)
{
    return (unsigned)bus_read(&f->ports, port, 2);
}

static void outw(struct fixture *f, uint16_t port, unsigned val)
{
    bus_write(&f->ports, port, 2, val);
}

static bool sci(struct fixture *f)
{
    return f->level & 1u << PM_SCI_GSI;
}

static void acpi_mode_is_switched_by_smi_cmd(void **state)
{
    struct fixture f;
    struct pm p;
    setup(&f, &p, false);
    assert_int_equal(inw(&f, PM1_CNT) & 1, 0);
    outb(&f, PM_SMI_CMD, PM_ACPI_ENABLE);
    assert_int_equal(inw(&f, PM1_CNT) & 1, 1);
    outw(&f, PM1_CNT, 0); /* SCI_EN is not the OS's to write */
    assert_int_equal(inw(&f, PM1_CNT) & 1, 1);
    outb(&f, PM_SMI_CMD, PM_ACPI_DISABLE);
    assert_int_equal(inw(&f, PM1_CNT) & 1, 0);
    done(&f, &p);
}

static void buttons_raise_the_sci_until_cleared(void **state)
{
    struct fixture f;
    struct pm p;
    setup(&f, &p, false);
    outw(&f, PM1_EVT + 2, 0x0300);
    pm_power_button(&p);
    assert_false(sci(&f)); /* not in ACPI mode */
    outb(&f, PM_SMI_CMD, PM_ACPI_ENABLE);
    assert_true(sci(&f));
    assert_int_equal(inw(&f, PM1_EVT), 0x0100);
    outw(&f, PM1_EVT, 0x0100);
    assert_false(sci(&f));
    pm_sleep_button(&p);
    assert_true(sci(&f));
    bus_write(&f.ports, PM1_EVT + 1, 1, 2); /* byte access to the status' high half */
    assert_false(sci(&f));
    assert_int_equal(inl(&f, PM1_EVT), 0x03000000);
    done(&f, &p);
}

static void the_timer_counts_at_its_rate_and_width(void **state)
{
    for (unsigned narrow = 0; narrow < 2; narrow++) {
        struct fixture f;
        struct pm p;
        setup(&f, &p, narrow);
        assert_int_equal(inl(&f, PM_TMR), 0);
        fixture_run_to(&f, NS_PER_SEC);
        assert_int_equal(inl(&f, PM_TMR), PM_TMR_HZ);
        fixture_run_to(&f, 5 * NS_PER_SEC);
        assert_int_equal(inl(&f, PM_TMR), narrow ? (5 * PM_TMR_HZ) & 0xffffff : 5 * PM_TMR_HZ);
        done(&f, &p);
    }
}

static void timer_overflow_interrupts_when_enabled(void **state)
{
    struct fixture f;
    struct pm p;
    setup(&f, &p, true);
    outb(&f, PM_SMI_CMD, PM_ACPI_ENABLE);
    outw(&f, PM1_EVT + 2, 1);
    uint64_t half = ((UINT64_C(1) << 23) * NS_PER_SEC + PM_TMR_HZ - 1) / PM_TMR_HZ;
    fixture_run_to(&f, half - 1);
    assert_false(sci(&f));
    fixture_run_to(&f, half);
    assert_true(sci(&f));
    assert_true(timerq_next(&f.timerq) == HEC_NS_NEVER);
    outw(&f, PM1_EVT, 1);
    assert_false(sci(&f));
    fixture_run_to(&f, 2 * half);
    assert_int_equal(f.rises[PM_SCI_GSI], 2);
    outw(&f, PM1_EVT + 2, 0);
    outw(&f, PM1_EVT, 1);
    assert_true(timerq_next(&f.timerq) == HEC_NS_NEVER);
    fixture_run_to(&f, 3 * half + 3);
    assert_int_equal(inw(&f, PM1_EVT), 1); /* the status without the interrupt */
    done(&f, &p);
}

static void only_s5_with_slp_en_powers_off(void **state)
{
    struct fixture f;
    struct pm p;
    setup(&f, &p, false);
    outw(&f, PM1_CNT, PM_SLP_TYP_S5 << 10);
    outw(&f, PM1_CNT, 0x2000 | 1 << 10);
    assert_int_equal(f.requests, 0);
    outw(&f, PM1_CNT, 0x2000 | PM_SLP_TYP_S5 << 10);
    assert_int_equal(f.requests, 1);
    assert_int_equal(f.last_request, VM_REQ_POWEROFF);
    assert_int_equal(inw(&f, PM1_CNT) & 0x2000, 0);
    done(&f, &p);
}

static void every_reset_register_resets(void **state)
{
    struct fixture f;
    struct pm p;
    setup(&f, &p, false);
    pm_reset_write(&p, 0x02);
    assert_int_equal(f.requests, 0);
    assert_int_equal(pm_reset_read(&p), 0x02);
    pm_reset_write(&p, PM_RESET_VALUE);
    assert_int_equal(f.requests, 1);
    outb(&f, 0x92, 2);
    assert_int_equal(f.requests, 1);
    outb(&f, 0x92, 3);
    assert_int_equal(f.requests, 2);
    outb(&f, 0x64, 0xff); /* pulses no line */
    assert_int_equal(f.requests, 2);
    outb(&f, 0x64, 0xfe);
    assert_int_equal(f.requests, 3);
    outb(&f, 0x64, 0xd1);
    outb(&f, 0x60, 0x03);
    assert_int_equal(f.requests, 3);
    outb(&f, 0x60, 0x02); /* no command before it */
    assert_int_equal(f.requests, 3);
    outb(&f, 0x64, 0xd1);
    outb(&f, 0x60, 0x02);
    assert_int_equal(f.requests, 4);
    assert_int_equal(f.last_request, VM_REQ_RESET);
    assert_int_equal(inb(&f, 0x64) & 3, 0); /* neither data to read nor a full input buffer */
    done(&f, &p);
}

static void a_gpe_level_that_stays_sets_its_status_again(void **state)
{
    struct fixture f;
    struct pm p;
    setup(&f, &p, false);
    outb(&f, PM_SMI_CMD, PM_ACPI_ENABLE);
    outb(&f, PM_GPE0 + 8 + 1, 0x04);
    pm_gpe_set(&p, 10, true);
    assert_true(sci(&f));
    outb(&f, PM_GPE0 + 1, 0x04);
    assert_true(sci(&f));
    pm_gpe_set(&p, 10, false);
    assert_true(sci(&f));
    outb(&f, PM_GPE0 + 1, 0x04);
    assert_false(sci(&f));
    pm_gpe_set(&p, 64, true); /* there is none */
    done(&f, &p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(acpi_mode_is_switched_by_smi_cmd),
        cmocka_unit_test(buttons_raise_the_sci_until_cleared),
        cmocka_unit_test(the_timer_counts_at_its_rate_and_width),
        cmocka_unit_test(timer_overflow_interrupts_when_enabled),
        cmocka_unit_test(only_s5_with_slp_en_powers_off),
        cmocka_unit_test(every_reset_register_resets),
        cmocka_unit_test(a_gpe_level_that_stays_sets_its_status_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
