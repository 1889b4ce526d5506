#include "base/bits.h"
#include "base/clock.h"
#include "base/ioloop.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cmocka.h>

struct rig {
    struct epoch epoch;
    struct ioloop *loop;
    /* the loop's thread writes, between calls */
    struct ioloop_bell bell[4];
    struct ioloop_fd fd[3];
    struct ioloop_timer timer[65];
    int pipe[3][2];
    char seen[4096];
    _Atomic unsigned n;
    unsigned limit;
    bool in_epoch, here, signals_blocked;
};

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    struct err e = {.msg = ""};
    epoch_init(&r->epoch);
    for (int i = 0; i < 3; i++)
        if (pipe2(r->pipe[i], O_CLOEXEC | O_NONBLOCK))
            return -1;
    *state = r;
    return ioloop_create(&(struct ioloop_config){.name = "a-very-long-name-indeed", .epoch = &r->epoch}, &r->loop, &e);
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    ioloop_destroy(r->loop);
    epoch_fini(&r->epoch);
    for (int i = 0; i < 3; i++) {
        close(r->pipe[i][0]);
        close(r->pipe[i][1]);
    }
    free(r);
    return 0;
}

static void say(struct rig *r, char c)
{
    if (r->n < sizeof r->seen - 1)
        r->seen[r->n++] = c;
}

static void nothing(void *opaque)
{
}

/* Whatever was ready before has been served when this returns: calls are bells, and after some of them the loop looks
 * at its descriptors and timers. */
static void settle(struct rig *r)
{
    for (int i = 0; i < 50; i++)
        ioloop_call(r->loop, nothing, NULL);
}

static void look(void *opaque)
{
    struct rig *r = opaque;
    sigset_t set;
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    r->signals_blocked = sigismember(&set, SIGINT) == 1 && sigismember(&set, SIGTERM) == 1;
    r->here = ioloop_here(r->loop);
    r->in_epoch = atomic_load(&r->epoch.slot[0]) != 0;
}

static void a_call_runs_on_the_loops_thread_inside_the_epoch(void **state)
{
    struct rig *r = *state;
    assert_false(ioloop_here(r->loop));
    ioloop_call(r->loop, look, r);
    assert_true(r->here);
    assert_true(r->in_epoch);
    assert_true(r->signals_blocked);
}

static void call_inside(void *opaque)
{
    struct rig *r = opaque;
    ioloop_call(r->loop, look, r);
}

static void a_call_from_the_loop_itself_runs_at_once(void **state)
{
    struct rig *r = *state;
    ioloop_call(r->loop, call_inside, r);
    assert_true(r->here);
}

static void say_a(void *opaque)
{
    say(opaque, 'a');
}

static void say_b(void *opaque)
{
    say(opaque, 'b');
}

static void ring_many(void *opaque)
{
    struct rig *r = opaque;
    ioloop_ring(r->loop, &r->bell[1]);
    ioloop_ring(r->loop, &r->bell[0]);
    ioloop_ring(r->loop, &r->bell[1]);
    ioloop_ring(r->loop, &r->bell[1]);
}

static void many_rings_are_one_call_and_keep_their_order(void **state)
{
    struct rig *r = *state;
    ioloop_bell_init(&r->bell[0], say_a, r);
    ioloop_bell_init(&r->bell[1], say_b, r);
    ioloop_call(r->loop, ring_many, r);
    settle(r);
    assert_string_equal(r->seen, "ba");
}

static void ring_again(void *opaque)
{
    struct rig *r = opaque;
    say(r, 'r');
    if (r->n < r->limit)
        ioloop_ring(r->loop, &r->bell[0]);
}

static void a_ring_during_the_call_calls_again(void **state)
{
    struct rig *r = *state;
    r->limit = 100;
    ioloop_bell_init(&r->bell[0], ring_again, r);
    ioloop_ring(r->loop, &r->bell[0]);
    while (r->n < 100)
        settle(r);
    settle(r);
    assert_int_equal(r->n, 100);
}

