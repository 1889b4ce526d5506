/* Between options and a machine: which engine, whether it can work, what the user should know. One thread. */
#ifndef HEC_CLI_LAUNCH_H
#define HEC_CLI_LAUNCH_H

#include "base/err.h"
#include "vm/config.h"

#include <stdbool.h>

/* Choose the engine, check `c`, and write what is worth a line to standard error. -errno. */
int launch_prepare(struct vm_config *c, struct err *e);

#endif
