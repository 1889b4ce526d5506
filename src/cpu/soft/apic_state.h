/* A vCPU's APIC and what is pending at it, for a hand-over. Owning vCPU's thread, or nobody runs it. */
#ifndef HEC_CPU_SOFT_APIC_STATE_H
#define HEC_CPU_SOFT_APIC_STATE_H

#include "cpu/soft/soft.h"

/* engine_ops. */
void soft_get_apic(struct engine_vcpu *v, struct cpu_apic *out);
bool soft_set_apic(struct engine_vcpu *v, const struct cpu_apic *in);
/* Deliver what soft_set_apic() brought that was on its way already; in vcpu_run(). False: the vCPU shut down. */
bool handed_take(struct soft_vcpu *v);
/* The paravirtual MSRs, from and to cpu/pv. */
void soft_get_pv(struct soft_vcpu *v, struct cpu_state *out);
void soft_set_pv(struct soft_vcpu *v, const struct cpu_state *in);

#endif
