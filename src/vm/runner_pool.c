/* The pool: N vCPUs on M workers (runner.h). */
#include "vm/runner_priv.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if HEC_HOSTILE
#define QUANTUM      997u
#define QUANTUM_BUSY 211u
#else
#define QUANTUM      100000u
#define QUANTUM_BUSY 20000u
#endif
#define BUSY_QUEUE     8u                      /* runnable vCPUs a worker from which slices get short */
#define SKEW           (2 * (uint64_t)QUANTUM) /* how far one vCPU may start ahead of one that runs */
#define SLICE_MIN      1000u                   /* not shorter for a device timer's sake */
#define SPIN_NS        1280u                   /* what 32 PAUSEs cost on hardware */
#define SPIN_FREE      4u                      /* spins in a row before naps get longer */
#define SPIN_DOUBLINGS 8u                      /* longest nap: SPIN_NS << 8, a third of a millisecond */
#define SPIN_PROGRESS  2000u                   /* a slice this long was not just spinning */
#define TRIM_ROUNDS    10u                     /* rounds a vCPU stays parked before its caches go */
#define PACE_LAG       NS_PER_SEC              /* guest time an idle guest may catch up at once */

enum slot_state { SLOT_PARKED, SLOT_QUEUED, SLOT_RUNNING };

struct slot {
    struct heap_node node;  /* (l: home) in home's run heap (queued) or sleep heap (parked with a deadline) */
    struct engine_vcpu *v;  /* (c) */
    _Atomic uint32_t state; /* (a) changed under home's lock */
    _Atomic uint32_t home;  /* (a) worker index; changed under the old home's lock */
    uint64_t vtime;         /* (l, or the running worker) guest ns, or run time in ns in real time */
    uint32_t spins;         /* (l) slices in a row that ended spinning */
    uint32_t parked_at;     /* (l) round of runner_trim() in which it was parked last */
    bool trimmed;           /* (l) its caches were given back since */
    bool started;           /* (l) */
    bool dead;              /* (l) left by shutdown or error: not run again before a restart */
} __attribute__((aligned(64)));

struct worker {
    pthread_mutex_t lock;
    struct heap run, sleep;              /* (l) of slot.node */
    _Atomic uint64_t run_min, sleep_min; /* (a) their first keys */
    _Atomic uint32_t queued;             /* (a) run's length */
    _Atomic uint64_t at;                 /* (a) time at which its slice began; UINT64_MAX: idle */
    _Atomic uint64_t want;               /* (a) idle until a running vCPU reaches this; UINT64_MAX: not so */
    _Atomic(struct slot *) cur;          /* (a) */
    _Atomic uint64_t instructions;       /* (a) written by its own thread only */
    struct pool *r;                      /* (c) */
    unsigned index;                      /* (c) */
    int epoch_slot;                      /* (c) */
    pthread_t thread;
} __attribute__((aligned(64)));

struct pool {
    struct runner base;
    struct runner_config cfg;     /* (c) */
    const struct engine_ops *ops; /* (c) after attach */
    struct fabric *fabric;        /* (c) after attach */
    struct slot *slot;            /* (c) [vcpus] */
    struct worker *worker;        /* (c) [workers] */
    unsigned threads;             /* started and not yet joined; the owner's */
    atomic_bool stop;
    atomic_bool stuck;
    _Atomic uint32_t seq;  /* eventcount of the idle */
    _Atomic uint32_t idle; /* workers that wait, or are about to */
    _Atomic uint32_t started;
    _Atomic uint32_t round; /* (a) calls of runner_trim() */
    pthread_mutex_t pace_lock;
    uint64_t pace_base; /* (l: pace_lock) host ns that stands for guest time 0 */
    uint64_t hash;      /* the one worker's */
};

static struct pool *of(struct runner *r)
{
    return container_of(r, struct pool, base);
}

/* ---- the idle: an eventcount ---- */

