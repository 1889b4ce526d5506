/* `hecaton WORD ...`: commands beside running a machine. The table in command.c is the only list of them; without a
 * command word the arguments are machine options. One thread. */
#ifndef HEC_CLI_COMMAND_H
#define HEC_CLI_COMMAND_H

#include "base/err.h"

#include <stdio.h>

enum { EXIT_RUNTIME = 1, EXIT_USAGE = 2 };

struct command {
    const char *name; /* the word after "hecaton" */
    /* argv[0] is the command word. What the user asked for goes to `out`; mistakes are one line on standard error (see
     * complain()). Returns the exit status. */
    int (*run)(int argc, char **argv, FILE *out);
    const char *args; /* for -h */
    const char *help; /* one line for -h */
};

/* The command argv[1] names, or NULL. */
const struct command *command_find(int argc, char **argv);
/* The i-th command, NULL past the last: for -h, and to name the nearest one. */
const struct command *command_at(unsigned i);

/* "hecaton: MESSAGE" on standard error; returns `code`. */
int complain(const struct err *e, int code);

#endif
