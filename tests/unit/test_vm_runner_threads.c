/* A thread a vCPU, against an engine that only pretends: it waits for kicks as one that sits in the host's kernel. */
#include "vm/runner.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#define CPUS 67u

struct engine_vcpu {
    struct engine_vm *vm;
    unsigned i;
    _Atomic unsigned attn; /* (l) */
    pthread_mutex_t lock;
    pthread_cond_t kicked;
    unsigned deaf;         /* (l) kicks that are lost on the way */
    unsigned mail;         /* (l) */
    _Atomic unsigned runs; /* calls of vcpu_run() */
    _Atomic int tid;
    char name[17];
    uint64_t rng;
};

struct engine_vm {
    struct engine_vcpu cpu[CPUS];
    void (*script)(struct engine_vcpu *v, struct cpu_run *run);
    struct rig *rig;
    _Atomic uint64_t hops;
    uint64_t hop_limit;
};

struct rig {
    struct guest_clock clock;
    struct timerq timers;
    struct epoch epoch;
    struct runner *r;
    struct engine_vm vm;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned done;  /* (l) */
    unsigned exits; /* (l) calls of on_exit */
    uint32_t exit_cpu;
    enum cpu_exit_kind exit_kind;
    char exit_why[64];
};

/* ---- which pthread_create() fails: 1 is the next, 0 none ---- */

static atomic_long fuse;
int __real_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg);

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg)
{
    if (atomic_load(&fuse) > 0 && atomic_fetch_sub(&fuse, 1) == 1)
        return EAGAIN;
    return __real_pthread_create(t, a, fn, arg);
}

/* ---- the engine ---- */

static unsigned mock_attn(const struct engine_vcpu *v)
{
    return atomic_load(&v->attn);
}

static void mock_kick(struct engine_vcpu *v, unsigned attn)
{
    pthread_mutex_lock(&v->lock);
    if (v->deaf)
        v->deaf--;
    else
        v->attn |= attn;
    pthread_cond_signal(&v->kicked);
    pthread_mutex_unlock(&v->lock);
}

/* As a halted vCPU in the host's kernel: until it is kicked. */
static unsigned sleep_until_kicked(struct engine_vcpu *v)
{
    pthread_mutex_lock(&v->lock);
    while (!v->attn)
        pthread_cond_wait(&v->kicked, &v->lock);
    unsigned attn = v->attn;
    v->attn = 0;
    pthread_mutex_unlock(&v->lock);
    return attn;
}

static void mock_run(struct engine_vcpu *v, struct cpu_run *run)
{
    atomic_store(&v->tid, (int)syscall(SYS_gettid));
    prctl(PR_GET_NAME, v->name);
    atomic_fetch_add(&v->runs, 1);
    v->vm->script(v, run);
}

static struct engine_vcpu *mock_vcpu(struct engine_vm *vm, vcpu_idx_t i)
{
    return &vm->cpu[i.i];
}

static void mock_stats(struct engine_vm *vm, struct engine_stats *out)
{
    *out = (struct engine_stats){.started = 5};
}

static const struct engine_ops mock = {.name = "mock",
                                       .traits = ENGINE_OWN_APICS | ENGINE_OWN_THREADS,
                                       .vcpu = mock_vcpu,
                                       .kick = mock_kick,
                                       .attn = mock_attn,
                                       .vcpu_run = mock_run,
                                       .stats = mock_stats};

/* ---- the rig ---- */

