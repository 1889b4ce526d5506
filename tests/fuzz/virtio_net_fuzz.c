/* A whole virtio-net device on a cable that takes no offloads, given any guest memory, any register writes and frames
 * of any shape: what is sent lies in RAM or in a header the device made, and a reset always ends. */
#include "virtio_fuzz.h"

#include "../unit/fake_loop.h"
#include "dev/net_priv.h"
#include "dev/virtio_net.h"

#define RAM_SIZE   0x20000u
#define PAIRS      2u
#define QUEUES     (2 * PAIRS + 1)
#define QUEUE_SIZE 16u
#define DATA       0xa000u

struct box {
    struct pci_box pci;
    struct ioloop loop;
    struct net cable;
    struct virtio_net *net;
    uint8_t flat[NET_FRAME_MAX];
    uint64_t sum;
};

static uint8_t memory[RAM_SIZE] __attribute__((aligned(4096)));

/* ---- the cable ---- */

static void cable_send(struct net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs, size_t len)
{
    struct box *b = container_of(n, struct box, cable);
    ensure(!hdr && iovs <= NET_IOVS + 1 && len >= 14 && len <= NET_FRAME_MAX && net_iov_len(frame, iovs) == len);
    for (unsigned i = 0; i < iovs; i++)
        b->sum += net_sum(frame[i].iov_base, frame[i].iov_len);
}

static void cable_nothing(struct net *n)
{
}

static const struct net_ops cable_ops = {.send = cable_send, .flush = cable_nothing, .resume = cable_nothing};

static void give(struct box *b, struct script *s)
{
    static uint8_t frame[20000];
    struct net_hdr h = {.flags = (uint8_t)(script_get(s, 1) & 3), .csum_start = 34, .csum_offset = 16, .gso_size = 600};
    size_t len = 14 + script_get(s, 2) % (sizeof frame - 14);
    h.gso_type = h.flags & 1 ? script_get(s, 1) & 1 : 0;
    memset(frame, 0xff, 6);
    frame[12] = 8;
    frame[14] = 0x45;
    frame[23] = 6;
    frame[46] = 0x50;
    st16(frame + 34, (uint16_t)script_get(s, 1));
    struct iovec iov[2] = {{frame, 10}, {frame + 10, len - 10}};
    net_deliver(&b->cable, h.flags ? &h : NULL, iov, 2, len);
}

/* ---- the machine ---- */

static void box_init(struct box *b, uint8_t options)
{
    struct err e = {""};
    b->pci.ram = (struct ram){.low = memory, .low_size = RAM_SIZE};
    pci_box_init(&b->pci, (struct pci_host_config){.port = {.deliver = pci_box_deliver}});
    b->cable = (struct net){.ops = &cable_ops, .loop = &b->loop, .pcap = -1, .flat = b->flat};
    struct virtio_net_config c = {
        .host = &b->pci.host,
        .devfn = VIO_DEVFN,
        .net = &b->cable,
        .mac = {0x52, 0x54, 0, 1, 2, 3},
        .queue_pairs = options & 1 ? PAIRS : 1,
        .queue_size = QUEUE_SIZE,
        .options = {.packed = options & 8, .iommu_platform = options & 16 ? VIRTIO_IOMMU_ON : VIRTIO_IOMMU_OFF}};
    ensure(virtio_net_create(&c, &b->net, &e) == 0);
    vio_power_on(&b->pci);
}

/* A driver's reset, to its end. */
static void drain(struct box *b)
{
    vio_power_on(&b->pci);
    vio_wr(&b->pci, 20, 1, 0);
    fake_loop_run(&b->loop, 100);
    ensure(vio_status(&b->pci) == 0);
}

static void box_fini(struct box *b)
{
    drain(b);
    virtio_net_reset(b->net);
    virtio_net_destroy(b->net);
    ensure(fake_loop_idle(&b->loop) && !b->cable.plugged);
    pci_box_fini(&b->pci);
}

/* ---- the driver ---- */

/* With a little that may be wrong. */
static void bring_up(struct box *b, struct script *s)
{
    vio_agree(&b->pci, script_get(s, 5) | BIT(17) | BIT(32) | BIT(33));
    for (unsigned q = 0; q < QUEUES; q++)
        vio_enable(&b->pci, q, QUEUE_SIZE >> script_get(s, 1) % 4);
    vio_wr(&b->pci, 20, 1, 15);
}

