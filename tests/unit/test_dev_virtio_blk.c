/* virtio-blk as a driver sees it, over a raw image: a model of the disk beside it, requests cut in odd ways, requests
 * that are wrong. */
#include "virtio_rig.h"

#include "dev/virtio_blk.h"

#include <fcntl.h>
#include <unistd.h>

#define DISK    (1u << 20)
#define SECTORS (DISK / 512)
#define QUEUES  3u
#define SIZE    64u
#define DEVFN   PCI_DEVFN(6, 0)

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };
#define F_SEG_MAX      BIT(2)
#define F_RO           BIT(5)
#define F_FLUSH        BIT(9)
#define F_CONFIG_WCE   BIT(11)
#define F_MQ           BIT(12)
#define F_DISCARD      BIT(13)
#define F_WRITE_ZEROES BIT(14)
#define ALL            (~UINT64_C(0) & ~VIRTIO_F_RING_PACKED)

struct disk {
    struct vrig r;
    struct block *block;
    struct virtio_blk *blk;
    struct vdev d;
    struct vq q[QUEUES];
    char path[64];
};

static void disk_init(struct disk *t, struct virtio_blk_config c, struct block_config bc)
{
    vr_init(&t->r);
    strcpy(t->path, "/tmp/hecaton-blk-XXXXXX");
    int fd = mkstemp(t->path);
    assert_true(fd >= 0 && ftruncate(fd, DISK) == 0);
    close(fd);
    bc.option = "-hda";
    bc.file = t->path;
    bc.format = "raw";
    assert_int_equal(block_open(&bc, t->r.loop, &t->block, &t->r.pci.f.err), 0);
    c.host = &t->r.pci.host;
    c.devfn = DEVFN;
    c.block = t->block;
    c.queues = QUEUES;
    c.queue_size = SIZE;
    c.options.packed = true;
    assert_int_equal(virtio_blk_create(&c, &t->blk, &t->r.pci.f.err), 0);
    vr_power_on(&t->r);
    vd_find(&t->d, &t->r, DEVFN, true);
}

static void disk_up(struct disk *t, uint64_t features)
{
    vd_agree(&t->d, features);
    for (unsigned i = 0; i < QUEUES; i++)
        if (t->q[i].d) {
            t->q[i].packed = t->d.features & VIRTIO_F_RING_PACKED;
            t->q[i].event = t->d.features & VIRTIO_F_EVENT_IDX;
            vq_clear(&t->q[i]);
            vq_enable(&t->q[i]);
        } else {
            vq_init(&t->q[i], &t->d, i, SIZE);
        }
    vd_go(&t->d);
}

static void disk_fini(struct disk *t)
{
    virtio_blk_destroy(t->blk);
    block_close(t->block);
    unlink(t->path);
    vr_fini(&t->r);
}

/* ---- one request at a time ---- */

struct req {
    uint64_t gpa; /* header, 512 bytes of which; then up to 64 KiB of data; then the status */
    uint8_t *hva;
};

static struct req req_alloc(struct disk *t)
{
    uint64_t gpa = vr_alloc(&t->r, 512 + 65536 + 512);
    return (struct req){gpa, vr_hva(&t->r, gpa)};
}

static uint8_t *req_data(const struct req *q)
{
    return q->hva + 512;
}

static uint8_t *req_status(const struct req *q)
{
    return q->hva + 512 + 65536;
}

static void req_header(const struct req *q, uint32_t type, uint64_t sector)
{
    st32(q->hva, type);
    st32(q->hva + 4, 0);
    st64(q->hva + 8, sector);
    *req_status(q) = 0xee;
}

/* Returns the status; `out` and `in` bytes of data. */
static uint8_t ask(struct disk *t, const struct req *q, uint32_t type, uint64_t sector, uint32_t out, uint32_t in,
                   uint32_t *used)
{
    struct vbuf b[4] = {{q->gpa, 16}};
    unsigned outs = 1, n = 1;
    req_header(q, type, sector);
    if (out) {
        b[n++] = (struct vbuf){q->gpa + 512, out};
        outs++;
    }
    if (in)
        b[n++] = (struct vbuf){q->gpa + 512, in};
    b[n++] = (struct vbuf){q->gpa + 512 + 65536, 1};
    assert_true(vq_add(&t->q[0], b, outs, n - outs, q->hva, true));
    vq_kick(&t->q[0]);
    assert_ptr_equal(vq_wait(&t->q[0], used), q->hva);
    return *req_status(q);
}

