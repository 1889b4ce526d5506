#include "block_mem_store.h"

#define MIB (1u << 20)

/* ---- pieces ---- */

static void probing_goes_by_magic(void **state)
{
    unsigned char b[512] = {0};
    assert_null(block_probe(b, sizeof b));
    memcpy(b, "QFI\xfb\0\0\0\x03", 8);
    assert_string_equal(block_probe(b, sizeof b), "qcow2");
    b[7] = 1;
    assert_string_equal(block_probe(b, sizeof b), "qcow");
    b[7] = 9;
    assert_null(block_probe(b, sizeof b));
    memcpy(b, "KDMV", 4);
    assert_string_equal(block_probe(b, 4), "vmdk");
    assert_null(block_probe(b, 3));
    memset(b, 0, sizeof b);
    memcpy(b + 64, "\x7f\x10\xda\xbe", 4);
    assert_string_equal(block_probe(b, 68), "vdi");
    assert_null(block_probe(b, 67));
    memset(b, 0, sizeof b);
    memcpy(b, "conectix", 8);
    assert_string_equal(block_probe(b, sizeof b), "vpc");
}

static void check_run(const struct block_map *m, const bool *marked, uint64_t sectors, uint64_t at, uint64_t n)
{
    bool there;
    uint64_t run = block_map_run(m, at * 512, n * 512, &there) / 512, expect = 1;
    while (expect < n && marked[at + expect] == marked[at])
        expect++;
    assert_int_equal(there, marked[at]);
    assert_true(run >= 1 && run <= expect);
    /* Shorter only where a piece of the map ends. */
    assert_true(run == expect || (at + run) % 64 == 0);
    /* From inside a sector, and to inside one. */
    assert_int_equal(block_map_run(m, at * 512 + 100, n * 512 - 100, &there), run * 512 - 100);
    assert_int_equal(block_map_run(m, at * 512 + 100, 300, &there), 300);
}

static void the_map_knows_what_was_marked(void **state)
{
    enum { SECTORS = 100000 };
    struct block_map m;
    uint64_t seed = 5;
    bool *marked = calloc(SECTORS, sizeof *marked);
    assert_int_equal(block_map_init(&m, SECTORS * 512), 0);
    for (unsigned round = 0; round < 300; round++) {
        uint64_t at = brig_random(&seed) % SECTORS, n = 1 + brig_random(&seed) % min_u64(SECTORS - at, 700);
        assert_int_equal(block_map_reserve(&m, at * 512, n * 512), 0);
        block_map_mark(&m, at * 512, n * 512);
        memset(marked + at, 1, n);
        for (unsigned k = 0; k < 50; k++) {
            at = brig_random(&seed) % SECTORS;
            check_run(&m, marked, SECTORS, at, 1 + brig_random(&seed) % (SECTORS - at));
        }
    }
    block_map_fini(&m);
    free(marked);
}

static void addresses_are_told_from_paths(void **state)
{
    assert_true(block_nbd_is_address("nbd://host:1/x"));
    assert_true(block_nbd_is_address("nbd+unix:///?socket=/s"));
    assert_false(block_nbd_is_address("nbd"));
    assert_false(block_nbd_is_address("./nbd://x"));
}

/* ---- opening ---- */

static void refuses(struct brig *r, const struct block_config *c, int code, const char *word)
{
    assert_int_equal(brig_try(r, c, NULL), code);
    assert_non_null(strstr(r->e.msg, "-hda: "));
    if (!strstr(r->e.msg, word))
        print_message("%s\n", r->e.msg);
    assert_non_null(strstr(r->e.msg, word));
    assert_null(strchr(r->e.msg, '\n'));
}

