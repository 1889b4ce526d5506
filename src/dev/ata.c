#include "dev/ata.h"

#include "base/bits.h"

#include <errno.h>

enum { MULTIPLE_MAX = 16, LOG_DIRECTORY = 0x00, LOG_NCQ = 0x10, LOG_IDENTIFY = 0x30, IDENTIFY_PAGES = 2 };
enum { POWER_STANDBY = 0x00, POWER_IDLE = 0x80, POWER_ACTIVE = 0xff };
enum { DEVICE_LBA = 0x40, DEVICE_FUA = 0x80, TRANSFER_UDMA = 0x40, TRANSFER_MWDMA = 0x20 };

#define LBA28_SECTORS UINT64_C(0x0fffffff)
#define LBA48_SECTORS UINT64_C(0x0000ffffffffffff)
#define TRIM_RANGES   (ATA_BUF_LEN / 8)

static uint64_t capacity(const struct ata_disk *d)
{
    return min_u64(d->cfg.sectors, LBA48_SECTORS);
}

static void refuse(struct ata_cmd *c, uint8_t error)
{
    c->op = ATA_OP_NONE;
    c->status = ATA_READY | ATA_ERR;
    c->error = error;
}

/* ---- IDENTIFY DEVICE. ACS-3, 7.12.7 "Input From the Device to the Host" ---- */
static void put_string(uint8_t *words, const char *s, unsigned chars)
{
    memset(words, ' ', chars);
    for (unsigned i = 0; i < chars && s[i]; i++)
        words[i ^ 1] = (uint8_t)s[i];
}

static void word(uint8_t *id, unsigned at, unsigned val)
{
    st16(id + 2 * at, (uint16_t)val);
}

/* The modes of before Serial ATA, which nothing uses, but which drivers look at. */
static void identify_modes(const struct ata_disk *d, uint8_t *id)
{
    unsigned mode = d->transfer_mode;
    word(id, 49, 0x2f00); /* LBA, DMA, IORDY, standby timer */
    word(id, 50, 0x4000);
    word(id, 51, 0x0200);
    word(id, 53, 0x0006); /* words 64-70 and 88 are valid */
    word(id, 63, 0x0007 | (mode >= TRANSFER_MWDMA && mode < TRANSFER_UDMA ? 0x100u << (mode & 7) : 0));
    word(id, 64, 0x0003);
    for (unsigned w = 65; w <= 68; w++)
        word(id, w, 120); /* ns */
    word(id, 88, 0x007f | (mode >= TRANSFER_UDMA ? 0x100u << (mode & 7) : 0));
}

static void identify_size(const struct ata_disk *d, uint8_t *id)
{
    uint64_t n = capacity(d), cylinders = min_u64(n / (16 * 63), 16383);
    unsigned exponent = 0;
    while (exponent < 3 && ATA_SECTOR << exponent < d->cfg.physical)
        exponent++;
    word(id, 1, (unsigned)cylinders);
    word(id, 3, 16);
    word(id, 6, 63);
    st32(id + 2 * 60, (uint32_t)min_u64(n, LBA28_SECTORS));
    st64(id + 2 * 100, n);
    word(id, 106, 0x4000 | (exponent ? 0x2000 | exponent : 0));
    word(id, 209, 0x4000);
}

static void identify_features(const struct ata_disk *d, uint8_t *id)
{
    word(id, 47, 0x8000 | MULTIPLE_MAX);
    word(id, 48, 0x4000);
    word(id, 59, d->multiple ? 0x100u | d->multiple : 0);
    word(id, 75, ATA_QUEUE - 1);
    word(id, 76, 0x010e); /* three speeds, NCQ */
    word(id, 77, d->speed * 2u);
    word(id, 78, 0x0040); /* software settings preservation */
    word(id, 79, 0x0040); /* which is on */
    word(id, 80, 0x07f0); /* up to ACS-3 */
    word(id, 82, 0x4068); /* NOP, look-ahead, write cache, power management */
    word(id, 83, 0x7400); /* FLUSH CACHE (EXT), 48 bits */
    word(id, 84, 0x4060); /* WRITE DMA FUA EXT, general purpose logging */
    word(id, 85, 0x4008u | d->write_cache * 0x20u | d->look_ahead * 0x40u);
    word(id, 86, 0xb400);
    word(id, 87, 0x4060);
    word(id, 119, 0x4008); /* READ LOG DMA EXT */
    word(id, 120, 0x4008);
    if (d->cfg.discard) {
        word(id, 105, ATA_BUF_LEN / ATA_SECTOR);
        word(id, 169, 1);
    }
    word(id, 217, 1); /* does not rotate */
    word(id, 222, 0x10ff);
}

