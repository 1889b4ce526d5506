/* What block.c and run.c share: stopping the other workers at a place where blocks may be thrown away. Private to them.
 */
#ifndef HEC_CPU_SOFT_RUN_H
#define HEC_CPU_SOFT_RUN_H

#include "cpu/soft/soft.h"

/* As excl_begin(), for a vCPU at a block boundary. True: no vCPU is in the middle of a block (waiting inside an
 * instruction for its own turn), so blocks may be freed. Ends with excl_end(). */
bool excl_begin_boundary(struct soft_vcpu *v);

#endif
