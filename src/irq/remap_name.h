/* Names of what the translator says, for people. Pure, any thread. */
#ifndef HEC_IRQ_REMAP_NAME_H
#define HEC_IRQ_REMAP_NAME_H

#include "irq/remap.h"

/* "extended destination (15 bits)"; never NULL. */
const char *remap_form_name(enum remap_form form);
/* "compatibility-format request blocked"; never NULL. */
const char *remap_fault_name(enum remap_fault fault);
/* "fixed", "lowest priority", ...; `mode` is enum irq_mode. */
const char *irq_mode_name(unsigned mode);

#endif
