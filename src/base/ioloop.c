#include "base/ioloop.h"

#include "base/bits.h"
#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define EVENTS     64
#define TIMERS     64
#define NAME_BYTES 16
#if HEC_HOSTILE
#define BELL_ROUNDS 1u
#else
#define BELL_ROUNDS 16u
#endif

struct ioloop {
    char name[NAME_BYTES]; /* (c) */
    struct epoch *epoch;   /* (c) */
    int slot;              /* (c) */
    int epoll, wake, clock;
    pthread_t thread;                   /* (c) after `started` */
    _Atomic(struct ioloop_bell *) rung; /* (a) a stack: the latest ring first */
    _Atomic bool asleep;                /* (a) whoever turns it false writes `wake` */
    pthread_mutex_t lock;
    pthread_cond_t told; /* `started`, or a call's `returned`, has become true */
    bool started;        /* (l) */
    /* the loop's thread only */
    bool stop;
    struct ioloop_bell *taken; /* bells whose functions are to be called, in the order they were rung */
    struct epoll_event event[EVENTS];
    int events; /* fetched and not yet served: event[served..events) */
    int served;
    struct heap timers;
    uint64_t clock_at; /* what `clock` is set to; UINT64_MAX: off */
};

/* ---- bells ---- */

void ioloop_bell_init(struct ioloop_bell *b, void (*fn)(void *), void *opaque)
{
    b->fn = fn;
    b->opaque = opaque;
    atomic_init(&b->next, NULL);
    atomic_init(&b->rung, false);
}

static void wake_if_asleep(struct ioloop *l)
{
    if (!atomic_load(&l->asleep) || !atomic_exchange(&l->asleep, false))
        return;
    uint64_t one = 1;
    ssize_t n = write(l->wake, &one, sizeof one);
    assert(n == sizeof one);
    (void)n;
}

void ioloop_ring(struct ioloop *l, struct ioloop_bell *b)
{
    if (atomic_exchange(&b->rung, true))
        return;
    struct ioloop_bell *first = atomic_load_explicit(&l->rung, memory_order_relaxed);
    do
        atomic_store_explicit(&b->next, first, memory_order_relaxed);
    while (!atomic_compare_exchange_weak(&l->rung, &first, b));
    wake_if_asleep(l);
}

static struct ioloop_bell *bell_next(struct ioloop_bell *b)
{
    return atomic_load_explicit(&b->next, memory_order_relaxed);
}

/* Append what was rung to `taken`, the earliest ring first. */
static void take_bells(struct ioloop *l)
{
    struct ioloop_bell *stack = atomic_exchange(&l->rung, NULL), *list = NULL;
    while (stack) {
        struct ioloop_bell *b = stack;
        stack = bell_next(b);
        atomic_store_explicit(&b->next, list, memory_order_relaxed);
        list = b;
    }
    if (!l->taken) {
        l->taken = list;
        return;
    }
    struct ioloop_bell *last = l->taken;
    while (bell_next(last))
        last = bell_next(last);
    atomic_store_explicit(&last->next, list, memory_order_relaxed);
}

static void run_taken(struct ioloop *l)
{
    for (struct ioloop_bell *b; (b = l->taken);) {
        l->taken = bell_next(b);
        atomic_exchange(&b->rung, false); /* reads the last ring, so what its thread wrote before is seen */
        b->fn(b->opaque);
    }
}

/* Bells ring bells. Some rounds of that cost no look at the descriptors; but one that always rings again does not keep
 * the loop from them. */
static void run_bells(struct ioloop *l)
{
    for (unsigned round = 0; round < BELL_ROUNDS && atomic_load(&l->rung); round++) {
        take_bells(l);
        run_taken(l);
    }
    run_taken(l);
}

void ioloop_bell_remove(struct ioloop *l, struct ioloop_bell *b)
{
    assert(ioloop_here(l));
    take_bells(l);
    struct ioloop_bell *before = NULL, *at = l->taken;
    for (; at && at != b; at = bell_next(at))
        before = at;
    if (at && before)
        atomic_store_explicit(&before->next, bell_next(b), memory_order_relaxed);
    else if (at)
        l->taken = bell_next(b);
    atomic_store(&b->rung, false);
}

/* ---- calls ---- */

struct call {
    struct ioloop *l;
    void (*fn)(void *);
    void *opaque;
    bool returned; /* (l) */
};

static void run_call(void *opaque)
{
    struct call *c = opaque;
    struct ioloop *l = c->l;
    c->fn(c->opaque);
    pthread_mutex_lock(&l->lock);
    c->returned = true;
    pthread_cond_broadcast(&l->told);
    pthread_mutex_unlock(&l->lock);
}

