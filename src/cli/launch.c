#include "cli/launch.h"

#include "vm/accel.h"

#include <stdio.h>

int launch_prepare(struct vm_config *c, struct err *e)
{
    struct err said = {{0}}, warning = {{0}};
    int rc = accel_choose_here(c, &said, e);
    rc = rc ? rc : config_check(c, e);
    rc = rc ? rc : accel_raise_limits(c, e);
    if (rc)
        return rc;
    if (said.msg[0])
        fprintf(stderr, "hecaton: %s\n", said.msg);
    if (config_warning(c, warning.msg, sizeof warning.msg))
        fprintf(stderr, "hecaton: warning: %s\n", warning.msg);
    return 0;
}
