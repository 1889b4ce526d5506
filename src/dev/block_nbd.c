/* A store behind an NBD server, by libnbd's asynchronous interface. The loop watches a duplicate of the connection:
 * libnbd closes its own when the connection fails, and the number may be somebody else's by then. libnbd's callbacks
 * may not call libnbd, so they only note what is done.
 */
#include "dev/block_priv.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#if HEC_HOSTILE
#define MAX_LEN 8192u
#else
#define MAX_LEN (32u << 20) /* what any server takes */
#endif
#define CONNECT_NS    (60 * NS_PER_SEC) /* for an address */
#define DISCONNECT_NS (10 * NS_PER_SEC)
#define SERVER_MS     1000 /* from the end of its connection to its own */

struct nbd {
    struct store s;
    struct nbd_handle *h;
    struct block_server server;
    struct ioloop *loop;
    struct ioloop_bell bell; /* there are some in `done` */
    struct ioloop_fd watch;
    struct ioloop_fd grave; /* readable once the server's process is a zombie */
    uint32_t events;
    bool attached, dead;
    bool can_flush, can_zero;
    int attach_result;
    struct store_io *done, **done_end;
    char *option, *file;
};

static struct nbd *of(struct store *s)
{
    return container_of(s, struct nbd, s);
}

bool block_nbd_is_address(const char *file)
{
    static const char *const schemes[] = {"nbd://", "nbds://", "nbd+unix://", "nbds+unix://"};
    for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
        if (strncmp(file, schemes[i], strlen(schemes[i])) == 0)
            return true;
    return false;
}

/* ---- completions ---- */

static void note_done(struct nbd *n, struct store_io *io, int64_t result)
{
    io->result = result;
    io->next = NULL;
    *n->done_end = io;
    n->done_end = &io->next;
}

/* Errors the protocol has; a connection's are one to the guest, and so is a server's idea of what is valid, unless it
 * is about a way to discard or zero. */
static int64_t failure(const struct store_io *io, int error)
{
    switch (error) {
    case EPERM:
    case ENOMEM:
    case ENOSPC:
    case EOPNOTSUPP:
        return -error;
    case EINVAL:
        return io->op > STORE_SYNC ? -EINVAL : -EIO;
    default:
        return -EIO;
    }
}

static int completed(void *opaque, int *error)
{
    struct store_io *io = opaque;
    bool data = io->op == STORE_READ || io->op == STORE_WRITE;
    note_done(of(io->store), io, *error ? failure(io, *error) : data ? (int64_t)io->len : 0);
    return 1; /* libnbd forgets the command */
}

static void deliver(void *opaque)
{
    struct nbd *n = opaque;
    struct store_io *io = n->done;
    n->done = NULL;
    n->done_end = &n->done;
    while (io) {
        struct store_io *next = io->next;
        io->done(io, io->result);
        io = next;
    }
}

/* ---- the connection ---- */

static void unwatch(struct nbd *n)
{
    if (n->attached)
        ioloop_fd_remove(n->loop, &n->watch);
    n->attached = false;
    if (n->watch.fd >= 0)
        close(n->watch.fd);
    n->watch.fd = -1;
}

/* A server of ours that hangs up is about to end, most likely. */
static void say_dead(struct nbd *n)
{
    char said[256], fate[96];
    block_server_ended(&n->server, SERVER_MS);
    block_server_fate(&n->server, fate, sizeof fate);
    block_server_said(&n->server, said, sizeof said);
    fprintf(stderr, "hecaton: %s: %s: %s: the guest gets I/O errors from now on%s%s\n", n->option, n->file, fate,
            *said ? ": " : "", said);
}

/* What it leaves is found at its connection. */
static void bury(void *opaque, uint32_t events)
{
    struct nbd *n = opaque;
    if (block_server_ended(&n->server, 0))
        ioloop_fd_remove(n->loop, &n->grave);
}

/* After any call of libnbd that may have moved its state. */
static void follow(struct nbd *n)
{
    if (n->done)
        ioloop_ring(n->loop, &n->bell);
    if (n->dead)
        return;
    if (nbd_aio_is_dead(n->h) || nbd_aio_is_closed(n->h)) {
        n->dead = true;
        unwatch(n);
        say_dead(n);
        return;
    }
    unsigned direction = nbd_aio_get_direction(n->h);
    uint32_t events = (direction & LIBNBD_AIO_DIRECTION_READ ? EPOLLIN : 0u) |
                      (direction & LIBNBD_AIO_DIRECTION_WRITE ? EPOLLOUT : 0u);
    if (n->attached && events != n->events)
        ioloop_fd_events(n->loop, &n->watch, events);
    n->events = events;
}

