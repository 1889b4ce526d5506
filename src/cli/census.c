#include "cli/census.h"

#include "cli/command.h"
#include "cli/launch.h"
#include "cli/options.h"
#include "dev/debugexit.h"
#include "vm/vm.h"

#include <stdlib.h>
#include <string.h>

extern const uint8_t guest_census[], guest_census_end[];

/* What the payload needs besides what the user chose. */
static int equip(struct vm_config *c, struct err *e)
{
    c->image = guest_census;
    c->image_size = (uint64_t)(guest_census_end - guest_census);
    c->irq_test = c->pc_testdev = c->debug_exit = true;
    c->debug_exit_base = DEBUGEXIT_IOBASE;
    c->debug_exit_size = DEBUGEXIT_IOSIZE;
    c->no_reboot = true;
    if (c->serial[0].spec)
        return 0;
    c->serial[0].kind = VM_SERIAL_STDIO;
    c->serial[0].spec = strdup("stdio");
    return c->serial[0].spec ? 0 : err_set(e, -1, "no host memory");
}

static int run(struct vm_config *c)
{
    struct err e = {{0}};
    int code = 1;
    if (equip(c, &e) || launch_prepare(c, &e) || vm_run(c, &code, &e))
        return complain(&e, EXIT_RUNTIME);
    return code;
}

int command_census(int argc, char **argv, FILE *out)
{
    struct vm_config c;
    struct err e = {{0}};
    int code = EXIT_USAGE;
    char **args = calloc((size_t)argc + 3, sizeof *args);
    if (!args)
        return 1;
    args[0] = "hecaton";
    args[1] = "-kernel";
    args[2] = "(the census payload)";
    for (int i = 1; i < argc; i++)
        args[i + 2] = argv[i];
    switch (options_parse(argc + 2, args, &c, out, &e)) {
    case OPTIONS_RUN:
        code = run(&c);
        break;
    case OPTIONS_DONE:
        code = 0;
        break;
    case OPTIONS_BAD:
        complain(&e, EXIT_USAGE);
        break;
    }
    vm_config_fini(&c);
    free(args);
    return code;
}
