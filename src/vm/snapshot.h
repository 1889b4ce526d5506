/* A paused machine's CPUs as plain data: what an engine can hand over, of every vCPU. RAM and devices are not here.
 * Private to vm/.
 *
 * The owner's thread, between machine_stop() and machine_start() (or before the first): no vCPU runs.
 */
#ifndef HEC_VM_SNAPSHOT_H
#define HEC_VM_SNAPSHOT_H

#include "cpu/state.h"
#include "vm/machine.h"

struct machine_cpu {
    struct cpu_state state;
    struct cpu_apic apic;
};

struct machine_snapshot {
    uint32_t cpus;
    struct machine_cpu cpu[]; /* by vCPU index */
};

/* One vCPU; padding is zero. */
void machine_cpu_get(struct machine *m, vcpu_idx_t cpu, struct machine_cpu *out);
/* False: it is no state a local APIC can be in; the vCPU is then undefined. */
bool machine_cpu_set(struct machine *m, vcpu_idx_t cpu, const struct machine_cpu *in);
/* All of them, into memory that the caller frees. -ENOMEM. */
int machine_snapshot(struct machine *m, struct machine_snapshot **out, struct err *e);
/* The other way, also into a machine of another engine with the same number of vCPUs and the same APIC IDs. -EINVAL:
 * another number, or what machine_cpu_set() refuses. */
int machine_restore(struct machine *m, const struct machine_snapshot *s, struct err *e);
/* Folds one vCPU into a hash. Pure. */
uint64_t machine_cpu_hash(uint64_t h, const struct machine_cpu *c);

#endif