static void identify(const struct ata_disk *d, uint8_t *id)
{
    uint8_t sum = 0;
    memset(id, 0, ATA_SECTOR);
    word(id, 0, 0x0040);
    word(id, 2, 0xc837); /* complete without spinning up */
    put_string(id + 2 * 10, d->cfg.serial, 20);
    put_string(id + 2 * 23, "1.0", 8);
    put_string(id + 2 * 27, d->cfg.model, 40);
    identify_modes(d, id);
    identify_size(d, id);
    identify_features(d, id);
    id[510] = 0xa5;
    for (unsigned i = 0; i < 511; i++)
        sum = (uint8_t)(sum + id[i]);
    id[511] = (uint8_t)-sum;
}

/* ---- plans ---- */
static void plan_data(struct ata_cmd *c, enum ata_protocol protocol, uint32_t len)
{
    c->op = ATA_OP_DATA;
    c->protocol = (uint8_t)protocol;
    c->len = len;
}

static void plan_identify(struct ata_disk *d, struct ata_cmd *c, unsigned how)
{
    identify(d, d->buf);
    plan_data(c, ATA_PIO_IN, ATA_SECTOR);
}

/* 9.x of ACS-3, "General Purpose log directory"; "IDENTIFY DEVICE data log"; Serial ATA 3.1, 13.7.4 "Queued Error Log".
 */
static unsigned log_pages(unsigned log)
{
    return log == LOG_DIRECTORY || log == LOG_NCQ ? 1 : log == LOG_IDENTIFY ? IDENTIFY_PAGES : 0;
}

static void log_page(struct ata_disk *d, unsigned log, unsigned page, uint8_t *to)
{
    memset(to, 0, ATA_SECTOR);
    if (log == LOG_NCQ) {
        memcpy(to, d->ncq_log, ATA_SECTOR);
        d->queue_failed = false;
    } else if (log == LOG_DIRECTORY) {
        word(to, 0, 1);
        word(to, LOG_NCQ, log_pages(LOG_NCQ));
        word(to, LOG_IDENTIFY, log_pages(LOG_IDENTIFY));
    } else if (page == 1) {
        identify(d, to);
    } else {
        st64(to, 1); /* revision 1, page 0: the list of pages */
        to[8] = IDENTIFY_PAGES;
        to[10] = 1;
    }
}

static void plan_log(struct ata_disk *d, struct ata_cmd *c, unsigned how)
{
    unsigned log = c->in.lba & 0xff, page = bits(c->in.lba, 15, 8) | bits(c->in.lba, 39, 32) << 8, n = c->in.count;
    if (!n || page + n > log_pages(log)) {
        refuse(c, ATA_ABRT);
        return;
    }
    for (unsigned i = 0; i < n; i++)
        log_page(d, log, page + i, d->buf + i * ATA_SECTOR);
    plan_data(c, c->in.command == 0x47 ? ATA_DMA_IN : ATA_PIO_IN, n * ATA_SECTOR);
}

static void plan_trim(struct ata_disk *d, struct ata_cmd *c, unsigned how)
{
    if (!d->cfg.discard || !(c->in.feature & 1) || !c->in.count || c->in.count > ATA_BUF_LEN / ATA_SECTOR) {
        refuse(c, ATA_ABRT);
        return;
    }
    c->op = ATA_OP_TRIM;
    c->protocol = ATA_DMA_OUT;
    c->len = c->in.count * ATA_SECTOR;
}

static void plan_flush(struct ata_disk *d, struct ata_cmd *c, unsigned how)
{
    c->op = ATA_OP_FLUSH;
}

/* STANDBY and STANDBY IMMEDIATE write the cache back first. */
static void plan_standby(struct ata_disk *d, struct ata_cmd *c, unsigned how)
{
    d->power = POWER_STANDBY;
    c->op = ATA_OP_FLUSH;
}

static void plan_idle(struct ata_disk *d, struct ata_cmd *c, unsigned how)
{
    d->power = POWER_IDLE;
}

