/* A whole virtio-blk device, given any guest memory, any register writes and any order of completions: every request
 * that reaches the image lies in RAM and in the image, nothing moves while the device needs a reset, and a reset always
 * ends.
 *
 * The image is this file's own, so that a script has one outcome: requests are completed when it says so. */
#include "virtio_fuzz.h"

#include "../unit/fake_loop.h"
#include "dev/virtio_blk.h"

#include <errno.h>

#define RAM_SIZE   0x18000u
#define DISK_SIZE  0x4000u
#define QUEUES     3u
#define QUEUE_SIZE 16u

struct block {
    struct ioloop loop;
    struct block_request *pending[QUEUES * QUEUE_SIZE];
    unsigned n;
    bool readonly, discard;
    uint8_t bytes[DISK_SIZE];
};

/* The driver's side of a queue. */
struct driver {
    uint16_t at, size; /* size 0: not brought up */
    bool wrap;
};

struct box {
    struct driver d[QUEUES];
    bool packed; /* as agreed on */
    struct pci_box pci;
    struct block block;
    struct virtio_blk *blk;
};

static uint8_t memory[RAM_SIZE] __attribute__((aligned(4096)));

/* ---- the image ---- */

uint64_t block_size(const struct block *b)
{
    return DISK_SIZE;
}

bool block_readonly(const struct block *b)
{
    return b->readonly;
}

unsigned block_physical_sector(const struct block *b)
{
    return 4096;
}

bool block_can_discard(const struct block *b)
{
    return b->discard;
}

struct ioloop *block_loop(const struct block *b)
{
    return (struct ioloop *)&b->loop;
}

unsigned block_in_flight(const struct block *b)
{
    return b->n;
}

void block_kick(struct block *b)
{
}

void block_submit(struct block *b, struct block_request *r)
{
    bool data = r->op == BLOCK_READ || r->op == BLOCK_WRITE;
    uint64_t sum = 0;
    ensure(b->n < QUEUES * QUEUE_SIZE);
    ensure(r->offset % BLOCK_SECTOR == 0 && r->len % BLOCK_SECTOR == 0);
    ensure(r->offset <= DISK_SIZE && r->len <= DISK_SIZE - r->offset);
    ensure(!b->readonly || r->op == BLOCK_READ || r->op == BLOCK_FLUSH);
    for (unsigned i = 0; data && i < r->iovs; i++) {
        const uint8_t *p = r->iov[i].iov_base;
        ensure(p >= memory && p <= memory + RAM_SIZE && r->iov[i].iov_len <= (size_t)(memory + RAM_SIZE - p));
        sum += r->iov[i].iov_len;
    }
    ensure(!data || (sum == r->len && r->iovs));
    b->pending[b->n++] = r;
}

static void move(struct block *b, struct block_request *r)
{
    uint8_t *at = b->bytes + r->offset;
    for (unsigned i = 0; i < r->iovs; at += r->iov[i++].iov_len) {
        if (r->op == BLOCK_READ)
            memcpy(r->iov[i].iov_base, at, r->iov[i].iov_len);
        else
            memcpy(at, r->iov[i].iov_base, r->iov[i].iov_len);
    }
}

static void complete(struct block *b, unsigned i, int result)
{
    if (!b->n)
        return;
    struct block_request *r = b->pending[i % b->n];
    b->pending[i % b->n] = b->pending[b->n - 1];
    b->n--;
    if (!result && (r->op == BLOCK_READ || r->op == BLOCK_WRITE))
        move(b, r);
    r->done(r, result);
}

/* ---- the machine ---- */

