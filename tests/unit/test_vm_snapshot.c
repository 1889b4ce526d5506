/* What of a paused machine's CPUs can be taken and given back, on each engine, and from one to the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include "boot_images.h"

#include "base/bits.h"
#include "vm/accel.h"
#include "vm/machine.h"
#include "vm/snapshot.h"
#include "x86/apic.h"

#include <errno.h>
#include <unistd.h>

#include <cmocka.h>

#define CPUS 5u

static const uint32_t ids[CPUS] = {300, 7, 1000, 16, 255};
static struct img image;

static bool has_kvm(void)
{
    return !access("/dev/kvm", R_OK | W_OK);
}

struct paused {
    struct vm_config c;
    struct machine *m;
};

static void paused_init(struct paused *g, enum vm_accel engine)
{
    struct err e = {{0}};
    vm_config_init(&g->c);
    g->c.engine = engine;
    g->c.smp = (struct vm_smp){.cpus = CPUS};
    assert_int_equal(vm_config_topology(&g->c.smp, &e), 0);
    g->c.apic_ids = malloc(sizeof ids);
    memcpy(g->c.apic_ids, ids, sizeof ids);
    g->c.apic_ids_n = CPUS;
    g->c.mem_size = 64 << 20;
    g->c.workers = 1;
    g->c.kernel = "(a test's)";
    g->c.image = image.p;
    g->c.image_size = image.n;
    if (machine_create(&g->c, &g->m, &e) || machine_boot(g->m, &e))
        fail_msg("%s", e.msg);
}

static void paused_fini(struct paused *g)
{
    machine_destroy(g->m);
    vm_config_fini(&g->c);
}

static struct machine_snapshot *take(struct paused *g)
{
    struct machine_snapshot *s;
    struct err e = {{0}};
    assert_int_equal(machine_snapshot(g->m, &s, &e), 0);
    assert_int_equal(s->cpus, CPUS);
    return s;
}

static void give(struct paused *g, const struct machine_snapshot *s)
{
    struct err e = {{0}};
    if (machine_restore(g->m, s, &e))
        fail_msg("%s", e.msg);
}

static uint32_t reg(const struct machine_cpu *c, unsigned off)
{
    return ld32(c->apic.regs + off);
}

/* As the boot left it. */
static void as_booted(const struct machine_snapshot *s)
{
    assert_int_equal(s->cpu[0].state.activity, CPU_ACTIVE);
    assert_int_equal(s->cpu[0].state.gpr[RAX], 0x2badb002);
    assert_int_equal(reg(&s->cpu[0], 0xf0), 0x1ff);
    assert_int_equal(reg(&s->cpu[0], 0x350), 0x700);
    for (uint32_t i = 0; i < CPUS; i++) {
        assert_int_equal(reg(&s->cpu[i], 0x20), ids[i]);
        assert_true(s->cpu[i].apic.base & APIC_BASE_EXTD);
        assert_int_equal(!!(s->cpu[i].apic.base & APIC_BASE_BSP), i == 0);
        if (i)
            assert_int_equal(s->cpu[i].state.activity, CPU_WAIT_SIPI);
    }
}

/* A CPU that was in the middle of something. */
static void disturb(struct machine_cpu *c, uint32_t i)
{
    for (unsigned r = 0; r < 16; r++)
        c->state.gpr[r] = UINT64_C(0x0123456789000000) + i * 256 + r;
    c->state.rip = 0x100000 + i;
    c->state.rflags = 0x2 | 0x11; /* CF, AF */
    c->state.cr2 = 0xdead0000 + i;
    c->state.lstar = 0xffffffff81000000 + i;
    c->state.activity = i & 1 ? CPU_HALTED : CPU_ACTIVE;
    st32(c->apic.regs + 0xf0, 0x1f0 + (i & 7));
    st32(c->apic.regs + 0x80, 0x20);        /* TPR */
    st32(c->apic.regs + 0x200, 1u << 31);   /* vector 1Fh is requested: below the TPR, so that it stays */
    st32(c->apic.regs + 0x320, 0x000400ef); /* timer: TSC deadline, EFh */
}

