/* One command. AHCI 1.3.1, 4 "System Memory Structures"; 5.3 "HBA Port State Machine"; 6 "Error Reporting and
 * Recovery". */
#include "dev/ahci_priv.h"

#include <errno.h>

enum { FIS_H2D = 0x27, FIS_D2H = 0x34, FIS_DMA_SETUP = 0x41, FIS_PIO_SETUP = 0x5f, FIS_SET_BITS = 0xa1 };
enum { FIS_I = 0x40, FIS_D = 0x20, FIS_C = 0x80, CONTROL_SRST = 0x04 };
enum { TABLE_PRDT = 0x80, PRD_INTERRUPT = 0x80000000u };

static struct pci_func *func_of(struct ahci_slot *s)
{
    return &s->port->hba->func;
}

static bool bad_pointer(struct ahci_port *p)
{
    ahci_port_fatal(p, IS_HBFS, SERR_E);
    return false;
}

/* ---- FISes to the host. Serial ATA 3.1, 10.3 "FIS types" ---- */
static bool receive(struct ahci_port *p, unsigned off, const uint8_t *fis, unsigned len)
{
    uint64_t at = (uint64_t)atomic_load(&p->fbu) << 32 | atomic_load(&p->fb);
    if (!(atomic_load(&p->state) & CMD_FR))
        return true;
    return pci_dma_write(&p->hba->func, at + off, fis, len) || bad_pointer(p);
}

static void put_regs(uint8_t *fis, const struct ata_cmd *c)
{
    for (unsigned i = 0; i < 3; i++) {
        fis[4 + i] = (uint8_t)(c->in.lba >> 8 * i);
        fis[8 + i] = (uint8_t)(c->in.lba >> (24 + 8 * i));
    }
    fis[7] = c->in.device;
    st16(fis + 12, c->in.count);
}

bool ahci_fis_d2h(struct ahci_port *p, const struct ata_cmd *c, bool interrupt)
{
    uint8_t fis[20] = {FIS_D2H, interrupt ? FIS_I : 0, c->status, c->error};
    put_regs(fis, c);
    return receive(p, RFIS_D2H, fis, sizeof fis);
}

/* One FIS for the whole transfer, which is what a driver can see of it: at its end if data comes from the disk, at its
 * start otherwise. */
bool ahci_fis_pio_setup(struct ahci_slot *s, bool in)
{
    const struct ata_cmd *c = &s->cmd;
    unsigned drq = c->drq ? c->drq : 1, last = c->sectors ? (c->sectors - 1) % drq + 1 : c->len / ATA_SECTOR;
    unsigned first = c->sectors ? (unsigned)min_u64(c->sectors, drq) : last;
    uint8_t fis[20] = {FIS_PIO_SETUP, in ? FIS_I | FIS_D : 0, ATA_READY | ATA_DRQ};
    put_regs(fis, c);
    fis[15] = in ? c->status : ATA_READY | ATA_BSY;
    st16(fis + 16, (uint16_t)((in ? last : first) * ATA_SECTOR));
    return receive(s->port, RFIS_PIO_SETUP, fis, sizeof fis);
}

bool ahci_fis_set_bits(struct ahci_port *p, uint8_t status, uint8_t error, uint32_t done)
{
    uint8_t fis[8] = {FIS_SET_BITS, FIS_I, status & 0x77, error};
    st32(fis + 4, done);
    return receive(p, RFIS_SDB, fis, sizeof fis);
}

static bool dma_setup(struct ahci_slot *s)
{
    uint8_t fis[28] = {FIS_DMA_SETUP, s->cmd.protocol == ATA_NCQ_IN ? FIS_D : 0};
    fis[4] = s->cmd.tag;
    st32(fis + 20, s->cmd.sectors * ATA_SECTOR);
    return receive(s->port, RFIS_DMA_SETUP, fis, sizeof fis);
}

