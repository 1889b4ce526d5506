/* A host's failure at set-up: one line that names what, where and the remedy. Printed once, by cli/. */
#ifndef HEC_BASE_ERR_H
#define HEC_BASE_ERR_H

struct err {
    char msg[1024]; /* empty: no error */
};

/* Fill `e` (may be NULL) and return `code`, a negative errno, so that callers can `return err_set(...)`.
 * The first message stays: a later err_set() on a filled `e` does not replace it. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
