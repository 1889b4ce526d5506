/* hecaton: parse, check, run, and print what went wrong, once. */
#include "cli/command.h"
#include "cli/launch.h"
#include "cli/options.h"
#include "cli/status.h"
#include "vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

static int run(struct vm_config *c)
{
    struct err e = {{0}};
    struct status s;
    int code = 0;
    if (launch_prepare(c, &e))
        return complain(&e, EXIT_RUNTIME);
    for (const struct vm_note *n = c->dev.notes; n; n = n->next)
        fprintf(stderr, "hecaton: %s\n", n->text);
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

/* A descriptor 0, 1 or 2 that was closed must not become some file of ours: hold it with one that fails as it would. */
static void hold_standard_files(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            (void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
}

/* A report that nobody can read is none. */
static bool output_lost(void)
{
    if (!fflush(stdout) && !ferror(stdout))
        return false;
    fprintf(stderr, "hecaton: standard output is not whole: %s\n", strerror(errno));
    return true;
}

int main(int argc, char **argv)
{
    hold_standard_files();
    signal(SIGXFSZ, SIG_IGN); /* what a limit of file sizes (ulimit -f) forbids fails, as on a full disk */
    const struct command *cmd = command_find(argc, argv);
    int code = cmd ? cmd->run(argc - 1, argv + 1, stdout) : run_machine(argc, argv);
    return output_lost() && !code ? EXIT_RUNTIME : code;
}
