/* The KVM engine's machine and vCPU, and the rules every part of cpu/kvm keeps. Private to cpu/kvm and its tests.
 *
 * Parts:   kvm_sys.c     system calls, one seam for tests
 *          kvm_probe.c   what the host can do
 *          kvm_vm.c      making a machine and its vCPUs; engine_kvm
 *          kvm_cpuid.c   CPUID
 *          kvm_run.c     vcpu_run(), kicks, exits; kvm_report.c what to say when it ends badly
 *          kvm_irq.c     behind irq_port: messages, pins, GSI routes, eventfds
 *          kvm_state.c kvm_apic.c   struct cpu_state and cpu_apic; kvm_chips.c the kernel's other chips
 *          kvm_dirty.c kvm_stats.c kvm_inhibit.c
 *
 * Everything is allocated by vm_create(), so that what runs later can't run out of memory of its own.
 */
#ifndef HEC_CPU_KVM_KVM_PRIV_H
#define HEC_CPU_KVM_KVM_PRIV_H

#include "base/bits.h"
#include "cpu/engine.h"
#include "cpu/kvm/kvm_cpuid.h"
#include "cpu/kvm/kvm_sys.h"
#include "irq/remap.h"

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#define KVM_PINS     24 /* GSIs 0 .. 23 are the I/O APIC's pins, in either form of irqchip */
#define KVM_TEXT_MAX 512

struct kvm_vm;

struct kvm_vcpu {
    struct kvm_vm *vm;     /* (c) */
    vcpu_idx_t idx;        /* (c) */
    apic_id_t id;          /* (c) and KVM's vCPU id */
    int fd;                /* (c) -1: not made */
    int stats_fd;          /* (c) -1: none */
    struct kvm_run *run;   /* (c) shared with the kernel; immediate_exit is (a) */
    _Atomic uint32_t attn; /* (a) enum cpu_attn */
    _Atomic int tid;       /* (a) the thread that is in vcpu_run(), 0: none */
    bool incomplete;       /* (v) an access was served that the next KVM_RUN writes back */
    bool shutdown;         /* (v) CPU_SHUTDOWN, which KVM has no state for */
    int refused_rc;        /* (v) set_state(): why KVM did not take it, 0: it did */
    const char *refused;   /* (v) and which call */
    uint64_t missing; /* (v) MSRs by their number in kvm_state.c's table that KVM would not take: `kept` has them */
    struct cpu_state kept;                      /* (v) as last set */
    uint64_t tsc_base;                          /* (v) KVM's offset of the TSC when `kept` was set */
    _Atomic uint64_t exits, mmio, pio, signals; /* (a) written by its own thread */
    char text[KVM_TEXT_MAX];                    /* (v) cpu_run.err */
};

/* A GSI's route past the pins. */
struct kvm_route {
    bool used, routed;
    requester_id_t from;
    const struct remap *remap;
    struct msi_msg msg; /* as the device has it */
    uint32_t cookie;
    struct irq irq; /* if `routed` */
};

struct kvm_irq {
    pthread_mutex_t lock;          /* never held while anybody but the kernel is called */
    unsigned gsis;                 /* (c) GSIs there are, the pins included */
    struct kvm_route *route;       /* (l) [gsis] */
    struct irq pin[KVM_PINS];      /* (l) */
    uint32_t pin_routed;           /* (l) bit: `pin` is to be routed */
    _Atomic bool stale;            /* (a) written under the lock: the kernel's table is behind */
    struct kvm_irq_routing *table; /* (l) room for all */
    struct kvm_irq_routing *last;  /* (l) what the kernel took last */
    _Atomic bool intr;             /* (a) the PIC's INTR */
};

struct kvm_dirty {
    _Atomic bool on;
    _Atomic uint64_t *device; /* (c) while on: a bit a RAM page that others than vCPUs wrote */
    uint64_t *log;            /* (c) while on: what KVM logged of one slot */
    pthread_mutex_t lock;     /* fetching, and switching on and off */
};

/* Where a number is in KVM's binary statistics of a vCPU. */
struct kvm_stats {
    uint64_t at[7]; /* (c) file offset, 0: KVM does not count it */
};

struct kvm_vm {
    struct engine_config cfg;  /* (c) `ids` is our own copy */
    struct cpuid_model model;  /* (c) with KVM's TSC rate */
    const struct kvm_sys *sys; /* (c) */
    int dev, fd;               /* (c) -1: none */
    size_t run_size;           /* (c) bytes of struct kvm_run and what follows */
    size_t xsave_size;         /* (c) bytes KVM_GET_XSAVE gives; 0: KVM_GET_FPU instead */
    bool wide_ids;             /* (c) KVM_X2APIC_API_USE_32BIT_IDS is on */
    bool has_xcrs, has_clear_dirty, has_stats, has_tsc_offset; /* (c) */
    bool software;                                             /* (c) a KVM without VMX or SVM */
    struct kvm_vcpu *vcpu;                                     /* (c) [cfg.vcpus] */
    struct kvm_irq irq;
    struct kvm_dirty dirty;
    struct kvm_stats stats;
    int inhibit_trace;                         /* (c) kvm_inhibit.c's; -1: inhibits can't be read */
    char inhibit_dir[64];                      /* (c) */
    pthread_mutex_t stats_lock;                /* reading the inhibits' trace */
    _Atomic uint32_t inhibits;                 /* (a) as last read */
    void (*eoi)(void *opaque, uint8_t vector); /* (c) */
    void *eoi_opaque;                          /* (c) */
};

