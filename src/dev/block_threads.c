/* A store on a file by a few threads that wait in the host's system calls: where io_uring is forbidden. */
#include "dev/block_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#define WORKERS 4

struct list {
    struct store_io *first, **end;
};

struct threads {
    struct store s;
    int fd;
    struct ioloop *loop;
    struct ioloop_bell bell;
    pthread_mutex_t lock;
    pthread_cond_t work, news;
    struct list todo; /* (l) */
    struct list done; /* (l) */
    bool stop;        /* (l) */
    pthread_t worker[WORKERS];
    unsigned workers;
};

static struct threads *of(struct store *s)
{
    return container_of(s, struct threads, s);
}

static void list_init(struct list *l)
{
    l->first = NULL;
    l->end = &l->first;
}

static void append(struct list *l, struct store_io *io)
{
    io->next = NULL;
    *l->end = io;
    l->end = &io->next;
}

static struct store_io *pop(struct list *l)
{
    struct store_io *io = l->first;
    l->first = io->next;
    if (!l->first)
        l->end = &l->first;
    return io;
}

/* ---- the workers ---- */

static int64_t perform(const struct threads *t, const struct store_io *io)
{
    int64_t rc = -1;
    int keep = FALLOC_FL_KEEP_SIZE;
    switch (io->op) {
    case STORE_READ:
        rc = preadv(t->fd, io->iov, (int)io->iovs, (off_t)io->off);
        break;
    case STORE_WRITE:
        rc = pwritev2(t->fd, io->iov, (int)io->iovs, (off_t)io->off, io->fua ? RWF_DSYNC : 0);
        break;
    case STORE_SYNC:
        rc = fdatasync(t->fd);
        break;
    case STORE_DISCARD:
    case STORE_PUNCH:
        rc = fallocate(t->fd, FALLOC_FL_PUNCH_HOLE | keep, (off_t)io->off, (off_t)io->len);
        break;
    case STORE_ZERO:
        rc = fallocate(t->fd, FALLOC_FL_ZERO_RANGE | keep, (off_t)io->off, (off_t)io->len);
        break;
    }
    return rc < 0 ? -errno : rc;
}

static void *worker(void *opaque)
{
    struct threads *t = opaque;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        while (!t->todo.first && !t->stop)
            pthread_cond_wait(&t->work, &t->lock);
        if (!t->todo.first)
            break;
        struct store_io *io = pop(&t->todo);
        pthread_mutex_unlock(&t->lock);
        io->result = perform(t, io);
        pthread_mutex_lock(&t->lock);
        append(&t->done, io);
        pthread_cond_signal(&t->news);
        ioloop_ring(t->loop, &t->bell);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* ---- the loop's thread ---- */

static void put(struct store *s, struct store_io *io)
{
    struct threads *t = of(s);
    pthread_mutex_lock(&t->lock);
    append(&t->todo, io);
    pthread_cond_signal(&t->work);
    pthread_mutex_unlock(&t->lock);
}

static void kick(struct store *s)
{
}

static void deliver(void *opaque)
{
    struct threads *t = opaque;
    pthread_mutex_lock(&t->lock);
    struct store_io *io = t->done.first;
    list_init(&t->done);
    pthread_mutex_unlock(&t->lock);
    while (io) {
        struct store_io *next = io->next;
        io->done(io, io->result);
        io = next;
    }
}

static void wait_for_done(struct store *s)
{
    struct threads *t = of(s);
    pthread_mutex_lock(&t->lock);
    while (!t->done.first)
        pthread_cond_wait(&t->news, &t->lock);
    pthread_mutex_unlock(&t->lock);
    deliver(t);
}

static void end_workers(struct threads *t)
{
    pthread_mutex_lock(&t->lock);
    t->stop = true;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
    for (unsigned i = 0; i < t->workers; i++)
        pthread_join(t->worker[i], NULL);
    t->workers = 0;
}

/* After the workers have ended nobody rings. */
static void detach(struct store *s)
{
    struct threads *t = of(s);
    end_workers(t);
    ioloop_bell_remove(t->loop, &t->bell);
}

static void threads_free(struct threads *t)
{
    pthread_cond_destroy(&t->work);
    pthread_cond_destroy(&t->news);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static void close_threads(struct store *s)
{
    struct threads *t = of(s);
    close(t->fd);
    threads_free(t);
}

static const struct store_ops threads_ops = {
    .put = put, .kick = kick, .wait = wait_for_done, .detach = detach, .close = close_threads};

static int start_workers(struct threads *t)
{
    sigset_t all, old;
    int rc = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (!rc && t->workers < WORKERS && !(rc = pthread_create(&t->worker[t->workers], NULL, worker, t)))
        t->workers++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return t->workers ? 0 : -rc;
}

int block_threads_create(const struct block_file *f, struct ioloop *loop, struct store **out)
{
    struct threads *t = calloc(1, sizeof *t);
    if (!t)
        return -ENOMEM;
    t->s = f->traits;
    t->s.ops = &threads_ops;
    t->fd = f->fd;
    t->loop = loop;
    ioloop_bell_init(&t->bell, deliver, t);
    list_init(&t->todo);
    list_init(&t->done);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->news, NULL);
    int rc = start_workers(t);
    if (rc) {
        threads_free(t);
        return rc;
    }
    *out = &t->s;
    return 0;
}
