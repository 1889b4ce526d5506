#include "base/epoch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

struct thing {
    struct epoch_node node;
    _Atomic uint64_t value; /* 0 once freed */
};

static void bury(void *p)
{
    atomic_store(&((struct thing *)p)->value, 0);
}

static void bury_and_free(void *p)
{
    bury(p);
    free(p);
}

static void what_a_reader_may_hold_stays(void **state)
{
    struct epoch e;
    struct thing a = {.value = 1}, b = {.value = 2}, c = {.value = 3};
    epoch_init(&e);
    int one = epoch_slot(&e), two = epoch_slot(&e);
    epoch_enter(&e, one);
    epoch_retire(&e, &a.node, &a, bury);
    epoch_enter(&e, two);
    epoch_retire(&e, &b.node, &b, bury);
    assert_int_equal(a.value, 1);
    epoch_leave(&e, one);
    epoch_retire(&e, &c.node, &c, bury);
    assert_int_equal(a.value, 0);
    assert_int_equal(b.value, 2);
    epoch_leave(&e, two);
    epoch_fini(&e);
    assert_int_equal(b.value, 0);
    assert_int_equal(c.value, 0);
}

/* Retiring from inside the epoch neither waits for the retirer itself nor frees what it may still read. */
static void a_reader_may_retire(void **state)
{
    struct epoch e;
    struct thing t[100];
    epoch_init(&e);
    int slot = epoch_slot(&e);
    epoch_enter(&e, slot);
    for (unsigned i = 0; i < 100; i++) {
        t[i].value = i + 1;
        epoch_retire(&e, &t[i].node, &t[i], bury);
        assert_int_equal(t[i].value, i + 1);
    }
    epoch_leave(&e, slot);
    epoch_fini(&e);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(t[i].value, 0);
}

static void slots_run_out(void **state)
{
    struct epoch e;
    epoch_init(&e);
    for (int i = 0; i < EPOCH_MAX_SLOTS; i++)
        assert_int_equal(epoch_slot(&e), i);
    assert_int_equal(epoch_slot(&e), -1);
    assert_int_equal(epoch_slot(&e), -1);
    epoch_fini(&e);
}

/* ---- readers that are writers too, as vCPUs are that change their APICs' modes ---- */

enum { THREADS = 4, ROUNDS = 20000 };

struct shared {
    struct epoch e;
    _Atomic(struct thing *) current;
    _Atomic uint64_t bad;
};

static struct thing *thing_new(uint64_t value)
{
    struct thing *t = calloc(1, sizeof *t);
    assert_non_null(t);
    atomic_init(&t->value, value);
    return t;
}

static void *reader(void *arg)
{
    struct shared *s = arg;
    int slot = epoch_slot(&s->e);
    for (unsigned i = 0; i < ROUNDS; i++) {
        epoch_enter(&s->e, slot);
        struct thing *t = atomic_load_explicit(&s->current, memory_order_acquire);
        if (i % 8 == 0) {
            struct thing *old = atomic_exchange(&s->current, thing_new(i + 1));
            epoch_retire(&s->e, &old->node, old, bury_and_free);
        }
        if (!atomic_load(&t->value))
            atomic_fetch_add(&s->bad, 1);
        epoch_leave(&s->e, slot);
    }
    return NULL;
}

static void nobody_reads_what_is_freed(void **state)
{
    struct shared s = {.bad = 0};
    pthread_t thread[THREADS];
    epoch_init(&s.e);
    atomic_init(&s.current, thing_new(1));
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, reader, &s), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(s.bad, 0);
    free(s.current);
    epoch_fini(&s.e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_reader_may_hold_stays),
        cmocka_unit_test(a_reader_may_retire),
        cmocka_unit_test(slots_run_out),
        cmocka_unit_test(nobody_reads_what_is_freed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
