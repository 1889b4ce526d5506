/* What config_resolve.c (ids and references) and config_place.c (ports, buses, addresses) share. One thread. */
#ifndef HEC_VM_CONFIG_RESOLVE_H
#define HEC_VM_CONFIG_RESOLVE_H

#include "vm/config.h"

#include <string.h>

#define NAMES_MAX 64

/* Names to suggest from. */
struct names {
    const char *name[NAMES_MAX];
    size_t n;
};

static inline bool same(const char *a, const char *b)
{
    return a && b && !strcmp(a, b);
}

int resolve_no_memory(struct err *e);
void resolve_name(struct names *s, const char *name); /* NULL is not added */
/* `who` names a `what` that is not among `s`; `none` is the remedy when there is none at all. -EINVAL. */
int resolve_unknown(const struct vm_device *who, const char *what, const char *id, const struct names *s,
                    const char *none, struct err *e);
/* Put everything where it goes; all references are resolved. */
int config_devices_place(struct vm_config *c, struct err *e);

#endif
