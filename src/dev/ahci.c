#include "dev/ahci_priv.h"
#include "pci/host.h"
#include "pci/msi.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { ICH9_VENDOR = 0x8086, ICH9_AHCI = 0x2922, ICH9_REVISION = 2, SATA_CLASS = 0x010601 };
enum { CAP_SATA = 0x12, CAP_SATA_AT = 0xa8, ICH9_MAP = 0x90, ICH9_PCS = 0x92 };
enum { ABAR = 5, INDEX_BAR = 4, ABAR_SIZE = 4096, INDEX_SIZE = 32 };

/* ---- interrupts. 10.7 "Interrupts" ---- */
/* Some bits are PxSERR's, and go when those are cleared. */
uint32_t ahci_port_pending(const struct ahci_port *p)
{
    uint32_t serr = atomic_load(&p->serr);
    return atomic_load(&p->is) | (serr & SERR_X ? IS_PCS : 0) | (serr & SERR_N ? IS_PRCS : 0) |
           (serr & SERR_F ? IS_UFS : 0);
}

/* Whoever changes what the level is made of comes here afterwards, so the last to hold the lock sets the true one. */
static void intx_update(struct ahci *a)
{
    pthread_mutex_lock(&a->intx_lock);
    pci_intx_set(&a->func, atomic_load(&a->ghc) & GHC_IE && atomic_load(&a->is) && !pci_msi_on(&a->func));
    pthread_mutex_unlock(&a->intx_lock);
}

void ahci_interrupt(struct ahci *a)
{
    if (!pci_msi_on(&a->func))
        intx_update(a);
    else if (atomic_load(&a->ghc) & GHC_IE && atomic_load(&a->is))
        msi_fire(&a->func, 0);
}

/* The port's bit of IS; true: it was not set before. */
static bool pend(struct ahci_port *p)
{
    uint32_t bit = 1u << p->n;
    return ahci_port_pending(p) & atomic_load(&p->ie) && !(atomic_fetch_or(&p->hba->is, bit) & bit);
}

void ahci_port_interrupt(struct ahci_port *p)
{
    if (pend(p))
        ahci_interrupt(p->hba);
}

/* A port that has something pending sets its bit again. What is left, or came meanwhile, is worth a new
 * message: 10.7.2.1 "Software Operation", the table of MSI behaviour. */
void ahci_is_clear(struct ahci *a, uint32_t val)
{
    uint32_t cleared = atomic_fetch_and(&a->is, ~val) & val;
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        if (cleared >> i & 1)
            pend(&a->port[i]);
    if (cleared)
        ahci_interrupt(a);
}

/* ---- the loop's thread ---- */
void ahci_hba_try_reset(struct ahci *a)
{
    uint32_t asked = atomic_load(&a->reset.asked);
    if (!ahci_asked(&a->reset) || a->in_flight || a->quiet)
        return;
    trace(a->cfg.trace, TRACE_DEV, "ahci: reset");
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        ahci_port_reset(&a->port[i], false);
    atomic_store(&a->ghc, 0);
    atomic_store(&a->is, 0);
    intx_update(a);
    atomic_store(&a->reset.served, asked);
}

/* 10.4.3 "HBA Reset" gives it one second, after which drivers give the HBA up: on a busy host the loop may not run in
 * that time, though the vCPU does. */
void ahci_hba_look(struct ahci *a)
{
    if (!ahci_asked(&a->reset) || pthread_mutex_trylock(&a->work))
        return;
    ahci_hba_try_reset(a);
    pthread_mutex_unlock(&a->work);
}

void ahci_hba_run(void *hba)
{
    struct ahci *a = hba;
    pthread_mutex_lock(&a->work);
    ahci_hba_try_reset(a);
    pthread_mutex_unlock(&a->work);
    intx_update(a); /* MSI may have been switched on or off */
}

void ahci_quiet_check(struct ahci *a)
{
    if (!a->quiet || a->in_flight)
        return;
    pthread_mutex_lock(&a->lock);
    a->idle = true;
    pthread_cond_signal(&a->idle_cond);
    pthread_mutex_unlock(&a->lock);
}

static void begin_quiet(void *hba)
{
    struct ahci *a = hba;
    a->quiet = true;
    a->idle = false;
    ahci_quiet_check(a);
}

static void power_on(void *hba)
{
    struct ahci *a = hba;
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        ahci_port_reset(&a->port[i], true);
    atomic_store(&a->ghc, 0);
    atomic_store(&a->is, 0);
    atomic_store(&a->index, 0);
    atomic_store(&a->reset.served, atomic_load(&a->reset.asked));
    a->quiet = false;
}

static void forget_bells(void *hba)
{
    struct ahci *a = hba;
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        ioloop_bell_remove(a->cfg.loop, &a->port[i].bell);
    ioloop_bell_remove(a->cfg.loop, &a->bell);
}

/* ---- the owner's thread ---- */
static void wait_idle(struct ahci *a)
{
    ioloop_call(a->cfg.loop, begin_quiet, a);
    pthread_mutex_lock(&a->lock);
    while (!a->idle)
        pthread_cond_wait(&a->idle_cond, &a->lock);
    pthread_mutex_unlock(&a->lock);
}

void ahci_reset(struct ahci *a)
{
    wait_idle(a);
    ioloop_call(a->cfg.loop, power_on, a);
    intx_update(a);
}

