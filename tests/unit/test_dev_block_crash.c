/* kill -9 at any moment loses no acknowledged write: a child writes through the block layer and says over a pipe what
 * was flushed (or written with FUA); it is killed in the middle, and all of that is in the image. */
#include "block_rig.h"

#include <signal.h>

#define DISK  (64u << 20)
#define CELL  4096u
#define BATCH 8u /* cells a flush */
#define ACKS  30u

struct way {
    const char *name, *format;
    bool fua; /* instead of flushes */
    enum block_cache cache;
    bool no_uring;
};

static const struct way ways[] = {
    {.name = "raw, flush", .format = "raw"},
    {.name = "raw, FUA", .format = "raw", .fua = true},
    {.name = "raw, threads", .format = "raw", .no_uring = true},
    {.name = "qcow2, flush", .format = "qcow2"},
    {.name = "qcow2, FUA", .format = "qcow2", .fua = true},
    {.name = "qcow2, cache=none", .format = "qcow2", .cache = BLOCK_NONE},
};

/* Where the n-th cell lies: all over the disk, each place once. */
static uint64_t place(uint64_t n)
{
    return n * 2654435761u % (DISK / CELL) * CELL;
}

static bool write_batch(struct brig *r, const struct way *w, uint64_t batch)
{
    static struct breq q[BATCH];
    static unsigned char data[BATCH][CELL];
    bool good = true;
    for (unsigned i = 0; i < BATCH; i++) {
        uint64_t n = batch * BATCH + i;
        brig_fill(n, data[i], CELL);
        q[i] = (struct breq){.iov = {data[i], CELL}};
        q[i].r = (struct block_request){.op = BLOCK_WRITE,
                                        .flags = w->fua ? BLOCK_FUA : 0,
                                        .offset = place(n),
                                        .len = CELL,
                                        .iov = &q[i].iov,
                                        .iovs = 1};
    }
    brig_run(r, q, BATCH);
    for (unsigned i = 0; i < BATCH; i++)
        good &= !q[i].result;
    return good && (w->fua || !brig_flush(r));
}

/* Until killed, or at the end of the disk. */
static int write_until_killed(const char *file, const struct way *w)
{
    struct brig *r = brig_in_child(file);
    if (brig_try(r, &(struct block_config){.format = w->format, .cache = w->cache},
                 &(struct block_tuning){.no_uring = w->no_uring, .align = 1}))
        return 2;
    for (uint64_t batch = 0; batch < DISK / CELL / BATCH; batch++)
        if (!write_batch(r, w, batch) || write(3, &batch, sizeof batch) != sizeof batch)
            return 3;
    pause();
    return 4;
}

/* How many batches were acknowledged. It is killed when the parent has heard of some, and was busy with more. */
static uint64_t crash(struct brig *r, const struct way *w)
{
    int fd[2];
    uint64_t batch, n = 0;
    assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
    pid_t pid = brig_child("write", r->file, (unsigned)(w - ways), fd[1]);
    close(fd[1]);
    while (read(fd[0], &batch, sizeof batch) == sizeof batch) {
        assert_int_equal(batch, n);
        if (++n == ACKS)
            kill(pid, SIGKILL);
    }
    close(fd[0]);
    waitpid(pid, NULL, 0);
    return n;
}

/* The child's qemu-nbd may still be at it. */
static void open_when_free(struct brig *r, const struct way *w)
{
    while (brig_try(r, &(struct block_config){.format = w->format}, NULL)) {
        if (!strstr(r->e.msg, "lock") && !strstr(r->e.msg, "in use"))
            fail_msg("%s", r->e.msg);
        usleep(1000);
    }
}

static void check(struct brig *r, uint64_t batches)
{
    static unsigned char expect[CELL], found[CELL];
    for (uint64_t n = 0; n < batches * BATCH; n++) {
        brig_fill(n, expect, CELL);
        assert_int_equal(brig_read(r, place(n), found, CELL), 0);
        assert_memory_equal(found, expect, CELL);
    }
}

static bool direct_works(const struct brig *r)
{
    int fd = open(r->dir, O_TMPFILE | O_RDWR | O_DIRECT, 0600);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void no_acknowledged_write_is_lost(void **state)
{
    struct brig *r = *state;
    bool tools = brig_has("qemu-nbd") && brig_has("qemu-img"), direct = direct_works(r);
    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        const struct way *w = &ways[i];
        bool raw = !strcmp(w->format, "raw");
        if ((!raw && !tools) || (w->cache == BLOCK_NONE && !direct)) {
            print_message("%s: skipped\n", w->name);
            continue;
        }
        if (raw)
            brig_make_file(r, DISK);
        else
            brig_shell(r, "qemu-img create -q -f qcow2 %s %u", r->file, DISK);
        uint64_t batches = crash(r, w);
        print_message("%s: %u batches\n", w->name, (unsigned)batches);
        assert_true(batches >= ACKS);
        open_when_free(r, w);
        check(r, batches);
        brig_close(r);
        if (!raw)
            brig_shell(r, "qemu-img check -q -f qcow2 %s || [ $? = 3 ]", r->file); /* 3: leaks, which harm nobody */
        unlink(r->file);
    }
}

int main(int argc, char **argv)
{
    if (argc == 5)
        return write_until_killed(argv[3], &ways[atoi(argv[4])]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(no_acknowledged_write_is_lost, brig_set_up, brig_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
