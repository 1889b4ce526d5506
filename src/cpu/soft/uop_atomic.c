/* LOCKed operations and XCHG with memory, straight on guest RAM when the TLB has the page and the operand lies within
 * one cache line; any other case leaves for the slow twin, which asks lin_atomic() or stops the machine. SDM 3A,
 * "Locked Atomic Operations". */
#include "cpu/soft/uop.h"

/* Filled with the second step: see uop_gen.c for the complete, generic form. */
uop_fn *uop_locked(unsigned op, enum uop_form form, unsigned log2)
{
    (void)op, (void)form, (void)log2;
    return NULL;
}
