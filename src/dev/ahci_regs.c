/* Registers. AHCI 1.3.1, 3 "HBA Memory Registers". Accesses of any size and place are turned into accesses to dwords
 * with a mask of the bytes that are meant; bytes of a write that are not meant keep their value, and clear or set
 * nothing. */
#include "dev/ahci_priv.h"

#define CAP_PORTS (AHCI_PORTS - 1)
#define CAP_NCS   ((AHCI_SLOTS - 1) << 8)
#define CAP_LPM   (3u << 13) /* partial and slumber may be asked for; the disks stay active */
#define CAP_PMD   (1u << 15) /* PIO transfers of several blocks */
#define CAP_SAM   (1u << 18) /* AHCI only */
#define CAP_ISS   (3u << 20) /* 6 Gb/s */
#define CAP_SCLO  (1u << 24)
#define CAP_SNCQ  (1u << 30)
#define CAP_S64A  (1u << 31)

#define PxIE_MASK   0x7dc000ffu
#define PxIS_MASK   (0x7dc000ffu & ~(uint32_t)(IS_PCS | IS_PRCS | IS_UFS)) /* these are PxSERR's */
#define PxCMD_MASK  (CMD_ST | CMD_FRE | CMD_ATAPI | CMD_DLAE)
#define PxSCTL_MASK 0x0fffu
#define SCTL_DET    0x0fu

enum { INDEX_AT = 0x10, INDEX_DATA = 0x14 };

static void ask(struct ahci_port *p, struct ahci_ask *q)
{
    atomic_fetch_add(&q->asked, 1);
    ioloop_ring(p->hba->cfg.loop, &p->bell);
}

/* ---- what is not stored as it is read ---- */
unsigned ahci_port_speed(const struct ahci_port *p)
{
    unsigned limit = atomic_load(&p->sctl) >> 4 & 0xf;
    return limit && limit < 3 ? limit : 3;
}

static uint32_t ssts(const struct ahci_port *p)
{
    uint32_t det = atomic_load(&p->sctl) & SCTL_DET;
    if (det == 4)
        return 4;
    return p->block && !det ? 0x103 | ahci_port_speed(p) << 4 : 0;
}

/* A COMRESET shows before the loop knows of it. */
static uint32_t tfd(struct ahci_port *p)
{
    if (!p->block || !ahci_asked(&p->comreset))
        return atomic_load(&p->tfd);
    return atomic_load(&p->sctl) & SCTL_DET ? 0x7f : ATA_BSY;
}

static uint32_t cmd(const struct ahci_port *p)
{
    uint32_t v = atomic_load(&p->cmd) | atomic_load(&p->state) | CMD_SUD | CMD_POD;
    return v | (ahci_asked(&p->stop) ? CMD_CR : 0) | (ahci_asked(&p->fis_off) ? CMD_FR : 0) |
           (ahci_asked(&p->clo) ? CMD_CLO : 0);
}

static uint32_t port_read(struct ahci_port *p, unsigned reg)
{
    switch (reg) {
    case AHCI_PxCLB:
        return atomic_load(&p->clb);
    case AHCI_PxCLBU:
        return atomic_load(&p->clbu);
    case AHCI_PxFB:
        return atomic_load(&p->fb);
    case AHCI_PxFBU:
        return atomic_load(&p->fbu);
    case AHCI_PxIS:
        return ahci_port_pending(p);
    case AHCI_PxIE:
        return atomic_load(&p->ie);
    case AHCI_PxCMD:
        return cmd(p);
    case AHCI_PxTFD:
        return tfd(p);
    case AHCI_PxSIG:
        return ahci_asked(&p->comreset) ? UINT32_MAX : atomic_load(&p->sig);
    case AHCI_PxSSTS:
        return ssts(p);
    case AHCI_PxSCTL:
        return atomic_load(&p->sctl);
    case AHCI_PxSERR:
        return atomic_load(&p->serr);
    case AHCI_PxSACT:
        return atomic_load(&p->sact);
    case AHCI_PxCI:
        return atomic_load(&p->ci);
    default:
        return 0;
    }
}

static uint32_t reg_read(struct ahci *a, unsigned reg)
{
    if (reg >= AHCI_PORT0)
        return reg - AHCI_PORT0 < AHCI_PORTS * AHCI_PORT_LEN
                   ? port_read(&a->port[(reg - AHCI_PORT0) / AHCI_PORT_LEN], reg % AHCI_PORT_LEN)
                   : 0;
    switch (reg) {
    case AHCI_CAP:
        return CAP_PORTS | CAP_NCS | CAP_LPM | CAP_PMD | CAP_SAM | CAP_ISS | CAP_SCLO | CAP_SNCQ | CAP_S64A;
    case AHCI_GHC:
        ahci_hba_look(a);
        return atomic_load(&a->ghc) | GHC_AE | (ahci_asked(&a->reset) ? GHC_HR : 0);
    case AHCI_IS:
        return atomic_load(&a->is);
    case AHCI_PI:
        return (1u << AHCI_PORTS) - 1;
    case AHCI_VS:
        return 0x00010300;
    default:
        return 0;
    }
}

/* ---- writes ---- */
static void cmd_write(struct ahci_port *p, uint32_t val)
{
    uint32_t old = atomic_exchange(&p->cmd, val & PxCMD_MASK);
    if (old & ~val & CMD_ST)
        ask(p, &p->stop);
    if (old & ~val & CMD_FRE)
        ask(p, &p->fis_off);
    if (val & CMD_CLO)
        ask(p, &p->clo);
    ioloop_ring(p->hba->cfg.loop, &p->bell);
}

