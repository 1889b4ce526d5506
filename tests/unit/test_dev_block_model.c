/* Random requests against a model of the disk: whatever the way to the image, every read gives what was last written,
 * and what was flushed is in the file afterwards. */
#include "block_mem_store.h"

#define DISK   (24u << 20) /* more than a leaf of the overlay's map */
#define BATCH  24u
#define ROUNDS (HEC_HOSTILE ? 20u : 40u)
#define IOVS   80u /* more than a slot has */

struct way {
    const char *name, *format; /* NULL: raw */
    struct block_config c;
    struct block_tuning t;
    bool address;                        /* by way of a server of the test's */
    void (*memory)(struct mem_store *m); /* in memory, with these manners */
};

static void short_of_everything(struct mem_store *m)
{
    m->shorten = true;
    m->no_fua = m->no_zero = m->no_punch = true;
}

static void one_small_buffer(struct mem_store *m)
{
    m->shorten = true;
    m->s.contiguous = true;
    m->s.max_len = 8192;
    m->no_punch = true;
}

static void large_units(struct mem_store *m)
{
    m->shorten = true;
    m->s.align = 4096;
    m->s.mem_align = 512;
    m->no_zero = true;
}

static const struct way ways[] = {
    {.name = "raw, io_uring", .t.align = 1},
    {.name = "raw, threads", .t = {.no_uring = true, .align = 1}},
    {.name = "raw, units of 4096, io_uring", .t.align = 4096},
    {.name = "raw, units of 4096, threads", .t = {.no_uring = true, .align = 4096}},
    {.name = "raw, cache=none, discard", .c = {.cache = BLOCK_NONE, .discard = true}, .t.align = 1},
    {.name = "raw, cache=writethrough", .c.cache = BLOCK_WRITETHROUGH, .t.align = 1},
    {.name = "raw, cache=directsync", .c.cache = BLOCK_DIRECTSYNC, .t.align = 1},
    {.name = "raw, cache=unsafe, discard", .c = {.cache = BLOCK_UNSAFE, .discard = true}, .t.align = 1},
    {.name = "raw, snapshot", .c = {.snapshot = true, .discard = true}, .t.align = 1},
    {.name = "raw, snapshot, units of 4096", .c = {.snapshot = true, .discard = true}, .t.align = 4096},
    {.name = "qcow2", .format = "qcow2", .c.discard = true},
    {.name = "qcow2, writethrough", .format = "qcow2", .c.cache = BLOCK_WRITETHROUGH},
    {.name = "qcow2, snapshot", .format = "qcow2", .c = {.snapshot = true, .discard = true}, .t.align = 1},
    {.name = "vmdk", .format = "vmdk"},
    {.name = "vdi", .format = "vdi"},
    {.name = "vhdx", .format = "vhdx"},
    {.name = "memory, short", .memory = short_of_everything},
    {.name = "memory, small buffers", .c.discard = true, .memory = one_small_buffer},
    {.name = "memory, units of 4096", .c.discard = true, .memory = large_units},
    {.name = "memory, units of 4096, snapshot", .c = {.snapshot = true, .discard = true}, .memory = large_units},
    {.name = "nbd+unix://", .format = "qcow2", .c.discard = true, .address = true},
};

struct model {
    unsigned char *disk;
    bool *unknown; /* sectors that were discarded */
    uint64_t seed;
};

struct job {
    unsigned char *buf; /* what is written or read */
    struct iovec iov[IOVS];
};

static uint64_t pick(struct model *m, uint64_t n)
{
    return brig_random(&m->seed) % n;
}

/* Cut the buffer into up to IOVS pieces of any length, some of them empty. */
static void cut(struct model *m, struct job *j, struct breq *q, uint64_t len)
{
    unsigned n = pick(m, 3) ? 1 : 1 + (unsigned)pick(m, IOVS);
    uint64_t at = 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t piece = i == n - 1 ? len - at : pick(m, (len - at) / (n - i) * 2 + 1);
        j->iov[i] = (struct iovec){j->buf + at, piece};
        at += piece;
    }
    q->r.iov = j->iov;
    q->r.iovs = n;
}

/* A request within one of the disk's BATCH shares, so that none overlaps another. */
static void make(struct model *m, struct job *j, struct breq *q, unsigned share)
{
    static const enum block_op ops[] = {BLOCK_READ,  BLOCK_READ,  BLOCK_READ,    BLOCK_WRITE,       BLOCK_WRITE,
                                        BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES};
    uint64_t sectors = DISK / 512 / BATCH, first = pick(m, sectors);
    uint64_t n = 1 + pick(m, pick(m, 4) ? min_u64(64, sectors - first) : sectors - first);
    *q = (struct breq){.r = {.op = ops[pick(m, ARRAY_SIZE(ops))],
                             .flags = (unsigned)pick(m, 4),
                             .offset = (share * sectors + first) * 512,
                             .len = n * 512}};
    j->buf = malloc(q->r.len);
    brig_fill(pick(m, UINT32_MAX), j->buf, q->r.len);
    if (q->r.op == BLOCK_READ || q->r.op == BLOCK_WRITE)
        cut(m, j, q, q->r.len);
}