static void what_is_no_image_is_refused(void **state)
{
    struct brig *r = *state;
    refuses(r, &(struct block_config){.format = "raw"}, -ENOENT, "no such file");
    refuses(r, &(struct block_config){.file = r->dir, .format = "raw"}, -EISDIR, "is a directory");
    refuses(r, &(struct block_config){.file = "/dev/null"}, -EINVAL, "neither a file nor a block device");
    brig_make_file(r, 0);
    refuses(r, &(struct block_config){.format = "raw"}, -EINVAL, "smaller than a sector");
    brig_make_file(r, MIB);
    setenv("TMPDIR", "/proc/nowhere", 1);
    refuses(r, &(struct block_config){.format = "raw", .snapshot = true}, -ENOENT, "TMPDIR");
    unsetenv("TMPDIR");
    if (geteuid()) {
        chmod(r->file, 0400);
        refuses(r, &(struct block_config){.format = "raw"}, -EACCES, "readonly=on");
        chmod(r->file, 0000);
        refuses(r, &(struct block_config){.format = "raw", .readonly = true}, -EACCES, "permission denied");
    }
}

static void an_address_takes_no_format_and_must_answer(void **state)
{
    struct brig *r = *state;
    char address[200];
    snprintf(address, sizeof address, "nbd+unix:///?socket=%s/none", r->dir);
    refuses(r, &(struct block_config){.file = address, .format = "qcow2"}, -EINVAL, "leave format=qcow2 out");
    refuses(r, &(struct block_config){.file = address}, -ECONNREFUSED, "no NBD server answers");
}

static void one_process_writes_an_image(void **state)
{
    struct brig *r = *state;
    struct block_config rw = {.format = "raw"}, ro = {.format = "raw", .readonly = true},
                        snap = {.format = "raw", .snapshot = true};
    brig_make_file(r, MIB);
    brig_open(r, &rw, NULL);
    struct block *first = r->b;
    refuses(r, &rw, -EAGAIN, "in use by another process");
    refuses(r, &ro, -EAGAIN, "that writes it");
    refuses(r, &snap, -EAGAIN, "that writes it");
    block_close(first);
    brig_open(r, &ro, NULL);
    first = r->b;
    brig_open(r, &snap, NULL); /* two readers */
    brig_close(r);
    refuses(r, &rw, -EAGAIN, "in use");
    block_close(first);
    r->b = NULL;
    brig_open(r, &rw, NULL);
}

static void qemu_keeps_off_our_image_and_we_off_its(void **state)
{
    struct brig *r = *state;
    char cmd[300], socket[160];
    if (!brig_has("qemu-io") || !brig_has("qemu-nbd"))
        skip();
    brig_make_file(r, MIB);
    snprintf(cmd, sizeof cmd, "qemu-io -f raw -c 'read 0 512' %s >/dev/null 2>&1", r->file);
    assert_int_equal(system(cmd), 0);
    brig_open(r, &(struct block_config){.format = "raw"}, NULL);
    assert_int_not_equal(system(cmd), 0);
    brig_close(r);
    assert_int_equal(system(cmd), 0);
    snprintf(socket, sizeof socket, "%s/sock", r->dir);
    pid_t server = brig_serve(r, (char *[]){"qemu-nbd", "-t", "-f", "raw", "-k", socket, r->file, NULL});
    refuses(r, &(struct block_config){.format = "raw"}, -EAGAIN, "QEMU");
    brig_unserve(r, server);
    brig_open(r, &(struct block_config){.format = "raw"}, NULL);
}

/* ---- requests ---- */

static struct mem_store *open_memory(struct brig *r, struct block_config c, uint64_t size, unsigned align)
{
    struct mem_store *m = mem_store_new(size, align);
    brig_make_file(r, 512);
    brig_open(r, &c, &(struct block_tuning){.align = 1, .base = &m->s});
    return m;
}

