/* Threads ring, write and call while the loop's descriptors, bells and timers come and go: no ring is lost (a lost one
 * hangs), nothing that was removed is called, and every call has run when it returns. */
#include "base/bits.h"
#include "base/clock.h"
#include "base/ioloop.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cmocka.h>

#define RINGERS 4
#define BELLS   3
#define ROUNDS  20000

struct storm;

struct door {
    struct storm *s;
    struct ioloop_bell bell;
    _Atomic uint64_t asked; /* by ringers, before they ring */
    uint64_t served;        /* the loop's */
    sem_t answered;         /* once a request */
};

struct line {
    struct storm *s;
    struct ioloop_fd fd;
    struct ioloop_timer timer;
    int end;      /* where bytes are written */
    bool watched; /* the loop's */
};

struct storm {
    struct epoch epoch;
    struct ioloop *loop;
    struct door door[BELLS];
    struct line line[2];
    _Atomic unsigned failures, bytes, ticks;
    _Atomic bool done;
    uint64_t called; /* the loop's thread only: calls need no lock */
};

static void answer(void *opaque)
{
    struct door *d = opaque;
    for (uint64_t asked = atomic_load(&d->asked); d->served < asked; d->served++)
        sem_post(&d->answered);
}

/* Waits each time: a lost ring is a hang. The last bell is rung without waiting, so that rings meet rings. */
static void *ring(void *opaque)
{
    struct storm *s = opaque;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct door *d = &s->door[i % BELLS];
        atomic_fetch_add(&d->asked, 1);
        ioloop_ring(s->loop, &d->bell);
        if (i % BELLS != BELLS - 1)
            sem_wait(&d->answered);
    }
    return NULL;
}

static void took(void *opaque, uint32_t events)
{
    struct line *l = opaque;
    char buf[64];
    if (!l->watched)
        atomic_fetch_add(&l->s->failures, 1);
    ssize_t n = read(l->fd.fd, buf, sizeof buf);
    if (n > 0)
        atomic_fetch_add(&l->s->bytes, (unsigned)n);
}

static void watch(struct line *l, bool on)
{
    if (l->watched == on)
        return;
    l->watched = on;
    if (on)
        ioloop_fd_add(l->s->loop, &l->fd, EPOLLIN, NULL);
    else
        ioloop_fd_remove(l->s->loop, &l->fd);
}

/* Each line's timer changes what is watched of the other. */
static void tick(void *opaque)
{
    struct line *l = opaque;
    struct line *other = &l->s->line[l == &l->s->line[0]];
    unsigned n = atomic_fetch_add(&l->s->ticks, 1);
    watch(other, n % 3 != 0);
    ioloop_timer_arm(l->s->loop, &l->timer, clock_host_ns() + n % 7 * 1000);
}

static void *write_bytes(void *opaque)
{
    struct storm *s = opaque;
    for (unsigned i = 0; !atomic_load(&s->done); i++)
        if (write(s->line[i % 2].end, "x", 1) != 1)
            sched_yield();
    return NULL;
}

static void count(void *opaque)
{
    struct storm *s = opaque;
    s->called++;
}

static void *call(void *opaque)
{
    struct storm *s = opaque;
    for (unsigned i = 0; i < ROUNDS / 4; i++)
        ioloop_call(s->loop, count, s);
    return NULL;
}

static void begin(void *opaque)
{
    struct storm *s = opaque;
    for (int i = 0; i < 2; i++) {
        watch(&s->line[i], true);
        ioloop_timer_arm(s->loop, &s->line[i].timer, 0);
    }
}

static void end(void *opaque)
{
    struct storm *s = opaque;
    for (int i = 0; i < 2; i++) {
        watch(&s->line[i], false);
        ioloop_timer_cancel(s->loop, &s->line[i].timer);
    }
    for (int i = 0; i < BELLS; i++)
        ioloop_bell_remove(s->loop, &s->door[i].bell);
}

static void open_line(struct storm *s, int i)
{
    int fd[2];
    assert_int_equal(pipe2(fd, O_NONBLOCK | O_CLOEXEC), 0);
    struct line *l = &s->line[i];
    *l = (struct line){.s = s, .fd = {.fn = took, .opaque = l, .fd = fd[0]}, .end = fd[1]};
    ioloop_timer_init(&l->timer, tick, l);
}

static void open_storm(struct storm *s)
{
    epoch_init(&s->epoch);
    assert_int_equal(ioloop_create(&(struct ioloop_config){.name = "storm", .epoch = &s->epoch}, &s->loop, NULL), 0);
    for (int i = 0; i < BELLS; i++) {
        s->door[i].s = s;
        sem_init(&s->door[i].answered, 0, 0);
        ioloop_bell_init(&s->door[i].bell, answer, &s->door[i]);
    }
    open_line(s, 0);
    open_line(s, 1);
    ioloop_call(s->loop, begin, s);
}

static void nothing_is_lost_and_nothing_removed_is_called(void **state)
{
    static struct storm s;
    pthread_t ringer[RINGERS], caller[2], writer;
    open_storm(&s);
    for (int i = 0; i < RINGERS; i++)
        assert_int_equal(pthread_create(&ringer[i], NULL, ring, &s), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&caller[i], NULL, call, &s), 0);
    assert_int_equal(pthread_create(&writer, NULL, write_bytes, &s), 0);
    for (int i = 0; i < RINGERS; i++)
        pthread_join(ringer[i], NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(caller[i], NULL);
    while (!atomic_load(&s.bytes) || atomic_load(&s.ticks) < 1000)
        sched_yield();
    atomic_store(&s.done, true);
    pthread_join(writer, NULL);
    ioloop_call(s.loop, end, &s);
    ioloop_destroy(s.loop);
    epoch_fini(&s.epoch);

    assert_int_equal(s.failures, 0);
    assert_int_equal(s.called, 2 * (ROUNDS / 4));
    for (int i = 0; i < BELLS; i++) {
        /* The last rings of all may be forgotten by end(), which is what removing means; waited ones may not. */
        if (i < BELLS - 1)
            assert_int_equal(s.door[i].served, s.door[i].asked);
        sem_destroy(&s.door[i].answered);
    }
    for (int i = 0; i < 2; i++) {
        close(s.line[i].fd.fd);
        close(s.line[i].end);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_and_nothing_removed_is_called),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