static void sctl_write(struct ahci_port *p, uint32_t val)
{
    uint32_t old = atomic_exchange(&p->sctl, val & PxSCTL_MASK);
    if (val & SCTL_DET && (val ^ old) & SCTL_DET)
        ask(p, &p->comreset);
    ioloop_ring(p->hba->cfg.loop, &p->bell);
}

/* The bits of PxCI and PxSACT can be set only while the port is started. 3.3.14 "Offset 38h: PxCI" */
static void issue_write(struct ahci_port *p, _Atomic uint32_t *bits, uint32_t val)
{
    if (atomic_load(&p->cmd) & CMD_ST)
        atomic_fetch_or(bits, val);
}

static void merge(_Atomic uint32_t *reg, uint32_t val, uint32_t mask)
{
    atomic_store(reg, (atomic_load(reg) & ~mask) | (val & mask));
}

static void port_write(struct ahci_port *p, unsigned reg, uint32_t val, uint32_t mask)
{
    switch (reg) {
    case AHCI_PxCLB:
        merge(&p->clb, val, mask & ~0x3ffu);
        break;
    case AHCI_PxCLBU:
        merge(&p->clbu, val, mask);
        break;
    case AHCI_PxFB:
        merge(&p->fb, val, mask & ~0xffu);
        break;
    case AHCI_PxFBU:
        merge(&p->fbu, val, mask);
        break;
    case AHCI_PxIS:
        atomic_fetch_and(&p->is, ~(val & PxIS_MASK));
        break;
    case AHCI_PxIE:
        merge(&p->ie, val, mask & PxIE_MASK);
        ahci_port_interrupt(p);
        break;
    case AHCI_PxCMD:
        cmd_write(p, val | (atomic_load(&p->cmd) & ~mask));
        break;
    case AHCI_PxSCTL:
        sctl_write(p, val | (atomic_load(&p->sctl) & ~mask));
        break;
    case AHCI_PxSERR:
        atomic_fetch_and(&p->serr, ~val);
        break;
    case AHCI_PxSACT:
        issue_write(p, &p->sact, val);
        break;
    case AHCI_PxCI:
        issue_write(p, &p->ci, val);
        ioloop_ring(p->hba->cfg.loop, &p->bell);
        break;
    default:
        break;
    }
}

static void ghc_write(struct ahci *a, uint32_t val, uint32_t mask)
{
    uint32_t old = atomic_load(&a->ghc);
    merge(&a->ghc, val, mask & GHC_IE);
    if ((atomic_load(&a->ghc) ^ old) & GHC_IE)
        ahci_interrupt(a);
    if (!(val & GHC_HR))
        return;
    atomic_fetch_add(&a->reset.asked, 1);
    ioloop_ring(a->cfg.loop, &a->bell);
}

/* `val` has zeros where `mask` has. */
static void reg_write(struct ahci *a, unsigned reg, uint32_t val, uint32_t mask)
{
    if (reg == AHCI_GHC)
        ghc_write(a, val, mask);
    else if (reg == AHCI_IS)
        ahci_is_clear(a, val);
    else if (reg >= AHCI_PORT0 && reg - AHCI_PORT0 < AHCI_PORTS * AHCI_PORT_LEN)
        port_write(&a->port[(reg - AHCI_PORT0) / AHCI_PORT_LEN], reg % AHCI_PORT_LEN, val, mask);
}

/* ---- ABAR ---- */
static uint64_t bar_read(void *dev, uint64_t off, unsigned size)
{
    unsigned reg = (unsigned)off & ~3u, shift = 8 * ((unsigned)off & 3);
    uint64_t v = (uint64_t)reg_read(dev, reg) >> shift;
    for (unsigned have = 32 - shift; have < 8 * size; have += 32)
        v |= (uint64_t)reg_read(dev, reg += 4) << have;
    return v & size_mask(size);
}

static void bar_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    unsigned reg = (unsigned)off & ~3u;
    for (unsigned done = 0; done < size; reg += 4) {
        unsigned at = (unsigned)(off + done) & 3, n = (unsigned)min_u64(4 - at, size - done);
        uint32_t mask = (uint32_t)(size_mask(n) << 8 * at);
        reg_write(dev, reg, (uint32_t)(val >> 8 * done << 8 * at) & mask, mask);
        done += n;
    }
}

const struct bus_ops ahci_bar_ops = {.read = bar_read, .write = bar_write};

/* ---- the index-data pair: the same through ports. 2.4 "SATA Capability", 10.14 "Index-Data Pair registers" ---- */
static uint64_t index_read(void *dev, uint64_t off, unsigned size)
{
    struct ahci *a = dev;
    if (size != 4 || (off != INDEX_AT && off != INDEX_DATA))
        return 0;
    uint32_t index = atomic_load(&a->index);
    return off == INDEX_AT ? index : reg_read(a, index);
}

static void index_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct ahci *a = dev;
    if (size != 4)
        return;
    if (off == INDEX_AT)
        atomic_store(&a->index, (uint32_t)val & 0xffc);
    else if (off == INDEX_DATA)
        reg_write(a, atomic_load(&a->index), (uint32_t)val, UINT32_MAX);
}

const struct bus_ops ahci_index_ops = {.read = index_read, .write = index_write};
