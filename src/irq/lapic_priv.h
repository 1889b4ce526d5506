/* Between lapic.c (state, acceptance, priorities) and lapic_regs.c (the register file). Owner's thread only. */
#ifndef HEC_IRQ_LAPIC_PRIV_H
#define HEC_IRQ_LAPIC_PRIV_H

#include "irq/lapic.h"

#include <string.h>

/* Add to the errors and raise the error interrupt. */
void lapic_error(struct lapic *l, uint32_t bits);
struct lapic_effect lapic_eoi(struct lapic *l);
/* False: #GP. */
bool lapic_base_write(struct lapic *l, uint64_t val, struct lapic_effect *fx);
/* Request LINT0's vector if it is level-triggered and high. */
void lapic_lint0_level(struct lapic *l);

/* IA32_APIC_BASE and the mode that follows from it, with no other effect. */
void lapic_set_base(struct lapic *l, uint64_t base);
/* Whether a value has no reserved bits and names a mode. */
bool lapic_base_valid(const struct lapic *l, uint64_t val);
/* Registers both dresses have. False: there is none of that number. */
bool lapic_read_common(struct lapic *l, uint64_t now, unsigned reg, uint32_t *val);
/* SVR and LVT as a guest's write leaves them, without acting on the timer. */
void lapic_put_svr(struct lapic *l, uint32_t val);
void lapic_put_lvt(struct lapic *l, unsigned n, uint32_t val);

#endif