static void wake(struct pool *r, int how_many)
{
    atomic_fetch_add(&r->seq, 1);
    if (atomic_load(&r->idle))
        syscall(SYS_futex, &r->seq, FUTEX_WAKE_PRIVATE, how_many, NULL, NULL, 0);
}

static void wait_change(struct pool *r, uint32_t seen, uint64_t ns)
{
    struct timespec ts = {.tv_sec = (time_t)(ns / NS_PER_SEC), .tv_nsec = (long)(ns % NS_PER_SEC)};
    syscall(SYS_futex, &r->seq, FUTEX_WAIT_PRIVATE, seen, ns == HEC_NS_NEVER ? NULL : &ts, NULL, 0);
}

static void pool_wake(struct runner *runner)
{
    wake(of(runner), INT_MAX);
}

/* ---- queues (under the worker's lock) ---- */

static void publish(struct worker *w)
{
    atomic_store(&w->run_min, heap_min_key(&w->run));
    atomic_store(&w->sleep_min, heap_min_key(&w->sleep));
    atomic_store(&w->queued, w->run.n);
}

static void enqueue_locked(struct worker *w, struct slot *s)
{
    atomic_store(&s->state, SLOT_QUEUED);
    heap_push(&w->run, &s->node, s->vtime);
    publish(w);
}

/* ---- time ---- */

static bool is_real(const struct pool *r)
{
    return r->cfg.clock->real;
}

/* The earliest slice under way on a worker other than `but` (NULL: on any); UINT64_MAX if none. */
static uint64_t running_floor(const struct pool *r, const struct worker *but)
{
    uint64_t floor = UINT64_MAX;
    for (unsigned i = 0; i < r->cfg.workers; i++)
        if (&r->worker[i] != but)
            floor = min_u64(floor, atomic_load(&r->worker[i].at));
    return floor;
}

/* The time a vCPU that wakes up now starts at, unless its own is later: that of the earliest runnable one. */
static uint64_t wake_time(struct pool *r, struct worker *home)
{
    if (is_real(r))
        return home->run.n ? heap_min_key(&home->run) : 0;
    uint64_t floor = running_floor(r, NULL);
    for (unsigned i = 0; i < r->cfg.workers; i++)
        floor = min_u64(floor, atomic_load(&r->worker[i].run_min));
    return floor == UINT64_MAX ? guest_clock_now(r->cfg.clock) : floor;
}

/* ---- kicks ---- */

static void unpark_locked(struct pool *r, struct worker *home, struct slot *s)
{
    if (heap_holds(&s->node))
        heap_remove(&home->sleep, &s->node);
    s->vtime = max_u64(s->vtime, wake_time(r, home));
    s->trimmed = false;
    enqueue_locked(home, s);
}

/* Lock the home of `s`, which may move until it is locked. */
static struct worker *lock_home(struct pool *r, struct slot *s)
{
    for (;;) {
        struct worker *home = &r->worker[atomic_load(&s->home)];
        pthread_mutex_lock(&home->lock);
        if (home == &r->worker[atomic_load(&s->home)])
            return home;
        pthread_mutex_unlock(&home->lock);
    }
}

static void pool_kick(struct runner *runner, vcpu_idx_t target)
{
    struct pool *r = of(runner);
    struct slot *s = &r->slot[target.i];
    if (!s->v)
        return;
    r->ops->kick(s->v, ATTN_IRQ);
    if (atomic_load(&s->state) != SLOT_PARKED)
        return;
    struct worker *home = lock_home(r, s);
    bool parked = atomic_load(&s->state) == SLOT_PARKED && !s->dead;
    if (parked)
        unpark_locked(r, home, s);
    pthread_mutex_unlock(&home->lock);
    if (parked)
        wake(r, 1);
}

/* ---- picking ---- */

struct candidate {
    uint64_t key;
    struct worker *from; /* NULL: nobody */
    bool asleep;
};

