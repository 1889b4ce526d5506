/* The command line: argv to struct vm_config. One thread. */
#ifndef HEC_CLI_OPTIONS_H
#define HEC_CLI_OPTIONS_H

#include "base/err.h"
#include "vm/config.h"

#include <stdio.h>

enum options_result {
    OPTIONS_RUN,  /* *c describes a machine */
    OPTIONS_DONE, /* -h, -version or a list was printed to `out`: exit 0 */
    OPTIONS_BAD   /* usage: `e` has the line; exit 2 */
};

/* `c` is initialised here; the caller calls vm_config_fini() in every case. It borrows strings of argv. */
enum options_result options_parse(int argc, char **argv, struct vm_config *c, FILE *out, struct err *e);

#endif
