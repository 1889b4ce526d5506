/* The KVM engine: what the host's KVM can do, the CPU model it gives, and interrupts that come by an eventfd.
 *
 * engine_kvm (engine.h) has ENGINE_OWN_APICS and ENGINE_OWN_THREADS. Its local APICs are the kernel's, always: with
 * kernel-irqchip=split or on. off is refused at vm_create(), because then nothing would deliver interrupts.
 *
 * Rules for whoever calls it:
 * - A vCPU's thread must not block KVM_KICK_SIGNAL; the engine's handler for it does nothing and is set at vm_create().
 * - engine_config.pv is NULL: the kernel has the paravirtual ABI. Guest time is real (guest_clock.real).
 * - engine_config.cpuid is kvm_cpuid_model()'s. Its APIC IDs are KVM's vCPU IDs; ids[0] is the boot CPU.
 * - System calls once vCPUs run: ioctl, tgkill, gettid, getpid and sched_yield, for statistics pread64 and read, and
 *   rmdir at the end if -d irq made a trace instance. No file is opened then.
 *
 * KVM_CAP_EXCEPTION_PAYLOAD is left off on purpose: without it the kernel has put a pending exception's payload in CR2
 * or DR6 by the time state is read, as struct cpu_apic wants it.
 */
#ifndef HEC_CPU_KVM_KVM_H
#define HEC_CPU_KVM_KVM_H

#include "base/err.h"
#include "cpu/cpuid.h"
#include "cpu/engine.h"
#include "irq/remap.h"

#include <signal.h>

#define KVM_KICK_SIGNAL SIGUSR1 /* ordinary, so that many kicks become one */

/* ---- what the host's KVM can do ---- */

struct kvm_probe {
    int open_errno;        /* /dev/kvm did not open; 0: it did, and all below is valid */
    int api_version;       /* 12, or this is no KVM we know */
    int vm_errno;          /* KVM_CREATE_VM; 0: it worked */
    bool hardware;         /* on VMX or SVM: runs unmodified guests. False: a KVM in software, which runs its own
                              paravirtual kind and emulates everything else, slowly and not wholly */
    uint32_t max_vcpus;    /* KVM_CAP_MAX_VCPUS */
    uint32_t max_vcpu_ids; /* IDs are below this: KVM_CAP_MAX_VCPU_ID */
    int split_errno;       /* enabling KVM_CAP_SPLIT_IRQCHIP; 0: it works, ENOTSUP: not offered */
    int x2apic_errno;      /* the same for KVM_CAP_X2APIC_API with 32-bit IDs and no broadcast quirk */
};

/* Ask. Never fails: `p` says what did. Opens /dev/kvm and makes a machine that lives for the call. Any thread. */
void kvm_probe(struct kvm_probe *p);
/* Whether a machine of so many vCPUs with IDs up to `max_id` can be made with what the probe found: 0, or -errno with
 * one line that says which limit stands against it and what to do. */
int kvm_probe_check(const struct kvm_probe *p, uint32_t vcpus, uint32_t max_id, struct err *e);

/* ---- interrupts by eventfd (VFIO, vhost): GSIs past the pins ---- */

/* A free GSI (24 and up), or -ENOSPC. Any thread, as all below. */
int kvm_gsi_alloc(struct engine_vm *vm);
/* Its route goes; eventfds have been deassigned. */
void kvm_gsi_free(struct engine_vm *vm, unsigned gsi);
/* What `gsi` sends: `msg` of the device `from`, through `remap` (borrowed while the route is). The kernel learns of it
 * at kvm_gsi_commit(), so that many changes cost one call. True: routed; false: the message is a fault now, nothing is
 * sent. A device's masked vector: kvm_gsi_unroute(). */
bool kvm_gsi_route(struct engine_vm *vm, unsigned gsi, const struct remap *remap, struct msi_msg msg,
                   requester_id_t from);
void kvm_gsi_unroute(struct engine_vm *vm, unsigned gsi);
/* Tell the kernel. A route that it refuses is taken out and traced, and sends nothing; the others hold. 0, or -errno if
 * the kernel takes no table at all. */
int kvm_gsi_commit(struct engine_vm *vm);
/* A remap_stale.fn, opaque is the engine_vm: look the routes with these cookies up again, and commit. May be called
 * under a remapping unit's lock. */
void kvm_gsi_stale(void *vm, uint32_t first, uint32_t last);
/* Counting up `event_fd` (not owned) raises `gsi`. With `resample_fd` >= 0 it is a level: it stays up until the guest's
 * EOI, which counts up that one; only with kernel-irqchip=on. -errno with the reason. */
int kvm_irqfd_assign(struct engine_vm *vm, unsigned gsi, int event_fd, int resample_fd, struct err *e);
void kvm_irqfd_deassign(struct engine_vm *vm, unsigned gsi, int event_fd);

/* ---- CPUID ---- */

/* Fill `m` for -cpu `spec` as cpuid_model_init() does, but from what KVM supports of the host's CPU: every model name
 * means the host's CPU, flags take away from it or add what KVM can do and does not offer by itself. -ENOTSUP for flags
 * KVM has not; -errno if /dev/kvm does not answer. */
int kvm_cpuid_model(struct cpuid_model *m, const char *spec, const struct cpu_topology *topo, uint32_t vcpus,
                    uint32_t max_apic_id, struct err *e);

#endif
