/* An ATA disk: what a command asks for, and what the device answers. ACS-3 (ATA/ATAPI Command Set - 3); for queued
 * commands, Serial ATA 3.1, 13.6 "Native Command Queuing". LBA only, 512-byte logical sectors.
 *
 * Nothing here moves data or waits. ata_begin() turns a command's registers into a plan; who owns the disk carries it
 * out (ahci_cmd.c) and says ata_end(). One owner, one thread.
 */
#ifndef HEC_DEV_ATA_H
#define HEC_DEV_ATA_H

#include <stdbool.h>
#include <stdint.h>

#define ATA_SECTOR  512u
#define ATA_QUEUE   32u
#define ATA_BUF_LEN (8u * ATA_SECTOR) /* most a plan takes from or gives to struct ata_disk's own buffer */

enum ata_status { ATA_ERR = 0x01, ATA_DRQ = 0x08, ATA_DSC = 0x10, ATA_DF = 0x20, ATA_DRDY = 0x40, ATA_BSY = 0x80 };
enum ata_error { ATA_ABRT = 0x04, ATA_IDNF = 0x10, ATA_UNC = 0x40 };

#define ATA_READY     (ATA_DRDY | ATA_DSC)
#define ATA_SIGNATURE 0x00000101u /* LBA 23:0 and count after a reset: a disk */

enum ata_protocol { ATA_NODATA, ATA_PIO_IN, ATA_PIO_OUT, ATA_DMA_IN, ATA_DMA_OUT, ATA_NCQ_IN, ATA_NCQ_OUT };

enum ata_op {
    ATA_OP_NONE,   /* done, or refused: `status` says */
    ATA_OP_DATA,   /* `len` bytes of the disk's buffer to the host */
    ATA_OP_READ,   /* `sectors` from `lba` on, to the host */
    ATA_OP_WRITE,  /* likewise from the host; `fua` */
    ATA_OP_VERIFY, /* read, but give nothing */
    ATA_OP_FLUSH,
    ATA_OP_TRIM, /* `len` bytes of ranges from the host into the buffer, then ata_trim_range() */
    ATA_OP_SLEEP /* no answer until a reset */
};

struct ata_regs { /* as a Register FIS carries them. Serial ATA 3.1, 10.3.4 "Register - Host to Device" */
    uint8_t command, device;
    uint16_t feature, count;
    uint64_t lba; /* 48 bits */
};

struct ata_cmd {
    struct ata_regs in; /* the caller's; ata_begin() and ata_end() leave in it what goes back to the host */
    uint8_t status;     /* of the answer; ATA_ERR is set if it failed */
    uint8_t error;      /* likewise */
    uint8_t tag;        /* of a queued command */
    bool fua;           /* on stable storage before it is answered */
    uint8_t protocol;   /* enum ata_protocol */
    uint8_t op;         /* enum ata_op */
    uint8_t drq;        /* sectors of a PIO data block */
    uint64_t lba;       /* first sector */
    uint32_t sectors;   /* 1 .. 65536 */
    uint32_t len;       /* bytes of ATA_OP_DATA and ATA_OP_TRIM */
};

struct ata_config {
    uint64_t sectors;
    unsigned physical; /* bytes of a physical sector */
    bool discard;      /* TRIM reaches the image */
    char serial[21], model[41];
};

struct ata_disk {
    struct ata_config cfg; /* (c) */
    uint8_t speed;         /* the link's generation, 1 .. 3, for IDENTIFY */
    bool write_cache, look_ahead;
    uint8_t multiple;            /* sectors; 0: READ/WRITE MULTIPLE are off */
    uint8_t transfer_mode;       /* as SET FEATURES has it */
    uint8_t power;               /* CHECK POWER MODE's answer */
    bool queue_failed;           /* until log 10h is read or a reset comes, nothing else is done */
    uint8_t ncq_log[ATA_SECTOR]; /* log 10h */
    uint8_t buf[ATA_BUF_LEN];
};

/* Whether it is one of the queued commands: c->in alone counts. */
static inline bool ata_queued(const struct ata_cmd *c)
{
    return (c->in.command & 0xfe) == 0x60; /* READ and WRITE FPDMA QUEUED */
}

void ata_power_on(struct ata_disk *d, const struct ata_config *c);
/* COMRESET or SRST. Settings are kept: software settings preservation is on. */
void ata_reset(struct ata_disk *d);
/* What `c->in` asks for, into the rest of `c`. An op other than ATA_OP_NONE has status ATA_READY for now. */
void ata_begin(struct ata_disk *d, struct ata_cmd *c);
/* The op is done: `result` 0 or the image's -errno, which hit at sector `at`. */
void ata_end(struct ata_disk *d, struct ata_cmd *c, int result, uint64_t at);
/* Whether all the ranges that were brought into the buffer are on the disk; if not, ata_end() with -EINVAL. */
bool ata_trim_valid(const struct ata_disk *d, uint32_t len);
/* Range `i` of the buffer: its first sector, and in *n how many (0: none). */
uint64_t ata_trim_range(const struct ata_disk *d, unsigned i, uint32_t *n);
/* A queued command has failed, as `c` says, or (`queued` false) a command came that may not come while there are queued
 * ones: fill log 10h. The queue is gone until it is read. */
void ata_queue_fail(struct ata_disk *d, const struct ata_cmd *c, bool queued);

#endif