static void plan_check_power(struct ata_disk *d, struct ata_cmd *c, unsigned how)
{
    c->in.count = d->power;
}

static void plan_sleep(struct ata_disk *d, struct ata_cmd *c, unsigned how)
{
    c->op = ATA_OP_SLEEP;
}

static void plan_diagnostic(struct ata_disk *d, struct ata_cmd *c, unsigned how)
{
    c->in.lba = c->in.count = 1; /* the signature of a disk */
    c->in.device = 0;
    c->error = 1; /* passed */
}

static void plan_native_max(struct ata_disk *d, struct ata_cmd *c, unsigned how)
{
    bool ext = c->in.command == 0x27;
    uint64_t n = ext ? capacity(d) : min_u64(capacity(d), LBA28_SECTORS), last = n ? n - 1 : 0;
    c->in.lba = ext ? last : last & 0xffffff;
    if (!ext)
        c->in.device = (uint8_t)((c->in.device & 0xf0) | last >> 24);
}

static void plan_set_multiple(struct ata_disk *d, struct ata_cmd *c, unsigned how)
{
    unsigned n = c->in.count & 0xff;
    if (n > MULTIPLE_MAX || n & (n - 1))
        refuse(c, ATA_ABRT);
    else
        d->multiple = (uint8_t)n;
}

static void set_transfer_mode(struct ata_disk *d, struct ata_cmd *c)
{
    unsigned mode = c->in.count & 0xff, n = mode & 7;
    bool pio = mode <= 1 || (mode >= 8 && mode <= 0x0c);
    if (pio || ((mode & ~7u) == TRANSFER_MWDMA && n <= 2) || ((mode & ~7u) == TRANSFER_UDMA && n <= 6))
        d->transfer_mode = (uint8_t)mode;
    else
        refuse(c, ATA_ABRT);
}

/* ACS-3, 7.45 "SET FEATURES". */
static void plan_set_features(struct ata_disk *d, struct ata_cmd *c, unsigned how)
{
    switch (c->in.feature & 0xff) {
    case 0x02:
        d->write_cache = true;
        break;
    case 0x82: /* what is cached goes to the medium before the answer */
        d->write_cache = false;
        c->op = ATA_OP_FLUSH;
        break;
    case 0x03:
        set_transfer_mode(d, c);
        break;
    case 0x55:
    case 0xaa:
        d->look_ahead = (c->in.feature & 0xff) == 0xaa;
        break;
    case 0x66: /* keep the settings over a soft reset, which is what happens */
        break;
    default:
        refuse(c, ATA_ABRT);
    }
}

/* ---- reads, writes, verification ---- */
enum rw_flag { EXT = 1, OUT = 2, PIO = 4, MULTI = 8, FUA = 16, NCQ = 32, VERIFY = 64 };

static void rw_registers(struct ata_cmd *c, unsigned how)
{
    unsigned n = c->in.count;
    if (how & NCQ) {
        c->tag = (uint8_t)(c->in.count >> 3 & 31);
        c->fua = c->in.device & DEVICE_FUA;
        n = c->in.feature;
    } else {
        c->fua = how & FUA;
    }
    if (how & (EXT | NCQ)) {
        c->lba = c->in.lba;
        c->sectors = n ? n : 65536;
    } else {
        c->lba = (c->in.lba & 0xffffff) | (uint64_t)(c->in.device & 0x0f) << 24;
        c->sectors = n & 0xff ? n & 0xff : 256;
    }
}

static enum ata_protocol rw_protocol(unsigned how)
{
    unsigned out = how & OUT ? 1 : 0;
    if (how & VERIFY)
        return ATA_NODATA;
    return (how & NCQ ? ATA_NCQ_IN : how & PIO ? ATA_PIO_IN : ATA_DMA_IN) + out;
}

static void plan_rw(struct ata_disk *d, struct ata_cmd *c, unsigned how)
{
    c->drq = how & MULTI ? d->multiple : 1;
    d->power = POWER_ACTIVE;
    if (!(c->in.device & DEVICE_LBA) || !c->drq) {
        refuse(c, ATA_ABRT);
        return;
    }
    if (c->lba > capacity(d) || c->sectors > capacity(d) - c->lba) {
        refuse(c, ATA_IDNF);
        return;
    }
    c->op = how & VERIFY ? ATA_OP_VERIFY : how & OUT ? ATA_OP_WRITE : ATA_OP_READ;
    c->fua = how & OUT && (c->fua || !d->write_cache);
}