static void the_configuration_describes_the_disk(void **state)
{
    struct disk t = {.block = NULL};
    disk_init(&t, (struct virtio_blk_config){.serial = "serial number 0123456789"},
              (struct block_config){.option = ""});
    disk_up(&t, ALL);
    uint64_t want = F_SEG_MAX | F_FLUSH | F_CONFIG_WCE | F_MQ | F_WRITE_ZEROES;
    assert_true((t.d.features & want) == want && !(t.d.features & F_RO));
    assert_int_equal(vd_config(&t.d, 0, 4), SECTORS);
    assert_int_equal(vd_config(&t.d, 12, 4), SIZE - 2);
    assert_int_equal(vd_config(&t.d, 20, 4), 512);
    assert_int_equal(vd_config(&t.d, 32, 1), 1);
    assert_int_equal(vd_config(&t.d, 34, 2), QUEUES);
    struct req q = req_alloc(&t);
    uint32_t used;
    assert_int_equal(ask(&t, &q, T_GET_ID, 0, 0, 20, &used), S_OK);
    assert_memory_equal(req_data(&q), "serial number 012345", 20);
    assert_int_equal(used, 21);
    assert_int_equal(ask(&t, &q, T_GET_ID, 0, 0, 5, NULL), S_OK);
    disk_fini(&t);
}

static void wrong_requests_fail_alone(void **state)
{
    struct disk t = {.block = NULL};
    disk_init(&t, (struct virtio_blk_config){.queues = 0}, (struct block_config){.discard = true});
    disk_up(&t, ALL);
    struct req q = req_alloc(&t);
    static const struct {
        uint32_t type;
        uint64_t sector;
        uint32_t out, in;
        uint8_t status;
    } asks[] = {
        {T_IN, SECTORS, 0, 512, S_IOERR},
        {T_IN, SECTORS - 1, 0, 1024, S_IOERR},
        {T_OUT, UINT64_MAX, 512, 0, S_IOERR},
        {T_OUT, UINT64_MAX / 512 + 1, 512, 0, S_IOERR},
        {T_IN, 0, 0, 511, S_IOERR},
        {T_OUT, 0, 513, 0, S_IOERR},
        {T_IN, 0, 0, 0, S_OK},
        {T_OUT, 0, 0, 0, S_OK},
        {99, 0, 0, 0, S_UNSUPP},
        {2, 0, 64, 64, S_UNSUPP},
        {T_DISCARD, 0, 8, 0, S_UNSUPP},
        {T_WRITE_ZEROES, 0, 32, 0, S_UNSUPP},
        {T_IN, SECTORS - 1, 0, 512, S_OK},
        {T_OUT, SECTORS - 1, 512, 0, S_OK},
        {T_FLUSH, 0, 0, 0, S_OK},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(asks); i++)
        assert_int_equal(ask(&t, &q, asks[i].type, asks[i].sector, asks[i].out, asks[i].in, NULL), asks[i].status);
    static const struct {
        uint64_t sector;
        uint32_t sectors, flags;
        uint8_t discard, zeroes;
    } ranges[] = {
        {0, 8, 0, S_OK, S_OK},
        {SECTORS - 1, 1, 0, S_OK, S_OK},
        {SECTORS, 1, 0, S_IOERR, S_IOERR},
        {0, 8, 1, S_UNSUPP, S_OK},
        {0, 8, 2, S_UNSUPP, S_UNSUPP},
        {0, 0, 0, S_OK, S_OK},
        {0, 0xffffffff, 0, S_IOERR, S_IOERR},
        {UINT64_MAX, 1, 0, S_IOERR, S_IOERR},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(ranges); i++) {
        st64(req_data(&q), ranges[i].sector);
        st32(req_data(&q) + 8, ranges[i].sectors);
        st32(req_data(&q) + 12, ranges[i].flags);
        assert_int_equal(ask(&t, &q, T_DISCARD, 0, 16, 0, NULL), ranges[i].discard);
        assert_int_equal(ask(&t, &q, T_WRITE_ZEROES, 0, 16, 0, NULL), ranges[i].zeroes);
    }
    assert_int_equal(vd_status(&t.d), 15);
    disk_fini(&t);
}