static void requests_that_cannot_be_fail(void **state)
{
    struct brig *r = *state;
    char buf[2048];
    open_memory(r, (struct block_config){.file = NULL}, 8192 + 100, 1);
    assert_int_equal(block_size(r->b), 8192);
    assert_int_equal(brig_read(r, 8192 - 512, buf, 512), 0);
    assert_int_equal(brig_read(r, 8192, buf, 512), -EINVAL);
    assert_int_equal(brig_read(r, 8192 - 512, buf, 1024), -EINVAL);
    assert_int_equal(brig_read(r, UINT64_MAX - 511, buf, 1024), -EINVAL);
    assert_int_equal(brig_read(r, 100, buf, 512), -EINVAL);
    assert_int_equal(brig_read(r, 0, buf, 100), -EINVAL);
    assert_int_equal(brig_do(r, (enum block_op)7, 0, 0, buf, 512), -EINVAL);
    assert_int_equal(brig_do(r, BLOCK_READ, 0, 0, NULL, 512), -EINVAL); /* no buffers for it */
    assert_int_equal(brig_do(r, BLOCK_DISCARD, 0, 8192, NULL, 512), -EINVAL);
    assert_int_equal(brig_read(r, 8192, buf, 0), 0);
    assert_int_equal(brig_do(r, BLOCK_FLUSH, 0, 12345, NULL, 7), 0);
    struct block_stats st;
    block_stats(r->b, &st);
    assert_int_equal(st.failed, 8);
    assert_int_equal(st.requests[BLOCK_READ], 2);
    assert_int_equal(st.bytes[BLOCK_READ], 512);
    assert_int_equal(st.requests[BLOCK_FLUSH], 1);
}

static void a_read_only_image_is_not_written(void **state)
{
    struct brig *r = *state;
    char buf[512] = {1};
    brig_make_file(r, MIB);
    brig_open(r, &(struct block_config){.format = "raw", .readonly = true, .snapshot = true}, NULL);
    assert_true(block_readonly(r->b));
    assert_false(block_can_discard(r->b));
    assert_int_equal(brig_write(r, 0, buf, 512), -EROFS);
    assert_int_equal(brig_do(r, BLOCK_DISCARD, 0, 0, NULL, 512), -EROFS);
    assert_int_equal(brig_do(r, BLOCK_WRITE_ZEROES, 0, 0, NULL, 512), -EROFS);
    assert_int_equal(brig_flush(r), 0);
    assert_int_equal(brig_read(r, 0, buf, 512), 0);
    assert_int_equal(buf[0], 0);
}

struct early {
    struct brig *r;
    struct breq q[2];
    sem_t over;
    bool none_yet;
};

static void submit_early(void *opaque)
{
    struct early *e = opaque;
    for (int i = 0; i < 2; i++)
        block_submit(e->r->b, &e->q[i].r);
    block_kick(e->r->b);
    e->none_yet = e->q[0].result == 1 && e->q[1].result == 1 && block_in_flight(e->r->b) == 2;
}

static void nothing_is_done_inside_submit_or_kick(void **state)
{
    struct brig *r = *state;
    struct early e = {.r = r};
    char buf[512];
    open_memory(r, (struct block_config){.file = NULL}, 8192, 1);
    sem_init(&e.over, 0, 0);
    for (int i = 0; i < 2; i++) {
        e.q[i] = (struct breq){.over = &e.over, .result = 1, .iov = {buf, 512}};
        e.q[i].r = (struct block_request){.offset = i ? 1 : 0, .len = 512, .iov = &e.q[i].iov, .iovs = 1};
        e.q[i].r.done = breq_done;
        e.q[i].r.opaque = &e.q[i];
    }
    ioloop_call(r->loop, submit_early, &e);
    sem_wait(&e.over);
    sem_wait(&e.over);
    assert_true(e.none_yet);
    assert_int_equal(e.q[0].result, 0);
    assert_int_equal(e.q[1].result, -EINVAL);
    sem_destroy(&e.over);
}

