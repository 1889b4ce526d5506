/* The KVM paravirtual ABI, in software: MSRs 11h-12h and 4b564d00h-04h, hypercalls, kvmclock, steal time.
 *
 * Same words as Linux' Documentation/virt/kvm/x86/{msr,hypercalls,cpuid}.rst. One struct pv_cpu a vCPU, inside struct
 * pv.
 */
#ifndef HEC_CPU_PV_H
#define HEC_CPU_PV_H

#include "base/err.h"
#include "irq/fabric.h"
#include "mem/ram.h"

struct pv;

struct pv_config {
    uint32_t vcpus;
    uint32_t features;     /* KVM_FEATURE_* bits offered in leaf 40000001h; 0: no PV at all */
    struct ram *ram;       /* borrowed */
    struct fabric *fabric; /* borrowed */
    uint64_t wall_at_zero; /* ns since 1970 at guest time 0 */
};

/* KVM_FEATURE_* bits this implements (leaf 40000001h EAX). */
enum pv_feature {
    PV_CLOCKSOURCE = 1u << 0,
    PV_NOP_IO_DELAY = 1u << 1,
    PV_CLOCKSOURCE2 = 1u << 3,
    PV_STEAL_TIME = 1u << 5,
    PV_EOI = 1u << 6,
    PV_UNHALT = 1u << 7,
    PV_TLB_FLUSH = 1u << 9,
    PV_SEND_IPI = 1u << 11,
    PV_SCHED_YIELD = 1u << 13,
    PV_EXT_DEST_ID = 1u << 15,
    PV_CLOCKSOURCE_STABLE = 1u << 24
};

/* ---- lifecycle ---- */
int pv_create(const struct pv_config *c, struct pv **out, struct err *e);
void pv_destroy(struct pv *pv);
void pv_reset(struct pv *pv);

/* ---- the owning vCPU's thread only ---- */
/* MSRs of the KVM ranges. False: not one of ours or a bad value, i.e. #GP. */
bool pv_msr_read(struct pv *pv, vcpu_idx_t cpu, uint32_t msr, uint64_t *val);
bool pv_msr_write(struct pv *pv, vcpu_idx_t cpu, uint64_t now, uint32_t msr, uint64_t val);
/* VMCALL/VMMCALL at CPL 0: nr = RAX, a0..a3 = RBX, RCX, RDX, RSI; the result goes to RAX. `mode64` is false when the
 * caller is not in 64-bit mode (arguments are then 32-bit). `yield_to` gets the target of SCHED_YIELD, and true is
 * returned when the caller should give up its worker. */
bool pv_hypercall(struct pv *pv, vcpu_idx_t cpu, uint64_t nr, const uint64_t a[4], bool mode64, uint64_t *ret,
                  vcpu_idx_t *yield_to);
/* Whether KICK_CPU has woken this vCPU since the last call (clears it). */
bool pv_unhalt_take(struct pv *pv, vcpu_idx_t cpu);
/* The vCPU gets a worker: clears steal_time.preempted, adds the time since pv_leave() to steal if it was runnable, and
 * refreshes kvmclock where asked. True: a TLB flush was requested meanwhile, the caller must do it. */
bool pv_enter(struct pv *pv, vcpu_idx_t cpu, uint64_t now);
/* The vCPU loses its worker: sets steal_time.preempted. `runnable` is false when it halts. */
void pv_leave(struct pv *pv, vcpu_idx_t cpu, uint64_t now, bool runnable);

#endif