/* The earliest of all queued and sleeping vCPUs; the worker's own wins a tie. Real time: a sleeper counts only once it
 * is due, and then goes first. */
static struct candidate best_candidate(struct pool *r, struct worker *w, uint64_t now)
{
    struct candidate best = {.key = UINT64_MAX};
    for (unsigned i = 0; i < r->cfg.workers; i++) {
        struct worker *from = &r->worker[(w->index + i) % r->cfg.workers];
        uint64_t run = atomic_load(&from->run_min), sleep = atomic_load(&from->sleep_min);
        if (is_real(r) && sleep <= now)
            return (struct candidate){.from = from, .asleep = true};
        if (run < best.key)
            best = (struct candidate){.key = run, .from = from};
        if (!is_real(r) && sleep < best.key)
            best = (struct candidate){.key = sleep, .from = from, .asleep = true};
    }
    return best;
}

/* Take what `c` promised, if it is still there. The slice's start is published before the slot leaves the heap, so that
 * nobody sees a machine with less to do than it has. */
static struct slot *take(struct pool *r, struct worker *w, const struct candidate *c)
{
    struct slot *s = NULL;
    pthread_mutex_lock(&c->from->lock);
    struct heap *h = c->asleep ? &c->from->sleep : &c->from->run;
    if (h->n && (is_real(r) || heap_min_key(h) <= c->key)) {
        s = container_of(heap_min(h), struct slot, node);
        s->vtime = max_u64(s->vtime, is_real(r) ? wake_time(r, c->from) : s->node.key);
        atomic_store(&w->at, is_real(r) ? 0 : s->vtime);
        heap_remove(h, &s->node);
        publish(c->from);
        atomic_store(&s->state, SLOT_RUNNING);
        atomic_store(&s->home, w->index);
    }
    pthread_mutex_unlock(&c->from->lock);
    return s;
}

/* Host ns to wait before an all-idle guest may jump to `target`; 0: go. */
static uint64_t pace_wait(struct pool *r, uint64_t target)
{
    if (!r->cfg.pace)
        return 0;
    pthread_mutex_lock(&r->pace_lock);
    uint64_t wall = clock_host_ns() - r->pace_base;
    if (wall > target + PACE_LAG) {
        r->pace_base += wall - target - PACE_LAG;
        wall = target + PACE_LAG;
    }
    pthread_mutex_unlock(&r->pace_lock);
    return wall >= target ? 0 : target - wall;
}

/* While a paced guest waits its time follows the wall clock, up to the next thing due. */
static void follow_wall(struct pool *r, uint64_t next)
{
    pthread_mutex_lock(&r->pace_lock);
    uint64_t wall = clock_host_ns() - r->pace_base;
    pthread_mutex_unlock(&r->pace_lock);
    if (running_floor(r, NULL) == UINT64_MAX)
        guest_clock_reach(r->cfg.clock, min_u64(wall, next));
}

/* How long there is nothing to do but wait, in host ns; 0: go on, HEC_NS_NEVER: until woken. */
static uint64_t virtual_wait(struct pool *r, struct worker *w, const struct candidate *c)
{
    uint64_t next = min_u64(c->key, timerq_next(r->cfg.timers));
    uint64_t floor = running_floor(r, w);
    if (next == UINT64_MAX) {
        atomic_store(&r->stuck, floor == UINT64_MAX);
        return HEC_NS_NEVER;
    }
    if (floor != UINT64_MAX && next > floor + SKEW) {
        atomic_store(&w->want, next - SKEW);
        return running_floor(r, w) == floor ? HEC_NS_NEVER : 1;
    }
    if (floor != UINT64_MAX || next <= guest_clock_now(r->cfg.clock))
        return 0;
    return pace_wait(r, next);
}

