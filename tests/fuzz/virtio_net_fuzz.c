/* A whole virtio-net device on a cable that takes no offloads, given any guest memory, any register writes and frames
 * of any shape: what is sent lies in RAM or in a header the device made, and a reset always ends. */
#include "irq_fuzz.h"

#include "loop_fuzz.h"

#include "dev/net_priv.h"
#include "dev/virtio_net.h"
#include "pci/host.h"
#include "pci/msi.h"

#define RAM_SIZE   0x20000u
#define PAIRS      2u
#define QUEUES     (2 * PAIRS + 1)
#define QUEUE_SIZE 16u
#define DEVFN      PCI_DEVFN(3, 0)
#define BAR_MSIX   0xc0000000u
#define BAR_REGS   0xc0100000u
#define DATA       0xa000u

struct box {
    struct epoch epoch;
    struct bus ports, mmio;
    struct ram ram;
    struct remap remap;
    struct pci_host host;
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

static int deliver(void *opaque, struct irq irq)
{
    return 1;
}

static uint64_t ecam(unsigned off)
{
    return PCI_ECAM_GPA + DEVFN * 0x1000u + off;
}

/* As firmware leaves it. */
static void power_on(struct box *b)
{
    pci_host_reset(&b->host);
    bus_write(&b->mmio, ecam(PCI_BAR0 + 4), 4, BAR_MSIX);
    bus_write(&b->mmio, ecam(PCI_BAR0 + 16), 4, BAR_REGS);
    bus_write(&b->mmio, ecam(PCI_COMMAND), 2, PCI_CMD_MEMORY | PCI_CMD_MASTER);
}

static void box_init(struct box *b, uint8_t options)
{
    struct err e = {""};
    epoch_init(&b->epoch);
    bus_init(&b->ports, "port", &b->epoch, NULL);
    bus_init(&b->mmio, "mmio", &b->epoch, NULL);
    b->ram = (struct ram){.low = memory, .low_size = RAM_SIZE};
    remap_init(&b->remap, true);
    const struct pci_host_config h = {
        .ports = &b->ports, .mmio = &b->mmio, .ram = &b->ram, .remap = &b->remap, .port = {.deliver = deliver}};
    ensure(pci_host_init(&b->host, &h, &e) == 0);
    b->cable = (struct net){.ops = &cable_ops, .loop = &b->loop, .pcap = -1, .flat = b->flat};
    struct virtio_net_config c = {
        .host = &b->host,
        .devfn = DEVFN,
        .net = &b->cable,
        .mac = {0x52, 0x54, 0, 1, 2, 3},
        .queue_pairs = options & 1 ? PAIRS : 1,
        .queue_size = QUEUE_SIZE,
        .options = {.packed = options & 8, .iommu_platform = options & 16 ? VIRTIO_IOMMU_ON : VIRTIO_IOMMU_OFF}};
    ensure(virtio_net_create(&c, &b->net, &e) == 0);
    power_on(b);
}

static uint8_t status(struct box *b)
{
    return (uint8_t)bus_read(&b->mmio, BAR_REGS + 20, 1);
}

/* A driver's reset, to its end. */
static void drain(struct box *b)
{
    power_on(b);
    bus_write(&b->mmio, BAR_REGS + 20, 1, 0);
    loop_run_bells(&b->loop, 100);
    ensure(status(b) == 0);
}

static void box_fini(struct box *b)
{
    drain(b);
    virtio_net_reset(b->net);
    virtio_net_destroy(b->net);
    ensure(loop_idle(&b->loop) && !b->cable.plugged);
    pci_host_fini(&b->host);
    bus_fini(&b->mmio);
    bus_fini(&b->ports);
    epoch_fini(&b->epoch);
}

/* ---- the driver ---- */

static void wr(struct box *b, unsigned off, unsigned size, uint64_t val)
{
    bus_write(&b->mmio, BAR_REGS + off, size, val);
}

static unsigned area(unsigned queue, enum virtq_area a)
{
    return 0x1000 * (1 + queue) + 0x400 * a;
}

/* What a driver does first, with a little that may be wrong. */
static void bring_up(struct box *b, struct script *s)
{
    uint64_t features = script_get(s, 5) | BIT(17) | BIT(32) | BIT(33), offered;
    wr(b, 0, 4, 1);
    offered = bus_read(&b->mmio, BAR_REGS + 4, 4) << 32;
    wr(b, 0, 4, 0);
    offered |= bus_read(&b->mmio, BAR_REGS + 4, 4);
    wr(b, 20, 1, 3);
    for (unsigned i = 0; i < 2; i++) {
        wr(b, 8, 4, i);
        wr(b, 12, 4, (features & offered) >> 32 * i);
    }
    wr(b, 20, 1, 11);
    for (unsigned q = 0; q < QUEUES; q++) {
        memset(memory + area(q, VIRTQ_DESC), 0, 0xc00);
        wr(b, 22, 2, q);
        wr(b, 24, 2, QUEUE_SIZE >> script_get(s, 1) % 4);
        wr(b, 26, 2, q + 1);
        for (unsigned a = 0; a < VIRTQ_AREAS; a++)
            wr(b, 32 + 8 * a, 8, area(q, a));
        wr(b, 28, 2, 1);
    }
    wr(b, 20, 1, 15);
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
    uint8_t *table = memory + (indirect ? 0x8000 + 0x100 * at : area(queue, VIRTQ_DESC));
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
        uint8_t *d = memory + area(queue, VIRTQ_DESC) + 16 * at;
        st64(d, 0x8000 + 0x100 * at);
        st32(d + 8, 16 * pieces);
        st16(d + 12, packed ? (uint16_t)at : 4);
        st16(d + 14, packed ? 4 | (how >> 8 & 0x8080) : 0);
    }
    if (how & 32)
        memory[(indirect ? 0x8000 + 0x100 * at : area(queue, VIRTQ_DESC)) + script_get(s, 1)] =
            (uint8_t)script_get(s, 1);
    uint16_t idx = ld16(memory + area(queue, VIRTQ_DRIVER) + 2);
    st16(memory + area(queue, VIRTQ_DRIVER) + 4 + 2 * (idx % QUEUE_SIZE), (uint16_t)at);
    st16(memory + area(queue, VIRTQ_DRIVER) + 2, (uint16_t)(idx + 1));
    wr(b, 0x3000 + 4 * queue, 2, queue);
}

