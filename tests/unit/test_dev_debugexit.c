#include "dev_fixture.h"

#include "dev/debugexit.h"

#include <errno.h>

static void any_width_exits_with_an_odd_code(void **state)
{
    struct fixture f;
    struct debugexit d;
    fixture_init(&f);
    assert_int_equal(debugexit_init(&d, &f.ports, &f.control, DEBUGEXIT_IOBASE, DEBUGEXIT_IOSIZE, &f.err), 0);
    for (unsigned size = 1; size <= 4; size *= 2) {
        bus_write(&f.ports, 0xf4, size, 0x21);
        assert_int_equal(f.last_request, VM_REQ_EXIT);
        assert_int_equal(f.last_code, 0x43);
    }
    bus_write(&f.ports, 0xf4, 4, 0);
    assert_int_equal(f.last_code, 1);
    bus_write(&f.ports, 0xf4, 4, 0xffffffff);
    assert_int_equal(f.last_code & 0xff, 0xff);
    assert_int_equal(f.requests, 5);
    assert_int_equal(inb(&f, 0xf4), 0);
    assert_int_equal(f.requests, 5);
    debugexit_fini(&d);
    fixture_fini(&f);
}

static void ports_are_configurable_and_checked(void **state)
{
    struct fixture f;
    struct debugexit d, other;
    fixture_init(&f);
    assert_int_equal(debugexit_init(&d, &f.ports, &f.control, 0x501, 1, &f.err), 0);
    outb(&f, 0x501, 3);
    assert_int_equal(f.last_code, 7);
    assert_int_equal(debugexit_init(&other, &f.ports, &f.control, 0x500, 4, &f.err), -EEXIST);
    assert_int_equal(debugexit_init(&other, &f.ports, &f.control, 0xfffe, 4, &f.err), -EINVAL);
    assert_int_equal(debugexit_init(&other, &f.ports, &f.control, 0xf4, 0, &f.err), -EINVAL);
    assert_int_equal(debugexit_init(&other, &f.ports, &f.control, 0x10000, 1, &f.err), -EINVAL);
    debugexit_fini(&d);
    fixture_fini(&f);
}

static void say(struct fixture *f, const char *text)
{
    for (; *text; text++)
        outb(f, SHUTDOWN_PORT, (uint8_t)*text);
}

static void the_word_shuts_down(void **state)
{
    struct fixture f;
    struct shutdown_port s;
    fixture_init(&f);
    assert_int_equal(shutdown_port_init(&s, &f.ports, &f.control, &f.err), 0);
    say(&f, "shutdown Shut down ShutShutdow");
    assert_int_equal(f.requests, 0);
    say(&f, "n");
    assert_int_equal(f.requests, 1);
    assert_int_equal(f.last_request, VM_REQ_POWEROFF);
    say(&f, "Shut");
    shutdown_port_reset(&s);
    say(&f, "down");
    assert_int_equal(f.requests, 1);
    say(&f, "SShutdown");
    assert_int_equal(f.requests, 2);
    shutdown_port_fini(&s);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_width_exits_with_an_odd_code),
        cmocka_unit_test(ports_are_configurable_and_checked),
        cmocka_unit_test(the_word_shuts_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
