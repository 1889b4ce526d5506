/* A machine on the host's KVM, as vm/ wires one: RAM, two buses, an epoch, sparse APIC IDs. Tests skip where there is
 * no /dev/kvm. Code runs in real mode from 1000h; a write to port DONE says a value and stops all
 * vCPUs, and so does a level-triggered EOI. */
#ifndef TEST_KVM_RIG_H
#define TEST_KVM_RIG_H

#include "cpu/kvm/kvm.h"
#include "cpu/kvm/kvm_priv.h"
#include "x86/apic.h"
#include "x86/cpu.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RIG_CODE = 0x1000, RIG_DONE = 0x40, RIG_RAM = 1 << 20 };
enum { RIG_CPUS = 5 };
static const uint32_t rig_ids[RIG_CPUS] = {0, 1, 0x23, 300, 0x3ff};

struct kvm_rig {
    struct ram ram;
    struct bus mmio, ports;
    struct epoch epoch;
    int slot[RIG_CPUS], owner;
    struct guest_clock clock;
    struct trace trace;
    struct cpuid_model model;
    apic_id_t ids[RIG_CPUS];
    struct engine_config cfg;
    struct engine_vm *vm;
    _Atomic uint32_t done, dones; /* what was written to port DONE last, and how often */
    _Atomic uint32_t eois, last_eoi;
};

static inline uint64_t rig_port_read(void *dev, uint64_t off, unsigned size)
{
    return 0x11223344u + off;
}

static inline void rig_stop_all(struct kvm_rig *r)
{
    for (unsigned i = 0; r->vm && i < r->cfg.vcpus; i++)
        engine_kvm.kick(engine_kvm.vcpu(r->vm, VCPU_IDX(i)), ATTN_EXIT);
}

static inline void rig_port_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct kvm_rig *r = dev;
    atomic_store(&r->done, (uint32_t)val);
    atomic_fetch_add(&r->dones, 1);
    rig_stop_all(r);
}

static const struct bus_ops rig_port_ops = {.read = rig_port_read, .write = rig_port_write};

static inline void rig_eoi(void *opaque, uint8_t vector)
{
    struct kvm_rig *r = opaque;
    atomic_store(&r->last_eoi, vector);
    atomic_fetch_add(&r->eois, 1);
    rig_stop_all(r);
}

static inline bool rig_have_kvm(void)
{
    return !access("/dev/kvm", R_OK | W_OK);
}

/* Everything but the machine: tests change `cfg` and then call rig_make(). */
static inline void rig_prepare(struct kvm_rig *r)
{
    struct err e = {""};
    struct cpu_topology topo = {1, 1, 1024, 1};
    struct bus_region port = {.base = RIG_DONE, .len = 4, .ops = &rig_port_ops, .dev = r, .name = "done"};
    memset(r, 0, sizeof *r);
    epoch_init(&r->epoch);
    r->owner = epoch_slot(&r->epoch);
    for (unsigned i = 0; i < RIG_CPUS; i++) {
        r->slot[i] = epoch_slot(&r->epoch);
        r->ids[i] = APIC_ID(rig_ids[i]);
    }
    bus_init(&r->ports, "port", &r->epoch, &r->trace);
    bus_init(&r->mmio, "mmio", &r->epoch, &r->trace);
    assert_int_equal(ram_init(&r->ram, RIG_RAM, &e), 0);
    assert_int_equal(bus_map(&r->ports, &port, &e), 0);
    r->clock.real = true;
    r->clock.host_base = clock_host_ns();
    if (rig_have_kvm())
        assert_int_equal(kvm_cpuid_model(&r->model, "host", &topo, RIG_CPUS, 0x3ff, &e), 0);
    r->cfg = (struct engine_config){.vcpus = RIG_CPUS,
                                    .ids = r->ids,
                                    .workers = RIG_CPUS,
                                    .ram = &r->ram,
                                    .mmio = &r->mmio,
                                    .ports = &r->ports,
                                    .cpuid = &r->model,
                                    .clock = &r->clock,
                                    .epoch = &r->epoch,
                                    .trace = &r->trace};
}

static inline void rig_make(struct kvm_rig *r)
{
    struct err e = {""};
    if (engine_kvm.vm_create(&r->cfg, &r->vm, &e))
        fail_msg("%s", e.msg);
    engine_kvm.set_eoi(r->vm, rig_eoi, r);
}

static inline void rig_fini(struct kvm_rig *r)
{
    engine_kvm.vm_destroy(r->vm);
    r->vm = NULL;
    bus_fini(&r->ports);
    bus_fini(&r->mmio);
    ram_fini(&r->ram);
    epoch_fini(&r->epoch);
}

#define RIG_OR_SKIP(r)                                                                                                 \
    do {                                                                                                               \
        if (!rig_have_kvm())                                                                                           \
            skip();                                                                                                    \
        rig_prepare(r);                                                                                                \
    } while (0)

static inline struct engine_vcpu *rig_vcpu(struct kvm_rig *r, unsigned i)
{
    return engine_kvm.vcpu(r->vm, VCPU_IDX(i));
}

/* Real mode at CODE, all segments at 0, stack below the code. */
static inline void rig_start_state(struct cpu_state *s)
{
    cpu_state_reset(s, true);
    s->seg[SEG_CS].sel = 0;
    s->seg[SEG_CS].base = 0;
    s->rip = RIG_CODE;
    s->gpr[RSP] = RIG_CODE;
    s->activity = CPU_ACTIVE;
}

static inline void rig_load(struct kvm_rig *r, unsigned i, const void *code, size_t n)
{
    struct cpu_state s;
    rig_start_state(&s);
    s.bsp = i == 0;
    memcpy(r->ram.low + RIG_CODE, code, n);
    engine_kvm.set_state(rig_vcpu(r, i), &s);
}

static inline struct cpu_run rig_run(struct kvm_rig *r, unsigned i)
{
    struct cpu_run run = {.worker = i, .epoch_slot = r->slot[i]};
    engine_kvm.vcpu_run(rig_vcpu(r, i), &run);
    return run;
}

static inline bool rig_irr(struct kvm_rig *r, unsigned i, uint8_t vector)
{
    struct cpu_apic a;
    engine_kvm.get_apic(rig_vcpu(r, i), &a);
    return a.regs[APIC_IRR * 16 + vector / 32 * 16 + vector / 8 % 4] >> vector % 8 & 1;
}

/* Enable an APIC, in x2APIC mode if asked. */
static inline void rig_apic(struct kvm_rig *r, unsigned i, bool x2apic)
{
    struct cpu_apic a;
    engine_kvm.get_apic(rig_vcpu(r, i), &a);
    a.base |= APIC_BASE_EN | (x2apic ? APIC_BASE_EXTD : 0);
    st32(a.regs + APIC_SVR * 16, 0x1ff);
    if (x2apic)
        st32(a.regs + APIC_ID_REG * 16, rig_ids[i]);
    assert_true(engine_kvm.set_apic(rig_vcpu(r, i), &a));
}

#endif
