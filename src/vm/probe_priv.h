/* Inside of the probe. */
#ifndef HEC_VM_PROBE_PRIV_H
#define HEC_VM_PROBE_PRIV_H

#include "vm/probe.h"

struct probe {
    struct vm_config cfg;
    struct machine *m;
};

#endif
