/* hecaton: parse, check, run, and print what went wrong, once. */
#include "cli/command.h"
#include "cli/options.h"
#include "cli/status.h"
#include "vm/vm.h"

static int run(struct vm_config *c)
{
    struct err e = {{0}};
    struct status s;
    int code = 0;
    if (config_check(c, &e) < 0)
        return complain(&e, EXIT_RUNTIME);
    status_init(&s, c, stderr);
    int rc = vm_run(c, &code, &e);
    status_erase(&s);
    return rc < 0 ? complain(&e, EXIT_RUNTIME) : code;
}

static int run_machine(int argc, char **argv)
{
    struct vm_config c;
    struct err e = {{0}};
    int code = 0;
    switch (options_parse(argc, argv, &c, stdout, &e)) {
    case OPTIONS_RUN:
        code = run(&c);
        break;
    case OPTIONS_DONE:
        break;
    case OPTIONS_BAD:
        code = complain(&e, EXIT_USAGE);
        break;
    }
    vm_config_fini(&c);
    return code;
}

int main(int argc, char **argv)
{
    const struct command *cmd = command_find(argc, argv);
    return cmd ? cmd->run(argc - 1, argv + 1, stdout) : run_machine(argc, argv);
}