static void wait_for(struct ioloop *l, const bool *flag)
{
    pthread_mutex_lock(&l->lock);
    while (!*flag)
        pthread_cond_wait(&l->told, &l->lock);
    pthread_mutex_unlock(&l->lock);
}

bool ioloop_here(const struct ioloop *l)
{
    return pthread_equal(pthread_self(), l->thread);
}

void ioloop_call(struct ioloop *l, void (*fn)(void *), void *opaque)
{
    if (ioloop_here(l)) {
        fn(opaque);
        return;
    }
    struct call c = {.l = l, .fn = fn, .opaque = opaque};
    struct ioloop_bell b;
    ioloop_bell_init(&b, run_call, &c);
    ioloop_ring(l, &b);
    wait_for(l, &c.returned);
}

/* ---- descriptors ---- */

int ioloop_fd_add(struct ioloop *l, struct ioloop_fd *f, uint32_t events, struct err *e)
{
    assert(ioloop_here(l));
    if (!events)
        return 0;
    struct epoll_event ev = {.events = events, .data.ptr = f};
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, f->fd, &ev))
        return err_set(e, -errno, "thread %s: cannot watch file descriptor %d: %m", l->name, f->fd);
    return 0;
}

/* Forget what was fetched for `f` except `keep`. */
static void filter_fetched(struct ioloop *l, const struct ioloop_fd *f, uint32_t keep)
{
    for (int i = l->served; i < l->events; i++)
        if (l->event[i].data.ptr == f)
            l->event[i].events &= keep;
}

void ioloop_fd_remove(struct ioloop *l, struct ioloop_fd *f)
{
    assert(ioloop_here(l));
    epoll_ctl(l->epoll, EPOLL_CTL_DEL, f->fd, NULL); /* may not be there: watched for nothing */
    filter_fetched(l, f, 0);
}

/* epoll reports errors and hang-ups unasked, so a descriptor watched for nothing is taken out. */
void ioloop_fd_events(struct ioloop *l, struct ioloop_fd *f, uint32_t events)
{
    if (!events) {
        ioloop_fd_remove(l, f);
        return;
    }
    assert(ioloop_here(l));
    struct epoll_event ev = {.events = events, .data.ptr = f};
    if (epoll_ctl(l->epoll, EPOLL_CTL_MOD, f->fd, &ev) && errno == ENOENT)
        epoll_ctl(l->epoll, EPOLL_CTL_ADD, f->fd, &ev);
    filter_fetched(l, f, events | EPOLLERR | EPOLLHUP);
}

static void run_fds(struct ioloop *l)
{
    while (l->served < l->events) {
        struct epoll_event *ev = &l->event[l->served++];
        struct ioloop_fd *f = ev->data.ptr;
        if (ev->events)
            f->fn(f->opaque, ev->events);
    }
    l->events = l->served = 0;
}

/* ---- timers ---- */

void ioloop_timer_init(struct ioloop_timer *t, void (*fn)(void *), void *opaque)
{
    *t = (struct ioloop_timer){.fn = fn, .opaque = opaque, .node.pos = -1};
}

void ioloop_timer_cancel(struct ioloop *l, struct ioloop_timer *t)
{
    assert(ioloop_here(l));
    if (heap_holds(&t->node))
        heap_remove(&l->timers, &t->node);
}

void ioloop_timer_arm(struct ioloop *l, struct ioloop_timer *t, uint64_t at)
{
    ioloop_timer_cancel(l, t);
    heap_push(&l->timers, &t->node, at);
}

/* One that arms itself for the past again and again runs once a round. */
static void run_timers(struct ioloop *l)
{
    if (!l->timers.n)
        return;
    uint64_t now = clock_host_ns();
    for (uint32_t left = l->timers.n; left && heap_min_key(&l->timers) <= now && l->timers.n; left--) {
        struct ioloop_timer *t = container_of(heap_min(&l->timers), struct ioloop_timer, node);
        heap_remove(&l->timers, &t->node);
        t->fn(t->opaque);
    }
}

/* Time 0 would turn the clock off. */
static void set_clock(struct ioloop *l)
{
    uint64_t at = heap_min_key(&l->timers);
    if (at == l->clock_at)
        return;
    l->clock_at = at;
    uint64_t ns = at == UINT64_MAX ? 0 : max_u64(at, 1);
    struct itimerspec t = {.it_value = {(time_t)(ns / NS_PER_SEC), (long)(ns % NS_PER_SEC)}};
    timerfd_settime(l->clock, TFD_TIMER_ABSTIME, &t, NULL);
}

