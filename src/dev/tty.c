#include "dev/tty.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs in the child: async-signal-safe calls only, since the parent may have had threads. A byte on the line means the
 * parent restored the terminal itself; end of file means that it is gone. */
static void guard_wait(int line, int tty_fd, const struct termios *saved)
{
    /* Not to be hit by what ends the parent: a signal to the terminal's process group. SIGTTOU blocked lets a process
     * outside the foreground set modes. */
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    setpgid(0, 0);
    char byte;
    ssize_t n;
    do
        n = read(line, &byte, 1);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        tcsetattr(tty_fd, TCSANOW, saved);
    _exit(0);
}

static void guard_start(struct tty_raw *t)
{
    int p[2]; /* a socket pair rather than a pipe: send() can be told not to raise SIGPIPE */
    t->guard = 0;
    t->guard_fd = -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) < 0)
        return;
    pid_t pid = fork();
    if (pid == 0) {
        /* Hold nothing of the parent's but the terminal: a pipe end kept here would outlive the parent for its reader.
         */
        dup2(t->fd, 0);
        dup2(p[0], 1);
        close_range(2, ~0u, 0);
        guard_wait(1, 0, &t->saved);
    }
    close(p[0]);
    if (pid < 0) {
        close(p[1]);
        return;
    }
    t->guard = pid;
    t->guard_fd = p[1];
}

void tty_raw_enter(struct tty_raw *t, int fd)
{
    *t = (struct tty_raw){.fd = fd, .guard_fd = -1};
    if (!isatty(fd) || tcgetpgrp(fd) != getpgrp() || tcgetattr(fd, &t->saved) < 0)
        return;
    guard_start(t);
    struct termios raw = t->saved;
    raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
    raw.c_cflag &= ~(tcflag_t)(CSIZE | PARENB);
    raw.c_cflag |= CS8;
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    t->on = tcsetattr(fd, TCSANOW, &raw) == 0;
    if (!t->on)
        tty_raw_leave(t);
}

void tty_raw_leave(struct tty_raw *t)
{
    if (t->on) {
        /* The shell may have put us into the background meanwhile; restoring must not stop us. */
        sigset_t ttou, old;
        sigemptyset(&ttou);
        sigaddset(&ttou, SIGTTOU);
        pthread_sigmask(SIG_BLOCK, &ttou, &old);
        tcsetattr(t->fd, TCSANOW, &t->saved);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    t->on = false;
    if (t->guard > 0) {
        ssize_t n = send(t->guard_fd, "", 1, MSG_NOSIGNAL);
        (void)n;
        close(t->guard_fd);
        waitpid(t->guard, NULL, 0);
        t->guard = 0;
    }
}
