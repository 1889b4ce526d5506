#include "cpu/pv.h"

#include "base/clock.h"

#include "base/bits.h"

#include <errno.h>
#include <stdlib.h>

enum {
    MSR_KVM_WALL_CLOCK = 0x11,
    MSR_KVM_SYSTEM_TIME = 0x12,
    MSR_KVM_WALL_CLOCK_NEW = 0x4b564d00,
    MSR_KVM_SYSTEM_TIME_NEW = 0x4b564d01,
    MSR_KVM_STEAL_TIME = 0x4b564d03,
    MSR_KVM_PV_EOI = 0x4b564d04
};

enum { HC_VAPIC_POLL_IRQ = 1, HC_KICK_CPU = 5, HC_SEND_IPI = 10, HC_SCHED_YIELD = 11 };

#define HC_ENOSYS ((uint64_t)-1000)
#define HC_EINVAL ((uint64_t)-22)

#define STEAL_PREEMPTED 1u
#define STEAL_FLUSH_TLB 2u

/* struct pvclock_vcpu_time_info and pvclock_wall_clock as the guest reads them. */
struct pvclock {
    uint32_t version, pad;
    uint64_t tsc_timestamp, system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags, pad2[2];
};

struct pvwall {
    uint32_t version, sec, nsec;
};

struct pvsteal {
    uint64_t steal;
    uint32_t version, flags;
    uint8_t preempted, pad[47];
};

struct pv_cpu {
    uint64_t wall_msr, clock_msr, steal_msr; /* (v) */
    struct pvsteal *steal;                   /* (v) hva while enabled, of steal_at() */
    uint64_t left_at;                        /* (v) guest ns of the last pv_leave() */
    bool left_runnable;                      /* (v) */
    atomic_bool unhalted;                    /* (a) */
};

struct pv {
    struct pv_config cfg; /* (c) */
    struct pv_cpu cpu[];  /* (v) each */
};

int pv_create(const struct pv_config *c, struct pv **out, struct err *e)
{
    struct pv *pv = calloc(1, sizeof *pv + c->vcpus * sizeof pv->cpu[0]);
    if (!pv)
        return err_set(e, -ENOMEM, "out of memory for the paravirtual state of %u CPUs", c->vcpus);
    pv->cfg = *c;
    *out = pv;
    return 0;
}

void pv_destroy(struct pv *pv)
{
    free(pv);
}

static void pv_cpu_reset(struct pv_cpu *p)
{
    p->wall_msr = p->clock_msr = p->steal_msr = 0;
    p->steal = NULL;
    atomic_store(&p->unhalted, false);
}

void pv_reset(struct pv *pv)
{
    for (uint32_t i = 0; i < pv->cfg.vcpus; i++)
        pv_cpu_reset(&pv->cpu[i]);
}

/* Which feature a KVM MSR belongs to; 0: not one of ours. */
static uint32_t msr_feature(uint32_t msr)
{
    switch (msr) {
    case MSR_KVM_WALL_CLOCK:
    case MSR_KVM_SYSTEM_TIME:
        return PV_CLOCKSOURCE;
    case MSR_KVM_WALL_CLOCK_NEW:
    case MSR_KVM_SYSTEM_TIME_NEW:
        return PV_CLOCKSOURCE2;
    case MSR_KVM_STEAL_TIME:
        return PV_STEAL_TIME;
    case MSR_KVM_PV_EOI:
        return PV_EOI;
    default:
        return 0;
    }
}

bool pv_msr_read(struct pv *pv, vcpu_idx_t cpu, uint32_t msr, uint64_t *val)
{
    const struct pv_cpu *p = &pv->cpu[cpu.i];
    if (!(msr_feature(msr) & pv->cfg.features))
        return false;
    if (msr == MSR_KVM_STEAL_TIME)
        *val = p->steal_msr;
    else if (msr == MSR_KVM_PV_EOI)
        *val = fabric_pv_eoi_get(pv->cfg.fabric, cpu);
    else if (msr == MSR_KVM_SYSTEM_TIME || msr == MSR_KVM_SYSTEM_TIME_NEW)
        *val = p->clock_msr;
    else
        *val = p->wall_msr;
    return true;
}

