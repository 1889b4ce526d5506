/* Interrupts by the host's KVM: resolved interrupts, pins, device routes, eventfds. Every bad one is refused and hurts
 * nobody. */
#include "kvm_rig.h"

#include "irq/ioapic.h"
#include "irq/remap.h"

#include <sys/eventfd.h>

/* All in x2APIC mode and enabled. */
static void wide_rig(struct kvm_rig *r)
{
    rig_make(r);
    for (unsigned i = 0; i < RIG_CPUS; i++)
        rig_apic(r, i, true);
}

static int send(struct kvm_rig *r, struct irq irq)
{
    struct irq_port port = engine_kvm.port(r->vm);
    return port.deliver(port.opaque, irq);
}

/* Who has `vector` pending: a bit a vCPU. */
static unsigned pending(struct kvm_rig *r, uint8_t vector)
{
    unsigned who = 0;
    for (unsigned i = 0; i < RIG_CPUS; i++)
        who |= (unsigned)rig_irr(r, i, vector) << i;
    return who;
}

static void destinations(void **state)
{
    static const struct {
        uint32_t dest;
        uint8_t logical, vector;
        unsigned who;
    } c[] = {
        {0, 0, 0x31, 1},
        {0x23, 0, 0x32, 4},
        {300, 0, 0x33, 8},
        {0x3ff, 0, 0x34, 16},
        {301, 0, 0x35, 0},
        {APIC_BROADCAST32, 0, 0x36, 31},
        {0xff, 0, 0x37, 0}, /* an ID like any other: nobody's */
        {(300 >> 4) << 16 | 1 << (300 & 15), 1, 0x38, 8},
        {3, 1, 0x39, 3}, /* cluster 0, members 0 and 1 */
    };
    struct kvm_rig r;
    RIG_OR_SKIP(&r);
    wide_rig(&r);
    for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
        struct irq irq = {.dest = c[i].dest, .logical = c[i].logical, .vector = c[i].vector, .assert_ = 1};
        assert_int_equal(send(&r, irq), __builtin_popcount(c[i].who));
        assert_int_equal(pending(&r, c[i].vector), c[i].who);
    }
    rig_fini(&r);
}

static void modes(void **state)
{
    struct kvm_rig r;
    struct cpu_apic a;
    RIG_OR_SKIP(&r);
    wide_rig(&r);
    assert_int_equal(send(&r, (struct irq){.dest = 300, .mode = IRQ_NMI, .assert_ = 1}), 1);
    engine_kvm.get_apic(rig_vcpu(&r, 3), &a);
    assert_true(a.nmi_pending);
    assert_int_equal(send(&r, (struct irq){.dest = 300, .mode = IRQ_LOWEST, .vector = 0x44, .assert_ = 1}), 1);
    assert_int_equal(pending(&r, 0x44), 8);
    assert_int_equal(send(&r, (struct irq){.dest = 300, .mode = IRQ_SMI, .assert_ = 1}), 0);
    assert_int_equal(send(&r, (struct irq){.dest = 300, .mode = IRQ_INIT, .level = 1}), 0); /* de-assert */
    rig_fini(&r);
}

/* With 8-bit IDs the kernel would send to the low byte's owner. */
static void narrow_ids(void **state)
{
    struct kvm_rig r;
    RIG_OR_SKIP(&r);
    r.cfg.x2apic_8bit_ids = true;
    rig_make(&r);
    for (unsigned i = 0; i < 3; i++)
        rig_apic(&r, i, false);
    assert_int_equal(send(&r, (struct irq){.dest = 0x123, .vector = 0x41, .assert_ = 1}), 0);
    assert_int_equal(pending(&r, 0x41), 0);
    assert_int_equal(send(&r, (struct irq){.dest = 0x23, .vector = 0x42, .assert_ = 1}), 1);
    assert_int_equal(pending(&r, 0x42), 4);
    assert_true(send(&r, (struct irq){.dest = APIC_BROADCAST32, .vector = 0x43, .assert_ = 1}) >= 3);
    assert_int_equal(pending(&r, 0x43) & 7, 7);
    rig_fini(&r);
}

