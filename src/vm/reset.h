/* The state vCPUs start from. Private to vm/. */
#ifndef HEC_VM_RESET_H
#define HEC_VM_RESET_H

#include "boot/boot.h"
#include "cpu/state.h"

/* Power-on state, then what boot.h says of `entry`: what firmware would have left to the kernel's boot CPU. Any thread.
 */
void reset_boot_cpu(const struct boot_entry *entry, struct cpu_state *s);

#endif
