#include "vm/accel.h"

const struct engine_ops *accel_engine(enum vm_accel a)
{
    return &engine_soft;
}