/* The wall clock at guest time 0, so that kvmclock plus this is the time of day. */
static void write_wall(struct pv *pv, gpa_t gpa)
{
    uint8_t *at = ram_hva(pv->cfg.ram, gpa, sizeof(struct pvwall));
    if (!at)
        return;
    struct pvwall w = {.version = 2,
                       .sec = (uint32_t)(pv->cfg.wall_at_zero / NS_PER_SEC),
                       .nsec = (uint32_t)(pv->cfg.wall_at_zero % NS_PER_SEC)};
    memcpy(at, &w, sizeof w);
    ram_written(pv->cfg.ram, gpa, sizeof w);
}

/* kvmclock is the TSC itself: both count guest ns, so one fixed record serves for ever: ns = (tsc << 1) * 2^31 >> 32.
 */
static void write_clock(struct pv *pv, gpa_t gpa)
{
    uint8_t *at = ram_hva(pv->cfg.ram, gpa, sizeof(struct pvclock));
    if (!at)
        return;
    bool stable = pv->cfg.features & PV_CLOCKSOURCE_STABLE;
    struct pvclock c = {.version = 2, .tsc_to_system_mul = 1u << 31, .tsc_shift = 1, .flags = stable ? 1 : 0};
    memcpy(at, &c, sizeof c);
    ram_written(pv->cfg.ram, gpa, sizeof c);
}

static gpa_t steal_at(uint64_t msr)
{
    return msr & ~UINT64_C(0x3f);
}

static bool write_steal_msr(struct pv *pv, struct pv_cpu *p, uint64_t now, uint64_t val)
{
    if (val & 0x3e)
        return false;
    p->steal_msr = val;
    p->steal = val & 1 ? (struct pvsteal *)ram_hva(pv->cfg.ram, steal_at(val), sizeof(struct pvsteal)) : NULL;
    p->left_at = now;
    p->left_runnable = false;
    return true;
}

/* Bit 0 switches it on, bit 1 is reserved, the rest names 4 bytes of RAM. */
static bool write_eoi_msr(struct pv *pv, vcpu_idx_t cpu, uint64_t val)
{
    uint8_t *flag = val & 1 ? ram_hva(pv->cfg.ram, val & ~UINT64_C(3), 4) : NULL;
    if (val & 2 || (val & 1 && !flag))
        return false;
    fabric_pv_eoi_set(pv->cfg.fabric, cpu, val, flag);
    return true;
}

bool pv_msr_write(struct pv *pv, vcpu_idx_t cpu, uint64_t now, uint32_t msr, uint64_t val)
{
    struct pv_cpu *p = &pv->cpu[cpu.i];
    if (!(msr_feature(msr) & pv->cfg.features))
        return false;
    if (msr == MSR_KVM_STEAL_TIME)
        return write_steal_msr(pv, p, now, val);
    if (msr == MSR_KVM_PV_EOI)
        return write_eoi_msr(pv, cpu, val);
    if (msr == MSR_KVM_SYSTEM_TIME || msr == MSR_KVM_SYSTEM_TIME_NEW) {
        p->clock_msr = val;
        if (val & 1)
            write_clock(pv, val & ~UINT64_C(1));
        return true;
    }
    p->wall_msr = val;
    write_wall(pv, val);
    return true;
}

/* KVM_HC_SEND_IPI: bit n of the 128-bit map (64-bit without mode64) is APIC ID min + n. */
static uint64_t send_ipi(struct pv *pv, vcpu_idx_t cpu, const uint64_t a[4], bool mode64)
{
    uint64_t icr = a[3];
    unsigned mode = bits(icr, 10, 8), width = mode64 ? 64 : 32;
    if (bits(icr, 11, 11) || bits(icr, 19, 18) || (mode != IRQ_FIXED && mode != IRQ_NMI))
        return HC_EINVAL;
    uint64_t sent = 0;
    for (unsigned word = 0; word < 2; word++)
        for (uint64_t map = a[word]; map; map &= map - 1) {
            uint64_t id = a[2] + word * width + (unsigned)__builtin_ctzll(map);
            if (id > UINT32_MAX - 1)
                return HC_EINVAL;
            struct irq irq = {.dest = (uint32_t)id, .vector = (uint8_t)icr, .mode = (uint8_t)mode, .assert_ = 1};
            sent += fabric_deliver_from(pv->cfg.fabric, cpu, irq) > 0;
        }
    return sent;
}

