/* The runner, the fabric and the built-in engine under a guest that does to itself whatever a guest with many CPUs
 * does: LOCKed operations on shared words (within a line, across lines and pages, beside code), interrupts by the
 * x2APIC's ICR, code changed by another CPU, CPUs restarted by INIT and SIPI; while the host stops and starts the
 * machine. Every count must come out exact; a lost interrupt or start hangs. HEC_TEST_JIT=N translates its 64-bit code.
 */
#include "storm_guest.h"

#include "cpu/cpuid.h"
#include "jit_env.h"
#include "vm/runner.h"
#include "x86/cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

extern const uint8_t storm_guest[], storm_ipi[], storm_guest_end[];
extern const uint8_t storm_guest64[], storm_ipi64[], storm_guest_end64[];

struct storm {
    struct ram ram;
    struct bus mmio, ports;
    struct epoch epoch;
    struct timerq timers;
    struct guest_clock clock;
    struct cpuid_model model;
    struct runner *runner;
    struct fabric *fabric;
    struct engine_vm *vm;
    pthread_mutex_t lock;
    pthread_cond_t news;
    unsigned progress; /* (l) */
    bool done;         /* (l) */
};

static const apic_id_t ids[STORM_CPUS] = {{0}, {300}, {7}, {513}, {1000}, {1001}, {40}, {32767}};

/* ---- the guest's two ports ---- */

static uint64_t port_read(void *dev, uint64_t off, unsigned size)
{
    return 0;
}

static void port_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct storm *s = dev;
    pthread_mutex_lock(&s->lock);
    if (off)
        s->progress++;
    else
        s->done = true;
    pthread_cond_signal(&s->news);
    pthread_mutex_unlock(&s->lock);
}

/* ---- the machine ---- */

static void unexpected_exit(void *opaque, vcpu_idx_t cpu, enum cpu_exit_kind kind, const char *why)
{
    abort();
}

static void make_runner(struct storm *s, unsigned workers)
{
    struct err e = {{0}};
    struct runner_config rc = {.vcpus = STORM_CPUS,
                               .workers = workers,
                               .clock = &s->clock,
                               .timers = &s->timers,
                               .epoch = &s->epoch,
                               .on_exit = unexpected_exit};
    struct fabric_config fc = {
        .vcpus = STORM_CPUS, .ids = ids, .x2apic = true, .ext_dest_id = true, .kick = runner_kick, .epoch = &s->epoch};
    assert_int_equal(timerq_init(&s->timers, 4), 0);
    assert_int_equal(runner_create(&rc, &s->runner, &e), 0);
    fc.kick_opaque = s->runner;
    assert_int_equal(fabric_create(&fc, &s->fabric, &e), 0);
}

static void make_engine(struct storm *s, unsigned workers)
{
    static const struct cpu_topology topo = {1, 1, STORM_CPUS, 1};
    struct err e = {{0}};
    assert_int_equal(cpuid_model_init(&s->model, NULL, &topo, STORM_CPUS, 32767, &e), 0);
    struct engine_config c = {.vcpus = STORM_CPUS,
                              .ids = ids,
                              .workers = workers,
                              .ram = &s->ram,
                              .mmio = &s->mmio,
                              .ports = &s->ports,
                              .fabric = s->fabric,
                              .cpuid = &s->model,
                              .clock = &s->clock};
    jit_env(&c);
    assert_int_equal(engine_soft.vm_create(&c, &s->vm, &e), 0);
    runner_attach(s->runner, &engine_soft, s->vm, s->fabric);
}

/* ---- the guest ---- */

static uint64_t gate(uint32_t at)
{
    return (at & 0xffff) | 8u << 16 | UINT64_C(0x8e00) << 32 | (uint64_t)(at >> 16) << 48;
}

static void load_guest32(uint8_t *m)
{
    memcpy(m + STORM_BASE, storm_guest, (size_t)(storm_guest_end - storm_guest));
    st64(m + STORM_IDT + STORM_VECTOR * 8, gate((uint32_t)(STORM_BASE + (storm_ipi - storm_guest))));
}

/* Its pages lie where they are: the first 16 MiB. */
static void load_guest64(uint8_t *m)
{
    const uint64_t rw = PTE_P | PTE_W;
    memcpy(m + STORM_BASE, storm_guest64, (size_t)(storm_guest_end64 - storm_guest64));
    st64(m + STORM_IDT + STORM_VECTOR * 16, gate((uint32_t)(STORM_BASE + (storm_ipi64 - storm_guest64))));
    st64(m + STORM_PML4, (STORM_PML4 + 0x1000) | rw);
    st64(m + STORM_PML4 + 0x1000, (STORM_PML4 + 0x2000) | rw);
    for (uint64_t i = 0; i < 8; i++)
        st64(m + STORM_PML4 + 0x2000 + i * 8, i << 21 | rw | PTE_PS);
}