static void a_readonly_disk_refuses_writes(void **state)
{
    struct disk t = {.block = NULL};
    disk_init(&t, (struct virtio_blk_config){.queues = 0}, (struct block_config){.readonly = true});
    disk_up(&t, ALL);
    assert_true((t.d.offered & F_RO) && !(t.d.offered & (F_DISCARD | F_WRITE_ZEROES)));
    struct req q = req_alloc(&t);
    assert_int_equal(ask(&t, &q, T_OUT, 0, 512, 0, NULL), S_IOERR);
    assert_int_equal(ask(&t, &q, T_IN, 0, 0, 512, NULL), S_OK);
    assert_int_equal(ask(&t, &q, T_FLUSH, 0, 0, 0, NULL), S_OK);
    assert_int_equal(ask(&t, &q, T_WRITE_ZEROES, 0, 16, 0, NULL), S_UNSUPP);
    disk_fini(&t);
}

static void the_cache_is_switched(void **state)
{
    struct disk t = {.block = NULL};
    disk_init(&t, (struct virtio_blk_config){.writethrough = true}, (struct block_config){.option = ""});
    disk_up(&t, ALL & ~F_CONFIG_WCE);
    assert_int_equal(vd_config(&t.d, 32, 1), 0);
    mem_wr(&t.r.pci, t.d.config + 32, 1, 1); /* not agreed on */
    assert_int_equal(vd_config(&t.d, 32, 1), 0);
    disk_up(&t, ALL);
    mem_wr(&t.r.pci, t.d.config + 32, 1, 1);
    assert_int_equal(vd_config(&t.d, 32, 1), 1);
    mem_wr(&t.r.pci, t.d.config, 4, 0); /* the capacity stays */
    assert_int_equal(vd_config(&t.d, 0, 4), SECTORS);
    struct req q = req_alloc(&t);
    assert_int_equal(ask(&t, &q, T_OUT, 3, 512, 0, NULL), S_OK);
    virtio_blk_reset(t.blk);
    assert_int_equal(vd_config(&t.d, 32, 1), 0);
    disk_fini(&t);
}

static void requests_may_be_cut_anywhere(void **state)
{
    struct disk t = {.block = NULL};
    disk_init(&t, (struct virtio_blk_config){.queues = 0}, (struct block_config){.option = ""});
    for (unsigned packed = 0; packed < 2; packed++) {
        disk_up(&t, packed ? ~UINT64_C(0) : ALL);
        struct req q = req_alloc(&t);
        uint64_t g = q.gpa, d = q.gpa + 512;
        /* header in three pieces, the last of them with data; data in odd ones */
        req_header(&q, T_OUT, 7);
        memcpy(req_data(&q), q.hva + 9, 7);
        for (unsigned i = 0; i < 1024; i++)
            req_data(&q)[7 + i] = (uint8_t)(i * 7 + packed);
        struct vbuf out[] = {{g, 1}, {g + 1, 8}, {d, 8}, {d + 8, 600}, {d + 608, 423}, {g + 512 + 65536, 1}};
        assert_true(vq_add(&t.q[1], out, 5, 1, q.hva, false));
        vq_kick(&t.q[1]);
        assert_ptr_equal(vq_wait(&t.q[1], NULL), q.hva);
        assert_int_equal(*req_status(&q), S_OK);
        /* data and status in one piece */
        req_header(&q, T_IN, 7);
        memset(req_data(&q), 0xaa, 2048);
        struct vbuf in[] = {{g, 16}, {d, 1000}, {d + 1000, 25}};
        uint32_t used;
        assert_true(vq_add(&t.q[2], in, 1, 2, q.hva, true));
        vq_kick(&t.q[2]);
        assert_ptr_equal(vq_wait(&t.q[2], &used), q.hva);
        assert_int_equal(used, 1025);
        for (unsigned i = 0; i < 1024; i++)
            assert_int_equal(req_data(&q)[i], (uint8_t)(i * 7 + packed));
        assert_int_equal(req_data(&q)[1024], S_OK);
        assert_int_equal(req_data(&q)[1025], 0xaa);
    }
    disk_fini(&t);
}

static void without_header_or_status_it_needs_a_reset(void **state)
{
    for (unsigned i = 0; i < 4; i++) {
        struct disk t = {.block = NULL};
        disk_init(&t, (struct virtio_blk_config){.queues = 0}, (struct block_config){.option = ""});
        disk_up(&t, ALL);
        struct req q = req_alloc(&t);
        struct vbuf b[] = {{q.gpa, i == 0 ? 15 : 16}, {q.gpa + 512, 512}};
        assert_true(i == 1   ? vq_add(&t.q[0], b, 1, 0, q.hva, false)
                    : i == 2 ? vq_add(&t.q[0], b, 0, 1, q.hva, false)
                    : i == 3 ? vq_add(&t.q[0], b, 2, 0, q.hva, true)
                             : vq_add(&t.q[0], b, 1, 1, q.hva, true));
        vq_kick(&t.q[0]);
        vd_wait_broken(&t.d);
        disk_up(&t, ALL);
        assert_int_equal(ask(&t, &q, T_IN, 0, 0, 512, NULL), S_OK);
        disk_fini(&t);
    }
}

