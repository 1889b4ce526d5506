#include "cli/command.h"

#include "cli/census.h"
#include "cli/doctor.h"
#include "cli/explain.h"

#include <string.h>

/* A line a command: {name, command_NAME, arguments, help}. Ends with an empty one. */
static const struct command commands[] = {
    {"census", command_census, "[OPTION]...", "start every CPU and prove every route to every APIC ID"},
    {"doctor", command_doctor, "[N]", "what this host can do, and the settings that bring up N CPUs"},
    {"explain", command_explain, "msi|rte|icr ..", "where an interrupt message goes, in words; explain -h"},
    {NULL, NULL, NULL, NULL},
};

const struct command *command_at(unsigned i)
{
    const struct command *c = commands;
    while (i-- && c->name)
        c++;
    return c->name ? c : NULL;
}

const struct command *command_find(int argc, char **argv)
{
    for (const struct command *c = commands; argc > 1 && c->name; c++)
        if (!strcmp(argv[1], c->name))
            return c;
    return NULL;
}

int complain(const struct err *e, int code)
{
    fflush(stdout);
    fprintf(stderr, "hecaton: %s\n", e->msg[0] ? e->msg : "internal error without a message");
    return code;
}
