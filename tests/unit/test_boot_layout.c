#include "boot/layout.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void assert_map_is_sane(const struct e820_map *m)
{
    for (unsigned i = 0; i < m->n; i++) {
        assert_true(m->e[i].len > 0);
        if (i)
            assert_true(m->e[i - 1].base + m->e[i - 1].len <= m->e[i].base);
    }
}

static uint64_t bytes_of(const struct e820_map *m, uint32_t type)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < m->n; i++)
        n += m->e[i].type == type ? m->e[i].len : 0;
    return n;
}

static void the_map_tells_all_of_ram_but_the_holes(void **state)
{
    static const uint64_t mib[] = {2, 64, 2048, 4096, 300000};
    for (unsigned i = 0; i < ARRAY_SIZE(mib); i++) {
        struct ram r;
        struct boot_layout l;
        struct e820_map m;
        struct err e = {{0}};
        assert_int_equal(ram_init(&r, mib[i] << 20, &e), 0);
        boot_layout_init(&l, &r);
        boot_layout_e820(&l, &m);
        assert_map_is_sane(&m);
        assert_int_equal(bytes_of(&m, E820_RAM), (mib[i] << 20) - (0x100000 - 0x9fc00));
        if (mib[i] > 2) {
            assert_true(boot_layout_acpi(&l, 70000, 64, &e) > 0);
            boot_layout_e820(&l, &m);
            assert_map_is_sane(&m);
            assert_int_equal(bytes_of(&m, E820_ACPI), 18 * 4096);
            assert_int_equal(bytes_of(&m, E820_RAM) + bytes_of(&m, E820_ACPI), (mib[i] << 20) - (0x100000 - 0x9fc00));
        }
        assert_int_equal(m.e[m.n - 1].base >= RAM_HIGH_GPA, mib[i] > 2048);
        ram_fini(&r);
    }
}

static void places_are_aligned_apart_and_bounded(void **state)
{
    struct ram r;
    struct boot_layout l;
    struct err e = {{0}};
    assert_int_equal(ram_init(&r, 4 << 20, &e), 0);
    boot_layout_init(&l, &r);
    gpa_t a = boot_layout_acpi(&l, 100, 16, &e), b = boot_layout_acpi(&l, 5000, 4096, &e),
          c = boot_layout_acpi(&l, 36, 64, &e);
    assert_true(a % 16 == 0 && b % 4096 == 0 && c % 64 == 0);
    assert_true(c + 36 <= b && b + 5000 <= a && a + 100 <= 4 << 20);
    assert_true(l.top <= c && l.top % 4096 == 0);
    assert_int_equal(boot_layout_acpi(&l, 4 << 20, 16, &e), 0);
    assert_non_null(strstr(e.msg, "raise -m"));
    gpa_t d = boot_layout_bios(&l, 36, 16, &e), f = boot_layout_bios(&l, 24, 16, &e);
    assert_true(d >= 0xe0000 && d % 16 == 0 && f >= d + 36 && f % 16 == 0);
    assert_int_equal(boot_layout_bios(&l, 0x20000, 16, &e), 0);
    ram_fini(&r);
}

static void reserved_ranges_stay_out_of_ram(void **state)
{
    struct ram r;
    struct boot_layout l;
    struct e820_map m;
    struct err e = {{0}};
    assert_int_equal(ram_init(&r, UINT64_C(3) << 30, &e), 0);
    boot_layout_init(&l, &r);
    assert_int_equal(boot_layout_reserve(&l, 0xfec00000, 0x1000, E820_RESERVED, &e), 0);
    assert_int_equal(boot_layout_reserve(&l, 0xb0000000, 0x10000000, E820_RESERVED, &e), 0);
    assert_int_equal(boot_layout_reserve(&l, 0xb8000000, 0x1000, E820_RESERVED, NULL), -EINVAL);
    assert_int_equal(boot_layout_reserve(&l, 0x7ffff000, 0x2000, E820_RESERVED, NULL), -EINVAL);
    assert_int_equal(boot_layout_reserve(&l, RAM_HIGH_GPA, 1, E820_RESERVED, NULL), -EINVAL);
    boot_layout_e820(&l, &m);
    assert_map_is_sane(&m);
    assert_int_equal(bytes_of(&m, E820_RESERVED), 0x400 + 0x20000 + 0x1000 + 0x10000000);
    int rc = 0;
    for (unsigned i = 0; i < BOOT_E820_MAX && !rc; i++)
        rc = boot_layout_reserve(&l, 0xd0000000 + i * 0x1000, 0x1000, E820_RESERVED, NULL);
    assert_int_equal(rc, -ENOSPC);
    boot_layout_e820(&l, &m);
    assert_true(m.n <= BOOT_E820_MAX);
    assert_map_is_sane(&m);
    ram_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_map_tells_all_of_ram_but_the_holes),
        cmocka_unit_test(places_are_aligned_apart_and_bounded),
        cmocka_unit_test(reserved_ranges_stay_out_of_ram),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