/* ---- the PRD table. 4.2.3.3 "Physical Region Descriptor Table (PRDT)" ---- */
enum prd_answer { PRD_OK, PRD_SHORT, PRD_FAULT };

static bool prd_load(struct ahci_slot *s, uint32_t i)
{
    uint32_t n = s->header >> HDR_PRDTL_SHIFT;
    if (i - s->batch_at < s->batch_n)
        return true;
    s->batch_at = i;
    s->batch_n = (uint32_t)min_u64(n - i, AHCI_PRD_BATCH);
    if (pci_dma_read(func_of(s), s->table + TABLE_PRDT + 16 * (uint64_t)i, s->batch, 16 * (uint64_t)s->batch_n))
        return true;
    s->batch_n = 0;
    return false;
}

/* The next piece of memory, if the last is used up. Addresses and lengths are even, as the table's format has it. */
static enum prd_answer prd_next(struct ahci_slot *s)
{
    if (s->prd.left)
        return PRD_OK;
    uint32_t i = s->prd.next;
    if (i == s->header >> HDR_PRDTL_SHIFT)
        return PRD_SHORT;
    if (!prd_load(s, i))
        return PRD_FAULT;
    const uint8_t *e = s->batch + 16 * (i - s->batch_at);
    uint32_t flags = ld32(e + 12);
    s->prd = (struct ahci_prd){.next = i + 1,
                               .left = (flags & 0x3fffff) + 1 + !(flags & 1),
                               .addr = ld64(e) & ~UINT64_C(1),
                               .interrupt = flags & PRD_INTERRUPT};
    return PRD_OK;
}

static void prd_advance(struct ahci_slot *s, uint64_t n)
{
    s->prd.addr += n;
    s->prd.left -= (uint32_t)n;
    if (!s->prd.left && s->prd.interrupt)
        s->descriptor = true;
}

static bool iov_add(struct ahci_slot *s, void *hva, uint64_t len)
{
    struct iovec *last = s->req.iovs ? &s->iov[s->req.iovs - 1] : NULL;
    if (last && (uint8_t *)last->iov_base + last->iov_len == hva) {
        last->iov_len += len;
        return true;
    }
    if (s->req.iovs == AHCI_IOVS)
        return false;
    s->iov[s->req.iovs++] = (struct iovec){hva, len};
    return true;
}

/* Up to `want` bytes of the table from where it stands, as s->iov; how many, in s->chunk. */
static enum prd_answer gather(struct ahci_slot *s, uint32_t want, bool to_host)
{
    s->req.iovs = 0;
    s->chunk = 0;
    while (s->chunk < want) {
        enum prd_answer answer = prd_next(s);
        if (answer != PRD_OK)
            return answer;
        uint64_t len = min_u64(s->prd.left, want - s->chunk);
        void *hva = pci_dma_map(func_of(s), s->prd.addr, &len, to_host);
        if (!hva)
            return PRD_FAULT;
        if (!iov_add(s, hva, len))
            return PRD_OK;
        prd_advance(s, len);
        s->chunk += (uint32_t)len;
    }
    return PRD_OK;
}

/* The same in whole sectors. A guest that changes the table meanwhile gets what a bad one gets. */
static enum prd_answer gather_sectors(struct ahci_slot *s, uint32_t want, bool to_host)
{
    struct ahci_prd start = s->prd;
    enum prd_answer answer = gather(s, want, to_host);
    uint32_t whole = s->chunk / ATA_SECTOR * ATA_SECTOR;
    if (answer == PRD_FAULT || whole == s->chunk)
        return answer;
    s->prd = start;
    answer = gather(s, whole, to_host);
    return s->chunk == whole ? answer : PRD_FAULT;
}

