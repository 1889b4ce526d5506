/* The seam between whoever runs vCPUs (vm/runner) and whatever executes them (the built-in engine, later KVM).
 *
 * Protocol: vcpu_run() executes one vCPU on the calling worker thread until its budget is used, it has nothing to do,
 * or somebody asked for its attention. A vCPU is run by one thread at a time; any thread may kick() it.
 */
#ifndef HEC_CPU_ENGINE_H
#define HEC_CPU_ENGINE_H

#include "base/clock.h"
#include "base/epoch.h"
#include "base/err.h"
#include "base/trace.h"
#include "cpu/state.h"
#include "irq/fabric.h"
#include "mem/bus.h"
#include "mem/ram.h"

struct cpuid_model;
struct pv;
struct engine_vm;
struct engine_vcpu;

enum cpu_exit_kind {
    CPU_EXIT_BUDGET,   /* the budget is used up */
    CPU_EXIT_HALT,     /* HLT (or still halted, or waiting for a SIPI): park until kicked or the APIC timer is due */
    CPU_EXIT_TPAUSE,   /* TPAUSE/UMWAIT: as HALT, but wakes by itself at `until` */
    CPU_EXIT_SPIN,     /* many PAUSEs, or the guest yielded: run somebody else, `yield_to` first if it is valid */
    CPU_EXIT_KICKED,   /* ATTN_EXIT was set */
    CPU_EXIT_SHUTDOWN, /* triple fault */
    CPU_EXIT_ERROR     /* the engine's host failed; `err` says how */
};

struct cpu_run {
    /* in */
    uint64_t now;    /* guest ns at entry (virtual time: one instruction is one ns) */
    uint64_t budget; /* instructions; the engine may overrun by one block */
    unsigned worker; /* 0 .. workers-1: which worker thread this is */
    /* out */
    uint64_t used; /* instructions executed */
    enum cpu_exit_kind exit;
    uint64_t until; /* CPU_EXIT_TPAUSE: guest ns */
    bool has_yield_to;
    vcpu_idx_t yield_to;
    const char *err;
};

/* Reasons for attention, OR-ed into a vCPU's attention word by engine_ops.kick(). */
enum cpu_attn {
    ATTN_IRQ = 1,  /* look at the local APIC (vector, event or timer) */
    ATTN_EXIT = 2, /* leave vcpu_run() with CPU_EXIT_KICKED */
    ATTN_EXCL = 4  /* engine-internal: another worker wants the machine to itself for a moment */
};

struct engine_config {
    uint32_t vcpus;
    const apic_id_t *ids; /* [vcpus], copied */
    unsigned workers;     /* threads that will call vcpu_run() */
    struct ram *ram;      /* all borrowed for the engine's life */
    struct bus *mmio, *ports;
    struct fabric *fabric;
    const struct cpuid_model *cpuid;
    struct pv *pv;
    struct guest_clock *clock;
    const struct trace *trace;
    bool deterministic; /* seeded RDRAND, no host time */
    uint64_t seed;
};

struct engine_ops {
    const char *name;
    /* ---- lifecycle ---- */
    int (*vm_create)(const struct engine_config *c, struct engine_vm **out, struct err *e);
    void (*vm_destroy)(struct engine_vm *vm);
    struct engine_vcpu *(*vcpu)(struct engine_vm *vm, vcpu_idx_t idx);
    /* ---- any thread ---- */
    void (*kick)(struct engine_vcpu *v, unsigned attn);
    /* The attention word. The runner parks a vCPU only if it is 0 after the vCPU has been marked parked. */
    unsigned (*attn)(const struct engine_vcpu *v);
    /* RAM was written by somebody else than a vCPU (a loader, a device): forget what was made of the old bytes. */
    void (*ram_written)(struct engine_vm *vm, gpa_t gpa, uint64_t len);
    /* ---- the thread that runs the vCPU (or nobody runs it) ---- */
    void (*vcpu_run)(struct engine_vcpu *v, struct cpu_run *run);
    void (*get_state)(struct engine_vcpu *v, struct cpu_state *out);
    void (*set_state)(struct engine_vcpu *v, const struct cpu_state *in);
    /* Give back caches of a vCPU that has been parked for long. It is not running. */
    void (*vcpu_trim)(struct engine_vcpu *v);
};

extern const struct engine_ops engine_soft;

#endif
