/* hecaton: parse, check, run, and print what went wrong, once. */
#include "cli/options.h"
#include "cli/status.h"
#include "vm/vm.h"

enum { EXIT_RUNTIME = 1, EXIT_USAGE = 2 };

static int complain(const struct err *e, int code)
{
    fflush(stdout);
    fprintf(stderr, "hecaton: %s\n", e->msg[0] ? e->msg : "internal error without a message");
    return code;
}

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

int main(int argc, char **argv)
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