/* Bytes between the disk's buffer and the host. */
static enum prd_answer copy(struct ahci_slot *s, uint8_t *buf, uint32_t len, bool to_host)
{
    while (len) {
        enum prd_answer answer = prd_next(s);
        if (answer != PRD_OK)
            return answer;
        uint32_t n = (uint32_t)min_u64(s->prd.left, len);
        if (to_host ? !pci_dma_write(func_of(s), s->prd.addr, buf, n) : !pci_dma_read(func_of(s), s->prd.addr, buf, n))
            return PRD_FAULT;
        prd_advance(s, n);
        buf += n;
        len -= n;
        s->moved += n;
    }
    return PRD_OK;
}

/* ---- carrying it out ---- */
static void request_done(struct block_request *r, int result)
{
    struct ahci_slot *s = r->opaque;
    struct ahci_port *p = s->port;
    if (r->op == BLOCK_READ && s->cmd.op == ATA_OP_READ)
        for (unsigned i = 0; i < r->iovs; i++)
            pci_dma_stored(&p->hba->func, r->iov[i].iov_base, r->iov[i].iov_len);
    pthread_mutex_lock(&p->hba->work);
    s->result = result;
    p->finished |= 1u << ahci_slot_number(s);
    p->in_flight--;
    p->hba->in_flight--;
    pthread_mutex_unlock(&p->hba->work);
    ahci_quiet_check(p->hba);
    ioloop_ring(p->hba->cfg.loop, &p->bell);
}

static void submit(struct ahci_slot *s, enum block_op op, uint64_t lba, uint64_t len)
{
    s->req.op = op;
    s->req.flags = s->cmd.fua ? BLOCK_FUA : 0;
    s->req.offset = lba * ATA_SECTOR;
    s->req.len = len;
    s->req.iov = s->iov;
    s->req.done = request_done;
    s->req.opaque = s;
    s->port->in_flight++;
    s->port->hba->in_flight++;
    s->port->submitted = true;
    block_submit(s->port->block, &s->req);
}

/* The table ends before the command does. 6.1.5 "Command List Overflow": a read goes on without it; a write waits for
 * data that never comes. */
static void overflow(struct ahci_slot *s, bool to_host)
{
    if (!to_host) {
        ahci_port_fatal(s->port, IS_OFS, 0);
        return;
    }
    ahci_port_raise(s->port, IS_OFS);
    ahci_port_done(s->port, s);
}

static void go_on_rw(struct ahci_slot *s)
{
    bool in = s->cmd.op == ATA_OP_READ;
    uint32_t want = (uint32_t)min_u64((s->cmd.sectors - s->at) * UINT64_C(512), AHCI_CHUNK);
    if (!want) {
        ahci_port_done(s->port, s);
        return;
    }
    if (gather_sectors(s, want, in) == PRD_FAULT) {
        bad_pointer(s->port);
        return;
    }
    if (!s->chunk)
        overflow(s, in);
    else
        submit(s, in ? BLOCK_READ : BLOCK_WRITE, s->cmd.lba + s->at, s->chunk);
}

static void go_on_verify(struct ahci_slot *s)
{
    s->chunk = (uint32_t)min_u64((s->cmd.sectors - s->at) * UINT64_C(512), AHCI_SCRATCH_LEN);
    s->iov[0] = (struct iovec){s->port->scratch, s->chunk};
    s->req.iovs = 1;
    if (s->chunk)
        submit(s, BLOCK_READ, s->cmd.lba + s->at, s->chunk);
    else
        ahci_port_done(s->port, s);
}

static void go_on_trim(struct ahci_slot *s)
{
    uint32_t n = 0;
    uint64_t lba = 0;
    while (!n && s->at < s->cmd.len / 8)
        lba = ata_trim_range(&s->port->disk, s->at++, &n);
    s->chunk = s->req.iovs = 0;
    if (n)
        submit(s, BLOCK_DISCARD, lba, (uint64_t)n * ATA_SECTOR);
    else
        ahci_port_done(s->port, s);
}

