/* vcpu_run() on the host's KVM: ports, memory, kicks, the PIC's interrupts, level-triggered EOIs, statistics, the dirty
 * log. Payloads are a few instructions of real mode, and none that a KVM in software lacks. */
#include "kvm_rig.h"

#include <sys/syscall.h>

#define MMIO_GPA 0xc0000

static void expect_done(struct kvm_rig *r, unsigned cpu, uint32_t value)
{
    struct cpu_run run = rig_run(r, cpu);
    if (run.err)
        fail_msg("%s", run.err);
    assert_int_equal(run.exit, CPU_EXIT_KICKED);
    assert_int_equal(r->done, value);
}

/* ---- ports and memory ---- */

static void port_out_and_in(void **state)
{
    static const uint8_t code[] = {
        0x66, 0xe5, RIG_DONE,       /* in eax, DONE */
        0x66, 0xff, 0xc0,           /* inc eax */
        0x66, 0xe7, RIG_DONE, 0xf4, /* out DONE, eax; hlt */
    };
    struct kvm_rig r;
    RIG_OR_SKIP(&r);
    rig_make(&r);
    rig_load(&r, 0, code, sizeof code);
    expect_done(&r, 0, 0x11223345);
    rig_load(&r, 3, code, sizeof code);
    expect_done(&r, 3, 0x11223345);
    rig_fini(&r);
}

/* The vCPU stops behind the instruction that asked for it, its result written back. */
static void stops_behind_an_access(void **state)
{
    static const uint8_t code[] = {0x66, 0xe7, RIG_DONE, 0x66, 0xe5, RIG_DONE, 0xf4};
    struct kvm_rig r;
    struct cpu_state s;
    RIG_OR_SKIP(&r);
    rig_make(&r);
    rig_load(&r, 0, code, sizeof code);
    assert_int_equal(rig_run(&r, 0).exit, CPU_EXIT_KICKED);
    engine_kvm.get_state(rig_vcpu(&r, 0), &s);
    assert_int_equal(s.rip, RIG_CODE + 3);
    rig_fini(&r);
}

struct device {
    uint64_t off[64], val[64];
    unsigned size[64], n, reads;
};

static uint64_t device_read(void *dev, uint64_t off, unsigned size)
{
    ((struct device *)dev)->reads++;
    return off * 3;
}

static void device_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct device *d = dev;
    if (d->n == ARRAY_SIZE(d->off))
        return;
    d->off[d->n] = off;
    d->size[d->n] = size;
    d->val[d->n++] = val;
}

static const struct bus_ops device_ops = {.read = device_read, .write = device_write};

/* Code beside a device; RAM ends below it. */
static void make_beside(struct kvm_rig *r, struct device *d, const uint8_t *code, size_t len)
{
    struct err e = {""};
    struct bus_region m = {.base = MMIO_GPA, .len = 0x1000, .ops = &device_ops, .dev = d, .name = "device"};
    r->ram.low_size = MMIO_GPA;
    *d = (struct device){.n = 0};
    assert_int_equal(bus_map(&r->mmio, &m, &e), 0);
    m.base = 0x50;
    m.len = 8;
    assert_int_equal(bus_map(&r->ports, &m, &e), 0);
    rig_make(r);
    rig_load(r, 0, code, len);
}

static void end_beside(struct kvm_rig *r)
{
    r->ram.low_size = RIG_RAM;
    rig_fini(r);
}

static void memory_mapped(void **state)
{
    static const uint8_t code[] = {
        0xb8, 0x00, 0xc0,     0x8e, 0xd8, /* mov ax, C000h; mov ds, ax */
        0xc6, 0x06, 0x10,     0x00, 0x5a, /* mov byte [10h], 5Ah */
        0x66, 0xa1, 0x20,     0x00,       /* mov eax, [20h] */
        0x66, 0xa3, 0x31,     0x00,       /* mov [31h], eax */
        0x66, 0xe7, RIG_DONE, 0xf4,
    };
    struct kvm_rig r;
    struct device d;
    RIG_OR_SKIP(&r);
    make_beside(&r, &d, code, sizeof code);
    expect_done(&r, 0, 0x60);
    assert_int_equal(d.n, 2);
    assert_int_equal(d.off[0], 0x10);
    assert_int_equal(d.size[0], 1);
    assert_int_equal(d.val[0], 0x5a);
    assert_int_equal(d.off[1], 0x31);
    assert_int_equal(d.size[1], 4);
    assert_int_equal(d.val[1], 0x60);
    end_beside(&r);
}