static void remove_other(void *opaque)
{
    struct rig *r = opaque;
    say(r, 'x');
    ioloop_bell_remove(r->loop, &r->bell[1]);
    ioloop_bell_remove(r->loop, &r->bell[0]); /* itself: not waiting, nothing to do */
}

static void ring_three(void *opaque)
{
    struct rig *r = opaque;
    for (int i = 0; i < 3; i++)
        ioloop_ring(r->loop, &r->bell[i]);
}

static void a_removed_bell_is_not_called_and_its_neighbours_are(void **state)
{
    struct rig *r = *state;
    ioloop_bell_init(&r->bell[0], remove_other, r);
    ioloop_bell_init(&r->bell[1], say_b, r);
    ioloop_bell_init(&r->bell[2], say_a, r);
    ioloop_call(r->loop, ring_three, r);
    settle(r);
    assert_string_equal(r->seen, "xa");
    ioloop_ring(r->loop, &r->bell[1]); /* may be used again */
    settle(r);
    assert_string_equal(r->seen, "xab");
}

/* ---- descriptors ---- */

static void take_byte(void *opaque, uint32_t events)
{
    struct ioloop_fd *f = opaque;
    struct rig *r = container_of(f, struct rig, fd[0]);
    char c;
    if (read(f->fd, &c, 1) == 1)
        say(r, c);
    else
        say(r, events & EPOLLHUP ? '-' : '?');
}

static void take_byte0(void *opaque, uint32_t events)
{
    struct rig *r = opaque;
    take_byte(&r->fd[0], events);
}

static void add0(void *opaque)
{
    struct rig *r = opaque;
    r->fd[0] = (struct ioloop_fd){.fn = take_byte0, .opaque = r, .fd = r->pipe[0][0]};
    assert_int_equal(ioloop_fd_add(r->loop, &r->fd[0], EPOLLIN, NULL), 0);
}

static void mute0(void *opaque)
{
    struct rig *r = opaque;
    ioloop_fd_events(r->loop, &r->fd[0], 0);
}

static void unmute0(void *opaque)
{
    struct rig *r = opaque;
    ioloop_fd_events(r->loop, &r->fd[0], EPOLLIN);
}

static void remove0(void *opaque)
{
    struct rig *r = opaque;
    ioloop_fd_remove(r->loop, &r->fd[0]);
}

static void descriptors_are_served_while_they_are_watched(void **state)
{
    struct rig *r = *state;
    ioloop_call(r->loop, add0, r);
    assert_int_equal(write(r->pipe[0][1], "pq", 2), 2);
    settle(r);
    assert_string_equal(r->seen, "pq");
    ioloop_call(r->loop, mute0, r);
    assert_int_equal(write(r->pipe[0][1], "z", 1), 1);
    settle(r);
    assert_string_equal(r->seen, "pq");
    ioloop_call(r->loop, unmute0, r);
    settle(r);
    assert_string_equal(r->seen, "pqz");
    ioloop_call(r->loop, remove0, r);
    assert_int_equal(write(r->pipe[0][1], "y", 1), 1);
    settle(r);
    assert_string_equal(r->seen, "pqz");
}

static void a_hang_up_does_not_come_to_a_muted_descriptor(void **state)
{
    struct rig *r = *state;
    ioloop_call(r->loop, add0, r);
    ioloop_call(r->loop, mute0, r);
    close(r->pipe[0][1]);
    settle(r);
    assert_string_equal(r->seen, "");
    ioloop_call(r->loop, unmute0, r);
    settle(r);
    assert_int_equal(r->seen[0], '-');
    ioloop_call(r->loop, remove0, r);
    r->pipe[0][1] = dup(r->pipe[1][1]);
}

/* The first of two ready descriptors that is served removes the other. */
static void take_and_remove_other(struct rig *r, int me)
{
    char c;
    assert_int_equal(read(r->pipe[me][0], &c, 1), 1);
    say(r, c);
    ioloop_fd_remove(r->loop, &r->fd[!me]);
}