static void a_guess_does_not_let_the_guest_choose_a_format(void **state)
{
    struct brig *r = *state;
    char buf[1024] = "QFI\xfb\0\0\0\x03";
    struct breq q = {.r = {.op = BLOCK_WRITE, .len = 512}};
    struct iovec pieces[] = {{buf, 3}, {buf + 3, 509}};
    buf[7] = 3;
    brig_make_file(r, MIB);
    brig_open(r, &(struct block_config){.cache = BLOCK_UNSAFE}, NULL);
    assert_int_equal(brig_write(r, 0, buf, 512), -EPERM);
    q.r.iov = pieces;
    q.r.iovs = 2;
    brig_run(r, &q, 1);
    assert_int_equal(q.result, -EPERM);
    assert_int_equal(brig_write(r, 512, buf, 512), 0);
    assert_int_equal(brig_write(r, 0, buf + 512, 512), 0);
    brig_close(r);
    brig_open(r, &(struct block_config){.format = "raw"}, NULL);
    assert_int_equal(brig_write(r, 0, buf, 512), 0);
}

/* ---- what is stable when ---- */

static void each_cache_mode_syncs_as_it_says(void **state)
{
    static const struct {
        enum block_cache cache;
        unsigned fua, fua_asked, sync;
    } modes[] = {
        {BLOCK_WRITEBACK, 0, 1, 1},  {BLOCK_NONE, 0, 1, 1},   {BLOCK_WRITETHROUGH, 1, 1, 1},
        {BLOCK_DIRECTSYNC, 1, 1, 1}, {BLOCK_UNSAFE, 0, 0, 0},
    };
    struct brig *r = *state;
    char buf[512] = {1};
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        struct mem_store *m = open_memory(r, (struct block_config){.cache = modes[i].cache}, 8192, 1);
        assert_int_equal(brig_write(r, 0, buf, 512), 0);
        assert_int_equal(m->fua, modes[i].fua);
        assert_int_equal(brig_do(r, BLOCK_WRITE, BLOCK_FUA, 0, buf, 512), 0);
        assert_int_equal(m->fua, modes[i].fua + modes[i].fua_asked);
        assert_int_equal(m->ops[STORE_SYNC], 0);
        assert_int_equal(brig_flush(r), 0);
        assert_int_equal(m->ops[STORE_SYNC], modes[i].sync);
        brig_close(r);
    }
}

static void without_fua_a_write_is_synced_after(void **state)
{
    struct brig *r = *state;
    char buf[512] = {1};
    struct mem_store *m = open_memory(r, (struct block_config){.discard = true}, 8192, 1);
    m->no_fua = true;
    for (unsigned i = 1; i <= 2; i++) {
        assert_int_equal(brig_do(r, BLOCK_WRITE, BLOCK_FUA, 0, buf, 512), 0);
        assert_int_equal(m->ops[STORE_SYNC], i);
    }
    assert_int_equal(m->ops[STORE_WRITE], 3); /* refused once */
    assert_int_equal(m->fua, 0);
    assert_int_equal(brig_do(r, BLOCK_WRITE_ZEROES, BLOCK_FUA, 0, NULL, 512), 0);
    assert_int_equal(m->ops[STORE_SYNC], 3);
}

static void zeroes_written_for_want_of_better_are_synced_too(void **state)
{
    struct brig *r = *state;
    struct mem_store *m = open_memory(r, (struct block_config){.discard = true}, 1 << 20, 1);
    memset(m->data, 7, 1 << 20);
    m->no_zero = m->no_punch = true;
    assert_int_equal(brig_do(r, BLOCK_WRITE_ZEROES, BLOCK_FUA | BLOCK_UNMAP, 512, NULL, (1 << 20) - 1024), 0);
    assert_int_equal(m->ops[STORE_PUNCH], 1);
    assert_int_equal(m->ops[STORE_ZERO], 1);
    assert_int_equal(m->ops[STORE_SYNC], 1);
    assert_int_equal(m->data[511], 7);
    assert_int_equal(m->data[512], 0);
    assert_int_equal(m->data[(1 << 20) - 513], 0);
    assert_int_equal(m->data[(1 << 20) - 512], 7);
}

