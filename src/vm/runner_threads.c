/* A thread a vCPU (runner.h), for engines that execute in the host's kernel and wait there.
 *
 * `round` counts starts. A thread waits for a round that it has not seen, runs its vCPU until `stop`, and counts itself
 * out of `active`; a start counts all in before it opens the round, so a stop waits for every thread even if one has
 * slept through the whole round.
 */
#include "vm/runner_priv.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STACK_SIZE   (UINT64_C(512) << 10) /* thousands of them, and nobody recurses */
#define KICK_AGAIN   (NS_PER_SEC / 10)     /* a stop that is not answered is asked for again */
#define CPU_NAME_LEN 16

struct thread {
    struct threads *r;      /* (c) */
    struct engine_vcpu *v;  /* (c) after attach; NULL: the timers' thread */
    uint32_t index;         /* (c) */
    int epoch_slot;         /* (c) */
    uint32_t round;         /* its own: the last round it has seen */
    bool counted;           /* its own: `active` counts it */
    _Atomic bool in_a_call; /* (a) executing its vCPU; a dead one is not */
    pthread_t handle;       /* the owner's */
} __attribute__((aligned(64)));

struct threads {
    struct runner base;
    struct runner_config cfg;     /* (c) */
    const struct engine_ops *ops; /* (c) after attach */
    struct engine_vm *vm;         /* (c) after attach */
    struct thread *thread;        /* (c) [vcpus + 1], the last serves timers */
    uint32_t made;                /* threads that exist; the owner's */
    atomic_bool stop;             /* true: nobody is to run */
    atomic_bool quit;
    _Atomic uint32_t round;      /* futex */
    _Atomic uint32_t active;     /* futex: threads that are not back from this round */
    _Atomic uint32_t dead;       /* threads that have ended by themselves */
    _Atomic uint32_t timers_seq; /* futex: eventcount of the timers' thread */
    _Atomic bool timers_asleep;
};

static struct threads *of(struct runner *r)
{
    return container_of(r, struct threads, base);
}

/* ---- futexes ---- */

static void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Until `word` is not `seen` any more, somebody wakes us, or `ns` (HEC_NS_NEVER: any time) has passed. */
static void futex_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t ns)
{
    struct timespec ts = {.tv_sec = (time_t)(ns / NS_PER_SEC), .tv_nsec = (long)(ns % NS_PER_SEC)};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, ns == HEC_NS_NEVER ? NULL : &ts, NULL, 0);
}

/* ---- the timers' thread ---- */

static void wake_timers(struct threads *r)
{
    atomic_fetch_add(&r->timers_seq, 1);
    if (atomic_load(&r->timers_asleep))
        futex_wake_all(&r->timers_seq);
}

static void timers_wait(struct threads *r, uint32_t seen, uint64_t ns)
{
    atomic_store(&r->timers_asleep, true);
    futex_wait(&r->timers_seq, seen, ns);
    atomic_store(&r->timers_asleep, false);
}

static void serve_timers(struct thread *t)
{
    struct threads *r = t->r;
    for (;;) {
        uint32_t seen = atomic_load(&r->timers_seq);
        if (atomic_load(&r->stop))
            return;
        uint64_t now = guest_clock_now(r->cfg.clock), next = timerq_next(r->cfg.timers);
        if (next > now) {
            timers_wait(r, seen, next == HEC_NS_NEVER ? next : next - now);
            continue;
        }
        epoch_enter(r->cfg.epoch, t->epoch_slot);
        timerq_run(r->cfg.timers, now);
        epoch_leave(r->cfg.epoch, t->epoch_slot);
    }
}

/* ---- a vCPU's thread ---- */

static void run_vcpu(struct thread *t)
{
    struct threads *r = t->r;
    struct cpu_run run = {.worker = t->index, .epoch_slot = t->epoch_slot, .budget = UINT64_MAX};
    while (!atomic_load(&r->stop)) {
        run.now = guest_clock_now(r->cfg.clock);
        atomic_store(&t->in_a_call, true);
        r->ops->vcpu_run(t->v, &run);
        atomic_store(&t->in_a_call, false);
        if (run.exit == CPU_EXIT_SHUTDOWN || run.exit == CPU_EXIT_ERROR) {
            r->cfg.on_exit(r->cfg.opaque, VCPU_IDX(t->index), run.exit, run.err);
            return;
        }
    }
}

