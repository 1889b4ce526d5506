#include "base/suggest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const char *const names[] = {"name", "nographic", "no-reboot", "no-shutdown", "machine"};

static void the_nearest_name_wins(void **state)
{
    assert_string_equal(suggest_nearest("nograpic", names, 5), "nographic");
    assert_string_equal(suggest_nearest("no-rebot", names, 5), "no-reboot");
    assert_string_equal(suggest_nearest("MACHINE", names, 5), "machine");
    assert_string_equal(suggest_nearest("--nmae", names, 5), "name");
    assert_string_equal(suggest_nearest("machien", names, 5), "machine");
}

static void there_is_always_an_answer(void **state)
{
    assert_string_equal(suggest_nearest("", names, 5), "name");
    assert_null(suggest_nearest("name", names, 0));
}

static void long_words_are_cut(void **state)
{
    char a[200], b[300];
    const char *one[2] = {"zzz", b};
    memset(a, 'a', sizeof a);
    memset(b, 'a', sizeof b);
    a[sizeof a - 1] = b[sizeof b - 1] = 0;
    assert_ptr_equal(suggest_nearest(a, one, 2), b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_nearest_name_wins),
        cmocka_unit_test(there_is_always_an_answer),
        cmocka_unit_test(long_words_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