static void on_exit_note(void *opaque, vcpu_idx_t cpu, enum cpu_exit_kind kind, const char *why)
{
    struct rig *g = opaque;
    pthread_mutex_lock(&g->lock);
    g->exits++;
    g->exit_cpu = cpu.i;
    g->exit_kind = kind;
    snprintf(g->exit_why, sizeof g->exit_why, "%s", why ? why : "");
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

static struct rig *rig_new(void (*script)(struct engine_vcpu *, struct cpu_run *))
{
    struct rig *g = calloc(1, sizeof *g);
    struct err e = {{0}};
    assert_non_null(g);
    for (unsigned i = 0; i < CPUS; i++) {
        g->vm.cpu[i] = (struct engine_vcpu){.vm = &g->vm, .i = i, .rng = i + 1};
        pthread_mutex_init(&g->vm.cpu[i].lock, NULL);
        pthread_cond_init(&g->vm.cpu[i].kicked, NULL);
    }
    g->vm.script = script;
    g->vm.rig = g;
    g->clock = (struct guest_clock){.real = true, .host_base = clock_host_ns()};
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
    epoch_init(&g->epoch);
    assert_int_equal(timerq_init(&g->timers, 4), 0);
    struct runner_config rc = {.vcpus = CPUS,
                               .own_threads = true,
                               .clock = &g->clock,
                               .timers = &g->timers,
                               .epoch = &g->epoch,
                               .debug_threads = true,
                               .on_exit = on_exit_note,
                               .opaque = g};
    assert_int_equal(runner_create(&rc, &g->r, &e), 0);
    g->timers.earlier = runner_wake;
    g->timers.earlier_opaque = g->r;
    runner_attach(g->r, &mock, &g->vm, NULL);
    return g;
}

static void rig_free(struct rig *g)
{
    runner_stop(g->r);
    runner_destroy(g->r);
    timerq_fini(&g->timers);
    epoch_fini(&g->epoch);
    free(g);
}

static void start(struct rig *g)
{
    struct err e = {{0}};
    assert_int_equal(runner_start(g->r, &e), 0);
}

static void note(struct rig *g, unsigned *what)
{
    pthread_mutex_lock(&g->lock);
    ++*what;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

static void wait_for(struct rig *g, const unsigned *what, unsigned n)
{
    pthread_mutex_lock(&g->lock);
    while (*what < n)
        pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

/* ---- rounds ---- */

static void say_and_sleep(struct engine_vcpu *v, struct cpu_run *run)
{
    note(v->vm->rig, &v->vm->rig->done);
    sleep_until_kicked(v);
    run->exit = CPU_EXIT_KICKED;
}

static void each_has_its_own_thread_for_good(void **state)
{
    struct rig *g = rig_new(say_and_sleep);
    int tid[CPUS];
    for (unsigned round = 1; round <= 20; round++) {
        start(g);
        wait_for(g, &g->done, CPUS * round);
        runner_stop(g->r);
        assert_int_equal(g->done, CPUS * round);
        for (unsigned i = 0; i < CPUS; i++) {
            if (round == 1)
                tid[i] = g->vm.cpu[i].tid;
            assert_int_equal(tid[i], g->vm.cpu[i].tid);
            for (unsigned k = 0; k < i; k++)
                assert_int_not_equal(tid[i], tid[k]);
        }
    }
    assert_string_equal(g->vm.cpu[12].name, "CPU 12/MOCK");
    runner_stop(g->r);
    struct runner_stats s;
    runner_stats(g->r, &s);
    assert_int_equal(s.started, 5);
    rig_free(g);
}

/* A stop may overtake threads that have not even woken up. */
static void stops_before_anybody_ran(void **state)
{
    struct rig *g = rig_new(say_and_sleep);
    struct err e = {{0}};
    assert_int_equal(runner_prepare(g->r, &e), 0);
    for (unsigned i = 0; i < 200; i++) {
        start(g);
        runner_stop(g->r);
        unsigned seen = g->done;
        sched_yield();
        assert_int_equal(g->done, seen);
    }
    assert_int_equal(g->exits, 0);
    rig_free(g);
}

static void never_started_is_no_trouble(void **state)
{
    struct rig *g = rig_new(say_and_sleep);
    runner_request_stop(g->r);
    rig_free(g);
    g = rig_new(say_and_sleep);
    struct err e = {{0}};
    assert_int_equal(runner_prepare(g->r, &e), 0);
    assert_int_equal(runner_prepare(g->r, &e), 0);
    assert_int_equal(g->done, 0);
    rig_free(g);
}

/* A vCPU that asks for the stop itself is stopped like the others. */
static void ask_and_go_on(struct engine_vcpu *v, struct cpu_run *run)
{
    if (v->i == 7) {
        runner_request_stop(v->vm->rig->r);
        note(v->vm->rig, &v->vm->rig->done);
    }
    sleep_until_kicked(v);
    run->exit = CPU_EXIT_KICKED;
}

static void a_vcpu_may_ask_for_the_stop(void **state)
{
    struct rig *g = rig_new(ask_and_go_on);
    start(g);
    wait_for(g, &g->done, 1);
    runner_stop(g->r);
    assert_int_equal(g->vm.cpu[7].runs, 1);
    rig_free(g);
}

/* The first kicks of some are lost, as a signal that finds its thread just outside: the stop asks again. */
static void a_lost_kick_only_delays_a_stop(void **state)
{
    struct rig *g = rig_new(say_and_sleep);
    g->vm.cpu[3].deaf = 1;
    g->vm.cpu[CPUS - 1].deaf = 2;
    start(g);
    wait_for(g, &g->done, CPUS);
    runner_stop(g->r);
    assert_int_equal(g->vm.cpu[CPUS - 1].deaf, 0);
    rig_free(g);
}

/* ---- kicks ---- */

static uint64_t next_random(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* Pass every letter on to somebody else. */
static void pass_mail(struct engine_vcpu *v, struct cpu_run *run)
{
    struct engine_vm *vm = v->vm;
    run->exit = CPU_EXIT_KICKED;
    while (!(sleep_until_kicked(v) & ATTN_EXIT)) {
        pthread_mutex_lock(&v->lock);
        unsigned letters = v->mail;
        v->mail = 0;
        pthread_mutex_unlock(&v->lock);
        while (letters--) {
            if (atomic_fetch_add(&vm->hops, 1) == vm->hop_limit)
                note(vm->rig, &vm->rig->done);
            struct engine_vcpu *to = &vm->cpu[next_random(&v->rng) % CPUS];
            pthread_mutex_lock(&to->lock);
            to->mail++;
            pthread_mutex_unlock(&to->lock);
            runner_kick(vm->rig->r, VCPU_IDX(to->i));
        }
    }
}

static void kicks_reach_their_vcpu(void **state)
{
    struct rig *g = rig_new(pass_mail);
    g->vm.hop_limit = 5000;
    start(g);
    for (unsigned i = 0; i < 5; i++) {
        pthread_mutex_lock(&g->vm.cpu[i].lock);
        g->vm.cpu[i].mail = 1;
        pthread_mutex_unlock(&g->vm.cpu[i].lock);
        runner_kick(g->r, VCPU_IDX(i));
    }
    wait_for(g, &g->done, 1);
    runner_stop(g->r);
    rig_free(g);
}

/* ---- device timers ---- */

static void on_timer(void *opaque, uint64_t now)
{
    struct rig *g = opaque;
    note(g, &g->done);
}

static void sleep_only(struct engine_vcpu *v, struct cpu_run *run)
{
    sleep_until_kicked(v);
    run->exit = CPU_EXIT_KICKED;
}

static void timers_have_a_thread(void **state)
{
    struct rig *g = rig_new(sleep_only);
    struct timer t, late;
    timer_init(&t, on_timer, g);
    timer_init(&late, on_timer, g);
    timer_arm(&g->timers, &late, guest_clock_now(&g->clock) + 3600 * NS_PER_SEC);
    start(g);
    for (unsigned i = 1; i <= 20; i++) {
        timer_arm(&g->timers, &t, guest_clock_now(&g->clock) + 200000);
        wait_for(g, &g->done, i);
    }
    /* Stopped, nothing is served; what is due comes with the next start. */
    runner_stop(g->r);
    timer_arm(&g->timers, &t, 1);
    sched_yield();
    assert_int_equal(g->done, 20);
    start(g);
    wait_for(g, &g->done, 21);
    assert_int_equal(timerq_next(&g->timers), late.node.key);
    rig_free(g);
}

/* ---- ends ---- */

static void cpu_9_ends(struct engine_vcpu *v, struct cpu_run *run)
{
    run->exit = CPU_EXIT_KICKED;
    if (v->i == 9) {
        run->exit = CPU_EXIT_SHUTDOWN;
        return;
    }
    sleep_until_kicked(v);
}

static void a_triple_fault_is_told_once_a_round(void **state)
{
    struct rig *g = rig_new(cpu_9_ends);
    for (unsigned i = 1; i <= 3; i++) {
        start(g);
        wait_for(g, &g->exits, i);
        runner_stop(g->r);
        assert_int_equal(g->exits, i);
        assert_int_equal(g->exit_cpu, 9);
        assert_int_equal(g->exit_kind, CPU_EXIT_SHUTDOWN);
        assert_int_equal(g->vm.cpu[9].runs, i);
    }
    rig_free(g);
}

static void cpu_9_fails(struct engine_vcpu *v, struct cpu_run *run)
{
    run->exit = CPU_EXIT_KICKED;
    if (v->i == 9) {
        run->exit = CPU_EXIT_ERROR;
        run->err = "KVM_RUN: out of luck";
        return;
    }
    sleep_until_kicked(v);
}

static void a_failure_is_told_with_its_reason(void **state)
{
    struct rig *g = rig_new(cpu_9_fails);
    start(g);
    wait_for(g, &g->exits, 1);
    runner_stop(g->r);
    assert_int_equal(g->exit_kind, CPU_EXIT_ERROR);
    assert_string_equal(g->exit_why, "KVM_RUN: out of luck");
    rig_free(g);
}

/* Inside the epoch, as in the middle of an access to a device. */
static void cpu_9_dies(struct engine_vcpu *v, struct cpu_run *run)
{
    run->exit = CPU_EXIT_KICKED;
    if (v->i == 9) {
        epoch_enter(&v->vm->rig->epoch, run->epoch_slot);
        pthread_exit(NULL);
    }
    sleep_until_kicked(v);
}

static void bury(void *p)
{
    *(unsigned *)p = 1;
}

static void a_dead_thread_is_reported_and_holds_up_nobody(void **state)
{
    struct rig *g = rig_new(cpu_9_dies);
    struct err e = {{0}};
    struct epoch_node node;
    unsigned buried = 0;
    start(g);
    wait_for(g, &g->exits, 1);
    runner_stop(g->r);
    assert_int_equal(g->exit_cpu, 9);
    assert_int_equal(g->exit_kind, CPU_EXIT_ERROR);
    assert_non_null(strstr(g->exit_why, "died"));
    epoch_retire(&g->epoch, &node, &buried, bury);
    assert_int_equal(buried, 1);
    assert_int_equal(runner_start(g->r, &e), -EIO);
    assert_non_null(strstr(e.msg, "died"));
    rig_free(g);
}

static void no_thread_for_the_kth_vcpu(void **state)
{
    static const long at[] = {1, 2, CPUS / 2, CPUS, CPUS + 1};
    for (unsigned i = 0; i < sizeof at / sizeof at[0]; i++) {
        struct rig *g = rig_new(say_and_sleep);
        struct err e = {{0}};
        atomic_store(&fuse, at[i]);
        assert_int_equal(i % 2 ? runner_prepare(g->r, &e) : runner_start(g->r, &e), -EAGAIN);
        assert_int_equal(atomic_load(&fuse), 0);
        assert_non_null(strstr(e.msg, "ulimit -u"));
        runner_stop(g->r);
        assert_int_equal(g->done, 0);
        start(g); /* the host has recovered */
        wait_for(g, &g->done, CPUS);
        rig_free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_has_its_own_thread_for_good),
        cmocka_unit_test(stops_before_anybody_ran),
        cmocka_unit_test(never_started_is_no_trouble),
        cmocka_unit_test(a_vcpu_may_ask_for_the_stop),
        cmocka_unit_test(a_lost_kick_only_delays_a_stop),
        cmocka_unit_test(kicks_reach_their_vcpu),
        cmocka_unit_test(timers_have_a_thread),
        cmocka_unit_test(a_triple_fault_is_told_once_a_round),
        cmocka_unit_test(a_failure_is_told_with_its_reason),
        cmocka_unit_test(a_dead_thread_is_reported_and_holds_up_nobody),
        cmocka_unit_test(no_thread_for_the_kth_vcpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
