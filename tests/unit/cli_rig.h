/* Command lines, parsed. */
#ifndef HEC_TESTS_CLI_RIG_H
#define HEC_TESTS_CLI_RIG_H

#include "cli/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct cli {
    struct vm_config c;
    struct err e;
    enum options_result result;
    char *words[64], *line;
    int n;
    char *printed;
    size_t printed_n;
};

/* Words are separated by blanks. The caller ends it with done(). */
static inline struct cli *parse(const char *line)
{
    struct cli *x = calloc(1, sizeof *x);
    FILE *out = open_memstream(&x->printed, &x->printed_n);
    char *save = NULL;
    x->line = strdup(line);
    x->words[x->n++] = "hecaton";
    for (char *w = strtok_r(x->line, " ", &save); w; w = strtok_r(NULL, " ", &save))
        x->words[x->n++] = w;
    x->result = options_parse(x->n, x->words, &x->c, out, &x->e);
    fclose(out);
    if (x->result != OPTIONS_BAD && x->e.msg[0])
        fail_msg("%s: %s", line, x->e.msg);
    return x;
}

static inline void done(struct cli *x)
{
    vm_config_fini(&x->c);
    free(x->printed);
    free(x->line);
    free(x);
}

/* A line that is run. */
static inline struct cli *good(const char *line)
{
    struct cli *x = parse(line);
    if (x->result != OPTIONS_RUN)
        fail_msg("%s: %s", line, x->e.msg);
    return x;
}

#endif