static void begin_trim(struct ahci_slot *s)
{
    enum prd_answer answer = copy(s, s->port->disk.buf, s->cmd.len, false);
    if (answer == PRD_FAULT) {
        bad_pointer(s->port);
    } else if (answer == PRD_SHORT) {
        overflow(s, false);
    } else if (!ata_trim_valid(&s->port->disk, s->cmd.len)) {
        ata_end(&s->port->disk, &s->cmd, -EINVAL, 0);
        ahci_port_done(s->port, s);
    } else {
        go_on_trim(s);
    }
}

static void give_data(struct ahci_slot *s)
{
    enum prd_answer answer = copy(s, s->port->disk.buf, s->cmd.len, true);
    if (answer == PRD_FAULT)
        bad_pointer(s->port);
    else if (answer == PRD_SHORT)
        overflow(s, true);
    else
        ahci_port_done(s->port, s);
}

static void begin(struct ahci_slot *s)
{
    const struct ata_cmd *c = &s->cmd;
    if (c->op == ATA_OP_WRITE && c->protocol == ATA_PIO_OUT && !ahci_fis_pio_setup(s, false))
        return;
    switch ((enum ata_op)c->op) {
    case ATA_OP_READ:
    case ATA_OP_WRITE:
        if (!ata_queued(c) || dma_setup(s))
            go_on_rw(s);
        break;
    case ATA_OP_VERIFY:
        go_on_verify(s);
        break;
    case ATA_OP_TRIM:
        begin_trim(s);
        break;
    case ATA_OP_FLUSH:
        s->chunk = s->req.iovs = 0;
        submit(s, BLOCK_FLUSH, 0, 0);
        break;
    case ATA_OP_DATA:
        give_data(s);
        break;
    case ATA_OP_NONE:
        ahci_port_done(s->port, s);
        break;
    case ATA_OP_SLEEP:
        break;
    }
}

void ahci_cmd_continue(struct ahci_slot *s)
{
    struct ahci_port *p = s->port;
    if (s->result) {
        ata_end(&p->disk, &s->cmd, s->result, s->cmd.lba + s->at);
        ahci_port_done(p, s);
        return;
    }
    if (s->cmd.op == ATA_OP_READ || s->cmd.op == ATA_OP_WRITE || s->cmd.op == ATA_OP_VERIFY)
        s->at += s->chunk / ATA_SECTOR;
    if (s->cmd.op == ATA_OP_READ || s->cmd.op == ATA_OP_WRITE)
        s->moved += s->chunk;
    if (s->cmd.op == ATA_OP_FLUSH)
        ahci_port_done(p, s);
    else if (s->cmd.op == ATA_OP_TRIM)
        go_on_trim(s);
    else if (s->cmd.op == ATA_OP_VERIFY)
        go_on_verify(s);
    else
        go_on_rw(s);
}

/* ---- fetching it ---- */
static uint64_t header_at(const struct ahci_port *p, unsigned slot)
{
    return ((uint64_t)atomic_load(&p->clbu) << 32 | atomic_load(&p->clb)) + 32 * slot;
}

/* PRD byte count: what was transferred. 4.2.2 "Command List Structure" */
bool ahci_cmd_prdbc(struct ahci_slot *s)
{
    uint8_t n[4];
    st32(n, s->moved);
    return pci_dma_write(func_of(s), header_at(s->port, ahci_slot_number(s)) + 4, n, sizeof n) || bad_pointer(s->port);
}

static bool fetch(struct ahci_slot *s, uint8_t fis[20])
{
    struct ahci_port *p = s->port;
    uint8_t header[16];
    if (!pci_dma_read(func_of(s), header_at(p, ahci_slot_number(s)), header, sizeof header))
        return bad_pointer(p);
    s->header = ld32(header);
    s->table = ld64(header + 8) & ~UINT64_C(0x7f);
    if (!pci_dma_read(func_of(s), s->table, fis, 20))
        return bad_pointer(p);
    if ((s->header & HDR_CFL) < 5 || (s->header & HDR_CFL) > 16 || fis[0] != FIS_H2D) {
        ahci_port_fatal(p, IS_IFS, SERR_H | SERR_P); /* the disk doesn't take it */
        return false;
    }
    return true;
}