static void strings_of_ports(void **state)
{
    static const uint8_t code[] = {
        0xfc, 0xbe, 0x00,     0x30, 0xb9, 0x05, 0x00, 0xba, 0x50, 0x00, /* cld; mov si, 3000h; mov cx, 5; mov dx, 50h */
        0xf3, 0x6e,                                                     /* rep outsb */
        0xbf, 0x00, 0x40,     0xb9, 0x03, 0x00,                         /* mov di, 4000h; mov cx, 3 */
        0xf3, 0x6d,                                                     /* rep insw */
        0x66, 0xe7, RIG_DONE, 0xf4,
    };
    struct kvm_rig r;
    struct device d;
    RIG_OR_SKIP(&r);
    make_beside(&r, &d, code, sizeof code);
    memcpy(r.ram.low + 0x3000, "abcde", 5);
    assert_int_equal(rig_run(&r, 0).exit, CPU_EXIT_KICKED);
    assert_int_equal(d.n, 5);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(d.val[i], 'a' + i);
    assert_int_equal(d.reads, 3);
    end_beside(&r);
}

static void nobody_there(void **state)
{
    static const uint8_t code[] = {0xe4, 0x99, 0xb4, 0, 0x66, 0x0f, 0xb7, 0xc0, 0x66, 0xe7, RIG_DONE, 0xf4};
    struct kvm_rig r;
    RIG_OR_SKIP(&r);
    rig_make(&r);
    rig_load(&r, 1, code, sizeof code);
    expect_done(&r, 1, 0xff);
    rig_fini(&r);
}

/* ---- kicks ---- */

static void kick_before_the_run(void **state)
{
    static const uint8_t code[] = {0xeb, 0xfe}; /* jmp $ */
    struct kvm_rig r;
    RIG_OR_SKIP(&r);
    rig_make(&r);
    rig_load(&r, 0, code, sizeof code);
    engine_kvm.kick(rig_vcpu(&r, 0), ATTN_EXIT);
    assert_int_equal(engine_kvm.attn(rig_vcpu(&r, 0)), ATTN_EXIT);
    assert_int_equal(rig_run(&r, 0).exit, CPU_EXIT_KICKED);
    assert_int_equal(engine_kvm.attn(rig_vcpu(&r, 0)), 0);
    rig_fini(&r);
}

struct runner_thread {
    struct kvm_rig *r;
    unsigned cpu;
    pthread_t thread;
    _Atomic unsigned runs;
    _Atomic bool stop;
};

static void *run_and_run(void *arg)
{
    struct runner_thread *t = arg;
    while (!t->stop && rig_run(t->r, t->cpu).exit == CPU_EXIT_KICKED)
        t->runs++;
    return NULL;
}

static void start(struct runner_thread *t, struct kvm_rig *r, unsigned cpu)
{
    *t = (struct runner_thread){.r = r, .cpu = cpu};
    assert_int_equal(pthread_create(&t->thread, NULL, run_and_run, t), 0);
}

static void stop(struct runner_thread *t)
{
    t->stop = true;
    engine_kvm.kick(rig_vcpu(t->r, t->cpu), ATTN_EXIT);
    pthread_join(t->thread, NULL);
}

/* No kick is lost, whether it meets a spinning guest, a halted one, or one that waits for its start-up IPI. */
static void kicks_from_another_thread(void **state)
{
    static const uint8_t spin[] = {0xeb, 0xfe}, halt[] = {0xf4, 0xeb, 0xfd};
    struct kvm_rig r;
    RIG_OR_SKIP(&r);
    rig_make(&r);
    for (unsigned kind = 0; kind < 3; kind++) {
        struct runner_thread t;
        struct cpu_state s;
        unsigned cpu = kind == 2 ? 3 : kind;
        rig_load(&r, cpu, kind ? halt : spin, kind ? sizeof halt : sizeof spin);
        cpu_state_reset(&s, false);
        if (kind == 2)
            engine_kvm.set_state(rig_vcpu(&r, cpu), &s);
        start(&t, &r, cpu);
        for (unsigned i = 0; i < 200; i++) {
            engine_kvm.kick(rig_vcpu(&r, cpu), ATTN_EXIT);
            while (t.runs <= i)
                sched_yield();
        }
        stop(&t);
    }
    rig_fini(&r);
}

