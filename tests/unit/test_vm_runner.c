/* The runner against an engine that only pretends: vCPUs are small scripts, so every wake-up and every instant is
 * known. */
#include "vm/runner.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define CPUS 37u

struct engine_vcpu {
    _Atomic unsigned attn;
    _Atomic unsigned mail;
    uint64_t rng;
    uint64_t wake_at; /* sleeper script */
    unsigned slices;
    struct engine_vm *vm;
    unsigned i;
};

struct engine_vm {
    struct engine_vcpu cpu[CPUS];
    struct runner *r;
    void (*script)(struct engine_vcpu *v, struct cpu_run *run);
    _Atomic uint64_t hops;
    uint64_t hop_limit;
    uint64_t last_now;
    unsigned disorder;
    unsigned timer_fired;
    pthread_mutex_t lock;
    pthread_cond_t done;
    bool is_done;
};

static void mock_run(struct engine_vcpu *v, struct cpu_run *run)
{
    atomic_fetch_and(&v->attn, ~(unsigned)ATTN_IRQ);
    v->vm->script(v, run);
    atomic_fetch_and(&v->attn, ~(unsigned)ATTN_EXIT);
}

static void mock_kick(struct engine_vcpu *v, unsigned attn)
{
    atomic_fetch_or(&v->attn, attn);
}

static unsigned mock_attn(const struct engine_vcpu *v)
{
    return atomic_load(&v->attn);
}

static struct engine_vcpu *mock_vcpu(struct engine_vm *vm, vcpu_idx_t i)
{
    return &vm->cpu[i.i];
}

static void mock_trim(struct engine_vcpu *v)
{
    atomic_fetch_add(&v->vm->hops, 1);
}

static const struct engine_ops mock = {.name = "mock",
                                       .vcpu = mock_vcpu,
                                       .kick = mock_kick,
                                       .attn = mock_attn,
                                       .vcpu_run = mock_run,
                                       .vcpu_trim = mock_trim};

struct rig {
    struct guest_clock clock;
    struct timerq timers;
    struct epoch epoch;
    struct fabric *fabric;
    struct runner *r;
    struct engine_vm vm;
};

static void on_exit_unexpected(void *opaque, vcpu_idx_t cpu, enum cpu_exit_kind kind, const char *why)
{
    abort();
}

static struct rig *rig_new(unsigned workers, bool real, bool hash)
{
    struct rig *g = calloc(1, sizeof *g);
    apic_id_t ids[CPUS];
    for (unsigned i = 0; i < CPUS; i++) {
        ids[i] = APIC_ID(i ? 300 + 3 * i : 0);
        g->vm.cpu[i] = (struct engine_vcpu){.rng = i + 1, .vm = &g->vm, .i = i};
    }
    g->clock.real = real;
    g->clock.host_base = clock_host_ns();
    epoch_init(&g->epoch);
    assert_int_equal(timerq_init(&g->timers, 4), 0);
    struct runner_config rc = {.vcpus = CPUS,
                               .workers = workers,
                               .hash = hash,
                               .clock = &g->clock,
                               .timers = &g->timers,
                               .epoch = &g->epoch,
                               .on_exit = on_exit_unexpected};
    struct err e = {{0}};
    assert_int_equal(runner_create(&rc, &g->r, &e), 0);
    struct fabric_config fc = {.vcpus = CPUS,
                               .ids = ids,
                               .x2apic = true,
                               .ext_dest_id = true,
                               .kick = runner_kick,
                               .kick_opaque = g->r,
                               .epoch = &g->epoch};
    assert_int_equal(fabric_create(&fc, &g->fabric, &e), 0);
    g->vm.r = g->r;
    pthread_mutex_init(&g->vm.lock, NULL);
    pthread_cond_init(&g->vm.done, NULL);
    runner_attach(g->r, &mock, &g->vm, g->fabric);
    return g;
}

static void rig_free(struct rig *g)
{
    runner_destroy(g->r);
    fabric_destroy(g->fabric);
    timerq_fini(&g->timers);
    epoch_fini(&g->epoch);
    free(g);
}

static void say_done(struct engine_vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    vm->is_done = true;
    pthread_cond_signal(&vm->done);
    pthread_mutex_unlock(&vm->lock);
}

static void run_until_done(struct rig *g)
{
    struct err e = {{0}};
    assert_int_equal(runner_start(g->r, &e), 0);
    pthread_mutex_lock(&g->vm.lock);
    while (!g->vm.is_done)
        pthread_cond_wait(&g->vm.done, &g->vm.lock);
    pthread_mutex_unlock(&g->vm.lock);
    runner_stop(g->r);
}