static void anywhere(struct box *b, struct script *s)
{
    uint8_t op = (uint8_t)script_get(s, 1);
    unsigned off = (unsigned)script_get(s, 2), size = 1u << (op & 3);
    uint64_t val = op & 4 ? script_get(s, size) : 0;
    uint64_t at = op & 8 ? ecam(off % 0x200) : op & 16 ? BAR_MSIX + off % 0x1000 : BAR_REGS + off % 0x4000;
    if (op & 32)
        at = BAR_REGS + off % 64;
    if (op & 4)
        bus_write(&b->mmio, at & ~(uint64_t)(size - 1), size, val);
    else
        bus_read(&b->mmio, at & ~(uint64_t)(size - 1), size);
}

static void one_step(struct box *b, struct script *s)
{
    uint8_t op = (uint8_t)script_get(s, 1);
    switch (op & 7) {
    case 0:
        st64(memory + script_get(s, 2) * 4 % (RAM_SIZE - 8), script_get(s, op >> 3 & 8 ? 8 : 2));
        break;
    case 1:
        anywhere(b, s);
        break;
    case 2:
        bring_up(b, s);
        break;
    case 3:
    case 4:
        chain(b, s);
        break;
    case 5:
        loop_run_bells(&b->loop, 1 + (op >> 3));
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
            loop_run_timer(&b->loop, op >> 3);
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
