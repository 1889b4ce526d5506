/* Port I/O for IN, OUT and the string forms. SDM 1, "Input/Output". Owning vCPU's thread only. */
#ifndef HEC_CPU_SOFT_IO_H
#define HEC_CPU_SOFT_IO_H

#include "cpu/soft/soft.h"

/* CPL against IOPL, and the TSS's I/O permission bitmap (SDM 1, "I/O Permission Bit Map"), for an access of `size` (1,
 * 2 or 4) bytes. False: v->fault is #GP(0), or a fault of reading the TSS. */
bool io_allowed(struct soft_vcpu *v, unsigned port, unsigned size);
/* The access itself. The device sees the guest time of the instruction. */
uint32_t io_read(struct soft_vcpu *v, unsigned port, unsigned size);
void io_write(struct soft_vcpu *v, unsigned port, unsigned size, uint32_t val);

#endif
