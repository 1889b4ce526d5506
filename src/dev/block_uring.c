/* A store on a file by io_uring: a ring of its own, whose descriptor the loop watches. Buffered reads that hit the page
 * cache are done when io_uring_submit() returns, so the ring is looked at right then. */
#include "dev/block_priv.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define RETRY_NS 1000000u

struct uring {
    struct store s;
    int fd;
    struct ioloop *loop;
    struct io_uring ring;
    struct ioloop_fd watch;
    struct ioloop_timer retry; /* the kernel would not take what was put */
    unsigned queued;           /* put and not yet taken by the kernel */
    bool attached;
    int attach_result;
};

static struct uring *of(struct store *s)
{
    return container_of(s, struct uring, s);
}

/* The file isn't registered with the ring: that would keep it open, and locked, until the kernel gets round to taking
 * the ring down, which may be after this process is gone. */
static void prepare(struct io_uring_sqe *q, int file, const struct store_io *io)
{
    const struct iovec *one = io->iovs == 1 ? io->iov : NULL;
    switch (io->op) {
    case STORE_READ:
        if (one)
            io_uring_prep_read(q, file, one->iov_base, (unsigned)one->iov_len, io->off);
        else
            io_uring_prep_readv(q, file, io->iov, io->iovs, io->off);
        break;
    case STORE_WRITE:
        if (one)
            io_uring_prep_write(q, file, one->iov_base, (unsigned)one->iov_len, io->off);
        else
            io_uring_prep_writev(q, file, io->iov, io->iovs, io->off);
        q->rw_flags = io->fua ? RWF_DSYNC : 0;
        break;
    case STORE_SYNC:
        io_uring_prep_fsync(q, file, IORING_FSYNC_DATASYNC);
        break;
    case STORE_DISCARD:
    case STORE_PUNCH:
        io_uring_prep_fallocate(q, file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)io->off, (off_t)io->len);
        break;
    case STORE_ZERO:
        io_uring_prep_fallocate(q, file, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)io->off, (off_t)io->len);
        break;
    }
}

/* There is room: the ring has an entry for each slot. */
static void put(struct store *s, struct store_io *io)
{
    struct uring *u = of(s);
    struct io_uring_sqe *q = io_uring_get_sqe(&u->ring);
    prepare(q, u->fd, io);
    io_uring_sqe_set_data(q, io);
    u->queued++;
}

/* Give back what is done. Returns how much that was. */
static unsigned reap(struct uring *u)
{
    struct io_uring_cqe *cqe;
    unsigned n = 0;
    for (; !io_uring_peek_cqe(&u->ring, &cqe); n++) {
        struct store_io *io = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&u->ring, cqe);
        io->done(io, result);
    }
    return n;
}

/* What the kernel will not take now (no memory) it is asked to take again soon. */
static void submit(struct uring *u)
{
    while (u->queued) {
        int n = io_uring_submit(&u->ring);
        if (n == -EINTR)
            continue;
        if (n <= 0) {
            ioloop_timer_arm(u->loop, &u->retry, clock_host_ns() + RETRY_NS);
            return;
        }
        u->queued -= (unsigned)n;
    }
}

static void kick(struct store *s)
{
    struct uring *u = of(s);
    do
        submit(u);
    while (reap(u) && u->queued);
}

static void retry(void *opaque)
{
    struct uring *u = opaque;
    kick(&u->s);
}

static void ready(void *opaque, uint32_t events)
{
    struct uring *u = opaque;
    kick(&u->s);
}

static void wait_for_done(struct store *s)
{
    struct uring *u = of(s);
    struct io_uring_cqe *cqe;
    submit(u);
    io_uring_wait_cqe(&u->ring, &cqe); /* EINTR: reap() finds nothing, and the caller asks again */
    kick(s);
}

static void attach(void *opaque)
{
    struct uring *u = opaque;
    u->attach_result = ioloop_fd_add(u->loop, &u->watch, EPOLLIN, NULL);
    u->attached = !u->attach_result;
}

static void detach(struct store *s)
{
    struct uring *u = of(s);
    if (!u->attached)
        return;
    u->attached = false;
    ioloop_timer_cancel(u->loop, &u->retry);
    ioloop_fd_remove(u->loop, &u->watch);
}

static void close_uring(struct store *s)
{
    struct uring *u = of(s);
    io_uring_queue_exit(&u->ring);
    close(u->fd);
    free(u);
}

static const struct store_ops uring_ops = {
    .put = put, .kick = kick, .wait = wait_for_done, .detach = detach, .close = close_uring};

static bool knows_all(struct io_uring *ring)
{
    static const int needed[] = {IORING_OP_READ,   IORING_OP_WRITE, IORING_OP_READV,
                                 IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE};
    struct io_uring_probe *p = io_uring_get_probe_ring(ring);
    bool all = p;
    for (size_t i = 0; p && i < ARRAY_SIZE(needed); i++)
        all &= !!io_uring_opcode_supported(p, needed[i]);
    io_uring_free_probe(p);
    return all;
}

/* Buffers described in the slot stay where they are until done, so any kernel's rule about them is kept. */
static int make_ring(struct uring *u)
{
    int rc = io_uring_queue_init(BLOCK_SLOTS, &u->ring, IORING_SETUP_CLAMP);
    if (rc)
        return rc;
    rc = knows_all(&u->ring) && u->ring.features & IORING_FEAT_NODROP ? 0 : -ENOSYS;
    if (rc)
        io_uring_queue_exit(&u->ring);
    return rc;
}

int block_uring_create(const struct block_file *f, struct ioloop *loop, struct store **out)
{
    struct uring *u = calloc(1, sizeof *u);
    if (!u)
        return -ENOMEM;
    u->fd = f->fd;
    int rc = make_ring(u);
    if (rc) {
        free(u);
        return rc;
    }
    u->s = f->traits;
    u->s.ops = &uring_ops;
    u->loop = loop;
    u->watch = (struct ioloop_fd){.fn = ready, .opaque = u, .fd = u->ring.ring_fd};
    ioloop_timer_init(&u->retry, retry, u);
    ioloop_call(loop, attach, u);
    if (u->attach_result) {
        rc = u->attach_result;
        io_uring_queue_exit(&u->ring);
        free(u);
        return rc;
    }
    *out = &u->s;
    return 0;
}
