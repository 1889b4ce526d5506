/* The controller with a real loop and real image files, driven by two threads at once as vCPUs drive it. */
#include "pci_rig.h"

#include "dev/ahci_priv.h"

#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#define SECTORS 4096u
#define THREADS 2u
#define ROUNDS  300u
#define CHUNK   16u /* sectors of a command */

struct live {
    struct pci_rig r;
    struct ioloop *loop;
    struct block *block[THREADS];
    char path[THREADS][64];
    struct ahci *ahci;
    uint64_t abar;
};

struct driver {
    struct live *l;
    unsigned port;
    pthread_t thread;
    uint8_t model[SECTORS * 512];
};

static uint32_t rd(struct live *l, unsigned port, unsigned reg)
{
    return (uint32_t)mem_rd(&l->r, l->abar + AHCI_PORT0 + port * AHCI_PORT_LEN + reg, 4);
}

static void wr(struct live *l, unsigned port, unsigned reg, uint32_t val)
{
    mem_wr(&l->r, l->abar + AHCI_PORT0 + port * AHCI_PORT_LEN + reg, 4, val);
}

static uint64_t lists(unsigned port)
{
    return 0x10000 + port * 0x1000;
}

static uint64_t table(unsigned port, unsigned slot)
{
    return 0x20000 + (port * 32 + slot) * 0x100;
}

static uint64_t data(unsigned port, unsigned slot)
{
    return 0x100000 + (port * 32 + slot) * CHUNK * 512;
}

static void open_disk(struct live *l, unsigned i)
{
    snprintf(l->path[i], sizeof l->path[i], "/tmp/hec-ahci-XXXXXX");
    int fd = mkstemp(l->path[i]);
    assert_true(fd >= 0 && !ftruncate(fd, SECTORS * 512));
    close(fd);
    const struct block_config c = {.option = "-hda", .file = l->path[i], .format = "raw", .discard = true};
    assert_int_equal(block_open(&c, l->loop, &l->block[i], &l->r.f.err), 0);
}

static void setup(struct live *l)
{
    memset(l, 0, sizeof *l);
    rig_init(&l->r);
    const struct ioloop_config lc = {.name = "disks", .epoch = &l->r.f.epoch};
    assert_int_equal(ioloop_create(&lc, &l->loop, &l->r.f.err), 0);
    struct ahci_config c = {.host = &l->r.host, .devfn = AHCI_DEVFN, .loop = l->loop};
    for (unsigned i = 0; i < THREADS; i++) {
        open_disk(l, i);
        c.disk[i].block = l->block[i];
    }
    assert_int_equal(ahci_create(&c, &l->ahci, &l->r.f.err), 0);
    assert_int_equal(pci_host_assign(&l->r.host, &l->r.f.err), 0);
    l->abar = cfg_rd(&l->r, 0, AHCI_DEVFN, PCI_BAR0 + 20, 4) & ~0xfull;
    cfg_wr(&l->r, 0, AHCI_DEVFN, PCI_COMMAND, 2, PCI_CMD_MEMORY | PCI_CMD_MASTER);
    unsigned msi = cap_of(&l->r, 0, AHCI_DEVFN, PCI_CAP_MSI);
    cfg_wr(&l->r, 0, AHCI_DEVFN, msi + 4, 4, 0xfee05000);
    cfg_wr(&l->r, 0, AHCI_DEVFN, msi + 12, 2, 0x51);
    cfg_wr(&l->r, 0, AHCI_DEVFN, msi + 2, 2, 1);
    mem_wr(&l->r, l->abar + AHCI_GHC, 4, GHC_IE);
}

static void done(struct live *l)
{
    ahci_destroy(l->ahci);
    for (unsigned i = 0; i < THREADS; i++) {
        block_close(l->block[i]);
        unlink(l->path[i]);
    }
    ioloop_destroy(l->loop);
    rig_fini(&l->r);
}

static void start(struct live *l, unsigned port)
{
    wr(l, port, AHCI_PxCLB, (uint32_t)lists(port));
    wr(l, port, AHCI_PxFB, (uint32_t)lists(port) + 0x400);
    wr(l, port, AHCI_PxSERR, UINT32_MAX);
    wr(l, port, AHCI_PxIE, UINT32_MAX);
    wr(l, port, AHCI_PxCMD, CMD_FRE | CMD_ST);
    while (~rd(l, port, AHCI_PxCMD) & (CMD_CR | CMD_FR))
        sched_yield();
}

static void put(struct live *l, unsigned port, unsigned slot, const struct ata_regs *regs, unsigned sectors)
{
    uint8_t *ram = l->r.ram.low, *h = ram + lists(port) + 32 * slot, *t = ram + table(port, slot);
    st32(h, 5u | (sectors ? 1u << 16 : 0));
    st64(h + 8, table(port, slot));
    memset(t, 0, 20);
    t[0] = 0x27;
    t[1] = 0x80;
    t[2] = regs->command;
    t[3] = (uint8_t)regs->feature;
    st32(t + 4, (uint32_t)regs->lba | (uint32_t)regs->device << 24);
    st16(t + 12, regs->count);
    st64(t + 0x80, data(port, slot));
    st32(t + 0x8c, sectors * 512 - 1);
}