static uint64_t real_wait(struct pool *r, const struct candidate *c, uint64_t now)
{
    uint64_t next = timerq_next(r->cfg.timers);
    if (c->from || next <= now)
        return 0;
    for (unsigned i = 0; i < r->cfg.workers; i++)
        next = min_u64(next, atomic_load(&r->worker[i].sleep_min));
    atomic_store(&r->stuck, next == HEC_NS_NEVER && running_floor(r, NULL) == UINT64_MAX);
    return next == HEC_NS_NEVER ? next : next > now ? next - now : 1;
}

/* Wait as the idle do. The state that said so was read after `seen`, so any change since then ends the wait at once. */
static void wait_idle(struct pool *r, struct worker *w, uint32_t seen, uint64_t ns)
{
    atomic_fetch_add(&r->idle, 1);
    if (!atomic_load(&r->stop))
        wait_change(r, seen, ns);
    atomic_fetch_sub(&r->idle, 1);
    atomic_store(&w->want, UINT64_MAX);
}

/* Device timers go before the vCPU that would run at the same instant. True: some ran, look again. */
static bool run_timers(struct pool *r, struct worker *w, const struct candidate *c, uint64_t now)
{
    uint64_t next = timerq_next(r->cfg.timers);
    if (!is_real(r)) {
        if (next > c->key || next == HEC_NS_NEVER)
            return false;
        now = guest_clock_reach(r->cfg.clock, next);
    }
    epoch_enter(r->cfg.epoch, w->epoch_slot);
    unsigned ran = timerq_run(r->cfg.timers, now);
    epoch_leave(r->cfg.epoch, w->epoch_slot);
    return ran > 0;
}

/* The next vCPU to run, or NULL when the machine stops. Sleeps while there is none. */
static struct slot *pick(struct worker *w)
{
    struct pool *r = w->r;
    struct slot *s = NULL;
    atomic_store(&w->at, UINT64_MAX);
    while (!s && !atomic_load(&r->stop)) {
        uint32_t seen = atomic_load(&r->seq);
        uint64_t now = guest_clock_now(r->cfg.clock);
        struct candidate c = best_candidate(r, w, now);
        uint64_t ns = is_real(r) ? real_wait(r, &c, now) : virtual_wait(r, w, &c);
        if (ns) {
            wait_idle(r, w, seen, ns);
            if (r->cfg.pace)
                follow_wall(r, min_u64(c.key, timerq_next(r->cfg.timers)));
        } else if (!run_timers(r, w, &c, now) && c.from) {
            s = take(r, w, &c);
        }
    }
    return s;
}

/* ---- after a slice ---- */

/* Keep the vCPU until it is kicked or `deadline` (guest ns) comes. */
static void park(struct pool *r, struct worker *w, struct slot *s, uint64_t deadline)
{
    pthread_mutex_lock(&w->lock);
    if (deadline != HEC_NS_NEVER) {
        heap_push(&w->sleep, &s->node, deadline);
        publish(w);
    }
    s->parked_at = atomic_load_explicit(&r->round, memory_order_relaxed);
    s->trimmed = false;
    atomic_store(&s->state, SLOT_PARKED);
    if (r->ops->attn(s->v) & ATTN_IRQ)
        unpark_locked(r, w, s);
    pthread_mutex_unlock(&w->lock);
}

static void requeue(struct worker *w, struct slot *s)
{
    pthread_mutex_lock(&w->lock);
    enqueue_locked(w, s);
    pthread_mutex_unlock(&w->lock);
}

static void retire(struct pool *r, struct worker *w, struct slot *s, const struct cpu_run *run)
{
    pthread_mutex_lock(&w->lock);
    s->dead = true;
    atomic_store(&s->state, SLOT_PARKED);
    pthread_mutex_unlock(&w->lock);
    r->cfg.on_exit(r->cfg.opaque, VCPU_IDX(s - r->slot), run->exit, run->err);
}

