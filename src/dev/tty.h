/* Raw mode of the controlling terminal, and its return. */
#ifndef HEC_DEV_TTY_H
#define HEC_DEV_TTY_H

#include <stdbool.h>
#include <sys/types.h>
#include <termios.h>

struct tty_raw {
    bool on; /* false: fd is no terminal of ours and was left alone */
    int fd;
    struct termios saved;
    pid_t guard;  /* restores `saved` if this process dies; 0 if it could not be started */
    int guard_fd; /* its life line: closed by the kernel when this process ends */
};

/* Make `fd` raw if it is a terminal and this process is in its foreground. Output processing stays on, so that the
 * program's own messages look right. Never fails: `on` says whether it happened. */
void tty_raw_enter(struct tty_raw *t, int fd);
/* Undo it; harmless if it was not on. */
void tty_raw_leave(struct tty_raw *t);

#endif
