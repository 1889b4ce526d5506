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

#endif