/* ---- making it ---- */
static void config_written(struct pci_func *f, unsigned off, unsigned size)
{
    struct ahci *a = f->dev;
    ioloop_ring(a->cfg.loop, &a->bell);
}

static const struct pci_func_ops func_ops = {.config_written = config_written};

static int describe(struct ahci *a, struct err *e)
{
    struct pci_func *f = &a->func;
    const struct pci_bar abar = {
        .kind = PCI_BAR_MEM32, .size = ABAR_SIZE, .ops = &ahci_bar_ops, .dev = a, .name = "ahci"};
    const struct pci_bar index = {
        .kind = PCI_BAR_IO, .size = INDEX_SIZE, .ops = &ahci_index_ops, .dev = a, .name = "ahci index"};
    pci_func_setup(f, a->cfg.devfn, ICH9_VENDOR, ICH9_AHCI, SATA_CLASS, ICH9_REVISION);
    f->ops = &func_ops;
    f->dev = a;
    f->name = "ich9-ahci";
    pci_func_subsystem(f, 0x1af4, 0x1100);
    pci_func_intx(f, 1);
    pci_func_bar(f, INDEX_BAR, &index);
    pci_func_bar(f, ABAR, &abar);
    int rc = pci_func_add_msi(f, 1, e);
    if (rc)
        return rc;
    f->next_cap = CAP_SATA_AT;
    unsigned sata = pci_func_add_cap(f, CAP_SATA, 8);
    f->config[sata + 2] = 0x10; /* revision 1.0 */
    f->config[sata + 4] = 0x48; /* the index-data pair: BAR 4, offset 10h */
    f->config[ICH9_MAP] = 0x40; /* AHCI */
    f->config[ICH9_PCS] = f->wmask[ICH9_PCS] = (1u << AHCI_PORTS) - 1;
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        f->config[ICH9_PCS + 1] |= (uint8_t)((a->cfg.disk[i].block != NULL) << i);
    return 0;
}

static int port_setup(struct ahci *a, unsigned n, struct err *e)
{
    const struct ahci_disk *disk = &a->cfg.disk[n];
    struct ahci_port *p = &a->port[n];
    if (!disk->block)
        return 0;
    if (block_loop(disk->block) != a->cfg.loop)
        return err_set(e, -EINVAL, "ahci port %u: its image is served by another thread than the controller", n);
    p->slots = calloc(AHCI_SLOTS, sizeof *p->slots);
    p->iovs = calloc(AHCI_SLOTS * AHCI_IOVS, sizeof *p->iovs);
    p->scratch = malloc(AHCI_SCRATCH_LEN);
    if (!p->slots || !p->iovs || !p->scratch)
        return err_set(e, -ENOMEM, "no memory for AHCI port %u", n);
    for (unsigned i = 0; i < AHCI_SLOTS; i++) {
        p->slots[i].port = p;
        p->slots[i].iov = p->iovs + i * AHCI_IOVS;
    }
    p->block = disk->block;
    p->ata = (struct ata_config){.sectors = block_size(p->block) / BLOCK_SECTOR,
                                 .physical = block_physical_sector(p->block),
                                 .discard = block_can_discard(p->block)};
    snprintf(p->ata.model, sizeof p->ata.model, "%s", disk->model ? disk->model : "Hecaton disk");
    if (disk->serial)
        snprintf(p->ata.serial, sizeof p->ata.serial, "%s", disk->serial);
    else
        snprintf(p->ata.serial, sizeof p->ata.serial, "HEC%05u", n + 1);
    return 0;
}

static void dismantle(struct ahci *a)
{
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        free(a->port[i].slots);
        free(a->port[i].iovs);
        free(a->port[i].scratch);
    }
    pci_func_fini(&a->func);
    pthread_cond_destroy(&a->idle_cond);
    pthread_mutex_destroy(&a->lock);
    pthread_mutex_destroy(&a->intx_lock);
    pthread_mutex_destroy(&a->work);
    free(a);
}

static int build(struct ahci *a, struct err *e)
{
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        a->port[i].hba = a;
        a->port[i].n = i;
        ioloop_bell_init(&a->port[i].bell, ahci_port_run, &a->port[i]);
        int rc = port_setup(a, i, e);
        if (rc)
            return rc;
    }
    ioloop_bell_init(&a->bell, ahci_hba_run, a);
    power_on(a);
    int rc = describe(a, e);
    return rc ? rc : pci_host_add(a->cfg.host, a->cfg.bus, &a->func, e);
}

int ahci_create(const struct ahci_config *c, struct ahci **out, struct err *e)
{
    struct ahci *a = calloc(1, sizeof *a);
    if (!a)
        return err_set(e, -ENOMEM, "no memory for the AHCI controller");
    a->cfg = *c;
    pthread_mutex_init(&a->intx_lock, NULL);
    pthread_mutex_init(&a->work, NULL);
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->idle_cond, NULL);
    int rc = build(a, e);
    if (rc) {
        dismantle(a);
        return rc;
    }
    *out = a;
    return 0;
}

void ahci_destroy(struct ahci *a)
{
    if (!a)
        return;
    wait_idle(a);
    ioloop_call(a->cfg.loop, forget_bells, a);
    dismantle(a);
}
