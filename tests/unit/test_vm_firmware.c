/* Where firmware puts what no device decides. */
#include "vm/firmware.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define GIB(n) (UINT64_C(n) << 30)

/* Above RAM, within the CPU's addresses, at a multiple of its own size. */
static void the_64_bit_window_fits(void **state)
{
    static const struct {
        uint64_t high;
        unsigned phys_bits;
        uint64_t base, len;
    } row[] = {
        {0, 46, GIB(32), GIB(32)},
        {GIB(28), 46, GIB(32), GIB(32)},
        {GIB(28) + 4096, 46, GIB(64), GIB(32)},
        {GIB(2046), 46, GIB(2080), GIB(32)},
        {0, 36, GIB(32), GIB(32)},
        {GIB(30), 36, GIB(48), GIB(16)},
        {GIB(58), 36, GIB(62), GIB(2)},
        {GIB(59) - 4096, 36, GIB(63), GIB(1)},
        {GIB(60) - 4096, 36, 0, 0},
        {0, 32, 0, 0},
    };
    for (unsigned i = 0; i < sizeof row / sizeof row[0]; i++) {
        const struct ram ram = {.low_size = RAM_LOW_MAX, .high_size = row[i].high};
        uint64_t base, len;
        firmware_pci64(&ram, row[i].phys_bits, &base, &len);
        assert_int_equal(base, row[i].base);
        assert_int_equal(len, row[i].len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_64_bit_window_fits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
