/* Run one machine from power-on to its end. */
#ifndef HEC_VM_VM_H
#define HEC_VM_VM_H

#include "vm/config.h"

/* Build the machine of `c` (config_check()ed), run it, and take it down. Blocks; on the thread that calls it SIGINT,
 * SIGTERM and SIGHUP are blocked meanwhile and end the machine in order. Returns 0 with the process' exit status in
 * *exit_code, or -errno with one line in `e` when the machine could not be built or its host failed. */
int vm_run(const struct vm_config *c, int *exit_code, struct err *e);

#endif