static uint64_t next_random(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* Pass every letter on to somebody else; halt when the box is empty. A lost wake-up loses a letter and hangs the test.
 */
static void pass_mail(struct engine_vcpu *v, struct cpu_run *run)
{
    struct engine_vm *vm = v->vm;
    unsigned letters = atomic_exchange(&v->mail, 0);
    run->used = 50 + letters;
    run->exit = letters ? CPU_EXIT_BUDGET : CPU_EXIT_HALT;
    while (letters--) {
        if (atomic_fetch_add(&vm->hops, 1) == vm->hop_limit)
            say_done(vm);
        unsigned to = (unsigned)(next_random(&v->rng) % CPUS);
        atomic_fetch_add(&vm->cpu[to].mail, 1);
        runner_kick(vm->r, VCPU_IDX(to));
    }
}

static void mail_flows(unsigned workers, bool real, unsigned letters)
{
    struct rig *g = rig_new(workers, real, false);
    g->vm.script = pass_mail;
    g->vm.hop_limit = 100000;
    for (unsigned i = 0; i < letters; i++)
        g->vm.cpu[i].mail = 1;
    run_until_done(g);
    unsigned left = 0;
    for (unsigned i = 0; i < CPUS; i++)
        left += g->vm.cpu[i].mail;
    assert_int_equal(left, letters);
    rig_free(g);
}

static void no_wakeup_is_lost(void **state)
{
    mail_flows(1, false, 1);
    mail_flows(2, false, 1);
    mail_flows(2, false, 5);
    mail_flows(4, false, 20);
    mail_flows(2, true, 1);
    mail_flows(4, true, 7);
}

/* Sleep for a while that only this vCPU knows, 200 times; every wake-up must come at its instant, in global order. */
static void nap(struct engine_vcpu *v, struct cpu_run *run)
{
    struct engine_vm *vm = v->vm;
    if (run->now < vm->last_now)
        vm->disorder++;
    vm->last_now = run->now;
    if (v->wake_at && run->now != v->wake_at)
        vm->disorder++;
    run->used = 1;
    v->wake_at = run->now + 1000 + next_random(&v->rng) % 100000;
    run->exit = CPU_EXIT_TPAUSE;
    run->until = v->wake_at;
    if (++v->slices == 200 && atomic_fetch_add(&vm->hops, 1) + 1 == CPUS)
        say_done(vm);
}

static void on_timer(void *opaque, uint64_t now)
{
    struct rig *g = opaque;
    if (now != 777777 || guest_clock_now(&g->clock) != now)
        abort();
    g->vm.timer_fired++;
}

static void sleepers_wake_at_their_instant(void **state)
{
    struct rig *g = rig_new(1, false, true);
    struct timer t;
    g->vm.script = nap;
    timer_init(&t, on_timer, g);
    timer_arm(&g->timers, &t, 777777);
    run_until_done(g);
    assert_int_equal(g->vm.disorder, 0);
    assert_int_equal(g->vm.timer_fired, 1);
    struct runner_stats s;
    runner_stats(g->r, &s);
    assert_int_equal(s.started, CPUS);
    assert_true(s.guest_ns > 200 * 1000);
    rig_free(g);
}

/* Busy vCPUs: whoever runs is the earliest, and all advance together. */
static void burn(struct engine_vcpu *v, struct cpu_run *run)
{
    struct engine_vm *vm = v->vm;
    if (run->now < vm->last_now)
        vm->disorder++;
    vm->last_now = run->now;
    run->used = run->budget;
    run->exit = CPU_EXIT_BUDGET;
    if (++v->slices == 100)
        say_done(vm);
}

static void busy_vcpus_advance_together(void **state)
{
    struct rig *g = rig_new(1, false, true);
    g->vm.script = burn;
    run_until_done(g);
    assert_int_equal(g->vm.disorder, 0);
    unsigned least = UINT_MAX, most = 0;
    for (unsigned i = 0; i < CPUS; i++) {
        least = g->vm.cpu[i].slices < least ? g->vm.cpu[i].slices : least;
        most = g->vm.cpu[i].slices > most ? g->vm.cpu[i].slices : most;
    }
    assert_true(least >= 98);
    assert_in_range(most - least, 0, 2);
    rig_free(g);
}

static void stops_and_starts_again(void **state)
{
    struct rig *g = rig_new(2, false, false);
    struct err e = {{0}};
    g->vm.script = pass_mail;
    g->vm.hop_limit = UINT64_MAX;
    g->vm.cpu[3].mail = 2;
    for (unsigned i = 0; i < 50; i++) {
        uint64_t before = atomic_load(&g->vm.hops);
        assert_int_equal(runner_start(g->r, &e), 0);
        while (atomic_load(&g->vm.hops) < before + 10)
            sched_yield();
        runner_stop(g->r);
    }
    runner_stop(g->r);
    rig_free(g);
}

/* Halt for good. */
static void rest(struct engine_vcpu *v, struct cpu_run *run)
{
    run->used = 1;
    run->exit = CPU_EXIT_HALT;
    v->slices++;
}

static void long_parked_vcpus_are_trimmed_once(void **state)
{
    struct rig *g = rig_new(2, false, false);
    struct err e = {{0}};
    struct runner_stats s = {.started = 0};
    g->vm.script = rest;
    assert_int_equal(runner_start(g->r, &e), 0);
    while (s.started < CPUS || !s.stuck) {
        runner_stats(g->r, &s);
        sched_yield();
    }
    for (unsigned i = 0; i < 10; i++)
        runner_trim(g->r);
    assert_int_equal(atomic_load(&g->vm.hops), 0);
    for (unsigned i = 0; i < 3; i++)
        runner_trim(g->r);
    assert_int_equal(atomic_load(&g->vm.hops), CPUS);
    runner_stop(g->r);
    rig_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_wakeup_is_lost),
        cmocka_unit_test(sleepers_wake_at_their_instant),
        cmocka_unit_test(busy_vcpus_advance_together),
        cmocka_unit_test(stops_and_starts_again),
        cmocka_unit_test(long_parked_vcpus_are_trimmed_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