/* Whatever a guest writes to a message or an entry: refused or taken, never an error of ours. */
static void every_bad_message(void **state)
{
    struct kvm_rig r;
    struct remap remap;
    struct ioapic *io;
    uint64_t x = 0x9e3779b97f4a7c15;
    struct err e = {""};
    RIG_OR_SKIP(&r);
    wide_rig(&r);
    struct irq_port port = engine_kvm.port(r.vm);
    remap_init(&remap, true);
    struct ioapic_config c = {.requester = REQUESTER_ID(0xa0), .ext_dest_id = true, .remap = &remap, .port = port};
    assert_int_equal(ioapic_create(&c, &io, &e), 0);
    for (unsigned i = 0; i < 20000; i++) {
        x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        struct msi_msg m = {.addr = x >> (i & 1 ? 0 : 32), .data = (uint32_t)(x >> 16) & (i & 2 ? 0xffff : UINT32_MAX)};
        if (i & 4)
            m.addr = (m.addr & ~UINT64_C(0xfff00000)) | 0xfee00000;
        remap_deliver_msi(&remap, port, m, REQUESTER_ID(8));
        struct irq irq = {
            .dest = (uint32_t)x, .vector = (uint8_t)(x >> 32), .mode = x >> 40 & 7, .logical = x >> 43 & 1};
        irq.level = x >> 44 & 1;
        irq.assert_ = x >> 45 & 1;
        port.deliver(port.opaque, irq);
        ioapic_bus_ops.write(io, IOAPIC_REGSEL, 4, x >> 50 & 63);
        ioapic_bus_ops.write(io, IOAPIC_WINDOW, 4, (uint32_t)(x >> 8));
        if (!(i & 15))
            ioapic_set_pin(io, x >> 20 & 31, x >> 33 & 1);
    }
    ioapic_destroy(io);
    assert_int_equal(send(&r, (struct irq){.dest = 0, .vector = 0x31, .assert_ = 1}), 1);
    rig_fini(&r);
}

/* ---- pins ---- */

static unsigned routing_calls;

static int counting_ioctl(void *opaque, int fd, unsigned long request, uintptr_t arg)
{
    routing_calls += request == KVM_SET_GSI_ROUTING;
    return kvm_sys_host.ioctl(NULL, fd, request, arg);
}

static struct kvm_sys counting_sys(void)
{
    struct kvm_sys s = kvm_sys_host;
    s.ioctl = counting_ioctl;
    return s;
}

static void write_entry(struct ioapic *io, unsigned pin, uint32_t high, uint32_t low)
{
    ioapic_bus_ops.write(io, IOAPIC_REGSEL, 4, 0x11 + 2 * pin);
    ioapic_bus_ops.write(io, IOAPIC_WINDOW, 4, high);
    ioapic_bus_ops.write(io, IOAPIC_REGSEL, 4, 0x10 + 2 * pin);
    ioapic_bus_ops.write(io, IOAPIC_WINDOW, 4, low);
}

/* A guest that programs all its pins costs no call; one goes out with the first level-triggered interrupt, and the
 * next only when that pin means something else. */