static void box_init(struct box *b, uint8_t options)
{
    struct err e = {""};
    b->pci.ram = (struct ram){.low = memory, .low_size = RAM_SIZE};
    pci_box_init(&b->pci, (struct pci_host_config){.port = {.deliver = pci_box_deliver}});
    b->block.readonly = options & 1;
    b->block.discard = options & 2;
    struct virtio_blk_config c = {
        .host = &b->pci.host,
        .devfn = VIO_DEVFN,
        .block = &b->block,
        .serial = "fuzz",
        .queues = QUEUES,
        .queue_size = QUEUE_SIZE,
        .writethrough = options & 4,
        .options = {.packed = options & 8, .iommu_platform = options & 16 ? VIRTIO_IOMMU_ON : VIRTIO_IOMMU_OFF}};
    ensure(virtio_blk_create(&c, &b->blk, &e) == 0);
    vio_power_on(&b->pci);
}

/* A driver's reset, to its end. */
static void drain(struct box *b)
{
    vio_power_on(&b->pci);
    vio_wr(&b->pci, 20, 1, 0);
    for (unsigned i = 0; vio_status(&b->pci) && i < 100; i++) {
        fake_loop_run(&b->block.loop, 100);
        complete(&b->block, i, 0);
    }
    ensure(vio_status(&b->pci) == 0 && !b->block.n);
}

static void box_fini(struct box *b)
{
    drain(b);
    virtio_blk_reset(b->blk);
    virtio_blk_destroy(b->blk);
    ensure(fake_loop_idle(&b->block.loop));
    pci_box_fini(&b->pci);
}

/* ---- the driver ---- */

/* With a little that may be wrong. */
static void bring_up(struct box *b, struct script *s)
{
    b->packed = vio_agree(&b->pci, ~script_get(s, 5) | BIT(32) | BIT(33)) & VIRTIO_F_RING_PACKED;
    uint8_t sizes = (uint8_t)script_get(s, 1);
    for (unsigned q = 0; q < QUEUES; q++) {
        b->d[q] = (struct driver){.size = (uint16_t)(QUEUE_SIZE >> (sizes >> 2 * q & 3)), .wrap = true};
        vio_enable(&b->pci, q, b->d[q].size);
    }
    vio_wr(&b->pci, 20, 1, 15);
}

/* Where descriptors of a chain are written, and what the two rings' have in their last 4 bytes. */
static void put(const struct box *b, uint8_t *p, uint64_t addr, uint32_t len, uint16_t flags, uint16_t other)
{
    st64(p, addr);
    st32(p + 8, len);
    st16(p + 12, b->packed ? other : flags);
    st16(p + 14, b->packed ? flags : other);
}

static uint16_t available(const struct box *b, const struct driver *d)
{
    return b->packed ? (d->wrap ? 1u << 7 : 1u << 15) : 0;
}

static uint8_t *slot(const struct box *b, unsigned queue, unsigned i)
{
    return memory + vio_area(queue, VIRTQ_DESC) + 16 * (i % b->d[queue].size);
}

static void advance(struct box *b, struct driver *d)
{
    if (++d->at == d->size) {
        d->at = 0;
        d->wrap = !d->wrap;
    }
}

/* The chain in an indirect table of its own. */
static void chain_in_table(struct box *b, unsigned queue, const uint64_t v[][3], unsigned n)
{
    struct driver *d = &b->d[queue];
    uint64_t table = 0x9000 + 0x800 * queue + 0x80 * d->at;
    for (unsigned i = 0; i < n; i++)
        put(b, memory + table + 16 * i, v[i][0], (uint32_t)v[i][1],
            (uint16_t)(v[i][2] | (i + 1 < n && !b->packed ? 1 : 0)), (uint16_t)(i + 1));
    put(b, slot(b, queue, d->at), table, 16 * n, (uint16_t)(4 | available(b, d)), d->at);
    advance(b, d);
}

static void chain_in_ring(struct box *b, unsigned queue, const uint64_t v[][3], unsigned n)
{
    struct driver *d = &b->d[queue];
    uint16_t head = d->at;
    for (unsigned i = 0; i < n; i++) {
        uint16_t flags = (uint16_t)(v[i][2] | (i + 1 < n ? 1 : 0) | available(b, d));
        put(b, slot(b, queue, d->at), v[i][0], (uint32_t)v[i][1], flags,
            b->packed ? head : (uint16_t)((d->at + 1) % d->size));
        advance(b, d);
    }
}