/* ---- the command set. ACS-3, 7 "Command descriptions" ---- */
struct command {
    void (*plan)(struct ata_disk *d, struct ata_cmd *c, unsigned how); /* NULL: there is none */
    uint8_t how;                                                       /* enum rw_flag, for plan_rw() */
};

#define RW(how)                                                                                                        \
    {                                                                                                                  \
        plan_rw, (how)                                                                                                 \
    }
#define PLAN(fn)                                                                                                       \
    {                                                                                                                  \
        (fn), 0                                                                                                        \
    }

static const struct command commands[256] = {
    [0x06] = PLAN(plan_trim), /* DATA SET MANAGEMENT */
    [0x20] = RW(PIO),         /* READ SECTOR(S) */
    [0x21] = RW(PIO),
    [0x24] = RW(PIO | EXT),         /* READ SECTOR(S) EXT */
    [0x25] = RW(EXT),               /* READ DMA EXT */
    [0x27] = PLAN(plan_native_max), /* READ NATIVE MAX ADDRESS EXT */
    [0x29] = RW(PIO | MULTI | EXT), /* READ MULTIPLE EXT */
    [0x2f] = PLAN(plan_log),        /* READ LOG EXT */
    [0x30] = RW(OUT | PIO),         /* WRITE SECTOR(S) */
    [0x31] = RW(OUT | PIO),
    [0x34] = RW(OUT | PIO | EXT),         /* WRITE SECTOR(S) EXT */
    [0x35] = RW(OUT | EXT),               /* WRITE DMA EXT */
    [0x39] = RW(OUT | PIO | MULTI | EXT), /* WRITE MULTIPLE EXT */
    [0x3d] = RW(OUT | EXT | FUA),         /* WRITE DMA FUA EXT */
    [0x40] = RW(VERIFY),                  /* READ VERIFY SECTOR(S) */
    [0x41] = RW(VERIFY),
    [0x42] = RW(VERIFY | EXT),        /* READ VERIFY SECTOR(S) EXT */
    [0x47] = PLAN(plan_log),          /* READ LOG DMA EXT */
    [0x60] = RW(NCQ),                 /* READ FPDMA QUEUED */
    [0x61] = RW(OUT | NCQ),           /* WRITE FPDMA QUEUED */
    [0x90] = PLAN(plan_diagnostic),   /* EXECUTE DEVICE DIAGNOSTIC */
    [0xc4] = RW(PIO | MULTI),         /* READ MULTIPLE */
    [0xc5] = RW(OUT | PIO | MULTI),   /* WRITE MULTIPLE */
    [0xc6] = PLAN(plan_set_multiple), /* SET MULTIPLE MODE */
    [0xc8] = RW(0),                   /* READ DMA */
    [0xc9] = RW(0),
    [0xca] = RW(OUT), /* WRITE DMA */
    [0xcb] = RW(OUT),
    [0xce] = RW(OUT | PIO | MULTI | EXT | FUA), /* WRITE MULTIPLE FUA EXT */
    [0xe0] = PLAN(plan_standby),                /* STANDBY IMMEDIATE */
    [0xe1] = PLAN(plan_idle),                   /* IDLE IMMEDIATE */
    [0xe2] = PLAN(plan_standby),                /* STANDBY */
    [0xe3] = PLAN(plan_idle),                   /* IDLE */
    [0xe5] = PLAN(plan_check_power),            /* CHECK POWER MODE */
    [0xe6] = PLAN(plan_sleep),                  /* SLEEP */
    [0xe7] = PLAN(plan_flush),                  /* FLUSH CACHE */
    [0xea] = PLAN(plan_flush),                  /* FLUSH CACHE EXT */
    [0xec] = PLAN(plan_identify),               /* IDENTIFY DEVICE */
    [0xef] = PLAN(plan_set_features),           /* SET FEATURES */
    [0xf8] = PLAN(plan_native_max),             /* READ NATIVE MAX ADDRESS */
};