static void either0(void *opaque, uint32_t events)
{
    take_and_remove_other(opaque, 0);
}

static void either1(void *opaque, uint32_t events)
{
    take_and_remove_other(opaque, 1);
}

static void add_both(void *opaque)
{
    struct rig *r = opaque;
    r->fd[0] = (struct ioloop_fd){.fn = either0, .opaque = r, .fd = r->pipe[0][0]};
    r->fd[1] = (struct ioloop_fd){.fn = either1, .opaque = r, .fd = r->pipe[1][0]};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(write(r->pipe[i][1], "e", 1), 1);
        assert_int_equal(ioloop_fd_add(r->loop, &r->fd[i], EPOLLIN, NULL), 0);
    }
}

static void remove_both(void *opaque)
{
    struct rig *r = opaque;
    ioloop_fd_remove(r->loop, &r->fd[0]);
    ioloop_fd_remove(r->loop, &r->fd[1]);
}

static void a_removed_descriptor_is_not_called_for_a_fetched_event(void **state)
{
    struct rig *r = *state;
    ioloop_call(r->loop, add_both, r);
    settle(r);
    assert_string_equal(r->seen, "e");
    ioloop_call(r->loop, remove_both, r);
}

static void add_a_file(void *opaque)
{
    struct rig *r = opaque;
    struct err e = {.msg = ""};
    r->fd[2] = (struct ioloop_fd){.fn = take_byte0, .opaque = r, .fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC)};
    assert_int_equal(ioloop_fd_add(r->loop, &r->fd[2], EPOLLIN, &e), -EPERM);
    assert_non_null(strstr(e.msg, "a-very-long-nam:"));
    close(r->fd[2].fd);
}

static void what_cannot_be_watched_is_refused(void **state)
{
    struct rig *r = *state;
    ioloop_call(r->loop, add_a_file, r);
}

/* ---- timers ---- */

static void timer_says(void *opaque)
{
    struct ioloop_timer *t = opaque;
    struct rig *r = container_of(t, struct rig, timer[0]);
    say(r, '0');
}

static void timer_re_arms(void *opaque)
{
    struct rig *r = opaque;
    say(r, 't');
    if (r->n < r->limit)
        ioloop_timer_arm(r->loop, &r->timer[0], r->n % 2 ? 0 : clock_host_ns() + 1000);
}

static void timer_says_a(void *opaque)
{
    say(opaque, 'a');
}

static void timer_says_b(void *opaque)
{
    say(opaque, 'b');
}

static void arm_out_of_order(void *opaque)
{
    struct rig *r = opaque;
    uint64_t now = clock_host_ns();
    ioloop_timer_init(&r->timer[0], timer_says, &r->timer[0]);
    ioloop_timer_init(&r->timer[1], timer_says_a, r);
    ioloop_timer_init(&r->timer[2], timer_says_b, r);
    ioloop_timer_arm(r->loop, &r->timer[0], now + 300000);
    ioloop_timer_arm(r->loop, &r->timer[1], 5);
    ioloop_timer_arm(r->loop, &r->timer[1], now + 200000);
    ioloop_timer_arm(r->loop, &r->timer[2], now + 100000);
}

static void wait_for_seen(struct rig *r, unsigned n)
{
    while (r->n < n)
        settle(r);
}

static void timers_fire_in_order(void **state)
{
    struct rig *r = *state;
    ioloop_call(r->loop, arm_out_of_order, r);
    wait_for_seen(r, 3);
    assert_string_equal(r->seen, "ba0");
}

static void arm_then_cancel(void *opaque)
{
    struct rig *r = opaque;
    arm_out_of_order(r);
    ioloop_timer_cancel(r->loop, &r->timer[1]);
    ioloop_timer_cancel(r->loop, &r->timer[1]);
}

