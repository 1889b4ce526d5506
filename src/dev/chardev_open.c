#include "dev/chardev_priv.h"

#include "base/bits.h"
#include "base/suggest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_stdio(struct chardev *c)
{
    c->kind = CHARDEV_STDIO;
    c->in_fd = STDIN_FILENO;
    c->out_fd = STDOUT_FILENO;
    c->connected = true;
    tty_raw_enter(&c->tty, STDIN_FILENO);
    return 0;
}

static int open_file(struct chardev *c, const char *path, struct err *e)
{
    c->kind = CHARDEV_FILE;
    c->out_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    c->connected = true;
    return c->out_fd < 0 ? err_set(e, -errno, "-serial file:%s: %s", path, strerror(errno)) : 0;
}

/* The slave in raw mode, so that nothing echoes our output back before a terminal program has set its own modes. It is
 * closed again at once: from then on poll() on the master says POLLHUP until somebody opens the slave. */
static int pty_prepare_slave(const char *name)
{
    int fd = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    struct termios t;
    int rc = 0;
    if (tcgetattr(fd, &t) == 0) {
        cfmakeraw(&t);
        rc = tcsetattr(fd, TCSANOW, &t) < 0 ? -errno : 0;
    }
    close(fd);
    return rc;
}

static int open_pty(struct chardev *c, struct err *e)
{
    char name[64];
    c->kind = CHARDEV_PTY;
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    c->in_fd = c->out_fd = fd;
    if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0 || ptsname_r(fd, name, sizeof name) != 0)
        return err_set(e, errno ? -errno : -EIO, "-serial pty: cannot make a pseudo-terminal: %s", strerror(errno));
    int rc = pty_prepare_slave(name);
    if (rc < 0)
        return err_set(e, rc, "-serial pty: %s: %s", name, strerror(-rc));
    if (c->notes) {
        fprintf(c->notes, "serial line on %s\n", name);
        fflush(c->notes);
    }
    return 0;
}

/* A socket file nobody listens on is what a killed process left; take it over. Anything else at that path stays. */
static bool unix_is_stale(const struct sockaddr_un *a)
{
    struct stat st;
    if (lstat(a->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool stale = fd >= 0 && connect(fd, (const struct sockaddr *)a, sizeof *a) < 0 && errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    return stale;
}

static int unix_bind(int fd, const struct sockaddr_un *a)
{
    if (bind(fd, (const struct sockaddr *)a, sizeof *a) == 0)
        return 0;
    if (errno != EADDRINUSE)
        return -errno;
    if (!unix_is_stale(a))
        return -EADDRINUSE;
    unlink(a->sun_path);
    return bind(fd, (const struct sockaddr *)a, sizeof *a) < 0 ? -errno : 0;
}

static int open_unix(struct chardev *c, const char *path, size_t len, struct err *e)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    c->kind = CHARDEV_UNIX;
    if (len == 0 || len >= sizeof a.sun_path)
        return err_set(e, -EINVAL, "-serial unix: the path must have 1 to %zu bytes", sizeof a.sun_path - 1);
    memcpy(a.sun_path, path, len);
    c->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = c->listen_fd < 0 ? -errno : unix_bind(c->listen_fd, &a);
    if (rc == 0) {
        memcpy(c->path, a.sun_path, sizeof c->path);
        rc = listen(c->listen_fd, 1) < 0 ? -errno : 0;
    }
    return rc < 0 ? err_set(e, rc, "-serial unix:%s: %s", a.sun_path, strerror(-rc)) : 0;
}

/* "PATH[,server[=on]][,nowait|,wait=off]": the words QEMU needs to mean what is the only way here. */
static int open_unix_spec(struct chardev *c, const char *spec, struct err *e)
{
    static const char *const words[] = {"server", "server=on", "nowait", "wait=off"};
    size_t len = strcspn(spec, ",");
    for (const char *p = spec + len; *p;) {
        size_t n = strcspn(++p, ",");
        bool known = false;
        for (size_t i = 0; i < ARRAY_SIZE(words); i++)
            known |= strlen(words[i]) == n && memcmp(words[i], p, n) == 0;
        if (!known)
            return err_set(e, -EINVAL, "-serial unix: unknown option '%.*s' (server=on, wait=off)", (int)n, p);
        p += n;
    }
    return open_unix(c, spec, len, e);
}

int chardev_open_backend(struct chardev *c, const char *spec, struct err *e)
{
    if (strcmp(spec, "stdio") == 0 || strcmp(spec, "mon:stdio") == 0)
        return open_stdio(c);
    if (strcmp(spec, "null") == 0 || strcmp(spec, "none") == 0)
        return 0;
    if (strcmp(spec, "pty") == 0)
        return open_pty(c, e);
    if (strncmp(spec, "file:", 5) == 0)
        return open_file(c, spec + 5, e);
    if (strncmp(spec, "unix:", 5) == 0)
        return open_unix_spec(c, spec + 5, e);
    static const char *const known[] = {"stdio", "file:PATH", "null", "pty", "unix:PATH"};
    return err_set(e, -EINVAL, "-serial: unknown backend '%s': did you mean '%s'?", spec,
                   suggest_nearest(spec, known, ARRAY_SIZE(known)));
}

void chardev_close_backend(struct chardev *c)
{
    tty_raw_leave(&c->tty);
    if (c->kind == CHARDEV_STDIO)
        c->in_fd = c->out_fd = -1; /* not ours */
    if (c->in_fd >= 0)
        close(c->in_fd);
    if (c->out_fd >= 0 && c->out_fd != c->in_fd)
        close(c->out_fd);
    if (c->listen_fd >= 0)
        close(c->listen_fd);
    if (c->path[0])
        unlink(c->path);
    c->in_fd = c->out_fd = c->listen_fd = -1;
}