/* ---- the thread ---- */

static void drain(int fd)
{
    uint64_t count;
    ssize_t n = read(fd, &count, sizeof count); /* the number does not matter, nor that there is none */
    (void)n;
}

/* The loop's own two descriptors carry no function. */
static void drain_own(struct ioloop *l)
{
    for (int i = 0; i < l->events; i++) {
        struct epoll_event *ev = &l->event[i];
        if (ev->data.ptr != &l->wake && ev->data.ptr != &l->clock)
            continue;
        drain(*(int *)ev->data.ptr);
        if (ev->data.ptr == &l->clock)
            l->clock_at = UINT64_MAX;
        ev->events = 0;
    }
}

static void fetch(struct ioloop *l, int timeout)
{
    int n = epoll_wait(l->epoll, l->event, EVENTS, timeout);
    l->served = 0;
    l->events = n > 0 ? n : 0;
    drain_own(l);
}

/* The order is the promise that no ring is lost: say that we sleep, then look. */
static void sleep_and_fetch(struct ioloop *l)
{
    set_clock(l);
    atomic_store(&l->asleep, true);
    int timeout = atomic_load(&l->rung) ? 0 : -1;
    epoch_leave(l->epoch, l->slot);
    fetch(l, timeout);
    atomic_store(&l->asleep, false);
    epoch_enter(l->epoch, l->slot);
}

static void *loop_thread(void *opaque)
{
    struct ioloop *l = opaque;
    pthread_mutex_lock(&l->lock);
    l->thread = pthread_self();
    l->started = true;
    pthread_cond_broadcast(&l->told);
    pthread_mutex_unlock(&l->lock);
    epoch_enter(l->epoch, l->slot);
    while (!l->stop) {
        sleep_and_fetch(l);
        run_fds(l);
        run_timers(l);
        run_bells(l);
    }
    epoch_leave(l->epoch, l->slot);
    return NULL;
}

/* ---- lifecycle ---- */

static void loop_free(struct ioloop *l)
{
    for (unsigned i = 0; i < 3; i++) {
        int fd = (int[]){l->epoll, l->wake, l->clock}[i];
        if (fd >= 0)
            close(fd);
    }
    heap_fini(&l->timers);
    pthread_cond_destroy(&l->told);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static int watch_own(struct ioloop *l, int *fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = fd};
    return epoll_ctl(l->epoll, EPOLL_CTL_ADD, *fd, &ev);
}

static int open_fds(struct ioloop *l)
{
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->wake = l->epoll < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    l->clock = l->wake < 0 ? -1 : timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (l->clock < 0 || watch_own(l, &l->wake) || watch_own(l, &l->clock))
        return -errno;
    return heap_init(&l->timers, TIMERS);
}

static int start_thread(struct ioloop *l)
{
    sigset_t all, old;
    pthread_t thread;
    sigfillset(&all);
    sigdelset(&all, SIGSYS); /* how a sandbox tells of a refusal; blocked, it would end the process */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&thread, NULL, loop_thread, l);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc)
        return -rc;
    pthread_setname_np(thread, l->name);
    wait_for(l, &l->started);
    return 0;
}

int ioloop_create(const struct ioloop_config *c, struct ioloop **out, struct err *e)
{
    struct ioloop *l = calloc(1, sizeof *l);
    if (!l)
        return err_set(e, -ENOMEM, "thread %s: no memory", c->name);
    strncpy(l->name, c->name, NAME_BYTES - 1);
    l->epoch = c->epoch;
    l->epoll = l->wake = l->clock = -1;
    l->clock_at = UINT64_MAX;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->told, NULL);
    l->slot = epoch_slot(c->epoch);
    int rc = l->slot < 0 ? -EAGAIN : open_fds(l);
    if (!rc)
        rc = start_thread(l);
    if (rc) {
        rc = err_set(e, rc, "thread %s: cannot start: %s%s", c->name,
                     l->slot < 0 ? "the machine has too many threads" : strerror(-rc),
                     rc == -EMFILE ? ": raise the limit of open files (ulimit -n)" : "");
        loop_free(l);
        return rc;
    }
    *out = l;
    return 0;
}

static void stop(void *opaque)
{
    struct ioloop *l = opaque;
    l->stop = true;
}

void ioloop_destroy(struct ioloop *l)
{
    if (!l)
        return;
    assert(!ioloop_here(l));
    ioloop_call(l, stop, l);
    pthread_join(l->thread, NULL);
    assert(!l->timers.n);
    loop_free(l);
}
