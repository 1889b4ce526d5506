/* Any registers and any guest memory: the controller stays within memory, its loop comes to rest, and once nothing is
 * in flight, a port that was told to stop has stopped and one that was reset has a disk. */
#include "pci_box.h"

#include "../unit/fake_block.h"
#include "dev/ahci_priv.h"

#define RAM_SIZE  0x40000u
#define LISTS     0x1000u /* a page a port */
#define TABLES    0x8000u /* 800h a slot */
#define DISK_SIZE (UINT64_C(64) << 20)

struct box {
    struct pci_box pci;
    struct ioloop loop;
    struct block disk[2];
    struct ahci *a;
    uint64_t abar, index;
};

static void set_line(void *opaque, unsigned gsi, bool level)
{
    ensure(gsi < 24);
}

static uint64_t config(unsigned off)
{
    return pci_box_config(AHCI_DEVFN, off);
}

static void init(struct box *b)
{
    struct err e = {""};
    memset(b, 0, sizeof *b);
    ensure(ram_init(&b->pci.ram, RAM_SIZE, &e) == 0);
    pci_box_init(&b->pci, (struct pci_host_config){
                              .port = {.deliver = pci_box_deliver}, .intx = {set_line, b, 0}, .pic = {set_line, b, 0}});
    struct ahci_config ac = {.host = &b->pci.host, .devfn = AHCI_DEVFN, .loop = &b->loop};
    for (unsigned i = 0; i < 2; i++) {
        fake_block_init(&b->disk[i], &b->loop, NULL, DISK_SIZE);
        b->disk[i].discard = b->disk[i].manual = true;
        ac.disk[i].block = &b->disk[i];
    }
    ensure(ahci_create(&ac, &b->a, &e) == 0);
    ensure(pci_host_assign(&b->pci.host, &e) == 0);
    b->abar = b->a->func.bar[5].at;
    b->index = b->a->func.bar[4].at;
    bus_write(&b->pci.mmio, config(PCI_COMMAND), 2, 7);
}

static void fini(struct box *b)
{
    ahci_destroy(b->a);
    ensure(!b->disk[0].flights && !b->disk[1].flights);
    pci_box_fini(&b->pci);
    ram_fini(&b->pci.ram);
}

static void reg_write(struct box *b, unsigned port, unsigned reg, uint32_t val)
{
    bus_write(&b->pci.mmio, b->abar + AHCI_PORT0 + port * AHCI_PORT_LEN + reg, 4, val);
}

static uint32_t reg_read(struct box *b, unsigned port, unsigned reg)
{
    return (uint32_t)bus_read(&b->pci.mmio, b->abar + AHCI_PORT0 + port * AHCI_PORT_LEN + reg, 4);
}

static void run(struct box *b)
{
    ensure(fake_loop_run(&b->loop, 1000000));
}

static void end_all(struct box *b)
{
    run(b);
    while (b->disk[0].kicked || b->disk[1].kicked) {
        fake_block_end_all(&b->disk[0]);
        fake_block_end_all(&b->disk[1]);
        run(b);
    }
    ensure(!b->disk[0].flights && !b->disk[1].flights);
}

/* A port that is ready for commands. */
static void start(struct box *b, unsigned port)
{
    reg_write(b, port, AHCI_PxCLB, LISTS + port * 0x1000);
    reg_write(b, port, AHCI_PxFB, LISTS + port * 0x1000 + 0x800);
    reg_write(b, port, AHCI_PxIE, UINT32_MAX);
    reg_write(b, port, AHCI_PxCMD, CMD_FRE | CMD_ST);
    bus_write(&b->pci.mmio, b->abar + AHCI_GHC, 4, GHC_IE);
}

static void recover(struct box *b, unsigned port)
{
    reg_write(b, port, AHCI_PxCMD, 0);
    reg_write(b, port, AHCI_PxSCTL, 1);
    reg_write(b, port, AHCI_PxSCTL, 0);
    end_all(b);
    ensure(!(reg_read(b, port, AHCI_PxCMD) & (CMD_CR | CMD_FR)));
    ensure(!(reg_read(b, port, AHCI_PxCI) | reg_read(b, port, AHCI_PxSACT)));
    ensure(reg_read(b, port, AHCI_PxTFD) == 0x0150 && reg_read(b, port, AHCI_PxSSTS) == 0x133);
    start(b, port);
}