static bool find(struct pv *pv, uint64_t id, vcpu_idx_t *out)
{
    return id < UINT32_MAX && fabric_find(pv->cfg.fabric, APIC_ID(id), out);
}

static uint64_t kick_cpu(struct pv *pv, uint64_t id)
{
    vcpu_idx_t target;
    if (find(pv, id, &target)) {
        atomic_store(&pv->cpu[target.i].unhalted, true);
        fabric_kick(pv->cfg.fabric, target);
    }
    return 0;
}

/* Which feature a hypercall belongs to. */
static uint32_t hypercall_feature(uint64_t nr)
{
    switch (nr) {
    case HC_KICK_CPU:
        return PV_UNHALT;
    case HC_SEND_IPI:
        return PV_SEND_IPI;
    case HC_SCHED_YIELD:
        return PV_SCHED_YIELD;
    default:
        return 0;
    }
}

bool pv_hypercall(struct pv *pv, vcpu_idx_t cpu, uint64_t nr, const uint64_t args[4], bool mode64, uint64_t *ret,
                  vcpu_idx_t *yield_to)
{
    uint64_t a[4];
    for (unsigned i = 0; i < 4; i++)
        a[i] = mode64 ? args[i] : (uint32_t)args[i];
    nr = mode64 ? nr : (uint32_t)nr;
    *ret = 0;
    if (nr == HC_VAPIC_POLL_IRQ)
        return false;
    if (!(hypercall_feature(nr) & pv->cfg.features)) {
        *ret = HC_ENOSYS;
        return false;
    }
    if (nr == HC_SEND_IPI)
        *ret = send_ipi(pv, cpu, a, mode64);
    else if (nr == HC_KICK_CPU)
        *ret = kick_cpu(pv, a[1]);
    else
        return find(pv, a[0], yield_to);
    return false;
}

bool pv_unhalt_take(struct pv *pv, vcpu_idx_t cpu)
{
    atomic_bool *u = &pv->cpu[cpu.i].unhalted;
    return atomic_load_explicit(u, memory_order_relaxed) && atomic_exchange(u, false);
}

bool pv_enter(struct pv *pv, vcpu_idx_t cpu, uint64_t now)
{
    struct pv_cpu *p = &pv->cpu[cpu.i];
    struct pvsteal *s = p->steal;
    if (!s)
        return false;
    if (p->left_runnable && now > p->left_at) {
        __atomic_store_n(&s->version, s->version + 1, __ATOMIC_RELEASE);
        __atomic_store_n(&s->steal, s->steal + (now - p->left_at), __ATOMIC_RELEASE);
        __atomic_store_n(&s->version, s->version + 1, __ATOMIC_RELEASE);
        p->left_runnable = false;
    }
    uint8_t old = __atomic_exchange_n(&s->preempted, 0, __ATOMIC_SEQ_CST);
    ram_written(pv->cfg.ram, steal_at(p->steal_msr), sizeof *s);
    return (old & STEAL_FLUSH_TLB) && (pv->cfg.features & PV_TLB_FLUSH);
}

void pv_leave(struct pv *pv, vcpu_idx_t cpu, uint64_t now, bool runnable)
{
    struct pv_cpu *p = &pv->cpu[cpu.i];
    p->left_at = now;
    p->left_runnable = runnable;
    if (!p->steal)
        return;
    __atomic_store_n(&p->steal->preempted, STEAL_PREEMPTED, __ATOMIC_SEQ_CST);
    ram_written(pv->cfg.ram, steal_at(p->steal_msr), sizeof *p->steal);
}