/* Signals that nobody asked for end no run, and hide no stop. */
static void signals_of_others(void **state)
{
    static const uint8_t spin[] = {0xeb, 0xfe};
    struct kvm_rig r;
    struct runner_thread t;
    RIG_OR_SKIP(&r);
    rig_make(&r);
    rig_load(&r, 0, spin, sizeof spin);
    start(&t, &r, 0);
    for (unsigned i = 0; i < 2000; i++)
        pthread_kill(t.thread, KVM_KICK_SIGNAL);
    assert_int_equal(t.runs, 0);
    stop(&t);
    assert_true(t.runs <= 1);
    rig_fini(&r);
}

/* ---- interrupts ---- */

static struct kvm_rig *acked;

static uint8_t ack(void *opaque)
{
    struct kvm_rig *r = opaque;
    acked = r;
    engine_kvm.intr(r->vm, false);
    return 0x68;
}

/* The PIC's interrupt, as the CPU halts with interrupts on: through LINT0, which firmware leaves as ExtINT. */
static void extint(void **state)
{
    static const uint8_t code[] = {0xfb, 0xf4, 0xeb, 0xfd};              /* sti; hlt; jmp hlt */
    static const uint8_t handler[] = {0xb0, 0x68, 0xe6, RIG_DONE, 0xf4}; /* mov al, 68h; out DONE, al */
    struct kvm_rig r;
    struct err e = {""};
    RIG_OR_SKIP(&r);
    r.cfg.extint_ack = ack;
    r.cfg.extint_opaque = &r;
    rig_make(&r);
    for (unsigned round = 0; round < 20; round++) {
        assert_int_equal(engine_kvm.apic_reset(r.vm, &e), 0);
        rig_load(&r, 0, code, sizeof code);
        memcpy(r.ram.low + 0x2000, handler, sizeof handler);
        st32(r.ram.low + 0x68 * 4, 0x2000);
        r.done = 0;
        engine_kvm.intr(r.vm, true);
        assert_int_equal(rig_run(&r, 0).exit, CPU_EXIT_KICKED);
        assert_int_equal(r.done & 0xff, 0x68);
        assert_ptr_equal(acked, &r);
    }
    rig_fini(&r);
}

/* INTR that comes while the guest is halted wakes it. */
static void extint_wakes(void **state)
{
    static const uint8_t code[] = {0xfb, 0xf4, 0xeb, 0xfd};
    static const uint8_t handler[] = {0xb0, 0x68, 0xe6, RIG_DONE, 0xcf}; /* ...; iret */
    struct kvm_rig r;
    struct err e = {""};
    struct runner_thread t;
    RIG_OR_SKIP(&r);
    r.cfg.extint_ack = ack;
    r.cfg.extint_opaque = &r;
    rig_make(&r);
    assert_int_equal(engine_kvm.apic_reset(r.vm, &e), 0);
    rig_load(&r, 0, code, sizeof code);
    memcpy(r.ram.low + 0x2000, handler, sizeof handler);
    st32(r.ram.low + 0x68 * 4, 0x2000);
    start(&t, &r, 0);
    for (unsigned i = 1; i <= 50; i++) {
        engine_kvm.intr(r.vm, true);
        while (r.dones < i)
            sched_yield();
    }
    stop(&t);
    rig_fini(&r);
}

