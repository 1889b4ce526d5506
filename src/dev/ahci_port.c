/* Ports, on the loop's thread. AHCI 1.3.1, 5.3 "HBA Port State Machine"; 6.2 "Error Recovery"; 10.4 "Reset". */
#include "dev/ahci_priv.h"

static bool running(const struct ahci_port *p)
{
    return atomic_load(&p->state) & CMD_CR;
}

/* Whether what the disk answers still goes to a command. */
static bool live(const struct ahci_port *p)
{
    return running(p) && !p->halted && !p->srst && !p->soft_reset && !ahci_asked(&p->stop) && !ahci_asked(&p->comreset);
}

static void state_change(struct ahci_port *p, uint32_t clear, uint32_t set)
{
    atomic_store(&p->state, (atomic_load(&p->state) & ~clear) | set);
}

void ahci_port_status(struct ahci_port *p, uint8_t status, uint8_t error)
{
    atomic_store(&p->tfd, (uint32_t)error << 8 | status);
}

void ahci_port_raise(struct ahci_port *p, uint32_t is)
{
    atomic_fetch_or(&p->is, is);
    p->interrupt = true;
}

void ahci_port_fatal(struct ahci_port *p, uint32_t is, uint32_t serr)
{
    trace(p->hba->cfg.trace, TRACE_DEV, "ahci: port %u: error, PxIS %08x PxSERR %08x", p->n, is, serr);
    atomic_fetch_or(&p->serr, serr);
    ahci_port_raise(p, is);
    p->halted = true;
}

/* Forget the commands. Nothing is in flight. */
static void drop(struct ahci_port *p)
{
    for (unsigned i = 0; p->slots && i < AHCI_SLOTS; i++)
        p->slots[i].active = false;
    p->finished = p->queued = p->succeeded = 0;
    p->busy = -1;
    p->failing = false;
}

/* ---- the disk after a reset ---- */
static void send_signature(struct ahci_port *p)
{
    static const struct ata_cmd disk = {.in = {.lba = 1, .count = 1}, .status = ATA_READY, .error = 1};
    p->signature = false;
    ahci_fis_d2h(p, &disk, false);
}

static void disk_reset(struct ahci_port *p)
{
    ata_reset(&p->disk);
    p->disk.speed = (uint8_t)ahci_port_speed(p);
    ahci_port_status(p, ATA_READY, 1);
    atomic_store(&p->sig, ATA_SIGNATURE);
    p->signature = true;
    if (atomic_load(&p->state) & CMD_FR)
        send_signature(p);
}

static void link_up(struct ahci_port *p)
{
    p->srst = p->soft_reset = false;
    if (!p->block) {
        ahci_port_status(p, 0x7f, 0);
        atomic_store(&p->sig, UINT32_MAX);
        return;
    }
    atomic_fetch_or(&p->serr, SERR_X | SERR_N);
    p->interrupt = true;
    disk_reset(p);
}

void ahci_port_reset(struct ahci_port *p, bool power_on)
{
    if (power_on) {
        atomic_store(&p->clb, 0), atomic_store(&p->clbu, 0);
        atomic_store(&p->fb, 0), atomic_store(&p->fbu, 0);
        ata_power_on(&p->disk, &p->ata);
    }
    struct ahci_ask *asks[] = {&p->stop, &p->fis_off, &p->comreset, &p->clo};
    for (unsigned i = 0; i < ARRAY_SIZE(asks); i++)
        atomic_store(&asks[i]->served, atomic_load(&asks[i]->asked));
    _Atomic uint32_t *regs[] = {&p->ie, &p->cmd, &p->sctl, &p->is, &p->serr, &p->sact, &p->ci, &p->state};
    for (unsigned i = 0; i < ARRAY_SIZE(regs); i++)
        atomic_store(regs[i], 0);
    drop(p);
    p->halted = p->interrupt = p->submitted = false;
    p->last = AHCI_SLOTS - 1;
    link_up(p);
}