static void count_out(struct thread *t)
{
    if (!t->counted)
        return;
    t->counted = false;
    if (atomic_fetch_sub(&t->r->active, 1) == 1)
        futex_wake_all(&t->r->active);
}

static void name_thread(const struct thread *t)
{
    char name[32], engine[8] = "";
    for (unsigned i = 0; i < sizeof engine - 1 && t->r->ops->name[i]; i++)
        engine[i] = (char)toupper((unsigned char)t->r->ops->name[i]);
    if (!t->v)
        snprintf(name, sizeof name, "hecaton/timers");
    else if (t->r->cfg.debug_threads)
        snprintf(name, sizeof name, "CPU %u/%s", t->index, engine);
    else
        snprintf(name, sizeof name, "hecaton/c%u", t->index);
    name[CPU_NAME_LEN - 1] = 0;
    prctl(PR_SET_NAME, name);
}

/* The thread is ending though nobody asked it to: what it held is let go, and the owner hears of it. */
static void thread_died(void *arg)
{
    struct thread *t = arg;
    struct threads *r = t->r;
    atomic_store(&t->in_a_call, false);
    epoch_leave(r->cfg.epoch, t->epoch_slot);
    atomic_fetch_add(&r->dead, 1);
    r->cfg.on_exit(r->cfg.opaque, VCPU_IDX(t->v ? t->index : 0), CPU_EXIT_ERROR,
                   t->v ? "its thread has died" : "the device timers' thread has died");
    count_out(t);
}

/* The next round, or false: the runner is being taken down. */
static bool wait_round(struct thread *t)
{
    struct threads *r = t->r;
    while (atomic_load(&r->round) == t->round)
        futex_wait(&r->round, t->round, HEC_NS_NEVER);
    t->round = atomic_load(&r->round);
    return !atomic_load(&r->quit);
}

static void *thread_main(void *arg)
{
    struct thread *t = arg;
    name_thread(t);
    pthread_cleanup_push(thread_died, t);
    while (wait_round(t)) {
        t->counted = true;
        if (t->v)
            run_vcpu(t);
        else
            serve_timers(t);
        count_out(t);
    }
    pthread_cleanup_pop(0);
    return NULL;
}

/* ---- making threads ---- */

static int make_thread(struct threads *r, uint32_t i)
{
    struct thread *t = &r->thread[i];
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);
    if (rc)
        return rc;
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    t->round = atomic_load(&r->round);
    rc = pthread_create(&t->handle, &attr, thread_main, t);
    pthread_attr_destroy(&attr);
    return rc;
}

static void end_threads(struct threads *r)
{
    atomic_store(&r->quit, true);
    atomic_fetch_add(&r->round, 1);
    futex_wake_all(&r->round);
    while (r->made)
        pthread_join(r->thread[--r->made].handle, NULL);
    atomic_store(&r->quit, false);
}

static int threads_prepare(struct runner *runner, struct err *e)
{
    struct threads *r = of(runner);
    for (; r->made <= r->cfg.vcpus; r->made++) {
        uint32_t i = r->made;
        int rc = make_thread(r, i);
        if (rc) {
            end_threads(r);
            return err_set(
                e, -rc,
                "cannot start thread %u of %u, one a vCPU: %s: raise ulimit -u, the control group's pids.max, "
                "or use fewer CPUs",
                i + 1, r->cfg.vcpus + 1, strerror(rc));
        }
    }
    return 0;
}

/* ---- rounds ---- */

static int threads_start(struct runner *runner, struct err *e)
{
    struct threads *r = of(runner);
    int rc = threads_prepare(runner, e);
    if (rc)
        return rc;
    if (atomic_load(&r->dead))
        return err_set(e, -EIO, "a thread that ran a vCPU has died, and this machine can't go on without it");
    atomic_store(&r->active, r->made);
    atomic_store(&r->stop, false);
    atomic_fetch_add(&r->round, 1);
    futex_wake_all(&r->round);
    return 0;
}