/* The server may have hung up: that is found by reading, or by writing if it is only writing that is waited for. */
static void ready(void *opaque, uint32_t events)
{
    struct nbd *n = opaque;
    unsigned direction = nbd_aio_get_direction(n->h);
    bool can_read = direction & LIBNBD_AIO_DIRECTION_READ, can_write = direction & LIBNBD_AIO_DIRECTION_WRITE;
    if (can_read && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        nbd_aio_notify_read(n->h);
    else if (can_write && events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        nbd_aio_notify_write(n->h);
    follow(n);
    deliver(n);
}

/* ---- operations ---- */

static int64_t issue(struct nbd *n, struct store_io *io)
{
    nbd_completion_callback cb = {.callback = completed, .user_data = io};
    switch (io->op) {
    case STORE_READ:
        return nbd_aio_pread(n->h, io->iov->iov_base, io->len, io->off, cb, 0);
    case STORE_WRITE:
        return nbd_aio_pwrite(n->h, io->iov->iov_base, io->len, io->off, cb, io->fua ? LIBNBD_CMD_FLAG_FUA : 0);
    case STORE_SYNC:
        return nbd_aio_flush(n->h, cb, 0);
    case STORE_DISCARD:
        return nbd_aio_trim(n->h, io->len, io->off, cb, 0);
    case STORE_PUNCH:
        return nbd_aio_zero(n->h, io->len, io->off, cb, 0);
    case STORE_ZERO:
        return nbd_aio_zero(n->h, io->len, io->off, cb, LIBNBD_CMD_FLAG_NO_HOLE);
    }
    return -1;
}

/* What needs no server, or one that is not there. 1: it has to be asked. */
static int64_t without_server(const struct nbd *n, const struct store_io *io)
{
    if (n->dead)
        return -EIO;
    if (io->op == STORE_SYNC && !n->can_flush)
        return 0;
    if ((io->op == STORE_PUNCH || io->op == STORE_ZERO) && !n->can_zero)
        return -EOPNOTSUPP;
    return 1;
}

static void put(struct store *s, struct store_io *io)
{
    struct nbd *n = of(s);
    io->store = s;
    int64_t result = without_server(n, io);
    if (result == 1 && issue(n, io) < 0)
        result = failure(io, nbd_get_errno());
    if (result != 1)
        note_done(n, io, result);
    follow(n);
}

static void kick(struct store *s)
{
}

static void wait_for_done(struct store *s)
{
    struct nbd *n = of(s);
    if (!n->done && !n->dead)
        nbd_poll(n->h, -1);
    follow(n);
    deliver(n);
}

/* ---- ending ---- */

static void detach(struct store *s)
{
    struct nbd *n = of(s);
    unwatch(n);
    if (n->server.pidfd >= 0)
        ioloop_fd_remove(n->loop, &n->grave);
    ioloop_bell_remove(n->loop, &n->bell);
}

/* Say good-bye, so that the server does not take it for an accident; but not for ever. */
static void disconnect(struct nbd *n)
{
    uint64_t until = clock_host_ns() + DISCONNECT_NS;
    if (n->dead || nbd_aio_disconnect(n->h, 0))
        return;
    while (!nbd_aio_is_closed(n->h) && !nbd_aio_is_dead(n->h) && clock_host_ns() < until)
        if (nbd_poll(n->h, 100) < 0)
            return;
}

static void nbd_free(struct nbd *n)
{
    if (n->watch.fd >= 0)
        close(n->watch.fd);
    nbd_close(n->h);
    block_server_end(&n->server);
    free(n->option);
    free(n->file);
    free(n);
}

static void close_nbd(struct store *s)
{
    disconnect(of(s));
    nbd_free(of(s));
}

static const struct store_ops nbd_ops = {
    .put = put, .kick = kick, .wait = wait_for_done, .detach = detach, .close = close_nbd};

/* ---- connecting ---- */

static int refused(const struct nbd *n, struct err *e)
{
    char said[512];
    const char *why = nbd_get_error();
    block_server_said(&n->server, said, sizeof said);
    if (n->server.program)
        return err_set(e, -EIO, "%s: %s: %s%s", n->option, n->file,
                       *said ? "" : "qemu-nbd: ", *said ? said : "it ended without a word");
    return err_set(e, -ECONNREFUSED, "%s: %s: no NBD server answers: %s", n->option, n->file, why ? why : "no reason");
}

/* Signals that end the program are blocked while a machine is built: whoever waits looks for them. */
static bool asked_to_end(void)
{
    sigset_t s;
    return !sigpending(&s) && (sigismember(&s, SIGINT) || sigismember(&s, SIGTERM) || sigismember(&s, SIGHUP));
}

/* A server of our own ends if it can't; one at an address may never answer. */
static int finish_connecting(struct nbd *n, struct err *e)
{
    uint64_t until = n->server.program ? UINT64_MAX : clock_host_ns() + CONNECT_NS;
    while (nbd_aio_is_connecting(n->h) || nbd_aio_is_negotiating(n->h)) {
        if (nbd_poll(n->h, 100) < 0)
            return refused(n, e);
        if (asked_to_end())
            return err_set(e, -EINTR, "%s: %s: interrupted before the NBD server answered", n->option, n->file);
        if (clock_host_ns() > until)
            return err_set(e, -ETIMEDOUT, "%s: %s: no NBD server answered for a minute", n->option, n->file);
    }
    return nbd_aio_is_ready(n->h) ? 0 : refused(n, e);
}

static int connect_to(struct nbd *n, const struct block_config *c, const char *format, struct err *e)
{
    int fd;
    nbd_set_pread_initialize(n->h, false);
    if (!format)
        return nbd_aio_connect_uri(n->h, c->file) ? refused(n, e) : finish_connecting(n, e);
    int rc = block_server_start(c, format, &n->server, &fd, e);
    if (rc)
        return rc;
    return nbd_aio_connect_socket(n->h, fd) ? refused(n, e) : finish_connecting(n, e);
}

static unsigned block_size_of(const struct nbd *n, int which, unsigned otherwise)
{
    int64_t size = nbd_get_block_size(n->h, which);
    return size > 0 && size <= BLOCK_MAX_ALIGN && !(size & (size - 1)) ? (unsigned)size : otherwise;
}

static void find_traits(struct nbd *n)
{
    int64_t size = nbd_get_size(n->h), max = nbd_get_block_size(n->h, LIBNBD_SIZE_MAXIMUM);
    unsigned physical = block_size_of(n, LIBNBD_SIZE_PREFERRED, 4096);
    n->s.align = block_size_of(n, LIBNBD_SIZE_MINIMUM, 1);
    n->s.size = size < 0 ? 0 : (uint64_t)size;
    n->s.max_len = align_down(max > 0 ? min_u64((uint64_t)max, MAX_LEN) : MAX_LEN, n->s.align);
    if (n->s.max_len < n->s.align)
        n->s.max_len = n->s.align;
    n->s.mem_align = 1;
    n->s.physical = physical < 512 ? 512 : physical > 4096 ? 4096 : physical;
    n->s.contiguous = true;
    n->s.readonly = nbd_is_read_only(n->h) > 0;
    n->s.can_fua = nbd_can_fua(n->h) > 0;
    n->s.can_discard = nbd_can_trim(n->h) > 0;
    n->can_flush = nbd_can_flush(n->h) > 0;
    n->can_zero = nbd_can_zero(n->h) > 0;
}

static void attach(void *opaque)
{
    struct nbd *n = opaque;
    n->attach_result = ioloop_fd_add(n->loop, &n->watch, EPOLLIN, NULL);
    n->attached = !n->attach_result;
    n->events = EPOLLIN;
    n->grave = (struct ioloop_fd){.fn = bury, .opaque = n, .fd = n->server.pidfd};
    if (n->attached && n->grave.fd >= 0)
        ioloop_fd_add(n->loop, &n->grave, EPOLLIN, NULL); /* if it can't be, the end waits for it */
}

static int watch(struct nbd *n, struct err *e)
{
    n->watch.fd = fcntl(nbd_aio_get_fd(n->h), F_DUPFD_CLOEXEC, 0);
    if (n->watch.fd < 0)
        return err_set(e, -errno, "%s: %s: %m", n->option, n->file);
    ioloop_call(n->loop, attach, n);
    if (n->attach_result)
        return err_set(e, n->attach_result, "%s: %s: %s", n->option, n->file, strerror(-n->attach_result));
    return 0;
}

static struct nbd *nbd_new(const struct block_config *c, struct ioloop *loop)
{
    struct nbd *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->s.ops = &nbd_ops;
    n->loop = loop;
    n->server = BLOCK_SERVER_NONE;
    n->option = strdup(c->option);
    n->file = strdup(c->file);
    n->h = nbd_create();
    n->done_end = &n->done;
    n->watch = (struct ioloop_fd){.fn = ready, .opaque = n, .fd = -1};
    ioloop_bell_init(&n->bell, deliver, n);
    if (n->h && n->option && n->file)
        return n;
    nbd_free(n);
    return NULL;
}

int block_nbd_create(const struct block_config *c, const char *format, struct ioloop *loop, struct store **out,
                     struct err *e)
{
    struct nbd *n = nbd_new(c, loop);
    if (!n)
        return err_set(e, -ENOMEM, "%s: no memory", c->option);
    int rc = connect_to(n, c, format, e);
    if (!rc) {
        find_traits(n);
        if (n->s.readonly && !c->readonly && !c->snapshot)
            rc = err_set(e, -EROFS, "%s: %s is served read-only: give readonly=on or snapshot=on", c->option, c->file);
    }
    if (!rc)
        rc = watch(n, e);
    if (rc) {
        block_server_hasten(&n->server);
        nbd_free(n);
        return rc;
    }
    *out = &n->s;
    return 0;
}