/* A disk whose queue failed does nothing but tell why. Serial ATA 3.1, 13.6.3.4 "Queue Abort" */
static bool allowed(const struct ata_disk *d, const struct ata_cmd *c)
{
    bool log = c->in.command == 0x2f || c->in.command == 0x47;
    return !d->queue_failed || (log && (c->in.lba & 0xff) == LOG_NCQ);
}

void ata_begin(struct ata_disk *d, struct ata_cmd *c)
{
    const struct command *k = &commands[c->in.command];
    *c = (struct ata_cmd){.in = c->in, .status = ATA_READY};
    if (k->plan == plan_rw) {
        c->protocol = (uint8_t)rw_protocol(k->how);
        rw_registers(c, k->how);
    }
    if (!k->plan || !allowed(d, c))
        refuse(c, ATA_ABRT);
    else
        k->plan(d, c, k->how);
}

/* Where it failed goes back in the LBA registers. */
static void answer_lba(struct ata_cmd *c, uint64_t at)
{
    unsigned how = commands[c->in.command].how;
    if (c->op != ATA_OP_READ && c->op != ATA_OP_WRITE && c->op != ATA_OP_VERIFY)
        return;
    c->in.lba = how & (EXT | NCQ) ? at : at & 0xffffff;
    if (!(how & (EXT | NCQ)))
        c->in.device = (uint8_t)((c->in.device & 0xf0) | (at >> 24 & 0x0f));
}

/* A sector that cannot be written is not found, which is what disks say that have no spare one left; it concerns the
 * sector, where a device fault would concern the disk. */
void ata_end(struct ata_disk *d, struct ata_cmd *c, int result, uint64_t at)
{
    enum ata_op op = c->op;
    if (!result)
        return;
    answer_lba(c, at);
    if (op == ATA_OP_READ || op == ATA_OP_VERIFY)
        refuse(c, ATA_UNC);
    else
        refuse(c, op == ATA_OP_WRITE && result != -EROFS ? ATA_IDNF : ATA_ABRT);
    if (op == ATA_OP_FLUSH)
        c->status |= ATA_DF;
}

/* ---- TRIM. ACS-3, 7.5 "DATA SET MANAGEMENT" ---- */
uint64_t ata_trim_range(const struct ata_disk *d, unsigned i, uint32_t *n)
{
    uint64_t range = i < TRIM_RANGES ? ld64(d->buf + 8 * i) : 0;
    *n = (uint32_t)(range >> 48);
    return range & LBA48_SECTORS;
}

bool ata_trim_valid(const struct ata_disk *d, uint32_t len)
{
    for (unsigned i = 0; i < len / 8; i++) {
        uint32_t n;
        uint64_t lba = ata_trim_range(d, i, &n);
        if (n && (lba > capacity(d) || n > capacity(d) - lba))
            return false;
    }
    return true;
}

/* ---- the queue's end. ACS-3, 9.14 "NCQ Command Error log" ---- */
void ata_queue_fail(struct ata_disk *d, const struct ata_cmd *c, bool queued)
{
    uint8_t *log = d->ncq_log, sum = 0;
    memset(log, 0, ATA_SECTOR);
    log[0] = queued ? c->tag : 0x80;
    log[2] = c->status;
    log[3] = c->error;
    for (unsigned i = 0; i < 3; i++) {
        log[4 + i] = (uint8_t)(c->in.lba >> 8 * i);
        log[8 + i] = (uint8_t)(c->in.lba >> (24 + 8 * i));
    }
    log[7] = c->in.device;
    st16(log + 12, c->in.count);
    for (unsigned i = 0; i < 511; i++)
        sum = (uint8_t)(sum + log[i]);
    log[511] = (uint8_t)-sum;
    d->queue_failed = true;
}

/* ---- resets ---- */
void ata_reset(struct ata_disk *d)
{
    d->power = POWER_ACTIVE;
    d->queue_failed = false;
    memset(d->ncq_log, 0, sizeof d->ncq_log);
    d->ncq_log[0] = 0x80;
    d->ncq_log[511] = 0x80;
}

void ata_power_on(struct ata_disk *d, const struct ata_config *c)
{
    *d = (struct ata_disk){.cfg = *c,
                           .speed = 3,
                           .write_cache = true,
                           .look_ahead = true,
                           .multiple = MULTIPLE_MAX,
                           .transfer_mode = TRANSFER_UDMA | 6};
    ata_reset(d);
}