/* ---- many, against a model ---- */

struct model {
    struct disk *t;
    uint64_t seed;
    uint8_t *disk;
    struct req req[QUEUES * SIZE / 4];
    struct {
        bool busy;
        uint32_t type, sectors;
        uint64_t sector;
        uint8_t fill;
    } job[QUEUES * SIZE / 4];
    bool locked[SECTORS]; /* a request is under way there */
    unsigned waiting[QUEUES];
};

static uint32_t pick(struct model *m, uint32_t n)
{
    m->seed ^= m->seed >> 12;
    m->seed ^= m->seed << 25;
    m->seed ^= m->seed >> 27;
    return (uint32_t)((m->seed * UINT64_C(2685821657736338717) >> 33) % n);
}

static void model_done(struct model *m, uint8_t *hva)
{
    unsigned i = 0;
    while (m->req[i].hva != hva)
        i++;
    assert_true(m->job[i].busy);
    assert_int_equal(*req_status(&m->req[i]), S_OK);
    uint32_t len = m->job[i].sectors * 512;
    uint8_t *disk = m->disk + m->job[i].sector * 512;
    if (m->job[i].type == T_IN)
        assert_memory_equal(req_data(&m->req[i]), disk, len);
    else if (m->job[i].type == T_OUT)
        memset(disk, m->job[i].fill, len);
    else if (m->job[i].type == T_WRITE_ZEROES)
        memset(disk, 0, len);
    memset(m->locked + m->job[i].sector, false, m->job[i].sectors);
    m->job[i].busy = false;
}

/* In odd pieces; only as many as the tables of the rig's have room for. */
static unsigned cut(struct model *m, struct vbuf *b, uint64_t gpa, uint32_t len)
{
    unsigned n = 0;
    while (len) {
        uint32_t part = n == 7 ? len : 1 + pick(m, len);
        b[n++] = (struct vbuf){gpa, part};
        gpa += part;
        len -= part;
    }
    return n;
}

static bool model_free(const struct model *m, uint64_t sector, uint32_t sectors)
{
    for (uint32_t k = 0; k < sectors; k++)
        if (m->locked[sector + k])
            return false;
    return true;
}

static void model_start(struct model *m, struct vq *q, unsigned i)
{
    static const uint32_t types[] = {T_IN, T_IN, T_OUT, T_OUT, T_FLUSH, T_WRITE_ZEROES};
    struct vbuf b[12];
    uint32_t type = types[pick(m, ARRAY_SIZE(types))], sectors = 1 + pick(m, 64);
    uint64_t sector = pick(m, SECTORS - 64);
    uint8_t fill = (uint8_t)(1 + pick(m, 255));
    if (type == T_FLUSH)
        sector = sectors = 0;
    if (m->job[i].busy || !model_free(m, sector, sectors) || q->free < 12)
        return;
    const struct req *r = &m->req[i];
    req_header(r, type, sector);
    b[0] = (struct vbuf){r->gpa, 16};
    unsigned outs = 1, n = 1;
    if (type == T_OUT) {
        memset(req_data(r), fill, sectors * 512);
        outs = n = 1 + cut(m, b + 1, r->gpa + 512, sectors * 512);
    } else if (type == T_IN) {
        n = 1 + cut(m, b + 1, r->gpa + 512, sectors * 512);
    } else if (type == T_WRITE_ZEROES) {
        st64(req_data(r), sector);
        st32(req_data(r) + 8, sectors);
        st32(req_data(r) + 12, pick(m, 2));
        b[1] = (struct vbuf){r->gpa + 512, 16};
        outs = n = 2;
    }
    b[n++] = (struct vbuf){r->gpa + 512 + 65536, 1};
    m->job[i].busy = true;
    m->job[i].type = type;
    m->job[i].sector = sector;
    m->job[i].sectors = sectors;
    m->job[i].fill = fill;
    memset(m->locked + sector, true, sectors);
    assert_true(vq_add(q, b, outs, n - outs, r->hva, pick(m, 2)));
    m->waiting[q->index]++;
}

static void model_wait(struct model *m, unsigned qi)
{
    for (; m->waiting[qi]; m->waiting[qi]--)
        model_done(m, vq_wait(&m->t->q[qi], NULL));
}