/* Let `to` have its turn before `s`, if it waits for one. */
static void go_behind(struct pool *r, struct slot *s, struct slot *to)
{
    if (to == s || atomic_load(&to->state) != SLOT_QUEUED)
        return;
    struct worker *home = lock_home(r, to);
    if (atomic_load(&to->state) == SLOT_QUEUED)
        s->vtime = max_u64(s->vtime, to->vtime + 1);
    pthread_mutex_unlock(&home->lock);
}

/* A spinner waits for somebody else's doing. In virtual time it naps, the longer the longer it has spun, at most a good
 * part of what it has waited already: hundreds of CPUs that spin while one works would otherwise cost hundreds of times
 * that one's work. A kick ends the nap. In real time it only lets others go first. */
static void spin(struct pool *r, struct worker *w, struct slot *s, const struct cpu_run *run)
{
    unsigned doublings = s->spins < SPIN_FREE ? 0 : (s->spins - SPIN_FREE) / 2;
    s->spins = run->used > SPIN_PROGRESS ? 0 : s->spins + 1;
    if (is_real(r)) {
        s->vtime += SPIN_NS;
        if (run->has_yield_to)
            go_behind(r, s, &r->slot[run->yield_to.i]);
        requeue(w, s);
        return;
    }
    uint64_t nap = SPIN_NS << (doublings < SPIN_DOUBLINGS ? doublings : SPIN_DOUBLINGS);
    park(r, w, s, min_u64(s->vtime + nap, fabric_timer_deadline(r->fabric, VCPU_IDX(s - r->slot))));
}

/* FNV-1a over what the slice did. */
static void hash_slice(struct pool *r, const struct slot *s, const struct cpu_run *run)
{
    uint64_t word[4] = {(uint64_t)(s - r->slot), run->now, run->used, run->exit};
    for (unsigned i = 0; i < ARRAY_SIZE(word); i++)
        r->hash = (r->hash ^ word[i]) * UINT64_C(0x100000001b3);
}

static void account(struct pool *r, struct worker *w, struct slot *s, const struct cpu_run *run)
{
    s->vtime = (is_real(r) ? s->vtime : run->now) + run->used;
    atomic_store_explicit(&w->instructions, w->instructions + run->used, memory_order_relaxed);
    if (unlikely(!s->started && run->used)) {
        s->started = true;
        atomic_fetch_add(&r->started, 1);
    }
    if (r->cfg.hash)
        hash_slice(r, s, run);
}

static void settle(struct pool *r, struct worker *w, struct slot *s, const struct cpu_run *run)
{
    if (run->exit != CPU_EXIT_SPIN)
        s->spins = 0;
    uint64_t deadline = fabric_timer_deadline(r->fabric, VCPU_IDX(s - r->slot));
    switch (run->exit) {
    case CPU_EXIT_BUDGET:
    case CPU_EXIT_KICKED:
        requeue(w, s);
        break;
    case CPU_EXIT_SPIN:
        spin(r, w, s, run);
        break;
    case CPU_EXIT_HALT:
        park(r, w, s, deadline);
        break;
    case CPU_EXIT_TPAUSE:
        park(r, w, s, min_u64(run->until, deadline));
        break;
    case CPU_EXIT_SHUTDOWN:
    case CPU_EXIT_ERROR:
        retire(r, w, s, run);
        break;
    }
}

/* ---- a slice ---- */

static uint64_t slice_length(struct pool *r, struct worker *w, uint64_t now)
{
    uint64_t q = atomic_load(&w->queued) > BUSY_QUEUE ? QUANTUM_BUSY : QUANTUM;
    uint64_t next = timerq_next(r->cfg.timers);
    if (next != HEC_NS_NEVER && next < now + q)
        q = next > now + SLICE_MIN ? next - now : SLICE_MIN;
    return q;
}

/* Wake workers that wait for this one's time to come up to theirs. */
static void let_others_catch_up(struct pool *r, uint64_t now)
{
    for (unsigned i = 0; i < r->cfg.workers; i++)
        if (atomic_load(&r->worker[i].want) <= now) {
            wake(r, INT_MAX);
            return;
        }
}