static void compare(const struct machine_cpu *a, const struct machine_cpu *b)
{
    static const unsigned regs[] = {0x20, 0x80, 0xd0, 0xf0, 0x200, 0x320, 0x350, 0x360};
    assert_memory_equal(a->state.gpr, b->state.gpr, sizeof a->state.gpr);
    assert_int_equal(a->state.rip, b->state.rip);
    assert_int_equal(a->state.rflags, b->state.rflags);
    assert_int_equal(a->state.cr0, b->state.cr0);
    assert_int_equal(a->state.cr2, b->state.cr2);
    assert_int_equal(a->state.lstar, b->state.lstar);
    assert_int_equal(a->state.activity, b->state.activity);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        assert_int_equal(a->state.seg[i].sel, b->state.seg[i].sel);
        assert_int_equal(a->state.seg[i].base, b->state.seg[i].base);
    }
    assert_int_equal(a->apic.base, b->apic.base);
    for (unsigned i = 0; i < sizeof regs / sizeof regs[0]; i++)
        if (reg(a, regs[i]) != reg(b, regs[i]))
            fail_msg("APIC register %xh: %xh, not %xh", regs[i], reg(b, regs[i]), reg(a, regs[i]));
}

static void there_and_back(enum vm_accel engine)
{
    struct paused g;
    paused_init(&g, engine);
    struct machine_snapshot *s = take(&g), *t;
    as_booted(s);
    for (uint32_t i = 0; i < CPUS; i++)
        disturb(&s->cpu[i], i);
    give(&g, s);
    t = take(&g);
    for (uint32_t i = 0; i < CPUS; i++)
        compare(&s->cpu[i], &t->cpu[i]);
    paused_fini(&g);
    free(s);
    free(t);
}

static void the_built_in_engine(void **state)
{
    there_and_back(VM_ACCEL_SOFT);
}

static void kvm(void **state)
{
    if (!has_kvm())
        skip();
    there_and_back(VM_ACCEL_KVM);
}

static void from_one_to_the_other(void **state)
{
    struct paused a, b;
    if (!has_kvm())
        skip();
    paused_init(&a, VM_ACCEL_SOFT);
    paused_init(&b, VM_ACCEL_KVM);
    struct machine_snapshot *s = take(&a), *t, *u;
    for (uint32_t i = 0; i < CPUS; i++)
        disturb(&s->cpu[i], i);
    give(&a, s);
    t = take(&a);
    give(&b, t);
    u = take(&b);
    for (uint32_t i = 0; i < CPUS; i++)
        compare(&t->cpu[i], &u->cpu[i]);
    give(&a, u);
    free(t);
    t = take(&a);
    for (uint32_t i = 0; i < CPUS; i++)
        compare(&u->cpu[i], &t->cpu[i]);
    paused_fini(&a);
    paused_fini(&b);
    free(s);
    free(t);
    free(u);
}

static void what_does_not_fit_is_refused(void **state)
{
    struct paused g;
    struct err e = {{0}};
    paused_init(&g, VM_ACCEL_SOFT);
    struct machine_snapshot *s = take(&g);
    s->cpus = CPUS - 1;
    assert_int_equal(machine_restore(g.m, s, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "vCPUs"));
    e.msg[0] = 0;
    s->cpus = CPUS;
    s->cpu[2].apic.base = APIC_BASE_DEFAULT | APIC_BASE_EXTD; /* x2APIC mode of an APIC that is off */
    assert_int_equal(machine_restore(g.m, s, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "vCPU 2"));
    paused_fini(&g);
    free(s);
}

/* Each part of a CPU counts in the hash; the same CPU twice gives the same. */
static void the_hash_sees_all(void **state)
{
    struct paused g;
    paused_init(&g, VM_ACCEL_SOFT);
    struct machine_snapshot *s = take(&g), *t = take(&g);
    uint64_t h = machine_cpu_hash(1, &s->cpu[1]);
    assert_int_equal(h, machine_cpu_hash(1, &t->cpu[1]));
    t->cpu[1].state.gpr[R15] ^= 1;
    assert_int_not_equal(h, machine_cpu_hash(1, &t->cpu[1]));
    t->cpu[1] = s->cpu[1];
    t->cpu[1].apic.regs[0x200] ^= 1;
    assert_int_not_equal(h, machine_cpu_hash(1, &t->cpu[1]));
    t->cpu[1] = s->cpu[1];
    t->cpu[1].apic.nmi_pending ^= true;
    assert_int_not_equal(h, machine_cpu_hash(1, &t->cpu[1]));
    paused_fini(&g);
    free(s);
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_built_in_engine),   cmocka_unit_test(kvm),
        cmocka_unit_test(from_one_to_the_other), cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(the_hash_sees_all),
    };
    image = img_multiboot(0x100000, 4096, 0);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    free(image.p);
    return rc;
}