/* ---- what vCPUs asked for ---- */
static void serve_fis(struct ahci_port *p)
{
    uint32_t asked = atomic_load(&p->fis_off.asked);
    state_change(p, CMD_FR, atomic_load(&p->cmd) & CMD_FRE ? CMD_FR : 0);
    atomic_store(&p->fis_off.served, asked);
    if (p->signature && atomic_load(&p->state) & CMD_FR)
        send_signature(p);
}

/* 10.3.2 "Stop": PxCMD.CR stays until nothing writes to the commands' memory. */
static void serve_stop(struct ahci_port *p)
{
    uint32_t asked = atomic_load(&p->stop.asked);
    if (!ahci_asked(&p->stop) || p->in_flight)
        return;
    drop(p);
    atomic_store(&p->ci, 0);
    atomic_store(&p->sact, 0);
    state_change(p, CMD_CR | 0x1fu << CMD_CCS_SHIFT, 0);
    p->halted = false;
    p->last = AHCI_SLOTS - 1;
    atomic_store(&p->stop.served, asked);
}

/* Command list override: for a port that is stopped. */
static void serve_clo(struct ahci_port *p)
{
    uint32_t asked = atomic_load(&p->clo.asked);
    if (!ahci_asked(&p->clo))
        return;
    if (p->block && !running(p) && !ahci_asked(&p->stop))
        atomic_fetch_and(&p->tfd, ~(uint32_t)(ATA_BSY | ATA_DRQ));
    atomic_store(&p->clo.served, asked);
}

/* 10.4.2 "Port Reset": the link is up at once, the disk is busy until nothing is in flight. */
static void serve_comreset(struct ahci_port *p)
{
    uint32_t asked = atomic_load(&p->comreset.asked);
    if (!ahci_asked(&p->comreset) || p->in_flight || atomic_load(&p->sctl) & 0xf)
        return;
    trace(p->hba->cfg.trace, TRACE_DEV, "ahci: port %u: COMRESET", p->n);
    drop(p);
    p->halted = running(p); /* it should have been stopped before */
    link_up(p);
    atomic_store(&p->comreset.served, asked);
}

/* The command that lowered SRST, unless its header said that no answer comes, is answered by the signature. */
static void serve_soft_reset(struct ahci_port *p)
{
    int slot = p->busy;
    if (!p->soft_reset || p->in_flight)
        return;
    p->soft_reset = false;
    drop(p);
    disk_reset(p);
    if (slot >= 0)
        atomic_fetch_and(&p->ci, ~(1u << slot));
}

static void serve_start(struct ahci_port *p)
{
    if (running(p) || !(atomic_load(&p->cmd) & CMD_ST) || ahci_asked(&p->stop) || ahci_asked(&p->comreset))
        return;
    if (!p->block || atomic_load(&p->sctl) & 0xf || atomic_load(&p->tfd) & (ATA_BSY | ATA_DRQ))
        return;
    p->halted = false;
    state_change(p, 0, CMD_CR);
}

/* ---- commands ---- */
static void reap(struct ahci_port *p)
{
    while (p->finished) {
        unsigned slot = (unsigned)__builtin_ctz(p->finished);
        struct ahci_slot *s = &p->slots[slot];
        p->finished &= p->finished - 1;
        if (live(p)) {
            ahci_cmd_continue(s);
            continue;
        }
        s->active = false;
        p->queued &= ~(1u << slot);
    }
}

static bool may_issue(const struct ahci_port *p)
{
    return running(p) && !p->halted && !p->failing && p->busy < 0 && !ahci_asked(&p->stop) &&
           !ahci_asked(&p->comreset) && !(atomic_load(&p->tfd) & (ATA_BSY | ATA_DRQ));
}

/* The next after the one that was issued last, so that each gets its turn. No more than a list's worth at a time: there
 * are other devices. */
static void issue(struct ahci_port *p)
{
    uint32_t ci;
    for (unsigned n = 0; may_issue(p) && (ci = atomic_load(&p->ci)); n++) {
        if (n == AHCI_SLOTS) {
            ioloop_ring(p->hba->cfg.loop, &p->bell);
            return;
        }
        uint32_t after = p->last == AHCI_SLOTS - 1 ? 0 : ci & ~UINT32_C(0) << (p->last + 1);
        p->last = (unsigned)__builtin_ctz(after ? after : ci);
        state_change(p, 0x1fu << CMD_CCS_SHIFT, p->last << CMD_CCS_SHIFT);
        ahci_cmd_start(p, p->last);
    }
}

