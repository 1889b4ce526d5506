/* What exec_x87.c (arithmetic, moves) and exec_x87_env.c (control, environment, state) share. Owning vCPU's thread
 * only. SDM 1, "Programming with the x87 FPU".
 */
#ifndef HEC_CPU_SOFT_X87_H
#define HEC_CPU_SOFT_X87_H

#include "cpu/soft/fpu.h"
#include "cpu/soft/mmu.h"

/* Control instructions with a register or without an operand: FNCLEX, FNINIT, FNSTSW AX and the no-ops of the 8087 and
 * 80287. */
exec_fn x87_control_reg;
/* Those with memory: FLDENV, FLDCW, FNSTENV, FNSTCW (D9 /4../7), FRSTOR, FNSAVE, FNSTSW (DD /4, /6, /7). */
exec_fn x87_control_mem;

#endif