static void a_failed_flush_is_never_forgotten(void **state)
{
    struct brig *r = *state;
    char buf[512];
    struct mem_store *m = open_memory(r, (struct block_config){.discard = true}, 8192, 1);
    m->fail[STORE_SYNC] = 1;
    assert_int_equal(brig_flush(r), -EIO);
    assert_int_equal(brig_flush(r), -EIO);
    assert_int_equal(brig_read(r, 0, buf, 512), 0);
    brig_close(r);
    m = open_memory(r, (struct block_config){.discard = true}, 8192, 1);
    m->s.cached = false; /* nothing of the host's was between: the next may succeed */
    m->fail[STORE_SYNC] = 1;
    assert_int_equal(brig_flush(r), -EIO);
    assert_int_equal(brig_flush(r), 0);
}

/* ---- errors of the store ---- */

static void errors_reach_the_request(void **state)
{
    struct brig *r = *state;
    char buf[512] = {1};
    struct mem_store *m = open_memory(r, (struct block_config){.discard = true}, 8192, 1);
    m->error = ENOSPC;
    m->fail[STORE_WRITE] = m->fail[STORE_PUNCH] = 1;
    assert_int_equal(brig_write(r, 0, buf, 512), -ENOSPC);
    assert_int_equal(brig_write(r, 0, buf, 512), 0);
    assert_int_equal(brig_do(r, BLOCK_WRITE_ZEROES, BLOCK_UNMAP, 0, NULL, 512), -ENOSPC);
    m->error = EIO;
    m->fail[STORE_READ] = m->fail[STORE_DISCARD] = 1;
    assert_int_equal(brig_read(r, 0, buf, 512), -EIO);
    assert_int_equal(brig_do(r, BLOCK_DISCARD, 0, 0, NULL, 512), -EIO);
    m->error = EOPNOTSUPP;
    m->fail[STORE_DISCARD] = 1;
    assert_int_equal(brig_do(r, BLOCK_DISCARD, 0, 0, NULL, 512), 0); /* it is only a hint */
    assert_false(block_can_discard(r->b));
}

static void again_and_again_ends(void **state)
{
    struct brig *r = *state;
    char buf[512];
    struct mem_store *m = open_memory(r, (struct block_config){.discard = true}, 8192, 1);
    m->always_again = true;
    assert_int_equal(brig_read(r, 0, buf, 512), -EAGAIN);
    assert_int_equal(brig_flush(r), -EAGAIN);
    m->always_again = false;
    assert_int_equal(brig_read(r, 0, buf, 512), 0);
}

static void a_store_that_ends_early_is_an_error(void **state)
{
    struct brig *r = *state;
    char buf[4096];
    struct mem_store *m = open_memory(r, (struct block_config){.discard = true}, 8192, 1);
    m->s.size = 2048; /* has shrunk */
    assert_int_equal(brig_read(r, 0, buf, 4096), -EIO);
    assert_int_equal(brig_read(r, 4096, buf, 512), -EIO);
    assert_int_equal(brig_write(r, 4096, buf, 512), -EIO);
    assert_int_equal(brig_read(r, 0, buf, 2048), 0);
}

/* ---- units ---- */

static void writes_to_parts_of_a_unit_do_not_undo_one_another(void **state)
{
    enum { UNIT = 4096, SECTORS = 64 };
    struct brig *r = *state;
    struct mem_store *m = open_memory(r, (struct block_config){.discard = true}, SECTORS * 512, UNIT);
    static struct breq q[SECTORS];
    static unsigned char data[SECTORS][512];
    memset(m->data, 0xee, SECTORS * 512);
    for (unsigned i = 0; i < SECTORS; i++) {
        memset(data[i], (int)i + 1, 512);
        q[i] = (struct breq){.r = {.op = BLOCK_WRITE, .offset = i * 512, .len = 512}, .iov = {data[i], 512}};
        q[i].r.iov = &q[i].iov;
        q[i].r.iovs = 1;
    }
    brig_run(r, q, SECTORS);
    assert_memory_equal(m->data, data, sizeof data);
    assert_int_equal(m->most, 1); /* each alone */
    assert_int_equal(m->ops[STORE_READ], SECTORS);
}

