#include "dev/block_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_MS 30000
#define ARGS_MAX    16
#define SAFE_FD     10 /* above what the child's descriptors become */

/* What to run, and with which descriptors. */
struct plan {
    char program[512];
    const char *argv[ARGS_MAX];
    unsigned argc;
    char cache[32], discard[32];
    char *file; /* absolute: QEMU takes what is before a colon for a protocol otherwise */
    bool stdio; /* it serves on its standard input and output, instead of listening */
};

static void arg(struct plan *p, const char *a)
{
    if (p->argc < ARGS_MAX - 1)
        p->argv[p->argc++] = a;
}

static bool find_program(const char *name, char *out, size_t size)
{
    const char *path = getenv("PATH");
    for (const char *at = path ? path : "/usr/bin:/bin"; *at;) {
        size_t len = strcspn(at, ":");
        struct stat st;
        int n = snprintf(out, size, "%.*s/%s", (int)len, at, name);
        if (len && n > 0 && (size_t)n < size && !access(out, X_OK) && !stat(out, &st) && S_ISREG(st.st_mode))
            return true;
        at += len + (at[len] == ':');
    }
    return false;
}

static const char *cache_word(enum block_cache cache)
{
    static const char *const words[] = {"writeback", "none", "writethrough", "directsync", "unsafe"};
    return words[cache];
}

/* /bin/sh, which execs it, puts the process ID where the protocol of socket activation (sd_listen_fds(3)) wants it. */
static void plan_qemu_nbd(struct plan *p, const struct block_config *c, const char *format)
{
    snprintf(p->cache, sizeof p->cache, "--cache=%s", cache_word(c->cache));
    snprintf(p->discard, sizeof p->discard, "--discard=%s", c->discard ? "unmap" : "ignore");
    arg(p, "sh");
    arg(p, "-c");
    arg(p, "LISTEN_PID=$$ exec \"$0\" \"$@\"");
    arg(p, p->program);
    arg(p, "-f");
    arg(p, format);
    arg(p, "-e");
    arg(p, "1");
    arg(p, p->cache);
    arg(p, p->discard);
    if (c->readonly || c->snapshot)
        arg(p, "-r");
    arg(p, p->file);
}

static void plan_nbdkit(struct plan *p)
{
    p->stdio = true;
    arg(p, "sh");
    arg(p, "-c");
    arg(p, "exec \"$0\" \"$@\"");
    arg(p, p->program);
    arg(p, "-s");
    arg(p, "-r");
    arg(p, "--filter=qcow2dec");
    arg(p, "file");
    arg(p, p->file);
}

/* nbdkit reads qcow2 but does not write it; with snapshot=on nobody writes it. */
static int make_plan(const struct block_config *c, const char *format, struct block_server *s, struct plan *p,
                     struct err *e)
{
    bool reads = strcmp(format, "qcow2") == 0 && (c->readonly || c->snapshot);
    *p = (struct plan){.file = realpath(c->file, NULL)};
    if (!p->file)
        return err_set(e, -errno, "%s: cannot open %s: %m", c->option, c->file);
    if (find_program("qemu-nbd", p->program, sizeof p->program)) {
        s->program = "qemu-nbd";
        plan_qemu_nbd(p, c, format);
        return 0;
    }
    if (reads && find_program("nbdkit", p->program, sizeof p->program)) {
        s->program = "nbdkit";
        plan_nbdkit(p);
        return 0;
    }
    free(p->file);
    return err_set(e, -ENOENT, "%s: %s is a %s image, which needs qemu-nbd: apt install qemu-utils", c->option, c->file,
                   format);
}

/* ---- its socket ---- */

static int pair(int connection[2])
{
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, connection) ? -errno : 0;
}

static int bind_and_connect(const char *path, int listener, int client)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    int rc = bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 1) ||
                     connect(client, (struct sockaddr *)&a, sizeof a)
                 ? -errno
                 : 0;
    unlink(path);
    return rc;
}

/* A directory of our own for a moment, in the first place that takes one. */
static bool make_dir(char *dir, size_t size)
{
    static const char *const places[] = {"/tmp", "/var/tmp", "/dev/shm", "/run"};
    bool made = false;
    for (size_t i = 0; i < ARRAY_SIZE(places) && !made; i++) {
        snprintf(dir, size, "%s/hecaton-XXXXXX", places[i]);
        made = mkdtemp(dir) != NULL;
    }
    return made;
}

/* A listening socket on which we are connected already: nobody else can be, since its name is gone before the server
 * starts, and nothing has to be waited for. Should we die at once, the server finds a connection that has ended. */
