/* Which engine runs a machine. */
#ifndef HEC_VM_ACCEL_H
#define HEC_VM_ACCEL_H

#include "cpu/engine.h"
#include "vm/config.h"

/* The engine's table. */
const struct engine_ops *accel_engine(enum vm_accel a);

#endif
