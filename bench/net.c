/* What a frame costs from a driver's ring through virtio-net to a cable that ends nowhere, and the other way. One
 * thread is the driver, the other the device's loop. Usage: bench_net [seconds-per-row] */
#include "base/clock.h"
#include "dev/net_priv.h"
#include "dev/virtio_net.h"
#include "pci/host.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#define DEVFN  PCI_DEVFN(3, 0)
#define SIZE   256u
#define BUFFER 2048u
#define REGS   0xc0100000u
#define RINGS  0x10000u /* gpa; 64 KiB for each queue */
#define DATA   0x100000u
#define HDR    12u

struct bench {
    struct epoch epoch;
    int slot;
    struct bus ports, mmio;
    struct ram ram;
    struct remap remap;
    struct pci_host host;
    struct ioloop *loop;
    struct net cable;
    struct virtio_net *net;
    _Atomic uint64_t irqs;
    /* the loop's thread */
    struct ioloop_bell flood;
    unsigned len;
    bool flooding;
    uint8_t frame[1514];
};

/* ---- the cable ---- */

static void cable_send(struct net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs, size_t len)
{
}

static void cable_flush(struct net *n)
{
}

/* Frames until there is no room, and again when there is. */
static void flood(void *opaque)
{
    struct bench *b = opaque;
    struct iovec iov = {b->frame, b->len};
    unsigned n = 0;
    while (b->flooding && n < 64 && net_deliver(&b->cable, NULL, &iov, 1, b->len))
        n++;
    if (n == 64)
        ioloop_ring(b->loop, &b->flood);
}

static void cable_resume(struct net *n)
{
    struct bench *b = container_of(n, struct bench, cable);
    ioloop_ring(b->loop, &b->flood);
}

static const struct net_ops cable_ops = {.send = cable_send, .flush = cable_flush, .resume = cable_resume};

static void set_flooding(void *opaque)
{
    struct bench *b = opaque;
    b->flooding = b->len;
    flood(b);
}

/* ---- the machine ---- */

static int deliver(void *opaque, struct irq irq)
{
    struct bench *b = opaque;
    b->irqs++;
    return 1;
}

static void cfg_wr(struct bench *b, unsigned off, unsigned size, uint64_t val)
{
    bus_write(&b->mmio, PCI_ECAM_GPA + DEVFN * 0x1000u + off, size, val);
}

static void wr(struct bench *b, unsigned off, unsigned size, uint64_t val)
{
    bus_write(&b->mmio, REGS + off, size, val);
}

static int setup(struct bench *b, struct err *e)
{
    struct ioloop_config loop = {.name = "net", .epoch = &b->epoch};
    epoch_init(&b->epoch);
    bus_init(&b->ports, "port", &b->epoch, NULL);
    bus_init(&b->mmio, "mmio", &b->epoch, NULL);
    remap_init(&b->remap, true);
    const struct pci_host_config h = {.ports = &b->ports,
                                      .mmio = &b->mmio,
                                      .ram = &b->ram,
                                      .remap = &b->remap,
                                      .port = {.deliver = deliver, .opaque = b}};
    if (ram_init(&b->ram, 16 << 20, e) || pci_host_init(&b->host, &h, e) || ioloop_create(&loop, &b->loop, e))
        return -1;
    b->cable = (struct net){.ops = &cable_ops, .loop = b->loop, .pcap = -1, .flat = malloc(NET_FRAME_MAX)};
    ioloop_bell_init(&b->flood, flood, b);
    struct virtio_net_config c = {.host = &b->host, .devfn = DEVFN, .net = &b->cable, .queue_size = SIZE};
    if (virtio_net_create(&c, &b->net, e))
        return -1;
    b->slot = epoch_slot(&b->epoch);
    epoch_enter(&b->epoch, b->slot);
    pci_host_reset(&b->host);
    cfg_wr(b, PCI_BAR0 + 16, 4, REGS);
    cfg_wr(b, PCI_COMMAND, 2, PCI_CMD_MEMORY | PCI_CMD_MASTER);
    return 0;
}

/* ---- the driver: split rings, VIRTIO_F_EVENT_IDX, which never asks for an interrupt ---- */