static void answer(struct ahci_port *p, struct ahci_slot *s)
{
    const struct ata_cmd *c = &s->cmd;
    bool failed = c->status & ATA_ERR, pio_in = c->protocol == ATA_PIO_IN && !failed;
    if (s->moved && !ahci_cmd_prdbc(s))
        return;
    if (pio_in ? !ahci_fis_pio_setup(s, true) : !ahci_fis_d2h(p, c, true))
        return;
    ahci_port_status(p, c->status, c->error);
    s->active = false;
    p->busy = -1;
    if (failed)
        p->halted = true;
    else
        atomic_fetch_and(&p->ci, ~(1u << ahci_slot_number(s)));
    ahci_port_raise(p, (pio_in ? IS_PSS : IS_DHRS) | (failed ? IS_TFES : 0));
}

void ahci_port_done(struct ahci_port *p, struct ahci_slot *s)
{
    unsigned slot = ahci_slot_number(s);
    uint32_t bit = 1u << slot;
    if (s->descriptor)
        ahci_port_raise(p, IS_DPS);
    if (!(p->queued & bit)) {
        answer(p, s);
        return;
    }
    p->queued &= ~bit;
    s->active = false;
    if (s->cmd.status & ATA_ERR)
        ahci_queue_broke(p, s, true);
    else if (!p->failing || p->fail_slot != slot)
        p->succeeded |= bit;
}

/* ---- the queue's answers ---- */
void ahci_queue_broke(struct ahci_port *p, struct ahci_slot *s, bool queued)
{
    if (p->failing)
        return;
    p->failing = true;
    p->fail_queued = queued;
    p->fail_slot = ahci_slot_number(s);
    p->fail = s->cmd;
    if (!(p->fail.status & ATA_ERR)) {
        p->fail.status = ATA_READY | ATA_ERR;
        p->fail.error = ATA_ABRT;
    }
}

static void tell_succeeded(struct ahci_port *p)
{
    uint32_t done = p->succeeded;
    p->succeeded = 0;
    if (!done || !ahci_fis_set_bits(p, ATA_READY, 0, done))
        return;
    atomic_fetch_and(&p->sact, ~done);
    ahci_port_raise(p, IS_SDBS);
}

static void tell_failed(struct ahci_port *p)
{
    const struct ata_cmd *c = &p->fail;
    p->failing = false;
    ata_queue_fail(&p->disk, c, p->fail_queued);
    if (p->fail_queued ? !ahci_fis_set_bits(p, c->status, c->error, 0) : !ahci_fis_d2h(p, c, true))
        return;
    ahci_port_status(p, c->status, c->error);
    p->halted = true;
    ahci_port_raise(p, IS_TFES | (p->fail_queued ? IS_SDBS : IS_DHRS));
}

/* One FIS and one interrupt for all that have ended. A failure waits for the others: when it is told, the disk works on
 * none of them any more, and those that succeeded need no second try. */
static void tell_queue(struct ahci_port *p)
{
    if (!live(p) || (p->failing && (p->in_flight || p->finished)))
        return;
    tell_succeeded(p);
    if (p->failing && !p->halted)
        tell_failed(p);
}

static void run(struct ahci_port *p)
{
    if (p->hba->quiet)
        return;
    if (ahci_asked(&p->hba->reset)) {
        ahci_hba_try_reset(p->hba);
        return;
    }
    serve_fis(p);
    serve_stop(p);
    serve_clo(p);
    serve_comreset(p);
    reap(p);
    serve_soft_reset(p);
    serve_start(p);
    issue(p);
    tell_queue(p);
    if (p->submitted) {
        p->submitted = false;
        block_kick(p->block);
    }
    if (p->interrupt) {
        p->interrupt = false;
        ahci_port_interrupt(p);
    }
}

void ahci_port_run(void *port)
{
    struct ahci_port *p = port;
    pthread_mutex_lock(&p->hba->work);
    run(p);
    pthread_mutex_unlock(&p->hba->work);
}
