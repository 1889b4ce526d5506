/* A machine for tests of cpu/soft: RAM, empty buses, a fabric and the engine; guest time stands still unless told. The
 * APIC IDs have a hole and don't ascend. */
#ifndef HEC_TESTS_SOFT_RIG_H
#define HEC_TESTS_SOFT_RIG_H

#include "cpu/soft/event.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/msr.h"
#include "jit_env.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { RIG_VCPUS = 3 };

struct soft_rig {
    struct ram ram;
    struct bus mmio, ports;
    struct epoch epoch;
    int slot;
    struct fabric *fabric;
    struct cpuid_model model;
    struct guest_clock clock;
    struct engine_vm *vm;
    struct soft_vcpu *v; /* vCPU 0 */
    struct cpu_run run;
};

static inline void soft_rig_kick(void *opaque, vcpu_idx_t target)
{
    struct soft_rig *r = opaque;
    if (r->vm)
        engine_soft.kick(engine_soft.vcpu(r->vm, target), ATTN_IRQ);
}

static inline void soft_rig_fabric(struct soft_rig *r, const apic_id_t *ids)
{
    struct fabric_config f = {.vcpus = RIG_VCPUS,
                              .ids = ids,
                              .x2apic = true,
                              .ext_dest_id = true,
                              .kick = soft_rig_kick,
                              .kick_opaque = r,
                              .epoch = &r->epoch};
    assert_int_equal(fabric_create(&f, &r->fabric, NULL), 0);
}

/* `cpu` is a -cpu value, NULL for the default. */
static inline void soft_rig_init(struct soft_rig *r, uint64_t ram_size, const char *cpu)
{
    static const apic_id_t ids[RIG_VCPUS] = {{0}, {300}, {7}};
    static const struct cpu_topology topo = {1, 1, RIG_VCPUS, 1};
    memset(r, 0, sizeof *r);
    assert_int_equal(ram_init(&r->ram, ram_size, NULL), 0);
    epoch_init(&r->epoch);
    r->slot = epoch_slot(&r->epoch);
    bus_init(&r->mmio, "mmio", &r->epoch, NULL);
    bus_init(&r->ports, "port", &r->epoch, NULL);
    epoch_enter(&r->epoch, r->slot);
    soft_rig_fabric(r, ids);
    assert_int_equal(cpuid_model_init(&r->model, cpu, &topo, RIG_VCPUS, 300, NULL), 0);
    struct engine_config c = {.vcpus = RIG_VCPUS,
                              .ids = ids,
                              .workers = 1,
                              .ram = &r->ram,
                              .mmio = &r->mmio,
                              .ports = &r->ports,
                              .fabric = r->fabric,
                              .cpuid = &r->model,
                              .clock = &r->clock,
                              .deterministic = true};
    jit_env(&c);
    assert_int_equal(engine_soft.vm_create(&c, &r->vm, NULL), 0);
    r->v = (struct soft_vcpu *)engine_soft.vcpu(r->vm, VCPU_IDX(0));
    r->v->run = &r->run;
    r->v->entry_now = 5000;
    assert_true(tlb_alloc(r->v));
}

static inline void soft_rig_fini(struct soft_rig *r)
{
    engine_soft.vm_destroy(r->vm);
    fabric_destroy(r->fabric);
    epoch_leave(&r->epoch, r->slot);
    bus_fini(&r->mmio);
    bus_fini(&r->ports);
    epoch_fini(&r->epoch);
    ram_fini(&r->ram);
}

/* Put vCPU 0 into the middle of a mode without executing anything. `pl` is the CPL; CS.L, D and the rest follow `code`.
 */
static inline void soft_rig_mode(struct soft_rig *r, uint64_t cr0, uint64_t cr4, uint64_t efer, enum code_size code,
                                 unsigned pl)
{
    struct soft_vcpu *v = r->v;
    uint32_t data = SEGA_P | SEGA_S | SEGA_RW | SEGA_ACCESSED | SEGA_DB | SEGA_G | pl << SEGA_DPL_SHIFT;
    uint32_t width = code == CODE64 ? SEGA_L : code == CODE32 ? SEGA_DB : 0;
    v->st.cr0 = cr0;
    v->st.cr4 = cr4;
    v->st.efer = efer;
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        v->st.seg[i] = (struct cpu_segment){.limit = 0xffffffff, .attr = data, .sel = (uint16_t)(8 | pl)};
    v->st.seg[SEG_CS].attr = (data & ~(uint32_t)SEGA_DB) | SEGA_CODE | width;
    mode_update(v);
    tlb_flush_all(v);
}

static inline void soft_rig_long(struct soft_rig *r, unsigned pl)
{
    soft_rig_mode(r, CR0_PG | CR0_PE | CR0_WP | CR0_NE | CR0_ET, CR4_PAE | CR4_PGE,
                  EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE, CODE64, pl);
}

/* The next number of a sequence that `seed` starts. */
static inline uint32_t soft_rig_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)(*seed >> 32);
}

static inline void expect_fault(const struct soft_vcpu *v, unsigned vector, uint32_t error)
{
    assert_int_equal(v->fault.kind, FAULT_EXCEPTION);
    assert_int_equal(v->fault.vector, vector);
    assert_true(v->fault.has_error);
    assert_int_equal(v->fault.error, error);
}

#endif