static void check_read(const struct model *m, const struct job *j, const struct block_request *r)
{
    for (uint64_t i = 0; i < r->len / 512; i++)
        if (!m->unknown[r->offset / 512 + i])
            assert_memory_equal(j->buf + i * 512, m->disk + r->offset + i * 512, 512);
}

static void apply(struct model *m, const struct job *j, const struct block_request *r)
{
    switch (r->op) {
    case BLOCK_READ:
        check_read(m, j, r);
        break;
    case BLOCK_WRITE:
        memcpy(m->disk + r->offset, j->buf, r->len);
        memset(m->unknown + r->offset / 512, 0, r->len / 512);
        break;
    case BLOCK_WRITE_ZEROES:
        memset(m->disk + r->offset, 0, r->len);
        memset(m->unknown + r->offset / 512, 0, r->len / 512);
        break;
    case BLOCK_DISCARD:
        memset(m->unknown + r->offset / 512, 1, r->len / 512);
        break;
    case BLOCK_FLUSH:
        break;
    }
}

static void round_of_requests(struct brig *r, struct model *m)
{
    static struct breq q[BATCH];
    static struct job j[BATCH];
    for (unsigned i = 0; i < BATCH; i++)
        make(m, &j[i], &q[i], i);
    brig_run(r, q, BATCH);
    for (unsigned i = 0; i < BATCH; i++) {
        assert_int_equal(q[i].result, 0);
        apply(m, &j[i], &q[i].r);
        free(j[i].buf);
    }
}

static void compare_all(struct brig *r, struct model *m)
{
    struct job j = {.buf = malloc(DISK)};
    assert_int_equal(brig_read(r, 0, j.buf, DISK), 0);
    check_read(m, &j, &(struct block_request){.offset = 0, .len = DISK});
    free(j.buf);
}

static pid_t serve(struct brig *r, char *address, size_t size)
{
    char socket[160];
    snprintf(socket, sizeof socket, "%s/sock", r->dir);
    snprintf(address, size, "nbd+unix:///?socket=%s", socket);
    return brig_serve(r, (char *[]){"qemu-nbd", "-t", "-f", "qcow2", "--discard=unmap", "-k", socket, r->file, NULL});
}

static void make_image(struct brig *r, const struct way *w, struct model *m)
{
    brig_make_file(r, DISK);
    if (w->format && w->c.snapshot) { /* a base with something in it */
        int fd = open(r->file, O_WRONLY);
        brig_fill(99, m->disk, DISK);
        assert_int_equal(pwrite(fd, m->disk, DISK, 0), DISK);
        close(fd);
    }
    if (w->format)
        brig_shell(r, "cd %s && mv disk raw && qemu-img convert -q -f raw -O %s raw disk && rm raw", r->dir, w->format);
}

static void run_way(struct brig *r, const struct way *w)
{
    struct model m = {.disk = calloc(1, DISK), .unknown = calloc(DISK / 512, sizeof(bool)), .seed = 12345};
    struct block_config c = w->c;
    char address[256];
    pid_t server = 0;
    make_image(r, w, &m);
    c.format = w->format && !w->address ? NULL : "raw";
    if (w->address) {
        server = serve(r, address, sizeof address);
        c.file = address;
    }
    struct block_tuning t = w->t;
    if (w->memory) {
        struct mem_store *store = mem_store_new(DISK, 1);
        w->memory(store);
        t = (struct block_tuning){.align = 1, .base = &store->s};
    }
    brig_open(r, &c, &t);
    assert_int_equal(block_size(r->b), DISK);
    for (unsigned i = 0; i < ROUNDS; i++)
        round_of_requests(r, &m);
    compare_all(r, &m);
    brig_close(r);
    if (!w->c.snapshot && !w->memory) {
        brig_open(r, &c, &w->t);
        compare_all(r, &m);
        brig_close(r);
    }
    if (server)
        brig_unserve(r, server);
    unlink(r->file);
    free(m.disk);
    free(m.unknown);
}

static bool direct_works(const struct brig *r)
{
    int fd = open(r->dir, O_TMPFILE | O_RDWR | O_DIRECT, 0600);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void every_way_to_an_image_keeps_what_is_written(void **state)
{
    struct brig *r = *state;
    bool tools = brig_has("qemu-nbd") && brig_has("qemu-img"), direct = direct_works(r);
    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        const struct way *w = &ways[i];
        bool is_direct = w->c.cache == BLOCK_NONE || w->c.cache == BLOCK_DIRECTSYNC;
        bool can = (tools || !w->format) && (direct || !is_direct);
        print_message("%s%s\n", w->name, can ? "" : ": skipped");
        if (can)
            run_way(r, w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_way_to_an_image_keeps_what_is_written, brig_set_up, brig_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