static void whole_units_are_written_side_by_side(void **state)
{
    enum { UNIT = 4096, N = 2 };
    struct brig *r = *state;
    struct mem_store *m = open_memory(r, (struct block_config){.discard = true}, N * UNIT, UNIT);
    static struct breq q[N];
    static unsigned char data[N][UNIT];
    for (unsigned i = 0; i < N; i++) {
        memset(data[i], (int)i + 1, UNIT);
        q[i] = (struct breq){.r = {.op = BLOCK_WRITE, .offset = i * UNIT, .len = UNIT}, .iov = {data[i], UNIT}};
        q[i].r.iov = &q[i].iov;
        q[i].r.iovs = 1;
    }
    brig_run(r, q, N);
    assert_int_equal(m->most, N);
    assert_int_equal(m->ops[STORE_READ], 0);
    assert_memory_equal(m->data, data, sizeof data);
}

/* ---- files ---- */

static void a_snapshot_leaves_the_file_as_it_was(void **state)
{
    struct brig *r = *state;
    char buf[1024], old[1024];
    struct stat before, after;
    brig_make_file(r, 64 * MIB);
    int fd = open(r->file, O_RDWR);
    brig_fill(1, old, sizeof old);
    assert_int_equal(pwrite(fd, old, sizeof old, 20 * MIB), sizeof old);
    fstat(fd, &before);
    brig_open(r, &(struct block_config){.format = "raw", .snapshot = true, .discard = true}, NULL);
    assert_true(block_can_discard(r->b));
    brig_fill(2, buf, sizeof buf);
    assert_int_equal(brig_write(r, 20 * MIB + 512, buf, 512), 0);
    assert_int_equal(brig_flush(r), 0);
    assert_int_equal(brig_read(r, 20 * MIB, buf + 0, 1024), 0);
    assert_memory_equal(buf, old, 512);
    assert_memory_not_equal(buf + 512, old + 512, 512);
    assert_int_equal(brig_do(r, BLOCK_DISCARD, 0, 20 * MIB, NULL, 512), 0);
    assert_int_equal(brig_read(r, 20 * MIB, buf, 512), 0);
    assert_int_equal(buf[0] | buf[511], 0);
    brig_close(r);
    fstat(fd, &after);
    assert_int_equal(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
    assert_int_equal(pread(fd, buf, sizeof buf, 20 * MIB), sizeof buf);
    assert_memory_equal(buf, old, sizeof old);
    close(fd);
}

static uint64_t blocks_of(const struct brig *r)
{
    struct stat st;
    assert_int_equal(stat(r->file, &st), 0);
    return (uint64_t)st.st_blocks;
}

static void discarding_gives_room_back_when_it_may(void **state)
{
    struct brig *r = *state;
    static char buf[MIB];
    brig_make_file(r, 4 * MIB);
    memset(buf, 3, sizeof buf);
    brig_open(r, &(struct block_config){.format = "raw"}, NULL);
    assert_false(block_can_discard(r->b));
    assert_int_equal(brig_write(r, 0, buf, MIB), 0);
    assert_int_equal(brig_flush(r), 0);
    uint64_t full = blocks_of(r);
    assert_int_equal(brig_do(r, BLOCK_DISCARD, 0, 0, NULL, MIB), 0);
    assert_int_equal(brig_read(r, 0, buf, 512), 0);
    assert_int_equal(buf[0], 3);
    assert_int_equal(brig_do(r, BLOCK_WRITE_ZEROES, BLOCK_UNMAP, 0, NULL, MIB), 0);
    assert_int_equal(blocks_of(r), full);
    brig_close(r);
    brig_open(r, &(struct block_config){.format = "raw", .discard = true}, NULL);
    assert_true(block_can_discard(r->b));
    assert_int_equal(brig_do(r, BLOCK_WRITE_ZEROES, BLOCK_UNMAP, 0, NULL, MIB), 0);
    assert_true(blocks_of(r) < full || full == 0);
    assert_int_equal(brig_read(r, 0, buf, 512), 0);
    assert_int_equal(buf[0], 0);
}

static void a_file_of_odd_size_loses_its_tail_only(void **state)
{
    struct brig *r = *state;
    char buf[512];
    struct stat st;
    brig_make_file(r, 5 * 512 + 17);
    brig_open(r, &(struct block_config){.format = "raw"}, &(struct block_tuning){.align = 4096});
    assert_int_equal(block_size(r->b), 5 * 512);
    memset(buf, 9, sizeof buf);
    assert_int_equal(brig_write(r, 4 * 512, buf, 512), 0);
    memset(buf, 0, sizeof buf);
    assert_int_equal(brig_read(r, 4 * 512, buf, 512), 0);
    assert_int_equal(buf[511], 9);
    assert_int_equal(brig_read(r, 5 * 512, buf, 512), -EINVAL);
    stat(r->file, &st);
    assert_true(st.st_size >= 5 * 512 + 17);
}

/* Many more than there are slots, in one kick; then closed with all of them under way. */
struct crowd {
    struct brig *r;
    struct block_request q[2000];
    struct iovec iov[2000];
    char buf[2000][512];
    _Atomic unsigned done;
};

static void crowd_done(struct block_request *q, int result)
{
    struct crowd *c = q->opaque;
    assert_int_equal(result, 0);
    c->done++;
}

static void crowd_submit(void *opaque)
{
    struct crowd *c = opaque;
    for (unsigned i = 0; i < 2000; i++) {
        c->iov[i] = (struct iovec){c->buf[i], 512};
        c->q[i] = (struct block_request){.op = BLOCK_WRITE,
                                         .offset = i * 512,
                                         .len = 512,
                                         .iov = &c->iov[i],
                                         .iovs = 1,
                                         .done = crowd_done,
                                         .opaque = c};
        memset(c->buf[i], (int)i, 512);
        block_submit(c->r->b, &c->q[i]);
    }
    block_kick(c->r->b);
}

static void closing_waits_for_all(void **state)
{
    struct brig *r = *state;
    struct crowd *c = calloc(1, sizeof *c);
    char buf[512];
    c->r = r;
    for (int threads = 0; threads < 2; threads++) {
        brig_make_file(r, MIB);
        brig_open(r, &(struct block_config){.format = "raw"}, &(struct block_tuning){.no_uring = threads, .align = 1});
        c->done = 0;
        ioloop_call(r->loop, crowd_submit, c);
        brig_close(r);
        assert_int_equal(c->done, 2000);
        int fd = open(r->file, O_RDONLY);
        for (unsigned i = 0; i < 2000; i++) {
            assert_int_equal(pread(fd, buf, 512, i * 512), 512);
            assert_memory_equal(buf, c->buf[i], 512);
        }
        close(fd);
    }
    free(c);
}

#define T(f) cmocka_unit_test_setup_teardown(f, brig_set_up, brig_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probing_goes_by_magic),
        cmocka_unit_test(the_map_knows_what_was_marked),
        cmocka_unit_test(addresses_are_told_from_paths),
        T(what_is_no_image_is_refused),
        T(an_address_takes_no_format_and_must_answer),
        T(one_process_writes_an_image),
        T(qemu_keeps_off_our_image_and_we_off_its),
        T(requests_that_cannot_be_fail),
        T(a_read_only_image_is_not_written),
        T(nothing_is_done_inside_submit_or_kick),
        T(a_guess_does_not_let_the_guest_choose_a_format),
        T(each_cache_mode_syncs_as_it_says),
        T(without_fua_a_write_is_synced_after),
        T(zeroes_written_for_want_of_better_are_synced_too),
        T(a_failed_flush_is_never_forgotten),
        T(errors_reach_the_request),
        T(again_and_again_ends),
        T(a_store_that_ends_early_is_an_error),
        T(writes_to_parts_of_a_unit_do_not_undo_one_another),
        T(whole_units_are_written_side_by_side),
        T(a_snapshot_leaves_the_file_as_it_was),
        T(discarding_gives_room_back_when_it_may),
        T(a_file_of_odd_size_loses_its_tail_only),
        T(closing_waits_for_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
