/* Typed properties: a table says where in a struct each value of an option list goes. One thread.
 *
 * Strings are copied into the configuration, which outlives the list.
 */
#ifndef HEC_CLI_FIELD_H
#define HEC_CLI_FIELD_H

#include "cli/keyval.h"
#include "vm/config.h"

#include <stdio.h>

enum field_type {
    FIELD_TEXT,    /* const char *: not empty */
    FIELD_ONOFF,   /* bool */
    FIELD_OFFON,   /* bool, true for off */
    FIELD_AUTO,    /* unsigned: enum vm_onoffauto */
    FIELD_U32,     /* uint32_t, min .. max */
    FIELD_CHOICE,  /* unsigned: the index in `choices` */
    FIELD_ADDR,    /* uint32_t: devfn, of "DD" or "DD.F" */
    FIELD_MAC,     /* uint8_t[6] */
    FIELD_CUSTOM,  /* set() */
    FIELD_NEUTRAL, /* nowhere: the values in `values`, separated by '|', are what is anyway (any if it is NULL);
                      others are refused with `help` */
    FIELD_IGNORED  /* nowhere, and `help` says aloud why */
};

struct field {
    const char *name;
    enum field_type type;
    size_t at;
    uint32_t min, max;
    const char *const *choices; /* NULL at the end */
    const char *values, *help;  /* for help; help NULL: not listed */
    int (*set)(struct vm_devices *d, void *base, const struct keyval *k, struct err *e);
};

/* Some fields and the struct they are in. */
struct field_set {
    const struct field *field;
    size_t n;
    void *base;
};

/* Apply every item left in `k`. -EINVAL: an unknown key, with the nearest known one, or a value that won't do. */
int fields_apply(struct vm_devices *d, struct keyval *k, const struct field_set *sets, unsigned n, struct err *e);
/* For help: name and what it does, of each that is listed. */
void fields_help(FILE *out, const struct field *fields, size_t n);

/* A value's copy for the configuration: -EINVAL if it is empty. */
int field_text(struct vm_devices *d, const struct keyval *k, const char **out, struct err *e);
/* "DD.F", hexadecimal, or "DD". */
int field_addr(const struct keyval *k, uint32_t *out, struct err *e);

#endif