static void load_guest(struct storm *s, bool code64)
{
    uint8_t *m = s->ram.low;
    if (code64)
        load_guest64(m);
    else
        load_guest32(m);
    for (unsigned i = 0; i < STORM_CPUS; i++) {
        memcpy(m + STORM_IDS + i * 4, &ids[i].id, 4);
        m[STORM_FUNCS + i * 64 + STORM_ENTRY] = 0xb8;
        m[STORM_FUNCS + i * 64 + STORM_IMM + 4] = 0xc3;
    }
}

static void start_boot_cpu(struct storm *s)
{
    struct cpu_state st;
    for (uint32_t i = 0; i < STORM_CPUS; i++) {
        cpu_state_reset(&st, i == 0);
        if (i == 0) {
            st.seg[SEG_CS].sel = STORM_BASE >> 4;
            st.seg[SEG_CS].base = STORM_BASE;
            st.rip = 0;
        }
        engine_soft.set_state(engine_soft.vcpu(s->vm, VCPU_IDX(i)), &st);
    }
}

static struct storm *storm_new(unsigned workers, bool real, bool code64)
{
    static const struct bus_ops ops = {port_read, port_write};
    struct storm *s = calloc(1, sizeof *s);
    const struct bus_region r = {STORM_PORT_DONE, 2, &ops, s, "storm"};
    assert_non_null(s);
    s->clock.real = real;
    s->clock.host_base = clock_host_ns();
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->news, NULL);
    assert_int_equal(ram_init(&s->ram, 16 << 20, NULL), 0);
    epoch_init(&s->epoch);
    bus_init(&s->mmio, "mmio", &s->epoch, NULL);
    bus_init(&s->ports, "port", &s->epoch, NULL);
    assert_int_equal(bus_map(&s->ports, &r, NULL), 0);
    make_runner(s, workers);
    make_engine(s, workers);
    load_guest(s, code64);
    start_boot_cpu(s);
    return s;
}

static void storm_free(struct storm *s)
{
    engine_soft.vm_destroy(s->vm);
    fabric_destroy(s->fabric);
    runner_destroy(s->runner);
    timerq_fini(&s->timers);
    bus_fini(&s->mmio);
    bus_fini(&s->ports);
    epoch_fini(&s->epoch);
    ram_fini(&s->ram);
    free(s);
}

/* ---- the test ---- */

static uint32_t word(const struct storm *s, uint32_t gpa)
{
    uint32_t v;
    memcpy(&v, s->ram.low + gpa, 4);
    return v;
}

/* Stop and start the machine whenever the guest has come a bit further. */
static void run_with_stops(struct storm *s)
{
    struct err e = {{0}};
    bool done = false;
    for (unsigned stops = 0; !done; stops++) {
        assert_int_equal(runner_start(s->runner, &e), 0);
        pthread_mutex_lock(&s->lock);
        while (!s->done && s->progress <= stops)
            pthread_cond_wait(&s->news, &s->lock);
        done = s->done;
        pthread_mutex_unlock(&s->lock);
        runner_stop(s->runner);
    }
}

static void check(const struct storm *s)
{
    const uint32_t all = STORM_RING * STORM_ROUNDS;
    assert_int_equal(word(s, STORM_XADD), all);
    assert_int_equal(word(s, STORM_CMPXCHG), all);
    assert_int_equal(word(s, STORM_SPLIT_LINE), all);
    assert_int_equal(word(s, STORM_SPLIT_PAGE), all);
    assert_int_equal(word(s, STORM_BESIDE_CODE), all);
    assert_int_equal(word(s, STORM_RESTARTS), STORM_STARTS);
    assert_int_equal(word(s, STORM_STALE), 0);
    for (unsigned i = 0; i < STORM_RING; i++) {
        assert_int_equal(word(s, STORM_LINES + i * 64 + STORM_RECEIVED), STORM_ROUNDS);
        assert_int_equal(word(s, STORM_LINES + i * 64 + STORM_SENT), STORM_ROUNDS);
    }
}

static void storm(unsigned workers, bool real, bool code64)
{
    struct storm *s = storm_new(workers, real, code64);
    run_with_stops(s);
    check(s);
    storm_free(s);
}

/* Nobody translates 32-bit code. */
static void nothing_is_lost_by_32_bit_code(void **state)
{
    if (jit_env_heat())
        skip();
    for (unsigned workers = 1; workers <= 4; workers++)
        storm(workers, false, false);
    storm(4, true, false);
}

static void nothing_is_lost_in_virtual_time(void **state)
{
    for (unsigned workers = 1; workers <= 4; workers++)
        storm(workers, false, true);
}

static void nothing_is_lost_in_real_time(void **state)
{
    storm(2, true, true);
    storm(4, true, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_by_32_bit_code),
        cmocka_unit_test(nothing_is_lost_in_virtual_time),
        cmocka_unit_test(nothing_is_lost_in_real_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