/* A queue of up to 32, half of them writes, each slot in its own stretch of the disk; and its end. */
static void round_of(struct driver *d, unsigned n, uint32_t writes)
{
    struct live *l = d->l;
    for (unsigned i = 0; i < 32; i++) {
        uint64_t lba = i * 128 + n * 7 % 112;
        uint8_t *mem = l->r.ram.low + data(d->port, i);
        bool write = writes >> i & 1;
        memset(mem, write ? (int)(n + i) : 0xcc, CHUNK * 512);
        if (write)
            memset(d->model + lba * 512, (int)(n + i), CHUNK * 512);
        const struct ata_regs regs = {.command = write ? 0x61 : 0x60,
                                      .device = (uint8_t)(0x40 | (i & 1) << 7),
                                      .lba = lba,
                                      .feature = CHUNK,
                                      .count = (uint16_t)(i << 3)};
        put(l, d->port, i, &regs, CHUNK);
    }
    wr(l, d->port, AHCI_PxSACT, UINT32_MAX);
    wr(l, d->port, AHCI_PxCI, UINT32_MAX);
    while (rd(l, d->port, AHCI_PxSACT))
        sched_yield();
    for (unsigned i = 0; i < 32; i++)
        assert_memory_equal(l->r.ram.low + data(d->port, i), d->model + (i * 128 + n * 7 % 112) * 512, CHUNK * 512);
}

/* What a handler does. There is an interrupt for what has ended, however much of it there is. */
static void acknowledge(struct live *l, unsigned port)
{
    while (!(rd(l, port, AHCI_PxIS) & (IS_SDBS | IS_DHRS)))
        sched_yield();
    wr(l, port, AHCI_PxIS, UINT32_MAX);
    mem_wr(&l->r, l->abar + AHCI_IS, 4, 1u << port);
}

static void *drive(void *opaque)
{
    struct driver *d = opaque;
    struct live *l = d->l;
    int slot = epoch_slot(&l->r.f.epoch);
    epoch_enter(&l->r.f.epoch, slot);
    start(l, d->port);
    for (unsigned n = 0; n < ROUNDS; n++) {
        round_of(d, n, n * 2654435761u);
        acknowledge(l, d->port);
        if (n % 16 == 0) {
            const struct ata_regs flush = {.command = 0xea};
            put(l, d->port, 0, &flush, 0);
            wr(l, d->port, AHCI_PxCI, 1);
            while (rd(l, d->port, AHCI_PxCI))
                sched_yield();
            acknowledge(l, d->port);
        }
    }
    epoch_leave(&l->r.f.epoch, slot);
    return NULL;
}

static void two_drivers_at_once(void **state)
{
    static struct live l;
    static struct driver d[THREADS];
    setup(&l);
    for (unsigned i = 0; i < THREADS; i++) {
        d[i] = (struct driver){.l = &l, .port = i};
        assert_int_equal(pthread_create(&d[i].thread, NULL, drive, &d[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(d[i].thread, NULL);
    assert_true(l.r.sent > 0);
    for (unsigned i = 0; i < THREADS; i++) {
        static uint8_t file[SECTORS * 512];
        FILE *f = fopen(l.path[i], "r");
        assert_int_equal(fread(file, 1, sizeof file, f), sizeof file);
        fclose(f);
        assert_memory_equal(file, d[i].model, sizeof file);
    }
    done(&l);
}

static void reads_all_slots(struct live *l)
{
    for (unsigned i = 0; i < 32; i++) {
        const struct ata_regs regs = {
            .command = 0x60, .device = 0x40, .lba = i * 100, .feature = CHUNK, .count = (uint16_t)(i << 3)};
        put(l, 0, i, &regs, CHUNK);
    }
    wr(l, 0, AHCI_PxSACT, UINT32_MAX);
    wr(l, 0, AHCI_PxCI, UINT32_MAX);
}

static void resets_amid_io(void **state)
{
    static struct live l;
    setup(&l);
    for (unsigned n = 0; n < 50; n++) {
        start(&l, 0);
        reads_all_slots(&l);
        if (n % 3 == 0) {
            ahci_reset(l.ahci);
            mem_wr(&l.r, l.abar + AHCI_GHC, 4, GHC_IE);
        } else if (n % 3 == 1) {
            mem_wr(&l.r, l.abar + AHCI_GHC, 4, GHC_IE | GHC_HR);
            while (mem_rd(&l.r, l.abar + AHCI_GHC, 4) & GHC_HR)
                sched_yield();
        } else {
            wr(&l, 0, AHCI_PxCMD, 0);
            while (rd(&l, 0, AHCI_PxCMD) & (CMD_CR | CMD_FR))
                sched_yield();
            wr(&l, 0, AHCI_PxSCTL, 1);
            wr(&l, 0, AHCI_PxSCTL, 0);
            while (rd(&l, 0, AHCI_PxTFD) & ATA_BSY)
                sched_yield();
        }
        assert_int_equal(rd(&l, 0, AHCI_PxTFD), 0x0150);
        assert_int_equal(rd(&l, 0, AHCI_PxSACT) | rd(&l, 0, AHCI_PxCI), 0);
    }
    done(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_drivers_at_once),
        cmocka_unit_test(resets_amid_io),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