static void routes_are_batched(void **state)
{
    struct kvm_sys sys = counting_sys();
    struct kvm_rig r;
    struct remap remap;
    struct ioapic *io;
    struct err e = {""};
    RIG_OR_SKIP(&r);
    if (kvm_vm_create_on(&sys, &r.cfg, &r.vm, &e))
        fail_msg("%s", e.msg);
    for (unsigned i = 0; i < RIG_CPUS; i++)
        rig_apic(&r, i, true);
    remap_init(&remap, true);
    struct ioapic_config c = {
        .requester = REQUESTER_ID(0xa0), .ext_dest_id = true, .remap = &remap, .port = engine_kvm.port(r.vm)};
    assert_int_equal(ioapic_create(&c, &io, &e), 0);
    routing_calls = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        write_entry(io, pin, (300 & 0xff) << 24 | (300 >> 8) << 17, 0x8000 | (0x50 + pin));
    assert_int_equal(routing_calls, 0);
    ioapic_set_pin(io, 7, true);
    assert_int_equal(routing_calls, 1);
    assert_int_equal(pending(&r, 0x57), 8);
    ioapic_eoi(io, 0x57);
    ioapic_eoi(io, 0x57);
    assert_int_equal(routing_calls, 1);
    write_entry(io, 3, 0, 0x43); /* an edge */
    ioapic_set_pin(io, 3, true);
    assert_int_equal(routing_calls, 1);
    write_entry(io, 7, 0x23u << 24, 0x8000 | 0x58);
    ioapic_eoi(io, 0x58);
    assert_int_equal(routing_calls, 2);
    assert_int_equal(pending(&r, 0x58), 4);
    ioapic_destroy(io);
    rig_fini(&r);
}

/* ---- GSIs of devices ---- */

/* Whether the message has a route; the table is the kernel's either way. */
static bool route(struct kvm_rig *r, int gsi, struct remap *remap, struct msi_msg m)
{
    bool routed = kvm_gsi_route(r->vm, (unsigned)gsi, remap, m, REQUESTER_ID(8));
    assert_int_equal(kvm_gsi_commit(r->vm), 0);
    return routed;
}

static void assign(struct kvm_rig *r, int gsi, int fd)
{
    struct err e = {""};
    if (kvm_irqfd_assign(r->vm, (unsigned)gsi, fd, -1, &e))
        fail_msg("%s", e.msg);
}

/* Until vCPU 3 has `vector` pending. */
static void signal_300(struct kvm_rig *r, int fd, uint8_t vector)
{
    assert_int_equal(eventfd_write(fd, 1), 0);
    while (!rig_irr(r, 3, vector))
        sched_yield();
}

static void eventfd_to_300(void **state)
{
    struct kvm_rig r;
    struct remap remap;
    struct err e = {""};
    RIG_OR_SKIP(&r);
    wide_rig(&r);
    remap_init(&remap, true);
    int fd = eventfd(0, EFD_NONBLOCK), gsi = kvm_gsi_alloc(r.vm);
    assert_true(fd >= 0 && gsi >= KVM_PINS);
    assert_true(kvm_gsi_alloc(r.vm) == gsi + 1);
    struct msi_msg m = {.addr = 0xfee00000 | (300 & 0xff) << 12 | (300 >> 8) << 5, .data = 0x61};
    assert_true(route(&r, gsi, &remap, m));
    assign(&r, gsi, fd);
    signal_300(&r, fd, 0x61);
    assert_int_equal(pending(&r, 0x61), 8);
    m.data = 0x62; /* re-routed live */
    assert_true(route(&r, gsi, &remap, m));
    signal_300(&r, fd, 0x62);
    assert_true(kvm_irqfd_assign(r.vm, (unsigned)gsi, fd, -1, &e) < 0); /* twice the same */
    assert_true(kvm_irqfd_assign(r.vm, (unsigned)gsi, fd, fd, NULL) < 0);
    kvm_irqfd_deassign(r.vm, (unsigned)gsi, fd);
    kvm_gsi_free(r.vm, (unsigned)gsi);
    assert_int_equal(kvm_gsi_alloc(r.vm), gsi);
    close(fd);
    rig_fini(&r);
}

/* A message that is a fault has no route until what it names changes. */
static void stale_routes(void **state)
{
    struct kvm_rig r;
    struct remap remap;
    RIG_OR_SKIP(&r);
    wide_rig(&r);
    remap_init(&remap, true);
    int fd = eventfd(0, EFD_NONBLOCK), gsi = kvm_gsi_alloc(r.vm);
    struct msi_msg m = {.addr = UINT64_C(0x1fee2c000), .data = 0x63}; /* Windows' form of 12Ch */
    assert_false(route(&r, gsi, &remap, m));
    assign(&r, gsi, fd);
    remap.windows_high = true;
    kvm_gsi_stale(r.vm, 0, UINT32_MAX);
    signal_300(&r, fd, 0x63);
    kvm_gsi_unroute(r.vm, (unsigned)gsi);
    assert_int_equal(kvm_gsi_commit(r.vm), 0);
    kvm_irqfd_deassign(r.vm, (unsigned)gsi, fd);
    close(fd);
    rig_fini(&r);
}