static void kick_all(struct threads *r)
{
    for (uint32_t i = 0; i < r->cfg.vcpus; i++)
        r->ops->kick(r->thread[i].v, ATTN_EXIT);
    wake_timers(r);
}

static void threads_request_stop(struct runner *runner)
{
    struct threads *r = of(runner);
    if (!atomic_exchange(&r->stop, true))
        kick_all(r);
}

static void kick_stragglers(struct threads *r)
{
    for (uint32_t i = 0; i < r->cfg.vcpus; i++)
        if (atomic_load(&r->thread[i].in_a_call))
            r->ops->kick(r->thread[i].v, ATTN_EXIT);
    wake_timers(r);
}

static void threads_stop(struct runner *runner)
{
    struct threads *r = of(runner);
    threads_request_stop(runner);
    for (uint32_t left; (left = atomic_load(&r->active));) {
        uint64_t since = clock_host_ns();
        futex_wait(&r->active, left, KICK_AGAIN);
        if (atomic_load(&r->active) == left && clock_host_ns() - since >= KICK_AGAIN)
            kick_stragglers(r);
    }
}

/* ---- any thread ---- */

static void threads_kick(struct runner *runner, vcpu_idx_t target)
{
    struct threads *r = of(runner);
    r->ops->kick(r->thread[target.i].v, ATTN_IRQ);
}

static void threads_wake(struct runner *runner)
{
    wake_timers(of(runner));
}

static void threads_stats(struct runner *runner, struct runner_stats *out)
{
    struct threads *r = of(runner);
    struct engine_stats s = {.started = 0};
    if (r->ops && r->ops->stats)
        r->ops->stats(r->vm, &s);
    *out = (struct runner_stats){.guest_ns = guest_clock_now(r->cfg.clock), .exits = s.exits, .started = s.started};
}

static void threads_trim(struct runner *runner)
{
}

static uint64_t threads_hash(const struct runner *runner)
{
    return 0;
}

/* ---- lifecycle ---- */

static void threads_attach(struct runner *runner, const struct engine_ops *ops, struct engine_vm *vm,
                           struct fabric *fabric)
{
    struct threads *r = of(runner);
    r->ops = ops;
    r->vm = vm;
    for (uint32_t i = 0; i < r->cfg.vcpus; i++)
        r->thread[i].v = ops->vcpu(vm, VCPU_IDX(i));
}

static void threads_destroy(struct runner *runner)
{
    struct threads *r = of(runner);
    end_threads(r);
    free(r->thread);
    free(r);
}

static const struct runner_ops threads_ops = {.attach = threads_attach,
                                              .destroy = threads_destroy,
                                              .prepare = threads_prepare,
                                              .start = threads_start,
                                              .stop = threads_stop,
                                              .kick = threads_kick,
                                              .wake = threads_wake,
                                              .request_stop = threads_request_stop,
                                              .stats = threads_stats,
                                              .trim = threads_trim,
                                              .hash = threads_hash};

static bool init_threads(struct threads *r)
{
    for (uint32_t i = 0; i <= r->cfg.vcpus; i++) {
        struct thread *t = &r->thread[i];
        *t = (struct thread){.r = r, .index = i, .epoch_slot = epoch_slot(r->cfg.epoch)};
        if (t->epoch_slot < 0)
            return false;
    }
    return true;
}

int runner_threads_create(const struct runner_config *c, struct runner **out, struct err *e)
{
    struct threads *r = calloc(1, sizeof *r);
    if (!r)
        return err_set(e, -ENOMEM, "out of memory for the runner");
    r->base.ops = &threads_ops;
    r->cfg = *c;
    atomic_store(&r->stop, true);
    r->thread = aligned_alloc(64, (c->vcpus + 1) * sizeof *r->thread);
    if (r->thread && init_threads(r)) {
        *out = &r->base;
        return 0;
    }
    bool memory = !r->thread;
    free(r->thread);
    free(r);
    return memory ? err_set(e, -ENOMEM, "out of memory for %u vCPUs", c->vcpus)
                  : err_set(e, -EINVAL, "%u vCPUs with a thread each: at most %u", c->vcpus, EPOCH_MAX_SLOTS);
}