static void a_cancelled_timer_does_not_fire(void **state)
{
    struct rig *r = *state;
    ioloop_call(r->loop, arm_then_cancel, r);
    wait_for_seen(r, 2);
    assert_string_equal(r->seen, "b0");
}

static void arm_re_arming(void *opaque)
{
    struct rig *r = opaque;
    ioloop_timer_init(&r->timer[0], timer_re_arms, r);
    ioloop_timer_arm(r->loop, &r->timer[0], 0);
}

/* A timer alone, and nobody else wakes the loop: the write to the pipe is the loop's. */
static void timer_writes(void *opaque)
{
    struct rig *r = opaque;
    assert_int_equal(write(r->pipe[2][1], "w", 1), 1);
    if (++r->n < 20)
        ioloop_timer_arm(r->loop, &r->timer[0], clock_host_ns() + 50000);
}

static void arm_writing(void *opaque)
{
    struct rig *r = opaque;
    ioloop_timer_init(&r->timer[0], timer_writes, r);
    ioloop_timer_arm(r->loop, &r->timer[0], clock_host_ns() + 50000);
}

static void a_timer_wakes_a_sleeping_loop(void **state)
{
    struct rig *r = *state;
    ioloop_call(r->loop, arm_writing, r);
    fcntl(r->pipe[2][0], F_SETFL, 0);
    for (int i = 0; i < 20; i++)
        assert_int_equal(read(r->pipe[2][0], &(char){0}, 1), 1);
    settle(r);
    assert_int_equal(r->n, 20);
}

static void a_timer_may_arm_itself_even_for_the_past(void **state)
{
    struct rig *r = *state;
    r->limit = 50;
    ioloop_call(r->loop, arm_re_arming, r);
    wait_for_seen(r, 50);
    assert_int_equal(r->n, 50);
}

static void arm_64(void *opaque)
{
    struct rig *r = opaque;
    for (int i = 0; i < 64; i++) {
        ioloop_timer_init(&r->timer[i], timer_says_a, r);
        ioloop_timer_arm(r->loop, &r->timer[i], i % 2 ? UINT64_MAX - 1 : 0);
    }
}

static void cancel_64(void *opaque)
{
    struct rig *r = opaque;
    for (int i = 0; i < 64; i++)
        ioloop_timer_cancel(r->loop, &r->timer[i]);
}

static void sixty_four_timers_may_be_armed(void **state)
{
    struct rig *r = *state;
    ioloop_call(r->loop, arm_64, r);
    wait_for_seen(r, 32);
    ioloop_call(r->loop, cancel_64, r);
    assert_int_equal(r->n, 32);
}

static void a_loop_without_a_slot_is_refused(void **state)
{
    struct rig *r = *state;
    struct err e = {.msg = ""};
    struct ioloop *l = NULL;
    while (epoch_slot(&r->epoch) >= 0)
        ;
    assert_int_equal(ioloop_create(&(struct ioloop_config){.name = "io0", .epoch = &r->epoch}, &l, &e), -EAGAIN);
    assert_non_null(strstr(e.msg, "io0"));
    ioloop_destroy(NULL);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_call_runs_on_the_loops_thread_inside_the_epoch),
        T(a_call_from_the_loop_itself_runs_at_once),
        T(many_rings_are_one_call_and_keep_their_order),
        T(a_ring_during_the_call_calls_again),
        T(a_removed_bell_is_not_called_and_its_neighbours_are),
        T(descriptors_are_served_while_they_are_watched),
        T(a_hang_up_does_not_come_to_a_muted_descriptor),
        T(a_removed_descriptor_is_not_called_for_a_fetched_event),
        T(what_cannot_be_watched_is_refused),
        T(timers_fire_in_order),
        T(a_cancelled_timer_does_not_fire),
        T(a_timer_wakes_a_sleeping_loop),
        T(a_timer_may_arm_itself_even_for_the_past),
        T(sixty_four_timers_may_be_armed),
        T(a_loop_without_a_slot_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
