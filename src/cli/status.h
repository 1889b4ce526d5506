/* The status line: a boot's progress on a terminal, on standard error. It is one line that is rewritten in place, never
 * written while the guest's console goes to the same terminal, and erased before the process says anything else. */
#ifndef HEC_CLI_STATUS_H
#define HEC_CLI_STATUS_H

#include "vm/config.h"

#include <stdio.h>

struct status {
    FILE *out;
    bool on;    /* `out` is a terminal nobody else writes to */
    bool shown; /* a line is on the screen */
    unsigned columns;
    uint64_t last_ns, last_work; /* for the rate */
    double rate;                 /* instructions or exits a second, smoothed */
};

/* Decide whether there is a line (a terminal, no -serial stdio, no trace on standard error) and hook it into `c`. */
void status_init(struct status *s, struct vm_config *c, FILE *out);
/* vm_config.progress */
void status_show(void *opaque, const struct vm_stats *st);
/* The line's text, at most `columns` - 1 characters. Pure. */
int status_format(char *buf, size_t size, const struct vm_stats *st, double rate, unsigned columns);
void status_erase(struct status *s);

#endif
