/* fw_cfg: how firmware and payloads ask the machine about itself. Layout and DMA as QEMU's docs/specs/fw_cfg has them:
 * selector (16 bits) at 510h, data (bytes) at 511h, DMA address (big-endian, high half first) at 514h-51Bh.
 */
#ifndef HEC_DEV_FW_CFG_H
#define HEC_DEV_FW_CFG_H

#include "mem/bus.h"
#include "mem/ram.h"

#define FW_CFG_PORT      0x510u
#define FW_CFG_MAX_FILES 64u
#define FW_CFG_NAME_MAX  56u /* with its final zero */

struct fw_cfg_config { /* all borrowed for the device's life */
    struct bus *ports;
    const struct ram *ram; /* DMA reaches nothing else */
    uint64_t ram_size;     /* selector 3 */
    uint32_t cpus;         /* selector 5 (u16, at most 65535) */
    uint32_t max_cpus;     /* selector Fh */
};

struct fw_cfg_file {
    char name[FW_CFG_NAME_MAX];
    const uint8_t *data; /* borrowed */
    uint32_t len;
};

struct fw_cfg {
    struct fw_cfg_config cfg;                                       /* (c) */
    struct fw_cfg_file files[FW_CFG_MAX_FILES];                     /* (c) while vCPUs run; sorted by name */
    uint32_t file_count;                                            /* (c) while vCPUs run */
    uint8_t directory[4 + 64 * FW_CFG_MAX_FILES];                   /* (c) while vCPUs run */
    uint8_t signature[4], id[4], ram_size[8], cpus[2], max_cpus[2]; /* (c) */
    pthread_mutex_t lock;
    const uint8_t *item; /* (l) selected item, NULL if there is none */
    uint32_t item_len;   /* (l) */
    uint32_t offset;     /* (l) next byte; reads past the end give zeros */
    uint64_t dma_addr;   /* (l) what was written to 514h */
};

/* ---- lifecycle ---- */
int fw_cfg_init(struct fw_cfg *f, const struct fw_cfg_config *c, struct err *e);
void fw_cfg_fini(struct fw_cfg *f);
void fw_cfg_reset(struct fw_cfg *f);
/* Add a named file, or replace the one of that name; no vCPU runs. `data` is borrowed until fini. -EINVAL for a name
 * that is too long, -ENOSPC when the directory is full. */
int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, uint32_t len, struct err *e);

#endif