static int listening(int connection[2])
{
    char dir[64], path[80];
    connection[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    connection[1] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc = connection[0] < 0 || connection[1] < 0 || !make_dir(dir, sizeof dir) ? -errno : 0;
    if (!rc) {
        snprintf(path, sizeof path, "%s/nbd", dir);
        rc = bind_and_connect(path, connection[1], connection[0]);
        rmdir(dir);
    }
    for (int i = 0; rc && i < 2; i++)
        if (connection[i] >= 0)
            close(connection[i]);
    return rc;
}

/* ---- its process ---- */

static void set_up_files(posix_spawn_file_actions_t *a, const struct plan *p, int theirs, int log)
{
    if (p->stdio) {
        posix_spawn_file_actions_adddup2(a, theirs, 0);
        posix_spawn_file_actions_adddup2(a, theirs, 1);
    } else {
        posix_spawn_file_actions_addopen(a, 0, "/dev/null", O_RDONLY, 0);
        posix_spawn_file_actions_addopen(a, 1, "/dev/null", O_WRONLY, 0);
        posix_spawn_file_actions_adddup2(a, theirs, 3);
    }
    posix_spawn_file_actions_adddup2(a, log, 2);
    posix_spawn_file_actions_addclosefrom_np(a, p->stdio ? 3 : 4);
}

static int spawn(const struct plan *p, int theirs, int log, char **env, pid_t *pid)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    set_up_files(&files, p, theirs, log);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    int rc = posix_spawn(pid, "/bin/sh", &files, &attr, (char *const *)(uintptr_t)p->argv, env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return -rc;
}

/* Our environment, and that one descriptor is handed over. */
static char **make_env(void)
{
    unsigned n = 0;
    while (environ[n])
        n++;
    char **env = calloc(n + 2, sizeof *env);
    if (!env)
        return NULL;
    unsigned k = 0;
    for (unsigned i = 0; i < n; i++)
        if (strncmp(environ[i], "LISTEN_", 7) != 0)
            env[k++] = environ[i];
    env[k] = (char *)(uintptr_t) "LISTEN_FDS=1";
    return env;
}

static int move_up(int *fd)
{
    int moved = fcntl(*fd, F_DUPFD_CLOEXEC, SAFE_FD);
    if (moved < 0)
        return -errno;
    close(*fd);
    *fd = moved;
    return 0;
}

/* `theirs` and `s->log` are above the numbers the child's get. */
static int run(const struct plan *p, struct block_server *s, int *theirs)
{
    s->log = memfd_create("hecaton-server-log", MFD_CLOEXEC);
    if (s->log < 0)
        return -errno;
    char **env = make_env();
    int rc = env ? move_up(theirs) : -ENOMEM;
    if (!rc)
        rc = move_up(&s->log);
    if (!rc)
        rc = spawn(p, *theirs, s->log, env, &s->pid);
    free(env);
    if (rc)
        block_server_end(s);
    else
        s->pidfd = (int)syscall(SYS_pidfd_open, s->pid, 0);
    return rc;
}

int block_server_start(const struct block_config *c, const char *format, struct block_server *s, int *connection,
                       struct err *e)
{
    struct plan p;
    int ends[2];
    *s = BLOCK_SERVER_NONE;
    int rc = make_plan(c, format, s, &p, e);
    if (rc)
        return rc;
    rc = p.stdio ? pair(ends) : listening(ends);
    if (!rc) {
        rc = run(&p, s, &ends[1]);
        close(ends[1]);
        if (rc)
            close(ends[0]);
    }
    free(p.file);
    if (rc)
        return err_set(e, rc, "%s: %s: cannot start %s: %s", c->option, c->file, p.program, strerror(-rc));
    *connection = ends[0];
    return 0;
}

void block_server_said(const struct block_server *s, char *line, size_t size)
{
    ssize_t n = s->log >= 0 ? pread(s->log, line, size - 1, 0) : 0;
    line[n > 0 ? n : 0] = 0;
    line[strcspn(line, "\n")] = 0;
}

/* By a descriptor that was opened at the start: a sandbox may allow no new one. Without one, waitpid() waits. */
static bool gone_within(const struct block_server *s, int ms)
{
    struct pollfd p = {.fd = s->pidfd, .events = POLLIN};
    int n;
    do
        n = poll(&p, 1, ms);
    while (n < 0 && errno == EINTR);
    return n > 0;
}

static void end_if_it_stays(const struct block_server *s)
{
    static const int signals[] = {SIGTERM, SIGKILL};
    for (size_t i = 0; s->pidfd >= 0 && i < ARRAY_SIZE(signals) && !gone_within(s, PATIENCE_MS); i++)
        syscall(SYS_pidfd_send_signal, s->pidfd, signals[i], NULL, 0);
}

void block_server_hasten(const struct block_server *s)
{
    if (s->pid && s->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, s->pidfd, SIGTERM, NULL, 0);
}

/* Whether there was something to wait for. */
static bool reap(struct block_server *s, int options)
{
    pid_t pid;
    do
        pid = waitpid(s->pid, &s->status, options);
    while (pid < 0 && errno == EINTR);
    if (pid)
        s->pid = 0;
    return pid;
}

bool block_server_ended(struct block_server *s, int ms)
{
    if (!s->pid)
        return s->program;
    gone_within(s, ms);
    return reap(s, WNOHANG);
}

void block_server_fate(const struct block_server *s, char *line, size_t size)
{
    const char *who = s->program ? s->program : "the NBD server";
    if (s->pid || !s->program)
        snprintf(line, size, "%s has closed the connection", who);
    else if (WIFSIGNALED(s->status))
        snprintf(line, size, "%s was killed by signal %d (%s)", who, WTERMSIG(s->status),
                 strsignal(WTERMSIG(s->status)));
    else
        snprintf(line, size, "%s has ended with status %d", who, WEXITSTATUS(s->status));
}

void block_server_end(struct block_server *s)
{
    if (s->pid) {
        end_if_it_stays(s);
        reap(s, 0);
    }
    if (s->pidfd >= 0)
        close(s->pidfd);
    if (s->log >= 0)
        close(s->log);
    *s = BLOCK_SERVER_NONE;
}
