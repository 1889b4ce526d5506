/* A block on a loop of its own, and requests that are waited for. */
#ifndef HEC_TESTS_BLOCK_RIG_H
#define HEC_TESTS_BLOCK_RIG_H

#include "dev/block_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct brig {
    struct epoch epoch;
    struct ioloop *loop;
    struct block *b;
    struct err e;
    char dir[64], file[128];
};

/* One request of a test's. */
struct breq {
    struct block_request r;
    struct brig *rig;
    struct iovec iov;
    sem_t *over;
    int result;
};

static inline int brig_set_up(void **state)
{
    struct brig *r = calloc(1, sizeof *r);
    const char *tmp = getenv("TMPDIR");
    epoch_init(&r->epoch);
    snprintf(r->dir, sizeof r->dir, "%s/hec-block-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(r->dir))
        return -1;
    snprintf(r->file, sizeof r->file, "%s/disk", r->dir);
    *state = r;
    return ioloop_create(&(struct ioloop_config){.name = "block", .epoch = &r->epoch}, &r->loop, &r->e);
}

static inline int brig_tear_down(void **state)
{
    struct brig *r = *state;
    block_close(r->b);
    ioloop_destroy(r->loop);
    epoch_fini(&r->epoch);
    unlink(r->file);
    int rc = rmdir(r->dir);
    free(r);
    return rc;
}

static inline void brig_make_file(const struct brig *r, uint64_t size)
{
    int fd = open(r->file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    close(fd);
}

static inline bool brig_has(const char *program)
{
    char cmd[128];
    snprintf(cmd, sizeof cmd, "command -v %s >/dev/null 2>&1", program);
    return system(cmd) == 0;
}

static inline void brig_shell(const struct brig *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline void brig_shell(const struct brig *r, const char *fmt, ...)
{
    char cmd[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(cmd, sizeof cmd, fmt, ap);
    va_end(ap);
    assert_int_equal(system(cmd), 0);
}

static inline int brig_try(struct brig *r, const struct block_config *c, const struct block_tuning *t)
{
    struct block_config config = *c;
    struct block_tuning plain = {.align = 1};
    config.option = config.option ? config.option : "-hda";
    config.file = config.file ? config.file : r->file;
    r->e.msg[0] = 0;
    return block_open_tuned(&config, t ? t : &plain, r->loop, &r->b, &r->e);
}

static inline void brig_open(struct brig *r, const struct block_config *c, const struct block_tuning *t)
{
    int rc = brig_try(r, c, t);
    if (rc)
        print_message("%s\n", r->e.msg);
    assert_int_equal(rc, 0);
}

static inline void brig_close(struct brig *r)
{
    block_close(r->b);
    r->b = NULL;
}

static inline void breq_done(struct block_request *r, int result)
{
    struct breq *q = r->opaque;
    q->result = result;
    sem_post(q->over);
}

struct brig_batch {
    struct brig *rig;
    struct breq *q;
    unsigned n;
};

static inline void brig_submit_batch(void *opaque)
{
    struct brig_batch *b = opaque;
    for (unsigned i = 0; i < b->n; i++)
        block_submit(b->rig->b, &b->q[i].r);
    block_kick(b->rig->b);
}

/* Submit all, kick once, and wait for all. */
static inline void brig_run(struct brig *r, struct breq *q, unsigned n)
{
    sem_t over;
    sem_init(&over, 0, 0);
    for (unsigned i = 0; i < n; i++) {
        q[i].rig = r;
        q[i].over = &over;
        q[i].result = 1;
        q[i].r.done = breq_done;
        q[i].r.opaque = &q[i];
    }
    ioloop_call(r->loop, brig_submit_batch, &(struct brig_batch){r, q, n});
    for (unsigned i = 0; i < n; i++)
        while (sem_wait(&over))
            ;
    sem_destroy(&over);
}

static inline int brig_do(struct brig *r, enum block_op op, unsigned flags, uint64_t off, void *buf, uint64_t len)
{
    struct breq q = {.r = {.op = op, .flags = flags, .offset = off, .len = len}, .iov = {buf, len}};
    q.r.iov = &q.iov;
    q.r.iovs = buf ? 1 : 0;
    brig_run(r, &q, 1);
    return q.result;
}

static inline int brig_read(struct brig *r, uint64_t off, void *buf, uint64_t len)
{
    return brig_do(r, BLOCK_READ, 0, off, buf, len);
}

static inline int brig_write(struct brig *r, uint64_t off, const void *buf, uint64_t len)
{
    return brig_do(r, BLOCK_WRITE, 0, off, (void *)(uintptr_t)buf, len);
}

static inline int brig_flush(struct brig *r)
{
    return brig_do(r, BLOCK_FLUSH, 0, 0, NULL, 0);
}

/* ---- processes ---- */

/* A child of this program that main() starts with "child", `what`, `file` and `arg`: a fork alone has no threads. Its
 * descriptor 3 is `fd`. */
static inline pid_t brig_child(const char *what, const char *file, unsigned arg, int fd)
{
    char number[16], exe[256];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    assert_true(n > 0);
    exe[n] = 0;
    snprintf(number, sizeof number, "%u", arg);
    pid_t pid = fork();
    if (pid)
        return pid;
    if (fd >= 0 && dup2(fd, 3) != 3)
        _exit(126);
    execl(exe, exe, "child", what, file, number, (char *)NULL);
    _exit(127);
}

static inline int brig_wait(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* Run an NBD server in the foreground, listening on DIR/sock, and wait until it answers there. */
static inline pid_t brig_serve(const struct brig *r, char *const argv[])
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s/sock", r->dir);
    pid_t pid = fork();
    if (!pid) {
        execvp(argv[0], argv);
        _exit(127);
    }
    /* It may listen before it has its image: only then does it greet. */
    for (bool greeted = false; !greeted; usleep(1000)) {
        char greeting[8];
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        greeted = !connect(fd, (struct sockaddr *)&a, sizeof a) &&
                  recv(fd, greeting, sizeof greeting, MSG_WAITALL) == sizeof greeting;
        close(fd);
        assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    }
    return pid;
}

static inline void brig_unserve(const struct brig *r, pid_t pid)
{
    char path[200];
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    snprintf(path, sizeof path, "%s/sock", r->dir);
    unlink(path);
}

/* A child's rig, on its parent's file. */
static inline struct brig *brig_in_child(const char *file)
{
    struct brig *r;
    if (brig_set_up((void **)&r))
        _exit(125);
    rmdir(r->dir);
    snprintf(r->file, sizeof r->file, "%s", file);
    return r;
}

/* ---- numbers ---- */

static inline uint64_t brig_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static inline void brig_fill(uint64_t seed, void *buf, uint64_t len)
{
    uint64_t s = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (uint64_t i = 0; i < len; i++)
        ((unsigned char *)buf)[i] = (unsigned char)(brig_random(&s) >> 32);
}

#endif
