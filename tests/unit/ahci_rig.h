/* A small AHCI driver over a controller with two disks, in a machine without CPUs. Port 0 has a disk of RIG_SECTORS,
 * port 3 one of 4 KiB physical sectors; the others are empty. */
#ifndef HEC_TESTS_AHCI_RIG_H
#define HEC_TESTS_AHCI_RIG_H

#include "fake_block.h"
#include "pci_rig.h"

#include "dev/ahci_priv.h"

#define RIG_SECTORS 8192u
#define RIG_LISTS   0x10000u /* a page a port: command list, then the receive area */
#define RIG_TABLES  0x20000u /* 4000h a slot, of whichever port */
#define RIG_DATA    0x200000u
#define RIG_VECTOR  0x51

struct ahci_rig {
    struct pci_rig pci;
    struct ioloop loop;
    struct block disk0, disk3;
    uint8_t *image0, *image3;
    struct ahci *ahci;
    uint64_t abar;
    uint16_t index_port;
};

struct rig_prd {
    uint64_t at;
    uint32_t len;
};

/* ---- registers and memory ---- */
static inline uint32_t hba_rd(struct ahci_rig *r, unsigned reg)
{
    return (uint32_t)mem_rd(&r->pci, r->abar + reg, 4);
}

static inline void hba_wr(struct ahci_rig *r, unsigned reg, uint32_t val)
{
    mem_wr(&r->pci, r->abar + reg, 4, val);
}

static inline uint32_t px_rd(struct ahci_rig *r, unsigned port, unsigned reg)
{
    return hba_rd(r, AHCI_PORT0 + port * AHCI_PORT_LEN + reg);
}

static inline void px_wr(struct ahci_rig *r, unsigned port, unsigned reg, uint32_t val)
{
    hba_wr(r, AHCI_PORT0 + port * AHCI_PORT_LEN + reg, val);
}

static inline uint8_t *guest(struct ahci_rig *r, uint64_t gpa)
{
    return r->pci.ram.low + gpa;
}

static inline uint8_t *list_of(struct ahci_rig *r, unsigned port)
{
    return guest(r, RIG_LISTS + port * 0x1000u);
}

static inline uint8_t *received(struct ahci_rig *r, unsigned port, unsigned off)
{
    return list_of(r, port) + 0x400 + off;
}

static inline uint8_t *table_of(struct ahci_rig *r, unsigned slot)
{
    return guest(r, RIG_TABLES + slot * 0x4000u);
}

static inline void run(struct ahci_rig *r)
{
    assert_true(fake_loop_run(&r->loop, 100000));
}

/* ---- life ---- */
static inline void rig_fill(uint8_t *p, uint64_t sectors)
{
    for (uint64_t i = 0; i < sectors * 512; i++)
        p[i] = (uint8_t)(i / 512 * 7 + i % 512 * 3);
}

static inline void ahci_rig_wire(struct ahci_rig *r)
{
    const struct ahci_config c = {.host = &r->pci.host,
                                  .devfn = AHCI_DEVFN,
                                  .loop = &r->loop,
                                  .disk = {[0] = {.block = &r->disk0, .serial = "SN0"}, [3] = {.block = &r->disk3}}};
    assert_int_equal(ahci_create(&c, &r->ahci, &r->pci.f.err), 0);
    assert_int_equal(pci_host_assign(&r->pci.host, &r->pci.f.err), 0);
    r->abar = cfg_rd(&r->pci, 0, AHCI_DEVFN, PCI_BAR0 + 20, 4) & ~0xfull;
    r->index_port = (uint16_t)(cfg_rd(&r->pci, 0, AHCI_DEVFN, PCI_BAR0 + 16, 4) & ~3ull);
    cfg_wr(&r->pci, 0, AHCI_DEVFN, PCI_COMMAND, 2, PCI_CMD_IO | PCI_CMD_MEMORY | PCI_CMD_MASTER);
    run(r);
}

static inline void ahci_rig_init(struct ahci_rig *r)
{
    memset(r, 0, sizeof *r);
    rig_init(&r->pci);
    r->image0 = malloc(RIG_SECTORS * 512);
    r->image3 = malloc(RIG_SECTORS * 512);
    rig_fill(r->image0, RIG_SECTORS);
    rig_fill(r->image3, RIG_SECTORS);
    fake_block_init(&r->disk0, &r->loop, r->image0, RIG_SECTORS * 512ull);
    fake_block_init(&r->disk3, &r->loop, r->image3, RIG_SECTORS * 512ull);
    r->disk0.discard = true;
    r->disk3.physical = 4096;
    ahci_rig_wire(r);
}

static inline void ahci_rig_fini(struct ahci_rig *r)
{
    ahci_destroy(r->ahci);
    rig_fini(&r->pci);
    free(r->image0);
    free(r->image3);
}

/* ---- the driver ---- */
static inline void msi_on(struct ahci_rig *r, bool on)
{
    unsigned at = cap_of(&r->pci, 0, AHCI_DEVFN, PCI_CAP_MSI);
    cfg_wr(&r->pci, 0, AHCI_DEVFN, at + 4, 4, 0xfee05000);
    cfg_wr(&r->pci, 0, AHCI_DEVFN, at + 8, 4, 0);
    cfg_wr(&r->pci, 0, AHCI_DEVFN, at + 12, 2, RIG_VECTOR);
    cfg_wr(&r->pci, 0, AHCI_DEVFN, at + 2, 2, on);
    run(r);
}