static void decode(struct ata_cmd *c, const uint8_t *fis)
{
    c->in = (struct ata_regs){.command = fis[2],
                              .device = fis[7],
                              .feature = (uint16_t)(fis[3] | fis[11] << 8),
                              .count = ld16(fis + 12),
                              .lba = fis[4] | (uint64_t)fis[5] << 8 | (uint64_t)fis[6] << 16 |
                                     (uint64_t)ld16(fis + 8) << 24 | (uint64_t)fis[10] << 40};
}

/* Device control: of its bits only SRST means anything. The HBA is told by the header's C bit that no answer comes. */
static void control(struct ahci_slot *s, uint8_t device_control)
{
    struct ahci_port *p = s->port;
    bool srst = device_control & CONTROL_SRST;
    p->soft_reset = p->soft_reset || (p->srst && !srst);
    p->srst = srst;
    ioloop_ring(p->hba->cfg.loop, &p->bell);
    if (s->header & HDR_C) {
        atomic_fetch_and(&p->ci, ~(1u << ahci_slot_number(s)));
    } else {
        p->busy = (int)ahci_slot_number(s);
        ahci_port_status(p, ATA_BSY | ATA_READY, 0);
    }
}

/* The disk takes it, and clears BSY for the next. */
static bool accept_queued(struct ahci_slot *s)
{
    struct ahci_port *p = s->port;
    struct ata_cmd taken = {.in = s->cmd.in, .status = ATA_READY};
    uint32_t bit = 1u << ahci_slot_number(s);
    if (!ahci_fis_d2h(p, &taken, false))
        return false;
    atomic_fetch_and(&p->ci, ~bit);
    ahci_port_status(p, ATA_READY, 0);
    if (s->cmd.tag != ahci_slot_number(s) && s->cmd.op != ATA_OP_NONE) { /* its data would be another command's */
        s->cmd.op = ATA_OP_NONE;
        s->cmd.status = ATA_READY | ATA_ERR;
        s->cmd.error = ATA_ABRT;
    }
    p->queued |= bit;
    return true;
}

static void start(struct ahci_slot *s)
{
    struct ahci_port *p = s->port;
    bool queued = ata_queued(&s->cmd);
    if (!queued && p->queued) {
        s->cmd.status = ATA_READY;
        ahci_queue_broke(p, s, false);
        return;
    }
    ata_begin(&p->disk, &s->cmd);
    if (queued && !accept_queued(s))
        return;
    s->active = true;
    if (!queued) {
        p->busy = (int)ahci_slot_number(s);
        ahci_port_status(p, ATA_BSY | ATA_READY, 0);
    }
    begin(s);
}

void ahci_cmd_start(struct ahci_port *p, unsigned slot)
{
    struct ahci_slot *s = &p->slots[slot];
    uint8_t fis[20];
    if (s->active) { /* a queued command with a tag that is in use */
        atomic_fetch_and(&p->ci, ~(1u << slot));
        ahci_queue_broke(p, s, true);
        return;
    }
    if (!fetch(s, fis))
        return;
    s->prd = (struct ahci_prd){0};
    s->at = s->moved = s->chunk = s->batch_n = 0;
    s->descriptor = false;
    if (!(fis[1] & FIS_C)) {
        control(s, fis[15]);
        return;
    }
    decode(&s->cmd, fis);
    if (p->srst || p->soft_reset) { /* a disk that is being reset takes no commands */
        p->busy = (int)slot;
        ahci_port_status(p, ATA_BSY | ATA_READY, 0);
        return;
    }
    start(s);
}
