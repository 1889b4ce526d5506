/* The state vCPUs start from. Private to vm/. */
#ifndef HEC_VM_RESET_H
#define HEC_VM_RESET_H

#include "boot/boot.h"
#include "cpu/state.h"
#include "irq/fabric.h"

/* Power-on state, then what boot.h says of `entry`: what firmware would have left to the kernel's boot CPU. Any thread.
 */
void reset_boot_cpu(const struct boot_entry *entry, struct cpu_state *s);
/* What firmware sets on every CPU: memory types (all RAM write-back), feature control locked. Any thread. */
void reset_firmware_msrs(struct cpu_state *s);
/* Virtual wire mode as firmware leaves it on the boot CPU: APIC enabled, LINT0 ExtINT, LINT1 NMI. Inside the epoch; no
 * vCPU runs. */
void reset_apic_wiring(struct fabric *f, uint64_t now);
/* The same in a local APIC's registers as a whole, for an engine that has its own. */
void reset_apic_regs(struct cpu_apic *a);

#endif
