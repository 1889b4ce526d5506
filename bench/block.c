/* Disk images: 4 KiB reads at random and 256 KiB writes in sequence, by plain pread()/pwrite() and through the block
 * layer (io_uring, and the threads it falls back to), with 1 and 32 requests under way. The file is in the page cache,
 * so that what is measured is the way to it. Wall time, best of several rounds that take turns; ratios are to
 * pread()/pwrite(). Usage: bench_block [MiB [directory]] */
#include "base/clock.h"
#include "dev/block_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define READ_LEN  4096u
#define WRITE_LEN (256u << 10)
#define READS     40000u
#define ROUNDS    5
#define DEEP      32u

struct bench {
    struct epoch epoch;
    struct ioloop *loop;
    struct block *b;
    char file[300];
    int fd;
    uint64_t size;
    char *mem; /* DEEP buffers of WRITE_LEN */
};

struct run;

struct lane {
    struct block_request r;
    struct iovec iov;
    struct run *run;
};

/* `left` requests, `depth` at once. */
struct run {
    struct bench *bench;
    enum block_op op;
    unsigned next, left, depth, under_way;
    struct lane lane[DEEP];
    sem_t over;
};

static void check(int rc, const char *what)
{
    if (rc) {
        fprintf(stderr, "bench_block: %s: %s\n", what, strerror(rc < 0 ? -rc : rc));
        exit(1);
    }
}

static uint64_t place(const struct bench *b, enum block_op op, unsigned k)
{
    uint64_t len = op == BLOCK_READ ? READ_LEN : WRITE_LEN, n = b->size / len;
    return (op == BLOCK_READ ? k * UINT64_C(2654435761) % n : k % n) * len;
}

static void next(struct lane *l)
{
    struct run *run = l->run;
    if (run->left) {
        run->left--;
        run->under_way++;
        l->iov.iov_base = run->bench->mem + run->next % DEEP * WRITE_LEN;
        l->r.offset = place(run->bench, run->op, run->next++);
        block_submit(run->bench->b, &l->r);
    }
}

static void done(struct block_request *r, int result)
{
    struct lane *l = r->opaque;
    check(result, "a request");
    l->run->under_way--;
    next(l);
    if (!l->run->under_way)
        sem_post(&l->run->over);
}

static void begin(void *opaque)
{
    struct run *run = opaque;
    uint64_t len = run->op == BLOCK_READ ? READ_LEN : WRITE_LEN;
    for (unsigned i = 0; i < run->depth; i++) {
        struct lane *l = &run->lane[i];
        l->run = run;
        l->iov = (struct iovec){NULL, len};
        l->r = (struct block_request){.op = run->op, .len = len, .iov = &l->iov, .iovs = 1, .done = done, .opaque = l};
        next(l);
    }
    block_kick(run->bench->b);
}

/* ns for `n` requests through the block layer. */
static double through_block(struct bench *b, enum block_op op, unsigned n, unsigned depth)
{
    static struct run run;
    run = (struct run){.bench = b, .op = op, .left = n, .depth = depth};
    sem_init(&run.over, 0, 0);
    uint64_t start = clock_host_ns();
    ioloop_call(b->loop, begin, &run);
    while (sem_wait(&run.over))
        ;
    return (double)(clock_host_ns() - start);
}

static double plain(struct bench *b, enum block_op op, unsigned n)
{
    uint64_t start = clock_host_ns();
    for (unsigned k = 0; k < n; k++) {
        off_t at = (off_t)place(b, op, k);
        char *mem = b->mem + k % DEEP * WRITE_LEN;
        ssize_t len = op == BLOCK_READ ? pread(b->fd, mem, READ_LEN, at) : pwrite(b->fd, mem, WRITE_LEN, at);
        check(len <= 0 ? EIO : 0, "pread or pwrite");
    }
    return (double)(clock_host_ns() - start);
}

static double better(double best, double ns)
{
    return ns < best ? ns : best;
}

static void row(struct bench *b, const char *store, enum block_op op, unsigned n)
{
    double direct = 1e18, one = 1e18, deep = 1e18;
    for (unsigned i = 0; i < ROUNDS; i++) {
        direct = better(direct, plain(b, op, n));
        one = better(one, through_block(b, op, n, 1));
        deep = better(deep, through_block(b, op, n, DEEP));
    }
    double us = 1000.0 * n;
    printf("%-8s  %-15s  %9.2f  %9.2f  %5.2f  %9.2f  %5.2f\n", store, op == BLOCK_READ ? "read 4 KiB" : "write 256 KiB",
           direct / us, one / us, direct / one, deep / us, direct / deep);
}

static void rows(struct bench *b, bool threads)
{
    struct err e = {""};
    struct block_tuning t = {.no_uring = threads, .align = 1};
    struct block_config c = {.option = "-hda", .file = b->file, .format = "raw"};
    if (block_open_tuned(&c, &t, b->loop, &b->b, &e)) {
        fprintf(stderr, "bench_block: %s\n", e.msg);
        exit(1);
    }
    row(b, threads ? "threads" : "io_uring", BLOCK_READ, READS);
    row(b, threads ? "threads" : "io_uring", BLOCK_WRITE, (unsigned)(b->size / WRITE_LEN));
    block_close(b->b);
}

static void fill(struct bench *b)
{
    memset(b->mem, 1, DEEP * WRITE_LEN);
    for (uint64_t at = 0; at < b->size; at += WRITE_LEN)
        check(pwrite(b->fd, b->mem, WRITE_LEN, (off_t)at) != WRITE_LEN ? EIO : 0, "filling the file");
}

int main(int argc, char **argv)
{
    struct bench b = {.size = (argc > 1 ? strtoull(argv[1], NULL, 0) : 256) << 20};
    struct err e = {""};
    snprintf(b.file, sizeof b.file, "%s/hecaton-bench-XXXXXX", argc > 2 ? argv[2] : "/var/tmp");
    b.fd = mkostemp(b.file, O_CLOEXEC);
    check(b.fd < 0 ? EIO : 0, b.file);
    b.mem = aligned_alloc(4096, DEEP * WRITE_LEN);
    fill(&b);
    epoch_init(&b.epoch);
    check(ioloop_create(&(struct ioloop_config){.name = "bench", .epoch = &b.epoch}, &b.loop, &e), "loop");
    printf("store     request           plain us       1 us  ratio      32 us  ratio\n");
    rows(&b, false);
    rows(&b, true);
    ioloop_destroy(b.loop);
    epoch_fini(&b.epoch);
    unlink(b.file);
    free(b.mem);
    return 0;
}