/* A command that is nearly right: the interesting bytes are the script's. */
static void put_command(struct box *b, struct script *s)
{
    static const uint8_t codes[16] = {0x60, 0x61, 0x25, 0x35, 0x20, 0x30, 0xec, 0x06,
                                      0x2f, 0xea, 0xef, 0x42, 0xc4, 0xc5, 0x60, 0x61};
    unsigned where = (unsigned)script_get(s, 1), port = where >> 5 & 1, slot = where & 31,
             how = (unsigned)script_get(s, 1);
    unsigned prds = (unsigned)script_get(s, 1) & 0x1f;
    uint8_t *h = b->pci.ram.low + LISTS + port * 0x1000 + 32 * slot, *t = b->pci.ram.low + TABLES + slot * 0x800;
    st32(h, (how & 0x40 ? (uint32_t)script_get(s, 2) : 5) | prds << 16);
    st64(h + 8, TABLES + slot * 0x800);
    memset(t, 0, 20);
    t[0] = 0x27;
    t[1] = how & 0x20 ? (uint8_t)script_get(s, 1) : 0x80;
    t[2] = how & 0x10 ? (uint8_t)script_get(s, 1) : codes[how & 15];
    t[3] = (uint8_t)script_get(s, 1);
    t[4] = (uint8_t)script_get(s, 1);
    t[7] = 0x40;
    t[12] = (t[2] & 0xfe) == 0x60 ? (uint8_t)(slot << 3) : t[3];
    for (unsigned i = 0; i < prds; i++) {
        uint32_t word = (uint32_t)script_get(s, 4);
        st64(t + 0x80 + 16 * i, (word & 0x7ffff) | (uint64_t)(word >> 31) << 40);
        st32(t + 0x8c + 16 * i, word >> 19 & 0xfff);
    }
    if (how & 0x80)
        reg_write(b, port, AHCI_PxSACT, 1u << slot);
    reg_write(b, port, AHCI_PxCI, 1u << slot);
}

static void end_one(struct box *b, struct script *s)
{
    unsigned how = (unsigned)script_get(s, 1);
    struct block *d = &b->disk[how & 1];
    if (d->kicked)
        fake_block_end(d, (how >> 2) % d->kicked, how & 2 ? -EIO : 0);
}

static void access_register(struct box *b, struct script *s, bool write)
{
    uint64_t off = script_get(s, 2) & 0xfff;
    unsigned size = 1u << (off >> 10 & 3);
    off &= 0x3ff;
    if (write)
        bus_write(&b->pci.mmio, b->abar + off, size, script_get(s, size));
    else
        bus_read(&b->pci.mmio, b->abar + off, size);
}

static void step(struct box *b, struct script *s)
{
    uint8_t op = (uint8_t)script_get(s, 1);
    uint64_t at;
    switch (op & 15) {
    case 0:
        access_register(b, s, false);
        break;
    case 1:
        access_register(b, s, true);
        break;
    case 2:
        at = script_get(s, 3) % (RAM_SIZE - 8);
        st64(b->pci.ram.low + at, script_get(s, 8));
        break;
    case 3:
        bus_write(&b->pci.ports, b->index + (op & 0x10), 4, script_get(s, 2));
        bus_write(&b->pci.ports, b->index + 0x14, 4, script_get(s, 4));
        break;
    case 4:
        at = script_get(s, 1) & 1 ? PCI_COMMAND : 0x42;
        bus_write(&b->pci.mmio, config((unsigned)at), 2, (script_get(s, 2) & 0x407) | 2);
        break;
    case 5:
        start(b, op >> 4 & 1);
        break;
    case 6:
        recover(b, op >> 4 & 1);
        break;
    case 7:
        if (op & 0x80)
            ahci_reset(b->a);
        end_all(b);
        break;
    case 8:
    case 9:
        end_one(b, s);
        break;
    case 10:
    case 11:
        run(b);
        break;
    default:
        put_command(b, s);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct box b;
    struct script s = {data, size};
    init(&b);
    start(&b, 0);
    start(&b, 1);
    while (s.left)
        step(&b, &s);
    run(&b);
    bus_write(&b.pci.mmio, config(PCI_COMMAND), 2, 7);
    recover(&b, 0);
    recover(&b, 1);
    bus_write(&b.pci.mmio, b.abar + AHCI_GHC, 4, GHC_HR);
    end_all(&b);
    ensure(bus_read(&b.pci.mmio, b.abar + AHCI_GHC, 4) == GHC_AE);
    fini(&b);
    return 0;
}