/* A pin's level-triggered interrupt reaches the APIC with ID 300, and its EOI comes back with the vector. */
static void level_eoi_comes_back(void **state)
{
    static const uint8_t code[] = {0xfb, 0xf4, 0xeb, 0xfd};
    static const uint8_t handler[] = {
        0x66, 0xb9, 0x0b, 0x08, 0x00, 0x00, /* mov ecx, 80Bh */
        0x66, 0x31, 0xc0, 0x66, 0x31, 0xd2, /* xor eax, eax; xor edx, edx */
        0x0f, 0x30, 0xeb, 0xfe,             /* wrmsr: EOI; jmp $ */
    };
    struct kvm_rig r;
    RIG_OR_SKIP(&r);
    rig_make(&r);
    rig_apic(&r, 3, true);
    struct irq_port port = engine_kvm.port(r.vm);
    struct irq irq = {.dest = 300, .vector = 0x51, .level = 1, .assert_ = 1};
    for (unsigned round = 0; round < 3; round++) {
        irq.vector = (uint8_t)(0x51 + round);
        rig_load(&r, 3, code, sizeof code);
        rig_apic(&r, 3, true);
        memcpy(r.ram.low + 0x2000, handler, sizeof handler);
        st32(r.ram.low + irq.vector * 4u, 0x2000);
        port.pin(port.opaque, 9, &irq);
        assert_int_equal(port.deliver(port.opaque, irq), 1);
        assert_int_equal(rig_run(&r, 3).exit, CPU_EXIT_KICKED);
        assert_int_equal(r.eois, round + 1);
        assert_int_equal(r.last_eoi, irq.vector);
    }
    rig_fini(&r);
}

/* An AP is started by INIT and a start-up IPI that come as messages do: KVM_SIGNAL_MSI has both; and runs. */
static void startup_ipi(void **state)
{
    static const uint8_t boot[] = {
        0x66, 0xb9, 0x30, 0x08, 0x00, 0x00,             /* mov ecx, 830h: ICR */
        0x66, 0xba, 0x2c, 0x01, 0x00, 0x00,             /* mov edx, 300 */
        0x66, 0xb8, 0x00, 0x45, 0x00, 0x00, 0x0f, 0x30, /* mov eax, 4500h: INIT; wrmsr */
        0x66, 0xb8, 0x03, 0x46, 0x00, 0x00, 0x0f, 0x30, /* mov eax, 4603h: start-up at 3000h; wrmsr */
        0xeb, 0xfe,
    };
    static const uint8_t ap[] = {0xb0, 0x33, 0xe6, RIG_DONE, 0xf4};
    struct kvm_rig r;
    struct runner_thread bsp;
    struct cpu_state s;
    RIG_OR_SKIP(&r);
    rig_make(&r);
    rig_load(&r, 0, boot, sizeof boot);
    rig_apic(&r, 0, true);
    memcpy(r.ram.low + 0x3000, ap, sizeof ap);
    cpu_state_reset(&s, false);
    engine_kvm.set_state(rig_vcpu(&r, 3), &s);
    start(&bsp, &r, 0);
    struct cpu_run run = rig_run(&r, 3);
    assert_int_equal(run.exit, CPU_EXIT_KICKED);
    assert_int_equal(r.done & 0xff, 0x33);
    stop(&bsp);
    rig_fini(&r);
}

/* ---- the rest ---- */

static void triple_fault(void **state)
{
    static const uint8_t code[] = {0xf4};
    struct kvm_rig r;
    RIG_OR_SKIP(&r);
    rig_make(&r);
    rig_load(&r, 1, code, sizeof code);
    struct kvm_vcpu_events e = {.flags = KVM_VCPUEVENT_VALID_TRIPLE_FAULT, .triple_fault.pending = 1};
    if (kvm_enable(&kvm_sys_host, kvm_vm_of(r.vm)->fd, KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1) < 0 ||
        kvm_vcpu_iop(kvm_vcpu_of(rig_vcpu(&r, 1)), KVM_SET_VCPU_EVENTS, &e) < 0)
        skip();
    struct cpu_run run = rig_run(&r, 1);
    if (run.err)
        fail_msg("%s", run.err);
    assert_int_equal(run.exit, CPU_EXIT_SHUTDOWN);
    assert_int_equal(rig_run(&r, 1).exit, CPU_EXIT_SHUTDOWN);
    rig_load(&r, 1, (const uint8_t[]){0xe6, RIG_DONE, 0xf4}, 3);
    assert_int_equal(rig_run(&r, 1).exit, CPU_EXIT_KICKED);
    rig_fini(&r);
}

