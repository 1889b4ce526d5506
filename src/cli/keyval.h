/* "a=b,c,d=e": option lists as QEMU writes them. A doubled comma is a comma of the value. One thread. */
#ifndef HEC_CLI_KEYVAL_H
#define HEC_CLI_KEYVAL_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEYVAL_MAX 4096

/* Where an option list is being read; `option` ("-smp") is for messages. */
struct keyval {
    const char *option;
    const char *rest;
    char buf[KEYVAL_MAX];
    const char *key, *val; /* the current item, in buf; val is NULL for a bare word */
};

void keyval_init(struct keyval *k, const char *option, const char *list);
/* Next item: 1, 0 at the end, or -EINVAL when it is too long. */
int keyval_next(struct keyval *k, struct err *e);

/* A name with what to do about it. `set` gets the context, the option's list and the value (NULL: bare word). */
struct prop {
    const char *name;
    int (*set)(void *ctx, const struct keyval *k, struct err *e);
    const char *values; /* for help: "on|off" */
    const char *help;   /* NULL: not listed (another spelling) */
};

/* Apply every item left in `k`. An unknown key is -EINVAL with the nearest known one. */
int keyval_apply(struct keyval *k, const struct prop *props, size_t n, void *ctx, struct err *e);

/* ---- values; -EINVAL with the option, the key and what would do ---- */
int keyval_onoff(const struct keyval *k, bool *out, struct err *e); /* a bare word means on */
int keyval_choice(const struct keyval *k, const char *const *names, size_t n, unsigned *out, struct err *e);
int keyval_u64(const struct keyval *k, uint64_t min, uint64_t max, uint64_t *out, struct err *e); /* also 0x.. */
int keyval_u32(const struct keyval *k, uint32_t min, uint32_t max, uint32_t *out, struct err *e);
int keyval_size(const struct keyval *k, uint64_t *out, struct err *e); /* bytes; no suffix: MiB; K, M, G, T */

/* -EINVAL: `what` 'word' of `option` is unknown, and the nearest of `names`. */
int unknown_name(const char *option, const char *what, const char *word, const char *const *names, size_t n,
                 struct err *e);

#endif
