/* The seam between whoever runs vCPUs (vm/runner) and whatever executes them (the built-in engine, KVM).
 *
 * Protocol: vcpu_run() executes one vCPU on the calling thread until its budget is used, it has nothing to do, or
 * somebody asked for its attention. A vCPU is run by one thread at a time; any thread may kick() it.
 *
 * An engine with ENGINE_OWN_THREADS wants a thread for each vCPU: its vcpu_run() knows no budget, waits by itself while
 * the vCPU is halted, and comes back only for ATTN_EXIT, a shutdown or an error. One with ENGINE_OWN_APICS has local
 * APICs of its own: there is no fabric, interrupts go to its port().
 *
 * Whoever runs vCPUs is inside the machine's epoch while vcpu_run() runs, except with ENGINE_OWN_THREADS: that
 * vcpu_run() is called outside, and enters (cpu_run.epoch_slot) only while it serves an exit of the guest.
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
    int epoch_slot;  /* this thread's, for ENGINE_OWN_THREADS */
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

enum engine_trait { ENGINE_OWN_APICS = 1, ENGINE_OWN_THREADS = 2 };

/* Where the PIC and the I/O APIC are, for an engine with APICs of its own: enum vm_irqchip's split, on, off. */
enum engine_irqchip { ENGINE_IRQCHIP_SPLIT, ENGINE_IRQCHIP_KERNEL, ENGINE_IRQCHIP_OFF };

struct engine_config {
    uint32_t vcpus;
    const apic_id_t *ids; /* [vcpus], copied */
    unsigned workers;     /* threads that will call vcpu_run() */
    struct ram *ram;      /* all borrowed for the engine's life */
    struct bus *mmio, *ports;
    struct fabric *fabric; /* NULL if the engine has ENGINE_OWN_APICS */
    const struct cpuid_model *cpuid;
    struct pv *pv;
    struct guest_clock *clock;
    struct epoch *epoch;
    const struct trace *trace;
    bool deterministic; /* seeded RDRAND, no host time */
    uint64_t seed;
    bool jit;          /* the built-in engine may translate what runs often into host code */
    uint32_t jit_heat; /* executions after which a block is translated; 0: the translator's default */
    /* for ENGINE_OWN_APICS */
    enum engine_irqchip irqchip;
    bool firmware_x2apic; /* as fabric_config has them */
    bool x2apic_8bit_ids; /* x2apic-32bit-ids=off */
    bool x2apic_broadcast_quirk;
    bool apicv_off;
    uint8_t (*extint_ack)(void *opaque); /* vector of the PIC's pending interrupt (INTA cycle) */
    void *extint_opaque;
};

struct engine_stats {
    uint64_t exits, mmio, pio, irq_exits, halts, signal_exits, injected; /* summed over vCPUs, since creation */
    uint32_t inhibits;                                                   /* APICv inhibits now (inhibit.h) */
    bool inhibits_known;                                                 /* the host lets them be read */
    uint32_t started; /* vCPUs that have run guest code since they were reset */
};

struct engine_ops {
    const char *name;
    unsigned traits; /* enum engine_trait */
    /* ---- lifecycle ---- */
    int (*vm_create)(const struct engine_config *c, struct engine_vm **out, struct err *e);
    void (*vm_destroy)(struct engine_vm *vm);
    struct engine_vcpu *(*vcpu)(struct engine_vm *vm, vcpu_idx_t idx);
    /* Power-on reset of every local APIC, as fabric_reset(): no vCPU runs. NULL without ENGINE_OWN_APICS. */
    int (*apic_reset)(struct engine_vm *vm, struct err *e);
    /* ---- any thread, only with ENGINE_OWN_APICS (else NULL) ---- */
    struct irq_port (*port)(struct engine_vm *vm);
    /* Who is told of the EOI of a level-triggered vector, on the vCPU's thread; set once at wiring. */
    void (*set_eoi)(struct engine_vm *vm, void (*eoi)(void *opaque, uint8_t vector), void *opaque);
    /* Level of the PIC's INTR at the boot CPU's LINT0; the engine then calls extint_ack() when the CPU takes it. */
    void (*intr)(struct engine_vm *vm, bool level);
    /* ENGINE_IRQCHIP_KERNEL: level of an ISA interrupt or GSI at the kernel's PIC and I/O APIC. */
    void (*gsi)(struct engine_vm *vm, unsigned gsi, bool level);
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
    /* The local APIC and what is pending, for handing a vCPU over between engines, or keeping it. */
    void (*get_apic)(struct engine_vcpu *v, struct cpu_apic *out);
    bool (*set_apic)(struct engine_vcpu *v, const struct cpu_apic *in); /* false: no state an APIC can be in */
    /* Give back caches of a vCPU that has been parked for long. It is not running. */
    void (*vcpu_trim)(struct engine_vcpu *v);
    /* ---- any thread; NULL: not kept ---- */
    void (*stats)(struct engine_vm *vm, struct engine_stats *out);
    /* Dirty tracking: switch it on or off; fetch and clear, a call of `run` for each run of dirty RAM. -errno. */
    int (*dirty_track)(struct engine_vm *vm, bool on, struct err *e);
    int (*dirty_fetch)(struct engine_vm *vm, void (*run)(void *opaque, gpa_t gpa, uint64_t len), void *opaque);
};

extern const struct engine_ops engine_soft;
extern const struct engine_ops engine_kvm; /* kvm/kvm.h says what the host's KVM can do */

#endif