static void model_run(struct model *m, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        unsigned qi = pick(m, QUEUES);
        for (unsigned k = pick(m, 8); k; k--)
            model_start(m, &m->t->q[qi], pick(m, ARRAY_SIZE(m->req)));
        vq_kick(&m->t->q[qi]);
        if (pick(m, 4) == 0)
            model_wait(m, pick(m, QUEUES));
    }
    for (unsigned qi = 0; qi < QUEUES; qi++)
        model_wait(m, qi);
}

static void check_file(struct disk *t, const uint8_t *want)
{
    uint8_t *is = malloc(DISK);
    int fd = open(t->path, O_RDONLY);
    assert_true(fd >= 0 && read(fd, is, DISK) == DISK);
    close(fd);
    assert_memory_equal(is, want, DISK);
    free(is);
}

static void model_checked(uint64_t features, struct virtio_options options, struct block_config bc, uint64_t seed)
{
    struct disk t = {.block = NULL};
    struct model *m = calloc(1, sizeof *m);
    m->disk = calloc(1, DISK);
    m->t = &t;
    m->seed = seed;
    disk_init(&t, (struct virtio_blk_config){.options = options}, bc);
    disk_up(&t, features);
    for (unsigned i = 0; i < ARRAY_SIZE(m->req); i++)
        m->req[i] = req_alloc(&t);
    model_run(m, 150);
    assert_int_equal(vd_status(&t.d), 15);
    virtio_blk_reset(t.blk);
    check_file(&t, m->disk);
    disk_fini(&t);
    free(m->disk);
    free(m);
}

static void the_disk_is_what_was_written(void **state)
{
    static const uint64_t without[] = {0,
                                       VIRTIO_F_EVENT_IDX,
                                       VIRTIO_F_INDIRECT_DESC,
                                       VIRTIO_F_RING_PACKED,
                                       VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX,
                                       VIRTIO_F_RING_PACKED | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX,
                                       F_FLUSH | F_CONFIG_WCE | VIRTIO_F_RING_PACKED};
    for (unsigned i = 0; i < ARRAY_SIZE(without); i++)
        model_checked(~without[i], (struct virtio_options){.vectors = 0}, (struct block_config){.cache = 0}, i + 1);
    struct virtio_options translated = {.iommu_platform = VIRTIO_IOMMU_ON};
    model_checked(ALL, translated, (struct block_config){.cache = BLOCK_NONE}, 77);
    model_checked(~UINT64_C(0), translated, (struct block_config){.cache = BLOCK_WRITETHROUGH}, 78);
}

/* The driver goes away with requests in flight; what it leaves ends, and the next one finds the disk in order. */
static void resets_with_requests_in_flight(void **state)
{
    struct disk t = {.block = NULL};
    struct req q[16];
    disk_init(&t, (struct virtio_blk_config){.queues = 0}, (struct block_config){.option = ""});
    disk_up(&t, ALL);
    for (unsigned i = 0; i < ARRAY_SIZE(q); i++)
        q[i] = req_alloc(&t);
    for (unsigned round = 0; round < 40; round++) {
        for (unsigned i = 0; i < ARRAY_SIZE(q); i++) {
            struct vbuf b[] = {{q[i].gpa, 16}, {q[i].gpa + 512, 65536}, {q[i].gpa + 512 + 65536, 1}};
            req_header(&q[i], i & 1 ? T_IN : T_OUT, i * 128 % (SECTORS - 128));
            memset(req_data(&q[i]), (int)round, 65536);
            assert_true(vq_add(&t.q[i % QUEUES], b, i & 1 ? 1 : 2, i & 1 ? 2 : 1, q[i].hva, round & 1));
            vq_kick(&t.q[i % QUEUES]);
        }
        if (round % 3 == 0)
            vr_settle(&t.r);
        if (round % 5 == 4)
            virtio_blk_reset(t.blk);
        disk_up(&t, round & 2 ? ALL : ~UINT64_C(0));
        assert_int_equal(ask(&t, &q[0], T_OUT, SECTORS - 1, 512, 0, NULL), S_OK);
    }
    disk_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_configuration_describes_the_disk),
        cmocka_unit_test(wrong_requests_fail_alone),
        cmocka_unit_test(a_readonly_disk_refuses_writes),
        cmocka_unit_test(the_cache_is_switched),
        cmocka_unit_test(requests_may_be_cut_anywhere),
        cmocka_unit_test(without_header_or_status_it_needs_a_reset),
        cmocka_unit_test(the_disk_is_what_was_written),
        cmocka_unit_test(resets_with_requests_in_flight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