static void statistics(void **state)
{
    static const uint8_t code[] = {0xe4, 0x99, 0xe4, 0x99, 0xe6, RIG_DONE, 0xf4};
    struct kvm_rig r;
    struct engine_stats s;
    RIG_OR_SKIP(&r);
    rig_make(&r);
    engine_kvm.stats(r.vm, &s);
    assert_int_equal(s.started, 0);
    rig_load(&r, 3, code, sizeof code);
    rig_run(&r, 3);
    engine_kvm.stats(r.vm, &s);
    assert_int_equal(s.started, 1);
    if (s.exits < 3 || s.pio != 3)
        fail_msg("%llu exits, %llu of ports", (unsigned long long)s.exits, (unsigned long long)s.pio);
    assert_false(s.inhibits_known);
    rig_fini(&r);
}

static void inhibits_are_read(void **state)
{
    struct kvm_vm vm = {.inhibits = 0};
    kvm_inhibit_parse(&vm, "  x-1 [000] ..... 1.0: kvm_apicv_inhibit_changed: set reason=8, inhibits=0x120\n"
                           "  x-1 [000] ..... 2.0: kvm_apicv_inhibit_changed: cleared reason=8, inhibits=0x20\n");
    assert_int_equal(vm.inhibits, 0x20);
}

/* ---- the dirty log ---- */

struct runs {
    gpa_t gpa[16];
    uint64_t len[16];
    unsigned n;
};

static void note_run(void *opaque, gpa_t gpa, uint64_t len)
{
    struct runs *x = opaque;
    assert_true(x->n < ARRAY_SIZE(x->gpa));
    x->gpa[x->n] = gpa;
    x->len[x->n++] = len;
}

static bool covers(const struct runs *x, gpa_t gpa)
{
    for (unsigned i = 0; i < x->n; i++)
        if (gpa >= x->gpa[i] && gpa < x->gpa[i] + x->len[i])
            return true;
    return false;
}

static void dirty_log(void **state)
{
    static const uint8_t code[] = {0x66, 0xa3, 0x00, 0x50, 0x66, 0xe7, RIG_DONE, 0xf4}; /* mov [5000h], eax; out */
    struct kvm_rig r;
    struct err e = {""};
    struct runs x = {.n = 0};
    RIG_OR_SKIP(&r);
    rig_make(&r);
    assert_true(engine_kvm.dirty_fetch(r.vm, note_run, &x) < 0);
    assert_int_equal(engine_kvm.dirty_track(r.vm, true, &e), 0);
    assert_int_equal(engine_kvm.dirty_fetch(r.vm, note_run, &x), 0);
    x.n = 0;
    rig_load(&r, 0, code, sizeof code);
    rig_run(&r, 0);
    engine_kvm.ram_written(r.vm, 0x8ffc, 8);
    engine_kvm.ram_written(r.vm, RIG_RAM, 8);
    assert_int_equal(engine_kvm.dirty_fetch(r.vm, note_run, &x), 0);
    assert_true(covers(&x, 0x5000));
    assert_true(covers(&x, 0x8000) && covers(&x, 0x9000));
    assert_false(covers(&x, 0x6000) || covers(&x, 0xa000) || covers(&x, 0xff000));
    x.n = 0;
    assert_int_equal(engine_kvm.dirty_fetch(r.vm, note_run, &x), 0);
    assert_int_equal(x.n, 0);
    rig_load(&r, 0, code, sizeof code);
    rig_run(&r, 0);
    assert_int_equal(engine_kvm.dirty_fetch(r.vm, note_run, &x), 0);
    assert_true(covers(&x, 0x5000));
    assert_int_equal(engine_kvm.dirty_track(r.vm, false, &e), 0);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(port_out_and_in),
        cmocka_unit_test(stops_behind_an_access),
        cmocka_unit_test(memory_mapped),
        cmocka_unit_test(strings_of_ports),
        cmocka_unit_test(nobody_there),
        cmocka_unit_test(kick_before_the_run),
        cmocka_unit_test(kicks_from_another_thread),
        cmocka_unit_test(signals_of_others),
        cmocka_unit_test(extint),
        cmocka_unit_test(extint_wakes),
        cmocka_unit_test(level_eoi_comes_back),
        cmocka_unit_test(startup_ipi),
        cmocka_unit_test(triple_fault),
        cmocka_unit_test(statistics),
        cmocka_unit_test(inhibits_are_read),
        cmocka_unit_test(dirty_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