static inline void port_start(struct ahci_rig *r, unsigned port)
{
    px_wr(r, port, AHCI_PxCLB, RIG_LISTS + port * 0x1000u);
    px_wr(r, port, AHCI_PxFB, RIG_LISTS + port * 0x1000u + 0x400);
    px_wr(r, port, AHCI_PxCMD, CMD_FRE);
    run(r);
    px_wr(r, port, AHCI_PxSERR, UINT32_MAX);
    px_wr(r, port, AHCI_PxIS, UINT32_MAX);
    px_wr(r, port, AHCI_PxCMD, CMD_FRE | CMD_ST);
    px_wr(r, port, AHCI_PxIE, UINT32_MAX);
    hba_wr(r, AHCI_IS, UINT32_MAX);
    hba_wr(r, AHCI_GHC, GHC_IE);
    run(r);
}

static inline void port_stop(struct ahci_rig *r, unsigned port)
{
    px_wr(r, port, AHCI_PxCMD, CMD_FRE);
    run(r);
}

/* After an error: as drivers do it. */
static inline void port_restart(struct ahci_rig *r, unsigned port)
{
    port_stop(r, port);
    assert_int_equal(px_rd(r, port, AHCI_PxCMD) & CMD_CR, 0);
    px_wr(r, port, AHCI_PxSERR, UINT32_MAX);
    px_wr(r, port, AHCI_PxIS, UINT32_MAX);
    hba_wr(r, AHCI_IS, UINT32_MAX);
    px_wr(r, port, AHCI_PxCMD, CMD_FRE | CMD_ST);
    run(r);
}

static inline void put_prds(struct ahci_rig *r, unsigned slot, const struct rig_prd *prd, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint8_t *e = table_of(r, slot) + 0x80 + 16 * i;
        st64(e, prd[i].at);
        st32(e + 8, 0);
        st32(e + 12, prd[i].len - 1);
    }
}

/* A command in `slot`, not yet issued. */
static inline void put_command(struct ahci_rig *r, unsigned port, unsigned slot, const struct ata_regs *regs,
                               bool write, const struct rig_prd *prd, unsigned n)
{
    uint8_t *h = list_of(r, port) + 32 * slot, *fis = table_of(r, slot);
    st32(h, 5u | write << 6 | n << 16);
    st32(h + 4, 0);
    st64(h + 8, RIG_TABLES + slot * 0x4000u);
    memset(fis, 0, 64);
    fis[0] = 0x27;
    fis[1] = 0x80;
    fis[2] = regs->command;
    fis[3] = (uint8_t)regs->feature;
    fis[11] = (uint8_t)(regs->feature >> 8);
    for (unsigned i = 0; i < 3; i++) {
        fis[4 + i] = (uint8_t)(regs->lba >> 8 * i);
        fis[8 + i] = (uint8_t)(regs->lba >> (24 + 8 * i));
    }
    fis[7] = regs->device;
    st16(fis + 12, regs->count);
    put_prds(r, slot, prd, n);
}

/* Issue slot 0 and run; the status. */
static inline uint8_t command(struct ahci_rig *r, unsigned port, struct ata_regs regs, bool write, uint64_t at,
                              uint32_t len)
{
    const struct rig_prd prd = {at, len};
    put_command(r, port, 0, &regs, write, &prd, len ? 1 : 0);
    px_wr(r, port, AHCI_PxCI, 1);
    run(r);
    return (uint8_t)px_rd(r, port, AHCI_PxTFD);
}

static inline uint8_t simple(struct ahci_rig *r, unsigned port, uint8_t code, uint8_t feature, uint16_t count)
{
    return command(r, port, (struct ata_regs){.command = code, .feature = feature, .count = count}, false, 0, 0);
}

/* READ DMA EXT and WRITE DMA EXT of port 0. */
static inline uint8_t dma(struct ahci_rig *r, bool write, uint64_t lba, unsigned n, uint64_t at)
{
    const struct ata_regs regs = {.command = write ? 0x35 : 0x25, .device = 0x40, .lba = lba, .count = (uint16_t)n};
    return command(r, 0, regs, write, at, n * 512);
}

static inline void ncq_put(struct ahci_rig *r, unsigned slot, bool write, uint64_t lba, unsigned n, uint64_t at,
                           bool fua)
{
    const struct ata_regs regs = {.command = write ? 0x61 : 0x60,
                                  .device = 0x40 | fua << 7,
                                  .lba = lba,
                                  .feature = (uint16_t)n,
                                  .count = (uint16_t)(slot << 3)};
    const struct rig_prd prd = {at, n * 512};
    put_command(r, 0, slot, &regs, write, &prd, 1);
}

static inline void ncq_issue(struct ahci_rig *r, uint32_t slots)
{
    px_wr(r, 0, AHCI_PxSACT, slots);
    px_wr(r, 0, AHCI_PxCI, slots);
    run(r);
}

static inline unsigned error_of(struct ahci_rig *r, unsigned port)
{
    return px_rd(r, port, AHCI_PxTFD) >> 8 & 0xff;
}

/* Clear what is pending, as an interrupt handler does; what it was. */
static inline uint32_t ack(struct ahci_rig *r, unsigned port)
{
    uint32_t is = px_rd(r, port, AHCI_PxIS);
    px_wr(r, port, AHCI_PxIS, is);
    hba_wr(r, AHCI_IS, 1u << port);
    run(r);
    return is;
}

#endif