static void gsis_run_out(void **state)
{
    struct kvm_rig r;
    int gsi, n = 0;
    RIG_OR_SKIP(&r);
    rig_make(&r);
    while ((gsi = kvm_gsi_alloc(r.vm)) >= 0)
        n++;
    assert_int_equal(gsi, -ENOSPC);
    assert_int_equal(n, (int)kvm_vm_of(r.vm)->irq.gsis - KVM_PINS);
    kvm_gsi_free(r.vm, 1000000);
    kvm_gsi_unroute(r.vm, 3);
    rig_fini(&r);
}

/* ---- kernel-irqchip=on ---- */

static void kernel_write(struct kvm_rig *r, unsigned pin, uint64_t entry)
{
    struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};
    assert_true(kvm_vm_iop(kvm_vm_of(r->vm), KVM_GET_IRQCHIP, &chip) >= 0);
    chip.chip.ioapic.redirtbl[pin].bits = entry;
    assert_true(kvm_vm_iop(kvm_vm_of(r->vm), KVM_SET_IRQCHIP, &chip) >= 0);
}

static void kernel_irqchip(void **state)
{
    struct kvm_rig r;
    struct err e = {""};
    RIG_OR_SKIP(&r);
    r.cfg.irqchip = ENGINE_IRQCHIP_KERNEL;
    wide_rig(&r);
    assert_null(engine_kvm.port(r.vm).pin);
    kernel_write(&r, 9, 0x71 | UINT64_C(0x23) << 56);
    kernel_write(&r, 2, 0x72 | UINT64_C(1) << 56);
    engine_kvm.gsi(r.vm, 9, true);
    engine_kvm.gsi(r.vm, 9, false);
    engine_kvm.gsi(r.vm, 0, true); /* the timer's pin is 2 */
    engine_kvm.gsi(r.vm, 0, false);
    engine_kvm.gsi(r.vm, 1000, true);
    assert_int_equal(pending(&r, 0x71), 4);
    assert_int_equal(pending(&r, 0x72), 2);
    assert_int_equal(send(&r, (struct irq){.dest = 300, .vector = 0x73, .assert_ = 1}), 1);
    assert_int_equal(pending(&r, 0x73), 8);
    int fd = eventfd(0, EFD_NONBLOCK), again = eventfd(0, EFD_NONBLOCK);
    kernel_write(&r, 16, 0x8074 | UINT64_C(1) << 56);
    if (kvm_irqfd_assign(r.vm, 16, fd, again, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(eventfd_write(fd, 1), 0);
    while (!rig_irr(&r, 1, 0x74))
        sched_yield();
    kvm_irqfd_deassign(r.vm, 16, fd);
    close(fd);
    close(again);
    rig_fini(&r);
}

static void no_irqchip_is_refused(void **state)
{
    struct kvm_rig r;
    struct err e = {""};
    rig_prepare(&r);
    r.cfg.irqchip = ENGINE_IRQCHIP_OFF;
    assert_int_equal(engine_kvm.vm_create(&r.cfg, &r.vm, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "kernel-irqchip=split"));
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(destinations),       cmocka_unit_test(modes),
        cmocka_unit_test(narrow_ids),         cmocka_unit_test(every_bad_message),
        cmocka_unit_test(routes_are_batched), cmocka_unit_test(eventfd_to_300),
        cmocka_unit_test(stale_routes),       cmocka_unit_test(gsis_run_out),
        cmocka_unit_test(kernel_irqchip),     cmocka_unit_test(no_irqchip_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
