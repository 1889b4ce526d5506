/* RDMSR and WRMSR. SDM 4, "Architectural MSRs". Owning vCPU's thread only. */
#ifndef HEC_CPU_SOFT_MSR_H
#define HEC_CPU_SOFT_MSR_H

#include "cpu/soft/soft.h"

/* False: #GP(0) (unknown MSR, reserved bits, illegal transition); a TRACE_MSR line names it. */
bool msr_read(struct soft_vcpu *v, uint32_t msr, uint64_t *val);
bool msr_write(struct soft_vcpu *v, uint32_t msr, uint64_t val);
/* Control-register writes with their #GP conditions (SDM 3A, "Control Registers"); used by MOV CR, LMSW, CLTS, task
 * switches and RSM. `cr` is 0, 3, 4 or 8. Flushes what must be flushed and calls mode_update(). */
bool cr_write(struct soft_vcpu *v, unsigned cr, uint64_t val);

#endif