/* A request as drivers make them; then anything may be changed about it. */
static void request(struct box *b, struct script *s)
{
    static const uint8_t types[] = {0, 1, 1, 4, 8, 11, 13, 99};
    uint16_t how = (uint16_t)script_get(s, 2);
    unsigned queue = (how & 3) % QUEUES;
    struct driver *d = &b->d[queue];
    if (!d->size)
        return;
    uint64_t header = 0x8000 + 0x400 * queue + 64 * d->at % 0x400, v[4][3] = {{header, 16, 0}};
    unsigned n = 1, pieces = how >> 2 & 3, head = d->at;
    uint8_t type = types[how >> 4 & 7];
    st32(memory + header, type);
    st64(memory + header + 8, script_get(s, 1) % 40);
    if (type == 11 || type == 13) {
        st64(memory + header + 16, script_get(s, 1) % 40);
        st64(memory + header + 24, how >> 8 & 0xf);
        v[0][1] = 32;
        pieces = 0;
    }
    for (; n <= pieces && n < 3; n++) {
        v[n][0] = 0xb000 + 0x1000 * n + (how >> 12);
        v[n][1] = 512 * (1 + (how >> 8 & 7)) + (how >> 12 == 15);
        v[n][2] = type == 1 ? 0 : 2;
    }
    v[n][0] = header + 48;
    v[n][1] = 1;
    v[n++][2] = 2;
    if (how & 0x80)
        chain_in_table(b, queue, v, n);
    else
        chain_in_ring(b, queue, v, n);
    if (how >> 8 == 0x5a) /* now and then one byte of it is something else */
        memory[0x1000 + script_get(s, 2) % 0xa000] = (uint8_t)script_get(s, 1);
    if (!b->packed) {
        uint8_t *driver = memory + vio_area(queue, VIRTQ_DRIVER);
        uint16_t idx = ld16(driver + 2);
        st16(driver + 4 + 2 * (idx % d->size), (uint16_t)head);
        st16(driver + 2, (uint16_t)(idx + 1));
    }
    vio_notify(&b->pci, queue, queue);
}

static void one_step(struct box *b, struct script *s)
{
    static const int results[] = {0, 0, 0, -EIO, -ENOSPC, -EOPNOTSUPP, -EROFS, -EINVAL};
    uint8_t op = (uint8_t)script_get(s, 1);
    switch (op & 7) {
    case 0:
        st64(memory + script_get(s, 2) * 4 % (RAM_SIZE - 8), script_get(s, op >> 3 & 8 ? 8 : 2));
        break;
    case 1:
        vio_anywhere(&b->pci, s);
        break;
    case 2:
        bring_up(b, s);
        break;
    case 3:
    case 4:
        request(b, s);
        break;
    case 5:
        fake_loop_run(&b->block.loop, 1 + (op >> 3));
        break;
    case 6:
        complete(&b->block, op >> 6, results[op >> 3 & 7]);
        break;
    default:
        if (op >> 3 == 31)
            drain(b);
        else
            vio_notify(&b->pci, (op >> 3) % QUEUES, 0);
    }
}

/* All ones: the BAR is not decoded, and nobody knows. */
static bool needs_reset(struct box *b)
{
    return vio_status(&b->pci) != 0xff && vio_status(&b->pci) & VIRTIO_NEEDS_RESET;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct box b;
    struct script s = {data, size};
    memset(memory, 0, sizeof memory);
    memset(&b, 0, sizeof b);
    box_init(&b, (uint8_t)script_get(&s, 1));
    bring_up(&b, &s);
    while (s.left) {
        unsigned pending = b.block.n;
        bool dead = needs_reset(&b);
        one_step(&b, &s);
        ensure(!dead || b.block.n <= pending || !needs_reset(&b));
    }
    box_fini(&b);
    return 0;
}