struct ring {
    struct bench *b;
    unsigned index;
    uint8_t *desc, *avail, *used;
    uint16_t posted, seen;
};

static void ring_init(struct ring *r, struct bench *b, unsigned index, unsigned len)
{
    uint64_t at = RINGS + 0x10000u * index;
    *r = (struct ring){b, index, b->ram.low + at, b->ram.low + at + 0x4000, b->ram.low + at + 0x8000, 0, 0};
    memset(r->desc, 0, 0x10000);
    for (unsigned i = 0; i < SIZE; i++) {
        st64(r->desc + 16 * i, DATA + (uint64_t)(SIZE * index + i) * BUFFER);
        st32(r->desc + 16 * i + 8, index ? HDR + len : BUFFER);
        st16(r->desc + 16 * i + 12, index ? 0 : 2);
        st16(r->avail + 4 + 2 * i, (uint16_t)i);
    }
    st16(r->avail + 4 + 2 * SIZE, 0x8000);
    wr(b, 22, 2, index);
    wr(b, 24, 2, SIZE);
    for (unsigned a = 0; a < 3; a++)
        wr(b, 32 + 8 * a, 8, at + 0x4000 * a);
    wr(b, 28, 2, 1);
}

static void bring_up(struct bench *b, struct ring r[2], unsigned len)
{
    wr(b, 20, 1, 0);
    while (bus_read(&b->mmio, REGS + 20, 1))
        sched_yield();
    wr(b, 20, 1, 3);
    wr(b, 8, 4, 0);
    wr(b, 12, 4, 1u << 29 | 1u << 15);
    wr(b, 8, 4, 1);
    wr(b, 12, 4, 1);
    wr(b, 20, 1, 11);
    for (unsigned i = 0; i < 2; i++)
        ring_init(&r[i], b, i, len);
    wr(b, 20, 1, 15);
}

/* Everything free goes to the device; it is told if it asked for that. */
static void post(struct ring *r)
{
    uint16_t used = __atomic_load_n((uint16_t *)(r->used + 2), __ATOMIC_ACQUIRE), then = r->posted;
    if (used == r->seen && then == (uint16_t)(r->seen + SIZE)) {
        sched_yield();
        return;
    }
    r->seen = used;
    r->posted = (uint16_t)(used + SIZE);
    __atomic_store_n((uint16_t *)(r->avail + 2), r->posted, __ATOMIC_SEQ_CST);
    uint16_t event = __atomic_load_n((uint16_t *)(r->used + 4 + 8 * SIZE), __ATOMIC_SEQ_CST);
    if ((uint16_t)(r->posted - event - 1) < (uint16_t)(r->posted - then))
        wr(r->b, 0x3000 + 4 * r->index, 2, r->index);
}

static void row(struct bench *b, const char *name, unsigned index, unsigned len, double seconds)
{
    struct ring r[2];
    uint64_t frames = 0, end;
    b->len = 0;
    ioloop_call(b->loop, set_flooding, b);
    bring_up(b, r, len);
    b->len = index ? 0 : len;
    ioloop_call(b->loop, set_flooding, b);
    uint64_t began = clock_host_ns(), until = began + (uint64_t)(seconds * 1e9);
    do {
        uint16_t seen = r[index].seen;
        post(&r[index]);
        frames += (uint16_t)(r[index].seen - seen);
        end = clock_host_ns();
    } while (end < until);
    double ns = frames ? (double)(end - began) / (double)frames : 0;
    printf("%-8s %5u bytes %8.1f ns/frame %8.2f Gbit/s\n", name, len, ns, ns > 0 ? len * 8 / ns : 0);
}

int main(int argc, char **argv)
{
    static struct bench b;
    struct err e = {""};
    double seconds = argc > 1 ? atof(argv[1]) : 0.5;
    if (setup(&b, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    row(&b, "transmit", 1, 60, seconds);
    row(&b, "transmit", 1, 1514, seconds);
    row(&b, "receive", 0, 60, seconds);
    row(&b, "receive", 0, 1514, seconds);
    b.len = 0;
    ioloop_call(b.loop, set_flooding, &b);
    virtio_net_destroy(b.net);
    epoch_leave(&b.epoch, b.slot);
    ioloop_destroy(b.loop);
    return 0;
}
