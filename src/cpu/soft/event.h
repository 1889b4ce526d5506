/* Exceptions, interrupts and the events that reset a vCPU. SDM 3A, "Interrupt and Exception Handling". Owning vCPU's
 * thread only; st.rip and RFLAGS are exact on entry.
 */
#ifndef HEC_CPU_SOFT_EVENT_H
#define HEC_CPU_SOFT_EVENT_H

#include "cpu/soft/soft.h"

enum vector {
    VEC_DE = 0,
    VEC_DB = 1,
    VEC_NMI = 2,
    VEC_BP = 3,
    VEC_OF = 4,
    VEC_BR = 5,
    VEC_UD = 6,
    VEC_NM = 7,
    VEC_DF = 8,
    VEC_TS = 10,
    VEC_NP = 11,
    VEC_SS = 12,
    VEC_GP = 13,
    VEC_PF = 14,
    VEC_MF = 16,
    VEC_AC = 17,
    VEC_MC = 18,
    VEC_XM = 19
};

/* Deliver v->fault through the IDT (or IVT), with double- and triple-fault promotion ("Interrupt 8 - Double Fault
 * Exception"). CR2 has been set by whoever raised #PF. False: shutdown (activity is CPU_SHUTDOWN). */
bool event_deliver_fault(struct soft_vcpu *v);
/* Deliver an external interrupt or NMI. False: shutdown. */
bool event_deliver_interrupt(struct soft_vcpu *v, uint8_t vector);
/* At an instruction boundary: take what is due, in the SDM's order ("Priority Among Concurrent Events"): INIT, SIPI,
 * NMI, APIC timer, interrupt if IF = 1 and no shadow. Ends HLT and TPAUSE where the event does. Returns false when the
 * vCPU must not go on executing (shutdown, halted, waiting for a SIPI): v->st.activity says why. */
bool event_service(struct soft_vcpu *v);
/* #DB after an instruction that ran with TF set (single step), or a data breakpoint: sets DR6 and v->fault. */
void event_raise_db(struct soft_vcpu *v, uint64_t dr6);

/* Segments and far transfers (seg.c, task.c); all may fault. */
/* Load a data segment register or SS in protected mode with all checks, in real and virtual-8086 mode without. */
bool seg_load(struct soft_vcpu *v, unsigned seg, uint16_t sel);
/* Raw descriptor of `sel` from GDT or LDT; error #GP(sel & ~3) or, with `vec`, another vector. */
bool desc_read(struct soft_vcpu *v, uint16_t sel, unsigned vec, uint64_t *lo, gva_t *at);
void seg_from_desc(struct cpu_segment *s, uint16_t sel, uint64_t desc);
/* Push/pop on the current stack with its size and checks; `size` 2, 4 or 8. RSP moves only on success. */
bool stack_push(struct soft_vcpu *v, unsigned size, uint64_t val);
bool stack_pop(struct soft_vcpu *v, unsigned size, uint64_t *val);

#endif