static void execute(struct pool *r, struct worker *w, struct slot *s, struct cpu_run *run)
{
    atomic_store(&w->cur, s);
    if (atomic_load(&r->stop)) {
        run->exit = CPU_EXIT_KICKED;
    } else {
        epoch_enter(r->cfg.epoch, w->epoch_slot);
        r->ops->vcpu_run(s->v, run);
        epoch_leave(r->cfg.epoch, w->epoch_slot);
    }
    atomic_store(&w->cur, NULL);
}

static void run_slot(struct worker *w, struct slot *s)
{
    struct pool *r = w->r;
    struct cpu_run run = {.worker = w->index, .now = is_real(r) ? guest_clock_now(r->cfg.clock) : s->vtime};
    atomic_store(&r->stuck, false);
    if (!is_real(r) && atomic_load(&r->idle))
        let_others_catch_up(r, run.now);
    run.budget = slice_length(r, w, run.now);
    execute(r, w, s, &run);
    account(r, w, s, &run);
    settle(r, w, s, &run);
}

/* By the thread itself: naming another one means writing to a file, which a sandbox may not let us do. */
static void name_worker(const struct worker *w)
{
    char name[16];
    const char *prefix = w->r->cfg.thread_name;
    snprintf(name, sizeof name, "%.10s/w%u", prefix ? prefix : "hecaton", w->index);
    prctl(PR_SET_NAME, name);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    name_worker(w);
    for (struct slot *s; (s = pick(w));)
        run_slot(w, s);
    atomic_store(&w->at, UINT64_MAX);
    return NULL;
}

/* ---- lifecycle ---- */

static int worker_init(struct pool *r, unsigned i)
{
    struct worker *w = &r->worker[i];
    w->r = r;
    w->index = i;
    w->epoch_slot = epoch_slot(r->cfg.epoch);
    pthread_mutex_init(&w->lock, NULL);
    atomic_store(&w->at, UINT64_MAX);
    atomic_store(&w->want, UINT64_MAX);
    if (w->epoch_slot < 0 || heap_init(&w->run, r->cfg.vcpus) || heap_init(&w->sleep, r->cfg.vcpus))
        return -ENOMEM;
    publish(w);
    return 0;
}

static void pool_destroy(struct runner *runner)
{
    struct pool *r = of(runner);
    for (unsigned i = 0; r->slot && r->worker && i < r->cfg.workers; i++) {
        heap_fini(&r->worker[i].run);
        heap_fini(&r->worker[i].sleep);
        pthread_mutex_destroy(&r->worker[i].lock);
    }
    pthread_mutex_destroy(&r->pace_lock);
    free(r->worker);
    free(r->slot);
    free(r);
}

static void pool_attach(struct runner *runner, const struct engine_ops *ops, struct engine_vm *vm,
                        struct fabric *fabric)
{
    struct pool *r = of(runner);
    r->ops = ops;
    r->fabric = fabric;
    for (uint32_t i = 0; i < r->cfg.vcpus; i++) {
        struct slot *s = &r->slot[i];
        s->node.pos = -1;
        atomic_store(&s->home, i % r->cfg.workers);
        s->v = ops->vcpu(vm, VCPU_IDX(i));
    }
}

/* Queue everybody: a vCPU that has nothing to do parks itself in its first slice. */
static void queue_all(struct pool *r)
{
    for (uint32_t i = 0; i < r->cfg.vcpus; i++) {
        struct slot *s = &r->slot[i];
        struct worker *home = lock_home(r, s);
        s->dead = false;
        if (atomic_load(&s->state) == SLOT_PARKED)
            unpark_locked(r, home, s);
        pthread_mutex_unlock(&home->lock);
    }
}

static void pool_request_stop(struct runner *runner)
{
    struct pool *r = of(runner);
    atomic_store(&r->stop, true);
    for (unsigned i = 0; i < r->cfg.workers; i++) {
        struct slot *s = atomic_load(&r->worker[i].cur);
        if (s)
            r->ops->kick(s->v, ATTN_EXIT);
    }
    wake(r, INT_MAX);
}

