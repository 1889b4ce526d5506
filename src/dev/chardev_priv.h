/* chardev.c and chardev_open.c only. */
#ifndef HEC_DEV_CHARDEV_PRIV_H
#define HEC_DEV_CHARDEV_PRIV_H

#include "dev/chardev.h"
#include "dev/tty.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/un.h>

enum chardev_kind { CHARDEV_NULL, CHARDEV_STDIO, CHARDEV_FILE, CHARDEV_PTY, CHARDEV_UNIX };

struct chardev {
    enum chardev_kind kind;                               /* (c) */
    const struct vm_control *control;                     /* (c) */
    FILE *notes;                                          /* (c) */
    int wake_fd;                                          /* (c) eventfd: look at the fields below */
    int listen_fd;                                        /* (c) unix only, else -1 */
    char path[sizeof((struct sockaddr_un *)0)->sun_path]; /* (c) the socket, removed at the end */
    struct tty_raw tty;                                   /* (c) between create and destroy */
    struct chardev_client client;                         /* (c) after attach */
    pthread_t thread;
    bool started; /* (c) after attach */

    pthread_mutex_t lock;
    pthread_cond_t room;        /* the ring has room, or `hurry` */
    uint8_t ring[CHARDEV_RING]; /* bytes head..tail belong to the I/O thread, the rest to putters */
    size_t head, n;             /* (l) oldest byte, how many */
    bool asleep;                /* (l) the I/O thread polls without a deadline: wake it for the first byte */
    bool refused;               /* (l) a byte was refused since the last client->room */
    bool stop, hurry, discard;  /* (l) */
    _Atomic bool held;          /* (a) input waits for chardev_input_ready() */
    _Atomic bool retry;         /* (a) chardev_input_ready() was called */

    /* the I/O thread only */
    int in_fd, out_fd; /* -1: none (now) */
    bool connected;    /* pty, unix: somebody is there */
    bool escaped;      /* Ctrl-A was the last key */
    uint8_t in[512];
    size_t in_at, in_n; /* input not yet taken by the client */
};

/* Fill the descriptors for `spec`. On failure -errno; what was opened is closed by chardev_close_backend(). */
int chardev_open_backend(struct chardev *c, const char *spec, struct err *e);
void chardev_close_backend(struct chardev *c);

#endif
