#include "base/timerq.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct log {
    uint64_t seen[64];
    unsigned n;
};

static void record(void *opaque, uint64_t now)
{
    struct log *l = opaque;
    l->seen[l->n++] = now;
}

static void timers_fire_earliest_first_and_only_when_due(void **state)
{
    struct timerq q;
    struct timer t[32];
    struct log l = {.n = 0};
    assert_int_equal(timerq_init(&q, 32), 0);
    for (unsigned i = 0; i < 32; i++) {
        timer_init(&t[i], record, &l);
        timer_arm(&q, &t[i], 1 + (i * 37) % 101);
    }
    timer_cancel(&q, &t[1]); /* was due at 38 */
    uint64_t last = 0;
    unsigned total = 0;
    while (timerq_next(&q) != HEC_NS_NEVER) {
        uint64_t at = timerq_next(&q);
        assert_true(at >= last);
        assert_int_not_equal(at, 38);
        assert_int_equal(timerq_run(&q, at - 1), 0);
        total += timerq_run(&q, at);
        last = at;
    }
    assert_int_equal(total, 31);
    timerq_fini(&q);
}

static void rearming_moves_a_timer(void **state)
{
    struct timerq q;
    struct timer a;
    struct log l = {.n = 0};
    assert_int_equal(timerq_init(&q, 1), 0);
    timer_init(&a, record, &l);
    timer_arm(&q, &a, 5);
    timer_arm(&q, &a, 50);
    assert_int_equal(timerq_run(&q, 49), 0);
    assert_int_equal(timerq_run(&q, 50), 1);
    assert_int_equal(timerq_next(&q), HEC_NS_NEVER);
    timerq_fini(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_fire_earliest_first_and_only_when_due),
        cmocka_unit_test(rearming_moves_a_timer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