static void pool_stop(struct runner *runner)
{
    struct pool *r = of(runner);
    pool_request_stop(runner);
    while (r->threads)
        pthread_join(r->worker[--r->threads].thread, NULL);
}

/* Workers are few: they are made by each start, and joined by each stop. */
static int pool_prepare(struct runner *runner, struct err *e)
{
    return 0;
}

static int pool_start(struct runner *runner, struct err *e)
{
    struct pool *r = of(runner);
    atomic_store(&r->stop, false);
    queue_all(r);
    for (; r->threads < r->cfg.workers; r->threads++) {
        unsigned i = r->threads;
        int rc = pthread_create(&r->worker[i].thread, NULL, worker_main, &r->worker[i]);
        if (rc) {
            pool_stop(runner);
            return err_set(e, -rc, "cannot start worker thread %u: %s", i, strerror(rc));
        }
    }
    return 0;
}

static void pool_stats(struct runner *runner, struct runner_stats *out)
{
    struct pool *r = of(runner);
    *out = (struct runner_stats){.guest_ns = guest_clock_now(r->cfg.clock),
                                 .started = atomic_load(&r->started),
                                 .stuck = atomic_load(&r->stuck)};
    for (unsigned i = 0; i < r->cfg.workers; i++)
        out->instructions += atomic_load(&r->worker[i].instructions);
}

static void pool_trim(struct runner *runner)
{
    struct pool *r = of(runner);
    uint32_t round = atomic_fetch_add(&r->round, 1);
    for (uint32_t i = 0; i < r->cfg.vcpus; i++) {
        struct slot *s = &r->slot[i];
        if (atomic_load(&s->state) != SLOT_PARKED)
            continue;
        struct worker *home = lock_home(r, s);
        if (atomic_load(&s->state) == SLOT_PARKED && !s->trimmed && round - s->parked_at >= TRIM_ROUNDS) {
            r->ops->vcpu_trim(s->v);
            s->trimmed = true;
        }
        pthread_mutex_unlock(&home->lock);
    }
}

static uint64_t pool_hash(const struct runner *runner)
{
    return container_of(runner, const struct pool, base)->hash;
}

static const struct runner_ops pool_ops = {.attach = pool_attach,
                                           .destroy = pool_destroy,
                                           .prepare = pool_prepare,
                                           .start = pool_start,
                                           .stop = pool_stop,
                                           .kick = pool_kick,
                                           .wake = pool_wake,
                                           .request_stop = pool_request_stop,
                                           .stats = pool_stats,
                                           .trim = pool_trim,
                                           .hash = pool_hash};

int runner_pool_create(const struct runner_config *c, struct runner **out, struct err *e)
{
    struct pool *r = calloc(1, sizeof *r);
    if (!r)
        return err_set(e, -ENOMEM, "out of memory for the runner");
    r->base.ops = &pool_ops;
    r->cfg = *c;
    r->hash = UINT64_C(0xcbf29ce484222325);
    r->pace_base = clock_host_ns();
    pthread_mutex_init(&r->pace_lock, NULL);
    r->slot = aligned_alloc(64, c->vcpus * sizeof *r->slot);
    r->worker = aligned_alloc(64, c->workers * sizeof *r->worker);
    if (!r->slot || !r->worker)
        goto fail;
    memset(r->slot, 0, c->vcpus * sizeof *r->slot);
    memset(r->worker, 0, c->workers * sizeof *r->worker);
    for (unsigned i = 0; i < c->workers; i++)
        if (worker_init(r, i))
            goto fail;
    *out = &r->base;
    return 0;
fail:
    pool_destroy(&r->base);
    return err_set(e, -ENOMEM, "out of memory for %u workers and %u vCPUs", c->workers, c->vcpus);
}