/* The beginning of a chain: a header for transmission, or a command. */
static void fill(uint8_t *p, struct script *s, unsigned queue)
{
    static const struct net_hdr large = {
        .flags = 1, .gso_type = 1, .gso_size = 100, .csum_start = 34, .csum_offset = 16};
    memset(p, 0, 0x200);
    if (queue & 1) {
        memcpy(p, &large, sizeof large);
        p[12 + 12] = 8;
        p[12 + 14] = 0x45;
        p[12 + 23] = 6;
        p[12 + 46] = 0x50;
        p[script_get(s, 1) % 64] = (uint8_t)script_get(s, 1);
        p[script_get(s, 1) % 64] = (uint8_t)script_get(s, 1);
    } else {
        for (unsigned i = 0; i < 12; i++)
            p[i] = (uint8_t)script_get(s, 1);
    }
}

/* A chain as drivers make them, in the table from `at` on, or in an indirect one; then anything is changed about it. */
static void chain(struct box *b, struct script *s)
{
    unsigned queue = (unsigned)script_get(s, 1) % QUEUES, at = (unsigned)script_get(s, 1) % QUEUE_SIZE;
    uint16_t how = (uint16_t)script_get(s, 2);
    unsigned pieces = 1 + (how & 3), outs = (unsigned)(how >> 6 & 3);
    bool indirect = how & 4, packed = how & 8;
    uint8_t *table = memory + (indirect ? 0x8000 + 0x100 * at : vio_area(queue, VIRTQ_DESC));
    fill(memory + DATA + 0x800 * at, s, queue);
    for (unsigned i = 0; i < pieces; i++) {
        unsigned slot = indirect ? i : (at + i) % QUEUE_SIZE;
        bool last = i + 1 == pieces;
        uint16_t flags = (uint16_t)((last ? 0 : 1) | (i >= outs ? 2 : 0) | (packed ? how >> 8 & 0x80 : 0));
        st64(table + 16 * slot, DATA + 0x800 * at + (i ? script_get(s, 1) : 0));
        st32(table + 16 * slot + 8, (uint32_t)(script_get(s, 1) * (how & 16 ? 32 : 1)));
        st16(table + 16 * slot + 12, packed ? (uint16_t)at : flags);
        st16(table + 16 * slot + 14, packed ? flags : (uint16_t)(slot + 1) % QUEUE_SIZE);
    }
    if (indirect) {
        uint8_t *d = memory + vio_area(queue, VIRTQ_DESC) + 16 * at;
        st64(d, 0x8000 + 0x100 * at);
        st32(d + 8, 16 * pieces);
        st16(d + 12, packed ? (uint16_t)at : 4);
        st16(d + 14, packed ? 4 | (how >> 8 & 0x8080) : 0);
    }
    if (how & 32)
        memory[(indirect ? 0x8000 + 0x100 * at : vio_area(queue, VIRTQ_DESC)) + script_get(s, 1)] =
            (uint8_t)script_get(s, 1);
    uint16_t idx = ld16(memory + vio_area(queue, VIRTQ_DRIVER) + 2);
    st16(memory + vio_area(queue, VIRTQ_DRIVER) + 4 + 2 * (idx % QUEUE_SIZE), (uint16_t)at);
    st16(memory + vio_area(queue, VIRTQ_DRIVER) + 2, (uint16_t)(idx + 1));
    vio_notify(&b->pci, queue, queue);
}

static void one_step(struct box *b, struct script *s)
{
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
        chain(b, s);
        break;
    case 5:
        fake_loop_run(&b->loop, 1 + (op >> 3));
        break;
    case 6:
        give(b, s);
        break;
    default:
        if (op >> 3 == 31)
            drain(b);
        else if (op >> 3 == 30)
            virtio_net_announce(b->net);
        else
            fake_loop_timer(&b->loop, op >> 3);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct box b;
    struct script s = {data, size};
    memset(memory, 0, sizeof memory);
    memset(&b, 0, sizeof b);
    box_init(&b, (uint8_t)script_get(&s, 1));
    while (s.left)
        one_step(&b, &s);
    box_fini(&b);
    return 0;
}