static inline struct kvm_vm *kvm_vm_of(struct engine_vm *vm)
{
    return (struct kvm_vm *)vm;
}

static inline struct kvm_vcpu *kvm_vcpu_of(struct engine_vcpu *v)
{
    return (struct kvm_vcpu *)v;
}

static inline int kvm_vm_iop(struct kvm_vm *vm, unsigned long request, void *arg)
{
    return kvm_iop(vm->sys, vm->fd, request, arg);
}

static inline int kvm_vcpu_iop(struct kvm_vcpu *v, unsigned long request, void *arg)
{
    return kvm_iop(v->vm->sys, v->fd, request, arg);
}

/* ---- kvm_probe.c ---- */
/* Whether this host's KVM is on VMX or SVM. */
bool kvm_has_hardware(void);

/* ---- kvm_vm.c ---- */
/* engine_kvm's vm_create() on another kernel than the host's. `sys` is borrowed for the machine's life. */
int kvm_vm_create_on(const struct kvm_sys *sys, const struct engine_config *c, struct engine_vm **out, struct err *e);

/* ---- kvm_run.c ---- */
void kvm_vcpu_run(struct engine_vcpu *v, struct cpu_run *run);
void kvm_kick(struct engine_vcpu *v, unsigned attn);
/* Set the kick signal's handler. -errno. */
int kvm_kick_init(struct err *e);

/* ---- kvm_report.c: one line in v->text ---- */
void kvm_report_internal(struct kvm_vcpu *v);
void kvm_report_entry(struct kvm_vcpu *v);
void kvm_report_exit(struct kvm_vcpu *v);
void kvm_report_run(struct kvm_vcpu *v, int rc);
void kvm_report_state(struct kvm_vcpu *v);

/* ---- kvm_irq.c ---- */
int kvm_irq_init(struct kvm_vm *vm, struct err *e);
void kvm_irq_fini(struct kvm_vm *vm);
struct irq_port kvm_port(struct engine_vm *vm);
void kvm_intr(struct engine_vm *vm, bool level);
void kvm_gsi(struct engine_vm *vm, unsigned gsi, bool level);
/* Once there is a machine: the kernel's irqchip gets its pins. */
int kvm_irq_start(struct kvm_vm *vm, struct err *e);

/* ---- kvm_state.c ---- */
void kvm_get_state(struct engine_vcpu *v, struct cpu_state *out);
void kvm_set_state(struct engine_vcpu *v, const struct cpu_state *in);
/* One MSR; false: KVM has none of that number, or not with this value. */
bool kvm_msr_get(struct kvm_vcpu *v, uint32_t msr, uint64_t *val);
bool kvm_msr_set(struct kvm_vcpu *v, uint32_t msr, uint64_t val);

/* ---- kvm_apic.c ---- */
void kvm_get_apic(struct engine_vcpu *v, struct cpu_apic *out);
bool kvm_set_apic(struct engine_vcpu *v, const struct cpu_apic *in);
int kvm_apic_reset(struct engine_vm *vm, struct err *e);
/* A vCPU has just been made: its APIC's mode as after reset. */
void kvm_apic_first(struct kvm_vcpu *v);

/* ---- kvm_chips.c ---- */
/* Power-on reset of the kernel's PIC and I/O APIC. -errno. */
int kvm_chips_reset(struct kvm_vm *vm);

/* ---- kvm_dirty.c ---- */
void kvm_dirty_init(struct kvm_vm *vm);
void kvm_dirty_fini(struct kvm_vm *vm);
/* (Re)set both memory slots with or without dirty logging. -errno. */
int kvm_slots_set(struct kvm_vm *vm, bool log);
void kvm_ram_written(struct engine_vm *vm, gpa_t gpa, uint64_t len);
int kvm_dirty_track(struct engine_vm *vm, bool on, struct err *e);
int kvm_dirty_fetch(struct engine_vm *vm, void (*run)(void *opaque, gpa_t gpa, uint64_t len), void *opaque);

/* ---- kvm_stats.c ---- */
/* Before the vCPU runs: the kernel gives the file out to nobody else then. */
void kvm_stats_open(struct kvm_vcpu *v);
void kvm_stats_get(struct engine_vm *vm, struct engine_stats *out);

/* ---- kvm_inhibit.c ---- */
/* Begin to listen, before the machine is made. Nothing happens where tracefs is not this user's. */
void kvm_inhibit_open(struct kvm_vm *vm);
void kvm_inhibit_close(struct kvm_vm *vm);
/* Take the last state from lines as the event writes them: "... set reason=8, inhibits=0x120". */
void kvm_inhibit_parse(struct kvm_vm *vm, const char *text);
/* What has been seen so far; false: not known. */
bool kvm_inhibit_read(struct kvm_vm *vm, uint32_t *out);

#endif
